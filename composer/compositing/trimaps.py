"""Trimap: an alpha and two draws in, {0 background, 128 unknown, 255 foreground} out. Pure arrays.

Every strategy is built once per foreground and then called once per composite with two numbers in [0, 1).
All but ``distance`` redo what published code does, so that data can be made as others made theirs:

=================  ====================================================================================
distance           disks of independent radii, by exact distance transform (the default)
mmagic, gca        independent elliptical kernels of 1..29 px, eroding and dilating (DIM in mmagic; GCA)
indexnet           every pixel within r = 1..19 px of a fractional one (IndexNet)
huochaitiantang    an ellipse of 2..4 px, iterated 5..14 times, the same on both sides
tsing90            squares of 0.6 %..2.2 % of (height + width)/2, independent
=================  ====================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal

import cv2
import numpy as np
from pydantic import AfterValidator, Field, model_validator

from ..base.arrays import BoolArray, FloatArray, UInt8Array
from ..base.registry import Registry
from ..base.settings import Range, Table
from ..dataset.rows import BACKGROUND, FOREGROUND, UINT16_MAX, UNKNOWN

SUPPLIED = "supplied"  # the strategy of a recipe whose trimaps are files


MOST_THOUSANDTHS = 5000  # of the subject's size: more, and a radius may be beyond what a shard can tell


def _known_strategy(name: str) -> str:
    return name if name == SUPPLIED else STRATEGIES.check(name)


class Trimap(Table):
    """How the unknown region is drawn. Radii are ranges, both ends included."""

    strategy: Annotated[str, AfterValidator(_known_strategy)] = "distance"
    folder: str = Field(
        default="trimaps",
        description="of strategy supplied: holds {foreground}_{variant}.png, below the foregrounds' root",
    )
    erode: Range = (1, 20)
    dilate: Range = (1, 20)
    unit: Literal["px", "subject"] = Field(
        default="px",
        description="px, or thousandths of the subject's size (the side of the square of its bounding box's area)",
    )
    opaque: int = Field(default=255, ge=1, le=255, description="alpha from here on is opaque (250 for JPEG)")
    clear: int = Field(default=0, ge=0, le=254, description="alpha up to here is clear (5 for JPEG)")

    @model_validator(mode="after")
    def _check(self) -> Trimap:
        for name, (low, high) in (("erode", self.erode), ("dilate", self.dilate)):
            if self.unit == "px" and (low != int(low) or high != int(high)):
                raise ValueError(f"{name}: radii in px are whole numbers, found [{low:g}, {high:g}]")
            most = UINT16_MAX if self.unit == "px" else MOST_THOUSANDTHS
            if high > most:
                raise ValueError(f"{name}: expected radii of at most {most:,} ({self.unit}), found {high:g}")
        if self.clear >= self.opaque:
            raise ValueError(f"clear = {self.clear} must be below opaque = {self.opaque}")
        return self


@dataclass(frozen=True)
class DrawnTrimap:
    """A trimap and how it was drawn.

    Attributes
    ----------
    trimap : (H, W) uint8
        0 background, 128 unknown, 255 foreground.
    erode, dilate : int
        Radius in px for ``distance`` and ``indexnet``, else the kernel's side in px (times its iterations for
        ``huochaitiantang``); 0 for trimaps that were supplied.
    """

    trimap: UInt8Array
    erode: int
    dilate: int


# One foreground's trimaps: (erode, dilate) → a trimap; both are in [0, 1), and choose within the recipe's ranges.
DrawTrimap = Callable[[float, float], DrawnTrimap]


def trimap_strategy(alpha: UInt8Array, settings: Trimap) -> DrawTrimap:
    """Prepare a foreground's trimaps.

    Parameters
    ----------
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    settings : Trimap
        The recipe's table; its strategy is one of `STRATEGIES`.

    Returns
    -------
    Callable[[float, float], DrawnTrimap]
        Draws a trimap by two numbers in [0, 1), which choose within the ranges of ``erode`` and ``dilate``.

    Examples
    --------
    >>> alpha = np.zeros((9, 9), np.uint8)
    >>> alpha[3:6] = 255
    >>> trimap_strategy(alpha, Trimap(erode=(1, 1), dilate=(2, 2)))(0.0, 0.0).trimap[:, 0]
    array([  0, 128, 128, 128, 255, 128, 128, 128,   0], dtype=uint8)
    """
    return STRATEGIES[settings.strategy](alpha, settings)


def subject_size(alpha: UInt8Array, clear: int = 0) -> float:
    """Return the side of the square with the area of the visible pixels' bounding box.

    Parameters
    ----------
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    clear : int
        Alpha up to here is not visible.

    Returns
    -------
    float
        px; 0 where all is clear.
    """
    _, _, width, height = cv2.boundingRect((alpha > clear).view(np.uint8))
    return float(np.sqrt(width * height))


def soft_share(alpha: UInt8Array, settings: Trimap) -> float:
    """Return how much of what is visible is soft: the share of fractional pixels among those that are not clear.

    Parameters
    ----------
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    settings : Trimap
        The recipe's table, which says what counts as opaque and as clear.

    Returns
    -------
    float
        In 0..1; 0 where all is clear.

    Examples
    --------
    >>> soft_share(np.array([[0, 64, 128, 255, 255]], np.uint8), Trimap())
    0.5
    """
    visible = int(np.count_nonzero(alpha > settings.clear))
    return (visible - int(np.count_nonzero(alpha >= settings.opaque))) / max(visible, 1)


class _Distance:
    """Erode and dilate by disks: a disk of radius r reaches a pixel where its distance is ≤ r.

    Two distance transforms give every radius. They are folded into one map of levels: 0 fractional, k ≤ reach an
    opaque pixel at distance in (k−1, k] of the nearest that is not, reach + k likewise a clear one. A trimap is
    then one look-up.
    """

    def __init__(self, alpha: UInt8Array, settings: Trimap) -> None:
        unit = subject_size(alpha, settings.clear) / 1000 if settings.unit == "subject" else 1.0
        self._erode, self._dilate = settings.erode, settings.dilate
        self._unit = unit
        self._reach = int(np.ceil(max(settings.erode[1], settings.dilate[1]) * unit)) + 1
        level_type = np.uint8 if 2 * self._reach < 256 else np.uint16
        opaque, clear = alpha >= settings.opaque, alpha <= settings.clear
        self._levels = np.zeros(alpha.shape, level_type)
        for base, inside in ((0, opaque), (self._reach, clear)):
            steps = np.ceil(_distance_inside(inside))
            np.copyto(self._levels, (base + np.minimum(steps, self._reach)).astype(level_type), where=inside)

    def __call__(self, erode: float, dilate: float) -> DrawnTrimap:
        inner, outer = self._radius(self._erode, erode), self._radius(self._dilate, dilate)
        table = np.full(max(2 * self._reach + 1, 256), UNKNOWN, np.uint8)
        table[inner + 1 : self._reach + 1] = FOREGROUND
        table[self._reach + outer + 1 :] = BACKGROUND
        small = self._levels.dtype == np.uint8  # then OpenCV's look-up serves, four times faster
        trimap = cv2.LUT(self._levels, table) if small else np.take(table, self._levels)
        return DrawnTrimap(np.asarray(trimap, np.uint8), inner, outer)

    def _radius(self, limits: tuple[float, float], draw: float) -> int:
        if self._unit == 1.0:
            return int(_draw_integer(limits, draw))
        return round((limits[0] + draw * (limits[1] - limits[0])) * self._unit)


def _distance_inside(inside: BoolArray) -> FloatArray:
    """Distance, px, of each pixel to the nearest outside; what lies beyond the picture does not count."""
    distances = cv2.distanceTransform(inside.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distances, np.float32)


def _draw_integer(limits: tuple[float, float], draw: float) -> int:
    low, high = int(limits[0]), int(limits[1])
    return min(high, low + int(draw * (high - low + 1)))


@lru_cache(maxsize=128)
def _ellipse(side: int) -> UInt8Array:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


class _Kernels:
    """Erode and dilate by a kernel; subclasses draw the kernels. Iterations go by name: as a third positional
    argument OpenCV takes them for the destination, and one iteration runs.
    """

    def __init__(self, alpha: UInt8Array, settings: Trimap) -> None:
        self._opaque = (alpha >= settings.opaque).view(np.uint8)
        self._visible = (alpha > settings.clear).view(np.uint8)

    def _draw(self, inner: UInt8Array, outer: UInt8Array, iterations: int = 1) -> UInt8Array:
        eroded = cv2.erode(self._opaque, inner, iterations=iterations)
        dilated = cv2.dilate(self._visible, outer, iterations=iterations)
        trimap = np.full(eroded.shape, UNKNOWN, np.uint8)
        trimap[eroded > 0] = FOREGROUND
        trimap[dilated == 0] = BACKGROUND
        return trimap


class _Mmagic(_Kernels):
    """Source: mmagic, GenerateTrimap(kernel_size=(1, 30)); GCA's GenTrimap does the same."""

    def __call__(self, erode: float, dilate: float) -> DrawnTrimap:
        inner, outer = _draw_integer((1, 29), erode), _draw_integer((1, 29), dilate)
        return DrawnTrimap(self._draw(_ellipse(inner), _ellipse(outer)), inner, outer)


class _Huochaitiantang(_Kernels):
    """Source: pytorch-deep-image-matting, gen_trimap: "as the test 1k trimap"."""

    def __call__(self, erode: float, dilate: float) -> DrawnTrimap:
        side, iterations = _draw_integer((2, 4), erode), _draw_integer((5, 14), dilate)
        trimap = self._draw(_ellipse(side), _ellipse(side), iterations)
        return DrawnTrimap(trimap, side * iterations, side * iterations)


class _Tsing90(_Kernels):
    """Source: pytorch_semantic_human_matting, rand_trimap."""

    def __call__(self, erode: float, dilate: float) -> DrawnTrimap:
        mean_side = sum(self._opaque.shape) / 2
        limits = (max(1, round(mean_side * 0.006)), max(10, round(mean_side * 0.022)) - 1)  # the high end is excluded
        inner, outer = _draw_integer(limits, erode), _draw_integer(limits, dilate)
        squares = np.ones((inner, inner), np.uint8), np.ones((outer, outer), np.uint8)
        return DrawnTrimap(self._draw(*squares), inner, outer)


class _IndexNet:
    """Source: IndexNet, AdobeImageMattingDataset.generate_trimap. A hard edge, with no fractional pixel, has no
    unknown region.
    """

    def __init__(self, alpha: UInt8Array, settings: Trimap) -> None:
        self._opaque = alpha >= settings.opaque
        certain = self._opaque | (alpha <= settings.clear)
        self._distance = _distance_inside(certain) if not certain.all() else np.full(alpha.shape, np.inf, np.float32)

    def __call__(self, erode: float, dilate: float) -> DrawnTrimap:
        radius = _draw_integer((1, 19), erode)
        trimap = np.where(self._opaque, np.uint8(FOREGROUND), np.uint8(BACKGROUND))
        trimap[self._distance <= radius] = UNKNOWN
        return DrawnTrimap(trimap, radius, radius)


STRATEGIES: Registry[Callable[[UInt8Array, Trimap], DrawTrimap]] = Registry(
    "trimap strategy",
    "matting_compose.trimap_strategies",
    {
        "distance": _Distance,
        "mmagic": _Mmagic,
        "gca": _Mmagic,
        "indexnet": _IndexNet,
        "huochaitiantang": _Huochaitiantang,
        "tsing90": _Tsing90,
    },
)
