"""Train: shards in, a matting network out."""

from importlib import import_module
from typing import TYPE_CHECKING

from ..composer.base.packages import install_command

if TYPE_CHECKING:
    from . import metrics
    from .data.crop_dataset import CropDataset
    from .data.stream import open_stream
    from .evaluation.network_scores import evaluate
    from .inference.predict import predict
    from .inference.tiled import predict_alpha
    from .networks.checkpoint import load_network
    from .networks.exports import export_network
    from .networks.mnet import MNet
    from .networks.network import MattingNetwork
    from .networks.shipped import default_network
    from .networks.shm import SHM
    from .networks.tnet import TNet
    from .training.config import load_config
    from .training.loop import train

__all__ = [
    "SHM",
    "CropDataset",
    "MNet",
    "MattingNetwork",
    "TNet",
    "default_network",
    "evaluate",
    "export_network",
    "load_config",
    "load_network",
    "metrics",
    "open_stream",
    "predict",
    "predict_alpha",
    "train",
]

_HOMES = {
    "SHM": ".networks.shm",
    "CropDataset": ".data.crop_dataset",
    "MNet": ".networks.mnet",
    "MattingNetwork": ".networks.network",
    "TNet": ".networks.tnet",
    "default_network": ".networks.shipped",
    "evaluate": ".evaluation.network_scores",
    "export_network": ".networks.exports",
    "load_config": ".training.config",
    "load_network": ".networks.checkpoint",
    "open_stream": ".data.stream",
    "predict": ".inference.predict",
    "predict_alpha": ".inference.tiled",
    "train": ".training.loop",
}


def __getattr__(name: str) -> object:
    """Import on first use, so that what needs no torch (the metrics) works without it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name], __name__), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        message = f"{name} needs PyTorch, which is not installed: {install_command('train')}"
        raise ImportError(message) from error
