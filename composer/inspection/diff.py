"""Diff: what differs between two datasets, in their recipes, their tables and their pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base.progress import OnProgress, Progress
from ..dataset.dataset import Dataset, open_dataset
from ..dataset.rows import Parts, compare_tables, digest_keys

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
        pairs, only, rows = _match(first, second)
        keys = [
            dataset.row(int(number)).key
            for dataset, numbers in zip((first, second), only, strict=True)
            for number in numbers[:NAMED]
        ]
        twins = {shard.sha256 for shard in first.shards} & {shard.sha256 for shard in second.shards}
        identical = np.repeat([s.sha256 in twins for s in first.shards], [s.composites for s in first.shards])
        differing = pairs[~identical[pairs[:, 0]]]
        picked = _sample(differing, None if full else SAMPLE)
        pixels = _pixels(first, second, picked, on_progress)
    recipe = tuple(_changes(first.recipe, second.recipe))
    return DiffResult(
        a=str(first.path),
        b=str(second.path),
        same=not (recipe or any(map(len, only)) or rows or pixels),
        recipe=recipe,
        made_with=tuple(_changes(first.metadata.made_with, second.metadata.made_with)),
        only_a=len(only[0]),
        only_b=len(only[1]),
        examples=tuple(keys),
        rows=dict(sorted(rows.items())),
        shared=len(pairs),
        compared=len(picked),
        identical=len(pairs) - len(differing),
        pixels=pixels,
    )


def _match(
    first: Dataset, second: Dataset
) -> tuple[NDArray[np.int64], tuple[NDArray[np.int64], NDArray[np.int64]], Counter[str]]:
    """Match composites by their keys, a shard's table at a time: 40 bytes are held of each.

    Returns
    -------
    pairs : (N, 2) int64
        Numbers of those that both have, in the first one's order.
    only : two arrays of int64
        Numbers of those that one alone has, ascending.
    rows : Counter
        By field, in how many pairs' rows it differs.
    """
    starts = np.cumsum([0, *(shard.composites for shard in second.shards)])
    digests, theirs = _index(second)
    alone = np.zeros(len(second) + 1, bool)
    alone[theirs[:-1]] = True
    pairs, only, rows = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.int64)], Counter[str]()
    for numbers, table in first.read_tables(first.missing_shards()):
        own = np.arange(numbers.start, numbers.stop)
        wanted = digest_keys(table["key"].tolist())
        found = theirs[np.searchsorted(digests, wanted)]  # or another, or none
        matched = np.zeros(len(table), bool)
        shards = np.searchsorted(starts, found, side="right") - 1
        for shard in np.unique(shards[found < len(second)]).tolist():
            here = np.flatnonzero(shards == shard)
            other = second.reader(shard).table[found[here] - starts[shard]]
            same = table["key"][here] == other["key"]
            matched[here] = same
            for name, differs in compare_tables(table[here[same]], other[same]):
                rows[name] += 0 if name in LOCATION else int(differs.sum())
        pairs.append(np.column_stack([own, found])[matched])
        only.append(own[~matched])
        alone[found[matched]] = False
    return np.concatenate(pairs), (np.concatenate(only), np.flatnonzero(alone)), +rows


def _index(dataset: Dataset) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return the digests of all keys, ascending, and whose they are; after those, what is no composite's number."""
    digests, numbers = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for these, table in dataset.read_tables(dataset.missing_shards()):
        digests.append(digest_keys(table["key"].tolist()))
        numbers.append(np.arange(these.start, these.stop))
    together, whose = np.concatenate(digests), np.concatenate(numbers)
    order = np.argsort(together, kind="stable")
    return together[order], np.append(whose[order], len(dataset))


def _sample(pairs: NDArray[np.int64], count: int | None) -> NDArray[np.int64]:
    if count is None or count >= len(pairs):
        return pairs
    return pairs[np.sort(np.random.default_rng(0).choice(len(pairs), count, replace=False))]


def _pixels(
    first: Dataset, second: Dataset, pairs: NDArray[np.int64], on_progress: OnProgress | None
) -> dict[str, PartDifference]:
    counts: Counter[str] = Counter()
    largest: dict[str, tuple[int, str]] = {}
    for done, (i, j) in enumerate(pairs.tolist(), 1):
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
