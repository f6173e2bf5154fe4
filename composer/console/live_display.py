"""Live display: bars on a terminal, a row each, and under them what else is worth a look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

__all__ = ["Display", "open_display"]


class Display(Progress):
    """Rows of bars over `details`, which wrap where the terminal is narrow."""

    details = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        """Give what is shown, from top to bottom."""
        yield self.make_tasks_table(self.tasks)
        if self.details:
            yield Text(self.details)


class RateColumn(ProgressColumn):
    """How much of it a second, by the task's own ``format_rate``."""

    def render(self, task: Task) -> Text:
        """Say it, once there is anything to say."""
        return Text(task.fields["format_rate"](task.speed) if task.speed else "")


def open_display(stream: TextIO) -> Display:
    """Make a display that goes when it is left; tasks have the fields ``amount``, a text, and ``format_rate``."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),  # what the others leave of the row
        TextColumn("{task.fields[amount]}", markup=False),
        RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Display(*columns, console=Console(file=stream), transient=True, expand=True)
