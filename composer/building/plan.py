"""Plan: the matrix of foregrounds × variants, cut into shards. Who meets whom, with which draws; nothing is rendered.

Every cell's randomness comes from ``SeedSequence(seed, spawn_key=(foreground, variant))`` alone, so a cell is the
same for any number of workers, shard size, order or restart. A look's comes from a stream of its own kind.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compositing.compose import Draws, draw
from ..compositing.looks import draw_look, look_size
from ..compositing.scenes import Distractor, Scenes, describe_distractors, draw_distractors
from ..dataset.documents import Split
from ..dataset.packings import load_packing
from ..dataset.rows import UNCHANGED_LOOK, Look
from ..recipe import Recipe, plain
from ..sources.backgrounds import BackgroundLayout, background_layout
from ..sources.foregrounds import Entry, ForegroundLayout, foreground_layout
from ..sources.trimap_files import SuppliedTrimaps, supplied_trimaps

PLAN = "plan.json"


SPLITS: tuple[Split, ...] = ("train", "validation")


VERSION = (
    2  # of the rules by which pictures are read, paired and composed: another version means other pixels; see format.md
)


SHUFFLE = 0x5F  # the stream of randomness that pairs backgrounds


LOOK_STREAM = 3  # the stream of looks: three words, as those of drawn pictures (see `layouts`), which are 1 and 2


DISTRACTOR_STREAM = 4  # of who else stands in a scene: likewise, so that nothing else is drawn otherwise for it


AS_IT_IS = "as it is"  # what a plan's document says of a picture that is not composed,


TARGET = "target"  # and of a foreground that stands in no other's scene


TYPICAL_PIXELS = 1_200_000  # where not one header can be read


@dataclass(frozen=True, kw_only=True)
class Cell(Draws):
    """One composite to be: who meets whom, and what chance decides.

    Attributes
    ----------
    foreground, variant : int
        Its place in the matrix.
    group : int
        Of its look.
    background : str
        The background's name; empty for a picture as it is.
    """

    foreground: int
    variant: int
    group: int
    background: str


@dataclass(frozen=True)
class Strip:
    """Some variants of one look of a foreground: what a group in a shard holds.

    Attributes
    ----------
    group : int
        The group's number, one for each look of each foreground.
    foreground, look : int
        Whose.
    variants : range
        A row of the matrix, or a part of one.
    """

    group: int
    foreground: int
    look: int
    variants: range


@dataclass(frozen=True)
class ShardPlan:
    """A rectangle of the matrix. Where rows are of different lengths, each gives the same share of its variants."""

    index: int
    split: Split
    strips: tuple[Strip, ...]

    def __len__(self) -> int:
        return sum(len(strip.variants) for strip in self.strips)

    @property
    def name(self) -> str:
        """The file's name."""
        return f"shard-{self.index:05d}.h5"


@dataclass(frozen=True)
class Plan:
    """Everything that decides a dataset's pixels.

    Attributes
    ----------
    recipe : Recipe
        What to build.
    foregrounds : tuple[Entry, ...]
        Whom the matrix's rows belong to: there is one for each look of each foreground.
    splits : tuple[Split, ...]
        ``train`` or ``validation``, for each foreground.
    counts : tuple[int, ...]
        How many variants each foreground has.
    backgrounds : tuple[str, ...]
        Names, in pairing's order.
    sizes : tuple of (int, int) or None
        (height, width) px of each foreground; None where its header cannot be read.
    excluded : tuple of (str, str)
        Pictures left out on purpose, with the reason.
    shape : (int, int)
        Rows and variants in a shard.
    """

    recipe: Recipe
    foregrounds: tuple[Entry, ...]
    splits: tuple[Split, ...]
    counts: tuple[int, ...]
    backgrounds: tuple[str, ...]
    sizes: tuple[tuple[int, int] | None, ...]
    excluded: tuple[tuple[str, str], ...]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return sum(self.counts)

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
        scenes = self.recipe.scenes if self.foregrounds[foreground].composed else Scenes()
        drawn, behind = draw(self.recipe.fit, scenes, rng), self.distractors(foreground, variant)
        if behind:
            scene = replace(drawn.scene, distractors=describe_distractors(behind))
            drawn = replace(drawn, scene=scene, distractors=tuple(behind))
        return Cell(
            **vars(drawn),
            foreground=foreground,
            variant=variant,
            group=self._group(foreground, variant),
            background=self.background_name(foreground, variant),
        )

    def distractors(self, foreground: int, variant: int) -> list[Distractor]:
        """Return who else stands in a cell's scene."""
        entry, scenes = self.foregrounds[foreground], self.recipe.scenes
        if not scenes.distractors or not entry.composed:
            return []
        words = (DISTRACTOR_STREAM, foreground, variant)
        rng = np.random.default_rng(np.random.SeedSequence(self.recipe.seed, spawn_key=words))
        return draw_distractors(scenes, self._distracting[self.splits[foreground]], entry.key, rng)

    @cached_property
    def _distracting(self) -> dict[str, list[str]]:
        """The keys that may stand in others' scenes, sorted, by split."""
        keys: dict[str, list[str]] = {split: [] for split in self.splits}
        for entry, split in zip(self.foregrounds, self.splits, strict=True):
            if entry.distracts:
                keys[split].append(entry.key)
        return {split: sorted(own) for split, own in keys.items()}

    def _group(self, foreground: int, variant: int) -> int:
        looks = self.look_count(foreground)
        number = ((variant + 1) * looks - 1) // self.counts[foreground]  # look n has [n·count/looks, (n+1)·count/looks)
        return number * len(self.foregrounds) + foreground

    def look_count(self, foreground: int) -> int:
        """Return how many looks a foreground has; a picture as it is has but that one."""
        return min(self.recipe.looks.count, self.counts[foreground]) if self.foregrounds[foreground].composed else 1

    def look(self, group: int) -> Look:
        """Return the look of a group; a foreground's partner is of its own split."""
        number, foreground = divmod(group, len(self.foregrounds))
        if not self.foregrounds[foreground].composed:
            return UNCHANGED_LOOK
        split, own = self._places[foreground]
        rng = np.random.default_rng(
            np.random.SeedSequence(self.recipe.seed, spawn_key=(LOOK_STREAM, foreground, number))
        )
        return draw_look(self.recipe.looks, number, split, own, rng)

    @cached_property
    def _places(self) -> list[tuple[list[str], int]]:
        """For each foreground the keys of its split that may stand behind it, and its own place among them."""
        keys: dict[str, list[str]] = {split: [] for split in self.splits}
        places = []
        for entry, split, count in zip(self.foregrounds, self.splits, self.counts, strict=True):
            places.append((keys[split], len(keys[split])))
            if entry.composed and count:
                keys[split].append(entry.key)
        return places

    @cached_property
    def rows(self) -> tuple[Strip, ...]:
        """The matrix: all foregrounds' first looks, then their second ones, so that neighbours are not of one kind."""
        rows = []
        looks_of = [self.look_count(foreground) for foreground in range(len(self.counts))]
        for number in range(max(looks_of)):
            for foreground, (count, looks) in enumerate(zip(self.counts, looks_of, strict=True)):
                if number < looks:
                    variants = range(number * count // looks, (number + 1) * count // looks)
                    rows.append(Strip(number * len(self.counts) + foreground, foreground, number, variants))
        return tuple(rows)

    def row_size(self, row: Strip) -> tuple[int, int] | None:
        """Return (height, width) px of a row's composites, but for what turning cuts off; None where unknown."""
        size = self.sizes[row.foreground]
        return look_size(size, self.look(row.group)) if size else None

    def background_name(self, foreground: int, variant: int) -> str:
        """Return whom a cell meets; nobody, ``""``, where it is a picture as it is."""
        if not self.foregrounds[foreground].composed:
            return ""
        return self.backgrounds[int(self._pairing[self._starts[foreground] + variant])]

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *accumulate(composed_counts(self.foregrounds, self.counts))]

    @cached_property
    def _pairing(self) -> NDArray[np.int64]:
        count, total = len(self.backgrounds), self._starts[-1]
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
        for split in SPLITS:
            rows = [row for row in self.rows if self.splits[row.foreground] == split]
            for top in range(0, len(rows), height):
                block = rows[top : top + height]
                longest = max(len(row.variants) for row in block)
                for left in range(0, longest, width):
                    right = min(left + width, longest)
                    strips = (_share(row, left, right, longest) for row in block)
                    shards.append(ShardPlan(len(shards), split, tuple(strip for strip in strips if strip.variants)))
        return tuple(shards)

    def cells(self, shard: ShardPlan) -> Iterator[Cell]:
        """Yield a shard's cells, foreground by foreground."""
        return (self.cell(strip.foreground, v) for strip in shard.strips for v in strip.variants)

    def document(self) -> dict[str, Any]:
        """Return the plan as plain types: what is hashed, and what a resumed build is compared with."""
        rows = zip(self.foregrounds, self.splits, self.counts, strict=True)
        return {
            "plan_version": VERSION,
            "recipe": plain(self.recipe),
            "shape": list(self.shape),
            "foregrounds": [
                [entry.key, entry.image, split, *_row_end(entry, count, self.recipe.variants)]
                for entry, split, count in rows
            ],
            "backgrounds": list(self.backgrounds),
        }

    @cached_property
    def sha256(self) -> str:
        """The hash over `document`."""
        return plan_sha256(self.document())

    @cached_property
    def pixels(self) -> int:
        """Pixels of all composites together; unreadable foregrounds count as the median."""
        sizes = [self.row_size(row) for row in self.rows]
        median = median_pixels(sizes)
        return sum(
            len(row.variants) * (size[0] * size[1] if size else median)
            for row, size in zip(self.rows, sizes, strict=True)
        )

    @property
    def estimated_bytes(self) -> int:
        """Bytes on disk, by what photographs take; a dry run measures instead."""
        extra = {"none": 0.0, "unknown": 0.1, "full": 0.7}[self.recipe.shards.background]
        return int(self.pixels * load_packing(self.recipe.shards.packing).typical_bytes * (1 + extra))


def plan_sha256(document: dict[str, Any]) -> str:
    """Hash a plan's document."""
    text = json.dumps(document, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def composed_counts(foregrounds: Sequence[Entry], counts: Sequence[int]) -> list[int]:
    """Return how many composites each foreground has: of a picture as it is, none."""
    return [count if entry.composed else 0 for entry, count in zip(foregrounds, counts, strict=True)]


def _row_end(entry: Entry, count: int, usual: int) -> list[int | str]:
    """Return what a foreground's row in a plan's document says only where it is not as usual."""
    if not entry.composed or not entry.distracts:
        return [count, TARGET if entry.composed else AS_IT_IS]
    return [] if count == usual else [count]


def _share(row: Strip, left: int, right: int, longest: int) -> Strip:
    """Return as much of a row as [left, right) is of the longest one."""
    count = len(row.variants)
    return replace(row, variants=row.variants[left * count // longest : right * count // longest])


def median_pixels(sizes: Sequence[tuple[int, int] | None]) -> int:
    """Return the median of the sizes that are known, px."""
    return int(statistics.median([size[0] * size[1] for size in sizes if size] or [TYPICAL_PIXELS]))
