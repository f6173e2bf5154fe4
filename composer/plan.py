"""Plan: the matrix of foregrounds × variants, cut into shards. Who meets whom, with which draws; nothing is rendered.

Every cell's randomness comes from ``SeedSequence(seed, spawn_key=(foreground, variant))`` alone, so a cell is the
same for any number of workers, shard size, order or restart.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import PlanError, SourceError
from .layouts import BackgroundLayout, Entry, ForegroundLayout, background_layout, foreground_layout
from .packing import TYPICAL_BYTES
from .recipe import PLACES, Recipe
from .supplied import SuppliedTrimaps, supplied_trimaps

VERSION = 1  # of the rules below: another version means other pixels
SHUFFLE, SPLIT = 0x5F, 0x5A  # streams of randomness that belong to no cell
FEWEST_ROWS = 8  # of shards, where there are foregrounds enough: a small dataset too keeps several cores busy
TYPICAL_PIXELS = 1_200_000  # where not one header can be read


@dataclass(frozen=True)
class Cell:
    """One composite to be.

    Attributes
    ----------
    foreground, variant : its place in the matrix
    background : the background's name
    erode, dilate, offset_y, offset_x : draws in [0, 1); what they choose is the recipe's
    """

    foreground: int
    variant: int
    background: str
    erode: float
    dilate: float
    offset_y: float
    offset_x: float


@dataclass(frozen=True)
class ShardPlan:
    """A rectangle of the matrix."""

    index: int
    split: str
    foregrounds: tuple[int, ...]
    variants: range

    def __len__(self) -> int:
        return len(self.foregrounds) * len(self.variants)

    @property
    def name(self) -> str:
        """The file's name."""
        return f"shard-{self.index:05d}.h5"


@dataclass(frozen=True)
class Plan:
    """Everything that decides a dataset's pixels.

    Attributes
    ----------
    recipe : what to build
    foregrounds : the matrix's rows
    splits : ``train`` or ``validation``, for each row
    backgrounds : names, in pairing's order
    sizes : (height, width) px of each foreground as composed; None where its header cannot be read
    excluded : foregrounds left out on purpose, with the reason
    shape : foregrounds and variants in a shard
    """

    recipe: Recipe
    foregrounds: tuple[Entry, ...]
    splits: tuple[str, ...]
    backgrounds: tuple[str, ...]
    sizes: tuple[tuple[int, int] | None, ...]
    excluded: tuple[tuple[str, str], ...]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.foregrounds) * self.recipe.variants

    @property
    def foreground_layout(self) -> ForegroundLayout:
        """Where foregrounds come from."""
        return foreground_layout(self.recipe)

    @property
    def background_layout(self) -> BackgroundLayout:
        """Where backgrounds come from."""
        return background_layout(self.recipe)

    @property
    def supplied_trimaps(self) -> SuppliedTrimaps | None:
        """Where trimaps come from; None where they are drawn."""
        return supplied_trimaps(self.recipe)

    def cell(self, foreground: int, variant: int) -> Cell:
        """Return one cell of the matrix."""
        rng = np.random.default_rng(np.random.SeedSequence(self.recipe.seed, spawn_key=(foreground, variant)))
        erode, dilate, offset_y, offset_x = rng.random(4)
        if self.recipe.fit.offset != "random":
            offset_y = offset_x = 0.5 if self.recipe.fit.offset == "centre" else 0.0
        background = self.background_name(foreground, variant)
        return Cell(foreground, variant, background, *(float(v) for v in (erode, dilate, offset_y, offset_x)))

    def background_name(self, foreground: int, variant: int) -> str:
        """Return whom a cell meets."""
        return self.backgrounds[int(self._pairing[foreground * self.recipe.variants + variant])]

    @cached_property
    def _pairing(self) -> NDArray[np.int64]:
        count, total = len(self.backgrounds), len(self)
        if self.recipe.pairing.order != "shuffled":
            return np.arange(total) % count
        rng = np.random.default_rng(np.random.SeedSequence(self.recipe.seed, spawn_key=(SHUFFLE,)))
        rounds = [rng.permutation(count) for _ in range(-(-total // count))]
        return np.concatenate(rounds)[:total]

    @cached_property
    def shards(self) -> tuple[ShardPlan, ...]:
        """The matrix, cut; a shard's foregrounds are all of one split."""
        shards: list[ShardPlan] = []
        height, width = self.shape
        for split in ("train", "validation"):
            rows = [i for i, name in enumerate(self.splits) if name == split]
            for top in range(0, len(rows), height):
                for left in range(0, self.recipe.variants, width):
                    variants = range(left, min(left + width, self.recipe.variants))
                    shards.append(ShardPlan(len(shards), split, tuple(rows[top : top + height]), variants))
        return tuple(shards)

    def cells(self, shard: ShardPlan) -> Iterator[Cell]:
        """Yield a shard's cells, foreground by foreground."""
        return (self.cell(f, v) for f in shard.foregrounds for v in shard.variants)

    def document(self) -> dict[str, Any]:
        """Return the plan as plain types: what is hashed, and what a resumed build is compared with."""
        recipe = self.recipe.model_dump(mode="json")
        for table, keys in PLACES.items():
            for key in keys:
                recipe[table].pop(key, None)
        return {
            "plan_version": VERSION,
            "recipe": recipe,
            "shape": list(self.shape),
            "foregrounds": [[e.key, e.image, split] for e, split in zip(self.foregrounds, self.splits, strict=True)],
            "backgrounds": list(self.backgrounds),
        }

    @cached_property
    def sha256(self) -> str:
        """The hash over `document`."""
        text = json.dumps(self.document(), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def pixels(self) -> int:
        """Pixels of all composites together; unreadable foregrounds count as the median."""
        median = _median_pixels(self.sizes)
        return self.recipe.variants * sum(size[0] * size[1] if size else median for size in self.sizes)

    @property
    def estimated_bytes(self) -> int:
        """Bytes on disk, by what photographs take; a dry run measures instead."""
        extra = {"none": 0.0, "unknown": 0.1, "full": 0.7}[self.recipe.shards.background]
        return int(self.pixels * TYPICAL_BYTES[self.recipe.shards.packing] * (1 + extra))


def make_plan(recipe: Recipe, shape: tuple[int, int] | None = None) -> Plan:
    """List the pictures, read the foregrounds' headers, and lay out the matrix.

    Parameters
    ----------
    recipe : what to build
    shape : foregrounds and variants in a shard, where an earlier build has fixed them

    Raises
    ------
    PlanError : no pictures, names that clash, too few backgrounds for ``listed``, an impossible split
    """
    layout = foreground_layout(recipe)
    entries, sizes, excluded = _select(layout, recipe)
    backgrounds = background_layout(recipe).names()
    if not backgrounds:
        raise PlanError(f"no backgrounds: expected pictures in {_place(recipe.backgrounds)}, found none")
    if recipe.pairing.order == "listed" and len(backgrounds) < len(entries) * recipe.variants:
        raise PlanError(
            f"pairing listed needs {len(entries)} × {recipe.variants} = {len(entries) * recipe.variants:,} backgrounds,"
            f" the list has {len(backgrounds):,}; complete it, or use pairing.order = shuffled"
        )
    if recipe.pairing.order == "listed" and excluded:
        name, reason = excluded[0]
        raise PlanError(
            f"{name}: {reason}; without it, pairing listed would give later foregrounds other backgrounds than theirs."
            " Lower foregrounds.min_side, or use pairing.order = shuffled"
        )
    return Plan(
        recipe,
        tuple(entries),
        _split(entries, recipe),
        tuple(backgrounds),
        tuple(sizes),
        tuple(excluded),
        shape or _shape(recipe, sizes),
    )


def _place(table: Any) -> str:
    return str(getattr(table, "root", getattr(table, "images", "the recipe")))


def _select(
    layout: ForegroundLayout, recipe: Recipe
) -> tuple[list[Entry], list[tuple[int, int] | None], list[tuple[str, str]]]:
    entries: list[Entry] = []
    sizes: list[tuple[int, int] | None] = []
    excluded: list[tuple[str, str]] = []
    for entry in layout.entries():
        try:
            size = layout.size(entry)
        except SourceError:
            size = None  # it stays in the plan, fails when it is rendered, and is listed there
        if size is not None and min(size) < recipe.foregrounds.min_side:
            excluded.append((entry.image, f"{size[1]}×{size[0]} px, under min_side = {recipe.foregrounds.min_side}"))
            continue
        entries.append(entry)
        sizes.append(size)
    if not entries:
        left_out = f" ({len(excluded)} were left out as too small)" if excluded else ""
        raise PlanError(f"no foregrounds: expected pictures in {_place(recipe.foregrounds)}, found none{left_out}")
    keys = [entry.key for entry in entries]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise PlanError(f"two foregrounds are called '{twice}' up to the ending; rename one of them")
    return entries, sizes, excluded


def _split(entries: list[Entry], recipe: Recipe) -> tuple[str, ...]:
    wanted = recipe.split.validation
    if isinstance(wanted, tuple):
        unknown = sorted(set(wanted) - {entry.key for entry in entries})
        if unknown:
            raise PlanError(f"split.validation names '{unknown[0]}', which is no foreground")
        chosen = set(wanted)
    else:
        rng = np.random.default_rng(np.random.SeedSequence(recipe.seed, spawn_key=(SPLIT,)))
        count = max(1, round(wanted * len(entries))) if wanted else 0
        chosen = {entries[i].key for i in rng.permutation(len(entries))[:count]}
    if len(chosen) == len(entries):
        raise PlanError("split.validation takes every foreground; leave some to train on")
    return tuple("validation" if entry.key in chosen else "train" for entry in entries)


def _median_pixels(sizes: list[tuple[int, int] | None] | tuple[tuple[int, int] | None, ...]) -> int:
    return int(statistics.median([size[0] * size[1] for size in sizes if size] or [TYPICAL_PIXELS]))


def _shape(recipe: Recipe, sizes: list[tuple[int, int] | None]) -> tuple[int, int]:
    # The median, not the sum: a picture that is repaired later must not change the cut.
    composite = _median_pixels(sizes) * TYPICAL_BYTES[recipe.shards.packing]
    variants = min(recipe.shards.variants, recipe.variants)
    fitting = round(recipe.shards.megabytes * 2**20 / (composite * variants))
    return max(1, min(fitting, -(-len(sizes) // FEWEST_ROWS))), variants
