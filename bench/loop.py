"""Compare a training's steps with what they are at least: forward, backward and step on one batch that is there.

    python bench/loop.py demo --config demo --rounds 7 --steps 20

Both alternate in one process, round by round, on one network: a round of the whole loop (stream, workers, meter,
journal; no validation, no checkpoint), then one of bare steps on a fixed batch. The dataset is best in the page cache.
The interval is that of the mean of the rounds' ratios, by Student's t.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from matting_compose.composer.base.progress import Progress
from matting_compose.trainer.data.stream import Batch
from matting_compose.trainer.training import loop
from matting_compose.trainer.training.config import load_config
from matting_compose.trainer.training.learner import Learner, StepResult
from matting_compose.trainer.training.records import read_records
from matting_compose.trainer.training.runtime import open_runtime


class Clocks(NamedTuple):
    """Seconds by the wall's clock, and of this process's CPU: what other work on the machine does not blur."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Clocks:
        """Read them."""
        return cls(time.perf_counter(), time.process_time())

    def since(self, steps: int) -> Clocks:
        """Return what has passed since then, a step."""
        wall, cpu = Clocks.now()
        return Clocks((wall - self.wall) / steps, (cpu - self.cpu) / steps)


class Rounds:
    """Answers each line of the loop with a round of bare steps, and keeps both times."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.learner: Learner | None = None
        self.batches: list[Batch] = []
        self.whole: list[Clocks] = []
        self.bare: list[Clocks] = []
        self.began = Clocks.now()

    def __call__(self, progress: Progress) -> None:
        """Time a round of bare steps."""
        self.whole.append(self.began.since(self.steps))
        assert self.learner is not None
        start = Clocks.now()
        for number in range(self.steps):
            step = BARE(self.learner, progress.done + number, self.batches)
        step.numbers.tolist()  # waits for the device
        self.bare.append(start.since(self.steps))
        self.began = Clocks.now()


BARE = Learner.step


def watched(rounds: Rounds) -> Any:
    """Let the loop's own learner and batches be known to the rounds."""

    def step(learner: Learner, number: int, batches: list[Batch]) -> StepResult:
        rounds.learner, rounds.batches = learner, rounds.batches or batches
        return BARE(learner, number, batches)

    return step


def quartiles(values: list[float]) -> str:
    """Say a median and the middle half, in thousandths."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle * 1e3:.1f} ({low * 1e3:.1f}–{high * 1e3:.1f})"


def interval(ratios: list[float]) -> str:
    """Say a mean and its 95 % interval; nothing of fewer than ten."""
    if len(ratios) < 10:
        return ""
    from scipy.stats import t

    half = t.ppf(0.975, len(ratios) - 1) * statistics.stdev(ratios) / len(ratios) ** 0.5
    mean = statistics.mean(ratios)
    return f", mean {mean:.4f} [{mean - half:.4f}, {mean + half:.4f}]"


def lines(rounds: Rounds, waiting: list[float], device: torch.device) -> Iterator[str]:
    """Say what was found, the first round, in which workers start, left out."""
    count, threads = len(rounds.whole) - 1, torch.get_num_threads()
    yield f"{count} rounds of {rounds.steps} steps, {device}, {threads} threads; medians (middle half), ms a step"
    for clock in ("wall", "cpu"):
        bare, whole = ([getattr(c, clock) for c in clocks[1:]] for clocks in (rounds.bare, rounds.whole))
        ratios = [a / b for a, b in zip(whole, bare, strict=True)]
        ratio = f"{statistics.median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f}){interval(ratios)}"
        yield f"{clock:5}  bare {quartiles(bare)}  loop {quartiles(whole)}  ratio (least–most) {ratio}"
    yield f"waiting {statistics.median(waiting[1:]):.2%} of the time"


def main() -> None:
    """Print four lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--config", default="demo")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    more = (f"steps={options.steps * (options.rounds + 1)}", f"log_every={options.steps}", "save_every=1000000")
    rounds = Rounds(options.steps)
    Learner.step = watched(rounds)  # type: ignore[method-assign]
    loop.open_validation_sets = lambda *_: []  # type: ignore[assignment]
    config = load_config(options.config, (*options.set, *more))
    with tempfile.TemporaryDirectory() as folder, open_runtime() as runtime:
        run = Path(folder) / "run"
        loop.train(options.dataset, run, config, runtime, rounds)
        waiting = [record["waiting"] for record in read_records(run) if record["kind"] == "train"]
        print("\n".join(lines(rounds, waiting, runtime.device)))


if __name__ == "__main__":
    main()
