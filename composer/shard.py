"""Shard: one HDF5 file of composites. Write it, prove it, read it. docs/format.md describes it for other readers.

Tiles are coded here and handed to HDF5 ready-made (``write_direct_chunk``), with the filter that decodes them named
in the file: h5py's one lock is held for a copy only, and no filter can fail in silence.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
import zlib
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import h5py
import numpy as np
from numpy.typing import NDArray
from zstandard import ZstdError

from .errors import BuildError, DatasetError
from .looks import UNCHANGED_LOOK, Look
from .packing import FILTERS, Codec, Packing, packing
from .scenes import UNCHANGED_SCENE, Scene

Array = NDArray[np.uint8]
Window = tuple[int, int, int, int]  # y, x, height, width

FORMAT = "matting-compose/shard"
VERSION = 1
MOST_PIXELS = 2**29  # of one picture; a file that declares more is hostile
MOST_TILE = 4096  # px, a tile's side
MASK_TILES = 2  # a mask's tile is so many times wider and higher than a picture's
PLACES = "tiles"  # the table of where the tiles lie
FIRST = "tiles"  # a dataset's attribute: its first row in that table
RECENT = 2_000_000  # bytes of a trimap's tiles that are kept: who looks for a pixel there then reads around it
LIBVER = ("v110", "v110")  # HDF5 of 2016 or newer reads it; its chunk index is a flat table, not a tree


@dataclass(frozen=True)
class Row:
    """A composite's row in its shard's table.

    Attributes
    ----------
    key : unique in the dataset: the foreground's name, ``_``, the variant
    foreground, variant, background : who meets whom
    background_sha256 : of the background's file
    height, width : px
    scale, offset_y, offset_x : see `composite.Placement`
    erode, dilate : see `trimap.DrawnTrimap`
    group, position : where it lies: ``groups/{group:05d}``, at index `position`
    look, scene : what was done to the foreground and to the background
    """

    key: str
    foreground: str
    variant: int
    background: str
    background_sha256: str
    height: int
    width: int
    scale: float
    offset_y: int
    offset_x: int
    erode: int
    dilate: int
    group: int
    position: int
    look: Look = UNCHANGED_LOOK
    scene: Scene = UNCHANGED_SCENE

    def columns(self) -> dict[str, Any]:
        """Return it flat: its fields, and ``look_number``, ``scene_blur`` and the like."""
        return {name: getattr(self, name) for name in _ROW_FIELDS} | _flat(vars(self))

    def drawn(self) -> list[tuple[str, Any]]:
        """Return what is unusual about its look and its scene, by column."""
        return [(name, value) for name, value in _flat(vars(self)).items() if value != _USUAL[name]]


@dataclass(frozen=True)
class Header:
    """A shard's attributes: what it is part of, and how to decode it."""

    plan_sha256: str
    index: int
    split: str
    packing: str
    quality: int
    tile: int
    background: str

    def codecs(self) -> Packing:
        """Return the codecs that its datasets were written with."""
        return packing(self.packing, self.quality)


class Parts(NamedTuple):
    """A composite, or a window of one.

    image (H, W, 3), trimap (H, W), alpha (H, W), foreground (H, W, 3), background (H, W, 3) or None; all uint8, RGB.
    """

    image: Array
    trimap: Array
    alpha: Array
    foreground: Array
    background: Array | None


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

    def encode(self, picture: Array) -> list[list[bytes]]:
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
def unnamed_filters() -> Iterator[None]:
    """Hide the filters that decode tiles from HDF5, which writes a filter's name beside its number where it knows one:
    what happens to be installed must not decide a shard's bytes. Our own reading and writing does without them.

    Raises
    ------
    BuildError : a dataset that another program's filter reads is open in this process
    """
    known = [number for number in FILTERS if h5py.h5z.filter_avail(number)]
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
        self._unnamed = unnamed_filters()
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
        _write_places(self._file, sorted({place[0] for place in self._written}))
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
        self._mixed: Array = np.zeros(size, np.uint8)

    def write_foreground(self, foreground: Array, alpha: Array) -> None:
        """Write the foreground (H, W, 3) RGB and its alpha (H, W)."""
        self._mixed = (alpha != 255).view(np.uint8)
        self._write("alpha", None, alpha)
        self._write("foreground", None, foreground)

    def write_composite(self, position: int, image: Array, trimap: Array, background: Array) -> None:
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

    def _write(self, name: str, index: int | None, picture: Array) -> None:
        array = self._arrays[name]
        array.write(index, array.encode(picture), self._written)


class Memory:
    """Decoded tiles that will be asked for again, up to a number of bytes; the one used longest ago goes first."""

    def __init__(self, limit: int) -> None:
        """Remember at most `limit` bytes; 0 remembers nothing."""
        self._limit = limit
        self._size = 0
        self._tiles: OrderedDict[Hashable, Array] = OrderedDict()

    def get(self, key: Hashable) -> Array | None:
        """Return the tile, if it is still known."""
        tile = self._tiles.get(key)
        if tile is not None:
            self._tiles.move_to_end(key)
        return tile

    def put(self, key: Hashable, tile: Array) -> None:
        """Remember a tile, and forget others to make room."""
        if tile.nbytes > self._limit:
            return
        self._tiles[key] = tile
        self._size += tile.nbytes
        while self._size > self._limit:
            self._size -= self._tiles.popitem(last=False)[1].nbytes


class _ArrayReader:
    """Read a stack of equally large pictures, or one picture, tile by tile, past HDF5: without its lock and its time.

    `places` says where the tiles lie: offset and size, (tiles, 2), in the order of HDF5's chunks.
    """

    def __init__(
        self, dataset: h5py.Dataset, codec: Codec, places: NDArray[np.int64], descriptor: int, memory: Memory | None
    ) -> None:
        self._codec, self._descriptor, self._memory = codec, descriptor, memory
        self.size, self.tile = codec.tile_shape(dataset.shape), codec.tile_shape(dataset.chunks)
        if min(*self.tile, *self.size) < 1 or max(self.tile) > MOST_TILE or self.size[0] * self.size[1] > MOST_PIXELS:
            raise ValueError(f"{dataset.name} declares {self.size} px in tiles of {self.tile}")
        self._last = (3,) if codec.channels == 3 else ()
        self._token = object()  # what is remembered belongs to this array, and to no later one
        self.grid = -(-self.size[0] // self.tile[0]), -(-self.size[1] // self.tile[1])  # tiles: rows, columns
        self._places = places.reshape(-1, *self.grid, 2)

    def stored(self, index: int | None, row: int, column: int, start: int = 0, count: int | None = None) -> bytes:
        """Return a tile's bytes as they are stored, all or `count` from `start` on.

        Raises
        ------
        ValueError : it was never written, or the file ends before it
        """
        offset, size = self._places[index or 0, row, column].tolist()
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

    def decoded(self, index: int | None, row: int, column: int) -> Array:
        """Return a tile's pixels, remembered ones if there are; not to be written to."""
        if self._memory is None:
            return self._codec.decode(self.stored(index, row, column), self.tile)
        key = (self._token, index, row, column)
        tile = self._memory.get(key)
        if tile is None:
            tile = self._codec.decode(self.stored(index, row, column), self.tile)
            self._memory.put(key, tile)
        return tile

    def read(self, index: int | None, window: Window, out: Array | None = None) -> Array:
        """Decode a window of a picture, into `out` if given."""
        if out is None:
            out = np.empty((*window[2:], *self._last), np.uint8)
        for i, j, rows, columns, place in self._pieces(window):
            out[place] = self._rows(index, i, j, rows)[:, columns]
        return out

    def pixel(self, index: int | None, y: int, x: int) -> int:
        """Return one pixel of a mask."""
        (row, y), (column, x) = divmod(y, self.tile[0]), divmod(x, self.tile[1])
        if self._codec.bare:
            return self.stored(index, row, column, y * self.tile[1] + x, 1)[0]
        return int(self.decoded(index, row, column)[y, x])

    def lay(self, window: Window, where: Array, out: Array) -> None:
        """Decode a window of the one picture onto `out`, where a mask (H, W) is not 0, and only the tiles it takes."""
        for i, j, rows, columns, place in self._pieces(window):
            if cv2.hasNonZero(where[place]):
                cv2.copyTo(self.decoded(None, i, j)[rows, columns], where[place], out[place])

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
                place = slice(above + top, above + bottom), slice(beside + left, beside + right)
                yield i, j, slice(top, bottom), slice(left, right), place

    def _rows(self, index: int | None, row: int, column: int, rows: slice) -> Array:
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
    path : the file
    memory : where decoded tiles of alphas and foregrounds are kept: all of a foreground's composites ask for them

    Raises
    ------
    DatasetError : the file is missing, foreign, of a newer version, unfinished or damaged
    """

    def __init__(self, path: Path, memory: Memory | None = None) -> None:
        self._path = path
        self._memory = memory
        self._recent = Memory(RECENT)
        try:
            self._file = h5py.File(path, "r")
        except FileNotFoundError:
            raise DatasetError(f"{path.name}: the shard is missing; build again to render it") from None
        except OSError as error:
            raise DatasetError(f"{path.name}: not a readable HDF5 file ({error})") from None
        size = path.stat().st_size
        try:
            self.header = _read_header(self._file, path.name)
            self._codecs = self.header.codecs()
            self.rows = read_table(self._file["samples"], size)
            self._tiles = _read_places(self._file[PLACES], size) if PLACES in self._file else None
        except DAMAGE as error:
            self._file.close()
            raise DatasetError(f"{path.name}: damaged ({error}); build again to render it anew") from None
        except DatasetError:
            self._file.close()
            raise
        self._groups: dict[int, dict[str, _ArrayReader]] = {}

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, row: Row, window: Window | None = None) -> Parts:
        """Read a composite, or a window (y, x, height, width) of it, px."""
        with self._damage_explained(row):
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
        image: Array,
        trimap: Array,
        alpha: Array,
        foreground: Array | None,
        background: Array | None,
    ) -> None:
        """Read a window, from its `corner` (y, x) px on, into arrays of its size; what is None is not read."""
        window = (*corner, *alpha.shape)
        with self._damage_explained(row):
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

    def first_of(self, row: Row, value: int, ys: Sequence[int], xs: Sequence[int]) -> tuple[int, int] | None:
        """Return the first of some px (y, x) of which a composite's trimap has this value; None where none has."""
        with self._damage_explained(row):
            array = self._open_group(row.group)["trimap"]
            places = zip(ys, xs, strict=True)
            return next(((y, x) for y, x in places if array.pixel(row.position, y, x) == value), None)

    def stored_tiles(self, number: int, name: str, position: int | None) -> list[list[bytes]]:
        """Return a picture's tiles as they are stored."""
        array = self._open_group(number)[name]
        rows, columns = array.grid
        return [[array.stored(position, i, j) for j in range(columns)] for i in range(rows)]

    def group_sha256(self, number: int) -> tuple[str, str]:
        """Return the digests of the files that a group's foreground and its partner, if any, came from."""
        attributes = self._file[f"groups/{number:05d}"].attrs
        return str(attributes["sha256"]), str(attributes.get("partner_sha256", ""))

    @contextmanager
    def _damage_explained(self, row: Row) -> Iterator[None]:
        try:
            yield
        except DAMAGE as error:
            raise DatasetError(f"{self._path.name}: composite {row.key} is damaged ({error})") from None

    def _places(self, dataset: h5py.Dataset) -> NDArray[np.int64]:
        """Return where a dataset's tiles lie: the file says it, or, an early one, HDF5 does."""
        if self._tiles is None:
            return tile_places(dataset)
        first = stored_integer(dataset, FIRST)
        count = math.prod(-(-side // tile) for side, tile in zip(dataset.shape, dataset.chunks, strict=True))
        return self._tiles[first : first + count]

    def _group_of(self, row: Row) -> dict[str, _ArrayReader]:
        group = self._open_group(row.group)
        if (row.height, row.width) != group["alpha"].size:
            raise ValueError(f"its row says {row.height}×{row.width} px, its alpha has {group['alpha'].size}")
        return group

    def _open_group(self, number: int) -> dict[str, _ArrayReader]:
        arrays = self._groups.get(number)
        if arrays is None:
            codecs = self._codecs
            kinds = {
                "alpha": (codecs.mask, self._memory),
                "foreground": (codecs.foreground, self._memory),
                "image": (codecs.image, None),
                "trimap": (codecs.mask, None if codecs.mask.bare else self._recent),
            }
            if self.header.background != "none":
                kinds["background"] = (codecs.image, None)
            descriptor = self._file.id.get_vfd_handle()
            arrays = {}
            for name, (codec, memory) in kinds.items():
                path = f"groups/{number:05d}/{name}".encode()
                stored = h5py.Dataset(h5py.h5d.open(self._file.id, path))  # a fifth of the time of h5py's own look-up
                arrays[name] = _ArrayReader(stored, codec, self._places(stored), descriptor, memory)
            if len({array.size for array in arrays.values()}) > 1:
                raise ValueError(f"the arrays of group {number} are of several sizes")
            self._groups[number] = arrays
        return arrays


def stored_integer(dataset: h5py.Dataset, name: str) -> int:
    """Read an attribute, in a third of the time that h5py takes, which finds out its type first."""
    value = np.empty((), np.int64)
    h5py.h5a.open(dataset.id, name.encode()).read(value)
    return int(value)


def tile_places(dataset: h5py.Dataset) -> NDArray[np.int64]:
    """Ask HDF5 where a dataset's tiles lie: offset and size, (tiles, 2), zeros where there is none. 10 µs a tile."""
    found: list[tuple[int, ...]] = []
    dataset.id.chunk_iter(lambda chunk: found.append((*chunk.chunk_offset, chunk.byte_offset, chunk.size)))
    grid = [-(-side // tile) for side, tile in zip(dataset.shape, dataset.chunks, strict=True)]
    if math.prod(grid) > dataset.file.id.get_filesize():  # no tile is empty
        raise ValueError(f"{dataset.name} declares {math.prod(grid):,} tiles")
    places = np.zeros((math.prod(grid), 2), np.int64)
    if found:
        table = np.array(found, np.int64)
        cells = table[:, :-2] // np.array(dataset.chunks)
        places[np.ravel_multi_index(tuple(cells.T), grid)] = table[:, -2:]
    return places


def _read_places(table: h5py.Dataset, size: int) -> NDArray[np.int64]:
    """Read the table of where all tiles lie, of a file of `size` bytes."""
    if table.dtype != np.int64 or table.ndim != 2 or table.size * 8 > size:
        raise ValueError(f"a table of tiles of {table.shape} {table.dtype}")
    places: NDArray[np.int64] = table[()]
    if places.size and not 0 <= places.min() <= places.max() <= size:
        raise ValueError("its table of tiles leads out of the file")
    return places


def _write_places(file: h5py.File, names: Sequence[str]) -> None:
    """Write where all tiles lie into one table, and into each dataset from which row on its own are."""
    tables = [tile_places(file[name]) for name in names]
    for name, start in zip(names, accumulate(map(len, tables), initial=0), strict=False):
        file[name].attrs[FIRST] = start
    file.create_dataset(PLACES, data=np.concatenate([np.zeros((0, 2), np.int64), *tables]), track_times=False)


HEADER_FIELDS = tuple(field.name for field in fields(Header))
_PARTS: dict[str, Look | Scene] = {
    "look": UNCHANGED_LOOK,
    "scene": UNCHANGED_SCENE,
}  # a row's parts, each with its usual value


def _flat(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}_{name}": value for prefix in _PARTS for name, value in vars(parts[prefix]).items()}


_USUAL = _flat(_PARTS)
_TEXT = ("key", "foreground", "background", "background_sha256", "look_partner")
_NUMBERS = {
    "variant": "<u2",
    "height": "<u4",
    "width": "<u4",
    "scale": "<f8",
    "offset_y": "<u4",
    "offset_x": "<u4",
    "erode": "<u2",
    "dilate": "<u2",
    "group": "<u4",
    "position": "<u4",
}
_KINDS = {bool: "<u1", int: "<u2", float: "<f8"}  # of the parts' columns


def to_table(rows: Sequence[Row]) -> NDArray[np.void]:
    """Make the compound table; texts are UTF-8 of a fixed length, as long as the longest.

    A column of looks or scenes that has its usual value in every row is left out.
    """
    flat = [row.columns() for row in rows]
    names = [*_ROW_FIELDS, *(name for name, value in _USUAL.items() if any(row[name] != value for row in flat))]

    def kind(name: str) -> Any:
        if name not in _TEXT:
            return _NUMBERS.get(name) or _KINDS[type(_USUAL[name])]
        longest = max((len(row[name].encode()) for row in flat), default=1)
        return h5py.string_dtype("utf-8", max(longest, 1))

    table = np.zeros(len(rows), np.dtype([(name, kind(name)) for name in names]))
    for name in names:
        values = [row[name] for row in flat]
        table[name] = [value.encode() for value in values] if name in _TEXT else values
    return table


def from_table(table: NDArray[np.void]) -> list[Row]:
    """Return a shard's table as rows."""

    def column(name: str) -> list[Any]:
        values = table[name].tolist()
        return [value.decode() for value in values] if name in _TEXT else values

    columns = [column(name) for name in _ROW_FIELDS]
    for prefix, part in _PARTS.items():
        there = {name: value for name, value in vars(part).items() if f"{prefix}_{name}" in (table.dtype.names or ())}
        cells = zip(*(map(type(value), column(f"{prefix}_{name}")) for name, value in there.items()), strict=True)
        same = [part] * len(table)
        columns.append([type(part)(**dict(zip(there, values, strict=True))) for values in cells] if there else same)
    return [Row(*values) for values in zip(*columns, strict=True)]


_ROW_FIELDS = tuple(field.name for field in fields(Row) if field.name not in _PARTS)


def read_table(dataset: h5py.Dataset, most: int) -> list[Row]:
    """Read the table; one that declares more than `most` bytes, or pointers in place of texts, is not looked at."""
    columns = dataset.dtype  # h5py makes it anew each time
    names = [*_ROW_FIELDS, *(name for name in _USUAL if name in (columns.names or ()))]
    kinds = {name: columns[name].kind for name in names}
    whole = all(kinds[name] in "iu" for name, value in _USUAL.items() if name in kinds and isinstance(value, int))
    if (
        dataset.size * columns.itemsize > most
        or any((kinds[name] == "S") != (name in _TEXT) for name in names)
        or not whole
    ):
        raise ValueError(f"a table of {dataset.size:,} rows, {columns}")
    return from_table(dataset[()])


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


def _read_back(path: Path, written: dict[tuple[Any, ...], int], rows: Sequence[Row]) -> str:
    """Compare every tile in the file with what was written, and the table; return the file's SHA-256."""
    missing = dict(written)
    with path.open("rb", buffering=0) as raw, h5py.File(path, "r") as file:
        if from_table(file["samples"][()]) != list(rows):
            raise DatasetError(f"{path.name}: the table that was read back differs from what was written")
        for name in sorted({place[0] for place in written}):
            first, places = stored_integer(file[name], FIRST), tile_places(file[name])
            if not np.array_equal(file[PLACES][first : first + len(places)], places):
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
