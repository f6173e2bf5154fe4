"""Gallery: the pictures of graded mattes that a page shows: whole, and where the methods err most as they are."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ...composer.base.arrays import BoolArray, UInt8Array
from ...composer.base.sheets import find_busiest
from ...composer.base.thumbnails import amplify_error, embed, reduce
from ...composer.dataset.rows import UNKNOWN
from .cases import CasePictures

__all__ = ["CELL", "CasePreview", "Gallery", "draw_preview"]

CELL: Final = 160  # px, the longer side of a thumbnail, and a side of what is shown 1:1


WEBP: Final = {"quality": 75, "method": 2}  # some 17 KB a case and 11 KB a matte, in base64; 10 ms a matte


MARK: Final = (255, 220, 0)  # RGB, of the place that is shown 1:1


@dataclass(frozen=True)
class Pair:
    """A picture twice, as WebP in base64.

    Attributes
    ----------
    whole : str
        Reduced.
    detail : str
        Where the methods err most, 1:1.
    """

    whole: str
    detail: str


@dataclass(frozen=True)
class CasePreview:
    """A case's pictures.

    Attributes
    ----------
    x, y, side : int
        The place that is shown 1:1, px.
    width, height : int
        The case's size, px.
    image, trimap : Pair or None
        None where there is none.
    truth : Pair
    alphas, errors : dict of str to Pair
        By competitor; errors are shown times `thumbnails.ERROR_GAIN`, where they are graded.
    """

    x: int
    y: int
    side: int
    width: int
    height: int
    image: Pair | None
    trimap: Pair | None
    truth: Pair
    alphas: dict[str, Pair]
    errors: dict[str, Pair]


class Gallery:
    """The worst cases, `count` at most, so that the memory they take is bounded: each competitor's, in equal parts, and
    where these are the same ones, those that are worst on average.
    """

    def __init__(self, count: int, competitors: int) -> None:
        self._count, self._each = count, count // competitors
        self._heaps: dict[str | None, list[tuple[float, int, str, CasePreview]]] = {}

    def add(self, case: str, number: int, errors: Mapping[str, float], preview: CasePreview) -> None:
        """Keep a case if it is among the worst; of equals the first."""
        for competitor, error in errors.items():
            self._push(competitor, self._each, (error, -number, case, preview))
        self._push(None, self._count, (float(np.mean(list(errors.values()))), -number, case, preview))

    def _push(self, key: str | None, count: int, entry: tuple[float, int, str, CasePreview]) -> None:
        heap = self._heaps.setdefault(key, [])
        push = heapq.heappush if len(heap) < count else heapq.heappushpop
        push(heap, entry)

    def previews(self) -> dict[str, CasePreview]:
        """Return what was kept, by the cases' names."""
        overall = sorted(self._heaps.pop(None, []), reverse=True)
        kept = {case: preview for heap in self._heaps.values() for *_, case, preview in heap}
        for *_, case, preview in overall:
            if len(kept) < self._count:
                kept.setdefault(case, preview)
        return kept


def draw_preview(pictures: CasePictures, predictions: Mapping[str, UInt8Array], masked: bool) -> CasePreview:
    """Draw a case and its mattes.

    Parameters
    ----------
    pictures : CasePictures
    predictions : Mapping[str, (H, W) uint8]
        By competitor; at least one.
    masked : bool
        Whether only the trimap's unknown region is graded.
    """
    trimap = pictures.trimap if masked else None
    graded = np.ones_like(pictures.truth, np.bool_) if trimap is None else trimap == UNKNOWN
    y, x, side = _find_worst(list(predictions.values()), pictures.truth, graded)
    window = np.s_[y : y + side, x : x + side]

    def pair(picture: UInt8Array, mark: bool = False) -> Pair:
        small = reduce(picture, CELL)
        if mark:
            small = _mark(small, np.array([x, y, side]) * small.shape[1] / picture.shape[1])
        return Pair(embed(small, **WEBP), embed(picture[window], **WEBP))

    height, width = pictures.truth.shape
    return CasePreview(
        x, y, side, width, height,
        image=None if pictures.image is None else pair(pictures.image, mark=True),
        trimap=None if pictures.trimap is None else pair(pictures.trimap),
        truth=pair(pictures.truth),
        alphas={name: pair(alpha) for name, alpha in predictions.items()},
        errors={name: pair(amplify_error(alpha, pictures.truth) * graded) for name, alpha in predictions.items()},
    )  # fmt: skip


def _find_worst(predictions: Sequence[UInt8Array], truth: UInt8Array, graded: BoolArray) -> tuple[int, int, int]:
    """Find the square over which all of them err most: its corner (y, x) and its side, px."""
    total = np.zeros(truth.shape, np.float32)
    for alpha in predictions:
        total += cv2.absdiff(alpha, truth)
    side = min(CELL, *truth.shape)
    return *find_busiest(total * graded, side), side


def _mark(picture: UInt8Array, square: NDArray[np.float64]) -> UInt8Array:
    """Draw a frame around a square, given by x, y and side."""
    x, y, side = np.rint(square).astype(int).tolist()
    return np.asarray(cv2.rectangle(picture.copy(), (x, y), (x + side - 1, y + side - 1), MARK), np.uint8)
