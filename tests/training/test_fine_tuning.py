"""Trainings that start from weights, and networks of which parts do not learn."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs the 'train' extra")

from matting_compose.composer.base.errors import TrainingError  # noqa: E402 (only once torch is known to be there)
from matting_compose.trainer import MNet, open_stream  # noqa: E402
from matting_compose.trainer.networks.fine_tune import freeze, init_weights  # noqa: E402
from matting_compose.trainer.training.learner import Learner  # noqa: E402
from runs import CPU, arguments, command, same, state, tiny, train_in_process  # noqa: E402
from small_networks import lively  # noqa: E402


def test_weights_are_taken_by_name_and_shape(tmp_path: Path) -> None:
    """What fits is taken; the rest is counted and named, and stays as it was."""
    given, network, path = lively(1), lively(2), tmp_path / "weights.pth"
    weights = {key: value for key, value in given.state_dict().items() if not key.startswith("decoder.4")}
    weights["alpha.weight"] = torch.zeros(1, 8, 3, 3)
    weights["head.bias"] = torch.zeros(3)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    torch.save(weights, path)
    report = init_weights(network, path)
    assert report.misfits == ["alpha.weight (1, 8, 3, 3) for (1, 8, 5, 5)"]
    assert report.unused == ["head.bias"]
    assert all(key.startswith("decoder.4") for key in report.kept)
    for key, value in network.state_dict().items():
        assert torch.equal(value, weights[key] if key in report.loaded else before[key])
    assert "1 of another shape: alpha.weight" in str(report)


@pytest.mark.parametrize("wrap", [{"state_dict": "module."}, {"model": "_orig_mod."}, {"model_state_dict": ""}])
def test_weights_of_other_programs_are_found(wrap: dict[str, str], tmp_path: Path) -> None:
    """Under the names, and with the prefixes, that DataParallel, torch.compile and Lightning give."""
    ((name, prefix),) = wrap.items()
    given = lively(1)
    weights = {f"{prefix}{key}": value for key, value in given.state_dict().items()}
    torch.save({name: weights, "epoch": 3}, tmp_path / "w.ckpt")
    network = lively(2)
    assert init_weights(network, tmp_path / "w.ckpt").kept == []
    assert same(network.state_dict(), given.state_dict())


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    """Missing, damaged, of another network, not finite: told with the file's name."""
    network, path = lively(), tmp_path / "weights.pth"
    with pytest.raises(TrainingError, match=r"weights\.pth: cannot be read"):
        init_weights(network, path)
    path.write_bytes(b"<html>")
    with pytest.raises(TrainingError, match="damaged"):
        init_weights(network, path)
    torch.save({"conv1.weight": torch.zeros(3)}, path)
    with pytest.raises(TrainingError, match="none of its weights fits MNet"):
        init_weights(network, path)
    torch.save({key: value * float("nan") for key, value in network.state_dict().items()}, path)
    with pytest.raises(TrainingError, match="not finite"):
        init_weights(network, path)


def test_frozen_parts_do_not_learn(finished: Path) -> None:
    """Their weights and their normalisation's statistics stay; the rest moves."""
    learner = Learner(tiny("network.freeze=['encoder']", "network.norm=batch"), CPU)
    before = {key: value.clone() for key, value in learner.network.state_dict().items()}
    learner.step(0, [next(iter(open_stream(finished, batch=2, crop=32, sizes=(32,))))])
    moved = {key for key, value in learner.network.state_dict().items() if not torch.equal(value, before[key])}
    assert not any(key.startswith("encoder") for key in moved)
    assert {"alpha.weight", "decoder.0.0.weight", "decoder.0.1.running_mean"} <= moved


def test_parts_learn_at_rates_of_their_own(finished: Path) -> None:
    """A factor of the rate for parts by their names; of several that fit, the longest name's. Resumed, it stays."""
    learner = Learner(tiny("optimiser.factors={encoder=0.1,'encoder.0'=0.5}", "optimiser.rate=1e-3"), CPU)
    before = {name: parameter.detach().clone() for name, parameter in learner.network.named_parameters()}
    learner.step(0, [next(iter(open_stream(finished, batch=2, crop=32, sizes=(32,))))])
    moved = {name: (p.detach() - before[name]).abs().max() for name, p in learner.network.named_parameters()}
    # Adam's first step is the rate itself wherever there is a gradient.
    for part, rate in (("encoder.0.0.weight", 5e-4), ("encoder.2.0.weight", 1e-4), ("alpha.weight", 1e-3)):
        assert float(moved[part]) == pytest.approx(rate, rel=1e-2)
    assert [group["factor"] for group in learner.state()["optimiser"]["param_groups"]] == [0.5, 0.1, 1.0]
    with pytest.raises(TrainingError, match="no part 'head'"):
        Learner(tiny("optimiser.factors={head=2.0}"), CPU)


def test_parts_that_are_not_there_are_named() -> None:
    """So is a network of which nothing is left to learn."""
    with pytest.raises(TrainingError, match="has no part 'encodr'; there are encoder, decoder, alpha"):
        freeze(MNet(width=0.03), ["encodr"])
    with pytest.raises(TrainingError, match="nothing is left"):
        freeze(MNet(width=0.03), ["encoder", "decoder", "alpha"])


def test_a_training_starts_from_a_checkpoint(finished: Path, whole: Path, tmp_path: Path) -> None:
    """--init takes a run's averaged weights and says so, in the dry run too; resumed, the file is not needed."""
    file = tmp_path / "start.pt"
    file.write_bytes((whole / "last.pt").read_bytes())
    for given in (file, whole):
        plan = command(*arguments(finished, tmp_path / "run", "--init", str(given), "--dry-run"))
        assert "init: 74 tensors loaded" in plan.out
    config = tiny(f"network.init={file}", "optimiser.rate=1e-12", "steps=1")
    train_in_process(finished, tmp_path / "run", config)
    begun, given = state(tmp_path / "run" / "last.pt")["model"], state(whole / "last.pt")["ema"]
    for key, value in given.items():
        torch.testing.assert_close(begun[key], value)
    file.unlink()
    done = command(str(finished), "--out", str(tmp_path / "run"), "--resume", "--steps=2", "--device=cpu")
    assert done.code == 0, done.err
    assert state(tmp_path / "run" / "last.pt")["step"] == 2
