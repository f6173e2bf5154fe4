"""User trimaps: drawn from a mask, a rough alpha or a cut-out's own."""

from __future__ import annotations

from typing import Final

from ...composer.base.arrays import UInt8Array
from ...composer.base.errors import FileError
from ...composer.compositing.trimaps import Trimap, subject_size, trimap_strategy

__all__ = ["RADIUS", "trimap_from_alpha"]

RADIUS: Final = 20.0  # thousandths of the subject's size: 20 px for one of 1000 × 1000 px


SMALLEST_RADIUS: Final = 2  # px; a mask's edge is off by a pixel at least


OPAQUE, CLEAR = 250, 5  # in masks: what JPEG leaves of 255 and 0


def trimap_from_alpha(alpha: UInt8Array, name: str, radius: float = RADIUS) -> UInt8Array:
    """Draw a trimap from a mask or a rough alpha: what is fractional, and all within a radius of it, is unknown.

    Parameters
    ----------
    alpha : (H, W) uint8
        From 250 on it is opaque, up to 5 clear.
    name : str
        What to call it in messages.
    radius : float
        Thousandths of the subject's size (the side of the square with its bounding box's area), at least 2 px.

    Returns
    -------
    (H, W) uint8
        0 background, 128 unknown, 255 foreground.

    Raises
    ------
    FileError
        There is no subject, or it fills the picture.

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.zeros((5, 9), np.uint8)
    >>> mask[:, 4:] = 255
    >>> trimap_from_alpha(mask, "mask.png")[0].tolist()
    [0, 0, 128, 128, 128, 128, 255, 255, 255]
    """
    visible, opaque = alpha > CLEAR, alpha >= OPAQUE
    if not visible.any() or opaque.all():
        raise FileError(
            f"{name}: a mask has clear and opaque pixels, but this is {'opaque' if visible.any() else 'clear'} all over"
        )
    pixels = max(SMALLEST_RADIUS, round(subject_size(alpha, CLEAR) * radius / 1000))
    settings = Trimap(erode=(pixels, pixels), dilate=(pixels, pixels), opaque=OPAQUE, clear=CLEAR)
    return trimap_strategy(alpha, settings)(0.0, 0.0).trimap
