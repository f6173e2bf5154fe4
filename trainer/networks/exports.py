"""Exports: a network for other programs, each file run beside torch before it is written."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...composer.base.errors import TrainingError
from ...composer.base.files import atomic_write, write_file
from ...composer.base.packages import require_packages
from .checkpoint import export_safetensors, load_safetensors
from .network import MattingNetwork

__all__ = ["KINDS", "TOLERANCE", "Kind", "Parity", "export_network"]

Kind = Literal["onnx", "safetensors", "torchscript"]


KINDS: Final[dict[str, Kind]] = {".onnx": "onnx", ".safetensors": "safetensors", ".ts": "torchscript"}


OPSET: Final = 18


TOLERANCE: Final = 1e-4  # of alpha in 0..1: a fortieth of a level of 255


HALF_TOLERANCE: Final = 0.02  # five levels: float16 has eleven bits, and errors add up over a network's layers


# Batch, height, width: multiples of 16, odd ones, a single pixel, several pictures.
SIZES: Final = ((1, 16, 16), (2, 64, 48), (1, 33, 95), (3, 1, 1), (2, 130, 17))


Given = NDArray[np.uint8]


Run = Callable[[Given, Given | None], NDArray[np.float32]]  # image and trimap, which not every network takes, to alpha


@dataclass(frozen=True)
class Parity:
    """How far an export is from torch.

    Attributes
    ----------
    pictures : int
        Compared, of several sizes, in batches of 1 to 3.
    largest, mean : float
        Absolute difference of alpha, in 0..1.
    """

    pictures: int
    largest: float
    mean: float


def export_network(network: MattingNetwork, path: str | Path, kind: Kind | None = None, half: bool = False) -> Parity:
    """Write a network with its normalisation and fusion for other programs, if they then give the same alphas.

    ONNX (opset 18) and TorchScript take ``image`` (N, 3, H, W) uint8 RGB and ``trimap`` (N, H, W) uint8 {0, 128, 255},
    of any number and size that the network takes, and give ``alpha`` (N, 1, H, W) float32 in 0..1. Safetensors holds
    the weights under the keys of the ``state_dict``, and what `load_network` needs to build the network again.

    Parameters
    ----------
    network : MattingNetwork
        In evaluation mode, on the CPU.
    path : str or Path
    kind : {"onnx", "safetensors", "torchscript"}, optional
        By default what the path ends in: .onnx, .safetensors or .ts.
    half : bool
        Keep weights, and where the program can do it computations, in float16: half the size. An unpooling decoder
        loses the places of its maxima then, and is refused as ONNX.

    Raises
    ------
    TrainingError
        The network cannot be written so, or its alphas would differ by more than `TOLERANCE`.
    MattingComposeError
        onnx or onnxruntime is not installed.
    BuildError
        The file cannot be written.
    ValueError
        The path ends otherwise, and there is no `kind`; or half of TorchScript.

    Examples
    --------
    >>> from matting_compose.trainer import MNet
    >>> parity = export_network(MNet(width=0.125).eval(), "mnet.safetensors")
    >>> parity.pictures, parity.largest
    (9, 0.0)
    """
    path = Path(path)
    if kind is None and path.suffix not in KINDS:
        raise ValueError(f"{path}: expected a name that ends in {', '.join(KINDS)}, or its kind")
    kind = kind or KINDS[path.suffix]
    tolerance = HALF_TOLERANCE if half else TOLERANCE
    if kind == "safetensors":
        with atomic_write(path) as temporary:  # no name before it is compared
            export_safetensors(network, temporary, half)
            return _compare(network, _run_network(load_safetensors(temporary)), tolerance)
    if kind == "onnx":
        require_packages("onnx", "onnxruntime")
    elif half:
        raise ValueError("TorchScript has no float16 on CPUs: call .half() on the module where it is to run")
    reasons = []
    for write in _writers(network, kind):
        try:
            data = _halved(write(network)) if half else write(network)
            parity = _compare(network, _run_onnx(data) if kind == "onnx" else _run_torchscript(data), tolerance)
        except Exception as error:  # whatever an operator that is lacking makes other programs stumble over
            reasons.append((str(error).strip().splitlines() or [type(error).__name__])[0])
            continue
        write_file(path, data)
        return parity
    raise TrainingError(
        f"{type(network).__name__} cannot be written as {kind} ({'; then: '.join(reasons)}); write its weights as"
        " safetensors"
    )


def _writers(network: MattingNetwork, kind: Kind) -> tuple[Callable[[MattingNetwork], bytes], ...]:
    """Choose who writes: the network itself where it can, else torch by tracing, then by its slower exporter."""
    if kind == "torchscript":
        return (_torchscript,)
    own = network.onnx_model()
    return (_traced_onnx, _programmed_onnx) if own is None else (lambda _: own,)


class _Matte(nn.Module):
    """A network from bytes to fused alpha, as exporters want it."""

    def __init__(self, network: MattingNetwork) -> None:
        super().__init__()
        self.network = network
        self.eval()  # exporters leave all of it in the mode of the outermost

    def forward(self, image: Tensor, trimap: Tensor | None = None) -> Tensor:
        """See `MattingNetwork.matte`."""
        return self.network.matte(image, trimap)


def _example(network: MattingNetwork) -> tuple[Tensor, ...]:
    side = 2 * network.stride
    shape = (2, side, side + network.stride)
    image = torch.zeros(2, 3, *shape[1:], dtype=torch.uint8)
    return (image, torch.full(shape, 128, dtype=torch.uint8)) if network.needs_trimap else (image,)


def _traced_onnx(network: MattingNetwork) -> bytes:
    """Let torch trace the graph: in a second, and right unless the code decides by sizes."""
    file = io.BytesIO()
    sizes = {"image": {0: "batch", 2: "height", 3: "width"}, "trimap": {0: "batch", 1: "height", 2: "width"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and checks of shapes become constants
        torch.onnx.export(
            _Matte(network), _example(network), file,  # type: ignore[arg-type]
            input_names=["image", "trimap"], output_names=["alpha"],
            opset_version=OPSET, dynamo=False, dynamic_axes=sizes | {"alpha": sizes["image"]},
        )  # fmt: skip
    return file.getvalue()


def _programmed_onnx(network: MattingNetwork) -> bytes:
    """Let torch's newer exporter do it, which follows sizes through the code, takes a minute, and one more package."""
    require_packages("onnxscript")
    any_size = torch.export.Dim.DYNAMIC
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            _Matte(network), _example(network), dynamo=True, verbose=False, opset_version=OPSET,
            input_names=["image", "trimap"], output_names=["alpha"],
            dynamic_shapes={"image": dict.fromkeys((0, 2, 3), any_size), "trimap": dict.fromkeys((0, 1, 2), any_size)},
        )  # fmt: skip
    return bytes(program.model_proto.SerializeToString())


def _halved(model: bytes) -> bytes:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values below float16's least become that
        return bytes(convert_float_to_float16(onnx.load_from_string(model), keep_io_types=True).SerializeToString())


def _torchscript(network: MattingNetwork) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(_Matte(network), _example(network), check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, file)
    return file.getvalue()


def _run_onnx(data: bytes) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # pictures are small, and threads that wait in loops take the cores from others
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def run(image: Given, trimap: Given | None) -> NDArray[np.float32]:
        given = {"image": image} | ({} if trimap is None else {"trimap": trimap})
        return np.asarray(session.run(["alpha"], given)[0], np.float32)

    return run


def _run_torchscript(data: bytes) -> Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.load(io.BytesIO(data))  # type: ignore[no-untyped-call]
    return lambda *given: _as_array(module(*(torch.from_numpy(part) for part in given if part is not None)))


def _run_network(network: MattingNetwork) -> Run:
    return lambda image, trimap: _as_array(
        network.matte(torch.from_numpy(image), None if trimap is None else torch.from_numpy(trimap))
    )


def _as_array(alpha: Tensor) -> NDArray[np.float32]:
    return np.asarray(alpha.detach().numpy(), np.float32)


@torch.no_grad()
def _compare(network: MattingNetwork, run: Run, tolerance: float) -> Parity:
    """Compare an export with torch on random pictures."""
    expect, differences = _run_network(network), []
    for image, trimap in _pictures(network):
        differences.append(np.abs(run(image, trimap) - expect(image, trimap)).ravel())
    every = np.concatenate(differences)
    parity = Parity(sum(count for count, *_ in SIZES), float(every.max()), float(every.mean()))
    if not parity.largest <= tolerance:
        raise TrainingError(f"its alphas differ from torch's by up to {parity.largest:.2g}")
    return parity


def _pictures(network: MattingNetwork) -> Iterator[tuple[Given, Given | None]]:
    rng = np.random.default_rng(0)
    for count, *sides in SIZES:
        if not network.any_size:
            sides = [-(-side // network.stride) * network.stride for side in sides]
        image = rng.integers(0, 256, (count, 3, *sides), dtype=np.uint8)
        trimap = rng.choice(np.array([0, 128, 128, 128, 255], np.uint8), (count, *sides))
        yield image, trimap if network.needs_trimap else None
