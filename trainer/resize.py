"""Resize: trimaps down and alphas up, for methods that work on a smaller picture than they are given."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ..composer.trimap import BACKGROUND, FOREGROUND, UNKNOWN

__all__ = ["enlarged", "known_from", "reduced_trimap"]

Picture = NDArray[np.uint8]
Matte = NDArray[np.float32]


def reduced_trimap(trimap: Picture, size: tuple[int, int]) -> Picture:
    """Reduce a trimap to (height, width) px: what is not wholly background or foreground becomes unknown."""
    known = [
        cv2.resize((trimap == level).astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA) > 1 - 1e-4
        for level in (BACKGROUND, FOREGROUND)
    ]
    return np.where(known[0], BACKGROUND, np.where(known[1], FOREGROUND, UNKNOWN)).astype(np.uint8)


def enlarged(alpha: Matte, size: tuple[int, ...]) -> Matte:
    """Enlarge an alpha, (h, w) float32, to (height, width) px, bicubically, and cut it to 0..1."""
    if alpha.shape != size:
        alpha = np.asarray(cv2.resize(alpha, size[::-1], interpolation=cv2.INTER_CUBIC), np.float32)
    return np.clip(alpha, 0, 1)


def known_from(trimap: Picture, alpha: Matte) -> Matte:
    """Set what the trimap, (H, W) uint8, knows in an alpha, in place: `mnet.fuse` for a whole picture at once."""
    alpha[trimap == BACKGROUND] = 0
    alpha[trimap == FOREGROUND] = 1
    return alpha
