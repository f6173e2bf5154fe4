"""Thumbnails: small pictures that lie in a page: whole ones, reduced, and parts of them as they are; WebP in base64."""

from __future__ import annotations

import base64
import io
from typing import Any, Final

import cv2
import numpy as np
from PIL import Image

from .arrays import UInt8Array

__all__ = ["ERROR_GAIN", "amplify_error", "embed", "reduce"]

ERROR_GAIN: Final = 4  # a quarter of the range is shown as white


def reduce(picture: UInt8Array, side: int, method: int = cv2.INTER_AREA) -> UInt8Array:
    """Reduce a picture whose longer side is above `side` px to that; others stay as they are."""
    scale = side / max(picture.shape[:2])
    if scale >= 1:
        return picture
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=method), np.uint8)


def embed(picture: UInt8Array, **how: Any) -> str:
    """Encode a picture, grey, RGB or RGBA, as WebP in base64.

    Parameters
    ----------
    picture : (H, W) or (H, W, 3) or (H, W, 4) uint8
    **how : Any
        Of Pillow's encoder: ``quality``, ``lossless``.
    """
    file = io.BytesIO()  # Pillow's encoder: OpenCV's stores every alpha losslessly, which doubles the report
    Image.fromarray(np.ascontiguousarray(picture)).save(file, "WEBP", **how)
    return base64.b64encode(file.getvalue()).decode()


def amplify_error(predicted: UInt8Array, truth: UInt8Array) -> UInt8Array:
    """Show how far two masks (H, W) differ, times `ERROR_GAIN`, which every page has in common."""
    return np.asarray(cv2.convertScaleAbs(cv2.absdiff(predicted, truth), alpha=ERROR_GAIN), np.uint8)
