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

__all__ = ["WholeScenes", "mirrored", "place_beside", "place_window", "true_trimap", "turn"]

Array = NDArray[np.uint8]


OPAQUE, CLEAR = 250, 5  # what resampling leaves of 255 and 0


LEAST_BESIDE = 1 / 6  # of a composite's shorter side: less beside the subject is no scene, however often mirrored


LARGER = 0.75  # of the largest square's side: any such square may be shown


class WholeScenes(Table):
    """Which part of a scene is shown, and what is to be found in it."""

    share: Range = Field(default=(0.6, 1.0), description="the window's side, of the composite's shorter one")
    rotate: float = Field(default=15.0, ge=0, le=180, description="degrees at most that a crop is turned, either way")
    radius: Range = Field(
        default=(10, 20),
        description="thousandths of the subject's size: how far the true trimap is unknown on either side of an edge",
    )
    nobody: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of crops beside the subject, where a composite has room: nobody there",
    )


def place_window(row: Row, settings: WholeScenes, rng: np.random.Generator) -> tuple[int, tuple[int, int]]:
    """Draw a window of a composite: its side, px, and its corner (y, x)."""
    shorter = min(row.height, row.width)
    side = min(shorter, max(1, round(shorter * rng.uniform(*settings.share))))
    return side, (int(rng.integers(row.height - side + 1)), int(rng.integers(row.width - side + 1)))


def place_beside(alpha: Array, longest: int, rng: np.random.Generator) -> tuple[int, tuple[int, int]] | None:
    """Draw a square in which nothing of the subject is: its side, px, and its corner (y, x).

    Parameters
    ----------
    alpha : (H, W) uint8
        Of the whole composite.
    longest : int
        px: no longer a side than this.
    rng : np.random.Generator

    Returns
    -------
    tuple or None
        One of the larger squares there are; None where the largest is less than a sixth of the shorter side.

    Examples
    --------
    >>> alpha = np.zeros((60, 90), np.uint8)
    >>> alpha[:, 10:50] = 255
    >>> side, (y, x) = place_beside(alpha, 39, np.random.default_rng(0))
    >>> 29 <= side <= 39, x >= 50
    (True, True)
    """
    room = cv2.distanceTransform(np.pad((alpha == 0).view(np.uint8), 1), cv2.DIST_C, 3)[1:-1, 1:-1]
    most = room.max()  # from the largest square's middle to beyond its edge
    if 2 * most - 1 < LEAST_BESIDE * min(alpha.shape):
        return None
    middles = np.argwhere(room >= LARGER * most)
    y, x = (int(place) for place in middles[rng.integers(len(middles))])
    half = min(int(room[y, x]) - 1, (longest - 1) // 2)
    return 2 * half + 1, (y - half, x - half)


def mirrored(part: Array, side: int) -> Array:
    """Continue a square picture to side² px by its mirror images."""
    more = side - len(part)
    return np.asarray(cv2.copyMakeBorder(part, 0, more, 0, more, cv2.BORDER_REFLECT), np.uint8)


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
