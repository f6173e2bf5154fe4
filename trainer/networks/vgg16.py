"""VGG16: torchvision's weights for an encoder of its shape, read without executing anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import torch
from torch import Tensor

from ...composer.base.errors import TrainingError

VGG16_BN: Final = "https://download.pytorch.org/models/vgg16_bn-6c64b313.pth"
_SAFETENSORS_HEADER: Final = 100_000_000  # bytes: the format's own limit
_SAFETENSORS_TYPES: Final = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
}


def _not_vgg16_bn(path: Path, found: str) -> str:
    return (
        f"{path} does not hold torchvision's vgg16_bn weights. Expected a state_dict with 'features.0.weight' "
        f"(64, 3, 3, 3) to 'features.41.running_var' (512,); found: {found}. Take {VGG16_BN}, or train without a "
        "pre-trained encoder"
    )


def read_encoder_state(path: Path) -> Mapping[str, object]:
    """Read a state_dict without executing anything in the file."""
    with path.open("rb") as file:
        try:
            if path.suffix == ".safetensors":
                state: object = _read_safetensors(file)
            else:
                state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # readers of a damaged or hostile file raise whatever they stumble over
            # Their own words stay in the traceback: torch's advise to load the file all the same.
            found = f"content that is damaged, or more than plain tensors ({type(error).__name__})"
            raise ValueError(_not_vgg16_bn(path, found)) from error
    if not isinstance(state, Mapping):
        raise ValueError(_not_vgg16_bn(path, f"a {type(state).__name__} where a state_dict was expected"))
    return state


def _read_safetensors(file: BinaryIO) -> dict[str, Tensor]:
    """Read the ``features`` of a safetensors file: the header's length (8 bytes), the header (JSON), the values."""
    length = int.from_bytes(file.read(8), "little")
    if length > _SAFETENSORS_HEADER:
        raise ValueError(f"a header of {length} bytes")
    header = json.loads(file.read(length))
    tensors: dict[str, Tensor] = {}
    for key, entry in header.items():
        if key.startswith("features."):
            start, stop = entry["data_offsets"]
            file.seek(8 + length + start)
            flat = torch.frombuffer(bytearray(file.read(stop - start)), dtype=_SAFETENSORS_TYPES[entry["dtype"]])
            tensors[key] = flat.reshape(entry["shape"])
    return tensors


def fitting_state(state: Mapping[str, object], targets: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the tensors of ``state`` that fill ``targets``, or say what keeps them from it."""
    fitting: dict[str, Tensor] = {}
    misfits = [f"{k!r}, which vgg16_bn lacks" for k in state if _is_feature(k) and k not in targets]
    for key, target in targets.items():
        value = state.get(key)
        if value is None:
            misfits.append(f"no {key!r} among its {len(state)} keys")
        elif not isinstance(value, Tensor):
            misfits.append(f"{key!r} as a {type(value).__name__}")
        elif value.shape != target.shape:
            misfits.append(f"{key!r} {tuple(value.shape)} instead of {tuple(target.shape)}")
        elif not value.is_floating_point() or not value.isfinite().all():
            misfits.append(f"{key!r} with values that are not finite floating-point numbers ({value.dtype})")
        else:
            fitting[key] = value
    if misfits:
        more = f"; and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise ValueError(_not_vgg16_bn(path, "; ".join(misfits[:3]) + more))
    return fitting


def _is_feature(key: object) -> bool:
    # The counter of batches seen is not in torchvision's own file, and nothing here depends on it.
    return isinstance(key, str) and key.startswith("features.") and not key.endswith("num_batches_tracked")


class WithEncoder(Protocol):
    """A network whose encoder takes weights from a file."""

    def load_encoder(self, path: Path) -> None:
        """Fill the encoder. Raise ValueError where the file does not fit."""


def load_encoder(network: WithEncoder, source: str) -> None:
    """Load an encoder's weights: ``random``, ``vgg16_bn`` or a file."""
    if source == "random":
        return
    try:
        path = Path(source)
        if source == "download":
            folder = Path(torch.hub.get_dir()) / "checkpoints"
            path = folder / VGG16_BN.rpartition("/")[2]
            if not path.exists():
                folder.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(VGG16_BN, str(path), hash_prefix="6c64b313", progress=False)
        network.load_encoder(path)
    except OSError as error:
        raise TrainingError(
            f"network.encoder = {source}: cannot be had ({error}); fetch {VGG16_BN} elsewhere and give its path, or"
            " train from random weights with --set network.encoder=random"
        ) from None
    except ValueError as error:
        raise TrainingError(f"network.encoder: {error}") from None
