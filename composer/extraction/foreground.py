"""Foreground: a subject's own colours, out of a picture in which they are mixed with a background's. Pure arrays.

Where alpha is fractional, a picture's colour is I = αF + (1−α)B. Composing needs F; who pastes I in its place pastes
some of the old background with it, which is seen as a halo.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np

from ..base.arrays import FloatArray, UInt8Array
from ..base.packages import require_packages

OPAQUE: Final = 1 - 0.5 / 255  # rounds to 255


CLEAR: Final = 0.5 / 255  # rounds to 0


MARGIN: Final = 32  # px of known background around what is mixed


WHOLE: Final = 4_000_000  # px: what pymatting is given at once, at some 85 bytes each


STRIP: Final = 500_000  # px: what is worked on at once in floating point


ROUNDS: Final = 3  # of refinement after enlarging; more changes little


TRUST: Final = 16  # weights from 1/16 are believed wholly: 8 bits tell little of a colour whose alpha is less


REGULARISATION: Final = 1e-5  # pymatting's own


@dataclass(frozen=True)
class Layers:
    """What a picture is mixed of.

    Attributes
    ----------
    foreground : (H, W, 3) uint8
        RGB, not premultiplied; the picture itself where alpha is opaque, anything where it is clear.
    background : (H, W, 3) uint8
        RGB; the picture itself where alpha is clear, anything where it is opaque.
    """

    foreground: UInt8Array
    background: UInt8Array


def pymatting() -> Any:
    """Import pymatting where it is needed.

    It computes by numba, which does not know ``OMP_NUM_THREADS``, and would set OpenMP's number for PyTorch, too: what
    is asked of one is asked of both.

    Raises
    ------
    MattingComposeError
        It is not installed.
    """
    if "OMP_NUM_THREADS" in os.environ:
        os.environ.setdefault("NUMBA_NUM_THREADS", os.environ["OMP_NUM_THREADS"].partition(",")[0])
    require_packages("pymatting", extra="classical")
    import pymatting as package

    return package


def estimate_layers(image: UInt8Array, alpha: FloatArray) -> Layers:
    """Estimate a picture's foreground and background.

    By Germer et al., Fast Multi-Level Foreground Estimation, 2020 (pymatting), around the pixels that are mixed. Where
    those span more than 4 MP, pymatting works on a reduced picture, and the last level, at full size, is made here:
    strip by strip and for mixed pixels only, so that memory stays bounded and no seam is seen.

    Parameters
    ----------
    image : (H, W, 3) uint8
        RGB.
    alpha : (H, W) float32
        0 clear .. 1 opaque.

    Raises
    ------
    MattingComposeError
        pymatting is not installed.
    """
    layers = Layers(image.copy(), image.copy())
    mixed = (alpha > CLEAR) & (alpha < OPAQUE)
    x, y, width, height = cv2.boundingRect(mixed.view(np.uint8))
    if not width:
        return layers
    there = (
        slice(max(0, y - MARGIN), y + height + MARGIN),
        slice(max(0, x - MARGIN), x + width + MARGIN),
    )
    part, matte = image[there], alpha[there]
    if matte.size == 1:  # pymatting divides by the logarithm of the longer side
        return layers
    scale = min(1.0, (WHOLE / matte.size) ** 0.5)
    if scale == 1:
        found = _multi_level(part, matte)
    else:
        size = (max(1, round(matte.shape[1] * scale)), max(1, round(matte.shape[0] * scale)))
        small = _multi_level(_resized(part, size), np.asarray(cv2.resize(matte, size, interpolation=cv2.INTER_AREA)))
        full = (matte.shape[1], matte.shape[0])
        found = _refined(part, matte, Layers(_resized(small.foreground, full), _resized(small.background, full)))
    for whole, solved in ((layers.foreground, found.foreground), (layers.background, found.background)):
        # Where nothing is mixed the picture has the answer, and smoothing would only blur it.
        np.copyto(whole[there], solved, where=mixed[there][..., None])
    return layers


def extend_colours(foreground: UInt8Array, weight: UInt8Array) -> UInt8Array:
    """Fill what has no weight with the colours around it, so that no resizing brings foreign ones in.

    The picture is halved until everything is known, and each unknown pixel takes what it is in the largest of those
    that knows it (Gortler et al., The Lumigraph, 1996: pull and push).

    Parameters
    ----------
    foreground : (H, W, 3) uint8
        RGB, not premultiplied.
    weight : (H, W) uint8
        How far each pixel's colour is to be believed: alpha, or 255 where it is known.

    Returns
    -------
    (H, W, 3) uint8
        RGB, the same where there is weight; the same everywhere where there is none at all.
    """
    height, width = weight.shape
    if not weight.any() or weight.all():
        return foreground
    rows, columns = (height + 1) // 2, (width + 1) // 2
    colour, known = np.empty((rows, columns, 3), np.float32), np.empty((rows, columns), np.float32)
    for strip in strips(height, width):
        share = weight[strip].astype(np.float32) / np.float32(255)
        half = slice(strip.start // 2, (strip.stop + 1) // 2)
        colour[half], known[half] = _halved(foreground[strip] * share[..., None]), _halved(share)
    filled = np.rint(_pulled(colour, known)).astype(np.uint8)
    around = cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.where(weight[..., None] > 0, foreground, around)


def strips(height: int, width: int, pixels: int = STRIP) -> Iterator[slice]:
    """Cut a picture's rows into strips of about so many pixels; all but the last have an even number of rows."""
    step = max(2, pixels // width // 2 * 2)
    for start in range(0, height, step):
        yield slice(start, min(start + step, height))


def _pulled(colour: FloatArray, known: FloatArray) -> FloatArray:
    """Divide premultiplied colours (H, W, 3) by their weights (H, W); where there is little weight, fill."""
    own = np.minimum(colour / np.maximum(known, np.float32(1e-9))[..., None], np.float32(255))
    if max(known.shape) == 1:
        return own
    half = _pulled(_halved(colour), _halved(known))
    around = cv2.resize(half, known.shape[::-1], interpolation=cv2.INTER_LINEAR).reshape(own.shape)
    trust = np.minimum(known * np.float32(TRUST), np.float32(1))[..., None]
    return np.asarray(trust * own + (1 - trust) * around, np.float32)


def _halved(picture: FloatArray) -> FloatArray:
    """Average squares of 2 × 2 px; what lies outside counts as nothing."""
    height, width = picture.shape[0], picture.shape[1]
    even = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    size = (even.shape[1] // 2, even.shape[0] // 2)
    return np.asarray(
        cv2.resize(even, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], *picture.shape[2:])
    )


def _resized(picture: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    way = cv2.INTER_AREA if size[0] < picture.shape[1] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, size, interpolation=way), np.uint8)


def _multi_level(image: UInt8Array, alpha: FloatArray) -> Layers:
    found = pymatting().estimate_foreground_ml(image.astype(np.float32) / 255, alpha, return_background=True)
    foreground, background = (np.rint(np.clip(layer, 0, 1) * 255).astype(np.uint8) for layer in found)
    return Layers(foreground, background)


def _refined(image: UInt8Array, alpha: FloatArray, start: Layers) -> Layers:
    """Solve the last level: from an enlarged estimate, so many rounds of the paper's equations at each mixed pixel."""
    foreground, background = image.copy(), image.copy()
    height, width = alpha.shape
    for rows in strips(height, width):
        # Each round looks one row further, so with so many more rows on either side strips join without a seam.
        more = slice(max(0, rows.start - ROUNDS), min(rows.stop + ROUNDS, height))
        inner = slice(rows.start - more.start, rows.stop - more.start)
        f, b = _solved(image[more], alpha[more], start.foreground[more], start.background[more])
        foreground[rows], background[rows] = f[inner], b[inner]
    return Layers(foreground, background)


def _solved(
    image: UInt8Array, alpha: FloatArray, foreground: UInt8Array, background: UInt8Array
) -> tuple[UInt8Array, UInt8Array]:
    """Minimise, at each mixed pixel, (αF + (1−α)B − I)² + Σ dₙ((F − Fₙ)² + (B − Bₙ)²) over its four neighbours n,
    where dₙ grows with the change of alpha (equation 4 of the paper); all pixels at once, round after round.
    """
    padded = cv2.copyMakeBorder(alpha, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    pure_f = np.where((alpha >= OPAQUE)[..., None], image, foreground)
    pure_b = np.where((alpha <= CLEAR)[..., None], image, background)
    f, b = (
        cv2.copyMakeBorder(layer, 1, 1, 1, 1, cv2.BORDER_REPLICATE).reshape(-1, 3).astype(np.float32)
        for layer in (pure_f, pure_b)
    )
    matte, line = padded.ravel(), padded.shape[1]
    y, x = np.nonzero((alpha > CLEAR) & (alpha < OPAQUE))
    here = (y + 1) * line + x + 1
    a, mixture = matte[here], image[y, x].astype(np.float32)
    neighbours = [here + step for step in (-1, 1, -line, line)]
    weights = [np.float32(REGULARISATION) + np.abs(a - matte[n]) for n in neighbours]
    total = np.sum(weights, axis=0, dtype=np.float32)
    ff, fb, bb = a * a + total, a * (1 - a), (1 - a) ** 2 + total
    determinant = ff * bb - fb * fb
    for _ in range(ROUNDS):
        to_f, to_b = a[:, None] * mixture, (1 - a)[:, None] * mixture
        for n, weight in zip(neighbours, weights, strict=True):
            to_f += weight[:, None] * f[n]
            to_b += weight[:, None] * b[n]
        new_f = (bb[:, None] * to_f - fb[:, None] * to_b) / determinant[:, None]
        new_b = (ff[:, None] * to_b - fb[:, None] * to_f) / determinant[:, None]
        f[here], b[here] = np.clip(new_f, 0, 255), np.clip(new_b, 0, 255)
    return _unpadded(f, line), _unpadded(b, line)


def _unpadded(layer: FloatArray, line: int) -> UInt8Array:
    return np.rint(layer.reshape(-1, line, 3)[1:-1, 1:-1]).astype(np.uint8)
