"""Network: what the program asks of every matting network, and what most of them share: input planes and fusion.

A class of one's own derives from `MattingNetwork` and defines ``forward``; a plain ``torch.nn.Module`` that is named by
its path is taken with the same defaults.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias

import torch
from torch import Tensor, nn

__all__ = ["MASKS", "Inputs", "MattingNetwork", "fuse", "network_input", "normalised", "trimap_masks"]

Inputs: TypeAlias = tuple[Any, ...]  # tensors; in training perhaps more


MASKS: Final = ("background", "foreground", "unknown")  # the one order of the masks: input channels 3, 4 and 5


IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)  # RGB in 0..1: what the pre-trained encoder was fed with


IMAGENET_STD: Final = (0.229, 0.224, 0.225)


class MattingNetwork(nn.Module):
    """What training, prediction, evaluation and export ask of a network. All but ``forward`` has a default.

    ``forward(*inputs)`` takes what `inputs` returns and gives alpha, (N, 1, H, W) in 0..1, or a dict of tensors, one
    for each name in `outputs`. Its size is that of the picture.

    Attributes
    ----------
    stride : int
        px. Tiles of large pictures start at multiples of it: the product of all strides.
    context : int or None
        px. How far an output pixel sees: tiles overlap by twice as much. None where it sees the whole picture, which
        is then never cut into tiles.
    tile : int
        px. The longest side that it is given at once where nobody says otherwise.
    bounded : bool
        Whether nothing beyond the context counts at all, so that tiles may be cut to what is unknown.
    planes : int
        Of the image that it reads: RGB, and more of them where mattes lie beside it.
    any_size : bool
        Whether ``forward`` takes every height and width; if not, pictures are padded to multiples of the stride.
    needs_trimap : bool
        Whether a matte needs a trimap; if not, it is made of the picture alone.
    least_batch : int
        Crops that a step needs at least, for normalisation over them.
    outputs : tuple of str
        What it gives, and so which losses can train it: those of `losses.LOSSES` that compare one of these. A plain
        tensor is the first. A network without ``alpha`` gives no matte.
    encoder_url : str or None
        Where ``network.encoder = "download"`` finds weights for `load_encoder`: the name ends in the first digits
        of its SHA-256, as torch.hub has it.
    config : dict
        The arguments that build it again, of plain types. `registry.build_network` sets it.

    Examples
    --------
    >>> class Threshold(MattingNetwork):
    ...     stride, context, any_size = 1, 0, True
    ...     def forward(self, x: Tensor) -> Tensor:
    ...         return x[:, 4:5] + 0.5 * x[:, 5:6]
    >>> image, trimap = torch.zeros(1, 3, 1, 3, dtype=torch.uint8), torch.tensor([[[0, 128, 255]]], dtype=torch.uint8)
    >>> Threshold().matte(image, trimap)[0, 0]
    tensor([[0.0000, 0.5000, 1.0000]])
    """

    stride: ClassVar[int] = 32
    context: ClassVar[int | None] = None
    tile: ClassVar[int] = 1024  # MNet at full width then takes about 2 GB
    bounded: bool = False
    planes: ClassVar[int] = 3
    any_size: ClassVar[bool] = False
    needs_trimap: ClassVar[bool] = True
    least_batch: ClassVar[int] = 1
    outputs: ClassVar[tuple[str, ...]] = ("alpha",)
    encoder_url: str | None = None
    config: Mapping[str, Any]

    def inputs(self, image: Tensor, trimap: Tensor) -> Inputs:
        """Make what ``forward`` takes.

        Parameters
        ----------
        image : (N, 3, H, W) uint8 RGB
        trimap : (N, H, W) uint8 {0, 128, 255}

        Returns
        -------
        tuple of tensors
            By default one, `network_input`: the normalised picture and the trimap's three masks.
        """
        return (network_input(image, trimap),)

    def training_inputs(self, image: Tensor, trimap: Tensor) -> Inputs:
        """Make what ``forward`` takes in training; by default `inputs`. Draws come from torch's own generator."""
        return self.inputs(image, trimap)

    def covered(self, part: Tensor, inputs: Inputs) -> Tensor:
        """Cut a part of a batch, (N, C, H, W), to what the alpha of `training_inputs` covers: by default all."""
        return part

    def fuse(self, alpha: Tensor, trimap: Tensor) -> Tensor:
        """Join alpha, (N, 1, H, W) in 0..1, with what the trimap, (N, H, W) uint8, knows; by default `fuse`."""
        return fuse(alpha, trimap)

    def matte(self, image: Tensor, trimap: Tensor | None) -> Tensor:
        """Predict the fused alpha, (N, 1, H, W) in 0..1, of an image and a trimap as `inputs` takes them.

        Only a network that needs no trimap does without one.
        """
        if trimap is None:
            raise ValueError(f"{type(self).__name__} makes no matte without a trimap")
        return self.fuse(self.named_outputs(self(*self.inputs(image, trimap)))["alpha"], trimap)

    def survey(self, image: Tensor, trimap: Tensor) -> tuple[Tensor, ...]:
        """Look at a whole picture, before `matte_part` is given its tiles; by default there is nothing to look for.

        Returns
        -------
        tuple of (N, C, H/d, W/d) or (N, C, …) float
            Each with a ``d`` of its own that divides `stride`, so that a tile's share can be cut; or of all places.
        """
        return ()

    def matte_part(self, image: Tensor, trimap: Tensor, survey: tuple[Tensor, ...]) -> Tensor:
        """Do as `matte` with a part of a picture and its share of the `survey`; by default without."""
        return self.matte(image, trimap)

    @property
    def hinted(self) -> MattingNetwork:
        """The network that makes a matte where a trimap is given: itself, or a part of it."""
        return self

    def named_outputs(self, found: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
        """Name what ``forward`` gave."""
        return found if isinstance(found, dict) else {self.outputs[0]: found}

    def blocks(self) -> Iterator[nn.Module]:
        """Yield the parts whose features may be computed twice rather than kept; see `recompute`.

        By default the members of the network's lists and sequences of modules; a sequence of bare layers is one.
        """
        for part in self.children():
            if isinstance(part, nn.Sequential) and not any(list(member.children()) for member in part):
                yield part
            elif isinstance(part, (nn.ModuleList, nn.Sequential)):
                yield from part

    def random_weights_warnings(self) -> list[str]:
        """Say what may waste a week where training starts from random weights, a line each."""
        return []

    def onnx_model(self) -> bytes | None:
        """Write an ONNX file of `matte` where torch's exporter cannot; None leaves it to that. See `exports`."""
        return None

    def packaged_encoder(self) -> Path | None:
        """Find pre-trained weights in an installed package, where there is one: they go before `encoder_url`.

        Raises
        ------
        OSError
            The package is not installed.
        ValueError
            Its file is not the one that is known.
        """
        return None

    def load_encoder(self, path: Path) -> None:
        """Fill the encoder with pre-trained weights.

        Raises
        ------
        ValueError
            They do not fit, or this network knows of none.
        OSError
            The file cannot be read.
        """
        raise ValueError(f"{type(self).__name__} takes no pre-trained encoder; leave network.encoder out")


def trimap_masks(trimap: Tensor) -> Tensor:
    """Split a trimap into its three masks, in the order of `MASKS`.

    0 is background and 255 foreground; every other value, not only 128, is unknown, so exactly one mask holds anywhere.

    Parameters
    ----------
    trimap : (N, H, W) uint8

    Returns
    -------
    (N, 3, H, W) bool

    Raises
    ------
    ValueError
        Another shape or type.

    Examples
    --------
    >>> trimap_masks(torch.tensor([[[0, 255, 128]]], dtype=torch.uint8))[0, :, 0].int()
    tensor([[1, 0, 0],
            [0, 1, 0],
            [0, 0, 1]], dtype=torch.int32)
    """
    if trimap.dtype != torch.uint8 or trimap.ndim != 3:
        raise ValueError(f"a trimap is (N, H, W) uint8, but got {tuple(trimap.shape)} {trimap.dtype}")
    background, foreground = trimap == 0, trimap == 255
    return torch.stack((background, foreground, ~(background | foreground)), dim=1)


def network_input(image: Tensor, trimap: Tensor) -> Tensor:
    """Make the planes that most networks read, on the device that the bytes are on.

    Parameters
    ----------
    image : (N, 3, H, W) uint8 RGB
        Becomes channels 0..2, normalised by ImageNet's mean and deviation.
    trimap : (N, H, W) uint8 {0, 128, 255}
        Becomes channels 3..5, masks in the order of `MASKS`.

    Returns
    -------
    (N, 6, H, W) float32

    Raises
    ------
    ValueError
        Another shape or type, or sizes that differ.

    Examples
    --------
    >>> image, trimap = torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, 8, 8, dtype=torch.uint8)
    >>> network_input(image, trimap).shape
    torch.Size([1, 6, 8, 8])
    """
    if image.dtype != torch.uint8 or image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"an image is (N, 3, H, W) uint8, but got {tuple(image.shape)} {image.dtype}")
    masks = trimap_masks(trimap)
    if image.shape[0] != masks.shape[0] or image.shape[2:] != masks.shape[2:]:
        raise ValueError(f"image {tuple(image.shape)} and trimap {tuple(trimap.shape)} differ in number or size")
    return torch.cat((normalised(image), masks), dim=1)


def normalised(image: Tensor) -> Tensor:
    """Normalise a picture, (N, 3, H, W) uint8 RGB, by ImageNet's mean and deviation: (N, 3, H, W) float32.

    Examples
    --------
    >>> normalised(torch.full((1, 3, 1, 1), 124, dtype=torch.uint8)).flatten()
    tensor([0.0056, 0.1352, 0.3568])
    """
    # Plane by plane: a tensor of the three means would be sent to the device at each step, and wait for it.
    planes = [(image[:, i] / 255 - IMAGENET_MEAN[i]) / IMAGENET_STD[i] for i in range(3)]
    return torch.stack(planes, dim=1)


def fuse(alpha: Tensor, trimap: Tensor) -> Tensor:
    """Keep what the trimap already says: α_p = F + U·α_r (SHM, section 4.3).

    Parameters
    ----------
    alpha : (N, 1, H, W) float
        A network's α_r, in 0..1.
    trimap : (N, H, W) uint8 {0, 128, 255}

    Returns
    -------
    (N, 1, H, W) float
        α_p, in 0..1.

    Examples
    --------
    >>> fuse(torch.full((1, 1, 1, 3), 0.25), torch.tensor([[[0, 255, 128]]], dtype=torch.uint8))
    tensor([[[[0.0000, 1.0000, 0.2500]]]])
    """
    masks = trimap_masks(trimap)
    foreground, unknown = masks[:, 1:2], masks[:, 2:3]
    return foreground + unknown * alpha
