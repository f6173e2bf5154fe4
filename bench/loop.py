"""Compare a training's steps with what they are at least: forward, backward and step on one batch that is there.

    python bench/loop.py demo --config demo --rounds 7 --steps 20

Both alternate in one process, round by round, on one network: a round of the whole loop (stream, workers, meter,
journal; no validation, no checkpoint), then one of bare steps on a fixed batch. The dataset is best in the page cache.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from matting_compose.trainer import loop
from matting_compose.trainer.config import load_config
from matting_compose.trainer.journal import Line
from matting_compose.trainer.learner import Learner, Step
from matting_compose.trainer.place import take_place
from matting_compose.trainer.stream import Batch


class Rounds:
    """A display that answers each line of the loop with a round of bare steps, and keeps both times."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.learner: Learner | None = None
        self.batches: list[Batch] = []
        self.whole: list[float] = []
        self.bare: list[float] = []
        self.waiting: list[float] = []
        self.began = time.perf_counter()

    def line(self, line: Line) -> None:
        """Time a round of bare steps."""
        spent = time.perf_counter() - self.began
        assert self.learner is not None
        start = time.perf_counter()
        for number in range(self.steps):
            step = BARE(self.learner, line.step + number, self.batches)
        step.numbers.tolist()  # waits for the device
        self.bare.append((time.perf_counter() - start) / self.steps)
        self.whole.append(spent / self.steps)
        self.waiting.append(line.waiting)
        self.began = time.perf_counter()

    def say(self, text: str) -> None:
        """Show nothing."""


BARE = Learner.step


def watched(rounds: Rounds) -> Any:
    """Let the loop's own learner and batches be known to the rounds."""

    def step(learner: Learner, number: int, batches: list[Batch]) -> Step:
        rounds.learner, rounds.batches = learner, rounds.batches or batches
        return BARE(learner, number, batches)

    return step


def quartiles(values: list[float]) -> str:
    """Say a median and the middle half, in thousandths."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle * 1e3:.1f} ({low * 1e3:.1f}–{high * 1e3:.1f})"


def lines(rounds: Rounds, device: torch.device) -> Iterator[str]:
    """Say what was found, the first round, in which workers start, left out."""
    whole, bare, waiting = rounds.whole[1:], rounds.bare[1:], rounds.waiting[1:]
    ratios = [a / b for a, b in zip(whole, bare, strict=True)]
    yield f"{len(whole)} rounds of {rounds.steps} steps, {device}, {torch.get_num_threads()} threads; medians (half in)"
    yield f"bare steps      {quartiles(bare)} ms"
    yield f"the loop's      {quartiles(whole)} ms"
    yield f"ratio           {statistics.median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f})"
    yield f"waiting         {statistics.median(waiting):.2%} of the time"


def main() -> None:
    """Print five lines."""
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
    loop.validation_samples = lambda *_: []  # type: ignore[assignment]
    config = load_config(options.config, (*options.set, *more))
    with tempfile.TemporaryDirectory() as folder, take_place() as place:
        loop.train(options.dataset, Path(folder) / "run", config, place, rounds, resume=False)
        print("\n".join(lines(rounds, place.device)))


if __name__ == "__main__":
    main()
