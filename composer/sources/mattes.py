"""Mattes: pictures that are measured, not looked at: alphas, masks, trimaps, truths and predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from ..base.arrays import UInt8Array
from ..base.errors import SourceError
from ..dataset.rows import BACKGROUND, FOREGROUND, UNKNOWN
from .image_io import MAX_PIXELS, read_alpha

__all__ = ["mend_trimap", "read_trimap"]


NEAR: Final = 10  # levels; what compression or an editor's smoothing does to 0, 128 and 255


FOREIGN_SHARE: Final = 0.02  # of all pixels: antialiased borders stay below it, an alpha does not


def read_trimap(
    path: Path, name: str, size: tuple[int, ...], max_pixels: int = MAX_PIXELS
) -> tuple[UInt8Array, list[str]]:
    """Read a trimap for a picture, and mend what is plainly meant, as `mend_trimap` does.

    Parameters
    ----------
    path : Path
        Where it lies.
    name : str
        What to call it in messages.
    size : (H, W)
        Of the picture that it belongs to, px.
    max_pixels : int
        Refuse more than this, from the header.

    Returns
    -------
    (H, W) uint8
        0 background, 128 unknown, 255 foreground.
    list of str
        Warnings for the person who gave it.

    Raises
    ------
    SourceError
        The file cannot be read, or is no trimap for that picture.
    """
    levels, _ = read_alpha(path, name, max_pixels)
    return mend_trimap(levels, name, size)


def mend_trimap(levels: UInt8Array, name: str, size: tuple[int, ...]) -> tuple[UInt8Array, list[str]]:
    """Make sure that levels are a trimap for a picture; mend what is plainly meant.

    Levels within 10 of 0, 128 and 255 are taken for these, as compression makes them. Up to 2 % of other levels count
    as unknown: they are an editor's smoothed borders.

    Parameters
    ----------
    levels : (h, w) uint8
        As read.
    name : str
        What to call it in messages.
    size : (H, W)
        Of the picture that it belongs to, px.

    Returns
    -------
    (H, W) uint8
        0 background, 128 unknown, 255 foreground.
    list of str
        Warnings for the person who gave it.

    Raises
    ------
    SourceError
        Causes ``size-mismatch``; ``no-unknown``: nothing is left to matte; ``not-a-trimap``: too many other levels, so
        that it is an alpha or a photograph.

    Examples
    --------
    >>> import numpy as np
    >>> from matting_compose.composer.sources.mattes import mend_trimap
    >>> trimap, warnings = mend_trimap(np.uint8([[0, 127, 255]]), "cat.png", (1, 3))
    >>> trimap.tolist(), warnings
    ([[0, 128, 255]], ['cat.png: 1 pixel was not 0, 128 or 255; the nearest was taken, or unknown'])
    """
    if levels.shape != size:
        raise SourceError(name, "size-mismatch", _sizes(levels.shape, size))
    background, foreground = levels <= BACKGROUND + NEAR, levels >= FOREGROUND - NEAR
    trimap = np.where(background, BACKGROUND, np.where(foreground, FOREGROUND, UNKNOWN)).astype(np.uint8)
    share = float((np.abs(levels.astype(np.int16) - trimap) > NEAR).mean())
    if share > FOREIGN_SHARE:
        raise SourceError(
            name,
            "not-a-trimap",
            f"{share:.0%} of its pixels are far from 0, 128 and 255, so it is no trimap; if it is a mask or a"
            " rough alpha, give it with --mask and a trimap is drawn from it",
        )
    if not (trimap == UNKNOWN).any():
        raise SourceError(
            name,
            "no-unknown",
            "no pixel is unknown (128), so nothing is left to matte; if it is a mask, give it with --mask",
        )
    return trimap, _warnings(levels, trimap, name)


def _sizes(found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    (h, w), (height, width) = found, expected
    scaled = abs(h / height - w / width) < 0.01
    advice = ", so enlarge or reduce the trimap by nearest neighbour" if scaled else "; is it another image's?"
    return f"the trimap is {w}×{h} px, its image {width}×{height} px; they must be of one size{advice}"


def _warnings(levels: UInt8Array, trimap: UInt8Array, name: str) -> list[str]:
    warnings = []
    if changed := int((trimap != levels).sum()):
        count = "1 pixel was" if changed == 1 else f"{changed:,} pixels were"
        warnings.append(f"{name}: {count} not 0, 128 or 255; the nearest was taken, or unknown")
    for level, kind in ((BACKGROUND, "background"), (FOREGROUND, "foreground")):
        if not (trimap == level).any():
            warnings.append(f"{name}: no pixel is known {kind} ({level}); mattes are worse without any")
    return warnings
