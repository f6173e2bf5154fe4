"""What a step costs: measured before a training, halved by checkpointing, in precisions that a device has."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs the 'train' extra")

from matting_compose.composer.base.errors import TrainingError  # noqa: E402 (only once torch is known to be there)
from matting_compose.trainer.networks.network import MattingNetwork  # noqa: E402
from matting_compose.trainer.networks.recompute import recompute_features  # noqa: E402
from matting_compose.trainer.training import learner, measure, plan  # noqa: E402
from matting_compose.trainer.training.config import load_config  # noqa: E402
from matting_compose.trainer.training.loop import train  # noqa: E402
from matting_compose.trainer.training.measure import _noise, measure_step  # noqa: E402
from runs import CPU, TINY, arguments, command, same, tiny  # noqa: E402


def steps(count: int, *more: str) -> dict[str, Any]:
    """Take steps on noise; return the state, with the numbers of each."""
    own = any(item.startswith("network.name") for item in more)
    items = [item for item in TINY if not (own and item.startswith("network."))]
    config = load_config(None, [*items, "stream.crop=64", *(() if own else ("network.norm=batch",)), *more])
    taken = learner.Learner(config, CPU)
    numbers = [taken.step(i, [_noise(2, 64, False)]).numbers for i in range(count)]
    return taken.state() | {"numbers": numbers}


@pytest.mark.parametrize(
    "network", [("network.decoder=unpool",), ("network.decoder=resize",), ("network.name=colournet",)]
)
def test_checkpointing_changes_nothing_but_memory(network: tuple[str, ...]) -> None:
    """Weights, averages and the statistics of normalisation, to the last bit."""
    one, other = (steps(2, *network, *more) for more in ((), ("network.checkpointing=true",)))
    assert same(one, other)


def test_checkpointing_keeps_fewer_features() -> None:
    """For the gradient a convolution's output is kept without it, and none within a block with it."""
    kept = []
    for checkpointing in (False, True):
        network = learner.build_network("mnet", {"width": 0.03, "decoder": "resize"})
        if checkpointing:
            recompute_features(network)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            network(torch.rand(1, 6, 64, 64)).mean()
        kept.append(sum(sizes))
    assert kept[1] < 0.6 * kept[0]


def test_a_network_without_blocks_says_so() -> None:
    """What it lacks, and how it could have it."""

    class Bare(MattingNetwork):
        def __init__(self) -> None:
            super().__init__()
            self.only = torch.nn.Conv2d(6, 1, 1)

    with pytest.raises(TrainingError, match=r"Bare has no blocks: .*blocks\(\)"):
        recompute_features(Bare())


def test_a_dry_run_measures_a_step(finished: Path, tmp_path: Path) -> None:
    """For people and for scripts: seconds, crops, hours and memory that fit each other."""
    told = command(*arguments(finished, tmp_path / "run", "--dry-run"))
    assert "a step takes" in told.out
    assert "crops/s" in told.out
    found = command(*arguments(finished, tmp_path / "run", "--dry-run", "--json")).json["step"]
    assert found["crops_per_second"] == pytest.approx(2 / found["seconds"])
    assert found["hours"] == pytest.approx(7 * found["seconds"] / 3600)
    assert found["memory"] > 10**7
    assert (found["estimated"], found["largest_batch"]) == (False, None)


def test_a_slow_step_is_judged_by_few_small_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU nobody waits for a batch that takes a minute; what is measured is told before it is."""
    taken, told = [], []

    def timed(learner: Any, config: Any, runtime: Any, count: int, side: int) -> float:
        taken.append((count, side))
        return 1.5 * count * (side / 256) ** 2

    monkeypatch.setattr(measure, "_timed", timed)
    found = measure_step(tiny("stream.batch=16", "stream.crop=256", "optimiser.accumulate=2"), CPU, told.append)
    assert (set(taken), found.estimated, found.seconds, found.memory) == ({(2, 64)}, True, 48, None)
    assert told == ["measuring a step of 32 crops of noise, 256 px wide, on cpu …"]
    assert str(found).startswith("a step takes about 48 s: ")
    weeks = str(replace(found, seconds=3660, hours=101_741))
    assert weeks.startswith("a step takes about 1:01:00: ")
    assert "4,239 days to the end" in weeks


def test_advice_where_a_step_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run ends with what to change, not with an error; a line through two peaks says what would fit."""

    def too_small(*_: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(plan, "measure_step", too_small)
    empty = plan.TrainingPlan([], {}, 1, 2, 3, 1, "cuda", [])
    (advice,) = plan.measured(empty, tiny("stream.batch=16"), CPU, print).warnings
    assert "stream.batch=8 with optimiser.accumulate=2" in advice
    gpu = replace(CPU, device=torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5 * 10**9)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 20 * 10**9))
    assert measure._largest_batch(gpu, 2, 10**9, 10) == 2 + 34  # 0.5 GB a crop; 17 GB beside the first two
    assert measure._largest_batch(CPU, 2, 10**9, 10) is None


def test_fp16_is_for_gpus(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused elsewhere, before anything is written; MPS and old GPUs have no bf16 either."""
    done = command(*arguments(finished, tmp_path / "run", "--set=precision=fp16"))
    assert (done.code, "precision=fp16 is for CUDA GPUs" in done.err) == (1, True)
    assert not (tmp_path / "run").exists()
    with pytest.raises(TrainingError, match="not for MPS"):
        learner.settle_precision(torch.device("mps"), "bf16")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(TrainingError, match="Tesla T4 has no bf16: take fp16"):
        learner.settle_precision(torch.device("cuda"), "bf16")


def test_the_precision_that_was_chosen_is_kept(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that multiplies bf16 takes it unasked; a run goes on in what it began with, on any other."""
    has = {"avx512_bf16": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    config = tiny("precision=auto", "steps=1", "stream.workers=0")
    train(finished, tmp_path / "run", config, CPU)
    has["avx512_bf16"] = False
    assert learner.settle_precision(CPU.device, "auto") == "float32"
    train(finished, tmp_path / "run", config.model_copy(update={"steps": 2}), CPU, resume=True)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["precision"] == "bf16"


def test_fp16_scales_and_leaves_out_what_overflows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps learn, one whose gradients overflow changes no weight and is finite for the loop; the scale is kept."""
    monkeypatch.setattr(learner, "settle_precision", lambda _, precision: precision)
    taken = learner.Learner(tiny("precision=fp16", "optimiser.ema=0"), CPU)
    batch = _noise(2, 32, False)
    taken._scaler._init_scale = 2.0**120
    before = {key: value.clone() for key, value in taken.network.named_parameters()}
    left_out = taken.step(0, [batch])
    assert same(before, dict(taken.network.named_parameters()))
    assert bool(left_out.numbers.isfinite().all())
    taken._scaler.update(1024.0)
    first = taken.step(1, [batch])
    assert not same(before, dict(taken.network.named_parameters()))
    assert float(first.numbers[1]) > 0
    again = learner.Learner(tiny("precision=fp16", "optimiser.ema=0"), CPU)
    again.load(taken.state(), Path("last.pt"))
    assert same(again.step(2, [batch]).numbers, taken.step(2, [batch]).numbers)
    assert "scaler" not in learner.Learner(tiny(), CPU).state()
