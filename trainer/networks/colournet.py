"""ColourNet: a small network that is told what the two classical kinds of matting find, roughly.

What sampling-based matting computes (Chuang et al., 2001, and its successors) is cheap: the colours of known foreground
and background around each unknown pixel, at several scales, and the alpha that their mixture would have there. What
propagation-based matting computes (Levin et al., 2008) is cheap at a quarter of the size; see `propagation`. So is a
count of all known colours; see `likelihood`. A U-net reads these beside the picture, chooses at each pixel, and
corrects them. So it sees as far as these reach, and little data teaches it.
"""

from __future__ import annotations

from itertools import product
from typing import ClassVar, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .likelihood import count_colours, look_up
from .network import Inputs, trimap_masks
from .propagation import enlarge, reduce, solve
from .unet import SPREAD, UNet, convolution

__all__ = ["ColourNet"]

LEVELS: Final = 5  # halvings of the picture in which colours are averaged
NEAR: Final = 3  # up to which a part of a picture can tell
SCALES: Final = (1, NEAR, LEVELS)  # those whose colours the network reads: averages over 2, 8 and 32 px and more
HINTS: Final = 4  # planes for each of them
FLOOR: Final = 0.02  # of a cell: where less is known, the next larger scale counts too
STRIP: Final = 1024  # px, the height in which a large picture is reduced, so that it is never all in float32
BLOCK: Final = 128  # px
EDGE: Final = 4  # px around a block that count in it, at half the picture's size and at all of it
NOISE: Final = 1e-3  # variance of a colour in 0..1 that says nothing


class ColourNet(UNet):
    """Predict alpha from a picture, its trimap, the colours that are known, and an approximate closed form.

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
    context: ClassVar[int | None] = 160  # px; beyond, nothing moves a level of what `survey` does not hold
    tile: ClassVar[int] = 1536  # a sixth quicker than 1024 at 1 and 4 megapixels, for 0.2 GB
    bounded = True
    any_size: ClassVar[bool] = False

    def __init__(self, *, width: float = 1.0) -> None:
        super().__init__(4 * (3 + 2) + HINTS * len(SCALES) + 3, (24, 40, 64, 96, 128), width)
        self.detail = convolution(SPREAD + 3 + 2 + 4, 8)
        self.alpha = nn.Conv2d(8, 5, 3, padding=1)

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
            (N, 9, H, W) float32: picture, known background, known foreground, the alpha of nearby colours' mixture,
            that of propagation, and what `look_up` gives; (N, 15, H/2, W/2) float32: at each of `SCALES` that
            mixture's alpha, how far the pixel is from the foreground's and from the background's colours, in their own
            deviations, and how far these are apart; and the last three again.
        """
        return self._inputs(image, trimap, self.survey(image, trimap))

    @torch.no_grad()
    def survey(self, image: Tensor, trimap: Tensor) -> tuple[Tensor, ...]:
        """Find what a part of a picture cannot know.

        Returns
        -------
        tuple of tensors
            What `count_colours` and `propagation.solve` give, (N, 2, …) and (N, 4, H/4, W/4); and the known
            background's and foreground's mean colours and mean squares, (N, 8, …), of H/8 × W/8 and H/32 × W/32 cells.
        """
        strips = [_reduce(*strip) for strip in zip(_strips(image), _strips(trimap), strict=True)]
        picture, known, *sums = (torch.cat(parts, dim=2) for parts in zip(*strips, strict=True))
        coarse = []
        for each in sums:
            whole = each.mean((2, 3), keepdim=True)
            coarse.append(_average(each, LEVELS - NEAR + 1, whole[:, :4] / (whole[:, 4:] + 1e-6)))
        cells = [torch.cat([levels[i] for levels in coarse], dim=1) for i in (0, -1)]
        return count_colours(image, trimap), solve(picture, known), *cells

    def matte_part(self, image: Tensor, trimap: Tensor, survey: tuple[Tensor, ...]) -> Tensor:
        """See `MattingNetwork`. From half the size on only blocks are made that hold something unknown."""
        planes, hints = self._inputs(image, trimap, survey)
        parts = *self.begin(_stack(planes, hints)), planes
        unknown = planes[:, 3:5].sum(1, keepdim=True) == 0
        alpha = torch.zeros_like(unknown, dtype=planes.dtype)
        side = BLOCK if planes.device.type == "cpu" else max(alpha.shape)  # elsewhere the whole is quicker
        for top, left in product(*(range(0, length, side) for length in alpha.shape[2:])):
            block = ..., slice(top, top + side), slice(left, left + side)
            if unknown[block].any():
                y, x = max(top - EDGE, 0), max(left - EDGE, 0)
                bottom, right = top + side + EDGE, left + side + EDGE
                seen = self._finish(
                    *(
                        part[..., y // scale : bottom // scale, x // scale : right // scale]
                        for part, scale in zip(parts, (4, 2, 1), strict=True)
                    )
                )
                alpha[block] = seen[..., top - y : top - y + side, left - x : left - x + side]
        return self.fuse(alpha, trimap)

    @torch.no_grad()
    def _inputs(self, image: Tensor, trimap: Tensor, survey: tuple[Tensor, ...]) -> Inputs:
        picture, known = image / 255, trimap_masks(trimap)[:, :2].float()
        table, functions, middle, far = survey
        beyond = _enlarge(middle, 1).chunk(2, dim=1)
        near = [
            _average(F.avg_pool2d(_sums(picture, known[:, i : i + 1]), 2), NEAR - 1, beyond[i])[0] for i in range(2)
        ]
        half = F.avg_pool2d(picture, 2)
        cells = [(_enlarge(each, scale - 1).chunk(2, dim=1)) for scale, each in ((NEAR, middle), (LEVELS, far))]
        hints = [_hints(half, *colours) for colours in (near, *cells)]
        further = torch.cat((enlarge(functions, picture), look_up(table, image)), dim=1)
        hints.append(F.avg_pool2d(further, 2))
        mixture = _mixture(picture, *(_enlarge(each[:, :3], 1) for each in near))
        planes = torch.cat((picture - 0.5, known, mixture, further), dim=1)
        layout = torch.channels_last  # a quarter quicker on CPUs
        return planes.contiguous(memory_format=layout), torch.cat(hints, dim=1).contiguous(memory_format=layout)

    def forward(self, planes: Tensor, hints: Tensor) -> Tensor:
        """Predict alpha, (N, 1, H, W) in 0..1, from `inputs`."""
        return self._finish(*self.begin(_stack(planes, hints)), planes)

    def _finish(self, x: Tensor, skip: Tensor, planes: Tensor) -> Tensor:
        """Predict alpha, (N, 1, H, W) in 0..1, from what `begin` gives, of a picture or of a part of it."""
        x = self.detail(torch.cat((self.finish(x, skip), planes), dim=1))
        trust, own = self.alpha(x).split((4, 1), dim=1)
        choices = torch.cat((planes[:, 5:8], own.sigmoid()), dim=1)
        alpha: Tensor = (trust.softmax(1) * choices).sum(1, keepdim=True)
        return alpha


def _stack(planes: Tensor, hints: Tensor) -> Tensor:
    """Stack what the U-net reads at half the picture's size."""
    return torch.cat((F.pixel_unshuffle(planes[:, :5], 2), hints), dim=1)


def _strips(x: Tensor) -> tuple[Tensor, ...]:
    """Cut a batch, (N, H, W) or (N, C, H, W), along H where it is large: traced sizes are small ones'."""
    return x.split(STRIP, dim=x.ndim - 2) if x.shape[-2] > STRIP else (x,)  # type: ignore[no-untyped-call]


def _reduce(image: Tensor, trimap: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what `solve` takes, and `_sums` of known background and foreground over cells of 8 px."""
    picture, known = image / 255, trimap_masks(trimap)[:, :2].float()
    sums = [F.avg_pool2d(_sums(picture, known[:, i : i + 1]), 2**NEAR) for i in range(2)]
    return reduce(picture), reduce(known), sums[0], sums[1]


def _sums(picture: Tensor, known: Tensor) -> Tensor:
    """Stack what is averaged where known: colours, their squares' sum, and 1, (N, 5, H, W)."""
    return torch.cat((picture, picture.square().sum(1, keepdim=True), torch.ones_like(known)), dim=1) * known


def _average(sums: Tensor, levels: int, means: Tensor) -> list[Tensor]:
    """Average known colours over cells, and over larger ones; where a cell knows none, take the next larger one's.

    Parameters
    ----------
    sums : (N, 5, h, w)
        Of the smallest cells.
    levels : int
        Each of cells twice as wide as the one before's.
    means : (N, 4, …)
        What the largest cells take where they know none.

    Returns
    -------
    list of (N, 4, h/2ⁱ, w/2ⁱ)
        Mean colours and mean squares, the smallest cells' first.
    """
    pyramid = [sums]
    for _ in range(levels - 1):
        pyramid.append(F.avg_pool2d(pyramid[-1], 2))
    found: list[Tensor] = []
    for level in reversed(pyramid):
        means = _enlarge(found[-1], 1) if found else means
        found.append((level[:, :4] + FLOOR * means) / (level[:, 4:] + FLOOR))
    return found[::-1]


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
