"""Train: shards in, a matting network out."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .mnet import MNet

__all__ = ["MNet"]


def __getattr__(name: str) -> object:
    """Import the network on first use, so that what needs no torch (the metrics) works without it."""
    if name != "MNet":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from .mnet import MNet
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError('MNet needs PyTorch, which is not installed: pip install "matting-compose[train]"') from error
    return MNet
