"""Fine-tune: start a network from weights that are there, and keep parts of it as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ...composer.base.errors import TrainingError
from .network import MattingNetwork
from .recognise import find_checkpoint
from .shipped import find_weights
from .weights import read_tensors

__all__ = ["InitReport", "compare_parts", "compare_weights", "freeze", "init_parts", "init_weights", "is_in"]

SHOWN = 5  # keys that a message names


@dataclass(frozen=True)
class InitReport:
    """What a file's weights did for a network, by the keys of its ``state_dict``.

    Attributes
    ----------
    loaded : list of str
        Of the same name and shape: taken.
    kept : list of str
        Not in the file: as they were.
    unused : list of str
        In the file, but not in the network.
    misfits : list of str
        In both, of different shapes: as they were. Each with both shapes.
    """

    loaded: list[str]
    kept: list[str]
    unused: list[str]
    misfits: list[str]

    def __str__(self) -> str:
        parts = [f"{len(self.loaded):,} tensors loaded"]
        for text, keys in (
            ("not in the file", self.kept),
            ("in the file only", self.unused),
            ("of another shape", self.misfits),
        ):
            if keys:
                more = f" and {len(keys) - SHOWN:,} more" if len(keys) > SHOWN else ""
                parts.append(f"{len(keys):,} {text}: {', '.join(keys[:SHOWN])}{more}")
        return "; ".join(parts)


def init_weights(network: MattingNetwork, path: Path) -> InitReport:
    """Start a network from the weights of a file, by name and shape; see `compare_weights`.

    Examples
    --------
    >>> import torch
    >>> from matting_compose.trainer import MNet
    >>> torch.save(MNet(width=0.125).state_dict(), "weights.pth")
    >>> print(init_weights(MNet(width=0.125, decoder="resize"), Path("weights.pth")))
    128 tensors loaded
    """
    fits, report = compare_weights(network, path)
    network.load_state_dict(fits, strict=False)
    return report


def init_parts(network: MattingNetwork, files: str | Mapping[str, str]) -> str:
    """Start a network, or each of its parts, from the weights of files; see `compare_parts`. Say what they did."""
    fits, report = compare_parts(network, files)
    network.load_state_dict(fits, strict=False)
    return report


def compare_weights(network: nn.Module, path: Path) -> tuple[dict[str, Tensor], InitReport]:
    """Find which weights of a file fit a network, by name and shape.

    Parameters
    ----------
    network : MattingNetwork
    path : Path
        A checkpoint of ours (its averaged weights, where it has some), a ``state_dict`` that torch saved, or a
        ``.safetensors`` file. Nothing in it is executed.

    Raises
    ------
    TrainingError
        It cannot be read, nothing of it fits, or what fits is not finite.
    """
    try:
        state = _weights_in(read_tensors(path))
    except OSError as error:
        raise TrainingError(f"--init {path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise TrainingError(f"--init {path}: found {error}; give a checkpoint, a state_dict or .safetensors") from None
    own = network.state_dict()
    fits = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    misfits = [
        f"{key} {tuple(value.shape)} for {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and key not in fits
    ]
    report = InitReport(
        list(fits),
        [key for key in own if key not in state],
        [key for key in state if key not in own],
        misfits,
    )
    if not fits:
        raise TrainingError(f"--init {path}: none of its weights fits {type(network).__name__}: {report}")
    for key, value in fits.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise TrainingError(f"--init {path}: '{key}' holds values that are not finite; take another file")
    return fits, report


def _weights_in(document: Mapping[str, object]) -> dict[str, Tensor]:
    """Find the weights: of a checkpoint of ours, under a name that others use, or the document itself."""
    for key in ("ema", "model", "state_dict", "model_state_dict"):
        if isinstance(found := document.get(key), Mapping):
            document = found
            break
    tensors = {key: value for key, value in document.items() if isinstance(value, Tensor)}
    # torch.compile, DataParallel and Lightning put these before each name.
    for prefix in ("_orig_mod.", "module.", "network.", "model."):
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def compare_parts(network: MattingNetwork, files: str | Mapping[str, str]) -> tuple[dict[str, Tensor], str]:
    """Find which weights of one file for all of a network, or of one for each of its parts, fit.

    Parameters
    ----------
    network : MattingNetwork
    files : str or Mapping[str, str]
        A path, or paths by the parts' names: ``{"tnet": "run-tnet", "mnet": "run-mnet"}``. A run's folder means its
        best.pt.

    Raises
    ------
    TrainingError
        As `compare_weights`; or the network has no such part, or not all of a part fits.
    """
    if isinstance(files, str):
        fits, report = compare_weights(network, _found(find_weights(files)))
        return fits, str(report)
    parts = dict(network.named_children())
    found: dict[str, Tensor] = {}
    told = []
    for part, path in files.items():
        if part not in parts:
            raise TrainingError(f"--init {part}={path}: {type(network).__name__} has no part '{part}'; there are"
                                f" {', '.join(parts)}")  # fmt: skip
        fits, report = compare_weights(parts[part], _found(Path(path)))
        if report.kept or report.misfits:
            raise TrainingError(
                f"--init {part}={path}: does not fill {part}: {report}. Both are built alike by the same arguments:"
                f" --set 'network.arguments.{part}={{...}}' as in its config.json"
            )
        found |= {f"{part}.{key}": value for key, value in fits.items()}
        told.append(f"{part}: {report}")
    return found, "; ".join(told)


def _found(path: Path) -> Path:
    try:
        return find_checkpoint(path) if path.is_dir() else path
    except ValueError as error:
        raise TrainingError(f"--init: {error}") from None


def freeze(network: MattingNetwork, parts: Sequence[str]) -> list[nn.Module]:
    """Keep parts of a network from learning.

    Parameters
    ----------
    network : MattingNetwork
    parts : Sequence[str]
        Modules or parameters, by the beginnings of their names: ``encoder``, ``encoder.0``.

    Returns
    -------
    list of nn.Module
        The frozen modules: in evaluation mode their normalisation keeps its statistics too.

    Raises
    ------
    TrainingError
        Nothing is called so, or nothing would be left to learn.

    Examples
    --------
    >>> from matting_compose.trainer import MNet
    >>> network = MNet(width=0.125)
    >>> len(freeze(network, ["encoder"])) > 0, network.alpha.weight.requires_grad
    (True, True)
    """
    for part in parts:
        found = [parameter for name, parameter in network.named_parameters() if is_in(name, part)]
        if not found:
            there = ", ".join(name for name, _ in network.named_children())
            raise TrainingError(f"network.freeze: {type(network).__name__} has no part '{part}'; there are {there}")
        for parameter in found:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise TrainingError("network.freeze: nothing is left to learn")
    return [module for name, module in network.named_modules() if any(is_in(name, part) for part in parts)]


def is_in(name: str, part: str) -> bool:
    """Tell whether a module or parameter of this name is in a part: has that name, or one that it begins."""
    return name == part or name.startswith(f"{part}.")
