"""Shard: one HDF5 file of composites. Write it, prove it, read it. docs/format.md describes it for other readers.

Tiles are coded here and handed to HDF5 ready-made (``write_direct_chunk``), with the filter that decodes them named
in the file: h5py's one lock is held for a copy only, and no filter can fail in silence.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import cv2
import h5py
import numpy as np
from numpy.typing import NDArray
from zstandard import ZstdError

from ..base.arrays import UInt8Array
from ..base.errors import DatasetError
from ..base.files import file_sha256
from .array_reader import ArrayReader, Memory
from .layout import attributes_of, open_array, open_file, open_group, open_table, require_plain_links
from .rows import (
    FIRST_TILE,
    FORMAT,
    TILE_TABLE,
    VERSION,
    Header,
    Parts,
    Row,
    Window,
    from_table,
    read_table,
)

RECENT = 2_000_000  # bytes of a trimap's tiles that are kept: who looks for a pixel there then reads around it


# What a damaged file makes HDF5 and the decoders raise.
DAMAGE = (
    OSError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    struct.error,
    ZstdError,
    cv2.error,
)


class ShardReader:
    """Read a shard.

    Parameters
    ----------
    path : Path
        The file.
    memory : Memory or None
        Where decoded tiles of alphas and foregrounds are kept: all of a foreground's composites ask for them.

    Attributes
    ----------
    header : Header
        What it is part of, and how it is decoded.
    table : structured array
        Its composites, a row each.
    rows : list of Row
        The same as values, made when they are asked for.

    Raises
    ------
    DatasetError
        The file is missing, foreign, of a newer version, unfinished or damaged.
    """

    def __init__(self, path: Path, memory: Memory | None = None) -> None:
        self._path = path
        self._memory = memory
        self._recent = Memory(RECENT)
        try:
            self._file = open_file(path)
        except FileNotFoundError:
            raise DatasetError(f"{path.name}: the shard is missing; build again to render it") from None
        except OSError as error:
            raise DatasetError(f"{path.name}: not a readable HDF5 file ({error})") from None
        size = path.stat().st_size
        try:
            require_plain_links(self._file)
            self.header = _read_header(self._file, path.name)
            self._codecs = self.header.codecs()
            self.table = read_table(open_table(self._file, "samples"), size)
            early = not self._file.id.links.exists(TILE_TABLE.encode())
            self._tiles = None if early else _read_tile_table(open_table(self._file, TILE_TABLE), size)
        except DAMAGE as error:
            self._file.close()
            raise DatasetError(f"{path.name}: damaged ({error}); build again to render it anew") from None
        except DatasetError:
            self._file.close()
            raise
        self._groups: dict[int, dict[str, ArrayReader]] = {}
        self._arrays: dict[tuple[int, str], ArrayReader] = {}

    @cached_property
    def rows(self) -> list[Row]:
        """Its composites."""
        return from_table(self.table)

    def row(self, position: int) -> Row:
        """Return one composite's row, without making all others."""
        return self.rows[position] if "rows" in self.__dict__ else from_table(self.table[position : position + 1])[0]

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def sha256(self) -> str:
        """Return the file's digest, from all of its bytes."""
        return file_sha256(self._path)

    def read(
        self, row: Row, window: Window | None = None, layers: Collection[str] = ("foreground", "background")
    ) -> Parts:
        """Read a composite, or a window (y, x, height, width) of it, px, with those of the layers that it has.

        Raises
        ------
        ValueError
            The window is not inside the composite.
        DatasetError
            The composite is damaged.
        """
        with self._explain_damage(f"composite {row.key}"):
            group = self._group_of(row)  # before anything is believed of what the row declares
        y, x, height, width = window or (0, 0, row.height, row.width)
        if min(y, x) < 0 or min(height, width) < 1 or y + height > row.height or x + width > row.width:
            raise ValueError(
                f"the window {height}×{width} at ({y}, {x}) is not inside the {row.height}×{row.width} px of {row.key}"
            )
        colours, masks = (height, width, 3), (height, width)
        own = (
            np.empty(colours, np.uint8) if name in layers and name in group else None
            for name in ("foreground", "background")
        )
        parts = Parts(np.empty(colours, np.uint8), *(np.empty(masks, np.uint8) for _ in range(2)), *own)
        self.read_into(row, (y, x), *parts)
        return parts

    def read_into(
        self,
        row: Row,
        corner: tuple[int, int],
        image: UInt8Array,
        trimap: UInt8Array,
        alpha: UInt8Array,
        foreground: UInt8Array | None,
        background: UInt8Array | None,
    ) -> None:
        """Read a window, from its `corner` (y, x) px on, into arrays of its size; what is None is not read.

        Raises
        ------
        DatasetError
            The composite is damaged, or layers are asked of a picture as it is, which has none.
        """
        window = (*corner, *alpha.shape)
        if not row.composed and not (foreground is background is None):
            raise DatasetError(f"{self._path.name}: {row.key} is a picture as it is: it has no layers, only its alpha")
        with self._explain_damage(f"composite {row.key}"):
            group = self._group_of(row)
            group["alpha"].read(None, window, alpha)
            group["trimap"].read(row.position, window, trimap)
            group["image"].read(row.position if row.composed else None, window, image)
            if background is not None:
                group["background"].read(row.position, window, background)
            if foreground is not None:
                group["foreground"].read(None, window, foreground)
            if row.composed and self._codecs.shares_opaque:
                opaque = (alpha == 255).view(np.uint8)
                group["foreground"].paste(window, opaque, image)

    def read_stored(self, row: Row, name: str, where: UInt8Array | None = None) -> UInt8Array:
        """Read one of a composite's arrays alone, as it is stored: shared opaque pixels are zeros in an image.

        With a mask (H, W) uint8 the tiles in which it is 0 are only proved to be whole: their pixels are of no meaning.

        Raises
        ------
        DatasetError
            The composite is damaged, or there is no such array.
        """
        with self._explain_damage(f"composite {row.key}"):
            array = self._group_of(row)[name]
            own = name not in ("alpha", "foreground") and (row.composed or name == "trimap")
            index = row.position if own else None
            if where is not None:
                return array.read_where(index, where)
            return array.read(index, (0, 0, row.height, row.width))

    def read_mask(self, row: Row, name: Literal["trimap", "alpha"]) -> UInt8Array:
        """Read a composite's trimap or alpha alone, (H, W) uint8. Raise DatasetError where it is damaged."""
        with self._explain_damage(f"composite {row.key}"):
            array = self._arrays.get((row.group, name)) or self._open(row.group, (name,))[name]  # no others are needed
            if (row.height, row.width) != array.size:
                raise ValueError(f"its row says {row.height}×{row.width} px, its {name} has {array.size}")
            return array.read(row.position if name == "trimap" else None, (0, 0, row.height, row.width))

    def find_pixel(self, row: Row, value: int, ys: Sequence[int], xs: Sequence[int]) -> tuple[int, int] | None:
        """Return the first of some px (y, x) of which a composite's trimap has this value; None where none has."""
        with self._explain_damage(f"composite {row.key}"):
            array = self.arrays(row.group)["trimap"]
            pixels = zip(ys, xs, strict=True)
            return next(((y, x) for y, x in pixels if array.read_pixel(row.position, y, x) == value), None)

    def read_tiles(self, number: int, name: str, position: int | None) -> list[list[bytes]]:
        """Return a picture's tiles as they are stored."""
        array = self.arrays(number)[name]
        rows, columns = array.grid
        return [[array.read_tile(position, i, j) for j in range(columns)] for i in range(rows)]

    def attributes(self, number: int) -> dict[str, str]:
        """Return a group's attributes: its foreground's key, and the digests of what it was made from.

        Raises
        ------
        DatasetError
            They are damaged.
        """
        with self._explain_damage(f"group {number}"):
            attributes = attributes_of(self._file, open_group(self._file, number))
            return {name: str(value) for name, value in attributes.items()}

    def group_sha256(self, number: int) -> tuple[str, str]:
        """Return the digests of the files that a group's foreground and its partner, if any, came from."""
        attributes = self.attributes(number)
        return attributes["sha256"], attributes.get("partner_sha256", "")

    def hdf5_tiles(self, number: int, name: str) -> NDArray[np.int64]:
        """Ask HDF5 itself where an array's tiles lie: offset and size, (tiles, 2)."""
        group = open_group(self._file, number)
        kind = self.header.arrays(_is_composed(group))[name]
        return tile_offsets(open_array(group, name, kind.codec, kind.tile, stacked=kind.stacked))

    @contextmanager
    def _explain_damage(self, what: str) -> Iterator[None]:
        try:
            yield
        except DAMAGE as error:
            raise DatasetError(f"{self._path.name}: {what} is damaged ({error})") from None

    def _tiles_of(self, dataset: h5py.Dataset) -> NDArray[np.int64]:
        """Return where a dataset's tiles lie: the file says it, or HDF5 where the file is an early one or has none."""
        first = None if self._tiles is None else attributes_of(self._file, dataset.id).get(FIRST_TILE)
        if self._tiles is None or first is None:  # no tile of it was written: all its composites failed
            return tile_offsets(dataset)
        if not isinstance(first, int) or first < 0:
            raise ValueError(f"{FIRST_TILE} is {first!r}")
        count = math.prod(-(-side // tile) for side, tile in zip(dataset.shape, dataset.chunks, strict=True))
        return self._tiles[first : first + count]

    def _group_of(self, row: Row) -> dict[str, ArrayReader]:
        group = self.arrays(row.group)
        if (row.height, row.width) != group["alpha"].size:
            raise ValueError(f"its row says {row.height}×{row.width} px, its alpha has {group['alpha'].size}")
        if row.composed != ("foreground" in group):
            raise ValueError("its row and its pixels do not agree whether it is composed")
        return group

    def arrays(self, number: int) -> dict[str, ArrayReader]:
        """Return the arrays of a group, open, by name."""
        arrays = self._groups.get(number)
        if arrays is None:
            arrays = self._open(number)
            if len({array.size for array in arrays.values()}) > 1:
                raise ValueError(f"the arrays of group {number} are of several sizes")
            self._groups[number] = arrays
        return arrays

    def _open(self, number: int, names: Collection[str] = ()) -> dict[str, ArrayReader]:
        """Open arrays of a group, all unless some are named, each once."""
        group, descriptor = open_group(self._file, number), self._file.id.get_vfd_handle()
        arrays = {}
        for name, kind in self.header.arrays(_is_composed(group)).items():
            if names and name not in names:
                continue
            if (number, name) not in self._arrays:
                memory = None if kind.stacked else self._memory
                if name == "trimap" and not self._codecs.mask.bare:
                    memory = self._recent
                stored = open_array(group, name, kind.codec, kind.tile, stacked=kind.stacked)
                self._arrays[number, name] = ArrayReader(stored, kind.codec, self._tiles_of(stored), descriptor, memory)
            arrays[name] = self._arrays[number, name]
        return arrays


def _is_composed(group: h5py.h5g.GroupID) -> bool:
    """Tell whether a group holds composites: a picture as it is has no foreground's colours."""
    return bool(group.links.exists(b"foreground"))


def tile_offsets(dataset: h5py.Dataset) -> NDArray[np.int64]:
    """Ask HDF5 where a dataset's tiles lie: offset and size, (tiles, 2), zeros where there is none. 10 µs a tile."""
    found: list[tuple[int, ...]] = []
    dataset.id.chunk_iter(lambda chunk: found.append((*chunk.chunk_offset, chunk.byte_offset, chunk.size)))
    grid = [-(-side // tile) for side, tile in zip(dataset.shape, dataset.chunks, strict=True)]
    if math.prod(grid) > dataset.file.id.get_filesize():  # no tile is empty
        raise ValueError(f"{dataset.name} declares {math.prod(grid):,} tiles")
    offsets = np.zeros((math.prod(grid), 2), np.int64)
    if found:
        table = np.array(found, np.int64)
        cells = table[:, :-2] // np.array(dataset.chunks)
        offsets[np.ravel_multi_index(tuple(cells.T), grid)] = table[:, -2:]
    return offsets


def _read_tile_table(table: h5py.Dataset, size: int) -> NDArray[np.int64]:
    """Read the table of where all tiles lie, of a file of `size` bytes."""
    if table.dtype != np.int64 or table.ndim != 2 or table.size * 8 > size:
        raise ValueError(f"a table of tiles of {table.shape} {table.dtype}")
    tiles: NDArray[np.int64] = table[()]
    if tiles.size and not 0 <= tiles.min() <= tiles.max() <= size:
        raise ValueError("its table of tiles leads out of the file")
    return tiles


def _read_header(file: h5py.File, name: str) -> Header:
    attributes = attributes_of(file)
    if attributes.get("format") != FORMAT:
        raise DatasetError(f"{name}: an HDF5 file, but not a shard (format is {attributes.get('format')!r})")
    version = attributes["version"]
    if not isinstance(version, int):
        raise ValueError(f"version is {version!r}")
    if version > VERSION:
        raise DatasetError(f"{name}: of format version {version}; this program reads up to {VERSION}: update it")
    if not attributes.get("complete"):
        raise DatasetError(f"{name}: unfinished; run the build again")
    values: list[Any] = [attributes[field.name] for field in fields(Header)]
    for field, value in zip(fields(Header), values, strict=True):
        if type(value).__name__ != field.type:
            raise ValueError(f"{field.name} is {value!r}")
    return Header(*values)
