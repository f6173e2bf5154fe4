"""Writer: one shard, written tile by tile, read back and proved."""

from __future__ import annotations

import hashlib
import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple
from itertools import accumulate
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np

from ..base.arrays import UInt8Array
from ..base.errors import BuildError, DatasetError
from .codecs import Codec
from .packings import Packing
from .reader import ShardReader, read_integer, tile_offsets
from .rows import (
    FIRST_TILE,
    FORMAT,
    HEADER_FIELDS,
    MASK_TILES,
    TILE_TABLE,
    VERSION,
    Header,
    Row,
    from_table,
    to_table,
)

LIBVER = ("v110", "v110")  # HDF5 of 2016 or newer reads it; its chunk index is a flat table, not a tree


class _ArrayWriter:
    """Write a stack of equally large pictures into one HDF5 dataset, a tile a chunk; or one picture, not stacked."""

    def __init__(self, dataset: h5py.Dataset, codec: Codec) -> None:
        self._id = dataset.id
        self._codec = codec
        self._tile = codec.tile_shape(dataset.chunks)
        self.name: str = dataset.name

    @classmethod
    def create(
        cls, group: h5py.Group, name: str, codec: Codec, size: tuple[int, int], tile: int, count: int | None
    ) -> _ArrayWriter:
        """Make the dataset, `count` pictures of `size` px, or one picture where `count` is None."""
        shape, chunks, filters = codec.dataset(*size, tile)
        if count is not None:
            shape, chunks = (count, *shape), (1, *chunks)
        dataset = group.create_dataset(name, shape, "u1", chunks=chunks, track_times=False, **filters)
        return cls(dataset, codec)

    def encode(self, picture: UInt8Array) -> list[list[bytes]]:
        """Code a picture as this array's tiles."""
        return self._codec.encode(picture, self._tile)

    def write(self, index: int | None, grid: Sequence[Sequence[bytes]], written: dict[tuple[Any, ...], int]) -> None:
        """Write a picture's tiles, noting the CRC of each in `written`."""
        for i, row in enumerate(grid):
            for j, data in enumerate(row):
                at = self._chunk(index, i, j)
                self._id.write_direct_chunk(at, data)
                written[(self.name, *at)] = zlib.crc32(data)

    def _chunk(self, index: int | None, row: int, column: int) -> tuple[int, ...]:
        corner = self._codec.corner(row * self._tile[0], column * self._tile[1])
        return corner if index is None else (index, *corner)


@contextmanager
def unnamed_filters(packing: Packing) -> Iterator[None]:
    """Hide the filters that decode tiles from HDF5, which writes a filter's name beside its number where it knows one:
    what happens to be installed must not decide a shard's bytes. Our own reading and writing does without them.

    Raises
    ------
    BuildError : a dataset that another program's filter reads is open in this process
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
        self._written: dict[tuple[Any, ...], int] = {}
        self._unnamed = unnamed_filters(header.codecs())
        self._unnamed.__enter__()
        self._file = h5py.File(path, "w", libver=LIBVER)
        self._file.attrs["format"] = FORMAT
        self._file.attrs["version"] = VERSION
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
        self, number: int, foreground: str, sha256: str, size: tuple[int, int], count: int, partner_sha256: str = ""
    ) -> GroupWriter:
        """Start a group, a look of a foreground: `count` composites of `size` (height, width) px."""
        group = self._file.create_group(f"groups/{number:05d}")
        group.attrs["foreground"] = foreground
        group.attrs["sha256"] = sha256
        if partner_sha256:
            group.attrs["partner_sha256"] = partner_sha256
        return GroupWriter(group, self._header, size, count, self._written)

    def finish(self, rows: Sequence[Row]) -> str:
        """Write the table, close the file, read every byte of it back, and make it durable.

        Returns
        -------
        the file's SHA-256

        Raises
        ------
        DatasetError : what is read is not what was written
        """
        self._file.create_dataset("samples", data=to_table(rows), track_times=False)
        _write_tile_table(self._file, sorted({key[0] for key in self._written}))
        self._file.attrs["composites"] = len(rows)
        self._file.attrs["complete"] = True
        self._file.close()
        with self._path.open("rb+") as file, ThreadPoolExecutor(1) as aside:
            durable = aside.submit(os.fsync, file.fileno())  # the disk works while we compare
            digest = _read_back(self._path, self._written, rows)
            durable.result()
        return digest


class GroupWriter:
    """Write one foreground and its composites."""

    def __init__(
        self, group: h5py.Group, header: Header, size: tuple[int, int], count: int, written: dict[tuple[Any, ...], int]
    ) -> None:
        codecs = header.codecs()
        kinds: dict[str, tuple[Codec, int | None]] = {
            "alpha": (codecs.mask, None),
            "foreground": (codecs.foreground, None),
            "image": (codecs.image, count),
            "trimap": (codecs.mask, count),
        }
        if header.background != "none":
            kinds["background"] = (codecs.image, count)
        # Masks pack to next to nothing, so that a chunk's overhead is what they cost: fewer, larger tiles.
        self._arrays = {
            name: _ArrayWriter.create(
                group, name, codec, size, header.tile * (MASK_TILES if codec is codecs.mask else 1), n
            )
            for name, (codec, n) in kinds.items()
        }
        self._background = header.background
        self._shares_opaque = codecs.shares_opaque
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

    def copy_foreground(self, source: ShardReader, number: int) -> None:
        """Copy a group's foreground and alpha from a shard of the same plan, without decoding."""
        for name in ("alpha", "foreground"):
            self._arrays[name].write(None, source.stored_tiles(number, name, None), self._written)

    def copy_composite(self, source: ShardReader, number: int, position: int) -> None:
        """Copy a composite from a shard of the same plan, without decoding."""
        for name, array in self._arrays.items():
            if name not in ("alpha", "foreground"):
                array.write(position, source.stored_tiles(number, name, position), self._written)

    def _write(self, name: str, index: int | None, picture: UInt8Array) -> None:
        array = self._arrays[name]
        array.write(index, array.encode(picture), self._written)


def _write_tile_table(file: h5py.File, names: Sequence[str]) -> None:
    """Write where all tiles lie into one table, and into each dataset from which row on its own are."""
    tables = [tile_offsets(file[name]) for name in names]
    for name, start in zip(names, accumulate(map(len, tables), initial=0), strict=False):
        file[name].attrs[FIRST_TILE] = start
    file.create_dataset(TILE_TABLE, data=np.concatenate([np.zeros((0, 2), np.int64), *tables]), track_times=False)


def _read_back(path: Path, written: dict[tuple[Any, ...], int], rows: Sequence[Row]) -> str:
    """Compare every tile in the file with what was written, and the table; return the file's SHA-256."""
    missing = dict(written)
    with path.open("rb", buffering=0) as raw, h5py.File(path, "r") as file:
        if from_table(file["samples"][()]) != list(rows):
            raise DatasetError(f"{path.name}: the table that was read back differs from what was written")
        for name in sorted({key[0] for key in written}):
            first, tiles = read_integer(file[name], FIRST_TILE), tile_offsets(file[name])
            if not np.array_equal(file[TILE_TABLE][first : first + len(tiles)], tiles):
                raise DatasetError(f"{path.name}: the table of the tiles of {name} was read back different")

            def check(chunk: Any, name: str = name) -> None:
                raw.seek(chunk.byte_offset)
                if missing.pop((name, *chunk.chunk_offset), None) != zlib.crc32(raw.read(chunk.size)):
                    raise DatasetError(f"{path.name}: {name}{chunk.chunk_offset} was read back different")

            file[name].id.chunk_iter(check)
        if missing:
            raise DatasetError(f"{path.name}: {len(missing)} tiles were written but cannot be read back")
        raw.seek(0)
        return hashlib.file_digest(raw, "sha256").hexdigest()
