"""What a training's step takes on a processor, in which ways, and which of its parts: CPU time, in turn, in one run.

    python bench/step.py --config cpu-small --rounds 9
    python bench/step.py --config cpu-small --ways float32 compile --rounds 9

Crops are noise. A round takes one step in each way, one thread each; bf16 is slow where the processor has no
instructions for it. Parts are measured by themselves: optimisers on the network's weights, losses with their gradients.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from matting_compose.trainer.networks.losses import LOSSES
from matting_compose.trainer.training.config import Config, load_config
from matting_compose.trainer.training.learner import Learner
from matting_compose.trainer.training.measure import _noise
from matting_compose.trainer.training.runtime import Runtime, open_runtime

WAYS: dict[str, dict[str, Any]] = {
    "float32": {"precision": "float32", "compile": False},
    "without channels_last": {"precision": "float32", "compile": False, "channels_last": False},
    "bf16": {"precision": "bf16", "compile": False},
    "compile": {"precision": "float32", "compile": True},
}
OPTIMISERS: dict[str, dict[str, bool]] = {"one by one": {}, "foreach": {"foreach": True}, "fused": {"fused": True}}


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds of CPU time that work takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def steps(config: Config, runtime: Runtime, options: argparse.Namespace) -> dict[str, list[float]]:
    """Take steps in every way, in turn."""
    batch = _noise(config.stream.batch, config.stream.crop, config.composes)
    learners = {way: Learner(config.model_copy(update=WAYS[way]), runtime, True) for way in options.ways}
    for learner in learners.values():
        learner.step(0, [batch])  # kernels, memory, compilation
        learner.step(0, [batch])
    found: dict[str, list[float]] = {way: [] for way in learners}
    for _ in range(options.rounds):
        for way, learner in learners.items():
            found[way].append(timed(lambda learner=learner: learner.step(0, [batch])))  # type: ignore[misc]
    return found


def parts(config: Config, runtime: Runtime, options: argparse.Namespace) -> dict[str, list[float]]:
    """Take parts of a step, in turn."""
    batch = _noise(config.stream.batch, config.stream.crop, config.composes)
    learner = Learner(config, runtime, True)
    learner.step(0, [batch])
    given = learner._give(batch)
    weights = [weight for weight in learner.network.parameters() if weight.grad is not None]
    work: dict[str, Callable[[], Any]] = {"what the network is given": lambda: learner._give(batch)}
    for name, how in OPTIMISERS.items():
        work[f"AdamW, {name}"] = torch.optim.AdamW(weights, **how).step
    if learner.ema is not None:
        work["average of the weights"] = lambda: learner._update_ema(learner.ema, 9)  # type: ignore[arg-type]
    alpha = torch.rand_like(given.unknown, dtype=torch.float32).requires_grad_()

    def loss(name: str) -> None:
        LOSSES[name](learner._compare(given, {"alpha": alpha}, given.unknown.sum())).backward()

    for name in learner.losses:
        work[f"loss {name}"] = lambda name=name: loss(name)  # type: ignore[misc]
    for part in work.values():
        part()
    return {name: [timed(part) for _ in range(options.rounds)] for name, part in work.items()}


def show(title: str, found: dict[str, list[float]], base: list[float]) -> None:
    """Print medians, ranges and the shares of a step."""
    print(f"| {title} | ms | of a step |\n|---|---|---|")
    for name, values in found.items():
        low, high = (f"{1e3 * value:.3g}" for value in (min(values), max(values)))
        middle = statistics.median(values)
        print(f"| {name} | {1e3 * middle:.3g} ({low}–{high}) | {middle / statistics.median(base):.3f} |")


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="cpu-small")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(options.config, options.set)
    with open_runtime("cpu") as runtime:
        found = steps(config, runtime, options)
        base = found[options.ways[0]]
        per_second = config.stream.batch / statistics.median(base)
        print(
            f"{config.stream.batch} crops of {config.stream.crop} px: {per_second:.2f} crops per second of one core\n"
        )
        show("a step", found, base)
        print()
        show("a part", parts(config, runtime, options), base)


if __name__ == "__main__":
    main()
