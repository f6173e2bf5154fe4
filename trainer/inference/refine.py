"""Refine: the network's matte and classical ones joined, by a network that learned when to believe which."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from ...composer.base.arrays import FloatArray, UInt8Array
from ..networks.network import MattingNetwork
from .tiled import predict_alpha

__all__ = ["refine_alpha", "solvable_side"]

PIXELS: Final = 1_000_000  # what a classical algorithm is given at most: some 3 GB, and half a minute


def refine_alpha(
    network: MattingNetwork,
    image: UInt8Array,
    trimap: UInt8Array,
    mattes: Sequence[FloatArray | None],
    *,
    tile: int | None = None,
    max_side: int | None = None,
) -> FloatArray:
    """Join mattes of a picture.

    Parameters
    ----------
    network : MattingNetwork
        A `Fusion`.
    image : (H, W, 3) uint8 RGB
    trimap : (H, W) uint8 {0, 128, 255}
    mattes : sequence of (H, W) float32, or None
        In the order of `fusion.MATTES`, in 0..1; None for one that could not be made. One at least is there.
    tile, max_side : int, optional
        px, see `predict_alpha`.

    Returns
    -------
    (H, W) float32
        In 0..1; 0 and 1 where the trimap says so.
    """
    rest = np.mean([matte for matte in mattes if matte is not None], axis=0)
    planes = [np.rint(255 * (rest if matte is None else matte)).astype(np.uint8) for matte in mattes]
    return predict_alpha(network, np.dstack((image, *planes)), trimap, tile=tile, max_side=max_side)


def solvable_side(size: tuple[int, ...], max_side: int | None) -> int:
    """Return the longer side, px, to which a picture of (height, width) is reduced for the classical algorithms.

    Examples
    --------
    >>> solvable_side((1000, 1500), None), solvable_side((4000, 6000), None), solvable_side((4000, 6000), 900)
    (1224, 1224, 900)
    """
    side = math.isqrt(PIXELS * max(size) // min(size))
    return min(side, max_side or side)
