"""Differences: what packing `delta` stores in place of a tile's pixels, and back. Pure arrays.

A small extension in C undoes them, where it was built; NumPy and OpenCV do the same at a third of the speed elsewhere.
"""

from __future__ import annotations

import cv2
import numpy as np

from ..base.arrays import UInt8Array

try:
    from ._differences import sum_tile
except ImportError:  # no compiler where the package was installed
    sum_tile = None  # type: ignore[assignment]


def take_differences(picture: UInt8Array, tile: tuple[int, int]) -> UInt8Array:
    """Take a picture's differences: planes G, R−G and B−G, each as x − left − above + above-left, modulo 256.

    Parameters
    ----------
    picture : (H, W, 3) uint8 RGB
    tile : tuple of int
        Height and width, px, of the tiles: each begins anew, as though zeros lay above and left of it.

    Returns
    -------
    (3, H', W') uint8
        H' and W' are whole tiles; what is filled up is 0.

    Examples
    --------
    >>> take_differences(np.full((2, 2, 3), (9, 7, 8), np.uint8), (2, 2))[:, 0].tolist()
    [[7, 0], [2, 0], [1, 0]]
    """
    height, width = picture.shape[:2]
    planes = np.zeros((3, height + -height % tile[0], width + -width % tile[1]), np.uint8)
    red, green, blue = cv2.split(picture)
    down = np.empty_like(green)
    for plane, colour in zip(planes[:, :height, :width], (green, red - green, blue - green), strict=True):
        np.subtract(colour[1:], colour[:-1], out=down[1:])
        down[:: tile[0]] = colour[:: tile[0]]  # a tile begins anew
        np.subtract(down[:, 1:], down[:, :-1], out=plane[:, 1:])
        plane[:, :: tile[1]] = down[:, :: tile[1]]
    return planes


def undo_differences(stored: bytes, tile: tuple[int, int], corner: tuple[int, int], out: UInt8Array) -> None:
    """Sum a tile's differences up, over rows and columns, and write a part of the pixels into `out`.

    Parameters
    ----------
    stored : bytes
        3 · height · width: the three planes of one tile.
    tile : tuple of int
        Its height and width, px.
    corner : tuple of int
        Where in it the part begins, (y, x) px; it is as large as `out`.
    out : (h, w, 3) uint8 RGB
        Each of its rows lies in one piece.

    Examples
    --------
    >>> picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    >>> out = np.empty((2, 3, 3), np.uint8)
    >>> undo_differences(take_differences(picture, (4, 4)).tobytes(), (4, 4), (2, 1), out)
    >>> bool((out == picture[2:, 1:]).all())
    True
    """
    if sum_tile is not None:
        sum_tile(stored, *tile, *corner, out)
    else:
        _sum_by_integrals(stored, tile, corner, out)


def _sum_by_integrals(stored: bytes, tile: tuple[int, int], corner: tuple[int, int], out: UInt8Array) -> None:
    (top, left), (height, width, _) = corner, out.shape
    planes = np.frombuffer(stored, np.uint8).reshape(3, *tile)[:, : top + height, : left + width]
    inside = slice(1 + top, None), slice(1 + left, None)
    green, red, blue = (cv2.integral(plane)[inside].astype(np.uint8) for plane in planes)
    red += green
    blue += green
    out[...] = cv2.merge((red, green, blue))  # quicker than into `out`, which has gaps
