"""Array reader: the tiles of one array of pictures, read past HDF5, decoded, and remembered."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Hashable, Iterator

import cv2
import h5py
import numpy as np
from numpy.typing import NDArray

from ..base.arrays import UInt8Array
from .codecs import Codec
from .rows import Window

MOST_PIXELS = 2**29  # of one picture; a file that declares more is hostile


MOST_TILE = 4096  # px, a tile's side


Span = tuple[int, int, int, int]  # along one axis: a tile's number, its first px and the end, and where in the window


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

    def read_tile(self, index: int | None, row: int, column: int, start: int = 0, count: int | None = None) -> bytes:
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

    def decode_tile(self, index: int | None, row: int, column: int) -> UInt8Array:
        """Return a tile's pixels, remembered ones if there are; not to be written to."""
        if self._memory is None:
            return self._codec.decode(self.read_tile(index, row, column), self.tile)
        key = (self._token, index, row, column)
        tile = self._memory.get(key)
        if tile is None:
            tile = self._codec.decode(self.read_tile(index, row, column), self.tile)
            self._memory.put(key, tile)
        return tile

    def read(self, index: int | None, window: Window, out: UInt8Array | None = None) -> UInt8Array:
        """Decode a window of a picture, into `out` if given."""
        if out is None:
            out = np.empty((*window[2:], *self._last), np.uint8)
        down, across = self._spans(window)
        for i, top, bottom, at in down:
            band = out[at : at + bottom - top]
            if self._memory is not None:
                for j, left, right, to in across:
                    band[:, to : to + right - left] = self.decode_tile(index, i, j)[top:bottom, left:right]
            elif self._codec.bare:
                for j, left, right, to in across:
                    band[:, to : to + right - left] = self._read_rows(index, i, j, top, bottom)[:, left:right]
            else:
                for (_, left, right, to), data in zip(across, self._read_tiles(index, i, across), strict=True):
                    self._codec.decode_part(data, self.tile, (top, left), band[:, to : to + right - left])
        return out

    def read_where(self, index: int | None, where: UInt8Array) -> UInt8Array:
        """Decode all tiles of a picture, those in which a mask (H, W) is 0 only to prove that they are whole.

        Their pixels in what is returned are of no meaning.
        """
        out = np.empty((*self.size, *self._last), np.uint8)
        down, across = self._spans((0, 0, *self.size))
        for i, _, height, top in down:
            for (_, _, width, left), data in zip(across, self._read_tiles(index, i, across), strict=True):
                inside = slice(top, top + height), slice(left, left + width)
                part = out[inside] if cv2.hasNonZero(where[inside]) else out[inside][:0]
                self._codec.decode_part(data, self.tile, (0, 0), part)
        return out

    def read_pixel(self, index: int | None, y: int, x: int) -> int:
        """Return one pixel of a mask."""
        (row, y), (column, x) = divmod(y, self.tile[0]), divmod(x, self.tile[1])
        if self._codec.bare:
            return self.read_tile(index, row, column, y * self.tile[1] + x, 1)[0]
        return int(self.decode_tile(index, row, column)[y, x])

    def paste(self, window: Window, where: UInt8Array, out: UInt8Array) -> None:
        """Decode a window of the one picture onto `out`, where a mask (H, W) is not 0, and only the tiles it takes."""
        down, across = self._spans(window)
        for i, top, bottom, at in down:
            for j, left, right, to in across:
                inside = slice(at, at + bottom - top), slice(to, to + right - left)
                if cv2.hasNonZero(where[inside]):
                    cv2.copyTo(self.decode_tile(None, i, j)[top:bottom, left:right], where[inside], out[inside])

    def _spans(self, window: Window) -> tuple[list[Span], list[Span]]:
        """Return the rows and the columns of tiles that a window touches."""
        y, x, height, width = window
        return _spans_of(y, height, self.tile[0]), _spans_of(x, width, self.tile[1])

    def _read_tiles(self, index: int | None, row: int, across: list[Span]) -> Iterator[bytes | memoryview]:
        """Yield the bytes of tiles that are beside each other, as they are stored; at once, where they lie so."""
        first, last = across[0][0], across[-1][0]
        places = self.tiles[index or 0, row, first : last + 1].tolist()
        (start, _), (end, size) = places[0], places[-1]
        if end + size - start != sum(size for _, size in places) or min(size for _, size in places) == 0:
            yield from (self.read_tile(index, row, column) for column in range(first, last + 1))
            return
        data = memoryview(os.pread(self._descriptor, end + size - start, start))
        if len(data) != end + size - start:
            raise ValueError(f"the file ends within tile ({row}, {last})")
        for offset, size in places:
            yield data[offset - start : offset - start + size]

    def _read_rows(self, index: int | None, row: int, column: int, top: int, bottom: int) -> UInt8Array:
        """Return some rows of a tile that is stored bare."""
        length = self.tile[1] * self._codec.channels
        data = self.read_tile(index, row, column, top * length, (bottom - top) * length)
        return np.frombuffer(data, np.uint8).reshape(bottom - top, self.tile[1], *self._last)


def _spans_of(start: int, length: int, tile: int) -> list[Span]:
    """Return what a line of `length` px touches: each tile's number, what it takes of it, and where that goes."""
    return [
        (i, max(start - i * tile, 0), min(start + length - i * tile, tile), max(i * tile - start, 0))
        for i in range(start // tile, -(-(start + length) // tile))
    ]
