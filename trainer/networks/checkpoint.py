"""Checkpoint: a training's state in one file, written whole or not at all, read without executing anything in it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from ...composer.base.errors import TrainingError
from ...composer.base.files import atomic_write, open_regular, parse_json, write_file
from .network import MattingNetwork
from .recognise import find_checkpoint
from .registry import describe_network, rebuild_network
from .weights import read_saved

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


VERSION: Final = 3  # 1 named no network: there was one; 2 was trained on one dataset


MOST_PARTS: Final = 10**6  # of a document: optimisers keep a few for each tensor


# What a training needs to go on, beside the network's own tensors.
_KEPT: Final[dict[str, type | tuple[type, ...]]] = {
    "step": int, "judged": int, "seconds": (int, float), "config": dict, "crops": int, "datasets": list,
    "model": Mapping, "optimiser": dict,
}  # fmt: skip


# And of each dataset that it was trained on.
_DATASET: Final[dict[str, type]] = {"plan_sha256": str, "composites": int, "share": int}


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors and plain types: to a temporary name, made durable, then renamed.

    Raises
    ------
    TrainingError
        It cannot be written; what was there before is still there.
    """
    try:
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            torch.save({"format": FORMAT, "version": VERSION, **state}, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        # torch's writer stumbles over what a full disk leaves it, and raises that in the place of the reason.
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise TrainingError(f"{path}: cannot be written ({reason}); make room") from None


def load_checkpoint(path: Path) -> Mapping[str, Any]:
    """Read all that a training saved, to go on with it.

    Raises
    ------
    TrainingError
        It is missing, truncated, foreign, of a newer version, or holds more than tensors and plain types.
    """
    try:
        document = _read(find_checkpoint(path))
        _check_version(document, path)
        if "plan_sha256" in document:
            document = {**document, "datasets": [{key: document.get(key) for key in _DATASET} | {"share": 1}]}
        lacking = [key for key, kind in _KEPT.items() if not isinstance(document.get(key), kind)]
        if lacking:
            raise ValueError(
                f"{path}: a network without its training ('{lacking[0]}' is not there); give a run's folder"
            )
        for one in document["datasets"]:
            if not isinstance(one, dict) or not all(isinstance(one.get(key), kind) for key, kind in _DATASET.items()):
                raise ValueError(
                    f"{path}: what it was trained on cannot be made out; give the file that training wrote"
                )
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read ({error.strerror}); is --out the run's folder?") from None
    except ValueError as error:
        raise TrainingError(str(error)) from error
    return document


def load_network(path: str | Path) -> MattingNetwork:
    """Build the network of a checkpoint or of a ``.safetensors`` export again, on the CPU, in evaluation mode.

    The averaged weights (``ema``) are taken where training kept some. Nothing in the file is executed, and no more
    memory is taken than the file has bytes, whatever it declares. A network that is named by its path is built only
    if that is a ``torch.nn.Module`` of a module that can be imported here; see `registry.network_class`.

    Parameters
    ----------
    path : str or Path
        What `matting-train` or `matting-export` wrote; a run's folder means its best.pt.

    Raises
    ------
    ValueError
        The file is damaged, is none of this program's, or of a newer version, or its network is not known here.
    OSError
        It cannot be read.

    Examples
    --------
    >>> from matting_compose.trainer import MNet
    >>> export_safetensors(MNet(width=0.125, norm="group"), Path("mnet.safetensors"))
    >>> load_network("mnet.safetensors").config["norm"]
    'group'
    """
    path = find_checkpoint(Path(path))
    return load_safetensors(path) if path.suffix == ".safetensors" else _rebuild(path, *_read_network(path))


def load_safetensors(path: Path) -> MattingNetwork:
    """Build the network of a ``.safetensors`` export again, whatever the file is called; see `load_network`."""
    return _rebuild(path, *_read_safetensors(path))


def _rebuild(path: Path, description: object, state: object) -> MattingNetwork:
    try:
        return rebuild_network(description, _tensors(state))
    except ValueError as error:
        raise ValueError(f"{path}: the network cannot be rebuilt ({error}); fetch it again") from error


def _read_network(path: Path) -> tuple[object, object]:
    document = _read(path)
    _check_version(document, path)
    averaged = document.get("ema")
    return document.get("network"), document.get("model") if averaged is None else averaged


def _read(path: Path) -> Mapping[str, Any]:
    try:
        document = read_saved(path)
    except ValueError as error:
        raise ValueError(f"{path}: no checkpoint: found {error}; give the file that training wrote") from error
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        raise ValueError(f"{path}: no checkpoint of matting-compose; give the file that training wrote")
    if _tensor_bytes(document, path) > path.stat().st_size:  # a stride of 0 makes any size of nothing
        raise ValueError(
            f"{path}: no checkpoint: its tensors are larger than the file; give the file that training wrote"
        )
    return document


def _tensor_bytes(document: object, path: Path) -> int:
    """Sum up the tensors of a document; each part is visited once, however often, and in whatever, it stands."""
    total, seen, waiting = 0, set[int](), [document]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            total += value.numel() * value.element_size()
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, (list, tuple)):
            waiting += value
        if len(seen) > MOST_PARTS:
            raise ValueError(f"{path}: no checkpoint: it has more than {MOST_PARTS:,} parts; give what training wrote")
    return total


def _check_version(document: Mapping[str, Any], path: Path) -> None:
    version = document.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise ValueError(f"{path}: of checkpoint version {version!r}; this program reads up to {VERSION}: update it")


def _tensors(state: object) -> dict[str, Tensor]:
    """Check that a state is one of float tensors (and counters) that are really in the file; make them float32."""
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError("it holds no weights")
    for key, value in state.items():
        if value.is_complex() or value.layout != torch.strided:
            raise ValueError(f"'{key}' is no tensor of plain numbers")
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"'{key}' holds values that are not finite")
    return {k: v.float().contiguous() if v.is_floating_point() else v for k, v in state.items()}


def export_safetensors(network: MattingNetwork, path: Path, half: bool = False) -> None:
    """Write a network's weights under the keys of its ``state_dict``, and how to build it, as JSON, in the metadata.

    With `half` they are rounded to float16; `load_network` makes float32 of them again.

    Raises
    ------
    BuildError
        The file cannot be written.
    """
    from safetensors.torch import save

    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    if half:
        state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    write_file(path, save(state, {"format": "pt", "network": json.dumps(describe_network(network))}))


def _read_safetensors(path: Path) -> tuple[object, dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    open_regular(path).close()
    try:
        with safe_open(path, framework="pt") as file:
            description = parse_json((file.metadata() or {})["network"].encode())
            return description, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        raise ValueError(f"{path}: not a network's weights, or damaged ({reason}); export them again") from None
