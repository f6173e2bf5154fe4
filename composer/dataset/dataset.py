"""Dataset: a folder of shards and its index, read as a sequence of composites. Needs no torch."""

from __future__ import annotations

import base64
import hashlib
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from html import escape
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from ..base.arrays import UInt8Array
from ..base.errors import DatasetError
from ..base.packages import require_packages
from ..base.progress import OnProgress, Progress
from ..base.storage import cache_locally, list_sizes, resolve_path
from .array_reader import Memory
from .documents import INDEX, FailureRecord, Settings, ShardRecord, load_index
from .reader import ShardReader
from .rows import UNKNOWN, Row, Window, from_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 240  # px, the longer side of a picture in a notebook

OPEN_SHARDS = 32  # files held open at once, where no more are asked for: opening one takes as long as reading ten crops


@dataclass(frozen=True)
class Sample(Mapping[str, UInt8Array]):
    """A composite and what it was made of, whole or a window of it.

    Also a mapping of its pictures by their names, without those that are None: ``transform(**sample)``, and torch's
    ``default_collate`` makes a dict of tensors of several that are of one size.

    Attributes
    ----------
    image : (H, W, 3) uint8 RGB
        The composite.
    trimap : (H, W) uint8
        0 background, 128 unknown, 255 foreground.
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    foreground : (H, W, 3) uint8 RGB or None
        Its colours, also where alpha is 0; None of a picture as it is.
    background : (H, W, 3) uint8 RGB or None
        As fitted; None where the recipe did not store it, and of a picture as it is. With ``unknown`` it is zero
        outside the unknown region.
    row : Row
        Key, names, radii, offsets, scale.
    """

    image: UInt8Array
    trimap: UInt8Array
    alpha: UInt8Array
    foreground: UInt8Array | None
    background: UInt8Array | None
    row: Row

    @property
    def colours(self) -> UInt8Array:
        """What a cut-out shows, (H, W, 3) uint8 RGB: the foreground's colours, or those of a picture as it is."""
        return self.image if self.foreground is None else self.foreground

    def __getitem__(self, name: str) -> UInt8Array:
        if name not in iter(self):
            raise KeyError(name)
        picture: UInt8Array = getattr(self, name)
        return picture

    def __iter__(self) -> Iterator[str]:
        return (field.name for field in fields(self) if isinstance(getattr(self, field.name), np.ndarray))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        height, width = self.alpha.shape
        return f"Sample({self.row.key!r}: {width} × {height} px, {np.mean(self.trimap == UNKNOWN):.0%} unknown)"

    def plot(self) -> Figure:
        """Draw image, trimap, alpha and foreground side by side: a figure of Matplotlib, to be shown or saved.

        Raises
        ------
        MattingComposeError
            Matplotlib is not installed.
        """
        require_packages("matplotlib", extra="notebook")
        from matplotlib.figure import Figure

        figure = Figure(figsize=(12, 3.4), layout="constrained")
        for axes, (name, picture) in zip(figure.subplots(1, 4), self._views().items(), strict=True):
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
            axes.set_title(name)
            axes.axis("off")
        figure.suptitle(self.row.key)
        return figure

    def _repr_html_(self) -> str:
        """Show the same in a notebook, as small pictures within the page."""
        shown = [f"<p>{escape(repr(self))}</p>"]
        for name, picture in self._views().items():
            scale = min(1.0, SHOWN / max(picture.shape[:2]))
            small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            data = cv2.imencode(".png", small[..., ::-1] if small.ndim == 3 else small)[1].tobytes()
            code = base64.b64encode(data).decode()
            shown.append(f'<img alt="{name}" title="{name}" src="data:image/png;base64,{code}">')
        return "".join(shown)

    def _views(self) -> dict[str, UInt8Array]:
        return {"image": self.image, "trimap": self.trimap, "alpha": self.alpha, "foreground": self.colours}


class Dataset(Sequence[Sample]):
    """A finished dataset: ``len``, numbers, slices, iteration, windows.

    Safe to hand to other processes, forked or spawned: files are opened where they are read, at most `keep_open` at
    once, and never carried across.

    Parameters
    ----------
    path : str or Path
        The folder, or its address in object storage.
    remember : int
        Bytes of decoded tiles of alphas, trimaps and foregrounds that each process may keep, for readers that come back
        to them: a foreground's are the same for all its composites.

    Attributes
    ----------
    metadata : Index
        What its `dataset.json` says.
    shards : tuple of ShardRecord
        Composites are numbered through them.
    keep_open : int
        Who comes back to more shards than these raises it.
    """

    def __init__(self, path: str | Path, remember: int = 0) -> None:
        self.path = resolve_path(path)
        self.metadata = load_index(self.path)
        self.shards: tuple[ShardRecord, ...] = tuple(self.metadata.shards)
        self.keep_open = OPEN_SHARDS
        self._remember = remember
        self._memory = Memory(remember) if remember else None
        self._starts = [0, *accumulate(shard.composites for shard in self.shards)]
        self._readers: OrderedDict[int, ShardReader] = OrderedDict()
        self._process = os.getpid()

    def __repr__(self) -> str:
        splits = ", ".join(f"{len(self.numbers(split)):,} {split}" for split in self.splits)
        return f"Dataset({str(self.path)!r}: {len(self):,} composites in {len(self.shards):,} shards; {splits})"

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, number: int) -> Sample: ...
    @overload
    def __getitem__(self, number: slice) -> list[Sample]: ...
    def __getitem__(self, number: int | slice) -> Sample | list[Sample]:
        """Read a composite whole."""
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        return self._sample(number, None)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def window(self, number: int, y: int, x: int, height: int, width: int) -> Sample:
        """Read only a part of a composite.

        Parameters
        ----------
        number : int
            The composite's; negative ones count from the end.
        y, x : int
            Its top-left pixel.
        height, width : int
            Px.

        Raises
        ------
        IndexError
            There is no such composite.
        ValueError
            The window is not inside the composite.
        DatasetError
            The shard cannot be read.

        Examples
        --------
        >>> from matting_compose.composer import build, load_recipe, open_dataset
        >>> small = ["foregrounds.count=2", "foregrounds.sides=[64,80]", "backgrounds.count=2", "variants=2"]
        >>> _ = build(load_recipe("demo", small), "small", jobs=1)
        >>> crop = open_dataset("small").window(0, y=8, x=16, height=32, width=48)
        >>> crop.image.shape, crop.alpha.shape
        ((32, 48, 3), (32, 48))
        """
        return self._sample(number, (y, x, height, width))

    @property
    def plan_sha256(self) -> str:
        """The digest of its plan, which two datasets share only if they hold the same composites."""
        return self.metadata.plan_sha256

    @property
    def sha256(self) -> str:
        """The digest of its content: another one where a single pixel is, or a version of what made it.

        Of the lines "SHA-256, two spaces, name" of its shards, and "library version" of what made them, in the index's
        order. Inspection shows it; exports, checkpoints and runs keep it, and compare.
        """
        lines = [f"{shard.sha256}  {shard.file}\n" for shard in self.shards]
        lines += [f"{name} {version}\n" for name, version in self.metadata.made_with.items()]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe that it was built with, as its index has it."""
        return self.metadata.recipe

    @property
    def settings(self) -> Settings:
        """The recipe's keys that looking at a dataset needs."""
        return self.metadata.settings

    @property
    def background(self) -> Literal["none", "unknown", "full"]:
        """How much of each composite's background is stored: nothing, the unknown region, or all."""
        return self.settings.shards.background

    @property
    def has_layers(self) -> bool:
        """Whether every sample has a foreground's colours; pictures as they are have not."""
        tables = self.recipe.get("foregrounds")
        tables = tables if isinstance(tables, list) else [tables]
        return not any(isinstance(table, dict) and table.get("compose") is False for table in tables)

    @property
    def failures(self) -> Sequence[FailureRecord]:
        """The composites that were planned and could not be made."""
        return self.metadata.failures

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that it has shards of, sorted."""
        return tuple(sorted({shard.split for shard in self.shards}))

    def ranges(self, split: str | None = None) -> list[range]:
        """List the numbers of the composites of each shard that has some; of one split, or of all."""
        bounds = zip(self.shards, self._starts, self._starts[1:], strict=False)
        return [range(start, end) for shard, start, end in bounds if start < end and split in (None, shard.split)]

    def numbers(self, split: str | None = None) -> NDArray[np.int64]:
        """Return the numbers of the composites of one split, or of all, ascending."""
        parts = [np.arange(numbers.start, numbers.stop) for numbers in self.ranges(split)]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def shard_of(self, number: int) -> ShardRecord:
        """Return the index's record of the shard that a composite lies in."""
        return self.shards[self.locate(number)[0]]

    def missing_shards(self) -> tuple[str, ...]:
        """Name the shards that are missing, or of another size than the index says."""
        there = list_sizes(self.path / "shards")
        return tuple(shard.file for shard in self.shards if there.get(shard.file) != shard.bytes)

    def row(self, number: int) -> Row:
        """Return a composite's row; no pixels are read."""
        shard, position = self.locate(number)
        return self.reader(shard).row(position)

    def rows(self) -> Iterator[Row]:
        """Yield every row, in order."""
        for shard in range(len(self.shards)):
            yield from self.reader(shard).rows

    def split_by_shard(self, numbers: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield each shard that holds some of these numbers, which ascend, with its own of them."""
        for shard, (first, end) in enumerate(pairwise(np.searchsorted(numbers, self._starts).tolist())):
            if first < end:
                yield shard, numbers[first:end]

    def read_rows(self, numbers: NDArray[np.int64]) -> Iterator[tuple[int, Row]]:
        """Yield the rows of some composites, whose numbers ascend, with those; a shard's at a time are held."""
        for shard, own in self.split_by_shard(numbers):
            table = self.reader(shard).table[own - self._starts[shard]]
            yield from zip(own.tolist(), from_table(table), strict=True)

    def read_tables(
        self, skip: Collection[str] = (), on_progress: OnProgress | None = None
    ) -> Iterator[tuple[range, NDArray[np.void]]]:
        """Yield the tables of all shards but those to `skip`, with their composites' numbers; see `docs/format.md`."""
        for shard, record in enumerate(self.shards):
            if record.file not in skip:
                yield range(self._starts[shard], self._starts[shard + 1]), self.reader(shard).table
            if on_progress:
                on_progress(Progress("tables", shard + 1, len(self.shards)))

    def read_mask(self, number: int, name: Literal["trimap", "alpha"]) -> UInt8Array:
        """Read a composite's trimap or alpha without its colours, (H, W) uint8: a hundredth of the work."""
        shard, position = self.locate(number)
        reader = self.reader(shard)
        return reader.read_mask(reader.row(position), name)

    def locate(self, number: int) -> tuple[int, int]:
        """Return which shard composite `number` lies in, and at which row of its table.

        Raises
        ------
        IndexError
            There is no such composite.
        """
        length = len(self)
        if not -length <= number < length:
            raise IndexError(f"composite {number} of a dataset of {length}")
        number %= length
        shard = bisect_right(self._starts, number) - 1
        return shard, number - self._starts[shard]

    def reader(self, shard: int) -> ShardReader:
        """Return an open shard; the one used longest ago is closed when too many are open.

        Raises
        ------
        DatasetError
            It is missing, damaged, or not the one that the index lists.
        """
        if self._process != os.getpid():  # forked: the parent's files are not ours to read or to close
            self._inherited, self._readers, self._process = self._readers, OrderedDict(), os.getpid()
        reader = self._readers.get(shard)
        if reader is None:
            reader = self._readers[shard] = self._open(shard)
            if len(self._readers) > self.keep_open:
                self._readers.popitem(last=False)[1].close()
        self._readers.move_to_end(shard)
        return reader

    def close(self) -> None:
        """Close the files; they open again when read."""
        while self._readers:
            self._readers.popitem()[1].close()

    def fetch(self, shard: int) -> Path:
        """Return a shard's file on this machine, copied here first if it lies in object storage.

        Raises
        ------
        DatasetError
            It is missing, or not the one that the index lists.
        """
        record = self.shards[shard]
        return cache_locally(self.path / "shards" / record.file, record.bytes, record.sha256)

    def _open(self, shard: int) -> ShardReader:
        record = self.shards[shard]
        reader = ShardReader(self.fetch(shard), self._memory)
        if reader.header.plan_sha256 != self.plan_sha256:
            reader.close()
            raise DatasetError(f"{record.file}: belongs to another dataset; build again to restore it")
        if len(reader.table) != record.composites:
            reader.close()
            raise DatasetError(
                f"{record.file}: has {len(reader.table):,} composites, but {INDEX} says {record.composites:,};"
                " `inspect --verify` tells which is wrong"
            )
        return reader

    def _sample(self, number: int, window: Window | None) -> Sample:
        shard, position = self.locate(number)
        reader = self.reader(shard)
        row = reader.rows[position]
        return Sample(*reader.read(row, window), row)

    def __getstate__(self) -> dict[str, Any]:
        memory = Memory(self._remember) if self._remember else None
        return {**self.__dict__, "_readers": OrderedDict(), "_inherited": None, "_memory": memory}


def open_dataset(path: str | Path, remember: int = 0) -> Dataset:
    """Open a dataset that `build` has finished.

    Parameters
    ----------
    path : str or Path
        The folder, or its address in object storage, such as ``s3://bucket/dataset``.
    remember : int
        See `Dataset`.

    Raises
    ------
    DatasetError
        `path` holds no dataset, an unfinished one, a damaged one, or one of a newer version.

    Examples
    --------
    >>> from matting_compose.composer import build, load_recipe, open_dataset
    >>> small = ["foregrounds.count=2", "foregrounds.sides=[64,80]", "backgrounds.count=2", "variants=2"]
    >>> _ = build(load_recipe("demo", small), "small", jobs=1)
    >>> dataset = open_dataset("small")
    >>> len(dataset)
    4
    >>> sample = dataset[0]
    >>> sample.image.dtype, sample.image.shape[2], sample.row.variant
    (dtype('uint8'), 3, 0)
    """
    return Dataset(path, remember)
