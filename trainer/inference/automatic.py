"""Automatic: a picture in, its matte out. The network finds the trimap itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import torch
from torch import Tensor

from ...composer.dataset.rows import BACKGROUND, FOREGROUND, UNKNOWN
from ...composer.sources.image_io import limit_picture
from ..networks.network import MASKS, MattingNetwork, normalised
from ..networks.shm import SHM, sharpened
from .tiled import Matte, Picture, blend_tiles, enlarged

__all__ = ["MAX_SIDE", "FoundMatte", "find_matte", "find_trimap", "guess_matte"]

MAX_SIDE: Final = 1500  # px: SHM tests with no longer edges


LEAST_SUBJECT: Final = 0.001  # of the picture; less is nobody


SHOWS: Final = 1e-3  # an unknown region's probability below this changes no level of 255


LEVELS: Final = {"background": BACKGROUND, "foreground": FOREGROUND, "unknown": UNKNOWN}


@dataclass(frozen=True)
class FoundMatte:
    """What was found in a picture.

    Attributes
    ----------
    alpha : (H, W) float32
        0..1; all 0 where nobody is in the picture.
    trimap : (H, W) uint8 {0, 128, 255}
        Each pixel's likeliest class.
    """

    alpha: Matte
    trimap: Picture

    @property
    def is_empty(self) -> bool:
        """Whether nobody was found."""
        return not (self.trimap != BACKGROUND).any()


def find_matte(network: SHM, image: Picture, *, tile: int | None = None, max_side: int | None = MAX_SIDE) -> FoundMatte:
    """Predict a picture's alpha from the picture alone.

    T-Net sees all of it, reduced to its own `sight`; M-Net sees it in tiles, at most `max_side` px long, and the alpha
    is enlarged again. So memory follows `max_side`, not the picture.

    Parameters
    ----------
    network : SHM
        In evaluation mode, on the device to work on.
    image : (H, W, 3) uint8 RGB
        Any size.
    tile : int, optional
        px, see `tiled.predict_alpha`.
    max_side : int, optional
        px. A larger picture is reduced to it; None takes it as it is.

    Examples
    --------
    >>> from matting_compose.trainer import MNet, SHM, TNet
    >>> network = SHM(TNet(encoder="lite0"), MNet(width=0.125)).eval()
    >>> found = find_matte(network, np.zeros((40, 60, 3), np.uint8))
    >>> found.alpha.shape, found.trimap.dtype
    ((40, 60), dtype('uint8'))
    """
    small = limit_picture(image, max_side)
    x = _planes(network, small)
    with torch.inference_mode():
        masks = sharpened(network.tnet(x))
        alpha, trimap = _fused(network, x, masks, tile), _classes(masks)
    if (trimap != BACKGROUND).mean() < LEAST_SUBJECT:
        empty = np.zeros(image.shape[:2], np.uint8)
        return FoundMatte(empty.astype(np.float32), empty)
    return FoundMatte(enlarged(alpha, image.shape[:2]), _resized(trimap, image.shape[:2]))


def guess_matte(network: MattingNetwork, image: Picture, max_side: int | None = MAX_SIDE) -> FoundMatte:
    """Guess a picture's alpha by a T-Net alone, F + U/2 of its probabilities, as `find_matte` does with both halves."""
    with torch.inference_mode():
        masks = network(_planes(network, limit_picture(image, max_side))).softmax(dim=1)
    foreground, unknown = (masks[0, MASKS.index(name)].float().cpu().numpy() for name in ("foreground", "unknown"))
    size = image.shape[:2]
    return FoundMatte(enlarged(foreground + unknown / 2, size), _resized(_classes(masks), size))


def find_trimap(network: MattingNetwork, image: Picture, max_side: int | None = MAX_SIDE) -> Picture:
    """Predict a picture's trimap, (H, W) uint8 {0, 128, 255}, by a T-Net: each pixel's likeliest class."""
    with torch.inference_mode():
        logits = network(_planes(network, limit_picture(image, max_side)))
    return _resized(_classes(logits), image.shape[:2])


def _fused(network: SHM, x: Tensor, masks: Tensor, tile: int | None) -> Matte:
    """Fuse what T-Net found with M-Net's alpha, tile by tile."""
    foreground, unknown = (masks[0, MASKS.index(name)].float().cpu().numpy() for name in ("foreground", "unknown"))

    def make(at: tuple[slice, slice]) -> Matte:
        planes = torch.cat((x[..., at[0], at[1]], masks[..., at[0], at[1]]), dim=1)
        return np.asarray(network.mnet(planes)[0, 0].float().cpu().numpy(), np.float32)

    alpha = blend_tiles(network.mnet, unknown > SHOWS, tile or network.mnet.tile, make)
    return np.clip(foreground + unknown * alpha, 0, 1)


def _classes(scores: Tensor) -> Picture:
    """Take each pixel's likeliest class of scores, (1, 3, H, W), as a trimap."""
    levels = np.array([LEVELS[name] for name in MASKS], np.uint8)
    found: Picture = levels[scores[0].argmax(dim=0).cpu().numpy()]
    return found


def _resized(trimap: Picture, size: tuple[int, ...]) -> Picture:
    if trimap.shape == size:
        return trimap
    return np.asarray(cv2.resize(trimap, size[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)


def _planes(network: MattingNetwork, image: Picture) -> Tensor:
    device = next(network.parameters()).device
    return normalised(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].to(device))  # (1, 3, H, W)
