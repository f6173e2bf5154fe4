"""TNet: the trimap network of Semantic Human Matting (Chen et al., 2018, section 4.1): where the subject is.

PSPNet-50 (Zhao et al., 2017) with three classes. What it calls unknown is left to the matting network.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar, Final, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .lite0 import PACKAGE, Lite0, packaged_weights
from .network import MASKS, Inputs, MattingNetwork, normalised
from .resnet50 import RESNET50, ResNet50
from .weights import read_fitting

__all__ = ["Detail", "Pyramid", "TNet"]

Encoder = Literal["resnet50", "lite0"]


BINS: Final = (1, 2, 3, 6)  # the pyramid's, along each side


DETAIL: Final = 48  # channels at finer scales


DROPOUT: Final = 0.1


SIGHT: Final = 400  # px, the side of the crops that it is trained on; section 5.1


# Of each encoder: its class, and what leaves the pyramid (512, as published) in channels.
_ENCODERS: Final[dict[str, tuple[type[ResNet50] | type[Lite0], int]]] = {
    "resnet50": (ResNet50, 512),
    "lite0": (Lite0, 128),
}


_PUBLISHED: Final = {
    "resnet50": ("torchvision's resnet50", RESNET50),
    "lite0": ("EfficientNet-lite0's", f"those in {PACKAGE}"),
}


_CLASSIFIER: Final = ("fc.", "_fc.", "_conv_head.", "_bn1.")  # what follows the features in either


class TNet(MattingNetwork):
    """Tell background, foreground and unknown apart in a picture, without any hint.

    ``TNet()`` is the published network, PSPNet-50: 46,586,438 parameters. ``TNet(encoder="lite0")`` is a light one, of
    3,903,782, that learns on two cores.

    Parameters
    ----------
    encoder : {"resnet50", "lite0"}
        Dilated from `output_stride` on.
    output_stride : {8, 16}, optional
        How many px of the picture are one of the features that the pyramid sees; by default 8, as published, for
        resnet50, and 16 for lite0.
    sight : int
        px. A larger picture than sight² is reduced to that for the network, and its logits are enlarged again: so
        subjects are about as large as in the crops that it was trained on, a whole scene in 400² px.

    Attributes
    ----------
    config : dict
        The arguments, for a checkpoint to build the network again.

    Raises
    ------
    ValueError
        A switch that has no such position.

    Examples
    --------
    >>> network = TNet(encoder="lite0").eval()
    >>> network(torch.zeros(1, 3, 33, 50)).shape  # logits of background, foreground and unknown: `network.MASKS`
    torch.Size([1, 3, 33, 50])
    """

    any_size: ClassVar[bool] = True
    needs_trimap: ClassVar[bool] = False
    least_batch: ClassVar[int] = 2
    outputs: ClassVar[tuple[str, ...]] = ("trimap", "auxiliary")

    def __init__(
        self, *, encoder: Encoder = "resnet50", output_stride: Literal[8, 16] | None = None, sight: int = SIGHT
    ) -> None:
        super().__init__()
        if encoder not in get_args(Encoder):
            raise ValueError(f"encoder is {encoder!r}, but must be one of {', '.join(get_args(Encoder))}")
        if output_stride not in (None, 8, 16):
            raise ValueError(f"output_stride is {output_stride!r}, but must be 8 or 16")
        if sight < 1:
            raise ValueError(f"sight is {sight!r}, but must be a side in px, such as {SIGHT}")
        self.encoder_url = RESNET50 if encoder == "resnet50" else None
        self.config = {"encoder": encoder, "output_stride": output_stride, "sight": sight}
        self.sight = sight
        kind, width = _ENCODERS[encoder]
        self.encoder: ResNet50 | Lite0 = kind(output_stride or (8 if encoder == "resnet50" else 16))
        middle, deep = self.encoder.channels
        self.pyramid = Pyramid(deep, width if encoder == "resnet50" else deep // len(BINS))
        fine = self.encoder.fine if isinstance(self.encoder, Lite0) else ()  # PSPNet looks at nothing finer
        self.head = nn.Sequential(
            nn.Conv2d(self.pyramid.channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Dropout2d(DROPOUT),
            nn.Conv2d(DETAIL if fine else width, len(MASKS), 1),
        )
        self.auxiliary = nn.Conv2d(middle, len(MASKS), 1)
        self.details = None
        if fine:  # from coarse to fine
            coming = (width, *(DETAIL for _ in fine))
            self.details = nn.ModuleList(Detail(c, skip) for c, skip in zip(coming, reversed(fine), strict=False))
        for part in (self.pyramid, self.head, *(self.details or ())):
            part.apply(_he)

    def forward(self, x: Tensor, with_auxiliary: bool = False) -> Tensor | dict[str, Tensor]:
        """Give logits, (N, 3, H, W) in the order of `MASKS`, of a `network.normalised` picture, (N, 3, H, W).

        With the auxiliary head, which trains the third stage, a dict of both: ``trimap`` and ``auxiliary``.
        """
        size = x.shape[-2:]
        *fine, middle, deep = self.encoder(self._reduced(x), *([True] if self.details else []))
        y = self.head[:-1](self.pyramid(deep))
        for detail, skip in zip(self.details or (), reversed(fine), strict=True):
            y = detail(y, skip)
        found = {"trimap": self.head[-1](y)}
        if with_auxiliary:
            found["auxiliary"] = self.auxiliary(middle)
        logits = {name: F.interpolate(y, size, mode="bilinear", align_corners=False) for name, y in found.items()}
        return logits if with_auxiliary else logits["trimap"]

    def _reduced(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        scale = self.sight / math.sqrt(height * width)
        if scale >= 1:
            return x
        size = [max(1, math.floor(side * scale + 0.5)) for side in (height, width)]
        return F.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)

    def inputs(self, image: Tensor, trimap: Tensor | None = None) -> Inputs:
        """Normalise the picture; a trimap is not looked at."""
        return (normalised(image),)

    def training_inputs(self, image: Tensor, trimap: Tensor) -> Inputs:
        """See `MattingNetwork`: with the auxiliary head."""
        return (*self.inputs(image), True)

    def matte(self, image: Tensor, trimap: Tensor | None = None) -> Tensor:
        """Guess alpha from the classes alone, F + U/2 as probabilities: what the matting network improves on."""
        logits: Tensor = self(*self.inputs(image))
        probabilities = logits.float().softmax(dim=1)
        return probabilities[:, 1:2] + probabilities[:, 2:] / 2

    def random_weights_warnings(self) -> list[str]:
        """See `MattingNetwork`."""
        return ["training from random weights; network.encoder=download starts from ImageNet's, as the paper does"]

    def packaged_encoder(self) -> Path | None:
        """Find the weights in lite0's package; see `MattingNetwork`."""
        return packaged_weights() if self.config["encoder"] == "lite0" else None

    @torch.no_grad()
    def load_encoder(self, path: Path) -> None:
        """Fill the encoder from a file: torchvision's ``resnet50`` weights, or EfficientNet-lite0's.

        A ``state_dict`` saved by torch (nothing in it is executed) or ``.safetensors``. The classifier is ignored.
        Nothing changes unless everything fits.

        Raises
        ------
        ValueError
            A key is missing, of another shape, or not finite.
        OSError
            The file cannot be read.
        """
        own = {key: value for key, value in self.encoder.state_dict().items() if not key.endswith("_tracked")}
        what, advice = _PUBLISHED[self.config["encoder"]]
        state = read_fitting(Path(path), own, what, advice, lambda key: not key.startswith(_CLASSIFIER))
        for key, target in own.items():
            target.copy_(state[key])


class Pyramid(nn.Module):
    """Pyramid pooling (Zhao et al., 2017, section 3.2): means over 1, 2², 3² and 6² parts of the picture, beside it.

    Attributes
    ----------
    channels : int
        Of what `forward` gives.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels + len(BINS) * width
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
            for _ in BINS
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, channels, H, W)."""
        size = x.shape[-2:]
        means = [level(F.adaptive_avg_pool2d(x, bins)) for bins, level in zip(BINS, self.levels, strict=True)]
        return torch.cat([x, *(F.interpolate(y, size, mode="bilinear", align_corners=False) for y in means)], dim=1)


class Detail(nn.Module):
    """What was found at a coarse scale, seen again beside the encoder's features of a finer one (as in U-nets)."""

    def __init__(self, channels: int, skip: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels + skip, DETAIL, 3, padding=1, bias=False), nn.BatchNorm2d(DETAIL), nn.ReLU(inplace=True)
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map (N, C, h, w) and (N, S, H, W) to (N, 48, H, W)."""
        larger = F.interpolate(x, skip.shape[-2:], mode="bilinear", align_corners=False)
        found: Tensor = self.layers(torch.cat((larger, skip), dim=1))
        return found


def _he(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight)
