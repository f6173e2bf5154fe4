"""T-Net and SHM whole are trained as any network is: validated by their own errors, resumed to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the 'train' extra")

from matting_compose.composer.base.errors import RecipeError, TrainingError  # noqa: E402
from matting_compose.trainer import SHM, cli  # noqa: E402
from matting_compose.trainer.networks.fine_tune import init_parts  # noqa: E402
from matting_compose.trainer.networks.registry import build_network  # noqa: E402
from matting_compose.trainer.training.config import Config, load_config  # noqa: E402
from matting_compose.trainer.training.judges import trimap_errors  # noqa: E402
from matting_compose.trainer.training.records import read_records  # noqa: E402
from runs import asked_at, same, state, train_in_process  # noqa: E402

FEW = ("steps=3", "log_every=1", "save_every=100", "stream.batch=2", "stream.crop=48", "stream.workers=0",
       "validation.every=3", "validation.limit=2", "validation.panel=1", "network.encoder=random")  # fmt: skip


def few(name: str, *more: str) -> Config:
    """Configure three steps of two crops."""
    return load_config(name, (*FEW, *more))


def test_tnet_learns_trimaps_and_goes_on_as_it_would_have(finished: Path, tmp_path: Path) -> None:
    """Its errors are a trimap's; dropout and all, a run that stopped ends in the bits of one that did not."""
    whole = train_in_process(finished, tmp_path / "whole", few("shm-tnet-small"))
    assert whole.best_score is not None
    validations = [r for r in read_records(tmp_path / "whole") if r["kind"] == "validation"]
    assert [v["what"] for v in validations] == ["nobody there", "network"]
    assert 0 <= validations[1]["iou_unknown"] <= 1
    assert "trimap_error" in (tmp_path / "whole" / "index.html").read_text()
    stopped = train_in_process(finished, tmp_path / "parts", few("shm-tnet-small"), on_progress=asked_at(1))
    assert stopped.stopped
    train_in_process(finished, tmp_path / "parts", few("shm-tnet-small"), resume=True)
    assert same(state(tmp_path / "whole" / "last.pt"), state(tmp_path / "parts" / "last.pt"))


def test_the_whole_is_trained_and_validated_without_a_trimap(finished: Path, tmp_path: Path) -> None:
    """End to end on patches; what is scored is the whole picture's alpha."""
    config = few(
        "shm-small", "network.arguments.patch=32", "network.arguments.patches=[32]", "steps=1", "validation.every=1"
    )
    train_in_process(finished, tmp_path / "run", config)
    last = read_records(tmp_path / "run")[-1]
    assert (last["kind"], last["what"]) == ("validation", "network")
    assert 0 < last["sad"] < 1000


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["network.name=tnet"], "'alpha_prediction' compares 'alpha', and tnet gives trimap, auxiliary"),
        (["network.name=tnet", "losses={trimap=1}", "stream.batch=1"], "tnet normalises over crops.*at least 2"),
        (["losses={trimap=1}"], "'trimap' compares 'trimap', and mnet gives alpha"),
    ],
)
def test_what_cannot_be_trained_is_refused(items: list[str], message: str) -> None:
    """Before anything is read."""
    with pytest.raises(RecipeError, match=message):
        load_config(None, items)


def test_errors_of_trimaps_are_counted() -> None:
    """Against pixels counted one by one."""
    rng = np.random.default_rng(0)
    one, other = rng.choice(np.array([0, 128, 255], np.uint8), (2, 13, 17))
    alpha = rng.integers(0, 256, (13, 17)).astype(np.uint8)
    found = trimap_errors(one, other, alpha)
    pairs = list(zip(one.ravel().tolist(), other.ravel().tolist(), alpha.ravel().tolist(), strict=True))
    assert found["accuracy"] == pytest.approx(sum(a == b for a, b, _ in pairs) / len(pairs))
    for name, level in (("background", 0), ("foreground", 255), ("unknown", 128)):
        both = sum(a == b == level for a, b, _ in pairs)
        assert found[f"iou_{name}"] == pytest.approx(both / sum(level in (a, b) for a, b, _ in pairs))
    soft = [a for a, _, alpha in pairs if 0 < alpha < 255]
    assert found["soft_covered"] == pytest.approx(soft.count(128) / len(soft))
    assert trimap_errors(one, one, np.zeros_like(one))["trimap_error"] == 0


def test_the_whole_starts_from_two_runs(tmp_path: Path) -> None:
    """Each half from its file, all of it; a half that is built otherwise is refused."""
    network = build_network("shm", {"tnet": {"encoder": "lite0"}, "mnet": {"width": 0.125}})
    assert isinstance(network, SHM)
    other = build_network("shm", {"tnet": {"encoder": "lite0"}, "mnet": {"width": 0.125}})
    files = {}
    for part in ("tnet", "mnet"):
        files[part] = str(tmp_path / f"{part}.pth")
        torch.save(network.get_submodule(part).state_dict(), files[part])
    report = init_parts(other, files)
    assert report.startswith("tnet: ")
    assert "; mnet: " in report
    assert same(dict(other.state_dict()), dict(network.state_dict()))
    wide = build_network("shm", {"tnet": {"encoder": "lite0"}, "mnet": {"width": 0.25}})
    with pytest.raises(TrainingError, match=r"does not fill mnet|none of its weights fits|of another shape"):
        init_parts(wide, files)
    with pytest.raises(TrainingError, match="has no part 'net'; there are tnet, mnet"):
        init_parts(other, {"net": files["tnet"]})
    assert cli._init(("a=b",)) == '{a = "b"}'
    assert cli._init((files["tnet"],)).startswith('"')
