"""Features: what a network may be given of a trimap instead of, or beside, its three masks."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import torch
from torch import Tensor

from ...composer.dataset.rows import BACKGROUND, FOREGROUND

__all__ = ["distance_features"]

SCALES: Final = (0.02, 0.08, 0.16)  # of LENGTH: how far a known pixel is felt


LENGTH: Final = 320  # px


def distance_features(trimap: Tensor) -> Tensor:
    """Measure how near known background and foreground are: a small network then has a long sight.

    exp(−d² / 2(kL)²), d being the Euclidean distance to the nearest known pixel, k = 0.02, 0.08, 0.16, L = 320 px:
    F, B, Alpha Matting (Forte & Pitié, 2020), section 3. Computed on the CPU, some milliseconds a crop.

    Parameters
    ----------
    trimap : (N, H, W) uint8 {0, 128, 255}

    Returns
    -------
    (N, 6, H, W) float32
        In 0..1, on the trimap's device: background at the three scales, then foreground. 0 where nothing is known so.

    Examples
    --------
    >>> trimap = torch.tensor([[[0, 128, 255]]], dtype=torch.uint8)
    >>> distance_features(trimap)[0, [0, 3], 0]
    tensor([[1.0000, 0.9879, 0.9523],
            [0.9523, 0.9879, 1.0000]])
    """
    features = np.zeros((len(trimap), 2 * len(SCALES), *trimap.shape[1:]), np.float32)
    for planes, known in zip(features, trimap.cpu().numpy(), strict=True):
        for half, level in enumerate((BACKGROUND, FOREGROUND)):
            mask = known == level
            if mask.any():
                distance = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
                for i, scale in enumerate(SCALES):
                    planes[half * len(SCALES) + i] = np.exp(-(distance**2) / (2 * (scale * LENGTH) ** 2))
    return torch.from_numpy(features).to(trimap.device)
