"""Terminal: what all commands share: exit codes, errors told in a line, sizes and times for people."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from .errors import MattingComposeError, RecipeError

CLEAN, FAILED, USAGE, WITH_FAILURES, INTERRUPTED = 0, 1, 2, 3, 130
GOES_ON = "Nothing finished is lost: run the same command again to go on"


class Place(click.Path):
    """A dataset's folder, or its address in object storage."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Leave addresses as they are: a `Path` would make one slash of two."""
        return value if "://" in str(value) else super().convert(value, param, ctx)


@contextmanager
def explained(interrupted: str = GOES_ON) -> Iterator[None]:
    """Turn errors into a message and an exit code, and SIGTERM into an interruption, told with a way to go on."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"\nInterrupted. {interrupted}", err=True)
        sys.exit(INTERRUPTED)
    except MattingComposeError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(USAGE if isinstance(error, RecipeError) else FAILED)
    finally:
        signal.signal(signal.SIGTERM, before)


def size(count: float) -> str:
    """Say a number of bytes."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def duration(seconds: float) -> str:
    """Say a number of seconds."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02} min"
