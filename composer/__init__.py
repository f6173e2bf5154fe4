"""Compose: pictures in, verified shards out."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .building.build import build
    from .compositing.blending import Fit
    from .compositing.compose import Composite, compose
    from .compositing.scenes import Scenes
    from .compositing.trimaps import Trimap
    from .dataset.dataset import Dataset, Sample, open_dataset
    from .recipe import load_recipe

__all__ = [
    "Composite",
    "Dataset",
    "Fit",
    "Sample",
    "Scenes",
    "Trimap",
    "build",
    "compose",
    "load_recipe",
    "open_dataset",
]

_HOMES = {
    "Composite": ".compositing.compose",
    "Fit": ".compositing.blending",
    "Scenes": ".compositing.scenes",
    "Trimap": ".compositing.trimaps",
    "compose": ".compositing.compose",
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
