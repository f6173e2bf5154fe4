"""Sheets: pictures laid out in a grid, captioned; what contact sheets and panels are made of."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.uint8]


CELL = 240  # px, a cell's side


GAP = 6


CHECKERS = 12  # px, a checkerboard's square


def draw_sheet(pictures: Sequence[Array], columns: int, gap: int) -> Array:
    """Lay out pictures of one size on white, line by line, `gap` px apart; at least one."""
    height, width = pictures[0].shape[0] + gap, pictures[0].shape[1] + gap
    lines = -(-len(pictures) // columns)
    white = np.full((lines * height + gap, min(len(pictures), columns) * width + gap, 3), 255, np.uint8)
    for place, picture in enumerate(pictures):
        top, left = gap + place // columns * height, gap + place % columns * width
        white[top : top + height - gap, left : left + width - gap] = picture
    return white


def draw_caption(text: str, width: int, height: int) -> Array:
    """Write a line of ASCII on a white strip."""
    strip = np.full((height, width, 3), 255, np.uint8)
    cv2.putText(strip, text, (0, height - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
    return strip


def fit_square(picture: Array, side: int) -> Array:
    """Reduce or enlarge to fit a square, centred on light grey."""
    scale = side / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    fitted = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    square = np.full((side, side, 3), 238, np.uint8)
    top, left = (side - fitted.shape[0]) // 2, (side - fitted.shape[1]) // 2
    square[top : top + fitted.shape[0], left : left + fitted.shape[1]] = fitted
    return square


def grey_to_rgb(mask: Array) -> Array:
    """Show a mask (H, W) as a picture (H, W, 3)."""
    return np.repeat(mask[..., None], 3, axis=2)


def draw_cutout(foreground: Array, alpha: Array) -> Array:
    """Blend over a checkerboard that stays of one size when the cell is reduced."""
    square = max(1, CHECKERS * max(alpha.shape) // CELL)
    y, x = np.indices(alpha.shape) // square
    board = np.where((x + y) % 2, 205, 150).astype(np.float32)[..., None]
    weight = alpha[..., None].astype(np.float32) / 255
    return np.rint(weight * foreground + (1 - weight) * board).astype(np.uint8)


def find_busiest(change: NDArray[np.float32], side: int) -> tuple[int, int]:
    """Find the square over which a map (H, W) sums to most: its corner (y, x); inside the map."""
    sums = cv2.boxFilter(change, cv2.CV_32F, (side, side), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    inside = sums[: change.shape[0] - side + 1, : change.shape[1] - side + 1]
    y, x = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(y), int(x)


def enlarge(picture: Array, cell: int) -> Array:
    """Enlarge to fit a cell so that each pixel is seen as a square."""
    factor = max(1, cell // max(picture.shape[:2]))
    return np.asarray(np.repeat(np.repeat(picture, factor, axis=0), factor, axis=1), np.uint8)
