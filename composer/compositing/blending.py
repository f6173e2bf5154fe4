"""Composite: fit a background to a foreground's size, and blend. Pure arrays.

Two methods: ``exact``, correctly rounded, and ``adobe``, what the composition script that comes with Deep Image
Matting's data does, to the last bit, for those whose pictures must be everybody's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import AfterValidator, Field, model_validator

from ..base.arrays import UInt8Array
from ..base.registry import Registry
from ..base.settings import Table

MAX_ENLARGED = 200_000_000  # px of a background between two steps of `fit_like_adobe`


BAND = 64  # rows blended at a time: the 16-bit intermediates stay in the second-level cache


class Fit(Table):
    """How a background is brought to the foreground's size, and blended with it."""

    method: Annotated[str, AfterValidator(lambda name: METHODS.check(name))] = Field(
        default="exact",
        description="exact: correctly rounded; adobe: what Deep Image Matting's own script does, to the last bit,"
        " which leaves `enlarge` and `offset` no choice",
    )
    enlarge: Literal["needed", "always"] = Field(
        default="needed",
        description="needed: only where the background is too small; always: until it just covers (or down)",
    )
    offset: Literal["random", "centre", "top-left"] = "random"

    @model_validator(mode="before")
    @classmethod
    def _follow_method(cls, data: Any) -> Any:
        name = data.get("method") if isinstance(data, dict) else None
        return {**METHODS[name].fixed, **data} if isinstance(name, str) and name in METHODS else data

    @model_validator(mode="after")
    def _check(self) -> Fit:
        for key, only in METHODS[self.method].fixed.items():
            if getattr(self, key) != only:
                raise ValueError(
                    f"with method = {self.method} {key} is {only}; leave the key out, or use method = exact"
                )
        return self


@dataclass(frozen=True)
class Placement:
    """Where a background was cut and how it was scaled: enough to do it again.

    Attributes
    ----------
    scale : float
        Background px × scale = composite px.
    y, x : int
        The cut's top-left corner, in the background's own px.
    height, width : int
        The cut's size, in the background's own px.
    """

    scale: float
    y: int
    x: int
    height: int
    width: int


def place_background(
    background: tuple[int, int],
    size: tuple[int, int],
    *,
    enlarge: Literal["needed", "always"] = "needed",
    offset: tuple[float, float] = (0.0, 0.0),
) -> Placement:
    """Choose the cut of a background that will cover a composite.

    The cut is made before scaling, so a panorama behind a tall foreground costs no more than any other picture.

    Parameters
    ----------
    background, size : (int, int)
        (height, width) px of the background and of the composite.
    enlarge : {"needed", "always"}
        ``needed`` scales only a background that is too small; ``always`` makes it just cover, up or down.
    offset : (float, float)
        (vertical, horizontal) in 0..1, 0 top or left, 0.5 centred.

    Examples
    --------
    >>> place_background((100, 400), (200, 200), offset=(0.0, 0.5))
    Placement(scale=2.0, y=0, x=150, height=100, width=100)
    """
    scale = max(size[0] / background[0], size[1] / background[1])
    if enlarge == "needed":
        scale = max(scale, 1.0)
    height = min(background[0], max(1, round(size[0] / scale)))
    width = min(background[1], max(1, round(size[1] / scale)))
    y = min(int(offset[0] * (background[0] - height + 1)), background[0] - height)
    x = min(int(offset[1] * (background[1] - width + 1)), background[1] - width)
    return Placement(scale, y, x, height, width)


def fit_background(background: UInt8Array, size: tuple[int, int], placement: Placement) -> UInt8Array:
    """Cut and scale a background to a composite's size.

    Parameters
    ----------
    background : (h, w, 3) uint8
        RGB.
    size : (int, int)
        (H, W) px.
    placement : Placement
        From `place_background`.

    Returns
    -------
    (H, W, 3) uint8
        RGB; a view where nothing had to be scaled. Enlarged by bicubic interpolation, reduced by area averaging.
    """
    p = placement
    cut = background[p.y : p.y + p.height, p.x : p.x + p.width]
    if (p.height, p.width) == size:
        return cut
    method = cv2.INTER_CUBIC if p.scale > 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(cut, (size[1], size[0]), interpolation=method), np.uint8)


class Blender:
    """Blend one foreground over many backgrounds: I = αF + (1−α)B, exactly rounded.

    In integers: t = α·F + (255−α)·B + 128, I = (t + (t >> 8)) >> 8, which equals αF/255 + (255−α)B/255 rounded
    to nearest for all 256³ inputs (Blinn, "Three wrongs make a right", 1995). α·F + 128 is computed once.

    Parameters
    ----------
    foreground : (H, W, 3) uint8
        RGB.
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    """

    def __init__(self, foreground: UInt8Array, alpha: UInt8Array) -> None:
        self._premultiplied = _premultiply(foreground, alpha)
        self._premultiplied += 128
        self._inverse = cv2.cvtColor(cv2.bitwise_not(alpha), cv2.COLOR_GRAY2RGB)

    def __call__(self, background: UInt8Array) -> UInt8Array:
        """Blend over `background` (H, W, 3) uint8 RGB; return (H, W, 3) uint8 RGB."""
        image = np.empty(background.shape, np.uint8)
        for top in range(0, len(image), BAND):
            rows = slice(top, top + BAND)
            total = background[rows].astype(np.uint16)  # mixed types in one multiplication would be three times slower
            total *= self._inverse[rows].astype(np.uint16)
            total += self._premultiplied[rows]
            total += total >> 8
            total >>= 8
            image[rows] = total
        return image


def _premultiply(foreground: UInt8Array, alpha: UInt8Array) -> NDArray[np.uint16]:
    """Return α·F, (H, W, 3) uint16; with an alpha of three channels in a sixth of the time of one that is repeated."""
    three = np.asarray(cv2.cvtColor(alpha, cv2.COLOR_GRAY2RGB), np.uint8)
    return np.multiply(foreground, three, dtype=np.uint16)


def fit_like_adobe(background: UInt8Array, size: tuple[int, int], placement: Placement | None = None) -> UInt8Array:
    """Cut and scale a background as Adobe's composition script does.

    Only a background that is too small is enlarged, whole and by Pillow's bicubic filter, to sides that are rounded
    up; the top-left corner is kept.

    Parameters
    ----------
    background : (h, w, 3) uint8
        RGB.
    size : (int, int)
        (H, W) px.
    placement : Placement, optional
        Not asked: there is but one.

    Returns
    -------
    (H, W, 3) uint8
        RGB; a view where nothing had to be enlarged.

    Raises
    ------
    ValueError
        The background is so long and narrow that, enlarged whole, it would be a memory bomb.
    """
    (height, width), (rows, columns) = background.shape[:2], size
    ratio = max(columns / width, rows / height)
    if ratio <= 1:
        return background[:rows, :columns]
    sides = math.ceil(width * ratio), math.ceil(height * ratio)
    if max(sides[0] * height, columns * sides[1]) > MAX_ENLARGED:
        raise ValueError(
            f"{width}×{height} px would be enlarged {ratio:.0f}×, whole, before {columns}×{rows} px are cut out;"
            " take another background, or fit.method = exact"
        )
    # Pillow filters the rows first, rounds, then filters the columns. Its two steps can be taken one by one, and
    # what the crop takes away after the first need not go through the second.
    wide = Image.fromarray(background).resize((sides[0], height), Image.Resampling.BICUBIC)
    tall = wide.crop((0, 0, columns, height)).resize((columns, sides[1]), Image.Resampling.BICUBIC)
    return np.asarray(tall)[:rows]


class AdobeBlender:
    """Blend as Adobe's composition script does: int(a/255·F + (1 − a/255)·B) in float64, truncated.

    A sum that is no whole number is at least 1/255 from the next, farther than float64 ever errs, so integers give
    the same: floor((a·F + (255−a)·B) / 255). Where the sum is whole, as it is wherever F = B, float64 may fall
    short of it and truncation then takes one off. Those pixels, few, are computed in float64, in the script's order
    of operations.

    Parameters
    ----------
    foreground : (H, W, 3) uint8
        RGB.
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    """

    def __init__(self, foreground: UInt8Array, alpha: UInt8Array) -> None:
        self._foreground, self._alpha = foreground, alpha
        self._premultiplied = _premultiply(foreground, alpha)
        # Opaque and clear pixels are exact in float64 too; a 255th more leaves them as they are, and not whole.
        self._premultiplied += ((alpha == 0) | (alpha == 255))[..., None]
        self._inverse = cv2.cvtColor(cv2.bitwise_not(alpha), cv2.COLOR_GRAY2RGB)

    def __call__(self, background: UInt8Array) -> UInt8Array:
        """Blend over `background` (H, W, 3) uint8 RGB; return (H, W, 3) uint8 RGB."""
        image = np.empty(background.shape, np.uint8)
        for top in range(0, len(image), BAND):
            rows = slice(top, top + BAND)
            total = background[rows].astype(np.uint16)
            total *= self._inverse[rows].astype(np.uint16)
            total += self._premultiplied[rows]
            total += total >> 8
            total += 1  # now the upper byte is the sum over 255, rounded down, and the lower is 0 where that is whole
            np.right_shift(total, 8, out=image[rows], casting="unsafe")
            whole = np.flatnonzero(total.astype(np.uint8) == 0)
            if whole.size:
                share = np.take(self._alpha[rows], whole // 3) / 255
                mixed = share * np.take(self._foreground[rows], whole)
                mixed += (1 - share) * np.take(background[rows], whole)
                np.put(image[rows], whole, mixed.astype(np.uint8))
        return image


@dataclass(frozen=True)
class Method:
    """How a recipe's composites are made.

    Attributes
    ----------
    fit : Callable
        A background (h, w, 3), a size (H, W) and a placement → (H, W, 3).
    blender : Callable
        A foreground (H, W, 3) and its alpha (H, W) → what blends it over backgrounds (H, W, 3).
    fixed : Mapping[str, str]
        The keys of `Fit` that it leaves no choice, with their only values.
    """

    fit: Callable[[UInt8Array, tuple[int, int], Placement], UInt8Array]
    blender: Callable[[UInt8Array, UInt8Array], Callable[[UInt8Array], UInt8Array]]
    fixed: Mapping[str, str] = field(default_factory=dict)


METHODS: Registry[Method] = Registry(
    "fit method",
    "matting_compose.fit_methods",
    {
        "exact": Method(fit_background, Blender),
        "adobe": Method(fit_like_adobe, AdobeBlender, {"enlarge": "needed", "offset": "top-left"}),
    },
)


def blend(foreground: UInt8Array, alpha: UInt8Array, background: UInt8Array, method: str = "exact") -> UInt8Array:
    """Blend a foreground over one background of its size: I = αF + (1−α)B.

    Parameters
    ----------
    foreground, background : (H, W, 3) uint8
        RGB.
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    method : str
        One of `METHODS`.

    Returns
    -------
    (H, W, 3) uint8
        RGB.

    Examples
    --------
    >>> white, black = np.full((1, 3, 3), 255, np.uint8), np.zeros((1, 3, 3), np.uint8)
    >>> blend(white, np.array([[0, 100, 255]], np.uint8), black)[..., 0]
    array([[  0, 100, 255]], dtype=uint8)
    """
    return METHODS[method].blender(foreground, alpha)(background)


def enlargement(background: tuple[int, int], size: tuple[int, int]) -> float:
    """Return how much a background of (h, w) px must be enlarged to cover (H, W) px; 1 where it need not be."""
    return max(1.0, size[0] / background[0], size[1] / background[1])


STRONG_ENLARGEMENT = 4.0
