"""Printing: what commands have found and made, for people: findings on standard output, what was done beside it.

Names come from files, so none is printed as it is.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from ..base.arrays import UInt8Array
from ..base.text import are, count_of, escape, format_duration, format_size
from ..inspection.summary_text import draw_bars, list_lines
from .terminal import tell

if TYPE_CHECKING:
    from rich.text import Text

    from ..base.sheets import Array
    from ..building.build import BuildResult
    from ..building.doctor import Diagnosis
    from ..building.dry_run import DryRun
    from ..building.plan import Plan
    from ..dataset.documents import FailureRecord
    from ..dataset.rows import Row
    from ..extraction.extract import ExtractResult, Failure
    from ..fetching.fetch import FetchPlan, FetchResult
    from ..inspection.diff import DiffResult
    from ..inspection.summary import Summary
    from ..inspection.verify import VerifyResult

WIDTH = 160  # columns where there is no terminal to ask


MOST_COLUMNS = 200  # of a picture: more, and it no longer fits a screen's height


MOST_LINES = 100  # of problems


SOME = 10  # pictures


def headline(plan: Plan) -> str:
    """Say what a plan is going to make."""
    counts = [count for count in plan.counts if count]
    least, most = min(counts), max(counts)
    variants = f"{most}" if least == most else f"{least} to {most}"
    over = f"over {count_of(len(plan.backgrounds), 'background')}" if plan.recipe.composes else "as they are"
    side = getattr(plan.recipe.backgrounds, "max_side", None)
    if plan.recipe.composes and side is not None:
        over += f", reduced to {side:,} px at most"
    return (
        f"{count_of(len(plan), 'composite')}: {count_of(len(counts), 'foreground')} × {variants}"
        f" {'variant' if variants == '1' else 'variants'} {over},"
        f" in {count_of(len(plan.shards), 'shard')}; {kept_apart(plan.splits.count('validation'))}"
    )


def kept_apart(foregrounds: int) -> str:
    """Say how many foregrounds a training would be validated on."""
    return f"{count_of(foregrounds, 'foreground')} kept for validation" if foregrounds else "none kept for validation"


def print_dry_run(found: DryRun) -> None:
    """Print what a build would make, cost and stumble over."""
    smallest, median, largest = (f"{width}×{height}" for width, height in (found.smallest, found.median, found.largest))
    free = "" if found.free_bytes is None else f", of {format_size(found.free_bytes)} free"
    ways = "" if found.validation else ": --set split.validation=0.1 keeps a tenth, or train with --validation DATASET"
    print(f"  validation   {kept_apart(found.validation)}{ways}")
    print(f"  sizes        {smallest} to {largest} px, median {median}")
    print(f"  disk         about {format_size(found.bytes)}{free}")
    print(f"  time         about {format_duration(found.seconds)}")
    for kind, items in (("left out", found.excluded), ("will fail", found.failing)):
        for source, reason in items[:SOME]:
            print(f"  {kind:11}  {escape(source)}: {escape(reason)}")
        if len(items) > SOME:
            print(f"  {kind:11}  … {len(items) - SOME:,} more (--json lists all)")
    for warning in found.warnings:
        print(f"  warning      {escape(warning)}")


def print_built(result: BuildResult, sheet: Path) -> None:
    """Say what a build has made."""
    rate = result.rendered / max(result.seconds, 1e-9)
    tell(
        f"{result.out}: {count_of(result.composites, 'composite')} in {count_of(result.shards, 'shard')},"
        f" {format_size(result.bytes)};"
        f" {result.rendered:,} rendered in {format_duration(result.seconds)} ({rate:,.0f}/s)"
    )
    if result.missing:
        missing = f"{count_of(result.missing, 'shard')} of other shares {are(result.missing)} missing"
        tell(f"{missing}; the last to finish writes the index")
    elif result.composites:
        tell(f"Look at {sheet}")


def print_missing(failures: Sequence[FailureRecord], index: Path) -> None:
    """Say which composites a build could not make, by cause and picture; the index has every one."""
    by_source = Counter((failure.cause, failure.source, failure.detail) for failure in failures)
    pictures = count_of(len({failure.source for failure in failures}), "picture")
    tell(f"{count_of(len(failures), 'composite')} {are(len(failures))} missing, because of {pictures}:")
    for (cause, source, detail), number in list(by_source.items())[:SOME]:
        tell(f"  {number:5} × {cause}: {escape(source)}: {escape(detail)}")
    if len(by_source) > SOME:
        tell(f"  … and {len(by_source) - SOME} more, all in {index}")
    tell("Mend them and run the same command: only what is missing will be rendered")


def print_diagnosis(found: Diagnosis) -> None:
    """Print what is missing or odd."""
    print(
        f"{count_of(found.foregrounds, 'foreground')} × {count_of(found.variants, 'variant')},"
        f" {count_of(found.backgrounds, 'background')}"
    )
    for finding in found.findings:
        print(f"  {'problem' if finding.problem else 'note'}  {finding.text}")
        some = finding.names[: SOME if finding.problem else 3]
        for name in some:
            print(f"             {escape(name)}")
        if len(finding.names) > len(some):
            print(f"             … and {len(finding.names) - len(some):,} more (--json lists all)")
    if found.composites is None or found.lost is None:
        print("Nothing can be built from this")
    else:
        print(f"{found.composites - found.lost:,} of {count_of(found.composites, 'composite')} can be made")


def print_fetch_plan(plan: FetchPlan, out: Path, free: int) -> None:
    """Print what a fetch would bring, and from where."""
    print(f"{out}: {plan.present:,} of {count_of(plan.pictures, 'picture')} {are(plan.present)} there")
    for source in plan.sources:
        print(f"  {source.package.name:28} {format_size(source.bytes):>9}  {source.origin}")
    room = f"room needed {format_size(plan.room)}, of {format_size(free)} free"
    print(f"  {count_of(len(plan.sources), 'package')}; to download {format_size(plan.download_bytes)}; {room}")


def print_fetch_result(done: FetchResult) -> None:
    """Say what a fetch has brought."""
    there = f"{done.present + done.fetched:,} of {count_of(done.pictures, 'picture')}"
    tell(f"{done.out}: {there}; {done.fetched:,} fetched in {format_duration(done.seconds)}")
    for note in done.notes:
        tell(f"note: {escape(note)}")
    for name, reason in done.failures:
        tell(f"failed: {escape(name)}: {escape(reason)}")


def print_extraction(done: ExtractResult, sheet: Path) -> None:
    """Say what an extraction has made, and how good it is."""
    there = f"{done.made + done.present:,} of {count_of(done.pictures, 'cut-out')}"
    tell(f"{done.out}: {there}; {done.made:,} made in {format_duration(done.seconds)}")
    tell("colours: " + ", ".join(f"{count:,} {kind}" for kind, count in done.colours.items()))
    for what, figure in (
        ("re-blending error", done.reblending_error),
        ("halo before", done.halo_before),
        ("halo after", done.halo_after),
    ):
        if figure:
            spread = f"median {figure.median:.2f}, {figure.least:.2f} to {figure.most:.2f}"
            tell(f"{what}: {spread} of 255, {count_of(figure.count, 'picture')}")
    if done.foreign:
        tell(f"note: {count_of(len(done.foreign), 'other picture')} in {done.out}, which a build would take, too")
    if done.colours:
        tell(f"Look at {sheet}")


def print_failures(failures: Sequence[Failure], rest: str) -> None:
    """Say which pictures failed; `rest` is where all of them are."""
    for failure in failures[:SOME]:
        tell(f"failed: {failure.cause}: {escape(failure.source)}: {escape(failure.detail)}")
    if len(failures) > SOME:
        tell(f"  … and {len(failures) - SOME:,} more ({rest})")


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
    for label, text, figures in list_lines(summary):
        table.add_row(f"  {label}", Text(escape(text)), draw_bars(figures) if figures else "")
    with console.capture() as captured:
        console.print(Text(f"{escape(summary.path)}: ", "bold") + state)
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def print_verdict(verdict: VerifyResult) -> None:
    """Print what a verification found: notes, each thing that is wrong, and the verdict in a line."""
    for note in verdict.notes:
        print(f"note: {escape(note)}")
    for problem in verdict.problems[:MOST_LINES]:
        composite = f" composite {escape(problem.composite)}:" if problem.composite is not None else ""
        print(f"{escape(problem.file)}: {problem.cause}:{composite} {escape(problem.detail)}")
    if len(verdict.problems) > MOST_LINES:
        print(f"… and {len(verdict.problems) - MOST_LINES:,} more (--json lists all)")
    checked = f"{count_of(verdict.composites, 'composite')} in {count_of(verdict.shards, 'shard')}"
    looked = f"{checked}, {format_size(verdict.bytes)}"
    time_taken = f"in {format_duration(verdict.seconds)}"
    if not verdict.problems:
        print(f"{escape(verdict.path)}: all is well: {looked}, every byte checked, {time_taken}")
        return
    wrong = f"{count_of(len(verdict.problems), 'thing')} {are(len(verdict.problems))} wrong"
    print(f"{escape(verdict.path)}: {wrong} ({looked}, {time_taken})")
    if verdict.moved:
        print(f"moved aside: {', '.join(verdict.moved)}. Run the same build again: it renders them anew")


def print_difference(found: DiffResult) -> None:
    """Print what differs between two datasets."""
    for kind, changes in (("recipe", found.recipe), ("made with", found.made_with)):
        for change in changes:
            values = " → ".join(
                escape(json.dumps(value, ensure_ascii=False)) for value in (change.before, change.after)
            )
            print(f"{kind}: {escape(change.key)}: {values}")
    if found.only_a or found.only_b:
        some = ", ".join(escape(key) for key in found.examples)
        print(f"composites: {found.only_a:,} only in the first, {found.only_b:,} only in the second: {some} …")
    for field, count in found.rows.items():
        print(f"rows: {field} differs in {count:,} of {count_of(found.shared, 'composite')}")
    for part, pixels in found.pixels.items():
        print(
            f"pixels: {part} differs in {pixels.share:.1%} of {count_of(found.compared, 'composite')} compared, by"
            f" up to {pixels.largest} of 255 ({escape(pixels.example)})"
        )
    looked = f"{count_of(found.shared, 'composite')} in both, {found.identical:,} of them in shards of the same bytes"
    print(f"{'the same' if found.same else 'different'}: {looked}, {found.compared:,} compared pixel by pixel")


def print_panel(row: Row, picture: UInt8Array | None) -> None:
    """Print what is known of a composite, and its panel drawn in half blocks where there is one to draw."""
    from rich.console import Console
    from rich.text import Text

    from .printing import half_blocks

    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    fields = {name: value for name, value in asdict(row).items() if name not in ("look", "scene")}
    for field, value in (*fields.items(), *row.changes()):
        console.print(Text(f"{field:18}", "dim") + Text(escape(str(value))))
    if picture is not None:
        for line in half_blocks(picture, min(console.width, MOST_COLUMNS)):
            console.print(line, no_wrap=True)


UPPER_HALF = "▀"


def half_blocks(picture: Array, columns: int) -> Iterator[Text]:
    """Yield a picture's lines for a terminal of 24-bit colour: two pixels a character, one above the other."""
    from rich.color import Color
    from rich.style import Style
    from rich.text import Text

    rows = max(2, round(columns * picture.shape[0] / picture.shape[1]) // 2 * 2)
    small = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA)
    for upper, lower in zip(small[::2], small[1::2], strict=True):
        line = Text()
        for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
            line.append(UPPER_HALF, Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))
        yield line
