"""Whole scenes: crops that show most of a composite, for networks that find the subject themselves.

Semantic Human Matting (Chen et al., 2018, section 5.1): random squares of the picture, turned and mirrored; what is to
be found is the trimap of the crop's own alpha, dilated.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...composer.base.settings import Range, Table
from ...composer.compositing.trimaps import Trimap, trimap_strategy
from ...composer.dataset.rows import Row

__all__ = ["WholeScenes", "place_window", "true_trimap", "turn"]

Array = NDArray[np.uint8]


OPAQUE, CLEAR = 250, 5  # what resampling leaves of 255 and 0


class WholeScenes(Table):
    """Which part of a scene is shown, and what is to be found in it."""

    share: Range = Field(default=(0.6, 1.0), description="the window's side, of the composite's shorter one")
    rotate: float = Field(default=15.0, ge=0, le=180, description="degrees at most that a crop is turned, either way")
    radius: Range = Field(
        default=(10, 20),
        description="thousandths of the subject's size: how far the true trimap is unknown on either side of an edge",
    )


def place_window(row: Row, settings: WholeScenes, rng: np.random.Generator) -> tuple[int, tuple[int, int]]:
    """Draw a window of a composite: its side, px, and its corner (y, x)."""
    shorter = min(row.height, row.width)
    side = min(shorter, max(1, round(shorter * rng.uniform(*settings.share))))
    return side, (int(rng.integers(row.height - side + 1)), int(rng.integers(row.width - side + 1)))


def turn(parts: list[Array], degrees: float) -> None:
    """Turn pictures of one size about their middle, in place; what comes in is mirrored at the border."""
    height, width = parts[0].shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    for part in parts:
        turned = cv2.warpAffine(
            part, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        np.copyto(part, np.asarray(turned, np.uint8))


def true_trimap(alpha: Array, settings: WholeScenes, draw: float = 0.5) -> Array:
    """Draw the trimap that is to be found, (H, W) uint8 {0, 128, 255}, from the alpha, (H, W) uint8.

    Parameters
    ----------
    alpha : (H, W) uint8
    settings : WholeScenes
    draw : float
        Where in the range of radii, 0..1.

    Examples
    --------
    >>> alpha = np.zeros((60, 60), np.uint8)
    >>> alpha[5:55, 5:55] = 255
    >>> true_trimap(alpha, WholeScenes(radius=(40, 40)))[30, :8].tolist()
    [0, 0, 0, 128, 128, 128, 128, 255]
    """
    table = Trimap(erode=settings.radius, dilate=settings.radius, unit="subject", opaque=OPAQUE, clear=CLEAR)
    return trimap_strategy(alpha, table)(draw, draw).trimap
