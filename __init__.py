"""Composites, alphas and trimaps in sharded HDF5, and a lean trainer that streams them."""

__version__ = "0.1.0"
