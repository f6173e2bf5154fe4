"""Network: what every matting network is given and gives: masks, input planes, fusion with the trimap."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

__all__ = ["MASKS", "fuse", "network_input", "trimap_masks"]

MASKS: Final = ("background", "foreground", "unknown")  # the one order of the masks: input channels 3, 4 and 5


IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)  # RGB in 0..1: what the pre-trained encoder was fed with


IMAGENET_STD: Final = (0.229, 0.224, 0.225)


def trimap_masks(trimap: Tensor) -> Tensor:
    """Split a trimap, ``(N, H, W) uint8``, into its three masks, ``(N, 3, H, W) bool``, in the order of ``MASKS``.

    0 is background and 255 foreground; every other value, not only 128, is unknown, so exactly one mask holds anywhere.
    """
    if trimap.dtype != torch.uint8 or trimap.ndim != 3:
        raise ValueError(f"a trimap is (N, H, W) uint8, but got {tuple(trimap.shape)} {trimap.dtype}")
    background, foreground = trimap == 0, trimap == 255
    return torch.stack((background, foreground, ~(background | foreground)), dim=1)


def network_input(image: Tensor, trimap: Tensor) -> Tensor:
    """Make MNet's input, ``(N, 6, H, W) float32``, on the device that the bytes are on.

    Args:
        image: ``(N, 3, H, W) uint8`` RGB; becomes channels 0..2, normalised by ImageNet's mean and deviation.
        trimap: ``(N, H, W) uint8`` {0, 128, 255}; becomes channels 3..5, masks in the order of ``MASKS``.

    Raises:
        ValueError: for another shape or type, or sizes that differ.
    """
    if image.dtype != torch.uint8 or image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"an image is (N, 3, H, W) uint8, but got {tuple(image.shape)} {image.dtype}")
    masks = trimap_masks(trimap)
    if image.shape[0] != masks.shape[0] or image.shape[2:] != masks.shape[2:]:
        raise ValueError(f"image {tuple(image.shape)} and trimap {tuple(trimap.shape)} differ in number or size")
    # Plane by plane: a tensor of the three means would be sent to the device at each step, and wait for it.
    planes = [(image[:, i] / 255 - IMAGENET_MEAN[i]) / IMAGENET_STD[i] for i in range(3)]
    return torch.cat((torch.stack(planes, dim=1), masks), dim=1)


def fuse(alpha: Tensor, trimap: Tensor) -> Tensor:
    """Keep what the trimap already says: α_p = F + U·α_r (SHM, section 4.3), ``(N, 1, H, W)`` in 0..1.

    Args:
        alpha: MNet's output α_r, ``(N, 1, H, W)`` in 0..1.
        trimap: ``(N, H, W) uint8`` {0, 128, 255}.
    """
    masks = trimap_masks(trimap)
    foreground, unknown = masks[:, 1:2], masks[:, 2:3]
    return foreground + unknown * alpha
