"""Diff: what differs between two datasets, in their recipes, their tables and their pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..base.progress import OnProgress, Progress
from ..dataset.dataset import Dataset, open_dataset
from ..dataset.rows import Parts, Row

SAMPLE = 500  # composites whose pixels are compared unless all are asked for


LOCATION = ("group", "position")  # where a composite lies says nothing about what it is


NAMED = 5


@dataclass(frozen=True)
class Change:
    """A key of the recipe, or of what made the dataset, and its two values; None where one has no such key."""

    key: str
    before: Any
    after: Any


@dataclass(frozen=True)
class PartDifference:
    """How one part of the composites differs.

    Attributes
    ----------
    composites : int
        How many differ.
    share : float
        Of the composites compared, 0..1.
    largest : int
        The largest difference of any value, 0..255; 255 where sizes differ or one dataset lacks the part.
    example : str
        The key of a composite with that difference.
    """

    composites: int
    share: float
    largest: int
    example: str


@dataclass(frozen=True)
class DiffResult:
    """What differs between datasets A and B.

    Attributes
    ----------
    a, b : str
        Their folders.
    same : bool
        Nothing differs in what was compared.
    recipe : tuple of Change
        Keys of the recipes that differ.
    made_with : tuple of Change
        Libraries whose versions differ; they alone do not make datasets different.
    only_a, only_b : int
        Composites that only one of them has.
    examples : tuple of str
        Keys of some of those.
    rows : dict of str to int
        By field, in how many rows of composites that both have it differs.
    shared, compared, identical : int
        Composites that both have; those whose pixels were compared; and those that lie in shards of the same bytes,
        which need not be.
    pixels : dict of str to PartDifference
        By part; parts that agree are left out.
    """

    a: str
    b: str
    same: bool
    recipe: tuple[Change, ...]
    made_with: tuple[Change, ...]
    only_a: int
    only_b: int
    examples: tuple[str, ...]
    rows: dict[str, int]
    shared: int
    compared: int
    identical: int
    pixels: dict[str, PartDifference]


def compare(a: str | Path, b: str | Path, *, full: bool = False, on_progress: OnProgress | None = None) -> DiffResult:
    """Compare two datasets: recipes, tables and pixels.

    Parameters
    ----------
    a, b : str or Path
        Their folders.
    full : bool
        Compare every composite's pixels, not those of `SAMPLE` of them.
    on_progress : callable, optional
        Called as things are compared.

    Raises
    ------
    DatasetError
        One of them is no dataset, or a composite cannot be read.

    Examples
    --------
    >>> from matting_compose.composer import build, load_recipe
    >>> small = ["foregrounds.count=2", "foregrounds.sides=[64,80]", "backgrounds.count=2", "variants=2"]
    >>> for seed in (1, 2):
    ...     _ = build(load_recipe("demo", [*small, f"seed={seed}"]), f"dataset-{seed}", jobs=1)
    >>> result = compare("dataset-1", "dataset-2")
    >>> result.same, result.recipe[0]
    (False, Change(key='seed', before=1, after=2))
    """
    with closing(open_dataset(a)) as first, closing(open_dataset(b)) as second:
        tables = [dataset.read_rows(dataset.missing_shards()) for dataset in (first, second)]
        numbers = [{row.key: number for number, row in rows.items()} for rows in tables]
        shared = [key for key in numbers[0] if key in numbers[1]]
        twins = {shard.sha256 for shard in first.shards} & {shard.sha256 for shard in second.shards}
        differing = [key for key in shared if first.shard_of(numbers[0][key]).sha256 not in twins]
        pairs = [(numbers[0][key], numbers[1][key]) for key in differing]
        picked = _sample(pairs, None if full else SAMPLE)
        pixels = _pixels(first, second, picked, on_progress)
    rows = Counter(field for key in shared for field in _fields(tables[0][numbers[0][key]], tables[1][numbers[1][key]]))
    only = [key for key in numbers[0] if key not in numbers[1]], [key for key in numbers[1] if key not in numbers[0]]
    recipe = tuple(_changes(first.recipe, second.recipe))
    return DiffResult(
        a=str(first.path),
        b=str(second.path),
        same=not (recipe or any(only) or rows or pixels),
        recipe=recipe,
        made_with=tuple(_changes(first.metadata.made_with, second.metadata.made_with)),
        only_a=len(only[0]),
        only_b=len(only[1]),
        examples=(*only[0][:NAMED], *only[1][:NAMED]),
        rows=dict(sorted(rows.items())),
        shared=len(shared),
        compared=len(picked),
        identical=len(shared) - len(differing),
        pixels=pixels,
    )


def _sample(pairs: list[tuple[int, int]], count: int | None) -> list[tuple[int, int]]:
    if count is None or count >= len(pairs):
        return pairs
    chosen = np.sort(np.random.default_rng(0).choice(len(pairs), count, replace=False))
    return [pairs[int(i)] for i in chosen]


def _pixels(
    first: Dataset, second: Dataset, pairs: list[tuple[int, int]], on_progress: OnProgress | None
) -> dict[str, PartDifference]:
    counts: Counter[str] = Counter()
    largest: dict[str, tuple[int, str]] = {}
    for done, (i, j) in enumerate(pairs, 1):
        one, other = first[i], second[j]
        for part in Parts._fields:
            distance = _distance(getattr(one, part), getattr(other, part))
            if distance:
                counts[part] += 1
                largest[part] = max(largest.get(part, (0, "")), (distance, one.row.key))
        if on_progress:
            on_progress(Progress("pixels", done, len(pairs)))
    return {
        part: PartDifference(counts[part], counts[part] / len(pairs), *largest[part])
        for part in Parts._fields
        if counts[part]
    }


def _distance(one: np.ndarray[Any, Any] | None, other: np.ndarray[Any, Any] | None) -> int:
    """Return the largest difference of any value; 255 where there is nothing to compare with."""
    if one is None or other is None:
        return 0 if one is other else 255
    if one.shape != other.shape:
        return 255
    return int(np.abs(one.astype(np.int16) - other).max(initial=0))


def _fields(one: Row, other: Row) -> Iterator[str]:
    """Yield the fields in which two rows differ, but for where their pixels lie."""
    before, after = asdict(one), asdict(other)
    return (field for field in before if field not in LOCATION and before[field] != after[field])


def _changes(before: Any, after: Any, path: str = "") -> Iterator[Change]:
    """Yield what differs between two values of JSON, by dotted key."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            inner = f"{path}.{key}" if path else str(key)
            if key in before and key in after:
                yield from _changes(before[key], after[key], inner)
            else:
                yield Change(inner, before.get(key), after.get(key))
    elif before != after:
        yield Change(path, before, after)
