"""Resize: a foreground and its alpha scaled together."""

from __future__ import annotations

import cv2
import numpy as np

from ..base.arrays import UInt8Array


def resize_foreground(image: UInt8Array, alpha: UInt8Array, size: tuple[int, int]) -> tuple[UInt8Array, UInt8Array]:
    """Scale a foreground and its alpha.

    Colours are averaged premultiplied, so that I = αF + (1−α)B of the scaled parts is the scaled composite.
    Where alpha is clear, colours are averaged as they are.

    Parameters
    ----------
    image : (h, w, 3) uint8
        RGB.
    alpha : (h, w) uint8
        0 clear .. 255 opaque.
    size : (int, int)
        (H, W) px; enlarged by bicubic interpolation, reduced by area averaging.

    Returns
    -------
    image : (H, W, 3) uint8
        RGB.
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    """
    sides, way = _way(alpha, size)
    weight = alpha.astype(np.float32)[..., None]
    premultiplied = cv2.resize(image * weight, sides, interpolation=way)
    matte = cv2.resize(alpha.astype(np.float32), sides, interpolation=way).clip(0, 255)
    plain = cv2.resize(image, sides, interpolation=way)
    true = premultiplied / np.maximum(matte, 1e-6)[..., None]
    scaled = np.where(matte[..., None] >= 0.5, np.clip(np.rint(true), 0, 255).astype(np.uint8), plain)
    return scaled, np.rint(matte).astype(np.uint8)


def resize_picture(image: UInt8Array, alpha: UInt8Array, size: tuple[int, int]) -> tuple[UInt8Array, UInt8Array]:
    """Scale a picture as it is and its alpha, each by itself; see `resize_foreground`."""
    sides, way = _way(alpha, size)
    scaled, matte = (cv2.resize(part, sides, interpolation=way) for part in (image, alpha))
    return np.asarray(scaled, np.uint8), np.asarray(matte, np.uint8)


def _way(alpha: UInt8Array, size: tuple[int, int]) -> tuple[tuple[int, int], int]:
    """Return (width, height) px and how to get there."""
    sides = size[1], size[0]
    return sides, cv2.INTER_AREA if max(sides) < max(alpha.shape) else cv2.INTER_CUBIC
