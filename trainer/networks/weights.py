"""Weights: files of tensors, read without executing anything in them."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from ...composer.base.errors import TrainingError
from ...composer.base.files import open_regular
from .network import MattingNetwork

__all__ = ["load_encoder", "read_fitting", "read_saved", "read_tensors"]


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
    state: object
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        open_regular(path).close()
        try:
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys() if key.startswith(prefix)}  # noqa: SIM118
        except (SafetensorError, RuntimeError, ValueError) as error:
            raise ValueError(f"content that is damaged ({type(error).__name__})") from error
    state = read_saved(path)
    if not isinstance(state, Mapping):
        raise ValueError(f"a {type(state).__name__} where a state_dict was expected")
    return state


def read_saved(path: Path) -> object:
    """Read what torch saved: tensors and plain types. Nothing in it is executed.

    Raises
    ------
    ValueError
        It is damaged, or holds more.
    OSError
        It cannot be read.
    """
    with open_regular(path) as file:
        try:
            if zipfile.is_zipfile(file):  # else it is as torch wrote before 1.6
                _check_records(file)
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # readers of a damaged or hostile file raise whatever they stumble over
            # Their own words stay in the traceback: torch's advise to load the file all the same.
            reason = str(error) if isinstance(error, _DamageError) else type(error).__name__
            raise ValueError(f"content that is damaged, or more than plain data ({reason})") from error


class _DamageError(ValueError):
    """What is wrong with an archive's records."""


def _check_records(file: IO[bytes]) -> None:
    """Compare every record of the archive with its CRC-32, which torch writes but does not read."""
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise _DamageError("its records are compressed, which torch never does")
        if sum(record.file_size for record in records) > file.seek(0, os.SEEK_END):
            raise _DamageError("its records are larger than the file")
        if len(set(archive.namelist())) < len(records):
            raise _DamageError("a record is there twice")
        if (damaged := archive.testzip()) is not None:
            raise _DamageError(f"its record {damaged} is not what was written")


def read_fitting(
    path: Path, targets: Mapping[str, Tensor], what: str, advice: str, belongs: Callable[[str], bool]
) -> dict[str, Tensor]:
    """Read weights that are published, all that fills `targets`, every key checked.

    Parameters
    ----------
    path : Path
    targets : Mapping[str, Tensor]
        The tensors to be filled, by their keys in the file.
    what : str
        Whose weights they are, for messages: ``torchvision's vgg16_bn``.
    advice : str
        Where to get them.
    belongs : Callable[[str], bool]
        Whether a key of the file is one of those that must be among `targets`.

    Raises
    ------
    ValueError
        Something is missing, of another shape or type, or not finite; or the file holds no such weights.
    OSError
        It cannot be read.
    """
    try:
        return _fitting(read_tensors(path), targets, what, belongs)
    except ValueError as error:
        (first, *_, last) = ((key, tuple(value.shape)) for key, value in targets.items())
        raise ValueError(
            f"{path} does not hold {what} weights. Expected a state_dict with '{first[0]}' {first[1]} to '{last[0]}'"
            f" {last[1]}; found: {error}. Take {advice}, or train without a pre-trained encoder"
        ) from error


def _fitting(
    state: Mapping[str, object], targets: Mapping[str, Tensor], what: str, belongs: Callable[[str], bool]
) -> dict[str, Tensor]:
    fitting: dict[str, Tensor] = {}
    # A counter of batches seen may be in the file or not, and nothing depends on it.
    own = (key for key in state if isinstance(key, str) and belongs(key) and not key.endswith("num_batches_tracked"))
    misfits = [f"{key!r}, which {what.rpartition(' ')[2]} lacks" for key in own if key not in targets]
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
        raise ValueError("; ".join(misfits[:3]) + more)
    return fitting


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
            f"network.encoder = {source}: cannot be had ({error}); fetch {network.encoder_url or 'it'} elsewhere and"
            " give its path, or train from random weights with --set network.encoder=random"
        ) from None
    except ValueError as error:
        raise TrainingError(f"network.encoder: {error}") from None


def _download(network: MattingNetwork) -> Path:
    if (packaged := network.packaged_encoder()) is not None:
        return packaged
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
