"""Options: what several commands take, under one name and with one meaning."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from .command import FormerNames
from .terminal import LOGGER

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


HELP = {"help_option_names": ["-h", "--help"]}


A_PATH, A_FOLDER = click.Path(path_type=Path), click.Path(path_type=Path, file_okay=False)


class DatasetPath(click.Path):
    """A dataset's folder, or its address in object storage."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Leave addresses as they are: a `Path` would make one slash of two."""
        return value if "://" in str(value) else super().convert(value, param, ctx)


def _check_jobs(_context: click.Context, _option: click.Parameter, jobs: int) -> int:
    if jobs == 0 or jobs < -1:
        raise click.UsageError("--jobs takes a number from 1, or -1 for one per core")
    return jobs


JOBS = click.option(
    "-j", "--jobs", type=int, default=-1, callback=_check_jobs, show_default="one per core", help="Worker processes."
)
LIMIT = click.option(
    "--limit", type=click.IntRange(min=1), cls=FormerNames, former=("--count",),
    help="Only so many, spread evenly over all.",
)  # fmt: skip
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result, or the error, as one JSON object.")


def _set_level(context: click.Context, option: click.Parameter, given: bool) -> None:
    if given and LOGGER in context.meta:
        raise click.UsageError("--quiet and --verbose exclude each other")
    if given:
        context.meta[LOGGER] = logging.WARNING if option.name == "quiet" else logging.DEBUG


def shared_options(command: Decorated) -> Decorated:
    """Add what every command takes: how much it says on standard error."""
    for option in (
        click.option(
            "-v", "--verbose", is_flag=True, expose_value=False, callback=_set_level,
            help="Say more: each decision, such as what is resumed, skipped or evicted.",
        ),
        click.option(
            "-q", "--quiet", is_flag=True, expose_value=False, callback=_set_level,
            help="Say nothing but the result, warnings and errors.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command
