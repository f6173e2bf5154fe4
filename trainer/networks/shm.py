"""SHM: Semantic Human Matting whole (Chen et al., 2018): a picture in, alpha out. TNet says where, MNet how much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from ...composer.base.errors import TrainingError
from .mnet import MNet
from .network import Inputs, MattingNetwork, normalised, trimap_masks
from .onnx_shm import shm_model
from .tnet import TNet

__all__ = ["SHM", "join", "sharpened"]

TEMPERATURE: Final = 0.1  # of T-Net's softmax: near to a decision, and still with a gradient. From its authors' code


PATCHES: Final = (320, 480, 640)  # px, of the crop; section 5.1


class SHM(MattingNetwork):
    """Predict alpha from a picture alone.

    T-Net's logits, sharpened by a softmax of temperature 0.1, are M-Net's three masks, and the two are fused by
    α_p = F + U·α_r (section 4.3). Nothing is decided on the way, so M-Net's errors reach T-Net.

    In training T-Net sees whole crops, and M-Net a patch of each, around a pixel that the true trimap leaves unknown.

    Parameters
    ----------
    tnet : TNet or Mapping
        It, or the arguments that build it.
    mnet : MNet or Mapping
        Likewise.
    patch : int
        px, the side that patches are reduced to.
    patches : Sequence of int
        px, the sides of patches of the crop, one of which is drawn.

    Examples
    --------
    >>> network = SHM(TNet(encoder="lite0"), MNet(width=0.125, decoder="resize")).eval()
    >>> network(torch.zeros(1, 3, 33, 50)).shape
    torch.Size([1, 1, 33, 50])
    """

    any_size: ClassVar[bool] = True
    needs_trimap: ClassVar[bool] = False
    least_batch: ClassVar[int] = TNet.least_batch
    outputs: ClassVar[tuple[str, ...]] = ("alpha", "trimap")

    def __init__(
        self,
        tnet: TNet | dict[str, Any] | None = None,
        mnet: MNet | dict[str, Any] | None = None,
        *,
        patch: int = 320,
        patches: Sequence[int] = PATCHES,
    ) -> None:
        super().__init__()
        self.tnet = tnet if isinstance(tnet, TNet) else TNet(**(tnet or {}))
        self.mnet = mnet if isinstance(mnet, MNet) else MNet(**(mnet or {}))
        if patch < 1 or not patches or min(patches) < 1:
            raise ValueError(f"patch and patches are sides in px, found {patch} and {list(patches)}")
        self.patch, self.patches = patch, tuple(patches)
        self.config = {
            "tnet": dict(self.tnet.config), "mnet": dict(self.mnet.config), "patch": patch, "patches": list(patches),
        }  # fmt: skip

    def forward(self, x: Tensor, windows: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """Predict the fused alpha, (N, 1, H, W) in 0..1, of a `network.normalised` picture, (N, 3, H, W).

        With windows, as `training_inputs` draws them, a dict: ``alpha``, (N, 1, patch, patch), of them alone, and
        ``trimap``, T-Net's logits of all, (N, 3, H, W).
        """
        logits: Tensor = self.tnet(x)
        planes = torch.cat((x, sharpened(logits)), dim=1)  # (N, 6, H, W)
        if windows is None:
            return self._fused(planes)
        return {"alpha": self._fused(cut(planes, windows, self.patch)), "trimap": logits}

    def _fused(self, planes: Tensor) -> Tensor:
        foreground, unknown = planes[:, 4:5], planes[:, 5:6]
        alpha: Tensor = self.mnet(planes)
        return foreground + unknown * alpha

    def inputs(self, image: Tensor, trimap: Tensor | None = None) -> Inputs:
        """Normalise the picture; a trimap is not looked at."""
        return (normalised(image),)

    def training_inputs(self, image: Tensor, trimap: Tensor) -> Inputs:
        """Add windows, (N, 3) int64 of y, x and side: each around an unknown pixel, drawn by torch's generator."""
        return (*self.inputs(image), draw_windows(trimap, self.patches))

    def covered(self, part: Tensor, inputs: Inputs) -> Tensor:
        """See `MattingNetwork`: the windows, as patches; of a mask, all that it touches."""
        if part.dtype == torch.bool:
            return cut(part.float(), inputs[-1], self.patch) > 0
        return cut(part, inputs[-1], self.patch)

    def fuse(self, alpha: Tensor, trimap: Tensor) -> Tensor:
        """See `MattingNetwork`: it is fused already."""
        return alpha

    def matte(self, image: Tensor, trimap: Tensor | None = None) -> Tensor:
        """Predict the fused alpha; where a trimap is given, that is M-Net's alone."""
        if trimap is not None:
            return self.mnet.matte(image, trimap)
        alpha: Tensor = self(*self.inputs(image))
        return alpha

    @property
    def hinted(self) -> MattingNetwork:
        """M-Net: a trimap that is given is not sought."""
        return self.mnet

    def onnx_model(self) -> bytes:
        """Write an ONNX file of both halves; see `exports.export_network`."""
        return shm_model(self.tnet, self.mnet, TEMPERATURE)

    def random_weights_warnings(self) -> list[str]:
        """See `MattingNetwork`."""
        return [
            "SHM whole is trained from two trained halves: --init tnet=RUN --init mnet=RUN. (Its matting network alone,"
            " which the configuration shm was before, is shm-mnet)"
        ]


def join(tnet: MattingNetwork, mnet: MattingNetwork) -> SHM:
    """Join two trained halves.

    Raises
    ------
    TrainingError
        One of them is another network.
    """
    if not isinstance(tnet, TNet) or not isinstance(mnet, MNet):
        raise TrainingError(
            f"SHM is a TNet and an MNet, but these are {type(tnet).__name__} and {type(mnet).__name__}: give the T-Net"
            " first, and the M-Net by --mnet"
        )
    return SHM(tnet, mnet).eval()


def sharpened(logits: Tensor) -> Tensor:
    """Turn T-Net's logits, (N, 3, H, W), into M-Net's masks: probabilities, nearly 0 or 1."""
    return (logits.float() / TEMPERATURE).softmax(dim=1)


def draw_windows(trimap: Tensor, sides: Sequence[int]) -> Tensor:
    """Draw a square of each trimap, (N, H, W) uint8, around one of its unknown pixels, by torch's generator.

    Returns
    -------
    (N, 3) int64
        y, x and side, px: wholly inside. A trimap without unknown pixels gives any place.
    """
    height, width = trimap.shape[1:]
    windows = []
    for mask in trimap_masks(trimap)[:, 2].cpu():
        side = min(sides[int(torch.randint(len(sides), ()))], height, width)
        found = mask.flatten().nonzero()[:, 0]
        pick = int(torch.randint(len(found) or height * width, ()))
        y, x = divmod(int(found[pick]) if len(found) else pick, width)
        windows.append((min(max(y - side // 2, 0), height - side), min(max(x - side // 2, 0), width - side), side))
    return torch.tensor(windows)


def cut(part: Tensor, windows: Tensor, side: int) -> Tensor:
    """Cut a window out of each picture, (N, C, H, W), and resample it to (N, C, side, side), differentiably."""
    patches = []
    for picture, (y, x, length) in zip(part, windows.tolist(), strict=True):
        window = picture[None, :, y : y + length, x : x + length]
        if length != side:
            window = F.interpolate(window, (side, side), mode="bilinear", antialias=True, align_corners=False)
        patches.append(window)
    return torch.cat(patches)
