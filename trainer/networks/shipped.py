"""Shipped: the network that comes with the package, ready to matte."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from ...composer.base.files import check_sha256
from .checkpoint import load_network
from .network import MattingNetwork

__all__ = ["DEFAULT", "DIGEST", "default_network", "find_weights", "refined_weights"]

DEFAULT: Final = "default"  # what stands for it where a checkpoint is asked for


WEIGHTS: Final = Path(__file__).parent.parent / "weights" / "default.safetensors"


DIGEST: Final = "e3b854a2e3745970d90ba80e689bc7cd2a1a11ce61db161b993f4a30d0f7fb32"  # SHA-256


REFINED: Final = WEIGHTS.with_name("refined.safetensors")


REFINED_DIGEST: Final = "de42ce8a4ee140ee58b0cad363acaee67b62d62544a6cb6c1d0b1522ecc5f154"


def default_network() -> MattingNetwork:
    """Build the network that comes with the package, on the CPU, in evaluation mode.

    ``docs/model-card.md`` says what it was trained on and what it can do. Each call gives a network of its own.

    Raises
    ------
    ValueError
        The file is not the one that was packaged.

    Examples
    --------
    >>> import torch
    >>> image, trimap = torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.full((1, 64, 64), 255, dtype=torch.uint8)
    >>> default_network().matte(image, trimap).mean()  # the trimap knows it all
    tensor(1., grad_fn=<MeanBackward0>)
    """
    return load_network(find_weights(DEFAULT))


def find_weights(name: str | Path) -> Path:
    """Return the file that is meant: ``default`` is the one that comes with the package, anything else a path."""
    if str(name) != DEFAULT:
        return Path(name)
    _check(WEIGHTS, DIGEST, "matting-compose")
    return WEIGHTS


def refined_weights() -> Path:
    """Return the file of the network that `refined` joins mattes by. Raise ValueError as `default_network`."""
    _check(REFINED, REFINED_DIGEST, "matting-compose")
    return REFINED


_check = cache(check_sha256)  # once a process
