"""Terminal: what all commands share: exit codes, errors as a line, and what is said on standard error.

Names come from files, so none is printed as it is.
"""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import click

from ..base.errors import RESUME_HINT, MattingComposeError, RecipeError
from ..base.text import escape_lines
from .command import tell_error_as_json

CLEAN, FAILED, USAGE, WITH_FAILURES, INTERRUPTED = 0, 1, 2, 3, 130


LOGGER = "matting_compose"


AGAIN = 0.5  # seconds until an interruption that went nowhere is tried again: not while the hook still starts the timer


# Packages whose exceptions are object storage's, and have no common root.
STORAGE = {"adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "s3fs"}


def log_level() -> int:
    """Return how much the running command is to say: WARNING with --quiet, DEBUG with --verbose, else INFO."""
    context = click.get_current_context(silent=True)
    return int(context.meta.get(LOGGER, logging.INFO)) if context else logging.INFO


def tell(text: str) -> None:
    """Say on standard error what was done; nothing with --quiet. Off a terminal, with the time."""
    if log_level() <= logging.INFO:
        write_line(text)


def warn(text: str) -> None:
    """Say on standard error what may be wrong, also with --quiet."""
    write_line(f"warning: {text}")


def write_line(text: str) -> None:
    """Write a line on standard error; off a terminal, with the time."""
    stamp = "" if sys.stderr.isatty() else time.strftime("%Y-%m-%d %H:%M:%S  ")
    _echo(stamp + escape_lines(text))


def write_error(text: str) -> None:
    """Write an error on standard error, as click writes its own."""
    _echo(f"Error: {escape_lines(text)}")


def _echo(text: str) -> None:
    with suppress(OSError):  # a terminal or a pipe that is gone must not end what is being made
        click.echo(text, err=True)


class _LogHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        (warn if record.levelno >= logging.WARNING else write_line)(record.getMessage())


@contextmanager
def handle_errors(interrupted: str = RESUME_HINT) -> Iterator[None]:
    """Show what is logged; turn errors into a message and an exit code, and SIGTERM into an interruption.

    Parameters
    ----------
    interrupted : str
        The way to go on, for who interrupts it or runs out of room.
    """
    _prepare_streams()
    with _logging(), _interruptible():
        try:
            yield
        except KeyboardInterrupt:
            _echo(f"\nInterrupted. {interrupted}")
            tell_error_as_json(f"interrupted. {interrupted}")
            sys.exit(INTERRUPTED)
        except BrokenPipeError:  # whoever reads has seen enough: click ends quietly
            raise
        except Exception as error:
            if (message := _message(error, interrupted)) is None:
                raise
            write_error(message)
            tell_error_as_json(message)
            sys.exit(USAGE if isinstance(error, RecipeError) else FAILED)


def _message(error: Exception, interrupted: str) -> str | None:
    """Say an error in a line, with the way out; None for one that is a fault of ours."""
    if isinstance(error, MattingComposeError):
        return str(error)
    if isinstance(error, OSError):  # of a disk, most likely: whatever was being written has not got its name
        return f"{error}. {interrupted}"
    if isinstance(error, MemoryError):
        return f"there is no memory left ({error}). {interrupted}"
    if type(error).__module__.partition(".")[0] in STORAGE:
        reason = str(error).partition("\n")[0]
        return f"the storage does not answer, or refuses ({reason}). {interrupted}"
    return None


def _prepare_streams() -> None:
    """Let no closed stream, and no character that a stream cannot show, end a command."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed: else the next file to be opened, a shard, would get its number
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: PTH123, SIM115
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _logging() -> Iterator[None]:
    logger, handler = logging.getLogger(LOGGER), _LogHandler()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(log_level())
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn SIGTERM into an interruption, and let none be lost in a callback or be told by threads that it stops."""
    stopping = over = False
    since = 0.0

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping, since
        now = time.monotonic()
        if stopping and now - since < AGAIN:  # sent to a process and to its group: one request
            return
        stopping, since = True, now
        raise KeyboardInterrupt

    def lost(error: sys.UnraisableHookArgs) -> None:
        # Raised where nothing is passed on, in a weak reference's callback as h5py has thousands of: once more, then.
        if issubclass(error.exc_type, KeyboardInterrupt):
            threading.Timer(AGAIN, again).start()
        else:
            usual(error)

    def again() -> None:
        if not over:
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
    finally:
        over = True
        sys.unraisablehook, threading.excepthook = usual, usual_in_threads
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
