"""Terminal: what all commands share: exit codes, errors told in a line, progress, sizes and times for people."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

import click

from ..base.errors import RESUME_HINT, MattingComposeError, RecipeError
from ..base.text import format_duration

CLEAN, FAILED, USAGE, WITH_FAILURES, INTERRUPTED = 0, 1, 2, 3, 130


AGAIN = 0.01  # seconds until an interruption that went nowhere is tried again


REFRESH, LINE_EVERY = 0.1, 10.0  # seconds between two updates on a terminal, and between two lines elsewhere


# Packages whose exceptions are object storage's, and have no common root.
STORAGE = {"adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "s3fs"}


class DatasetPath(click.Path):
    """A dataset's folder, or its address in object storage."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Leave addresses as they are: a `Path` would make one slash of two."""
        return value if "://" in str(value) else super().convert(value, param, ctx)


@contextmanager
def handle_errors(interrupted: str = RESUME_HINT) -> Iterator[None]:
    """Turn errors into a message and an exit code, and SIGTERM into an interruption, told with a way to go on."""
    stopping = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        raise KeyboardInterrupt

    def lost(error: sys.UnraisableHookArgs) -> None:
        # Raised where nothing is passed on, in a weak reference's callback as h5py has thousands of: once more, then.
        if error.exc_type is KeyboardInterrupt:
            threading.Timer(AGAIN, again).start()
        else:
            usual(error)

    def again() -> None:
        if signal.getsignal(signal.SIGTERM) is stop:  # else it is over
            os.kill(os.getpid(), signal.SIGTERM)

    def broken(error: threading.ExceptHookArgs) -> None:
        if not stopping:  # else the thread that fed the workers stumbles over what is no longer there
            usual_in_threads(error)

    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it is not ignored
        numbers.append(signal.SIGINT)
    before = [signal.signal(number, stop) for number in numbers]
    usual, usual_in_threads = sys.unraisablehook, threading.excepthook
    sys.unraisablehook, threading.excepthook = lost, broken
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"\nInterrupted. {interrupted}", err=True)
        sys.exit(INTERRUPTED)
    except MattingComposeError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(USAGE if isinstance(error, RecipeError) else FAILED)
    except BrokenPipeError:  # whoever reads has seen enough: click ends quietly
        raise
    except OSError as error:  # of a disk, most likely: whatever was being written has not got its name
        click.echo(f"Error: {error}. {interrupted}", err=True)
        sys.exit(FAILED)
    except MemoryError as error:
        click.echo(f"Error: there is no memory left ({error}). {interrupted}", err=True)
        sys.exit(FAILED)
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in STORAGE:
            raise
        reason = str(error).partition("\n")[0]
        click.echo(f"Error: the storage does not answer, or refuses ({reason}). {interrupted}", err=True)
        sys.exit(FAILED)
    finally:
        sys.unraisablehook, threading.excepthook = usual, usual_in_threads
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class Report(Protocol):
    """What progress is told to."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """Say what is done, how much of it, of how much, and what else is worth knowing."""


def format_count(number: float) -> str:
    """Say a number of things, or how many a second."""
    return f"{number:,.3g}" if isinstance(number, float) else f"{number:,}"


@contextmanager
def progress(said: Callable[[float], str] = format_count) -> Iterator[Report]:
    """Show progress on standard error: a bar on a terminal, else a line now and then, with rate and time left.

    Parameters
    ----------
    said : how an amount is said
    """
    if not sys.stderr.isatty():
        yield _lines(said)
        return

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    texts = [TextColumn(f"{{task.fields[{name}]}}") for name in ("amount", "rate", "note")]
    columns = (TextColumn("{task.description}"), BarColumn(), *texts[:2], TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, texts[2], console=Console(stderr=True), transient=True) as bar:
        tasks = {"": bar.add_task("", visible=False, amount="", rate="", note="")}
        last = 0.0

        def update(what: str, done: int, total: int, note: str = "") -> None:
            nonlocal last
            if done < total and time.monotonic() - last < REFRESH:
                return
            last = time.monotonic()
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total, amount="", rate="", note="")
            speed = bar.tasks[tasks[what]].speed
            rate = f"{said(float(speed))}/s" if speed else ""
            amount = f"{said(done)}/{said(total)}"
            bar.update(tasks[what], completed=done, total=total, amount=amount, rate=rate, note=note)

        yield update


def _lines(said: Callable[[float], str]) -> Report:
    last, before = time.monotonic(), -1

    def line(what: str, done: int, total: int, note: str = "") -> None:
        nonlocal last, before
        if before < 0:
            before = done  # by an earlier run
        if (seconds := time.monotonic() - last) >= LINE_EVERY:
            # Since the last line: what was done earlier is passed in no time, and would promise too much.
            rate = max(done - before, 0) / seconds
            left = f"{said(rate)}/s  ETA {format_duration((total - done) / rate)}" if rate else ""
            texts = (f"{what}: {said(done)}/{said(total)}", left, note)
            click.echo("  ".join(filter(None, texts)), err=True)
            last, before = time.monotonic(), done

    return line
