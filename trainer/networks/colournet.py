"""ColourNet: a small network that is told which colours foreground and background have nearby.

What sampling-based matting computes (Chuang et al., 2001, and its successors) is cheap: the colours of known foreground
and background around each unknown pixel, at several scales, and the alpha that their mixture would have there. A U-net
reads those beside the picture and corrects them. So it sees as far as the colours reach, and little data teaches it.
"""

from __future__ import annotations

from typing import ClassVar, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .network import Inputs, trimap_masks
from .unet import SPREAD, UNet, convolution

__all__ = ["ColourNet"]

LEVELS: Final = 5  # halvings of the picture in which colours are averaged
SCALES: Final = (1, 3, 5)  # those whose colours the network reads: averages over 2, 8 and 32 px and more
HINTS: Final = 4  # planes for each of them
FLOOR: Final = 0.02  # of a cell: where less is known, the next larger scale counts too
NOISE: Final = 1e-3  # variance of a colour in 0..1 that says nothing


class ColourNet(UNet):
    """Predict alpha from a picture, its trimap, and the colours that are known nearby.

    A U-net at half the picture's size; the last two layers work at full size. 0.9 million parameters at the default
    width.

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
    >>> network = ColourNet(width=0.5).eval()
    >>> image = torch.zeros(1, 3, 64, 96, dtype=torch.uint8)
    >>> trimap = torch.full((1, 64, 96), 128, dtype=torch.uint8)
    >>> network.matte(image, trimap).shape
    torch.Size([1, 1, 64, 96])
    """

    stride: ClassVar[int] = 32
    context: ClassVar[int | None] = 128  # px; beyond, it sees little
    any_size: ClassVar[bool] = False

    def __init__(self, *, width: float = 1.0) -> None:
        if not 0 < width < float("inf"):
            raise ValueError(f"width is {width!r}, but must be above 0, such as 1.0")
        super().__init__(4 * (3 + 2) + HINTS * len(SCALES), (24, 40, 64, 96, 128), width)
        self.detail = convolution(SPREAD + 3 + 2 + 1, 8)
        self.alpha = nn.Conv2d(8, 2, 3, padding=1)

    @torch.no_grad()
    def inputs(self, image: Tensor, trimap: Tensor) -> Inputs:
        """Make what ``forward`` takes.

        Parameters
        ----------
        image : (N, 3, H, W) uint8 RGB
        trimap : (N, H, W) uint8 {0, 128, 255}

        Returns
        -------
        tuple of tensors
            (N, 6, H, W) float32: picture, known background, known foreground, and the alpha of nearby colours' mixture;
            (N, 12, H/2, W/2) float32: at each of `SCALES` that mixture's alpha, how far the pixel is from the
            foreground's and from the background's colours, in their own deviations, and how far these are apart.
        """
        picture = image / 255
        known = trimap_masks(trimap)[:, :2].float()
        colours = [_spread(picture, known[:, i : i + 1]) for i in range(2)]
        half = F.avg_pool2d(picture, 2)
        hints = [_hints(half, *(_enlarge(each[scale], scale - 1) for each in colours)) for scale in SCALES]
        near = [F.interpolate(each[1][:, :3], scale_factor=2.0, mode="bilinear") for each in colours]
        planes = torch.cat((picture - 0.5, known, _mixture(picture, *near)), dim=1)
        layout = torch.channels_last  # a quarter quicker on CPUs
        return planes.contiguous(memory_format=layout), torch.cat(hints, dim=1).contiguous(memory_format=layout)

    def forward(self, planes: Tensor, hints: Tensor) -> Tensor:
        """Predict alpha, (N, 1, H, W) in 0..1, from `inputs`."""
        x = self.features(torch.cat((F.pixel_unshuffle(planes[:, :5], 2), hints), dim=1))
        x = self.detail(torch.cat((x, planes), dim=1))
        trust, own = self.alpha(x).sigmoid().chunk(2, dim=1)
        alpha: Tensor = trust * planes[:, 5:] + (1 - trust) * own
        return alpha


def _spread(picture: Tensor, known: Tensor) -> list[Tensor]:
    """Average known colours at each scale, and where a cell holds none take the next larger scale's.

    Parameters
    ----------
    picture : (N, 3, H, W) in 0..1
    known : (N, 1, H, W) in {0, 1}

    Returns
    -------
    list of (N, 4, H/2ⁱ, W/2ⁱ)
        For i = 0 (empty) to `LEVELS`: mean colour and mean square.
    """
    sums = F.avg_pool2d(torch.cat((picture, (picture * picture).sum(1, keepdim=True), torch.ones_like(known)), 1)
                        * known, 2)  # fmt: skip
    levels = [sums]
    for _ in range(LEVELS - 1):
        levels.append(F.avg_pool2d(levels[-1], 2))
    whole = levels[-1].mean((2, 3), keepdim=True)
    means = whole[:, :4] / (whole[:, 4:] + 1e-6)
    found: list[Tensor] = []
    for level in reversed(levels):
        if found:
            means = F.interpolate(means, scale_factor=2.0, mode="bilinear")
        means = (level[:, :4] + FLOOR * means) / (level[:, 4:] + FLOOR)
        found.append(means)
    return [found[0][:, :0], *reversed(found)]


def _enlarge(x: Tensor, times: int) -> Tensor:
    return F.interpolate(x, scale_factor=float(2**times), mode="bilinear") if times else x


def _mixture(picture: Tensor, background: Tensor, foreground: Tensor) -> Tensor:
    """Project colours on the line between two: α = (I−B)·(F−B)/|F−B|², cut to 0..1."""
    line = foreground - background
    alpha = ((picture - background) * line).sum(1, keepdim=True) / ((line * line).sum(1, keepdim=True) + NOISE)
    return alpha.clamp(0, 1)


def _hints(picture: Tensor, background: Tensor, foreground: Tensor) -> Tensor:
    """Compare a picture with colours that are known nearby; see `ColourNet.inputs`."""
    colours = background[:, :3], foreground[:, :3]
    alpha = _mixture(picture, *colours)
    apart = (colours[1] - colours[0]).square().sum(1, keepdim=True).sqrt()
    far = []
    for colour, square in zip(colours, (background[:, 3:], foreground[:, 3:]), strict=True):
        variance = (square - colour.square().sum(1, keepdim=True)).clamp(min=0)
        distance = (picture - colour).square().sum(1, keepdim=True) / (variance + NOISE)
        far.append((distance + 1e-6).log() / 4)
    return torch.cat((alpha, *far, apart), dim=1)
