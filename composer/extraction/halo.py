"""Halo: how much of an old background is left in a foreground's colours; and what a cut-out's colours are mixed with.

A halo is measured at the fractional pixels, and needs to know what is pure near each of them: the subject's colour,
spread from its opaque pixels, and the old background's, spread from the clear ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from ..base.arrays import BoolArray, FloatArray, UInt8Array
from .foreground import Layers, extend_colours, strips

Backdrop = Literal["black", "white"]


LEVELS: Final[dict[Backdrop, int]] = {"black": 0, "white": 255}


ROUNDING: Final = 2.0  # of 255: by how much programs round a mixed colour differently


# What it takes to call a cut-out matted. Of 94 straight cut-outs, none but one that is matted indeed came near.
MOST_IMPOSSIBLE: Final = 0.0005  # share of fractional pixels that no colour, mixed with the backdrop, can have


LEAST_EXPECTED: Final = 0.05  # share of them that would be impossible if the subject's colours were not mixed


LEAST_SLOPE: Final = 0.5  # of the way to the backdrop, over the way that mixing goes; 1 in theory


MOST_LEFT: Final = 0.8  # what mixing leaves unexplained, over what the subject's own colours do


LEAST_PIXELS: Final = 64


@dataclass(frozen=True)
class Surroundings:
    """What is pure near each fractional pixel.

    Attributes
    ----------
    subject : (H, W, 3) uint8
        RGB, the colours of opaque pixels, spread.
    backdrop : (H, W, 3) uint8
        RGB, the colours of the old background, spread.
    """

    subject: UInt8Array
    backdrop: UInt8Array


def surroundings(image: UInt8Array, alpha: UInt8Array, backdrop: UInt8Array | None = None) -> Surroundings | None:
    """Spread a picture's opaque and clear pixels' colours; None where it lacks the one or the other.

    Parameters
    ----------
    image : (H, W, 3) uint8
        RGB.
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    backdrop : (H, W, 3) uint8, optional
        RGB, the old background where it is known.
    """
    opaque, clear = alpha == 255, alpha == 0
    if not opaque.any() or (backdrop is None and not clear.any()):
        return None
    return Surroundings(_spread(image, opaque), _spread(image, clear) if backdrop is None else backdrop)


def halo(foreground: UInt8Array, alpha: UInt8Array, near: Surroundings) -> float:
    """Measure how far a foreground's colours have moved towards an old background.

    At each fractional pixel, the way that its colour F has gone from the subject's pure colour P towards the old
    background's Q: max(0, (F − P)·(Q − P) / |Q − P|) / √3. The mean of that, weighted by α(1−α), which is where colours
    mix. With raw colours it is half of the difference between the two, 127 of 255 for black before white. Texture is
    counted where it happens to point at the background, so a perfect foreground has a little.

    Parameters
    ----------
    foreground : (H, W, 3) uint8
        RGB, not premultiplied.
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    near : Surroundings
        Of the picture that it was extracted from.

    Returns
    -------
    float
        Levels of 255; 0 where no pixel is fractional.
    """
    total, weights = 0.0, 0.0
    for rows, mixed, a in _mixed(alpha):
        pure, colour = near.subject[rows][mixed].astype(np.float32), foreground[rows][mixed].astype(np.float32)
        way = near.backdrop[rows][mixed].astype(np.float32) - pure
        length = np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1)
        gone = ((colour - pure) * way).sum(axis=1, keepdims=True) / length
        weight = a * (1 - a)
        total += float((weight * np.maximum(gone, 0)).sum(dtype=np.float64)) / 3**0.5
        weights += float(weight.sum(dtype=np.float64))
    return total / weights if weights else 0.0


def reblending_error(image: UInt8Array, alpha: UInt8Array, layers: Layers) -> float:
    """Measure how far αF + (1−α)B is from the picture: the mean absolute difference over its fractional pixels.

    Parameters
    ----------
    image : (H, W, 3) uint8
        RGB.
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    layers : Layers
        As they are written, that is rounded.

    Returns
    -------
    float
        Levels of 255; 0 where no pixel is fractional.
    """
    total, count = 0.0, 0
    for rows, mixed, a in _mixed(alpha):
        foreground, background = (
            layer[rows][mixed].astype(np.float32) for layer in (layers.foreground, layers.background)
        )
        blend = a * foreground + (1 - a) * background
        total += float(np.abs(blend - image[rows][mixed]).sum(dtype=np.float64))
        count += 3 * len(a)
    return total / max(count, 1)


def matted_on(image: UInt8Array, alpha: UInt8Array) -> Backdrop | None:
    """Tell a cut-out whose fractional colours are mixed with black (premultiplied) or white from one with true colours.

    A mixed colour lies between the backdrop and αF, so that over black none of its channels exceeds α. A cut-out is
    called matted only if practically no pixel exceeds that, many would if they had the colours of the subject's opaque
    part, and mixing explains their colours better. Where there is nothing opaque to compare with, nothing is claimed.

    Parameters
    ----------
    image : (H, W, 3) uint8
        RGB.
    alpha : (H, W) uint8
        0 clear .. 255 opaque.

    Returns
    -------
    {"black", "white"} or None
        None where the colours are true, or nothing can be told.
    """
    opaque = alpha == 255
    if not opaque.any():
        return None
    subject = _spread(image, opaque)
    return next((name for name in LEVELS if _is_mixed(image, alpha, subject, LEVELS[name])), None)


def unmatted(image: UInt8Array, alpha: UInt8Array, backdrop: Backdrop) -> UInt8Array:
    """Take a plain backdrop out of fractional colours: F = (I − (1−α)B) / α. Where alpha is clear nothing changes.

    Parameters
    ----------
    image : (H, W, 3) uint8
        RGB.
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    backdrop : {"black", "white"}
        What the colours are mixed with.

    Returns
    -------
    (H, W, 3) uint8
        RGB.
    """
    result = image.copy()
    for rows, mixed, a in _mixed(alpha):
        colour = (image[rows][mixed] - (1 - a) * np.float32(LEVELS[backdrop])) / a
        result[rows][mixed] = np.rint(np.clip(colour, 0, 255))
    return result


def _is_mixed(image: UInt8Array, alpha: UInt8Array, subject: UInt8Array, backdrop: int) -> bool:
    sums, count = np.zeros(6), 0
    for rows, mixed, a in _mixed(alpha):
        pure, colour = subject[rows][mixed].astype(np.float32), image[rows][mixed].astype(np.float32)
        way = (1 - a) * (backdrop - pure)  # that mixing would go
        gone = colour - pure
        sums += [
            _impossible(colour, a, backdrop),
            _impossible(pure, a, backdrop),
            (gone * way).sum(dtype=np.float64),
            (way**2).sum(dtype=np.float64),
            ((gone - way) ** 2).sum(dtype=np.float64),
            (gone**2).sum(dtype=np.float64),
        ]
        count += len(a)
    impossible, expected, along, full, left, unmixed = sums
    return bool(
        count >= LEAST_PIXELS
        and impossible <= MOST_IMPOSSIBLE * count
        and expected >= LEAST_EXPECTED * count
        and along >= LEAST_SLOPE * full
        and left <= MOST_LEFT * unmixed
    )


def _impossible(colour: FloatArray, alpha: FloatArray, backdrop: int) -> int:
    """Count the pixels whose colour is further from the backdrop than any mixture with it."""
    return int((np.abs(colour - backdrop) > 255 * alpha + ROUNDING).any(axis=1).sum())


def _spread(image: UInt8Array, where: BoolArray) -> UInt8Array:
    return extend_colours(image, where.view(np.uint8) * np.uint8(255))


def _mixed(alpha: UInt8Array) -> Iterator[tuple[slice, BoolArray, FloatArray]]:
    """Yield, strip by strip, its rows, which of its pixels are fractional, and their alphas (n, 1) in 0..1."""
    for rows in strips(*alpha.shape):
        mixed = (alpha[rows] > 0) & (alpha[rows] < 255)
        yield rows, mixed, alpha[rows][mixed].astype(np.float32)[:, None] / np.float32(255)
