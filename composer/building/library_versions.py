"""Library versions: of what decides the bytes of shards. The same ones give the same bytes, others may not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import cv2
import h5py
import numpy as np
import PIL
import simplejpeg
import zstandard

from ... import __version__

__all__ = ["join_versions", "library_versions"]

LIBRARIES: Final = {
    "h5py": h5py,
    "numpy": np,
    "opencv": cv2,
    "pillow": PIL,
    "simplejpeg": simplejpeg,
    "zstandard": zstandard,
}


def library_versions() -> dict[str, str]:
    """Return the versions of this process's libraries, and of this program, by name."""
    return {"matting-compose": __version__} | {name: module.__version__ for name, module in LIBRARIES.items()}


def join_versions(parts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Join the versions that made parts of a dataset: "1.0", or "1.0, 1.1" where they differ.

    Examples
    --------
    >>> from matting_compose.composer.building.library_versions import join_versions
    >>> join_versions([{"numpy": "2.1"}, {"numpy": "2.0, 2.1"}])
    {'numpy': '2.0, 2.1'}
    """
    found: dict[str, set[str]] = {}
    for part in parts:
        for name, versions in part.items():
            found.setdefault(name, set()).update(versions.split(", "))
    return {name: ", ".join(sorted(versions)) for name, versions in sorted(found.items())}
