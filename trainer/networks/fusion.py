"""Fusion: one matte of several, by a network that sees the picture, its trimap, and where they differ."""

from __future__ import annotations

from typing import ClassVar, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .network import Inputs, trimap_masks
from .unet import SPREAD, UNet, convolution

__all__ = ["MATTES", "Fusion"]

MATTES: Final = ("default", "closed-form", "knn")  # whose, in the order of the planes


OWN: Final = 0.25  # how far from their mean, weighted, an alpha may lie


DROPPED: Final = (0.4, 0.15, 0.15)  # how often training goes without each: a network's errors elsewhere are least known


class Fusion(UNet):
    """Weight the mattes at each pixel, and add a little of its own.

    α = Σ wᵢαᵢ + r, w being positive and adding up to 1, |r| ≤ 0.25. It starts as their mean, so it begins where
    averaging ends. 0.14 million parameters.

    A matte that could not be made is replaced by the mean of the others: training drops each at times, so that it leans
    on none.

    Parameters
    ----------
    width : float
        Multiplies every layer's channels (then rounded to a multiple of 8).

    Raises
    ------
    ValueError
        A width that is not above 0.

    Examples
    --------
    >>> network = Fusion().eval()
    >>> picture, trimap = torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.full((1, 32, 32), 128, dtype=torch.uint8)
    >>> mattes = torch.tensor([0, 51, 204], dtype=torch.uint8).expand(1, 32, 32, 3).permute(0, 3, 1, 2)
    >>> network.matte(torch.cat((picture, mattes), dim=1), trimap).mean()  # untrained: (0 + 0.2 + 0.8) / 3
    tensor(0.3333, grad_fn=<MeanBackward0>)
    """

    stride: ClassVar[int] = 16
    context: ClassVar[int | None] = 96  # px; beyond, it sees little
    any_size: ClassVar[bool] = False
    planes: ClassVar[int] = 3 + len(MATTES)

    def __init__(self, *, width: float = 1.0) -> None:
        super().__init__(4 * (3 + 2 + len(MATTES) + 1), (16, 24, 40, 48), width)
        self.detail = convolution(SPREAD + 3 + 2 + len(MATTES) + 1, 16)
        self.weights = nn.Conv2d(16, len(MATTES) + 1, 3, padding=1)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)  # type: ignore[arg-type]

    @torch.no_grad()
    def inputs(self, image: Tensor, trimap: Tensor) -> Inputs:
        """Make what ``forward`` takes.

        Parameters
        ----------
        image : (N, 6, H, W) uint8
            RGB, and the `MATTES`.
        trimap : (N, H, W) uint8 {0, 128, 255}

        Returns
        -------
        tuple of one tensor
            (N, 9, H, W) float32: picture, known background, known foreground, mattes, and how far these differ.

        Raises
        ------
        ValueError
            Another number of planes.
        """
        return (self._planes(image, trimap, image[:, 3:] / 255),)

    @torch.no_grad()
    def training_inputs(self, image: Tensor, trimap: Tensor) -> Inputs:
        """Make the same of mattes of which some are dropped, at random."""
        mattes = image[:, 3:] / 255
        kept = (torch.rand(mattes.shape[:2]) >= torch.tensor(DROPPED)).float()[..., None, None].to(mattes.device)
        kept[kept.sum(1).squeeze() == 0] = 1
        rest = (kept * mattes).sum(1, keepdim=True) / kept.sum(1, keepdim=True)
        return (self._planes(image, trimap, torch.where(kept > 0, mattes, rest)),)

    def _planes(self, image: Tensor, trimap: Tensor, mattes: Tensor) -> Tensor:
        if image.shape[1] != self.planes:
            raise ValueError(
                f"{type(self).__name__} takes a picture and {len(MATTES)} mattes, found {image.shape[1]} planes"
            )
        known = trimap_masks(trimap)[:, :2].float()
        apart = mattes.amax(1, keepdim=True) - mattes.amin(1, keepdim=True)
        planes = torch.cat((image[:, :3] / 255 - 0.5, known, mattes, apart), dim=1)
        return planes.contiguous(memory_format=torch.channels_last)  # a quarter quicker on CPUs

    def forward(self, planes: Tensor) -> Tensor:
        """Predict alpha, (N, 1, H, W) in 0..1, from `inputs`."""
        x = self.features(F.pixel_unshuffle(planes, 2))
        x = self.detail(torch.cat((x, planes), dim=1))
        weights, own = self.weights(x).split((len(MATTES), 1), dim=1)
        alpha: Tensor = (weights.softmax(1) * planes[:, 5:-1]).sum(1, keepdim=True) + OWN * own.tanh()
        return alpha.clamp(0, 1)
