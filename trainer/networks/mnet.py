"""MNet: the matting network of Semantic Human Matting (Chen et al., 2018, section 4.2).

A VGG16 encoder with batch normalisation, without its fifth pooling and its fully connected layers, and a decoder that
unpools by the encoder's own indices. `network.network_input` makes what it reads, `network.fuse` finishes the rest.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Final, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .network import MASKS, MattingNetwork
from .onnx_mnet import mnet_model
from .weights import read_fitting

__all__ = ["MNet"]

Decoder = Literal["unpool", "resize"]


Norm = Literal["batch", "group"]


Output = Literal["clamp", "sigmoid"]


VGG16_BN: Final = "https://download.pytorch.org/models/vgg16_bn-6c64b313.pth"


# Channels after each 3×3 convolution, block by block; a 2×2 max-pool stands between two blocks.
_ENCODER: Final = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


# Channels after each 5×5 convolution; the picture doubles between two of them.
_DECODER: Final = (512, 256, 128, 64, 64)


_GROUP: Final = 8  # channels a group under norm="group"; every width is rounded to a multiple of it


class MNet(MattingNetwork):
    """Predict alpha from a picture and its trimap.

    ``MNet()`` is the published network: 25,686,337 parameters, 60.5 GMAC at 320×320. Its weights start as Xavier's;
    `load_encoder` then brings VGG16's, as the paper does.

    Any height and width from 1 will do, without padding. Pooling rounds up, so an odd last row or column is a window of
    its own, and unpooling is told the size to return to. At multiples of 16 nothing is rounded.

    Parameters
    ----------
    width : float
        Multiplies every layer's channels (then rounded to a multiple of 8).
    decoder : {"unpool", "resize"}
        ``"unpool"``, as published, puts values back where the encoder's maxima were: all that it learns of the fine
        structure. ``"resize"`` doubles by nearest neighbours and adds the encoder's features of that size: the same
        parameters, more of the picture, and no ``max_unpool2d`` in the way of an export.
    norm : {"batch", "group"}
        ``"group"`` (8 channels a group) is for batches too small for batch statistics.
    output : {"clamp", "sigmoid"}
        ``"clamp"`` cuts to 0..1, as published: a pixel beyond the range gives no gradient, so a bad start or a high
        learning rate can leave regions that never learn. ``"sigmoid"`` always passes some.

    Attributes
    ----------
    config : dict
        The arguments, for a checkpoint to build the network again.

    Raises
    ------
    ValueError
        A width that is not above 0, or a switch that has no such position.

    Examples
    --------
    >>> network = MNet(width=0.125, decoder="resize").eval()
    >>> image = torch.zeros(1, 3, 33, 50, dtype=torch.uint8)
    >>> trimap = torch.full((1, 33, 50), 128, dtype=torch.uint8)
    >>> network.matte(image, trimap).shape
    torch.Size([1, 1, 33, 50])
    """

    stride: ClassVar[int] = 16  # four poolings
    context: ClassVar[int | None] = 176  # 169 by its layers, rounded up to a multiple of the stride
    any_size: ClassVar[bool] = True
    encoder_url: str | None = VGG16_BN

    def __init__(
        self,
        *,
        width: float = 1.0,
        decoder: Decoder = "unpool",
        norm: Norm = "batch",
        output: Output = "clamp",
    ) -> None:
        super().__init__()
        if not 0 < width < float("inf"):
            raise ValueError(f"width is {width!r}, but must be above 0, such as 1.0 (published) or 0.25")
        _check_choice("decoder", decoder, get_args(Decoder))
        _check_choice("norm", norm, get_args(Norm))
        _check_choice("output", output, get_args(Output))
        self.config = {"width": width, "decoder": decoder, "norm": norm, "output": output}
        self.bounded = norm == "batch"  # a group's mean is the whole tile's
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        channels = 3 + len(MASKS)
        for block in _ENCODER:
            layers: list[nn.Module] = []
            for out in (_scaled(c, width) for c in block):
                layers += _convolution(channels, out, 3, norm)
                channels = out
            self.encoder.append(nn.Sequential(*layers))
        for out in (_scaled(c, width) for c in _DECODER):
            self.decoder.append(nn.Sequential(*_convolution(channels, out, 5, norm)))
            channels = out
        self.alpha = nn.Conv2d(channels, 1, 5, padding=2)
        self.apply(_xavier)

    def forward(self, x: Tensor) -> Tensor:
        """Predict alpha, ``(N, 1, H, W)`` in 0..1, from a `network.network_input`, ``(N, 6, H, W)``."""
        if self.config["decoder"] == "resize" and not self.training:
            # A third quicker on CPUs. Not to unpool: of equals, as in flat areas, rounding would choose the maximum.
            x = x.contiguous(memory_format=torch.channels_last)
        blocks = list(self.encoder)
        skips: list[tuple[Tensor, Tensor]] = []
        for block in blocks[:-1]:
            features = block(x)  # (N, C, H/2ⁱ, W/2ⁱ), i = 0..3, rounded up
            x, indices = F.max_pool2d_with_indices(features, [2, 2], ceil_mode=True)
            skips.append((features, indices))
        x = self.decoder[0](blocks[-1](x))  # (N, 512·width, H/16, W/16)
        for block, (features, indices) in zip(list(self.decoder)[1:], reversed(skips), strict=True):
            x = block(self._enlarge(x, features, indices))  # (N, C, H/2ⁱ, W/2ⁱ), i = 3..0
        y: Tensor = self.alpha(x)  # (N, 1, H, W)
        return y.sigmoid() if self.config["output"] == "sigmoid" else y.clamp(0, 1)

    def _enlarge(self, x: Tensor, features: Tensor, indices: Tensor) -> Tensor:
        """Bring ``x`` to the size that ``features`` had before the pooling that gave ``indices``."""
        size = features.shape[-2:]
        if self.config["decoder"] == "unpool":
            return F.max_unpool2d(x, indices, [2, 2], output_size=list(size))
        # Nearest: bilinear's gradient is not deterministic on CUDA, and the 5×5 convolution that follows smooths.
        return F.interpolate(x, size=size, mode="nearest") + features

    def random_weights_warnings(self) -> list[str]:
        """See `MattingNetwork`."""
        found = []
        if self.config["width"] == 1:
            found.append("training from random weights; network.encoder=download starts from VGG16's, as the papers do")
        if (self.config["decoder"], self.config["output"]) == ("unpool", "clamp"):
            found.append("from random weights, unpool with clamp rarely learns: take network.output=sigmoid and"
                         " network.decoder=resize, or VGG16's encoder")  # fmt: skip
        return found

    def onnx_model(self) -> bytes | None:
        """Write the graph of an unpooling decoder, which torch's exporter cannot; see `exports.export_network`."""
        if self.config["decoder"] == "resize":
            return None
        return mnet_model(self.encoder, self.decoder, self.alpha, self.config)

    @torch.no_grad()
    def load_encoder(self, path: str | os.PathLike[str]) -> None:
        """Fill the encoder from a file with torchvision's ``vgg16_bn`` weights.

        Reads a ``state_dict`` saved by torch (with ``weights_only=True``: nothing in the file is executed) or, by its
        suffix, a ``.safetensors`` file with the same keys. Convolutions and batch normalisation, running statistics
        included, are copied; the first convolution's three planes for the masks become zero. The classifier is ignored.
        Nothing changes unless everything fits.

        Parameters
        ----------
        path : str or Path

        Raises
        ------
        ValueError
            The file is not what it should be, or this network is not VGG16's shape.
        OSError
            The file cannot be read.
        """
        path = Path(path)
        if self.config["width"] != 1 or self.config["norm"] != "batch":
            raise ValueError(
                f"cannot load {path} into {self.config}: vgg16_bn's weights fit only width=1.0 and norm='batch'. "
                "Build the network so, or train it without a pre-trained encoder"
            )
        targets = self._encoder_tensors()
        state = read_fitting(path, targets, "torchvision's vgg16_bn", VGG16_BN, lambda key: key.startswith("features."))
        for key, target in targets.items():
            target.copy_(state[key])
        first: Tensor = self.get_parameter("encoder.0.0.weight")  # (64, 6, 3, 3)
        first[:, 3:] = 0

    def _encoder_tensors(self) -> dict[str, Tensor]:
        """Map torchvision's key to the tensor to fill: its ``features`` number every layer, poolings included."""
        tensors: dict[str, Tensor] = {}
        number = 0
        for block in self.encoder:
            for layer in block.children():
                state = layer.state_dict()
                tensors |= {f"features.{number}.{k}": v for k, v in state.items() if k != "num_batches_tracked"}
                number += 1
            number += 1
        tensors["features.0.weight"] = tensors["features.0.weight"][:, :3]
        return tensors


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(map(repr, choices))}")


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width / _GROUP)) * _GROUP


def _convolution(channels: int, out: int, size: int, norm: Norm) -> list[nn.Module]:
    """Return a convolution that keeps the picture's size, its normalisation and a ReLU."""
    normalise = nn.BatchNorm2d(out) if norm == "batch" else nn.GroupNorm(out // _GROUP, out)
    return [nn.Conv2d(channels, out, size, padding=size // 2), normalise, nn.ReLU(inplace=True)]


def _xavier(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
