"""Export: a network as ONNX, proven against torch."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...composer.base.errors import TrainingError
from ...composer.base.files import write_file
from ...composer.base.packages import require_packages
from .network import MattingNetwork

__all__ = ["TOLERANCE", "Parity", "check_onnx", "export_onnx"]

OPSET: Final = 18


TOLERANCE: Final = 1e-4  # of alpha in 0..1: a fortieth of a level of 255


SIZES: Final = ((16, 16), (64, 48), (33, 95), (1, 1), (130, 17))  # multiples of 16, odd ones, a single pixel


@dataclass(frozen=True)
class Parity:
    """How far an export is from torch.

    Attributes
    ----------
    pictures : int
        Compared, of several sizes.
    largest, mean : float
        Absolute difference of alpha, in 0..1.
    """

    pictures: int
    largest: float
    mean: float


def export_onnx(network: MattingNetwork, path: Path) -> None:
    """Write a network as ONNX, opset 18, with its normalisation and fusion.

    Inputs ``image`` (N, 3, H, W) uint8 RGB and ``trimap`` (N, H, W) uint8 {0, 128, 255}, of any size that the network
    takes; output ``alpha`` (N, 1, H, W) float32 in 0..1.

    Raises
    ------
    TrainingError
        onnx is not installed, or the network cannot be written so.
    BuildError
        The file cannot be written.
    """
    require_packages("onnx")
    write_file(path, network.onnx_model() or _trace(network))


class _Matte(nn.Module):
    """A network from bytes to fused alpha, as torch's exporter wants it."""

    def __init__(self, network: MattingNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, trimap: Tensor) -> Tensor:
        """See `MattingNetwork.matte`."""
        return self.network.matte(image, trimap)


def _trace(network: MattingNetwork) -> bytes:
    """Let torch write the graph: its exporter that traces, for the other one needs one more package."""
    side = 2 * network.stride
    image, trimap = torch.zeros(1, 3, side, side, dtype=torch.uint8), torch.full((1, side, side), 128).byte()
    sizes = {"image": {0: "batch", 2: "height", 3: "width"}, "trimap": {0: "batch", 1: "height", 2: "width"}}
    file = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is deprecated, and checks of shapes become constants
            torch.onnx.export(
                _Matte(network).eval(), (image, trimap), file,  # type: ignore[arg-type]
                input_names=["image", "trimap"], output_names=["alpha"],
                opset_version=OPSET, dynamo=False, dynamic_axes=sizes | {"alpha": sizes["image"]},
            )  # fmt: skip
    except Exception as error:  # whatever an operator that ONNX lacks makes it stumble over
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainingError(
            f"{type(network).__name__} cannot be written as ONNX ({reason}); write its weights as .safetensors"
        ) from error
    return file.getvalue()


def check_onnx(network: MattingNetwork, path: Path, sizes: tuple[tuple[int, int], ...] = SIZES) -> Parity:
    """Compare an export in onnxruntime with torch, on random pictures of several sizes.

    Raises
    ------
    TrainingError
        onnxruntime is not installed, or alphas differ by more than `TOLERANCE`.
    """
    require_packages("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # pictures are small, and threads that wait in loops take the cores from others
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rng, differences = np.random.default_rng(0), []
    for height, width in sizes:
        if not network.any_size:
            height, width = (max(1, -(-side // network.stride)) * network.stride for side in (height, width))
        image = rng.integers(0, 256, (1, 3, height, width), dtype=np.uint8)
        trimap = rng.choice(np.array([0, 128, 128, 128, 255], np.uint8), (1, height, width))
        expected = _fused(network, image, trimap)
        (alpha,) = session.run(["alpha"], {"image": image, "trimap": trimap})
        differences.append(np.abs(alpha - expected).ravel())
    every = np.concatenate(differences)
    parity = Parity(len(sizes), float(every.max()), float(every.mean()))
    if not parity.largest <= TOLERANCE:
        raise TrainingError(f"{path}: alphas differ from torch's by up to {parity.largest:.2g}; do not use this export")
    return parity


@torch.inference_mode()
def _fused(network: MattingNetwork, image: NDArray[np.uint8], trimap: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(network.matte(torch.from_numpy(image), torch.from_numpy(trimap)).numpy(), np.float32)
