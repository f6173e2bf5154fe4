"""Printing: what `inspect` prints.

Names come from files, so none is printed as it is.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from .terminal import duration, size
from .words import bars, shown, summary_lines

if TYPE_CHECKING:
    from .diff import Difference
    from .inspect import Summary
    from .report import Array
    from .shard import Row
    from .verify import Verdict

WIDTH = 160  # columns where there is no terminal to ask
MOST_COLUMNS = 200  # of a picture: more, and it no longer fits a screen's height
MOST_LINES = 100  # of problems


def print_summary(summary: Summary) -> None:
    """Print a dataset at a glance."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    state = Text("complete", "green") if summary.complete else Text("incomplete", "red")
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(no_wrap=True)
    for label, text, spread in summary_lines(summary):
        table.add_row(f"  {label}", Text(shown(text)), bars(spread) if spread else "")
    with console.capture() as captured:
        console.print(Text(f"{shown(summary.path)}: ", "bold") + state)
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


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


def print_difference(found: Difference) -> None:
    """Print what differs between two datasets."""
    for kind, changes in (("recipe", found.recipe), ("made with", found.made_with)):
        for change in changes:
            values = " → ".join(shown(json.dumps(value, ensure_ascii=False)) for value in (change.before, change.after))
            print(f"{kind}: {shown(change.key)}: {values}")
    if found.only_a or found.only_b:
        some = ", ".join(shown(key) for key in found.examples)
        print(f"composites: {found.only_a:,} only in the first, {found.only_b:,} only in the second: {some} …")
    for field, count in found.rows.items():
        print(f"rows: {field} differs in {count:,} of {found.shared:,} composites")
    for part, pixels in found.pixels.items():
        print(
            f"pixels: {part} differs in {pixels.share:.1%} of {found.compared:,} composites compared, by up to"
            f" {pixels.largest} of 255 ({shown(pixels.example)})"
        )
    looked = f"{found.shared:,} composites in both, {found.identical:,} of them in shards of the same bytes"
    print(f"{'the same' if found.same else 'different'}: {looked}, {found.compared:,} compared pixel by pixel")


def print_panel(row: Row, picture: Array | None) -> None:
    """Print what is known of a composite, and its panel drawn in half blocks where there is one to draw."""
    from rich.console import Console
    from rich.text import Text

    from .panel import half_blocks

    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    fields = {name: value for name, value in asdict(row).items() if name not in ("look", "scene")}
    for field, value in (*fields.items(), *row.drawn()):
        console.print(Text(f"{field:18}", "dim") + Text(shown(str(value))))
    if picture is not None:
        for line in half_blocks(picture, min(console.width, MOST_COLUMNS)):
            console.print(line, no_wrap=True)
