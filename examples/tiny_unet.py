"""A network of one's own: a small U-net that reads the picture and the trimap's three masks.

    PYTHONPATH=examples matting-train demo --out run --config demo --set network.name=tiny_unet:TinyUNet

All other commands then take run/best.pt as they take any checkpoint, with the same PYTHONPATH.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matting_compose.trainer import MattingNetwork


class TinyUNet(MattingNetwork):
    """Three sizes, two convolutions at each; see `MattingNetwork` for what a network may say of itself."""

    stride, context = 4, 32  # px: two halvings; how far it sees, by its layers, rounded up

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        a, b, c = channels, 2 * channels, 4 * channels
        self.down = nn.ModuleList([_convolutions(6, a), _convolutions(a, b), _convolutions(b, c)])
        self.up = nn.ModuleList([_convolutions(c + b, b), _convolutions(b + a, a)])
        self.alpha = nn.Conv2d(a, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 6, H, W), sides multiples of 4, to alpha (N, 1, H, W)."""
        first = self.down[0](x)
        second = self.down[1](F.avg_pool2d(first, 2))
        x = self.down[2](F.avg_pool2d(second, 2))
        for block, skip in zip(self.up, (second, first), strict=True):
            x = block(torch.cat((F.interpolate(x, scale_factor=2.0), skip), dim=1))
        return torch.sigmoid(self.alpha(x))


def _convolutions(channels: int, out: int) -> nn.Sequential:
    layers = [nn.Conv2d(channels, out, 3, padding=1), nn.GroupNorm(4, out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(out, out, 3, padding=1), nn.GroupNorm(4, out), nn.ReLU())
