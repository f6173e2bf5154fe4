"""Progress bar: how far a job is, shown on standard error: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO, cast

from ..base.progress import OnProgress, Progress, ignore_progress
from ..base.text import count_of, format_duration, format_size
from .terminal import log_level, write_line

if TYPE_CHECKING:
    from rich.progress import TaskID

REFRESH, LINE_EVERY = 0.1, 10.0  # seconds between two updates on a terminal, and between two lines elsewhere


@contextmanager
def show_progress(line_every: float = LINE_EVERY) -> Iterator[OnProgress]:
    """Give what a job is to call as it goes on; nothing is shown with --quiet.

    Parameters
    ----------
    line_every : float
        Seconds between two lines where standard error is no terminal; 0 shows every call, on a terminal above the bar.
    """
    if log_level() > logging.INFO:
        yield ignore_progress
    elif not sys.stderr.isatty():
        yield _Lines(line_every)
    else:
        with _bar(lines=not line_every) as update:
            yield update


def _amount(progress: Progress, number: float) -> str:
    """Say a number of what is counted, or how many a second."""
    if progress.unit == "bytes":
        return format_size(number)
    return f"{number:,.3g}" if isinstance(number, float) else f"{number:,}"


def _pace(progress: Progress, rate: float) -> str:
    return f"{_amount(progress, rate)}/s"


def _details(progress: Progress) -> str:
    failures = count_of(progress.failures, "failure") if progress.failures else ""
    return "  ".join(filter(None, (progress.detail, failures)))


@contextmanager
def _bar(lines: bool) -> Iterator[OnProgress]:
    from .live_display import open_display

    with open_display(cast(TextIO, _LostTerminal(sys.stderr))) as bar:
        tasks: dict[str, TaskID] = {}
        last = -math.inf

        def update(progress: Progress) -> None:
            nonlocal last
            if not lines and progress.done < progress.total and time.monotonic() - last < REFRESH:
                return
            last = time.monotonic()
            amount = f"{_amount(progress, progress.done)}/{_amount(progress, progress.total)}"
            if lines:  # what the last one said stays above
                write_line("  ".join(filter(None, (f"{progress.phase} {amount}", _details(progress)))))
            if progress.phase not in tasks:
                pace = partial(_pace, progress)
                tasks[progress.phase] = bar.add_task(
                    progress.phase, amount="", format_rate=pace, completed=progress.done
                )
            bar.details = _details(progress)
            bar.update(tasks[progress.phase], completed=progress.done, total=progress.total, amount=amount)

        yield update


class _LostTerminal:
    """A stream that may go while it is written to, without ending what is being made."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Pass on what can be passed on."""
        with suppress(OSError):
            self._stream.flush()


class _Lines:
    """A line now and then, with the rate since the last one and the time left."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._last = time.monotonic()
        self._before: int | None = None

    def __call__(self, progress: Progress) -> None:
        if self._before is None:
            self._before = progress.done  # by an earlier run
        if (seconds := time.monotonic() - self._last) < self._every:
            return
        # Since the last line: what was done earlier is passed in no time, and would promise too much.
        rate = max(progress.done - self._before, 0) / max(seconds, 1e-9)
        left = format_duration((progress.total - progress.done) / rate) if rate else ""
        pace = f"{_pace(progress, rate)}  ETA {left}" if rate and self._every else ""
        amount = f"{_amount(progress, progress.done)}/{_amount(progress, progress.total)}"
        write_line("  ".join(filter(None, (f"{progress.phase} {amount}", pace, _details(progress)))))
        self._last, self._before = time.monotonic(), progress.done
