"""Checkpoint: what training saves, read back without executing anything in the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from .mnet import MNet

__all__ = ["FORMAT", "VERSION", "load_network"]

FORMAT: Final = "matting-compose/checkpoint"
VERSION: Final = 1


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
    version = document.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise ValueError(f"{path}: of checkpoint version {version!r}; this program reads up to {VERSION}: update it")
    state = document.get("ema") or document.get("model")
    try:
        with torch.device("meta"):  # takes no memory, however large a network the file declares
            network = MNet(**document["network"])
        network.load_state_dict(_tensors(state, path), assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: the checkpoint's network cannot be rebuilt ({reason}); fetch it again") from error
    return network.eval()


def _read(path: Path) -> Mapping[str, Any]:
    with path.open("rb") as file:
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
    return document


def _tensors(state: object, path: Path) -> dict[str, Tensor]:
    """Check that a state is one of float tensors (and counters) that are really in the file; make them float32."""
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError("it holds no weights")
    if sum(value.numel() * value.element_size() for value in state.values()) > path.stat().st_size:
        raise ValueError("its tensors are larger than the file")
    for key, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"'{key}' holds values that are not finite")
    return {k: v.float().contiguous() if v.is_floating_point() else v for k, v in state.items()}
