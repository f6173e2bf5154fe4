"""Dataset: a folder of shards and its index, read as a sequence of composites. Needs no torch."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from zstandard import ZstdError

from ..base import storage as store
from ..base.errors import DatasetError
from ..base.progress import OnProgress
from ..base.storage import list_sizes
from .codecs import even_tile
from .documents import INDEX, Index, expect_type, read_index
from .reader import Memory, ShardReader
from .rows import MASK_TILES, Row, Window

Array = NDArray[np.uint8]


OPEN_SHARDS = 32  # files held open at once, if nobody says more: opening one takes as long as reading ten crops


@dataclass(frozen=True)
class Sample:
    """A composite and what it was made of, whole or a window of it.

    Attributes
    ----------
    image : (H, W, 3) uint8 RGB, the composite
    trimap : (H, W) uint8, 0 background, 128 unknown, 255 foreground
    alpha : (H, W) uint8, 0 clear .. 255 opaque
    foreground : (H, W, 3) uint8 RGB
    background : (H, W, 3) uint8 RGB as fitted, or None where the recipe did not store it; with ``unknown`` it is
        zero outside the unknown region
    row : key, names, radii, offsets, scale
    """

    image: Array
    trimap: Array
    alpha: Array
    foreground: Array
    background: Array | None
    row: Row


@dataclass(frozen=True)
class ShardInfo:
    """A shard as the index lists it."""

    file: str
    index: int
    split: str
    composites: int
    bytes: int
    sha256: str


class Dataset(Sequence[Sample]):
    """A finished dataset: ``len``, index, slice-free iteration, windows.

    Safe to hand to other processes, forked or spawned: files are opened where they are read, at most
    `keep_open` at once, and never carried across.

    Parameters
    ----------
    path : the folder, or its address in object storage
    remember : bytes of decoded tiles of alphas, trimaps and foregrounds that each process may keep, for readers that
        come back to them: a foreground's are the same for all its composites
    """

    def __init__(self, path: str | Path, remember: int = 0) -> None:
        self.path = store.resolve_path(path)
        self._remember = remember
        self._memory = Memory(remember) if remember else None
        self.document = read_index(self.path)
        self.shards = tuple(_shard_info(entry) for entry in self.document["shards"])
        self._starts = [0, *accumulate(shard.composites for shard in self.shards)]
        self._readers: OrderedDict[int, ShardReader] = OrderedDict()
        self.keep_open = OPEN_SHARDS  # who comes back to more of them raises it
        self._process = os.getpid()

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        """Read a composite whole."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._sample(index, None)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def window(self, index: int, y: int, x: int, height: int, width: int) -> Sample:
        """Read only the part of a composite whose top-left px is (y, x).

        Raises
        ------
        ValueError : the window is not inside the composite
        """
        return self._sample(index, (y, x, height, width))

    def row(self, index: int) -> Row:
        """Return a composite's row; no pixels are read."""
        shard, place = self.locate(index)
        return self.reader(shard).rows[place]

    def rows(self) -> Iterator[Row]:
        """Yield every row, in order."""
        for shard in range(len(self.shards)):
            yield from self.reader(shard).rows

    def locate(self, index: int) -> tuple[int, int]:
        """Return the shard, and the place in it, of composite `index`."""
        length = len(self)
        if not -length <= index < length:
            raise IndexError(f"composite {index} of a dataset of {length}")
        index %= length
        shard = bisect_right(self._starts, index) - 1
        return shard, index - self._starts[shard]

    def reader(self, shard: int) -> ShardReader:
        """Return an open shard; the one used longest ago is closed when too many are open."""
        if self._process != os.getpid():  # forked: the parent's files are not ours to read or to close
            self._inherited, self._readers, self._process = self._readers, OrderedDict(), os.getpid()
        reader = self._readers.get(shard)
        if reader is None:
            info = self.shards[shard]
            path = store.cache_locally(self.path / "shards" / info.file, info.bytes, info.sha256)
            reader = ShardReader(path, self._memory if self._remember else None)
            if reader.header.plan_sha256 != self.document["plan_sha256"]:
                raise DatasetError(f"{self.shards[shard].file}: belongs to another dataset; build again to restore it")
            if len(reader.rows) != self.shards[shard].composites:
                raise DatasetError(
                    f"{self.shards[shard].file}: has {len(reader.rows):,} composites, but {INDEX} says"
                    f" {self.shards[shard].composites:,}; `inspect --verify` tells which is wrong"
                )
            self._readers[shard] = reader
            if len(self._readers) > self.keep_open:
                self._readers.popitem(last=False)[1].close()
        self._readers.move_to_end(shard)
        return reader

    def close(self) -> None:
        """Close the files; they open again when read."""
        while self._readers:
            self._readers.popitem()[1].close()

    def _sample(self, index: int, window: Window | None) -> Sample:
        shard, place = self.locate(index)
        reader = self.reader(shard)
        row = reader.rows[place]
        return Sample(*reader.read(row, window), row)

    def __getstate__(self) -> dict[str, Any]:
        memory = Memory(self._remember) if self._remember else None
        return {**self.__dict__, "_readers": OrderedDict(), "_inherited": None, "_memory": memory}


def open_dataset(path: str | Path, remember: int = 0) -> Dataset:
    """Open a dataset that `matting-compose build` has finished; see `Dataset` for `remember`.

    >>> ds = open_dataset("demo")                     # doctest: +SKIP
    >>> sample = ds[0]                                # doctest: +SKIP
    >>> crop = ds.window(0, y=64, x=64, height=320, width=320)   # doctest: +SKIP

    Raises
    ------
    DatasetError : `path` holds no dataset, an unfinished one, or one of a newer version
    """
    return Dataset(path, remember)


def _shard_info(entry: dict[str, Any]) -> ShardInfo:
    try:
        info = ShardInfo(**entry)
        for field in fields(ShardInfo):
            expect_type(getattr(info, field.name), {"str": str, "int": int}[str(field.type)], field.name)
        if info.composites < 0:
            raise ValueError(f"composites is {info.composites}")
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{INDEX}: damaged ({error}); run the build again to restore it") from None
    if info.file != Path(info.file).name or not info.file.startswith("shard-"):
        raise DatasetError(f"{INDEX}: '{info.file}' is no shard's name; a shard lies in the dataset's own folder")
    return info


def absent_shards(folder: Path, index: Index) -> tuple[str, ...]:
    """Name the shards that are missing, or of another size than the index says."""
    there = list_sizes(folder / "shards")
    return tuple(shard.file for shard in index.shards if there.get(shard.file) != shard.bytes)


def read_rows(dataset: Dataset, absent: Sequence[str] = (), on_progress: OnProgress | None = None) -> dict[int, Row]:
    """Read the rows of all shards but the absent ones, by their composites' numbers."""
    rows: dict[int, Row] = {}
    start = 0
    for number, shard in enumerate(dataset.shards):
        if shard.file not in absent:
            rows |= dict(enumerate(open_shard(dataset, number).rows, start))
        start += shard.composites
        if on_progress:
            on_progress("tables", number + 1, len(dataset.shards))
    return rows


def open_shard(dataset: Dataset, number: int) -> ShardReader:
    """Open a shard; what a damaged or foreign file makes HDF5 say becomes an error that names the file."""
    try:
        return dataset.reader(number)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, MemoryError) as error:
        raise DatasetError(
            f"{dataset.shards[number].file}: damaged, or no shard ({error}); --verify tells more"
        ) from None


def read_mask(reader: ShardReader, row: Row, name: str) -> Array:
    """Read a composite's ``trimap`` or ``alpha`` without its colours, (H, W) uint8: a hundredth of the work.

    Raises
    ------
    DatasetError : it is damaged
    """
    height, width = row.height, row.width
    side = reader.header.tile * MASK_TILES
    tile = even_tile(height, side), even_tile(width, side)
    try:
        stored = reader.stored_tiles(row.group, name, row.position if name == "trimap" else None)
        decode = reader.header.codecs().mask.decode
        return np.vstack([np.hstack([decode(data, tile) for data in line]) for line in stored])[:height, :width]
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, ZstdError) as error:
        raise DatasetError(f"{row.key}: its {name} is damaged ({error}); --verify tells more") from None
