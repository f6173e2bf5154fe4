"""Dry run: what a build would make, cost and stumble over, before a night is spent on it. Nothing is written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import joblib
import numpy as np

from ..base.errors import SourceError
from ..base.files import free_bytes
from ..base.progress import OnProgress, Progress
from ..base.storage import is_remote
from ..base.text import fold_name, list_briefly
from ..base.workers import run_in_processes
from ..compositing.blending import STRONG_ENLARGEMENT, enlargement
from ..compositing.compose import PreparedForeground, PreparedPicture
from ..dataset.packings import load_packing
from .check_background import background_error
from .check_foreground import ForegroundCheck, check_foreground, check_trimap, failing_variants
from .distractor_reader import DistractorReader
from .look_reader import read_look
from .plan import Plan, Strip, composed_counts

PROBES = 12  # composites that are made for the estimate


NAMED = 3  # pictures in a warning


DECODED = 40_000_000  # px of backgrounds that are decoded; of more, headers are read


@dataclass(frozen=True)
class DryRun:
    """What a dry run says.

    Attributes
    ----------
    composites, foregrounds, variants, backgrounds, shards, validation : int
        How many.
    smallest, median, largest : (int, int)
        (width, height) px of the composites.
    bytes : int
        The dataset's estimated size.
    free_bytes : int or None
        The room where it would lie; None for object storage.
    seconds : float
        Estimated, with the jobs asked for.
    failing, excluded : list of (str, str)
        Pictures that cannot be used, and those left out on purpose, with the reason.
    warnings : list of str
        What may waste a night, a line each.
    """

    composites: int
    foregrounds: int
    variants: int
    backgrounds: int
    shards: int
    validation: int
    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]
    bytes: int
    free_bytes: int | None
    seconds: float
    failing: list[tuple[str, str]]
    excluded: list[tuple[str, str]]
    warnings: list[str]


def dry_run(plan: Plan, out: Path, *, jobs: int = -1, on_progress: OnProgress | None = None) -> DryRun:
    """Read every header that a build would need and every alpha, and make a few composites.

    Parameters
    ----------
    plan : Plan
        What to build.
    out : Path
        Where; need not exist.
    jobs : int
        Worker processes; -1 for one per core.
    on_progress : OnProgress, optional
        Called as things are looked at.
    """
    report = on_progress or (lambda *_: None)
    failing: list[tuple[str, str]] = []
    notes = _check_foregrounds(plan, jobs, report, failing)
    _check_trimaps(plan, jobs, report, failing)
    sizes = _background_sizes(plan, report, failing)
    _decode_backgrounds(plan, sizes, jobs, failing)
    warnings = [*notes, *_alike_warnings(plan), *_pairing_warnings(plan, sizes)]
    size, seconds = _probe(plan, jobs)
    free = None if is_remote(out) else free_bytes(out)
    if free is not None and size > free:
        warnings.append(f"the disk has {free / 1e9:,.1f} GB free, the dataset needs about {size / 1e9:,.1f} GB")
    looks = (plan.row_size(row) for row in plan.rows)
    areas = sorted((s for s in looks if s), key=lambda s: s[0] * s[1]) or [(0, 0)]
    return DryRun(
        composites=len(plan),
        foregrounds=len(plan.foregrounds),
        variants=plan.recipe.variants,
        backgrounds=len(plan.backgrounds),
        shards=len(plan.shards),
        validation=plan.splits.count("validation"),
        smallest=areas[0][::-1],
        median=areas[len(areas) // 2][::-1],
        largest=areas[-1][::-1],
        bytes=size,
        free_bytes=free,
        seconds=seconds,
        failing=failing,
        excluded=list(plan.excluded),
        warnings=warnings,
    )


def _check_foregrounds(plan: Plan, jobs: int, report: OnProgress, failing: list[tuple[str, str]]) -> list[str]:
    check = partial(check_foreground, plan.foreground_layout, plan.recipe.trimap, plan.supplied_trimaps is not None)
    checks = run_in_processes(check, plan.foregrounds, len(plan.foregrounds), jobs)
    found: dict[str, list[str]] = {}
    for number, (entry, seen) in enumerate(zip(plan.foregrounds, checks, strict=True)):
        if seen.error is not None:
            failing.append((seen.error.source, seen.error.detail))
        elif without := failing_variants(plan, number, seen):
            error = next(iter(without.values()))
            some = "" if len(without) == plan.counts[number] else f" (in {len(without)} of {plan.counts[number]})"
            failing.append((error.source, error.detail + some))
        for note in _notes(seen, drawn=plan.supplied_trimaps is None):
            found.setdefault(note, []).append(entry.image)
        report(Progress("foregrounds", number + 1, len(plan.foregrounds)))
    return [f"{note}: {list_briefly(names, NAMED)}" for note, names in found.items()]


def _notes(seen: ForegroundCheck, *, drawn: bool) -> Iterator[str]:
    if seen.error is not None:
        return
    if seen.never_opaque:
        yield "the alpha is never opaque"
    if seen.never_clear:
        yield "the alpha is never clear"
    if seen.nearly_binary:
        yield "the alpha is nearly binary, a mask rather than a matte"
    if drawn and not seen.unknown:
        yield "the unknown region can be empty"


def _check_trimaps(plan: Plan, jobs: int, report: OnProgress, failing: list[tuple[str, str]]) -> None:
    supplied = plan.supplied_trimaps
    if supplied is None:
        return
    places = [(e, v) for e, count in zip(plan.foregrounds, plan.counts, strict=True) for v in range(count)]
    check = partial(check_trimap, plan.foreground_layout, plan.recipe.trimap, supplied)
    for done, error in enumerate(run_in_processes(check, places, len(places), jobs), 1):
        if error is not None and (error.source, error.detail) not in failing:
            failing.append((error.source, error.detail))
        report(Progress("trimaps", done, len(places)))


def _background_sizes(plan: Plan, report: OnProgress, failing: list[tuple[str, str]]) -> dict[str, tuple[int, int]]:
    used = (
        plan.backgrounds[: sum(composed_counts(plan.foregrounds, plan.counts))]
        if plan.recipe.pairing.order != "shuffled"
        else plan.backgrounds
    )
    layout, sizes = plan.background_layout, {}
    for done, name in enumerate(used, 1):
        try:
            sizes[name] = layout.size(name)
        except SourceError as error:
            failing.append((error.source, error.detail))
        if done % 1000 == 0 or done == len(used):
            report(Progress("backgrounds", done, len(used)))
    return sizes


def _decode_backgrounds(
    plan: Plan, sizes: dict[str, tuple[int, int]], jobs: int, failing: list[tuple[str, str]]
) -> None:
    """Decode the backgrounds too where that takes a moment; of more of them, the doctor does."""
    if not sizes or not plan.background_layout.files(plan.backgrounds[0]) or _pixels(sizes) > DECODED:
        return
    load = partial(background_error, plan.background_layout)
    for error in run_in_processes(load, list(sizes), len(sizes), jobs):
        if error is not None:
            failing.append((error.source, error.detail))


def _pixels(sizes: dict[str, tuple[int, int]]) -> int:
    return sum(height * width for height, width in sizes.values())


def _pairing_warnings(plan: Plan, sizes: dict[str, tuple[int, int]]) -> Iterator[str]:
    variants = max(composed_counts(plan.foregrounds, plan.counts))
    if len(plan.backgrounds) < variants:
        yield (
            f"there are fewer backgrounds ({len(plan.backgrounds)}) than variants ({variants}):"
            " foregrounds will meet some of them more than once"
        )
    strong = []
    for row in plan.rows:
        size = plan.row_size(row)
        for variant in row.variants if size else ():
            name = plan.background_name(row.foreground, variant)
            if size and name in sizes and enlargement(sizes[name], size) > STRONG_ENLARGEMENT:
                strong.append(f"{plan.foregrounds[row.foreground].key}_{variant}")
    if strong:
        worst = list_briefly(strong, NAMED)
        yield f"{len(strong):,} composites enlarge their background more than {STRONG_ENLARGEMENT:g}×: {worst}"


def _alike_warnings(plan: Plan) -> Iterator[str]:
    """Warn of foregrounds that would be one file where case does not count."""
    alike: dict[str, list[str]] = {}
    for entry in plan.foregrounds:
        alike.setdefault(fold_name(entry.key), []).append(entry.image)
    names = [" and ".join(images) for images in alike.values() if len(images) > 1]
    if names:
        yield f"names that differ by case only, and cannot be exported into one folder: {list_briefly(names, NAMED)}"


@dataclass(frozen=True)
class _Cost:
    """What a row's composites take: each of them, and what they share in a shard; bytes and seconds."""

    each: tuple[int, float]
    shared: tuple[int, float]


def _probe(plan: Plan, jobs: int) -> tuple[int, float]:
    """Make some composites; return the dataset's estimated bytes and seconds."""
    pixels, size, seconds = 0, 0.0, 0.0
    for number in np.linspace(0, len(plan.rows) - 1, min(PROBES, len(plan.rows))).astype(int):
        row = plan.rows[int(number)]
        try:
            area, cost = _probe_row(plan, row)
        except SourceError:
            continue
        count, groups = len(row.variants), max(1.0, len(row.variants) / plan.shape[1])
        pixels += count * area
        size += count * cost.each[0] + groups * cost.shared[0]
        seconds += count * cost.each[1] + groups * cost.shared[1]
    if not pixels:
        return plan.estimated_bytes, 0.0
    scale = plan.pixels / pixels
    return int(scale * size), scale * seconds / joblib.effective_n_jobs(jobs)


def _probe_row(plan: Plan, row: Strip) -> tuple[int, _Cost]:
    """Make a row's first composite as a build would; return its pixels and what it takes."""
    codecs = load_packing(plan.recipe.shards.packing, plan.recipe.shards.quality)
    tile = (plan.recipe.shards.tile,) * 2
    cell, entry, supplied = plan.cell(row.foreground, row.variants.start), plan.foregrounds[row.foreground], None
    entries = {entry.key: entry for entry in plan.foregrounds}
    start = time.perf_counter()
    read = read_look(plan.foreground_layout, entry, plan.look(row.group), entries)
    if plan.supplied_trimaps:
        supplied = plan.supplied_trimaps.load(entry.key, cell.variant, read.alpha.shape)[0]
    kind = codecs.foreground if entry.composed else codecs.image
    shared = _coded(kind.encode(read.image, tile))
    if not entry.composed:
        middle = time.perf_counter()
        trimap = PreparedPicture(read.image, read.alpha, plan.recipe.trimap).draw_trimap(cell, supplied).trimap
        each = 0
    else:
        foreground = PreparedForeground(read.image, read.alpha, plan.recipe.fit, plan.recipe.trimap)
        middle = time.perf_counter()
        behind, _ = DistractorReader(plan.foreground_layout, entries).read(cell.distractors)
        others = [(other.image, other.alpha) for other in behind]
        made = foreground.compose(plan.background_layout.load(cell.background).image, cell, supplied, others=others)
        image, trimap = made.image, made.trimap
        if codecs.shares_opaque:
            image[foreground.alpha == 255] = 0
        each = _coded(codecs.image.encode(image, tile))
    each += _coded(codecs.mask.encode(trimap, tile))
    return read.alpha.size, _Cost((each, time.perf_counter() - middle), (shared, middle - start))


def _coded(grid: list[list[bytes]]) -> int:
    return sum(len(data) for row in grid for data in row)
