"""Composites, alphas and trimaps in sharded HDF5, and a lean trainer that streams them."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("matting-compose")
except PackageNotFoundError:  # run from a folder, not installed
    __version__ = "0"
