"""Metrics: how far a matte is from the truth, as tables have it: SAD, MSE, gradient and connectivity error.

Every one takes (prediction, truth, trimap=None) and returns a float, 0 for equal pictures. A dataset has the mean
over its pictures, as everywhere in this field. They are found by name in `METRICS`.

- With a trimap (0 background, 128 unknown, 255 foreground): the numbers of the MATLAB evaluation that comes with
  Composition-1k (Xu et al., Deep Image Matting, CVPR 2017), summed over the unknown region U = {trimap = 128}.
- Without: the whole-picture variant of Semantic Human Matting (Chen et al., 2018), the mean over all pixels in the unit
  of its table's header: 1e-3 for SAD and MSE, 1e-5 for gradient and connectivity. Only the region and the unit are that
  paper's; what is summed is the same.

The errors are those of Rhemann et al., A Perceptually Motivated Online Benchmark for Image Matting, CVPR 2009.
"""

import math
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from ..composer.base.registry import Registry

__all__ = ["METRICS", "Metric", "connectivity_error", "gradient_error", "mse", "sad"]

Picture = NDArray[np.uint8]  # (H, W)

_SIGMA = 1.4  # px, of the Gaussian whose derivative is the gradient filter
_EPSILON = 1e-2  # the filter ends where the Gaussian falls below it
_THETA = np.float32(0.15)  # shorter distances from the connected level count as connected
# MATLAB compares in single precision, where 153/255 ≥ 0.6 holds; in double 6 · 0.1 is above 0.6 and level 153 is lost.
_ALPHAS = np.arange(256, dtype=np.float32) / np.float32(255)
_TAUS = (np.arange(11) / 10).astype(np.float32)
_LEVELS = (_TAUS[:, None] <= _ALPHAS).argmax(axis=1).astype(np.uint8)  # (11,) the lowest level that reaches each τ
_SOLID = 31  # px, the window in which the flood's seed is sought; decides speed, never the result
_FLOODS = 6  # tried before all is labelled; decides speed, never the result


def sad(prediction: Picture, truth: Picture, trimap: Picture | None = None) -> float:
    """Sum the absolute differences of alpha: Σ |p − g| / 255.

    Parameters
    ----------
    prediction, truth : (H, W) uint8
        Alpha, 0 clear .. 255 opaque.
    trimap : (H, W) uint8 {0, 128, 255}, optional
        What is 128 counts; without it all pixels do.

    Returns
    -------
    float
        With a trimap: Σ over U, in thousands. Without: the mean over all pixels, in 1e-3 (1000 is the worst there is).

    Raises
    ------
    ValueError
        Another shape or type, shapes that differ, another level in the trimap, or none that is 128.

    Examples
    --------
    >>> prediction = np.array([[255, 51, 0, 0]], np.uint8)
    >>> truth = np.array([[255, 0, 0, 0]], np.uint8)
    >>> trimap = np.array([[128, 128, 128, 0]], np.uint8)
    >>> sad(prediction, truth, trimap)  # one pixel by a fifth, in thousands
    0.0002
    >>> sad(prediction, truth)  # of four pixels, in thousandths
    50.0
    """
    region = _region(prediction, truth, trimap)
    total = cv2.norm(prediction, truth, cv2.NORM_L1, region) / 255
    return total / 1000 if trimap is not None else total / region.size * 1e3


def mse(prediction: Picture, truth: Picture, trimap: Picture | None = None) -> float:
    """Average the squared differences of alpha: Σ ((p − g) / 255)² / count.

    Parameters
    ----------
    prediction, truth : (H, W) uint8
        Alpha, 0 clear .. 255 opaque.
    trimap : (H, W) uint8 {0, 128, 255}, optional
        What is 128 counts; without it all pixels do.

    Returns
    -------
    float
        With a trimap: the mean over U, 0..1. Without: the mean over all pixels, in 1e-3 (1000 is the worst there is).

    Raises
    ------
    ValueError
        Another shape or type, shapes that differ, another level in the trimap, or none that is 128.

    Examples
    --------
    >>> prediction = np.array([[255, 51, 0, 0]], np.uint8)
    >>> truth = np.array([[255, 0, 0, 0]], np.uint8)
    >>> trimap = np.array([[128, 128, 128, 0]], np.uint8)
    >>> round(mse(prediction, truth, trimap), 4)  # a third of 0.2²
    0.0133
    >>> round(mse(prediction, truth), 4)
    10.0
    """
    region = _region(prediction, truth, trimap)
    mean = cv2.norm(prediction, truth, cv2.NORM_L2SQR, region) / 255**2 / cv2.countNonZero(region)
    return mean if trimap is not None else mean * 1e3


def gradient_error(prediction: Picture, truth: Picture, trimap: Picture | None = None) -> float:
    """Sum the squared differences of the gradients' amplitudes: Σ (A_P − A_G)².

    P and G are the pictures stretched to 0..1 by their own minima and maxima (MATLAB's mat2gray, not /255); A is the
    amplitude of the response to the first derivatives of a Gaussian, σ = 1.4 px, on 9×9 px, of unit Frobenius norm,
    beyond the border the nearest pixel. mat2gray only clips a constant picture to 0..1, which leaves it constant, so
    whichever constant it is, A = 0.

    Computed in float64.

    Parameters
    ----------
    prediction, truth : (H, W) uint8
        Alpha, 0 clear .. 255 opaque.
    trimap : (H, W) uint8 {0, 128, 255}, optional
        What is 128 counts; without it all pixels do.

    Returns
    -------
    float
        With a trimap: Σ over U, in thousands. Without: the mean over all pixels, in 1e-5.

    Raises
    ------
    ValueError
        Another shape or type, shapes that differ, another level in the trimap, or none that is 128.

    Examples
    --------
    >>> prediction = np.array([[255, 51, 0, 0]], np.uint8)
    >>> truth = np.array([[255, 0, 0, 0]], np.uint8)
    >>> trimap = np.array([[128, 128, 128, 0]], np.uint8)
    >>> round(gradient_error(prediction, truth, trimap), 6)
    9.8e-05
    >>> round(gradient_error(prediction, truth), 1)
    3504.1
    """
    region = _region(prediction, truth, trimap)
    total = cv2.norm(_amplitude(prediction), _amplitude(truth), cv2.NORM_L2SQR, region)
    return total / 1000 if trimap is not None else total / region.size * 1e5


def connectivity_error(prediction: Picture, truth: Picture, trimap: Picture | None = None) -> float:
    """Sum the differences in how firmly pixels hang together with the main object: Σ |φ_p − φ_g|.

    For τ_i = i/10, i = 1..10, Ω_i is the largest 4-connected component of (p ≥ τ_i) & (g ≥ τ_i): nothing where that is
    empty, and of equally large ones the first in column-major order. A pixel's l is the τ up to which it was in every
    Ω, from 0 (not in Ω_1) to 1 (in all ten). With d = x − l: φ = 1 − d · [d ≥ 0.15] (Rhemann et al.).
    Ω and l come from the whole picture, also where only U is summed.

    Thresholds, d and φ are float32 as in MATLAB, the sum float64.

    Parameters
    ----------
    prediction, truth : (H, W) uint8
        Alpha, 0 clear .. 255 opaque.
    trimap : (H, W) uint8 {0, 128, 255}, optional
        What is 128 counts; without it all pixels do.

    Returns
    -------
    float
        With a trimap: Σ over U, in thousands. Without: the mean over all pixels, in 1e-5.

    Raises
    ------
    ValueError
        Another shape or type, shapes that differ, another level in the trimap, or none that is 128.

    Examples
    --------
    >>> prediction = np.array([[255, 51, 0, 0]], np.uint8)
    >>> truth = np.array([[255, 0, 0, 0]], np.uint8)
    >>> trimap = np.array([[128, 128, 128, 0]], np.uint8)
    >>> round(connectivity_error(prediction, truth, trimap), 6)
    0.0002
    >>> round(connectivity_error(prediction, truth), 1)
    5000.0
    """
    region = _region(prediction, truth, trimap)
    steps = _connected_steps(np.minimum(prediction, truth, order="C"))
    total = cv2.norm(_phi(prediction, steps), _phi(truth, steps), cv2.NORM_L1, region)
    return total / 1000 if trimap is not None else total / region.size * 1e5


Metric: TypeAlias = Callable[[Picture, Picture, Picture | None], float]  # prediction, truth, trimap

METRICS: Final[Registry[Metric]] = Registry(
    "metric",
    "matting_compose.metrics",
    {"sad": sad, "mse": mse, "gradient": gradient_error, "connectivity": connectivity_error},
)


def _region(prediction: Picture, truth: Picture, trimap: Picture | None) -> Picture:
    """Check the pictures; return `(H, W) uint8`, 1 where pixels count and 0 elsewhere."""
    _check(prediction, "prediction")
    _check(truth, "truth")
    if prediction.shape != truth.shape:
        raise ValueError(f"expected prediction and truth of one shape, found {prediction.shape} and {truth.shape}")
    if trimap is None:
        return np.ones(truth.shape, np.uint8)
    _check(trimap, "trimap")
    if trimap.shape != truth.shape:
        raise ValueError(f"expected a trimap of the pictures' shape {truth.shape}, found {trimap.shape}")
    unknown: Picture = (trimap == 128).view(np.uint8)
    foreign = trimap[(unknown == 0) & (trimap != 0) & (trimap != 255)]
    if foreign.size:
        found = ", ".join(map(str, np.unique(foreign)[:5]))
        raise ValueError(f"expected only 0, 128 and 255 in the trimap, found {found} among {foreign.size} other pixels")
    if not unknown.any():
        raise ValueError("expected an unknown pixel (128) in the trimap, found none: there is nothing to score")
    return unknown


def _check(picture: Any, name: str) -> None:
    """Raise ValueError unless the picture is `(H, W) uint8` with a pixel in it."""
    if not isinstance(picture, np.ndarray):
        raise ValueError(f"expected {name} to be a (H, W) uint8 array, found {type(picture).__name__}")
    if picture.dtype != np.uint8 or picture.ndim != 2 or not picture.size:
        raise ValueError(
            f"expected {name} to be a (H, W) uint8 array of at least one pixel, found {picture.shape} {picture.dtype}"
        )


def _amplitude(picture: Picture) -> MatLike:
    """Return the gradient's amplitude, `(H, W) float64`, of a `(H, W) uint8` picture stretched to 0..1."""
    low, high, _, _ = cv2.minMaxLoc(picture)
    half = math.ceil(_SIGMA * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * _SIGMA * _EPSILON)))
    x = np.arange(-half, half + 1, dtype=np.float64)
    gauss = np.exp(-(x**2) / (2 * _SIGMA**2))
    slope = -x * gauss
    # The 9×9 filter is an outer product, so its Frobenius norm is the product of the two norms.
    gauss /= np.linalg.norm(gauss)
    slope /= np.linalg.norm(slope)
    # The response to a constant is 0, so stretching by (x − low) / (high − low) is a factor on the filter.
    slope *= 1 / (high - low) if high > low else 0
    # cv2 correlates; flipping these kernels into a convolution changes the sign, which the amplitude forgets.
    across = cv2.sepFilter2D(picture, cv2.CV_64F, slope, gauss, borderType=cv2.BORDER_REPLICATE)
    down = cv2.sepFilter2D(picture, cv2.CV_64F, gauss, slope, borderType=cv2.BORDER_REPLICATE)
    return cv2.magnitude(across, down, magnitude=across)


def _phi(picture: Picture, steps: Picture) -> MatLike:
    """Return φ, `(H, W) float32`, of a `(H, W) uint8` picture whose pixels stayed connected for `steps`, 0..10."""
    connected = np.zeros(256, np.float32)  # cv2.LUT wants a table of 256
    connected[: _TAUS.size] = _TAUS
    d = cv2.LUT(picture, _ALPHAS) - cv2.LUT(steps, connected)
    d *= d >= _THETA
    np.subtract(1, d, out=d)
    return d


def _connected_steps(common: Picture) -> Picture:
    """Count for each pixel the τ's up to which it was in every Ω: `(H, W) uint8`, 0..10.

    `common`, `(H, W) uint8`, is min(p, g): it reaches τ where both do.
    """
    solidity = cv2.blur(common, (_SOLID, _SOLID))
    steps = np.zeros_like(common)
    inside = np.ones_like(common)
    others = 0
    for level in _LEVELS[1:]:
        mask = (common >= level).view(np.uint8)
        if not cv2.countNonZero(mask & inside):
            break
        omega, others = _omega(mask, inside, others, solidity)
        inside &= omega
        steps += inside
    return steps


def _omega(mask: Picture, inside: Picture, others: int, solidity: MatLike) -> tuple[Picture, int]:
    """Return the largest component of `mask`, `(H, W) uint8` of 0 and 1, and a bound on the other components' sizes.

    `inside` is the previous Ω, at first the whole picture, and `others` the previous bound, at first 0. Levels nest: a
    component of this one lies in the previous Ω, or in another component of that level and then has at most `others`
    pixels. So components within Ω are flooded, one after the other, until one exceeds `others`, those before it and all
    pixels that are left: it is the largest, and the only one of its size. The labelling, which costs as much as a dozen
    floods, is for where a few do not tell.
    """
    free = remaining = mask & inside
    left = cv2.countNonZero(remaining)
    largest, name = 0, 0
    for flood in range(2, 2 + _FLOODS):
        if left <= others:
            break
        # A seed amid solid surroundings: the brightest pixel alone may be a speck.
        seed = cv2.minMaxLoc(solidity, mask=free)[3]
        area = cv2.floodFill(remaining, None, seed, (flood,), flags=4)[0]
        left -= area
        others = max(others, min(area, largest))
        if area > largest:
            largest, name = area, flood
        if largest > max(others, left):
            return (remaining == name).view(np.uint8), max(others, left)
        free = (remaining == 1).view(np.uint8)
    return _largest_component(mask)


def _largest_component(mask: Picture) -> tuple[Picture, int]:
    """Return the largest 4-connected component of `mask`, both `(H, W) uint8` of 0 and 1, and the size of the next.

    Of equals the first in column-major order, MATLAB's; without any component: zeros, and 0.
    """
    labels = cv2.connectedComponents(mask, connectivity=4)[1]
    areas = np.bincount(labels.ravel())[1:]  # label 0 is what the mask leaves out, not a component
    if not areas.size:
        return np.zeros_like(mask), 0
    largest = 1 + np.flatnonzero(areas == areas.max())
    # cv2 numbers in an order of its own: the first pixel that any of them has, column by column, decides.
    first = largest[0] if largest.size == 1 else labels.T[np.isin(labels.T, largest)][0]
    second = int(np.partition(areas, -2)[-2]) if areas.size > 1 else 0
    return (labels == first).view(np.uint8), second
