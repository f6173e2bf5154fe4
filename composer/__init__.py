"""Compose: pictures in, verified shards out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dataset import Dataset, Sample, open_dataset

__all__ = ["Dataset", "Sample", "open_dataset"]


def __getattr__(name: str) -> Any:
    """Import on first use: the command line's help must not wait for HDF5 and OpenCV."""
    if name in __all__:
        from . import dataset

        return getattr(dataset, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
