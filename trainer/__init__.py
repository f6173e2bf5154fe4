"""Train: shards in, a matting network out."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .data.stream import open_stream
    from .networks.mnet import MNet

__all__ = ["MNet", "open_stream"]

_HOMES = {"MNet": ".networks.mnet", "open_stream": ".data.stream"}


def __getattr__(name: str) -> object:
    """Import on first use, so that what needs no torch (the metrics) works without it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name], __name__), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        message = f'{name} needs PyTorch, which is not installed: pip install "matting-compose[train]"'
        raise ImportError(message) from error
