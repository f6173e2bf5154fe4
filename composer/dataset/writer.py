"""Writer: one shard, written tile by tile, read back and proved."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple
from itertools import accumulate
from pathlib import Path

import cv2
import h5py
import numpy as np

from ..base.arrays import UInt8Array
from ..base.errors import BuildError, DatasetError
from ..base.files import file_sha256
from .packings import Packing
from .reader import ShardReader, tile_offsets
from .rows import (
    FIRST_TILE,
    FORMAT,
    HEADER_FIELDS,
    TILE_TABLE,
    VERSION,
    ArrayKind,
    Header,
    Row,
    to_table,
)

LIBVER = ("v110", "v110")  # HDF5 of 2016 or newer reads it; its chunk index is a flat table, not a tree


Tile = tuple[int | None, int, int]  # in an array: which picture, row, column


Written = dict[tuple[int, str, Tile], int]  # group, array, tile: the CRC-32 of its bytes


class _ArrayWriter:
    """Write a stack of equally large pictures into one HDF5 dataset, a tile a chunk; or one picture, not stacked."""

    def __init__(self, group: h5py.Group, name: str, kind: ArrayKind, size: tuple[int, int], count: int) -> None:
        """Make the dataset for `count` pictures of `size` px."""
        shape, chunks, filters = kind.codec.dataset(*size, kind.tile)
        if kind.stacked:
            shape, chunks = (count, *shape), (1, *chunks)
        self._id = group.create_dataset(name, shape, "u1", chunks=chunks, track_times=False, **filters).id
        self._codec = kind.codec
        self._tile = kind.codec.tile_shape(chunks)

    def encode(self, picture: UInt8Array) -> list[list[bytes]]:
        """Code a picture as this array's tiles."""
        return self._codec.encode(picture, self._tile)

    def write(self, index: int | None, grid: Sequence[Sequence[bytes]]) -> Iterator[tuple[Tile, int]]:
        """Write a picture's tiles; yield which tile each is, and its CRC."""
        for i, row in enumerate(grid):
            for j, data in enumerate(row):
                corner = self._codec.corner(i * self._tile[0], j * self._tile[1])
                self._id.write_direct_chunk(corner if index is None else (index, *corner), data)
                yield (index, i, j), zlib.crc32(data)


@contextmanager
def unnamed_filters(packing: Packing) -> Iterator[None]:
    """Hide the filters that decode tiles from HDF5, which writes a filter's name beside its number where it knows one:
    what happens to be installed must not decide a shard's bytes. Our own reading and writing does without them.

    Raises
    ------
    BuildError
        A dataset that another program's filter reads is open in this process.
    """
    codecs = packing.image, packing.foreground, packing.mask
    numbers = {codec.dataset(1, 1, 16)[2].get("compression") for codec in codecs}
    known = [number for number in numbers if isinstance(number, int) and h5py.h5z.filter_avail(number)]
    folders = [h5py.h5pl.get(i) for i in range(h5py.h5pl.size())]
    try:
        for number in known:
            h5py.h5z.unregister_filter(number)
    except RuntimeError:
        raise BuildError("close the HDF5 files that are open in this process, or build with two --jobs") from None
    for _ in folders:
        h5py.h5pl.remove(0)
    try:
        yield
    finally:
        for folder in folders:
            h5py.h5pl.append(folder)
        if known and (plugins := sys.modules.get("hdf5plugin")):
            plugins.register(force=True)


class ShardWriter:
    """Write a shard under a temporary name; `finish` closes and proves it. Use as a context manager."""

    def __init__(self, path: Path, header: Header) -> None:
        self._path = path
        self._header = header
        self._written: Written = {}
        self._attributes: dict[int, dict[str, str]] = {}
        self._unnamed = unnamed_filters(header.codecs())
        self._unnamed.__enter__()
        self._file = h5py.File(path, "w", libver=LIBVER)
        self._file.attrs["format"] = FORMAT
        self._file.attrs["version"] = 1
        for name, value in zip(HEADER_FIELDS, astuple(header), strict=True):
            self._file.attrs[name] = value

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._unnamed.__exit__(None, None, None)

    @property
    def bytes_written(self) -> int:
        """The file's size so far."""
        return int(self._file.id.get_filesize())

    def group(
        self,
        number: int,
        foreground: str,
        sha256: str,
        size: tuple[int, int],
        count: int,
        partner_sha256: str = "",
        *,
        composed: bool = True,
    ) -> GroupWriter:
        """Start a group, a look of a foreground: `count` composites of `size` (height, width) px.

        One that is not composed holds a picture as it is, and `count` trimaps.
        """
        if not composed:
            self._file.attrs["version"] = VERSION
        group = self._file.create_group(f"groups/{number:05d}")
        attributes = {"foreground": foreground, "sha256": sha256}
        self._attributes[number] = attributes | ({"partner_sha256": partner_sha256} if partner_sha256 else {})
        for name, value in self._attributes[number].items():
            group.attrs[name] = value
        return GroupWriter(group, number, self._header, size, count, self._written, composed)

    def finish(self, rows: Sequence[Row]) -> str:
        """Write the table, close the file, read it back as users do, and make it durable.

        Returns
        -------
        str
            The file's SHA-256.

        Raises
        ------
        DatasetError
            What is read is not what was written.
        """
        self._file.create_dataset("samples", data=to_table(rows), track_times=False)
        _write_tile_table(self._file, sorted({f"groups/{number:05d}/{name}" for number, name, _ in self._written}))
        self._file.attrs["composites"] = len(rows)
        self._file.attrs["complete"] = True
        self._file.close()
        with self._path.open("rb+") as file, ThreadPoolExecutor(1) as aside:
            durable = aside.submit(os.fsync, file.fileno())  # the disk works while we compare
            digest = self._read_back(rows)
            durable.result()
        return digest

    def _read_back(self, rows: Sequence[Row]) -> str:
        """Compare header, rows, where tiles lie and every tile with what was written; return the file's SHA-256."""
        name = self._path.name
        with ShardReader(self._path) as reader:
            if (reader.header, reader.rows) != (self._header, list(rows)):
                raise DatasetError(f"{name}: the header or the table that was read back is not what was written")
            for number, attributes in self._attributes.items():
                arrays = reader.arrays(number)
                if reader.attributes(number) != attributes or any(
                    not np.array_equal(array.tiles.reshape(-1, 2), reader.hdf5_tiles(number, array_name))
                    for array_name, array in arrays.items()
                ):
                    raise DatasetError(f"{name}: group {number} was read back different")
            for (number, array_name, tile), crc in self._written.items():
                if zlib.crc32(reader.arrays(number)[array_name].read_tile(*tile)) != crc:
                    raise DatasetError(f"{name}: tile {tile} of group {number}'s {array_name} was read back different")
        return file_sha256(self._path)


class GroupWriter:
    """Write one foreground and its composites, or a picture as it is and its trimaps."""

    def __init__(
        self,
        group: h5py.Group,
        number: int,
        header: Header,
        size: tuple[int, int],
        count: int,
        written: Written,
        composed: bool,
    ) -> None:
        self._number, self._kinds = number, header.arrays(composed)
        self._arrays = {name: _ArrayWriter(group, name, kind, size, count) for name, kind in self._kinds.items()}
        self._background = header.background
        self._shares_opaque = header.codecs().shares_opaque
        self._written = written
        self._mixed: UInt8Array = np.zeros(size, np.uint8)

    def write_foreground(self, foreground: UInt8Array, alpha: UInt8Array) -> None:
        """Write the foreground (H, W, 3) RGB and its alpha (H, W)."""
        self._mixed = (alpha != 255).view(np.uint8)
        self._write("alpha", None, alpha)
        self._write("foreground", None, foreground)

    def write_composite(self, position: int, image: UInt8Array, trimap: UInt8Array, background: UInt8Array) -> None:
        """Write a composite (H, W, 3) RGB, its trimap (H, W) and, as far as the header says, its background."""
        if self._shares_opaque:
            image = np.asarray(cv2.copyTo(image, self._mixed), np.uint8)
        self._write("image", position, image)
        self._write("trimap", position, trimap)
        if self._background == "unknown":
            background = np.asarray(cv2.copyTo(background, (trimap == 128).view(np.uint8)), np.uint8)
        if self._background != "none":
            self._write("background", position, background)

    def write_picture(self, image: UInt8Array, alpha: UInt8Array) -> None:
        """Write a picture as it is (H, W, 3) RGB, and its alpha (H, W)."""
        self._write("alpha", None, alpha)
        self._write("image", None, image)

    def write_trimap(self, position: int, trimap: UInt8Array) -> None:
        """Write one of its trimaps (H, W)."""
        self._write("trimap", position, trimap)

    def copy_shared(self, source: ShardReader, number: int) -> None:
        """Copy what a group's composites share from a shard of the same plan, without decoding."""
        for name, kind in self._kinds.items():
            if not kind.stacked:
                self._write_tiles(name, None, source.read_tiles(number, name, None))

    def copy_composite(self, source: ShardReader, number: int, position: int) -> None:
        """Copy a composite from a shard of the same plan, without decoding."""
        for name, kind in self._kinds.items():
            if kind.stacked:
                self._write_tiles(name, position, source.read_tiles(number, name, position))

    def _write(self, name: str, index: int | None, picture: UInt8Array) -> None:
        self._write_tiles(name, index, self._arrays[name].encode(picture))

    def _write_tiles(self, name: str, index: int | None, grid: Sequence[Sequence[bytes]]) -> None:
        for tile, crc in self._arrays[name].write(index, grid):
            self._written[self._number, name, tile] = crc


def _write_tile_table(file: h5py.File, names: Sequence[str]) -> None:
    """Write where all tiles lie into one table, and into each dataset from which row on its own are."""
    tables = [tile_offsets(file[name]) for name in names]
    for name, start in zip(names, accumulate(map(len, tables), initial=0), strict=False):
        file[name].attrs[FIRST_TILE] = start
    file.create_dataset(TILE_TABLE, data=np.concatenate([np.zeros((0, 2), np.int64), *tables]), track_times=False)
