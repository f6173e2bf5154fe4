"""Weights: files of tensors, read without executing anything in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ...composer.base.errors import TrainingError
from .network import MattingNetwork

__all__ = ["load_encoder", "read_tensors"]


def read_tensors(path: Path, prefix: str = "") -> Mapping[str, object]:
    """Read a ``state_dict``: one that torch saved, or by its suffix a ``.safetensors`` file.

    Parameters
    ----------
    path : Path
    prefix : str
        Of a safetensors file only the keys that begin so are read.

    Returns
    -------
    Mapping[str, object]
        What is there; mostly, but not for certain, tensors.

    Raises
    ------
    ValueError
        It is damaged, or holds more than plain data.
    OSError
        It cannot be read.
    """
    with path.open("rb"):  # a file that is not there is told as that, whoever reads it
        pass
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys() if key.startswith(prefix)}  # noqa: SIM118
        state: object = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # readers of a damaged or hostile file raise whatever they stumble over
        # Their own words stay in the traceback: torch's advise to load the file all the same.
        raise ValueError(f"content that is damaged, or more than plain tensors ({type(error).__name__})") from error
    if not isinstance(state, Mapping):
        raise ValueError(f"a {type(state).__name__} where a state_dict was expected")
    return state


def load_encoder(network: MattingNetwork, source: str) -> None:
    """Load an encoder's weights.

    Parameters
    ----------
    network : MattingNetwork
    source : str
        ``random`` leaves it as it is, ``download`` fetches what the network names, anything else is a file.

    Raises
    ------
    TrainingError
        There are none, they cannot be read or had, or do not fit.
    """
    if source == "random":
        return
    try:
        network.load_encoder(_download(network) if source == "download" else Path(source))
    except OSError as error:
        raise TrainingError(
            f"network.encoder = {source}: cannot be had ({error}); fetch {network.encoder_url} elsewhere and give its"
            " path, or train from random weights with --set network.encoder=random"
        ) from None
    except ValueError as error:
        raise TrainingError(f"network.encoder: {error}") from None


def _download(network: MattingNetwork) -> Path:
    url = network.encoder_url
    if url is None:
        raise ValueError(f"{type(network).__name__} knows of no weights to download; give a file, or random")
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    name = url.rpartition("/")[2]
    if not (folder / name).exists():
        folder.mkdir(parents=True, exist_ok=True)
        digits = Path(name).stem.rpartition("-")[2]
        torch.hub.download_url_to_file(url, str(folder / name), hash_prefix=digits, progress=False)
    return folder / name
