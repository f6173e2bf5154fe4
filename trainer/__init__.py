"""Train: shards in, a matting network out."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .mnet import MNet
    from .stream import open_stream

__all__ = ["MNet", "open_stream"]

_HOMES = {"MNet": ".mnet", "open_stream": ".stream"}


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
