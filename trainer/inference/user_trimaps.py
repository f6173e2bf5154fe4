"""Trimaps: check one that was given, or draw one from a mask, a rough alpha or a cut-out's own."""

from __future__ import annotations

from typing import Final

import numpy as np

from ...composer.base.arrays import UInt8Array
from ...composer.base.errors import FileError
from ...composer.compositing.trimaps import Trimap, subject_size, trimap_strategy
from ...composer.dataset.rows import BACKGROUND, FOREGROUND, UNKNOWN

__all__ = ["RADIUS", "checked_trimap", "trimap_from_alpha"]

RADIUS: Final = 20.0  # thousandths of the subject's size: 20 px for one of 1000 × 1000 px


SMALLEST_RADIUS: Final = 2  # px; a mask's edge is off by a pixel at least


NEAR: Final = 10  # levels; what compression or an editor's smoothing does to 0, 128 and 255


FOREIGN_SHARE: Final = 0.02  # of all pixels: antialiased borders stay below it, an alpha does not


OPAQUE, CLEAR = 250, 5  # in masks: what JPEG leaves of 255 and 0


def checked_trimap(picture: UInt8Array, size: tuple[int, int], name: str) -> tuple[UInt8Array, list[str]]:
    """Make sure that a picture is a trimap for an image; mend what is plainly meant.

    Levels within 10 of 0, 128 and 255 are taken for these, as compression makes them. Up to 2 % of other levels count
    as unknown: they are an editor's smoothed borders.

    Parameters
    ----------
    picture : (h, w) uint8, as read
    size : (H, W) px of the image that it belongs to
    name : what to call it in messages

    Returns
    -------
    The trimap (H, W) uint8 {0, 128, 255}, and warnings for the person who gave it

    Raises
    ------
    FileError : wrong size, no unknown region, or too many other levels: an alpha or a photograph
    """
    if picture.shape != size:
        (height, width), (h, w) = size, picture.shape
        scaled = abs(h / height - w / width) < 0.01
        raise FileError(
            f"{name}: the trimap is {w}×{h} px, its image {width}×{height} px; they must be of one size"
            + (", so enlarge or reduce the trimap by nearest neighbour" if scaled else "; is it another image's?")
        )
    background, foreground = picture <= BACKGROUND + NEAR, picture >= FOREGROUND - NEAR
    trimap = np.where(background, BACKGROUND, np.where(foreground, FOREGROUND, UNKNOWN)).astype(np.uint8)
    share = float((np.abs(picture.astype(np.int16) - trimap) > NEAR).mean())
    if share > FOREIGN_SHARE:
        raise FileError(
            f"{name}: {share:.0%} of its pixels are far from 0, 128 and 255, so it is no trimap; if it is a mask or a"
            " rough alpha, give it with --mask and a trimap is drawn from it"
        )
    if not (trimap == UNKNOWN).any():
        raise FileError(
            f"{name}: no pixel is unknown (128), so nothing is left to matte; if it is a mask, give it with --mask"
        )
    warnings = []
    changed = int((trimap != picture).sum())
    if changed:
        warnings.append(f"{name}: {changed:,} pixels were not 0, 128 or 255; the nearest was taken, or unknown")
    for level, kind in ((BACKGROUND, "background"), (FOREGROUND, "foreground")):
        if not (trimap == level).any():
            warnings.append(f"{name}: no pixel is known {kind} ({level}); mattes are worse without any")
    return trimap, warnings


def trimap_from_alpha(alpha: UInt8Array, name: str, radius: float = RADIUS) -> UInt8Array:
    """Draw a trimap from a mask or a rough alpha: what is fractional, and all within a radius of it, is unknown.

    Parameters
    ----------
    alpha : (H, W) uint8; from 250 on it is opaque, up to 5 clear
    name : what to call it in messages
    radius : thousandths of the subject's size (the side of the square with its bounding box's area), at least 2 px

    Raises
    ------
    FileError : there is no subject, or it fills the picture
    """
    visible, opaque = alpha > CLEAR, alpha >= OPAQUE
    if not visible.any() or opaque.all():
        raise FileError(
            f"{name}: a mask has clear and opaque pixels, but this is {'opaque' if visible.any() else 'clear'} all over"
        )
    pixels = max(SMALLEST_RADIUS, round(subject_size(alpha, CLEAR) * radius / 1000))
    settings = Trimap(erode=(pixels, pixels), dilate=(pixels, pixels), opaque=OPAQUE, clear=CLEAR)
    return trimap_strategy(alpha, settings)(0.0, 0.0).trimap
