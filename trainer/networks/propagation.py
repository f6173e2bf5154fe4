"""Propagation: what is known spreads to pixels of like colour, as closed-form matting has it, roughly and quickly.

Levin, Lischinski & Weiss (2008) take alpha to be a linear function of colour in each 3×3 window, and minimise how far
it is from that. Here the same energy is minimised on pictures an eighth and a quarter of the size, by a fixed number of
steps of conjugate gradients, and the linear functions found there are enlarged and applied to the picture (He & Sun,
2015). Plain tensor operations: batches, any device, and other programs can run it; their graphs have the steps as a
loop.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["MattingLaplacian", "enlarge", "reduce", "solve"]

REDUCTION: Final = 8  # of the smallest picture that is solved, so sides are multiples of it


ITERATIONS: Final = (80, 50)  # at an eighth, and from that at a quarter of the size


FLAT: Final = 1e-7  # variance of colours in 0..1 that says nothing


KNOWN: Final = 100.0  # how strongly a pixel that is all known is held to that


PRIOR: Final = 0.001  # how strongly any pixel is held to the smaller picture's alpha


class MattingLaplacian:
    """The matting Laplacian of a batch of pictures: (Lα)ᵢ = Σⱼ wᵢⱼ(αᵢ − αⱼ), j being up to two pixels away.

    Parameters
    ----------
    picture : (N, 3, H, W) float
        H and W at least 3.

    Attributes
    ----------
    weights : (25, N, 1, H, W) float
        Its products with alphas, see `_times`: −wᵢⱼ for each of the 5×5 pixels around i, row by row, and their sum's
        opposite in the middle.
    """

    def __init__(self, picture: Tensor) -> None:
        self.picture = picture
        self.mean = _means(picture)
        apart = _windows(picture) - self.mean
        xx, yy, zz, xy, xz, yz = (
            (apart[:, :, i : i + 1] * apart[:, :, j : j + 1]).mean(0)
            for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
        )
        xx, yy, zz = xx + FLAT, yy + FLAT, zz + FLAT
        # Covariances as L·D·Lᵀ: of grey pictures the determinant is lost in float32, but each of D is known to be FLAT
        # at least.
        self._below = [xy / xx, xz / xx]
        second = (yy - self._below[0] * xy).clamp(min=FLAT)
        self._below.append((yz - self._below[1] * xy) / second)
        third = (zz - self._below[1] * xz - self._below[2] * self._below[2] * second).clamp(min=FLAT)
        self._scale = torch.cat((xx, second, third), dim=1).reciprocal()
        self.weights = self._weigh(self._scale.sqrt() * torch.stack([self._solve_below(each) for each in apart]))

    def _weigh(self, apart: Tensor) -> Tensor:
        """Add up what each pair of a window's pixels has to do with each other, of their distances from its mean.

        These, (9, N, 3, H-2, W-2), are in the window's own deviations: wᵢⱼ is the sum of (1 + dᵢ·dⱼ)/9 over windows.
        """
        height, width = self.picture.shape[2:]
        weights: dict[int, Tensor] = {}
        for one in range(9):
            for two in range(one + 1, 9):
                down, right = two // 3 - one // 3, two % 3 - one % 3
                pair = (1 + _inner(apart[one], apart[two])) / 9
                at = F.pad(pair, (one % 3, 2 - one % 3, one // 3, 2 - one // 3))
                number = 12 + 5 * down + right
                weights[number] = weights[number] - at if number in weights else -at
        for number in list(weights):  # what i is to j, j is to i
            down, right = (number - 10) // 5, number % 5 - 2
            moved = F.pad(weights[number], (2, 2, 2, 2))
            weights[24 - number] = moved[..., 2 - down : 2 - down + height, 2 - right : 2 - right + width]
        middle = -torch.stack(list(weights.values())).sum(0)
        return torch.stack([weights.get(number, middle) for number in range(25)])

    def _solve_below(self, x: Tensor) -> Tensor:
        """Multiply a vector at each window, (N, 3, h, w), by the inverse of L."""
        r, g, b = x.chunk(3, dim=1)
        g = g - self._below[0] * r
        return torch.cat((r, g, b - self._below[1] * r - self._below[2] * g), dim=1)

    def fit(self, alpha: Tensor) -> Tensor:
        """Fit alpha, (N, 1, H, W), linearly to the colours of each window: (N, 4, H-2, W-2), slopes and offset."""
        means = _means(torch.cat((self.picture * alpha, alpha), dim=1))
        r, g, b = (self._scale * self._solve_below(means[:, :3] - self.mean * means[:, 3:])).chunk(3, dim=1)
        g = g - self._below[2] * b
        slopes = torch.cat((r - self._below[0] * g - self._below[1] * b, g, b), dim=1)
        return torch.cat((slopes, means[:, 3:] - _inner(slopes, self.mean)), dim=1)


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
    known = KNOWN * (sure[:, :1] + sure[:, 1:])
    # The start's own share of the gradient is nought.
    residual = KNOWN * sure[:, 1:] - known * alpha - _times(laplacian.weights, alpha)
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    minimise = torch.jit.script(_conjugate_gradients) if tracing else _conjugate_gradients
    return minimise(laplacian.weights, known + PRIOR, residual, alpha, iterations)


def _conjugate_gradients(weights: Tensor, hold: Tensor, residual: Tensor, alpha: Tensor, iterations: int) -> Tensor:
    """Take steps; in graphs for other programs, a loop."""
    scale = 1 / (weights[12] + hold)
    turned = scale * residual
    direction, length = turned, _dot(residual, turned)
    for _ in range(iterations):
        product = _times(weights, direction) + hold * direction
        step = length / (_dot(direction, product) + 1e-12)
        alpha = alpha + step * direction
        residual = residual - step * product
        turned = scale * residual
        before, length = length, _dot(residual, turned)
        direction = turned + length / (before + 1e-12) * direction
    return alpha.clamp(0, 1)


def _times(weights: Tensor, alpha: Tensor) -> Tensor:
    """Multiply alphas, (N, 1, H, W), by a matting Laplacian."""
    height, width = alpha.shape[2], alpha.shape[3]
    around = F.pad(alpha, (2, 2, 2, 2))
    found = torch.zeros_like(alpha)
    for number in range(25):
        y, x = number // 5, number % 5
        found = torch.addcmul(found, weights[number], around[:, :, y : y + height, x : x + width])
    return found


def _dot(one: Tensor, two: Tensor) -> Tensor:
    return (one * two).sum((1, 2, 3), keepdim=True)


def _inner(one: Tensor, two: Tensor) -> Tensor:
    """Multiply vectors of three at each place: (N, 1, H, W). Quicker than a sum over the dimension."""
    r, g, b = (one * two).chunk(3, dim=1)
    return r + g + b


def _means(x: Tensor) -> Tensor:
    """Average over each 3×3 window that lies inside: (N, C, H-2, W-2)."""
    return _windows(x).mean(0)


def _windows(x: Tensor) -> Tensor:
    """Stack the pixels of each 3×3 window that lies inside, row by row: (9, N, C, H-2, W-2)."""
    height, width = x.shape[2] - 2, x.shape[3] - 2
    return torch.stack([x[..., i // 3 : i // 3 + height, i % 3 : i % 3 + width] for i in range(9)])
