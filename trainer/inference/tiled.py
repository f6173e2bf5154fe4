"""Predict: a picture and its trimap in, alpha out, at the picture's own size and in bounded memory.

A picture that is larger than a tile is matted tile by tile. Tiles start at multiples of the network's stride, so that
they pool the same windows as the whole picture does, and what is nearer to a tile's inner edge than the network sees is
thrown away. With batch normalisation the result is therefore the whole picture's, to float32's rounding. With group
normalisation a tile is normalised by itself; there the tiles differ slightly and are blended into one another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ...composer.dataset.rows import BACKGROUND, FOREGROUND, UNKNOWN
from ...composer.sources.image_io import composed_size
from ..networks.mnet import MNet
from ..networks.network import fuse, network_input

__all__ = [
    "BLEND",
    "CONTEXT",
    "SMALLEST_TILE",
    "STRIDE",
    "TILE",
    "enlarged",
    "known_from",
    "predict_alpha",
    "reduced_trimap",
]

Picture = NDArray[np.uint8]


Matte = NDArray[np.float32]


STRIDE: Final = 16  # px: four poolings


CONTEXT: Final = 176  # px: how far MNet sees, 169 by its layers, rounded up to a multiple of the stride


BLEND: Final = 32  # px over which one tile passes into the next


TILE: Final = 1024  # px, the default; MNet at full width then takes about 2 GB


SMALLEST_TILE: Final = 512  # px; below, most of a tile is context


@dataclass(frozen=True)
class Span:
    """One tile's extent along one axis, px, and its weight at each of its pixels; all spans' weights add up to 1."""

    start: int
    stop: int
    weights: Matte


def predict_alpha(
    network: MNet, image: Picture, trimap: Picture, *, tile: int = TILE, max_side: int | None = None
) -> Matte:
    """Matte a picture, fused with its trimap.

    Args:
        network: in evaluation mode, on the device to work on.
        image: ``(H, W, 3) uint8`` RGB, any size.
        trimap: ``(H, W) uint8`` {0, 128, 255}.
        tile: px, the longest side that is given to the network at once, a multiple of 16 from 512.
        max_side: px; a larger picture is reduced to it, and its alpha enlarged again: SHM tests at 1500.

    Returns:
        Alpha, ``(H, W) float32`` in 0..1; 0 and 1 exactly where the trimap says so.

    Raises:
        ValueError: for another shape or type, or a tile size that cannot be.
    """
    _check(image, trimap, tile)
    if max_side is None or max(trimap.shape) <= max_side:
        return _tiled(network, image, trimap, tile)
    height, width = composed_size(trimap.shape, max_side)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    alpha = _tiled(network, np.asarray(small, np.uint8), reduced_trimap(trimap, (height, width)), tile)
    return known_from(trimap, enlarged(alpha, trimap.shape))


def _check(image: Picture, trimap: Picture, tile: int) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"expected an image (H, W, 3) uint8, found {image.shape} {image.dtype}")
    if trimap.dtype != np.uint8 or trimap.shape != image.shape[:2]:
        raise ValueError(f"expected a trimap {image.shape[:2]} uint8, found {trimap.shape} {trimap.dtype}")
    if tile < SMALLEST_TILE or tile % STRIDE:
        raise ValueError(f"tile is {tile}, but must be a multiple of {STRIDE} from {SMALLEST_TILE}")


def _tiled(network: MNet, image: Picture, trimap: Picture, tile: int) -> Matte:
    alpha = np.zeros(trimap.shape, np.float32)
    columns = _spans(trimap.shape[1], tile)
    for row in _spans(trimap.shape[0], tile):
        for column in columns:
            there = slice(row.start, row.stop), slice(column.start, column.stop)
            weights = row.weights[:, None] * column.weights
            # Where nothing unknown would be kept, the trimap has the answer.
            if ((trimap[there] == UNKNOWN) & (weights > 0)).any():
                alpha[there] += weights * _network_alpha(network, image[there], trimap[there])
    return known_from(trimap, alpha)


def _spans(length: int, tile: int) -> list[Span]:
    """Cut an axis into spans of at most `tile` px, about equally long, that start at multiples of the stride."""
    if length <= tile:
        return [Span(0, length, np.ones(length, np.float32))]
    overlap = 2 * CONTEXT + BLEND
    count = math.ceil((length - overlap) / (tile - overlap))
    step = math.ceil((length - overlap) / count / STRIDE) * STRIDE
    ramp = (np.arange(BLEND, dtype=np.float32) + 0.5) / BLEND  # in 64ths: weights add up to 1 exactly
    spans = []
    for start in range(0, length - overlap, step):
        stop = min(start + step + overlap, length)
        weights = np.ones(stop - start, np.float32)
        if start > 0:
            weights[:CONTEXT] = 0
            weights[CONTEXT : CONTEXT + BLEND] = ramp
        if stop < length:
            weights[-CONTEXT:] = 0
            weights[-CONTEXT - BLEND : -CONTEXT] = 1 - ramp
        spans.append(Span(start, stop, weights))
    return spans


@torch.inference_mode()
def _network_alpha(network: MNet, image: Picture, trimap: Picture) -> Matte:
    device = next(network.parameters()).device
    picture = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].to(device)  # (1, 3, H, W)
    masks = torch.from_numpy(np.ascontiguousarray(trimap))[None].to(device)  # (1, H, W)
    alpha = fuse(network(network_input(picture, masks)), masks)  # (1, 1, H, W)
    return np.asarray(alpha[0, 0].float().cpu().numpy(), np.float32)


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
