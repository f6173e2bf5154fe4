"""U-net: what the package's own networks share. The picture is read at half its size, all pixels kept as channels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

from .network import MattingNetwork

__all__ = ["SPREAD", "UNet", "convolution"]

SPREAD: Final = 8  # channels of the features at the picture's full size


class UNet(MattingNetwork):
    """Build the layers, and run those from half the picture's size down and back to all of it.

    Batch normalisation, ReLU, sums in place of concatenations.

    Parameters
    ----------
    planes : int
        Channels that it reads, at half the picture's size.
    channels : sequence of int
        Of its features at half that size, a quarter, and so on.
    width : float
        Multiplies these (then rounded to a multiple of 8).

    Raises
    ------
    ValueError
        A width that is not above 0.
    """

    def __init__(self, planes: int, channels: Sequence[int], width: float) -> None:
        if not 0 < width < float("inf"):
            raise ValueError(f"width is {width!r}, but must be above 0, such as 1.0")
        super().__init__()
        self.config = {"width": width}
        channels = [max(1, round(c * width / 8)) * 8 for c in channels]
        self.stem = convolution(planes, channels[0])
        self.encoder, self.joins, self.decoder = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for number, (before, after) in enumerate(pairwise(channels)):
            deep = [convolution(after, after) for _ in range(2 if number else 1)]
            self.encoder.append(nn.Sequential(convolution(before, after, stride=2), *deep))
        self.encoder.insert(0, convolution(channels[0], channels[0]))
        for before, after in zip(channels[:0:-1], channels[-2::-1], strict=True):
            self.joins.append(nn.Conv2d(before, after, 1))
            self.decoder.append(convolution(after, after))
        self.spread = nn.Conv2d(channels[0], 4 * SPREAD, 1)

    def features(self, x: Tensor) -> Tensor:
        """Make features, (N, 8, H, W), of planes, (N, C, H/2, W/2)."""
        return self.finish(*self.begin(x))

    def begin(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Run all but the last join: features at a quarter of the picture's size, and at half of it.

        `finish` takes the same part of both: what it makes of that sees no more than 4 px beyond.
        """
        x = self.stem(x)
        skips: list[Tensor] = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
        for number, skip in enumerate(skips[-2:0:-1]):
            x = self._join(number, x, skip)
        return x, skips[0]

    def finish(self, x: Tensor, skip: Tensor) -> Tensor:
        """Make features, (N, 8, H, W), of what `begin` gives."""
        return F.pixel_shuffle(self.spread(self._join(-1, x, skip)), 2)

    def _join(self, number: int, x: Tensor, skip: Tensor) -> Tensor:
        larger = F.interpolate(self.joins[number](x), scale_factor=2.0, mode="nearest")
        joined: Tensor = self.decoder[number](larger + skip)
        return joined


def convolution(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    """Return a 3×3 convolution, its normalisation and a ReLU."""
    layer = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return nn.Sequential(layer, nn.BatchNorm2d(out), nn.ReLU(inplace=True))
