"""Propagation: what is known spreads to pixels of like colour, as closed-form matting has it, roughly and quickly.

Levin, Lischinski & Weiss (2008) take alpha to be a linear function of colour in each 3×3 window, and minimise how far
it is from that. Here the same energy is minimised on pictures an eighth and a quarter of the size, by a fixed number of
steps of conjugate gradients without any matrix, and the linear functions found there are enlarged and applied to the
picture (He & Sun, 2015). Plain tensor operations: batches, any device, and other programs can run it.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["MattingLaplacian", "enlarge", "reduce", "solve"]

REDUCTION: Final = 8  # of the smallest picture that is solved, so sides are multiples of it


ITERATIONS: Final = (40, 20)  # at an eighth, and from that at a quarter of the size


FLAT: Final = 1e-5  # variance of colours in 0..1 that says nothing


KNOWN: Final = 100.0  # how strongly a pixel that is all known is held to that


PRIOR: Final = 0.01  # how strongly any pixel is held to the smaller picture's alpha


class MattingLaplacian:
    """The matting Laplacian of a batch of pictures, as a product with alphas.

    Parameters
    ----------
    picture : (N, 3, H, W) float in 0..1
        H and W at least 3.
    """

    def __init__(self, picture: Tensor) -> None:
        self.picture = picture
        self.mean = _means(picture)
        products = [
            _means(picture[:, i : i + 1] * picture[:, j : j + 1]) - self.mean[:, i : i + 1] * self.mean[:, j : j + 1]
            for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
        ]
        xx, yy, zz = (each + FLAT for each in products[:3])
        xy, xz, yz = products[3:]
        # Covariances as L·D·Lᵀ: of grey pictures the determinant is lost in float32, but each of D is known to be FLAT
        # at least.
        self._below = [xy / xx, xz / xx]
        second = (yy - self._below[0] * xy).clamp(min=FLAT)
        self._below.append((yz - self._below[1] * xy) / second)
        third = (zz - self._below[1] * xz - self._below[2] * self._below[2] * second).clamp(min=FLAT)
        self._scale = torch.cat((xx, second, third), dim=1).reciprocal()
        self._windows = _sums(torch.ones_like(self.mean[:, :1]))

    def _times_inverse(self, x: Tensor) -> Tensor:
        """Multiply a vector at each window, (N, 3, h, w), by its covariance's inverse."""
        xy, xz, yz = self._below
        r, g, b = x.chunk(3, dim=1)
        g = g - xy * r
        r, g, b = (torch.cat((r, g, b - xz * r - yz * g), dim=1) * self._scale).chunk(3, dim=1)
        g = g - yz * b
        return torch.cat((r - xy * g - xz * b, g, b), dim=1)

    def fit(self, alpha: Tensor) -> Tensor:
        """Fit alpha, (N, 1, H, W), linearly to the colours of each window: (N, 4, H-2, W-2), slopes and offset."""
        means = _means(torch.cat((self.picture * alpha, alpha), dim=1))
        slopes = self._times_inverse(means[:, :3] - self.mean * means[:, 3:])
        return torch.cat((slopes, means[:, 3:] - _inner(slopes, self.mean)), dim=1)

    def times(self, alpha: Tensor) -> Tensor:
        """Multiply alphas, (N, 1, H, W), by it."""
        functions = _sums(self.fit(alpha))
        return self._windows * alpha - _inner(functions[:, :3], self.picture) - functions[:, 3:]

    def diagonal(self) -> Tensor:
        """Return its diagonal, (N, 1, H, W)."""
        turned = self._times_inverse(self.mean)
        one, nought = torch.ones_like(self.mean[:, :1]), torch.zeros_like(self.mean[:, :1])
        units = ((one, nought, nought), (nought, one, nought), (nought, nought, one))
        columns = [self._times_inverse(torch.cat(unit, dim=1)) for unit in units]
        parts = _sums(torch.cat((*columns, turned, _inner(turned, self.mean)), dim=1))
        square = _inner(torch.cat([_inner(parts[:, i : i + 3], self.picture) for i in (0, 3, 6)], dim=1), self.picture)
        across = _inner(parts[:, 9:12], self.picture)
        return self._windows * (8 / 9) - (square - 2 * across + parts[:, 12:]) / 9


def reduce(x: Tensor) -> Tensor:
    """Average what `solve` takes, (N, C, H, W), to (N, C, H/4, W/4)."""
    return F.avg_pool2d(x, REDUCTION // 2)


def solve(picture: Tensor, known: Tensor) -> Tensor:
    """Find alpha as a function of colour around each pixel of a reduced picture; without anything known it is 0.5.

    Parameters
    ----------
    picture : (N, 3, h, w) float in 0..1
        h and w even, and at least 6.
    known : (N, 2, h, w) float in 0..1
        How much of each pixel is known to be background, and foreground.

    Returns
    -------
    (N, 4, h, w) float
        Slopes of red, green and blue, and offset.
    """
    middle = picture.mean((2, 3), keepdim=True)
    picture = picture - middle  # changes nothing but rounding
    smallest = MattingLaplacian(F.avg_pool2d(picture, 2))
    alpha = _minimise(smallest, F.avg_pool2d(known, 2), torch.full_like(smallest.picture[:, :1], 0.5), ITERATIONS[0])
    laplacian = MattingLaplacian(picture)
    alpha = _minimise(laplacian, known, F.interpolate(alpha, scale_factor=2.0, mode="bilinear"), ITERATIONS[1])
    functions = _means(F.pad(laplacian.fit(alpha), (2, 2, 2, 2), mode="replicate"))
    return torch.cat((functions[:, :3], functions[:, 3:] - _inner(functions[:, :3], middle)), dim=1)


def enlarge(functions: Tensor, picture: Tensor) -> Tensor:
    """Apply what `solve` found of a reduced picture to the picture itself, (N, 3, H, W): alpha, (N, 1, H, W)."""
    functions = F.interpolate(functions, scale_factor=float(REDUCTION // 2), mode="bilinear")
    return (_inner(functions[:, :3], picture) + functions[:, 3:]).clamp(0, 1)


def _minimise(laplacian: MattingLaplacian, sure: Tensor, alpha: Tensor, iterations: int) -> Tensor:
    """Minimise αᵀLα + Σ known·(α − truth)² + prior·(α − start)² by conjugate gradients, from the start."""
    weight = KNOWN * (sure[:, :1] + sure[:, 1:])
    hold = weight + PRIOR
    scale = 1 / (laplacian.diagonal() + hold)
    # The start's own share of the gradient is nought.
    residual = KNOWN * sure[:, 1:] - weight * alpha - laplacian.times(alpha)
    turned = scale * residual
    direction, length = turned, _dot(residual, turned)
    for _ in range(iterations):
        product = laplacian.times(direction) + hold * direction
        step = length / (_dot(direction, product) + 1e-12)
        alpha = alpha + step * direction
        residual = residual - step * product
        turned = scale * residual
        before, length = length, _dot(residual, turned)
        direction = turned + length / (before + 1e-12) * direction
    return alpha.clamp(0, 1)


def _dot(one: Tensor, two: Tensor) -> Tensor:
    return (one * two).sum((1, 2, 3), keepdim=True)


def _inner(one: Tensor, two: Tensor) -> Tensor:
    """Multiply vectors of three at each place: (N, 1, H, W). Quicker than a sum over the dimension."""
    r, g, b = (one * two).chunk(3, dim=1)
    return r + g + b


def _means(x: Tensor) -> Tensor:
    """Average over each 3×3 window that lies inside: (N, C, H-2, W-2)."""
    return _windowed(x) / 9


def _sums(x: Tensor) -> Tensor:
    """Add up at each pixel what the windows that hold it have: (N, C, H, W), of (N, C, H-2, W-2)."""
    return _windowed(F.pad(x, (2, 2, 2, 2)))


def _windowed(x: Tensor) -> Tensor:
    """Add up each 3×3 window that lies inside, by rows and columns: three times as quick as pooling, on CPUs."""
    x = x[..., :-2] + x[..., 1:-1] + x[..., 2:]
    return x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]
