"""Losses: what training minimises, by name in `LOSSES`.

A configuration weights them by name, ``{"alpha_prediction": 0.5, "compositional": 0.5}`` being Deep Image Matting's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from ...composer.base.registry import Registry
from .network import trimap_masks

__all__ = [
    "LOSSES",
    "Loss",
    "Prediction",
    "alpha_prediction_loss",
    "charbonnier_loss",
    "compositional_loss",
    "gradient_loss",
    "l1_loss",
    "laplacian_loss",
    "semantic_loss",
    "shm_prediction_loss",
    "ssim_loss",
    "trimap_loss",
]

EPSILON: Final = 1e-12  # under the roots, DIM's ε²: keeps their gradients finite at 0


CHARBONNIER: Final = 1e-3  # ε: differences below it are squared rather than absolute


SSIM: Final = (0.01**2, 0.03**2)  # C₁ and C₂ for values in 0..1; the window is a Gaussian of σ = 1.5 px on 11×11


SHM_GAMMA: Final = 0.5  # SHM, section 4.4


LAPLACIAN_LEVELS: Final = 5


SEMANTIC: Final = 16  # px


_BINOMIAL: Final = (1.0, 4.0, 6.0, 4.0, 1.0)  # over 16: Burt & Adelson's kernel


_SOBEL: Final = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))  # over 8: a ramp of 1 per pixel measures 1


@dataclass(frozen=True)
class Prediction:
    """A batch's prediction and all that it is compared with. All float32 or all float64: leave autocast before.

    Attributes
    ----------
    alpha : (N, 1, H, W)
        Predicted, in 0..1; `network.fuse` it first where the paper does (SHM). Empty, (0,), of a network without.
    truth : (N, 1, H, W)
        The true alpha, in 0..1.
    unknown : (N, 1, H, W) bool
        Where the trimap is unknown.
    foreground, background : (N, 3, H, W) or None
        F and B, RGB in 0..1, for the losses that compose.
    count : number or None
        What sums over unknown pixels are divided by; None for this batch's own |U|. A step made of several batches
        gives their mean, so that it equals one step on all of them.
    outputs : Mapping[str, Tensor]
        All that the network gave, by `MattingNetwork.outputs`, for losses of something else than alpha.
    trimap : (N, H, W) uint8 or None
        The true one, for losses of a network that finds it: of the whole crop, where the alpha is of a part of it.
    whole : (N, 1, H, W) or None
        The true alpha of the whole crop, likewise.

    Examples
    --------
    >>> alpha, truth = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.5])
    >>> unknown = torch.tensor([True, True])
    >>> p = Prediction(*(t.reshape(1, 1, 1, 2) for t in (alpha, truth, unknown)))
    >>> LOSSES["alpha_prediction"](p)
    tensor(0.2500)
    """

    alpha: Tensor
    truth: Tensor
    unknown: Tensor
    foreground: Tensor | None = None
    background: Tensor | None = None
    count: Tensor | None = None
    outputs: Mapping[str, Tensor] = field(default_factory=dict)
    trimap: Tensor | None = None
    whole: Tensor | None = None

    def composite_difference(self) -> Tensor:
        """Return c_p − c_g, ``(N, 3, H, W)``: the composites αF + (1−α)B under the predicted and the true alpha.

        The two share F and B, so it is (α_p − α_g)(F − B): exactly 0 for a perfect alpha, whatever rounding or noise
        the input picture went through, and where the data set left out a background that does not show.
        """
        if self.foreground is None or self.background is None:
            raise ValueError(
                "this loss composes the prediction and needs foreground and background, but the batch has none: "
                "build the data set with its backgrounds, or weight only losses on alpha"
            )
        return (self.alpha - self.truth) * (self.foreground - self.background)


def alpha_prediction_loss(p: Prediction) -> Tensor:
    """Σ_U sqrt((α_p − α_g)² + ε²) / |U|, U being the batch's unknown pixels.

    Deep Image Matting (Xu et al., 2017), section 4.1, equation 1.
    """
    difference = torch.sqrt((p.alpha - p.truth) ** 2 + EPSILON)  # (N, 1, H, W)
    return _mean_over(difference, p)


def compositional_loss(p: Prediction) -> Tensor:
    """Σ_U Σ_rgb sqrt((c_p − c_g)² + ε²) / 3|U|, c = αF + (1−α)B with the true F and B.

    Deep Image Matting (Xu et al., 2017), section 4.1, equation 2.
    """
    difference = torch.sqrt(p.composite_difference() ** 2 + EPSILON)  # (N, 3, H, W)
    return _mean_over(difference.mean(dim=1, keepdim=True), p)


def shm_prediction_loss(p: Prediction) -> Tensor:
    """γ·mean|α_p − α_g| + (1−γ)·mean|c_p − c_g|, γ = 0.5, c = αF + (1−α)B, over the whole image.

    Semantic Human Matting (Chen et al., 2018), section 4.4. There α_p is fused, so only unknown pixels differ, and
    this is DIM's pair of losses over another denominator.
    """
    alpha = (p.alpha - p.truth).abs().mean()
    composite = p.composite_difference().abs().mean()
    return SHM_GAMMA * alpha + (1 - SHM_GAMMA) * composite


def laplacian_loss(p: Prediction) -> Tensor:
    """Σ_i 2ⁱ·mean|Lⁱ(α_p) − Lⁱ(α_g)| / 5 over the whole image, i = 0..4, L a Laplacian pyramid.

    Context-Aware Image Matting (Hou & Liu, 2019), after Niklaus & Liu (2018), and F, B, Alpha Matting (Forte & Pitié,
    2020) sum over each level where this, as the code of RVM (2022) and ViTMatte (2023), takes its mean, so that weights
    tuned for those fit. The pyramid's low-pass rest is left out: pair this with a loss on alpha itself.
    """
    current = p.alpha - p.truth  # a pyramid is linear: the difference's own is the difference of the two
    total = current.new_zeros(())
    for level in range(LAPLACIAN_LEVELS):
        smaller = _reduce(current)
        total = total + 2**level * (current - _expand(smaller, current)).abs().mean()
        current = smaller
    return total / LAPLACIAN_LEVELS


def gradient_loss(p: Prediction) -> Tensor:
    """Σ_U | ‖∇α_p‖ − ‖∇α_g‖ | / |U|, ∇ being Sobel's.

    After Learning-based Sampling for Natural Image Matting (Tang et al., 2019), equation 7, here with Sobel's kernels
    and an absolute difference.
    """
    difference = (_gradient_magnitude(p.alpha) - _gradient_magnitude(p.truth)).abs()  # (N, 1, H, W)
    return _mean_over(difference, p)


def l1_loss(p: Prediction) -> Tensor:
    """mean|α_p − α_g| over the whole image: for networks without a trimap, and for what is known.

    AEMatter (Liu et al., 2023) weights it as much as `charbonnier_loss`, and half as much as `laplacian_loss`.
    """
    return (p.alpha - p.truth).abs().mean()


def charbonnier_loss(p: Prediction) -> Tensor:
    """Σ_U (sqrt((α_p − α_g)² + ε²) − ε) / |U|, ε = 10⁻³: `alpha_prediction_loss`, rounded at the bottom.

    Charbonnier et al. (1994), with the ε of Lai et al. (2017); in matting P3M-Net (2021), AEMatter (2023).
    """
    return _mean_over(torch.sqrt((p.alpha - p.truth) ** 2 + CHARBONNIER**2) - CHARBONNIER, p)


def ssim_loss(p: Prediction) -> Tensor:
    """1 − mean SSIM(α_p, α_g) over the whole image: likeness of structures, 11×11 px at a time.

    Image Quality Assessment (Wang et al., 2004), equation 13; borders are repeated.
    """
    x, y = p.alpha, p.truth
    means = _window(torch.cat((x, y, x * x, y * y, x * y), dim=1))
    mean_x, mean_y, xx, yy, xy = means.unbind(dim=1)  # (N, H, W) each
    c1, c2 = SSIM
    spread = xx - mean_x**2 + yy - mean_y**2
    both = xy - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + c1) * (2 * both + c2) / ((mean_x**2 + mean_y**2 + c1) * (spread + c2))
    return 1 - likeness.mean()


def trimap_loss(p: Prediction, of: str = "trimap") -> Tensor:
    """Mean cross-entropy of T-Net's logits and the true trimap's classes, in the order of `network.MASKS`.

    Semantic Human Matting (Chen et al., 2018), section 4.4, L_t.
    """
    if p.trimap is None:
        raise ValueError("this loss compares trimaps, and the true one is not there")
    return F.cross_entropy(p.outputs[of], trimap_masks(p.trimap).to(torch.uint8).argmax(dim=1))


def semantic_loss(p: Prediction) -> Tensor:
    """½·mean (s_p − s_g)², s being alpha at a 16th of the size; s_p of T-Net's classes, F + U/2.

    After MODNet (Ke et al., 2022), equation 1, whose branch gives s_p by itself.
    """
    if p.whole is None:
        raise ValueError("this loss compares alpha of the whole crop, and that is not there")
    probabilities = p.outputs["trimap"].softmax(dim=1)
    difference = probabilities[:, 1:2] + probabilities[:, 2:] / 2 - p.whole
    return F.avg_pool2d(difference, SEMANTIC, ceil_mode=True, count_include_pad=False).square().mean() / 2


@dataclass(frozen=True)
class Loss:
    """Something that training can minimise; called with a `Prediction`, it gives a number.

    Attributes
    ----------
    compute : Callable[[Prediction], Tensor]
        To a tensor of no dimensions. What is summed over unknown pixels is divided by `Prediction.count`.
    composes : bool
        Whether it needs the foreground and the background, and so a dataset that keeps them.
    of : str
        Which of the network's outputs it compares: ``alpha``, or a name in `Prediction.outputs`.

    Examples
    --------
    >>> squared = Loss(lambda p: ((p.alpha - p.truth) ** 2).mean())
    >>> _ = LOSSES.register("squared", squared)  # for this process; a package has an entry point
    >>> "squared" in LOSSES
    True
    """

    compute: Callable[[Prediction], Tensor]
    composes: bool = False
    of: str = "alpha"

    def __call__(self, prediction: Prediction) -> Tensor:
        """Compute it."""
        return self.compute(prediction)


LOSSES: Final = Registry(
    "loss",
    "matting_compose.losses",
    {
        "alpha_prediction": Loss(alpha_prediction_loss),
        "compositional": Loss(compositional_loss, composes=True),
        "shm_prediction": Loss(shm_prediction_loss, composes=True),
        "laplacian": Loss(laplacian_loss),
        "gradient": Loss(gradient_loss),
        "l1": Loss(l1_loss),
        "charbonnier": Loss(charbonnier_loss),
        "ssim": Loss(ssim_loss),
        "trimap": Loss(trimap_loss, of="trimap"),
        "auxiliary": Loss(partial(trimap_loss, of="auxiliary"), of="auxiliary"),
        "semantic": Loss(semantic_loss, of="trimap"),
    },
)


def _mean_over(values: Tensor, p: Prediction) -> Tensor:
    """Average over the unknown pixels; 0, still with a gradient, where there are none."""
    count = p.unknown.sum() if p.count is None else p.count
    return (values * p.unknown).sum() / count.clamp(min=1)


def _reduce(x: Tensor) -> Tensor:
    """Blur and halve, ``(N, 1, H, W)`` to ``(N, 1, ⌈H/2⌉, ⌈W/2⌉)``: Burt & Adelson's REDUCE, borders repeated."""
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), _blur_kernel(x), stride=2)


def _expand(x: Tensor, like: Tensor) -> Tensor:
    """Double to the size of ``like``: Burt & Adelson's EXPAND. What is constant stays so up to the borders."""
    height, width = like.shape[-2:]
    # The border repeated once adds 2 pixels before the first, and the kernel's radius 2 more.
    doubled = F.conv_transpose2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 4 * _blur_kernel(x), stride=2)
    return doubled[..., 4 : 4 + height, 4 : 4 + width]


def _blur_kernel(x: Tensor) -> Tensor:
    row = _constant(_BINOMIAL, x.device, x.dtype) / 16
    return torch.outer(row, row)[None, None]  # (1, 1, 5, 5)


def _window(x: Tensor) -> Tensor:
    """Average each plane of ``(N, C, H, W)`` in SSIM's window."""
    row = _constant(tuple(math.exp(-(i**2) / (2 * 1.5**2)) for i in range(-5, 6)), x.device, x.dtype)
    row = row / row.sum()
    kernels = torch.outer(row, row).expand(x.shape[1], 1, 11, 11)
    return F.conv2d(F.pad(x, (5, 5, 5, 5), mode="replicate"), kernels, groups=x.shape[1])


@lru_cache(maxsize=16)
def _constant(values: Any, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Make a tensor of numbers once: each time anew, a GPU would be waited for at each use."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device, dtype=dtype)


def _gradient_magnitude(x: Tensor) -> Tensor:
    """sqrt(gx² + gy² + ε²) by Sobel's kernels, ``(N, 1, H, W)``, borders repeated."""
    horizontal = _constant(_SOBEL, x.device, x.dtype) / 8
    kernels = torch.stack((horizontal, horizontal.T))[:, None]  # (2, 1, 3, 3)
    gradients = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernels)  # (N, 2, H, W)
    return torch.sqrt(gradients.square().sum(dim=1, keepdim=True) + EPSILON)
