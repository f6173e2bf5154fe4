"""Checkpoint: a training's state in one file, written whole or not at all, read without executing anything."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..composer.errors import TrainingError
from .mnet import MNet

FORMAT = "matting-compose/checkpoint"
VERSION = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors and plain types: to a temporary name, made durable, then renamed.

    Raises
    ------
    TrainingError : it cannot be written; what was there before is still there
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, "version": VERSION, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch's writer wraps a full disk in a RuntimeError
        raise TrainingError(f"{path}: cannot be written ({error}); make room, then go on with --resume") from None
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU's memory, with ``weights_only=True``.

    Raises
    ------
    TrainingError : it is missing, truncated, foreign, of a newer version, or holds more than tensors and plain types
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:  # torch stores its tensors as they are: no bomb can hide in them
            declared = sum(entry.file_size for entry in archive.infolist())
        if declared > path.stat().st_size:
            raise TrainingError(f"{path}: not a checkpoint: its content is compressed, to be {declared:,} bytes")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such checkpoint") from None
    except TrainingError:
        raise
    except Exception as error:  # readers of a damaged or hostile file raise whatever they stumble over
        raise TrainingError(
            f"{path}: damaged, truncated, or no checkpoint ({type(error).__name__}); expected a file that matting-train"
            " wrote, such as last.pt or best.pt"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise TrainingError(f"{path}: holds no checkpoint of matting-train; expected its last.pt or best.pt")
    if not isinstance(state.get("version"), int) or state["version"] > VERSION:
        raise TrainingError(f"{path}: of version {state.get('version')}; this program reads up to {VERSION}: update it")
    return state


def load_network(path: str | Path) -> MNet:
    """Build the network that a checkpoint holds, its averaged weights where it has them, ready to predict.

    Raises
    ------
    TrainingError : as `load_checkpoint`, or the weights do not fit the network
    """
    state = load_checkpoint(path)
    try:
        network = MNet(**state["network"])
        network.load_state_dict(state["ema"] or state["model"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise TrainingError(f"{path}: its weights do not fit its network ({error})") from None
    return network.eval()
