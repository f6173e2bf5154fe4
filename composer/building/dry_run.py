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
from ..compositing.compose import PreparedForeground
from ..compositing.trimaps import Trimap, trimap_strategy
from ..dataset.packings import load_packing
from ..dataset.rows import UNKNOWN
from ..sources.foregrounds import Entry, ForegroundLayout
from ..sources.trimap_files import SuppliedTrimaps
from .look_reader import read_look
from .plan import Plan

PROBES = 12  # composites that are made for the estimate


NAMED = 3  # pictures in a warning


NEARLY_BINARY = 0.002  # share of fractional pixels under which a matte is a mask


@dataclass(frozen=True)
class DryRun:
    """What a dry run says.

    Attributes
    ----------
    composites, foregrounds, variants, backgrounds, shards, validation : counts
    smallest, median, largest : (width, height) px of the composites
    bytes, free_bytes : the dataset's estimated size, and the room where it would lie; None for object storage
    seconds : estimated, with the jobs asked for
    failing : pictures that cannot be used, with the reason
    excluded : pictures left out on purpose, with the reason
    warnings : what may waste a night, a line each
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
    plan : what to build
    out : where; need not exist
    jobs : as the build's
    on_progress : called as things are looked at
    """
    report = on_progress or (lambda *_: None)
    failing: list[tuple[str, str]] = []
    notes = _look_at_foregrounds(plan, jobs, report, failing)
    sizes = _background_sizes(plan, report, failing)
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


def _look_at_foregrounds(plan: Plan, jobs: int, report: OnProgress, failing: list[tuple[str, str]]) -> list[str]:
    look = partial(_look, plan.foreground_layout, plan.recipe.trimap, plan.supplied_trimaps)
    looks = run_in_processes(look, plan.foregrounds, len(plan.foregrounds), jobs)
    found: dict[str, list[str]] = {}
    for done, (entry, (error, notes)) in enumerate(zip(plan.foregrounds, looks, strict=True), 1):
        if error is not None:
            failing.append((error.source, error.detail))
        for note in notes:
            found.setdefault(note, []).append(entry.image)
        report(Progress("foregrounds", done, len(plan.foregrounds)))
    return [f"{note}: {list_briefly(names, NAMED)}" for note, names in found.items()]


def _look(
    layout: ForegroundLayout, settings: Trimap, supplied: SuppliedTrimaps | None, entry: Entry
) -> tuple[SourceError | None, list[str]]:
    """Judge one alpha, and its first trimap, by what training needs of them."""
    try:
        alpha = layout.load(entry).alpha
        if supplied is not None:
            smallest, _ = supplied.load(entry.key, 0, alpha.shape)
        else:
            smallest = trimap_strategy(alpha, settings)(0.0, 0.0).trimap
    except SourceError as error:
        return error, []
    notes = []
    opaque, clear = alpha >= settings.opaque, alpha <= settings.clear
    if not opaque.any():
        notes.append("the alpha is never opaque")
    if not clear.any():
        notes.append("the alpha is never clear")
    if 1 - (opaque | clear).mean() < NEARLY_BINARY:
        notes.append("the alpha is nearly binary, a mask rather than a matte")
    if not (smallest == UNKNOWN).any():
        notes.append("the unknown region can be empty")
    return None, notes


def _background_sizes(plan: Plan, report: OnProgress, failing: list[tuple[str, str]]) -> dict[str, tuple[int, int]]:
    used = plan.backgrounds[: len(plan)] if plan.recipe.pairing.order != "shuffled" else plan.backgrounds
    layout, sizes = plan.background_layout, {}
    for done, name in enumerate(used, 1):
        try:
            sizes[name] = layout.size(name)
        except SourceError as error:
            failing.append((error.source, error.detail))
        if done % 1000 == 0 or done == len(used):
            report(Progress("backgrounds", done, len(used)))
    return sizes


def _pairing_warnings(plan: Plan, sizes: dict[str, tuple[int, int]]) -> Iterator[str]:
    variants = max(plan.counts)
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


def _probe(plan: Plan, jobs: int) -> tuple[int, float]:
    """Make some composites; return the dataset's estimated bytes and seconds."""
    codecs = load_packing(plan.recipe.shards.packing, plan.recipe.shards.quality)
    tile = (plan.recipe.shards.tile,) * 2
    pixels, size, seconds, shared_seconds, shared_size = 0, 0, 0.0, 0.0, 0
    entries = {entry.key: entry for entry in plan.foregrounds}
    for number in np.linspace(0, len(plan.rows) - 1, min(PROBES, len(plan.rows))).astype(int):
        row = plan.rows[int(number)]
        cell = plan.cell(row.foreground, row.variants.start)
        try:
            start = time.perf_counter()
            entry, supplied = plan.foregrounds[row.foreground], plan.supplied_trimaps
            read = read_look(plan.foreground_layout, entry, plan.look(row.group), entries)
            foreground = PreparedForeground(read.image, read.alpha, plan.recipe.fit, plan.recipe.trimap)
            shared_size += _coded(codecs.foreground.encode(foreground.image, tile))
            middle = time.perf_counter()
            picture = plan.background_layout.load(cell.background).image
            trimap = supplied.load(entry.key, cell.variant, foreground.size)[0] if supplied else None
            made = foreground.compose(picture, cell, trimap)
        except SourceError:
            continue
        image = made.image
        if codecs.shares_opaque:
            image[foreground.alpha == 255] = 0
        size += _coded(codecs.image.encode(image, tile))
        size += _coded(codecs.mask.encode(made.trimap, tile))
        seconds += time.perf_counter() - middle
        shared_seconds += middle - start
        pixels += foreground.alpha.size
    if not pixels:
        return plan.estimated_bytes, 0.0
    per_shard = min(plan.shape[1], max(len(row.variants) for row in plan.rows))
    scale = plan.pixels / pixels
    return (
        int(scale * (size + shared_size / per_shard)),
        scale * (seconds + shared_seconds / per_shard) / joblib.effective_n_jobs(jobs),
    )


def _coded(grid: list[list[bytes]]) -> int:
    return sum(len(data) for row in grid for data in row)
