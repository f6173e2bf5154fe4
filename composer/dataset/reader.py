"""Shard: one HDF5 file of composites. Write it, prove it, read it. docs/format.md describes it for other readers.

Tiles are coded here and handed to HDF5 ready-made (``write_direct_chunk``), with the filter that decodes them named
in the file: h5py's one lock is held for a copy only, and no filter can fail in silence.
"""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Literal

import cv2
import h5py
import numpy as np
from numpy.typing import NDArray
from zstandard import ZstdError

from ..base.arrays import UInt8Array
from ..base.errors import DatasetError
from .codecs import Codec
from .layout import open_array, open_file, open_group, open_table
from .rows import (
    FIRST_TILE,
    FORMAT,
    HEADER_FIELDS,
    TILE_TABLE,
    VERSION,
    Header,
    Parts,
    Row,
    Window,
    read_table,
)

MOST_PIXELS = 2**29  # of one picture; a file that declares more is hostile


MOST_TILE = 4096  # px, a tile's side


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
    ZstdError,
    cv2.error,
)


class Memory:
    """Decoded tiles that will be asked for again, up to a number of bytes; the one used longest ago goes first."""

    def __init__(self, limit: int) -> None:
        """Remember at most `limit` bytes; 0 remembers nothing."""
        self._limit = limit
        self._size = 0
        self._tiles: OrderedDict[Hashable, UInt8Array] = OrderedDict()

    def get(self, key: Hashable) -> UInt8Array | None:
        """Return the tile, if it is still known."""
        tile = self._tiles.get(key)
        if tile is not None:
            self._tiles.move_to_end(key)
        return tile

    def put(self, key: Hashable, tile: UInt8Array) -> None:
        """Remember a tile, and forget others to make room."""
        if tile.nbytes > self._limit:
            return
        self._tiles[key] = tile
        self._size += tile.nbytes
        while self._size > self._limit:
            self._size -= self._tiles.popitem(last=False)[1].nbytes


class ArrayReader:
    """Read a stack of equally large pictures, or one picture, tile by tile, past HDF5: without its lock and its time.

    `tiles` says where they lie: offset and size, (tiles, 2), in the order of HDF5's chunks.
    """

    def __init__(
        self, dataset: h5py.Dataset, codec: Codec, tiles: NDArray[np.int64], descriptor: int, memory: Memory | None
    ) -> None:
        self._codec, self._descriptor, self._memory = codec, descriptor, memory
        self.size, self.tile = codec.tile_shape(dataset.shape), codec.tile_shape(dataset.chunks)
        if min(*self.tile, *self.size) < 1 or max(self.tile) > MOST_TILE or self.size[0] * self.size[1] > MOST_PIXELS:
            raise ValueError(f"{dataset.name} declares {self.size} px in tiles of {self.tile}")
        self._last = (3,) if codec.channels == 3 else ()
        self._token = object()  # what is remembered belongs to this array, and to no later one
        self.grid = -(-self.size[0] // self.tile[0]), -(-self.size[1] // self.tile[1])  # tiles: rows, columns
        self.tiles = tiles.reshape(-1, *self.grid, 2)

    def stored(self, index: int | None, row: int, column: int, start: int = 0, count: int | None = None) -> bytes:
        """Return a tile's bytes as they are stored, all or `count` from `start` on.

        Raises
        ------
        ValueError : it was never written, or the file ends before it
        """
        offset, size = self.tiles[index or 0, row, column].tolist()
        if not size:
            raise ValueError(f"tile ({row}, {column}) was never written")
        if count is not None:
            if start + count > size:
                raise ValueError(f"tile ({row}, {column}) is too short")
            offset, size = offset + start, count
        data = os.pread(self._descriptor, size, offset)
        if len(data) != size:
            raise ValueError(f"the file ends within tile ({row}, {column})")
        return data

    def decoded(self, index: int | None, row: int, column: int) -> UInt8Array:
        """Return a tile's pixels, remembered ones if there are; not to be written to."""
        if self._memory is None:
            return self._codec.decode(self.stored(index, row, column), self.tile)
        key = (self._token, index, row, column)
        tile = self._memory.get(key)
        if tile is None:
            tile = self._codec.decode(self.stored(index, row, column), self.tile)
            self._memory.put(key, tile)
        return tile

    def read(self, index: int | None, window: Window, out: UInt8Array | None = None) -> UInt8Array:
        """Decode a window of a picture, into `out` if given."""
        if out is None:
            out = np.empty((*window[2:], *self._last), np.uint8)
        for i, j, rows, columns, inside in self._pieces(window):
            out[inside] = self._rows(index, i, j, rows)[:, columns]
        return out

    def pixel(self, index: int | None, y: int, x: int) -> int:
        """Return one pixel of a mask."""
        (row, y), (column, x) = divmod(y, self.tile[0]), divmod(x, self.tile[1])
        if self._codec.bare:
            return self.stored(index, row, column, y * self.tile[1] + x, 1)[0]
        return int(self.decoded(index, row, column)[y, x])

    def lay(self, window: Window, where: UInt8Array, out: UInt8Array) -> None:
        """Decode a window of the one picture onto `out`, where a mask (H, W) is not 0, and only the tiles it takes."""
        for i, j, rows, columns, inside in self._pieces(window):
            if cv2.hasNonZero(where[inside]):
                cv2.copyTo(self.decoded(None, i, j)[rows, columns], where[inside], out[inside])

    def _pieces(self, window: Window) -> Iterator[tuple[int, int, slice, slice, tuple[slice, slice]]]:
        """Yield the tiles that a window touches: row and column, what it takes of the tile, and where that goes."""
        y, x, height, width = window
        tall, wide = self.tile
        for i in range(y // tall, -(-(y + height) // tall)):
            above = i * tall - y
            top, bottom = max(-above, 0), min(height - above, tall)
            for j in range(x // wide, -(-(x + width) // wide)):
                beside = j * wide - x
                left, right = max(-beside, 0), min(width - beside, wide)
                inside = slice(above + top, above + bottom), slice(beside + left, beside + right)
                yield i, j, slice(top, bottom), slice(left, right), inside

    def _rows(self, index: int | None, row: int, column: int, rows: slice) -> UInt8Array:
        """Return some of a tile's rows."""
        if self._memory is not None or not self._codec.bare:
            return self.decoded(index, row, column)[rows]
        length, count = self.tile[1] * self._codec.channels, rows.stop - rows.start
        data = self.stored(index, row, column, rows.start * length, count * length)
        return np.frombuffer(data, np.uint8).reshape(count, self.tile[1], *self._last)


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
    rows : list of Row
        Its composites.

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
            self.header = _read_header(self._file, path.name)
            self._codecs = self.header.codecs()
            self.rows = read_table(open_table(self._file, "samples"), size)
            early = not self._file.id.links.exists(TILE_TABLE.encode())
            self._tiles = None if early else _read_tile_table(open_table(self._file, TILE_TABLE), size)
        except DAMAGE as error:
            self._file.close()
            raise DatasetError(f"{path.name}: damaged ({error}); build again to render it anew") from None
        except DatasetError:
            self._file.close()
            raise
        self._groups: dict[int, dict[str, ArrayReader]] = {}

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, row: Row, window: Window | None = None) -> Parts:
        """Read a composite, or a window (y, x, height, width) of it, px.

        Raises
        ------
        ValueError
            The window is not inside the composite.
        DatasetError
            The composite is damaged.
        """
        with self._explain_damage(row):
            self._group_of(row)  # before anything is believed of what the row declares
        y, x, height, width = window or (0, 0, row.height, row.width)
        if min(y, x) < 0 or min(height, width) < 1 or y + height > row.height or x + width > row.width:
            raise ValueError(
                f"the window {height}×{width} at ({y}, {x}) is not inside the {row.height}×{row.width} px of {row.key}"
            )
        image, foreground, background = (np.empty((height, width, 3), np.uint8) for _ in range(3))
        trimap, alpha = (np.empty((height, width), np.uint8) for _ in range(2))
        parts = Parts(image, trimap, alpha, foreground, None if self.header.background == "none" else background)
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
        """Read a window, from its `corner` (y, x) px on, into arrays of its size; what is None is not read."""
        window = (*corner, *alpha.shape)
        with self._explain_damage(row):
            group = self._group_of(row)
            group["alpha"].read(None, window, alpha)
            group["trimap"].read(row.position, window, trimap)
            group["image"].read(row.position, window, image)
            if background is not None:
                group["background"].read(row.position, window, background)
            if foreground is not None:
                group["foreground"].read(None, window, foreground)
            if self._codecs.shares_opaque:
                opaque = (alpha == 255).view(np.uint8)
                group["foreground"].lay(window, opaque, image)

    def read_mask(self, row: Row, name: Literal["trimap", "alpha"]) -> UInt8Array:
        """Read a composite's trimap or alpha alone, (H, W) uint8. Raise DatasetError where it is damaged."""
        with self._explain_damage(row):
            return self._group_of(row)[name].read(
                row.position if name == "trimap" else None, (0, 0, row.height, row.width)
            )

    def first_of(self, row: Row, value: int, ys: Sequence[int], xs: Sequence[int]) -> tuple[int, int] | None:
        """Return the first of some px (y, x) of which a composite's trimap has this value; None where none has."""
        with self._explain_damage(row):
            array = self.arrays(row.group)["trimap"]
            pixels = zip(ys, xs, strict=True)
            return next(((y, x) for y, x in pixels if array.pixel(row.position, y, x) == value), None)

    def stored_tiles(self, number: int, name: str, position: int | None) -> list[list[bytes]]:
        """Return a picture's tiles as they are stored."""
        array = self.arrays(number)[name]
        rows, columns = array.grid
        return [[array.stored(position, i, j) for j in range(columns)] for i in range(rows)]

    def attributes(self, number: int) -> dict[str, str]:
        """Return a group's attributes: its foreground's key, and the digests of what it was made from."""
        return {name: str(value) for name, value in h5py.Group(open_group(self._file, number)).attrs.items()}

    def group_sha256(self, number: int) -> tuple[str, str]:
        """Return the digests of the files that a group's foreground and its partner, if any, came from."""
        attributes = self.attributes(number)
        return attributes["sha256"], attributes.get("partner_sha256", "")

    def hdf5_tiles(self, number: int, name: str) -> NDArray[np.int64]:
        """Ask HDF5 itself where an array's tiles lie: offset and size, (tiles, 2)."""
        kind = self.header.arrays()[name]
        return tile_offsets(
            open_array(open_group(self._file, number), name, kind.codec, kind.tile, stacked=kind.stacked)
        )

    @contextmanager
    def _explain_damage(self, row: Row) -> Iterator[None]:
        try:
            yield
        except DAMAGE as error:
            raise DatasetError(f"{self._path.name}: composite {row.key} is damaged ({error})") from None

    def _tiles_of(self, dataset: h5py.Dataset) -> NDArray[np.int64]:
        """Return where a dataset's tiles lie: the file says it, or, an early one, HDF5 does."""
        if self._tiles is None:
            return tile_offsets(dataset)
        first = read_integer(dataset, FIRST_TILE)
        count = math.prod(-(-side // tile) for side, tile in zip(dataset.shape, dataset.chunks, strict=True))
        return self._tiles[first : first + count]

    def _group_of(self, row: Row) -> dict[str, ArrayReader]:
        group = self.arrays(row.group)
        if (row.height, row.width) != group["alpha"].size:
            raise ValueError(f"its row says {row.height}×{row.width} px, its alpha has {group['alpha'].size}")
        return group

    def arrays(self, number: int) -> dict[str, ArrayReader]:
        """Return the arrays of a group, open, by name."""
        arrays = self._groups.get(number)
        if arrays is None:
            memories = {"alpha": self._memory, "foreground": self._memory}
            if not self._codecs.mask.bare:
                memories["trimap"] = self._recent
            group, descriptor = open_group(self._file, number), self._file.id.get_vfd_handle()
            arrays = {}
            for name, kind in self.header.arrays().items():
                stored = open_array(group, name, kind.codec, kind.tile, stacked=kind.stacked)
                arrays[name] = ArrayReader(stored, kind.codec, self._tiles_of(stored), descriptor, memories.get(name))
            if len({array.size for array in arrays.values()}) > 1:
                raise ValueError(f"the arrays of group {number} are of several sizes")
            self._groups[number] = arrays
        return arrays


def read_integer(dataset: h5py.Dataset, name: str) -> int:
    """Read an attribute, in a third of the time that h5py takes, which finds out its type first."""
    value = np.empty((), np.int64)
    h5py.h5a.open(dataset.id, name.encode()).read(value)
    return int(value)


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
    attributes = file.attrs
    if attributes.get("format") != FORMAT:
        raise DatasetError(f"{name}: an HDF5 file, but not a shard (format is {attributes.get('format')!r})")
    if attributes["version"] > VERSION:
        raise DatasetError(
            f"{name}: of format version {attributes['version']}; this program reads up to {VERSION}: update it"
        )
    if not attributes.get("complete"):
        raise DatasetError(f"{name}: unfinished; run the build again")
    values = (attributes[field] for field in HEADER_FIELDS)
    header = Header(*(value.item() if isinstance(value, np.generic) else value for value in values))
    for field in fields(Header):
        if type(getattr(header, field.name)).__name__ != field.type:
            raise ValueError(f"{field.name} is {getattr(header, field.name)!r}")
    return header
