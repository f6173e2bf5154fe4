"""Cutout: what a matte is for. Foreground colours, the cut-out, it on a new background, and all of it in one panel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from ...composer.base.arrays import FloatArray, UInt8Array
from ...composer.compositing.blending import blend, fit_background, place_background
from ...composer.extraction.foreground import estimate_layers, extend_colours
from ...composer.sources.image_io import composed_size
from .methods import to_bytes

__all__ = ["estimate_foreground", "on_background", "panel", "segmented", "side_by_side"]


CELL: Final = 640  # px, the longer side of a panel's pictures


GAP: Final = 8  # px


SQUARE: Final = 16  # px, of the checkerboard


def estimate_foreground(image: UInt8Array, alpha: FloatArray) -> UInt8Array:
    """Estimate the foreground's own colours, which in the image are mixed with the background's, and extend them.

    Parameters
    ----------
    image : (H, W, 3) uint8
        RGB.
    alpha : (H, W) float32
        0 clear .. 1 opaque.

    Returns
    -------
    (H, W, 3) uint8
        RGB; the image itself where alpha is opaque, and the nearest colours where it is clear.

    Raises
    ------
    MattingComposeError
        pymatting is not installed.
    """
    return extend_colours(estimate_layers(image, alpha).foreground, to_bytes(alpha))


def on_background(foreground: UInt8Array, alpha: UInt8Array, background: UInt8Array) -> UInt8Array:
    """Blend over a new background, which is scaled until it just covers, and centred.

    Parameters
    ----------
    foreground : (H, W, 3) uint8
        RGB, not premultiplied.
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    background : (h, w, 3) uint8
        RGB, of any size.

    Returns
    -------
    (H, W, 3) uint8
        RGB.
    """
    size = alpha.shape[0], alpha.shape[1]
    there = background.shape[0], background.shape[1]
    placement = place_background(there, size, enlarge="always", offset=(0.5, 0.5))
    return blend(foreground, alpha, fit_background(background, size, placement))


def segmented(image: UInt8Array, alpha: UInt8Array, background: UInt8Array | None) -> UInt8Array:
    """Show what a segmentation would give: the image's own colours, cut hard at half, (H, W, 3) uint8 RGB.

    The old background stays in the rim's colours, as a fringe on the new one; on a checkerboard, where there is none.
    """
    hard = np.where(alpha >= 128, np.uint8(255), np.uint8(0))
    if background is None:
        return blend(image, hard, _checkerboard(alpha.shape))
    return on_background(image, hard, background)


def panel(image: UInt8Array, trimap: UInt8Array, alpha: UInt8Array, *more: UInt8Array) -> UInt8Array:
    """Lay a result out side by side: image, trimap, alpha, the cut-out of the first of `more` on a checkerboard (or of
    the image itself), and the rest of `more` as they are. Large pictures are reduced.

    Parameters
    ----------
    image : (H, W, 3) uint8
        RGB.
    trimap : (H, W) uint8
        0 background, 128 unknown, 255 foreground.
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    *more : (H, W, 3) uint8
        RGB: the foreground's colours, then the composite, or what else is to be shown.

    Returns
    -------
    (h, w, 3) uint8
        RGB.
    """
    cut = blend(more[0] if more else image, alpha, _checkerboard(alpha.shape))
    return side_by_side((image, trimap, alpha, cut, *more[1:]), CELL)


def side_by_side(pictures: Sequence[UInt8Array], cell: int) -> UInt8Array:
    """Lay pictures of one size out in a row on white, reduced where they are larger than a cell.

    Parameters
    ----------
    pictures : sequence of (H, W, 3) or (H, W) uint8
        RGB, or grey; at least one.
    cell : int
        px, the longer side of a picture at most.

    Returns
    -------
    (h, w, 3) uint8
        RGB.
    """
    full = pictures[0].shape
    height, width = composed_size(full[:2], cell)
    sheet = np.full((height + 2 * GAP, len(pictures) * (width + GAP) + GAP, 3), 255, np.uint8)
    for place, picture in enumerate(pictures):
        small = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        x = GAP + place * (width + GAP)
        sheet[GAP : GAP + height, x : x + width] = small if small.ndim == 3 else small[..., None]
    return sheet


def _checkerboard(size: tuple[int, ...]) -> UInt8Array:
    """Draw a checkerboard whose squares keep their size when the picture is reduced to a cell."""
    square = max(SQUARE, SQUARE * max(size) // CELL)
    y, x = (np.arange(side) // square for side in size)
    board = np.where((y[:, None] + x) % 2, 205, 150).astype(np.uint8)
    return np.repeat(board[..., None], 3, axis=2)
