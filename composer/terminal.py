"""Terminal: what `inspect` and `export` print, and their progress.

Names come from files, so none is printed as it is.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .inspect import Distribution, Summary
    from .verify import Verdict

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 160  # columns where there is no terminal to ask
MOST_LINES = 100  # of problems
REFRESH, LINE_EVERY = 0.1, 10.0  # seconds between two updates on a terminal, and between two lines elsewhere


def shown(text: str) -> str:
    """Make a name safe to print: what would move the cursor, colour or reorder a line is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def print_summary(summary: Summary) -> None:
    """Print a dataset at a glance."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    state = Text("complete", "green") if summary.complete else Text("incomplete", "red")
    console.print(Text(f"{shown(summary.path)}: ", "bold") + state)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in summary_lines(summary):
        table.add_row(f"  {label}", Text(shown(text)))
    console.print(table)


def summary_lines(summary: Summary) -> Iterator[tuple[str, str]]:
    """Yield a summary's lines: what it is about, and what is to be said."""
    s = summary
    yield (
        "composites",
        f"{s.composites:,} of {s.planned:,} planned: {s.foregrounds:,} foregrounds × "
        + (f"{s.recipe['variants']} variants over {s.backgrounds:,} backgrounds"),
    )
    each = f", {s.bytes / s.composites / 1e3:,.0f} kB a composite" if s.composites else ""
    packing = s.recipe["shards"]["packing"]
    yield "shards", f"{s.shards:,}, {size(s.bytes)}{each}; packed {s.packing_ratio:.2f} to 1 ({packing})"
    if s.absent:
        yield (
            "absent",
            f"{len(s.absent):,} shards are missing or of another size: {', '.join(s.absent[:3])}"
            + (" …" if len(s.absent) > 3 else ""),
        )
    yield (
        "splits",
        "; ".join(
            f"{name} {split.composites:,} composites of {split.foregrounds:,} foregrounds in {split.shards:,} shards"
            for name, split in s.splits.items()
        ),
    )
    if s.megapixels:
        sizes = (f"{w}×{h}" for w, h in (s.smallest, s.median, s.largest))
        yield "sizes", "{} … {} … {} px".format(*sizes) + f"  {bars(s.megapixels)} megapixels"
    looked = "all" if s.looked_at == s.composites else f"{s.looked_at:,} looked at"
    if s.unknown:
        yield "unknown", f"{spread(s.unknown, '.1%')} of a composite  {bars(s.unknown)} ({looked})"
    if s.alpha and s.fractional:
        a = s.alpha
        yield "alpha", f"opaque {a.opaque:.1%}, clear {a.clear:.1%}, fractional {a.fractional:.1%}, on average"
        yield "fractional", f"{spread(s.fractional, '.1%')} of a foreground  {bars(s.fractional)}"
    if s.enlargement:
        yield (
            "enlarged",
            (
                f"{s.enlarged / max(s.enlargement.count, 1):.1%} of backgrounds, up to {s.enlargement.most:.2f}×"
                f" (95 % under {s.enlargement.high:.2f}×); more than 4×: {s.strongly_enlarged:,}"
            ),
        )
    if s.erode and s.dilate:
        yield "eroded", f"{spread(s.erode, '.0f')} px  {bars(s.erode)}"
        yield "dilated", f"{spread(s.dilate, '.0f')} px  {bars(s.dilate)}"
    if s.failures:
        causes = ", ".join(f"{count:,} × {cause}" for cause, count in s.failures.items())
        yield "failures", f"{sum(s.failures.values()):,} composites: {causes}"
    else:
        yield "failures", "none"
    if s.excluded:
        yield "left out", f"{s.excluded:,} foregrounds"
    for note in s.sources:
        yield "sources", f"{note.what}: {'; '.join(filter(None, (note.licence, note.attribution)))}"
    trimap = s.recipe["trimap"]
    alphas = f"opaque from {trimap['opaque']}, clear to {trimap['clear']}"
    stored = s.recipe["shards"]["background"]
    yield "recipe", f"seed {s.recipe['seed']}, trimap {trimap['strategy']}, {alphas}, backgrounds stored: {stored}"
    yield "plan", s.plan_sha256
    yield "made with", ", ".join(f"{name} {version}" for name, version in s.made_with.items())


def print_verdict(verdict: Verdict) -> None:
    """Print what a verification found: notes, each thing that is wrong, and the verdict in a line."""
    for note in verdict.notes:
        print(f"note: {shown(note)}")
    for problem in verdict.problems[:MOST_LINES]:
        composite = f" composite {shown(problem.composite)}:" if problem.composite is not None else ""
        print(f"{shown(problem.file)}: {problem.cause}:{composite} {shown(problem.detail)}")
    if len(verdict.problems) > MOST_LINES:
        print(f"… and {len(verdict.problems) - MOST_LINES:,} more (--json lists all)")
    looked = f"{verdict.composites:,} composites in {verdict.shards:,} shards, {size(verdict.bytes)}"
    time_taken = f"in {duration(verdict.seconds)}"
    if not verdict.problems:
        print(f"{shown(verdict.path)}: all is well: {looked}, every byte checked, {time_taken}")
        return
    print(f"{shown(verdict.path)}: {len(verdict.problems):,} things are wrong ({looked}, {time_taken})")
    if verdict.moved:
        print(f"moved aside: {', '.join(verdict.moved)}. Run the same build again: it renders them anew")


def spread(figures: Distribution, form: str) -> str:
    """Say a distribution in a few words: the least, where nine of ten lie, the median, the most."""
    f = figures
    return f"median {f.median:{form}}, 90 % in {f.low:{form}}–{f.high:{form}}, all in {f.least:{form}}–{f.most:{form}}"


def bars(figures: Distribution) -> str:
    """Draw a histogram a line high."""
    most = max(figures.counts)
    # A bin that is not empty shows, however few it holds.
    return "".join(" " if not n else BLOCKS[min(7, 8 * n // (most + 1))] for n in figures.counts)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show progress on standard error: a bar on a terminal, else a line now and then.

    What is yielded is called with what is done, how much of it, and of how much.
    """
    last = time.monotonic()
    if not sys.stderr.isatty():

        def line(what: str, done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last >= LINE_EVERY:
                last = time.monotonic()
                print(f"{what}: {done:,}/{total:,}", file=sys.stderr)

        yield line
        return

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks = {"": bar.add_task("", visible=False)}

        def update(what: str, done: int, total: int) -> None:
            nonlocal last
            if done < total and time.monotonic() - last < REFRESH:
                return
            last = time.monotonic()
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield update


def size(count: float) -> str:
    """Say a number of bytes."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def duration(seconds: float) -> str:
    """Say a time."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02} min"
