"""Run log: what is kept and told of a run: metrics.jsonl, panels, its page, and its progress."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...composer.base.files import free_name, write_text
from ...composer.base.progress import OnProgress, Progress
from ...composer.base.text import count_of
from ...composer.sources.image_io import write_picture
from .config import Config, crops_per_step
from .learner import StepResult
from .records import METRICS_FILE, read_lines
from .run_page import PANELS, RunPage, State, warn_only
from .runtime import Runtime
from .trackers import Tracker

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Line:
    """What training looked like over the last steps.

    Attributes
    ----------
    step, steps : int
        Done, of how many.
    loss : float
        The weighted sum; this and the next are means since the line before.
    losses : dict[str, float]
        Each, unweighted.
    gradient : float
        The gradient's norm.
    rate : float
        Learning rate.
    crops_per_second : float
        Over all processes.
    waiting : float
        Share of the time spent waiting for batches, 0..1; a GPU may have worked meanwhile.
    memory : int
        Bytes, the device's peak, or the process's on a CPU.
    seconds : float
        Since the run began, without interruptions.
    left : float
        Seconds to the end at this pace.
    """

    step: int
    steps: int
    loss: float
    losses: dict[str, float]
    gradient: float
    rate: float
    crops_per_second: float
    waiting: float
    memory: int
    seconds: float
    left: float


class RunLog:
    """Write a run's records. What cannot be written of them is warned of, and never ends a run.

    Parameters
    ----------
    folder : Path
        The run's.
    step, judged : int
        The step that it goes on from, and that of its last validation: lines that will be written again go.
    on_progress : OnProgress
        Called for each line.
    config : str
        The configuration, as the page shows it.
    tracker : Tracker, optional
        Told the same.

    Attributes
    ----------
    broken : bool
        The last line could not be written whole.
    """

    def __init__(
        self,
        folder: Path,
        step: int,
        judged: int,
        on_progress: OnProgress,
        config: str = "",
        tracker: Tracker | None = None,
    ) -> None:
        self._folder, self._on_progress = folder, on_progress
        self._page = RunPage(folder, config)
        self._path = folder / METRICS_FILE
        self._tracker = tracker
        self._file: IO[bytes] | None = None
        with warn_only():
            self._file = self._open({"train": step, "validation": judged})
        self.broken = False

    def _open(self, kept: Mapping[str, int]) -> IO[bytes]:
        """Open the records, without lines that will be written again, and without damaged ones."""
        lines = read_lines(self._folder)
        damaged = sum(record is None for record in lines[:-1])  # the last one may be what a stop has cut
        if damaged:
            aside = free_name(self._path.with_suffix(".damaged.jsonl"))
            self._path.replace(aside)
            left_out = f"{count_of(damaged, 'damaged line')} left out"
            logger.warning("%s: %s; the file as it was is kept as %s", self._path, left_out, aside.name)
        records = [record for record in lines if record is not None and record["step"] <= kept[record["kind"]]]
        write_text(self._path, "".join(json.dumps(record) + "\n" for record in records))
        return self._path.open("ab", buffering=0)

    def train(self, line: Line) -> None:
        """Record a line."""
        self._on_progress(Progress("step", line.step, line.steps, detail=format_line(line)))
        record = {key: value for key, value in vars(line).items() if key not in ("steps", "left")}
        self._record("train", record)
        self._page.refresh(line.steps, line.left)

    def validation(
        self, step: int, scores: dict[str, dict[str, float]], what: str = "network", best: str | None = None
    ) -> None:
        """Record a validation, of the network or of a guess it has to beat, on each dataset by its name.

        `best` names the dataset by whose score the network is the best so far.
        """
        for dataset, errors in scores.items():
            record = {"step": step, "dataset": dataset, "what": what, **errors}
            self._record("validation", record | ({"best": True} if dataset == best else {}))
            numbers = "  ".join(f"{name} {value:.4g}" for name, value in errors.items())
            told = "  the best so far" if dataset == best else ""
            logger.info("step %s  validation on %s, %s: %s%s", f"{step:,}", dataset, what, numbers, told)

    def panel(self, step: int, picture: NDArray[np.uint8]) -> None:
        """Keep a panel."""
        with warn_only():
            write_picture(self._folder / PANELS / f"step-{step:07d}.png", picture)
        if self._tracker is not None:
            self._tracker.log_picture(step, "panel", picture)

    def page(self, state: State) -> None:
        """Draw the page anew."""
        self._page.write(state)

    def close(self) -> None:
        """Finish the files."""
        if self._file is not None:
            self._file.close()
        if self._tracker is not None:
            self._tracker.close()

    def _record(self, kind: str, values: dict[str, Any]) -> None:
        self._write(json.dumps({"kind": kind, **values}).encode() + b"\n")
        if self._tracker is not None:
            numbers = dict(_flatten(kind, values))
            self._tracker.log_numbers(int(numbers.pop(f"{kind}/step")), numbers)

    def _write(self, line: bytes) -> None:
        if self._file is None:  # which was told
            return
        line = b"\n" + line if self.broken else line
        reason = "No space left on device"
        try:
            whole = self._file.write(line) == len(line)
        except OSError as error:
            whole, reason = False, str(error.strerror)
        if not whole and not self.broken:
            logger.warning("%s cannot be written (%s); the training goes on", self._path, reason)
        self.broken = not whole


def _flatten(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield a record's numbers by their paths; what it is of goes before the name: validation/demo/network/sad."""
    names = [re.sub(r"[^\w.]+", "-", value) for value in values.values() if isinstance(value, str)]
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(f"{prefix}/{name}", value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield "/".join([prefix, *([] if name == "step" else names), name]), float(value)


def format_line(line: Line) -> str:
    """Say a line in words."""
    parts = "  ".join(f"{name} {value:.4f}" for name, value in line.losses.items())
    return (
        f"loss {line.loss:.4f}  {parts}  rate {line.rate:.2g}  {line.crops_per_second:,.1f} crops/s"
        f"  waiting {line.waiting:.1%}  {line.memory / 1e9:.1f} GB"
    )


class Meter:
    """Count steps, and the time that they, and waiting for their data, take."""

    def __init__(self, runtime: Runtime, config: Config) -> None:
        self._runtime, self._steps_in_all = runtime, config.steps
        self._crops = crops_per_step(config, runtime)
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

    def add(self, step: StepResult) -> None:
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
            memory=self._runtime.peak_memory(),
            seconds=seconds,
            left=(self._steps_in_all - step) * spent / self.steps,
        )
        self._begin()
        return line
