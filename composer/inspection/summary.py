"""Inspect: a dataset at a glance. Metadata first; pixels only where they must be looked at, and then the masks only.

Shares are of a composite's pixels. What counts as opaque or clear is the recipe's ``trimap.opaque`` and
``trimap.clear``, so that figures and trimaps speak of the same thing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..base.arrays import UInt8Array
from ..base.progress import OnProgress, Progress
from ..compositing.blending import STRONG_ENLARGEMENT
from ..dataset.card import SourceNote, source_notes
from ..dataset.dataset import Dataset, open_dataset
from ..dataset.documents import TrimapSettings
from ..dataset.rows import UNKNOWN

SAMPLE = 2_000  # composites whose masks are looked at unless all are asked for: shares are then right within a per cent


BINS = 24


UNCOMPRESSED = 5  # bytes a composite's pixel takes as plain arrays: three of colour, one of alpha, one of trimap


@dataclass(frozen=True)
class Distribution:
    """How a figure is spread over composites or foregrounds.

    Attributes
    ----------
    count : int
        How many values there are.
    least, low, median, high, most, mean : float
        Low and high are the 5th and the 95th percentile.
    edges : tuple of float
        Of a histogram of equally wide bins; one more than there are bins.
    counts : tuple of int
        Values in each bin.
    """

    count: int
    least: float
    low: float
    median: float
    high: float
    most: float
    mean: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, values: Sequence[float] | NDArray[Any], *, whole: bool = False) -> Distribution | None:
        """Summarise values; None where there are none. `whole` numbers get bins of whole numbers."""
        array = np.asarray(values, np.float64)
        if not array.size:
            return None
        low, median, high = np.percentile(array, (5, 50, 95))
        least, most = array.min(), array.max()
        if whole:
            step = max(1, int(np.ceil((most - least + 1) / BINS)))
            bins = np.arange(least - 0.5, most + step + 0.5, step)
        else:
            bins = np.linspace(least, most if most > least else least + 1e-6, BINS + 1)
        counts, edges = np.histogram(array, bins)
        return cls(
            count=array.size,
            least=float(least),
            low=float(low),
            median=float(median),
            high=float(high),
            most=float(most),
            mean=float(array.mean()),
            edges=tuple(float(edge) for edge in edges),
            counts=tuple(int(count) for count in counts),
        )


@dataclass(frozen=True)
class AlphaShares:
    """Shares of pixels, 0..1: which are opaque, clear, and in between."""

    opaque: float
    clear: float
    fractional: float


@dataclass(frozen=True)
class SplitCounts:
    """What a split holds."""

    foregrounds: int
    composites: int
    shards: int


@dataclass(frozen=True)
class Summary:
    """A dataset at a glance.

    Attributes
    ----------
    path : str
        Its folder.
    plan_sha256 : str
        The digest of its plan.
    sha256 : str
        The digest of its content; see `Dataset.sha256`.
    complete : bool
        Every planned composite is there, and every shard has the size that the index states.
    composites, planned, foregrounds, backgrounds, shards : int
        Counts; of backgrounds and foregrounds those in the plan.
    as_they_are : int
        How many of the composites are none, but pictures as they are with a trimap.
    bytes : int
        Of the shards on disk.
    pixels : int
        Of all composites together.
    packing_ratio : float
        Bytes of composites, alphas and trimaps as plain arrays, five a pixel (eight where backgrounds are stored), over
        `bytes`.
    smallest, median, largest : tuple of int
        (width, height), px, of composites, ordered by area.
    megapixels, erode, dilate, enlargement : Distribution or None
        Over all composites; enlargement is 1 where a background was large enough.
    enlarged, strongly_enlarged : int
        Composites with enlargement over 1, and over `STRONG_ENLARGEMENT`.
    splits : dict of str to SplitCounts
        By name.
    failures : dict of str to int
        Composites that could not be made, by cause.
    excluded : int
        Pictures left out on purpose.
    absent : tuple of str
        Shards that are missing, or of another size than the index says.
    recipe : dict
        As the index has it.
    sources : tuple of SourceNote
        Licences and attributions, where the recipe gives them.
    made_with : dict of str to str
        Versions of the libraries that made it.
    looked_at : int
        Composites whose masks were read for the three below.
    unknown : Distribution or None
        Fraction of pixels in the unknown region, over the composites looked at.
    alpha : AlphaShares or None
        Mean over their foregrounds.
    fractional : Distribution or None
        Fraction of pixels with fractional alpha, over their foregrounds.
    """

    path: str
    plan_sha256: str
    sha256: str
    complete: bool
    composites: int
    planned: int
    foregrounds: int
    backgrounds: int
    shards: int
    as_they_are: int
    bytes: int
    pixels: int
    packing_ratio: float
    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]
    megapixels: Distribution | None
    erode: Distribution | None
    dilate: Distribution | None
    enlargement: Distribution | None
    enlarged: int
    strongly_enlarged: int
    splits: dict[str, SplitCounts]
    failures: dict[str, int]
    excluded: int
    absent: tuple[str, ...]
    recipe: dict[str, Any]
    sources: tuple[SourceNote, ...]
    made_with: dict[str, str]
    looked_at: int
    unknown: Distribution | None
    alpha: AlphaShares | None
    fractional: Distribution | None


@dataclass(frozen=True)
class Columns:
    """What is looked at in the tables of all shards that are there: 37 bytes a composite.

    Attributes
    ----------
    number : (N,) int64
        The composites', ascending.
    height, width, erode, dilate, group, scale : (N,)
        As in their rows.
    composed : (N,) bool
        Whether each is a composite, and no picture as it is.
    foreground : (N,) int32
        Which of `names`.
    names : list of str
        Foregrounds' keys.
    """

    number: NDArray[np.int64]
    height: NDArray[np.uint32]
    width: NDArray[np.uint32]
    erode: NDArray[np.uint16]
    dilate: NDArray[np.uint16]
    group: NDArray[np.uint32]
    scale: NDArray[np.float64]
    composed: NDArray[np.bool_]
    foreground: NDArray[np.int32]
    names: list[str]


_COLUMNS: Final = {
    "number": "i8", "height": "u4", "width": "u4", "erode": "u2", "dilate": "u2", "group": "u4", "scale": "f8",
    "composed": "?", "foreground": "i4",
}  # fmt: skip


@dataclass(frozen=True)
class MaskFigures:
    """What was measured on masks.

    Attributes
    ----------
    numbers : (N,) int64
        The composites whose masks were read, ascending.
    unknown : (N,) float64
        Fraction of each one's pixels in the unknown region.
    alphas : dict of int to AlphaShares
        By group, a foreground's look each.
    """

    numbers: NDArray[np.int64]
    unknown: NDArray[np.float64]
    alphas: dict[int, AlphaShares]


def summarise(folder: str | Path, *, full: bool = False, on_progress: OnProgress | None = None) -> Summary:
    """Summarise a dataset.

    Parameters
    ----------
    folder : str or Path
        The dataset's.
    full : bool
        Read every composite's masks, not those of `SAMPLE` of them.
    on_progress : callable, optional
        Called as things are read.

    Raises
    ------
    DatasetError
        No dataset, an unfinished one, one of a newer version, or a damaged one.

    Examples
    --------
    >>> from matting_compose.composer import build, load_recipe
    >>> small = ["foregrounds.count=2", "foregrounds.sides=[64,80]", "backgrounds.count=2", "variants=2"]
    >>> _ = build(load_recipe("demo", small), "dataset", jobs=1)
    >>> found = summarise("dataset")
    >>> found.complete, found.composites, found.splits["train"]
    (True, 4, SplitCounts(foregrounds=1, composites=2, shards=1))
    """
    with closing(open_dataset(folder)) as dataset:
        missing = dataset.missing_shards()
        columns = read_columns(dataset, missing, on_progress)
        masks = measure_masks(dataset, columns, sample=None if full else SAMPLE, on_progress=on_progress)
        return make_summary(dataset, missing, columns, masks)


def read_columns(dataset: Dataset, missing: Collection[str], on_progress: OnProgress | None = None) -> Columns:
    """Read what is looked at in the tables of all shards but the missing ones."""
    known: dict[bytes, int] = {}
    count = sum(shard.composites for shard in dataset.shards if shard.file not in missing)
    columns = {name: np.empty(count, kind) for name, kind in _COLUMNS.items()}
    start = 0
    for numbers, table in dataset.read_tables(missing, on_progress):
        here = slice(start, start := start + len(table))
        for name in ("height", "width", "erode", "dilate", "group", "scale"):
            columns[name][here] = table[name]
        columns["number"][here] = numbers
        columns["composed"][here] = table["background"] != b""
        keys, which = np.unique(table["foreground"], return_inverse=True)
        columns["foreground"][here] = np.array([known.setdefault(key, len(known)) for key in keys.tolist()])[which]
    return Columns(**columns, names=[key.decode() for key in known])


def measure_masks(
    dataset: Dataset, columns: Columns, *, sample: int | None, on_progress: OnProgress | None = None
) -> MaskFigures:
    """Read the trimaps of composites, and their foregrounds' alphas once each.

    Parameters
    ----------
    columns : Columns
        Of the composites that can be read.
    sample : int or None
        How many to read, drawn evenly; None for all.
    """
    numbers = columns.number
    if sample is not None and sample < len(numbers):
        # Always the same ones, so that two summaries of one dataset agree.
        numbers = numbers[np.sort(np.random.default_rng(0).choice(len(numbers), sample, replace=False))]
    unknown = np.empty(len(numbers))
    alphas: dict[int, AlphaShares] = {}
    for i, (number, row) in enumerate(dataset.read_rows(numbers)):
        reader = dataset.reader(dataset.locate(number)[0])
        trimap = reader.read_mask(row, "trimap")
        unknown[i] = np.count_nonzero(trimap == UNKNOWN) / trimap.size
        if row.group not in alphas:
            alphas[row.group] = _alpha_shares(reader.read_mask(row, "alpha"), dataset.settings.trimap)
        if on_progress:
            on_progress(Progress("masks", i + 1, len(numbers)))
    return MaskFigures(numbers, unknown, alphas)


def _alpha_shares(alpha: UInt8Array, settings: TrimapSettings) -> AlphaShares:
    opaque, clear = np.count_nonzero(alpha >= settings.opaque), np.count_nonzero(alpha <= settings.clear)
    return AlphaShares(opaque / alpha.size, clear / alpha.size, (alpha.size - opaque - clear) / alpha.size)


def make_summary(dataset: Dataset, missing: tuple[str, ...], columns: Columns, masks: MaskFigures) -> Summary:
    """Put together what the index, the tables and the masks say."""
    index = dataset.metadata
    areas = columns.height.astype(np.int64) * columns.width
    order = np.argsort(areas, kind="stable")
    at = [order[i] for i in (0, len(order) // 2, -1)] if order.size else []
    smallest, median, largest = [(int(columns.width[i]), int(columns.height[i])) for i in at] or [(0, 0)] * 3
    enlargement = np.maximum(1.0, columns.scale)
    raw = int(areas.sum()) * (UNCOMPRESSED + (3 if dataset.background != "none" else 0))
    alphas = list(masks.alphas.values())
    return Summary(
        path=str(dataset.path),
        plan_sha256=index.plan_sha256,
        sha256=dataset.sha256,
        complete=index.composites == index.planned and not missing,
        composites=index.composites,
        planned=index.planned,
        foregrounds=index.foregrounds,
        backgrounds=index.backgrounds,
        shards=len(index.shards),
        as_they_are=int((~columns.composed).sum()),
        bytes=index.bytes,
        pixels=int(areas.sum()),
        packing_ratio=raw / index.bytes if index.bytes else 0.0,
        smallest=smallest,
        median=median,
        largest=largest,
        megapixels=Distribution.of(areas / 1e6),
        erode=Distribution.of(columns.erode, whole=True),
        dilate=Distribution.of(columns.dilate, whole=True),
        enlargement=Distribution.of(enlargement),
        enlarged=int((enlargement > 1).sum()),
        strongly_enlarged=int((enlargement > STRONG_ENLARGEMENT).sum()),
        splits=_splits(dataset, columns),
        failures=dict(sorted(Counter(failure.cause for failure in index.failures).items())),
        excluded=len(index.excluded),
        absent=missing,
        recipe=index.recipe,
        sources=source_notes(index.recipe),
        made_with=index.made_with,
        looked_at=len(masks.numbers),
        unknown=Distribution.of(masks.unknown),
        alpha=_mean(alphas) if alphas else None,
        fractional=Distribution.of([shares.fractional for shares in alphas]),
    )


def _mean(alphas: list[AlphaShares]) -> AlphaShares:
    figures = np.mean([(shares.opaque, shares.clear, shares.fractional) for shares in alphas], axis=0)
    return AlphaShares(*(float(figure) for figure in figures))


def _splits(dataset: Dataset, columns: Columns) -> dict[str, SplitCounts]:
    counts: dict[str, SplitCounts] = {}
    for split in dict.fromkeys(shard.split for shard in dataset.shards):
        numbers = dataset.numbers(split)
        foregrounds = np.unique(columns.foreground[np.isin(columns.number, numbers, assume_unique=True)])
        shards = sum(shard.split == split for shard in dataset.shards)
        counts[split] = SplitCounts(len(foregrounds), len(numbers), shards)
    return counts
