"""Make plan: list a recipe's pictures, read the foregrounds' headers, and lay out the matrix.

Nothing is decoded, but for the alphas of tables that choose by transparency.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..base.errors import PlanError, SourceError
from ..base.workers import run_in_processes
from ..compositing.trimaps import Trimap, soft_share
from ..dataset.documents import MOST_COMPOSITES, Split
from ..dataset.packings import load_packing
from ..recipe import ForegroundTable, Recipe
from ..recipe import Split as SplitTable
from ..sources.backgrounds import select_backgrounds
from ..sources.foregrounds import Entry, ForegroundLayout, foreground_layout
from .plan import Plan, composed_counts, median_pixels

SPLIT = 0x5A  # the stream of randomness that chooses what is kept for validation


FEWEST_ROWS = 8  # of shards, where there are foregrounds enough: a small dataset too keeps several cores busy


MANY = 512  # alphas that are worth more than one process


ENOUGH, KEPT = 20, 0.1  # foregrounds from which split.validation = auto keeps a share, and which


AS_IT_IS_COSTS = 2  # composites: what a picture as it is takes with all its trimaps


def make_plan(recipe: Recipe, shape: tuple[int, int] | None = None) -> Plan:
    """List the pictures, read the foregrounds' headers, and lay out the matrix.

    Parameters
    ----------
    recipe : Recipe
        What to build.
    shape : (int, int), optional
        Rows and variants in a shard, where an earlier build has fixed them.

    Raises
    ------
    PlanError
        No pictures, names that clash, too few backgrounds for ``listed``, or an impossible split.

    Examples
    --------
    >>> from matting_compose.composer import load_recipe
    >>> plan = make_plan(load_recipe("demo", ["foregrounds.count=2", "variants=3"]))
    >>> len(plan), plan.cell(1, 2).foreground
    (6, 1)
    """
    layout = foreground_layout(recipe)
    entries, sizes, excluded = _select(layout, recipe)
    backgrounds, unfit = select_backgrounds(recipe)
    counts = tuple(variant_count(recipe, recipe.foreground_tables[entry.table]) for entry in entries)
    if (planned := sum(counts)) > MOST_COMPOSITES:
        raise PlanError(
            f"{len(entries):,} foregrounds × {recipe.variants:,} variants: {planned:,} composites, and a dataset has"
            f" {MOST_COMPOSITES:,} at most; take fewer variants, or several datasets"
        )
    wanted = sum(composed_counts(entries, counts))
    if wanted and not backgrounds:
        left_out = f" ({len(unfit):,} were left out, {unfit[0][0]} because it is {unfit[0][1]})" if unfit else ""
        raise PlanError(f"no backgrounds: expected pictures in {_place(recipe.backgrounds)}, found none{left_out}")
    if recipe.pairing.order == "listed" and len(backgrounds) < wanted:
        matrix = f"{len(entries)} × {recipe.variants} = " if wanted == len(entries) * recipe.variants else ""
        raise PlanError(
            f"pairing listed needs {matrix}{wanted:,} backgrounds,"
            f" the list has {len(backgrounds):,}; complete it, or use pairing.order = shuffled"
        )
    if recipe.pairing.order == "listed" and excluded:
        name, reason = excluded[0]
        raise PlanError(
            f"{name}: {reason}; without it, pairing listed would give later foregrounds other backgrounds than theirs."
            " Lower foregrounds.min_side, leave foregrounds.transparency out, or use pairing.order = shuffled"
        )
    recipe = _settle_split(recipe, entries, counts)
    return Plan(
        recipe,
        tuple(entries),
        _split(entries, counts, recipe),
        counts,
        tuple(backgrounds),
        tuple(sizes),
        (*excluded, *unfit),
        shape or _shape(recipe, entries, sizes, counts),
    )


def variant_count(recipe: Recipe, table: ForegroundTable) -> int:
    """Return how many variants each of a table's foregrounds has: the recipe's times its weight, one at least.

    Those that only stand in others' scenes have none.
    """
    return 0 if table.role == "distractor" else max(1, round(recipe.variants * table.weight))


def _place(*tables: Any) -> str:
    return ", ".join(str(getattr(table, "root", getattr(table, "images", "the recipe"))) for table in tables)


def _select(
    layout: ForegroundLayout, recipe: Recipe
) -> tuple[list[Entry], list[tuple[int, int] | None], list[tuple[str, str]]]:
    entries: list[Entry] = []
    sizes: list[tuple[int, int] | None] = []
    excluded: list[tuple[str, str]] = []
    listed = layout.entries()
    unfit = _unlike(layout, recipe, listed)
    for entry in listed:
        try:
            size = layout.size(entry)
        except SourceError:
            size = None  # it stays in the plan, fails when it is rendered, and is listed there
        least = recipe.foreground_tables[entry.table].min_side
        if size is not None and min(size) < least:
            excluded.append((entry.image, f"{size[1]}×{size[0]} px, under min_side = {least}"))
            continue
        table = recipe.foreground_tables[entry.table]
        if entry.key in unfit:
            excluded.append((entry.image, unfit[entry.key]))
            continue
        entries.append(replace(entry, composed=table.compose, distracts=table.compose and table.role != "target"))
        sizes.append(size)
    if not entries:
        left_out = (
            f" ({len(excluded)} were left out, {excluded[0][0]} because it is {excluded[0][1]})" if excluded else ""
        )
        raise PlanError(
            f"no foregrounds: expected pictures in {_place(*recipe.foreground_tables)}, found none{left_out}"
        )
    keys = [entry.key for entry in entries]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        ways = "rename one of them"
        if len(recipe.foreground_tables) > 1:
            ways += ", or give one of the tables of foregrounds a name of its own, which goes before theirs"
        raise PlanError(f"two foregrounds are called '{twice}' up to the ending; {ways}")
    return entries, sizes, excluded


def _unlike(layout: ForegroundLayout, recipe: Recipe, entries: list[Entry]) -> dict[str, str]:
    """Return why foregrounds are softer or harder than their tables allow, by key: only this decodes."""
    tables = recipe.foreground_tables
    asked = [entry for entry in entries if tables[entry.table].transparency != (0, 1)]
    measure = partial(_soft_share, layout, recipe.trimap)
    shares = run_in_processes(measure, asked, len(asked), -1 if len(asked) >= MANY else 1)
    unfit = {}
    for entry, share in zip(asked, shares, strict=True):
        low, high = tables[entry.table].transparency
        if share is not None and not low <= share <= high:
            unfit[entry.key] = f"{share:.1%} soft, outside transparency = [{low:g}, {high:g}]".replace("%", " %")
    return unfit


def _soft_share(layout: ForegroundLayout, settings: Trimap, entry: Entry) -> float | None:
    try:
        return soft_share(layout.load(entry).alpha, settings)
    except SourceError:
        return None  # it stays in the plan, fails when it is rendered, and is listed there


def _settle_split(recipe: Recipe, entries: list[Entry], counts: tuple[int, ...]) -> Recipe:
    """Put the share that ``auto`` stands for in its place: a plan says what it does."""
    if recipe.split.validation != "auto":
        return recipe
    free = sum(
        count > 0 and recipe.foreground_tables[entry.table].split is None
        for entry, count in zip(entries, counts, strict=True)
    )
    return recipe.model_copy(update={"split": SplitTable(validation=KEPT if free >= ENOUGH else 0.0)})


def _split(entries: list[Entry], counts: tuple[int, ...], recipe: Recipe) -> tuple[Split, ...]:
    sides = [recipe.foreground_tables[entry.table].split for entry in entries]
    free = [(entry.key, count) for entry, count, side in zip(entries, counts, sides, strict=True) if side is None]
    wanted = recipe.split.validation
    assert wanted != "auto"
    if isinstance(wanted, tuple):
        unknown = sorted(set(wanted) - {key for key, _ in free})
        if unknown:
            raise PlanError(
                f"split.validation names '{unknown[0]}', which is no foreground, or of a table with a split"
            )
        chosen = set(wanted)
    else:
        rng = np.random.default_rng(np.random.SeedSequence(recipe.seed, spawn_key=(SPLIT,)))
        chosen = set()
        for keys in ([key for key, count in free if count], [key for key, count in free if not count]):
            share = max(1, round(wanted * len(keys))) if wanted else 0
            chosen |= {keys[i] for i in rng.permutation(len(keys))[:share]}
    found: list[Split] = [
        side or ("validation" if entry.key in chosen else "train") for entry, side in zip(entries, sides, strict=True)
    ]
    if not any(count and side == "train" for count, side in zip(counts, found, strict=True)) and chosen:
        raise PlanError("split.validation takes every foreground; leave some to train on")
    return tuple(found)


def _shape(
    recipe: Recipe, entries: list[Entry], sizes: list[tuple[int, int] | None], counts: tuple[int, ...]
) -> tuple[int, int]:
    # The median, not the sum: a picture that is repaired later must not change the cut.
    composite = (
        median_pixels([size for size, count in zip(sizes, counts, strict=True) if count])
        * load_packing(recipe.shards.packing).typical_bytes
    )
    looks = [recipe.looks.count if entry.composed else 1 for entry in entries]
    variants = min(recipe.shards.variants, max(-(-count // most) for count, most in zip(counts, looks, strict=True)))
    stored = variants if recipe.composes else min(variants, AS_IT_IS_COSTS)
    fitting = round(recipe.shards.megabytes * 2**20 / (composite * stored))
    rows = sum(min(most, count) for count, most in zip(counts, looks, strict=True))
    return max(1, min(fitting, -(-rows // FEWEST_ROWS))), variants
