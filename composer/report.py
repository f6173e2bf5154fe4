"""Report: a dataset as pictures, to be judged by looking."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from .dataset import Dataset, Sample
from .files import coded, write_file

Array = NDArray[np.uint8]

CELL = 240  # px, a cell's side
GAP = 6
CHECKERS = 12  # px, a checkerboard's square


def contact_sheet(dataset: Dataset, rows: int = 4, columns: int = 6) -> Array:
    """Lay out composites spread over a dataset: above the composite, below it trimap, alpha and cut-out.

    Returns
    -------
    (H, W, 3) uint8 RGB
    """
    count = min(rows * columns, len(dataset))
    picks = [int(i) for i in (np.arange(count) + 0.5) * len(dataset) / count]
    return sheet([_cell(dataset[index]) for index in picks], columns, GAP)


def _cell(sample: Sample) -> Array:
    parts = (grey(sample.trimap), grey(sample.alpha), cutout(sample.foreground, sample.alpha))
    return np.vstack([fit(sample.image, CELL), np.hstack([fit(part, CELL // 3) for part in parts])])


def sheet(pictures: Sequence[Array], columns: int, gap: int) -> Array:
    """Lay out pictures of one size on white, line by line, `gap` px apart; at least one."""
    height, width = pictures[0].shape[0] + gap, pictures[0].shape[1] + gap
    lines = -(-len(pictures) // columns)
    white = np.full((lines * height + gap, min(len(pictures), columns) * width + gap, 3), 255, np.uint8)
    for place, picture in enumerate(pictures):
        top, left = gap + place // columns * height, gap + place % columns * width
        white[top : top + height - gap, left : left + width - gap] = picture
    return white


def caption(text: str, width: int, height: int) -> Array:
    """Write a line of ASCII on a white strip."""
    strip = np.full((height, width, 3), 255, np.uint8)
    cv2.putText(strip, text, (0, height - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
    return strip


def write_contact_sheet(dataset: Dataset, path: Path) -> None:
    """Write `contact_sheet` as JPEG.

    Raises
    ------
    BuildError : the picture cannot be written
    """
    write_file(path, coded(contact_sheet(dataset), ".jpg"))


def fit(picture: Array, side: int) -> Array:
    """Reduce or enlarge to fit a square, centred on light grey."""
    scale = side / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    fitted = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    square = np.full((side, side, 3), 238, np.uint8)
    top, left = (side - fitted.shape[0]) // 2, (side - fitted.shape[1]) // 2
    square[top : top + fitted.shape[0], left : left + fitted.shape[1]] = fitted
    return square


def grey(mask: Array) -> Array:
    """Show a mask (H, W) as a picture (H, W, 3)."""
    return np.repeat(mask[..., None], 3, axis=2)


def cutout(foreground: Array, alpha: Array) -> Array:
    """Blend over a checkerboard that stays of one size when the cell is reduced."""
    square = max(1, CHECKERS * max(alpha.shape) // CELL)
    y, x = np.indices(alpha.shape) // square
    board = np.where((x + y) % 2, 205, 150).astype(np.float32)[..., None]
    weight = alpha[..., None].astype(np.float32) / 255
    return np.rint(weight * foreground + (1 - weight) * board).astype(np.uint8)
