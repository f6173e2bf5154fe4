"""Meter: what happens between two lines of a training's journal, added up."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from .config import Config
from .journal import Line
from .learner import Step
from .place import Place


class Meter:
    """Count steps, and the time that they, and waiting for their data, take."""

    def __init__(self, place: Place, config: Config) -> None:
        self._place, self._steps_in_all = place, config.steps
        self._crops = crops_a_step(config, place)
        self._begin()

    def _begin(self) -> None:
        self._sums: torch.Tensor | None = None
        self.steps, self._waited, self._aside = 0, 0.0, 0.0
        self._began = time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time within as waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave the time within out: it is not training."""
        start = time.perf_counter()
        yield
        self._aside += time.perf_counter() - start

    def add(self, step: Step) -> None:
        """Count a step."""
        self._sums = step.numbers if self._sums is None else self._sums + step.numbers
        self.steps += 1

    def line(self, step: int, seconds: float, rate: float, losses: Sequence[str]) -> Line:
        """Sum up at least one step, and begin anew."""
        assert self._sums is not None
        total, gradient, *parts = (self._sums / self.steps).tolist()  # waits for the device
        spent = max(time.perf_counter() - self._began - self._aside, 1e-9)
        line = Line(
            step=step,
            steps=self._steps_in_all,
            loss=total,
            losses=dict(zip(losses, parts, strict=True)),
            gradient=gradient,
            rate=rate,
            crops_per_second=self.steps * self._crops / spent,
            waiting=min(1.0, self._waited / spent),
            memory=_peak_memory(self._place),
            seconds=seconds,
            left=(self._steps_in_all - step) * spent / self.steps,
        )
        self._begin()
        return line


def crops_a_step(config: Config, place: Place) -> int:
    """Count what a step sees, over all processes."""
    return config.stream.batch * config.optimiser.accumulate * place.world


def _peak_memory(place: Place) -> int:
    if place.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(place.device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
