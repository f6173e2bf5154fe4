"""Likelihood: how much a colour is the known foreground's, and how much the known background's, however many each has.

Means and deviations say little of a foreground that is black and white, or of a background of sky and leaves. So the
known colours around the unknown region are counted, as in interactive graph cuts (Boykov & Jolly, 2001), in a cube of
colours that is then smoothed. Plain tensor operations: batches, any device, and other programs can run it.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from .network import trimap_masks

__all__ = ["count_colours", "look_up"]

BINS: Final = 32  # of each channel


STEP: Final = 2  # px, from one pixel that is counted to the next, across and down


CELL: Final = 4  # of those; a cell's distance from the unknown region is in cells


REACH: Final = 10  # cells: what is further away than 80 px does not count


RARE: Final = 2e-4  # share of all that is known: what is as rare as this says nothing


def count_colours(image: Tensor, trimap: Tensor) -> Tensor:
    """Count the known colours of pictures.

    Parameters
    ----------
    image : (N, 3, H, W) uint8 RGB
        H and W multiples of 8.
    trimap : (N, H, W) uint8 {0, 128, 255}

    Returns
    -------
    (N, 2, BINS³) float32
        For each colour, how likely it is foreground, 0..1, 0.5 where nothing is known of it; and how much is, from 0 up
        to some 0.7.
    """
    known = trimap_masks(trimap[:, ::STEP, ::STEP])[:, :2].float()
    near = F.max_pool2d(1 - known.sum(1, keepdim=True), CELL)
    for window, border in (((2 * REACH + 1, 1), (REACH, 0)), ((1, 2 * REACH + 1), (0, REACH))):
        near = F.max_pool2d(near, window, stride=1, padding=border)
    counted = (known * F.interpolate(near, scale_factor=float(CELL), mode="nearest")).flatten(2)
    bins = _bins(image[:, :, ::STEP, ::STEP]).expand(-1, 2, -1)
    cubes = counted.new_zeros((counted.shape[0], 2, BINS**3)).scatter_add(2, bins, counted)
    cubes = cubes.reshape(-1, 2, BINS, BINS, BINS)
    for _ in range(2):
        cubes = F.avg_pool3d(cubes, 3, stride=1, padding=1)
    background, foreground = (cubes.flatten(2) / (counted.sum(2, keepdim=True) + 1)).chunk(2, dim=1)
    both = foreground + background + 2 * RARE
    return torch.cat(((foreground + RARE) / both, (both / (2 * RARE)).log() / 8), dim=1)


def look_up(table: Tensor, image: Tensor) -> Tensor:
    """Look up what `count_colours` found of pictures' colours: (N, 2, H, W)."""
    return table.gather(2, _bins(image).expand(-1, 2, -1)).reshape(-1, 2, image.shape[2], image.shape[3])


def _bins(image: Tensor) -> Tensor:
    """Number the colours of pictures: (N, 1, H·W)."""
    r, g, b = (image.flatten(2) * (BINS / 256)).floor().chunk(3, dim=1)  # whole numbers are divided slowly
    return ((r * BINS + g) * BINS + b).long()
