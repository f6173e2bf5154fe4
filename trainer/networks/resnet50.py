"""ResNet-50 as an encoder of dense predictions: its last two stages are dilated instead of strided."""

from __future__ import annotations

from typing import ClassVar, Final

from torch import Tensor, nn

__all__ = ["RESNET50", "Bottleneck", "ResNet50"]

RESNET50: Final = "https://download.pytorch.org/models/resnet50-0676ba61.pth"


# Of each stage: blocks, channels of the 3×3 convolution (a quarter of what comes out).
_STAGES: Final = ((3, 64), (4, 128), (6, 256), (3, 512))


_EXPANSION: Final = 4


class Bottleneck(nn.Module):
    """1×1 down, 3×3, 1×1 up, added to what came in (He et al., 2016, figure 5); torchvision's names."""

    def __init__(self, channels: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        out = width * _EXPANSION
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, 4·width, H/stride, W/stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        found: Tensor = self.relu(y + (x if self.downsample is None else self.downsample(x)))
        return found


class ResNet50(nn.Module):
    """Features of a picture at an eighth of its size (or a sixteenth), with torchvision's names and shapes.

    Parameters
    ----------
    output_stride : {8, 16}
        8: the third stage is dilated by 2 and the fourth by 4, both of stride 1; 16: the fourth alone, by 2.

    Attributes
    ----------
    channels : tuple of int
        Of what `forward` gives.
    """

    channels: ClassVar[tuple[int, int]] = (1024, 2048)

    def __init__(self, output_stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        channels, reached, dilation = 64, 4, 1
        for number, (blocks, width) in enumerate(_STAGES, 1):
            stride = 1 if number == 1 or reached == output_stride else 2
            # As in the reference code of dilated ResNets: the first block still looks at its stage's old distance.
            first = dilation
            dilation *= 2 if number > 1 and stride == 1 else 1
            reached *= stride
            layers = [Bottleneck(channels, width, stride, dilation if stride == 1 else first)]
            channels = width * _EXPANSION
            layers += [Bottleneck(channels, width, 1, dilation) for _ in range(1, blocks)]
            self.add_module(f"layer{number}", nn.Sequential(*layers))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Give the third stage's features, (N, 1024, H/8, W/8), and the fourth's, (N, 2048, H/8, W/8)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.get_submodule("layer2")(self.get_submodule("layer1")(x))
        third: Tensor = self.get_submodule("layer3")(x)
        return third, self.get_submodule("layer4")(third)
