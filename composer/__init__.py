"""Compose: pictures in, verified shards out."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .building.build import build
    from .dataset.dataset import Dataset, Sample, open_dataset
    from .recipe import load_recipe

__all__ = ["Dataset", "Sample", "build", "load_recipe", "open_dataset"]

_HOMES = {
    "Dataset": ".dataset.dataset",
    "Sample": ".dataset.dataset",
    "build": ".building.build",
    "load_recipe": ".recipe",
    "open_dataset": ".dataset.dataset",
}


def __getattr__(name: str) -> object:
    """Import on first use: the command line's help must not wait for HDF5 and OpenCV, nor a reader for a renderer."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
