"""Layout: opening what a shard consists of, and nothing else. The gate for HDF5 that comes from strangers.

HDF5 can lead out of a file: to other files' bytes ("external storage"), to other HDF5 files (virtual datasets, external
links), and from one name to another (soft links). A shard is written without any of it. So each object is looked at
before HDF5 reads it, and what is not laid out as `writer` writes it is refused; attributes are read without HDF5.
"""

from __future__ import annotations

from pathlib import Path

import h5py

from ..base.files import open_regular
from .attributes import Attribute, read_attributes
from .codecs import Codec
from .links import read_links


def open_file(path: Path) -> h5py.File:
    """Open a shard's file to be read.

    Raises
    ------
    OSError
        It is missing, a pipe or a device, or no HDF5.
    """
    open_regular(path).close()
    return h5py.File(path, "r")


def require_plain_links(file: h5py.File) -> None:
    """Go through the names of what is in a file, and in its groups, before HDF5 follows one.

    Raises
    ------
    ValueError, LookupError, struct.error
        One is a link to elsewhere, or HDF5 might not come to an end.
    """
    parts = read_links(file.id.get_vfd_handle())
    if "groups" in parts:
        read_links(file.id.get_vfd_handle(), parts["groups"])


def open_group(file: h5py.File, number: int) -> h5py.h5g.GroupID:
    """Open the group of a foreground's look.

    Raises
    ------
    ValueError, LookupError, struct.error
        There is none, or it has a link to elsewhere.
    """
    group = h5py.h5g.open(file.id, f"groups/{number:05d}".encode())
    read_links(file.id.get_vfd_handle(), h5py.h5o.get_info(group).addr)
    return group


def attributes_of(file: h5py.File, part: h5py.h5g.GroupID | h5py.h5d.DatasetID | None = None) -> dict[str, Attribute]:
    """Return the attributes of one of a file's groups or arrays; those of the file, if none is given.

    Raises
    ------
    ValueError, LookupError, struct.error
        They are damaged, or laid out otherwise than in a shard.
    """
    return read_attributes(file.id.get_vfd_handle(), None if part is None else h5py.h5o.get_info(part).addr)


def open_array(group: h5py.h5g.GroupID, name: str, codec: Codec, tile: int, *, stacked: bool) -> h5py.Dataset:
    """Open a group's array of pictures.

    Parameters
    ----------
    group : h5py.h5g.GroupID
        As `open_group` gives it.
    name : str
        The array's.
    codec : Codec
        What its pictures are encoded by.
    tile : int
        Their tiles' sides, px, at most.
    stacked : bool
        It holds several pictures, along its first axis.

    Raises
    ------
    KeyError, ValueError
        There is none, or it is laid out otherwise than the codec would.
    """
    found = h5py.h5d.open(group, name.encode())  # h5py's own look-up, and its properties, take five times as long
    properties = found.get_create_plist()
    if properties.get_layout() != h5py.h5d.CHUNKED or properties.get_external_count():
        raise ValueError(f"{name} is not stored in chunks of this file")
    shape, chunks = found.shape, properties.get_chunk()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    height, width = codec.tile_shape(shape)
    expected_shape, expected_chunks, options = codec.dataset(height, width, tile)
    expected_filters = [options["compression"]] if "compression" in options else []
    if stacked:
        expected_shape, expected_chunks = (shape[0], *expected_shape), (1, *expected_chunks)
    bytewise = found.get_type().equal(h5py.h5t.STD_U8LE)
    if not bytewise or (shape, chunks, filters) != (expected_shape, expected_chunks, expected_filters):
        raise ValueError(f"{name} is of {shape} in chunks of {chunks} with filters {filters}, or not of bytes")
    return h5py.Dataset(found)


def open_table(file: h5py.File, name: str) -> h5py.Dataset:
    """Open a table of the file's root.

    Raises
    ------
    KeyError, ValueError
        There is none, or it is not stored in one piece of this file.
    """
    table = h5py.Dataset(h5py.h5d.open(file.id, name.encode()))
    properties = table.id.get_create_plist()
    if properties.get_layout() != h5py.h5d.CONTIGUOUS or properties.get_external_count() or properties.get_nfilters():
        raise ValueError(f"{name} is not stored in one piece of this file")
    return table
