"""Checkpoint: a training's state in one file, written whole or not at all, read without executing anything in it."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

import torch
from torch import Tensor

from ...composer.base.errors import TrainingError
from ...composer.base.files import atomic_write, write_file
from ...composer.base.packages import require_packages
from .mnet import MNet

__all__ = [
    "FORMAT",
    "VERSION",
    "export_safetensors",
    "load_checkpoint",
    "load_network",
    "load_safetensors",
    "save_checkpoint",
]

FORMAT: Final = "matting-compose/checkpoint"


VERSION: Final = 1


# What a training needs to go on, beside the network's own tensors.
_KEPT: Final[dict[str, type | tuple[type, ...]]] = {
    "step": int, "judged": int, "seconds": (int, float), "config": dict, "crops": int, "plan_sha256": str,
    "composites": int, "model": Mapping, "optimiser": dict,
}  # fmt: skip


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors and plain types: to a temporary name, made durable, then renamed.

    Raises
    ------
    TrainingError : it cannot be written; what was there before is still there
    """
    try:
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            torch.save({"format": FORMAT, "version": VERSION, **state}, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        # torch's writer stumbles over what a full disk leaves it, and raises that in the place of the reason.
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise TrainingError(f"{path}: cannot be written ({reason}); make room, then go on with --resume") from None


def load_checkpoint(path: Path) -> Mapping[str, Any]:
    """Read all that a training saved, to go on with it.

    Raises
    ------
    TrainingError : it is missing, truncated, foreign, of a newer version, or holds more than tensors and plain types
    """
    try:
        document = _read(path)
        _check_version(document, path)
        lacking = [key for key, kind in _KEPT.items() if not isinstance(document.get(key), kind)]
        if lacking:
            raise ValueError(
                f"{path}: a network without its training ('{lacking[0]}' is not there); give a run's folder"
            )
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read ({error.strerror}); is --out the run's folder?") from None
    except ValueError as error:
        raise TrainingError(str(error)) from error
    return document


def load_network(path: str | Path) -> MNet:
    """Rebuild the network of a checkpoint, ready to predict: on the CPU, in evaluation mode.

    The averaged weights (``ema``) are taken where training kept some. Nothing in the file is executed, and no more
    memory is taken than the file has bytes, whatever it declares.

    Raises
    ------
    ValueError : the file is damaged, or is no checkpoint of this program, or of a newer version
    OSError : it cannot be read
    """
    path = Path(path)
    document = _read(path)
    _check_version(document, path)
    state = document.get("ema") or document.get("model")
    try:
        with torch.device("meta"):  # takes no memory, however large a network the file declares
            network = MNet(**document["network"])
        network.load_state_dict(_tensors(state), assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: the checkpoint's network cannot be rebuilt ({reason}); fetch it again") from error
    return network.eval()


def _read(path: Path) -> Mapping[str, Any]:
    with path.open("rb") as file:
        _check_records(file, path)
        try:
            document = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # readers of a damaged or hostile file raise whatever they stumble over
            # Their own words stay in the traceback: torch's advise to load the file all the same.
            raise ValueError(
                f"{path}: no checkpoint: the file is damaged, or holds more than plain data ({type(error).__name__});"
                " give the file that training wrote"
            ) from error
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        raise ValueError(f"{path}: no checkpoint of matting-compose; give the file that training wrote")
    if _tensor_bytes(document) > path.stat().st_size:  # a stride of 0 makes any size of nothing
        raise ValueError(
            f"{path}: no checkpoint: its tensors are larger than the file; give the file that training wrote"
        )
    return document


def _tensor_bytes(value: object) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return sum(map(_tensor_bytes, parts))


def _check_records(file: IO[bytes], path: Path) -> None:
    """Compare every record of the archive with its CRC-32, which torch writes but does not read."""
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            if any(record.compress_type != zipfile.ZIP_STORED for record in records):
                raise ValueError("its records are compressed, which torch never does")
            if sum(record.file_size for record in records) > path.stat().st_size:
                raise ValueError("its records are larger than the file")
            if len(set(archive.namelist())) < len(records):
                raise ValueError("a record is there twice")
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"its record {damaged} is not what was written")
    except Exception as error:  # whatever a damaged or hostile file makes it stumble over, as above
        raise ValueError(f"{path}: no checkpoint: the file is damaged ({error}); give one that is whole") from error
    file.seek(0)


def _check_version(document: Mapping[str, Any], path: Path) -> None:
    version = document.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise ValueError(f"{path}: of checkpoint version {version!r}; this program reads up to {VERSION}: update it")


def _tensors(state: object) -> dict[str, Tensor]:
    """Check that a state is one of float tensors (and counters) that are really in the file; make them float32."""
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError("it holds no weights")
    for key, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"'{key}' holds values that are not finite")
    return {k: v.float().contiguous() if v.is_floating_point() else v for k, v in state.items()}


def export_safetensors(network: MNet, path: Path) -> None:
    """Write a network's weights, under the keys of its ``state_dict``, and its arguments as metadata ``network``, JSON.

    Raises
    ------
    TrainingError : safetensors is not installed, or the file cannot be written
    """
    require_packages("safetensors")
    from safetensors.torch import save

    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    write_file(path, save(state, {"format": "pt", "network": json.dumps(network.config)}))


def load_safetensors(path: Path) -> MNet:
    """Rebuild the network of `export_safetensors`, on the CPU, in evaluation mode.

    Raises
    ------
    TrainingError : safetensors is not installed
    ValueError : the file is damaged, or not one of ours
    OSError : it cannot be read
    """
    require_packages("safetensors")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            config = json.loads((file.metadata() or {})["network"])
            with torch.device("meta"):  # takes no memory, however large a network the file declares
                network = MNet(**config)
            network.load_state_dict({key: file.get_tensor(key) for key in file.keys()}, assign=True)  # noqa: SIM118
    except OSError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        raise ValueError(f"{path}: not the weights of an MNet, or damaged ({reason}); export them again") from None
    return network.float().eval()
