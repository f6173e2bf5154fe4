"""Stream: shards in, batches of crops out, in an order that is a pure function of the seed.

The stream is endless; what comes at which of its places `order` says. Batch k holds the places [k·B, (k+1)·B), B being
the batch over all ranks, so a position is one number, and a run that goes on at batch k gets what it would have got,
with any number of workers.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ...composer.base.errors import DatasetError, MattingComposeError
from ...composer.base.system import count_cores, worker_context
from ...composer.dataset.dataset import Dataset
from .buffers import BufferPool, FilledBuffer
from .crops import Augment, CropBuffers, Transform, cut_crop, draw_window
from .fetch_ahead import FetchAhead
from .mix import Datasets, Mix, open_mix
from .order import Order
from .prefetch import Prefetcher
from .remix import Mixer, Remix
from .whole_scenes import WholeScenes

__all__ = ["Batch", "CropOrigin", "Stream", "check_dataset", "open_stream"]

SIZES: Final = (320, 480, 640)  # Deep Image Matting's windows


OPEN_SHARDS: Final = 8  # shards whose samples are mixed at any moment


@dataclass(frozen=True)
class Batch:
    """N crops of side S, on one device.

    Attributes
    ----------
    image : (N, 3, S, S) uint8 RGB
        Channels last in memory.
    trimap : (N, S, S) uint8 {0, 128, 255}
    alpha : (N, 1, S, S) uint8
    foreground, background : (N, 3, S, S) uint8 RGB or None
        None where they were not asked for; the background is zero outside the unknown region if the dataset keeps no
        more.
    samples : (N,) int64
        The composites' numbers, each in its dataset.
    datasets : (N,) int64
        Which of the stream's datasets each comes from.
    """

    image: Tensor
    trimap: Tensor
    alpha: Tensor
    foreground: Tensor | None
    background: Tensor | None
    samples: NDArray[np.int64]
    datasets: NDArray[np.int64]

    def __repr__(self) -> str:
        count, _, height, width = self.image.shape
        return f"Batch({count} crops of {width} × {height} px on {self.image.device})"

    def to(self, device: torch.device) -> Batch:
        """Copy to a device; where the memory is pinned, without waiting for it."""

        def move(part: Any) -> Any:
            return part.to(device, non_blocking=True) if isinstance(part, Tensor) else part

        return Batch(*map(move, vars(self).values()))


@dataclass(frozen=True)
class CropOrigin:
    """What a crop is cut from.

    Attributes
    ----------
    place : int
        The stream's, from 0.
    dataset : int
        Which of the stream's.
    epoch : int
        That dataset's own.
    key : str
        The composite's.
    top, left, side : int
        The window, px of the composite.
    mirrored : bool
    """

    place: int
    dataset: int
    epoch: int
    key: str
    top: int
    left: int
    side: int
    mirrored: bool


@dataclass(frozen=True)
class _Settings:
    """What the workers need to know; it travels to them."""

    batch: int
    world: int
    rank: int
    crop: int
    sizes: tuple[int, ...]
    seed: int
    open_shards: int
    colours: bool
    augment: Augment
    start: int
    transform: Transform | None
    remix: Remix | None = None
    scenes: WholeScenes | None = None
    skip: tuple[int, ...] = ()

    @property
    def bytes(self) -> int:
        """A batch's."""
        return self.batch * self.crop * self.crop * (11 if self.colours else 5)


class _Crops(IterableDataset[Any]):
    """Batches, filled whole where they are made: worker w of W makes every W-th."""

    def __init__(self, mix: Mix, split: str, settings: _Settings) -> None:
        self.datasets, self.settings = mix.datasets, settings
        self.pool = BufferPool(settings.bytes)
        self.order = Order(mix.datasets, mix.shares, split, settings.seed, settings.open_shards, settings.skip)
        self.mixer = None if settings.remix is None else Mixer(settings.remix, mix.datasets, split)

    def __iter__(self) -> Iterator[FilledBuffer | MattingComposeError]:
        worker = get_worker_info()
        number, step = (worker.id, worker.num_workers) if worker else (0, 1)
        k, ahead = self.settings.start + number, FetchAhead(self.datasets, self.order)
        while True:
            try:
                ahead.look(k * self.settings.world * self.settings.batch)
                yield self._batch(k)
            except MattingComposeError as error:  # raised in the main process, where it keeps its type and its words
                yield error
                return
            k += step

    def _batch(self, k: int) -> FilledBuffer:
        s = self.settings
        first = (k * s.world + s.rank) * s.batch
        data, slot = self.pool.take()
        parts = _split(data.numpy(), s.batch, s.crop, s.colours)
        names: list[tuple[int, int]] = []
        for i in range(s.batch):
            place = self.order[first + i]
            names.append((place.dataset, place.sample))
            out = CropBuffers(*(None if part is None else part[i] for part in parts))  # type: ignore[arg-type]
            rng = self.order.rng(place)
            cut_crop(
                self.datasets[place.dataset],
                place.sample,
                s.sizes,
                s.augment,
                rng,
                out,
                s.transform,
                self.mixer,
                s.scenes,
            )
        return FilledBuffer(data, slot, np.array(names).T)

    def origin(self, number: int) -> CropOrigin:
        """Find out what comes at a place, drawing anew what its crop draws first."""
        place, s = self.order[number], self.settings
        shard, position = self.datasets[place.dataset].locate(place.sample)
        reader, rng = self.datasets[place.dataset].reader(shard), self.order.rng(place)
        row = reader.rows[position]
        _, side, (top, left) = draw_window(reader, row, s.sizes, s.scenes, rng)
        mirrored = bool(rng.random() < s.augment.flip)
        return CropOrigin(number, place.dataset, place.epoch, row.key, top, left, side, mirrored)


def _split(data: Any, batch: int, crop: int, colours: bool) -> list[Any]:
    """Cut a batch's bytes, an array or a tensor, into image, trimap, alpha, foreground and background."""
    shapes = [(batch, crop, crop, 3), (batch, crop, crop), (batch, crop, crop)]
    if colours:
        shapes += [(batch, crop, crop, 3)] * 2
    parts: list[Any] = []
    start = 0
    for shape in shapes:
        stop = start + math.prod(shape)
        parts.append(data[start:stop].reshape(shape))
        start = stop
    return parts + [None] * (5 - len(parts))


class Stream:
    """Batches, without end or for some epochs; see `open_stream`. `close` ends its workers.

    An iteration goes on where the last one ended, so that nothing is given twice.

    Attributes
    ----------
    length : int
        Crops in an epoch: the first dataset's composites come once each, and the others' as their weights say.
    position : int
        Batches that this rank has been given, those before `start` included.
    """

    def __init__(self, crops: _Crops, workers: int, pin: bool, prefetch: int, epochs: int | None) -> None:
        self.length, self.position = crops.order.length, crops.settings.start
        self._settings, self._epochs, self._crops = crops.settings, epochs, crops
        if workers:
            crops.pool.share(workers, prefetch + 3)  # two are held while a third is asked for
        self._loader = DataLoader(
            crops,
            batch_size=None,  # they come whole
            num_workers=workers,
            pin_memory=pin,
            prefetch_factor=prefetch if workers else None,
            worker_init_fn=_start_worker,
            multiprocessing_context=worker_context(__name__) if workers else None,
        )
        self._prefetcher: Prefetcher[Batch] | None = None
        self._batches: Iterator[Batch] | None = None  # workers live from one iteration to the next

    def __len__(self) -> int:
        if self._epochs is None:
            raise TypeError("a stream without end has no length; open it with epochs=1")
        return math.ceil(self._epochs * self.length / (self._settings.batch * self._settings.world))

    def __repr__(self) -> str:
        s = self._settings
        end = "endless" if self._epochs is None else f"{len(self):,} batches an iteration"
        return f"Stream({self.length:,} samples, batch={s.batch}, crop={s.crop}, {end}, position={self.position:,})"

    def __iter__(self) -> Iterator[Batch]:
        if self._batches is None:
            self._batches = self._open()
        return self._take(self._batches)

    def _open(self) -> Iterator[Batch]:
        self._crops.settings = replace(self._settings, start=self.position)
        batches = map(self._batch, iter(self._loader))
        if not self._loader.num_workers:
            return batches
        self._prefetcher = Prefetcher(batches)
        return self._prefetcher

    def _take(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self.position += 1
            yield batch
            if self._epochs is not None and self.position % len(self) == 0:
                return

    def origins(self, places: Iterable[int]) -> list[CropOrigin]:
        """Say what crops are cut from, by their places: batch k of all ranks has those from ``k * world * batch`` on.

        Raises
        ------
        DatasetError
            A shard cannot be read.
        """
        return [self._crops.origin(place) for place in places]

    def state_dict(self) -> dict[str, int]:
        """Return where it is: what `load_state_dict` of a stream that is opened alike goes on from."""
        return {"position": self.position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from a state: the next iteration gives what would have followed, with any number of workers."""
        self.close()
        self.position = state["position"]

    def _batch(self, item: FilledBuffer | MattingComposeError) -> Batch:
        if isinstance(item, MattingComposeError):
            raise item
        s = self._settings
        image, trimap, alpha, foreground, background = _split(item.tensor(), s.batch, s.crop, s.colours)
        return Batch(
            image.permute(0, 3, 1, 2),
            trimap,
            alpha[:, None],
            None if foreground is None else foreground.permute(0, 3, 1, 2),
            None if background is None else background.permute(0, 3, 1, 2),
            item.names[1],
            item.names[0],
        )

    def close(self) -> None:
        """End the workers. An iteration after that starts them again."""
        if self._prefetcher is not None:
            self._prefetcher.close()  # the loader's iterator ends them when its thread lets it go
        self._prefetcher = self._batches = None


def _start_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the main one acts
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(1)  # the processes are the parallelism
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when the process that reads from it is gone, however it went; the server ends with the last."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def open_stream(
    datasets: Datasets | Mix,
    *,
    batch: int = 8,
    crop: int = 320,
    sizes: Sequence[int] = SIZES,
    seed: int = 431,
    split: str = "train",
    start: int = 0,
    rank: int = 0,
    world: int = 1,
    augment: Augment | None = None,
    colours: bool = False,
    open_shards: int = OPEN_SHARDS,
    workers: int = 0,
    prefetch: int = 4,
    pin: bool = False,
    epochs: int | None = None,
    transform: Transform | None = None,
    remix: Remix | None = None,
    scenes: WholeScenes | None = None,
    skip: Sequence[int] = (),
) -> Stream:
    """Open datasets as a stream of batches of crops.

    Parameters
    ----------
    datasets : str, Path, Dataset, or a list of them and of pairs of one and its weight
        A dataset's folder, or one that is open; several are mixed, ``["natural", ("composed", 0.3)]``: of 13 crops 10
        and 3. A weight is 1 where none is given, and lies within 0.001 and 1000.
    batch : int
        Crops per rank and batch.
    crop : int
        The crops' side, px.
    sizes : Sequence[int]
        The sides of the windows that become crops, px, one drawn for each.
    seed : int
        Decides order and crops: they depend on it, the weights, the epoch and the shards' sizes, and on nothing else.
    split : str
        ``train`` or ``validation``.
    start : int
        The batch to begin with; each rank then has read ``start · batch`` samples before.
    rank, world : int
        This process among how many; together they read what one with so many times the batch would.
    augment : Augment, optional
        Flips only, where None.
    colours : bool
        Give foregrounds and backgrounds too.
    open_shards : int
        Shards that are mixed at any moment, of each dataset.
    workers : int
        Processes that read ahead, `prefetch` batches each; 0 reads in this one. They are not forked from this process,
        so a script that asks for them does its work under ``if __name__ == "__main__":``.
    pin : bool
        In page-locked memory, for quick copies to a GPU.
    epochs : int, optional
        An iteration ends after so many, in whole batches, rounded up; the next one goes on where it ended, so that
        every sample comes once an epoch all the same. Of several datasets, the first one's epochs count. Without it
        there is no end.
    transform : Callable, optional
        ``transform(crop, rng)``, called where the crop is made, after `augment`. It changes the arrays of a
        `CropBuffers` in place, or returns others of the same shapes, drawing from `rng` alone: the sample's own. With
        workers it is a function of a module, not a lambda.
    remix : Remix, optional
        Compose crops anew, over crops of other composites, before `augment`.
    scenes : WholeScenes, optional
        Crops show whole scenes, and their trimaps are drawn from their alphas: see `whole_scenes`.

    Raises
    ------
    DatasetError
        No dataset, nothing in this split, no composite as large as the crop, or `colours` of a dataset without
        backgrounds; later, from the iteration, a shard that cannot be read.
    ValueError
        A number that is not positive.

    Examples
    --------
    >>> from matting_compose.composer import build, load_recipe
    >>> small = ["foregrounds.count=2", "foregrounds.sides=[64,80]", "backgrounds.count=2", "variants=2"]
    >>> _ = build(load_recipe("demo", [*small, "split.validation=0"]), "small", jobs=1)
    >>> stream = open_stream("small", batch=3, crop=32, sizes=(32, 48))
    >>> batch = next(iter(stream))
    >>> batch.image.shape, batch.alpha.dtype
    (torch.Size([3, 3, 32, 32]), torch.uint8)
    >>> stream = open_stream("small", batch=3, crop=32, sizes=(32, 48), epochs=1)
    >>> stream
    Stream(4 samples, batch=3, crop=32, 2 batches an iteration, position=0)
    >>> [len(batch.samples) for batch in stream]
    [3, 3]
    >>> stream.state_dict()
    {'position': 2}
    """
    settings = _Settings(
        batch,
        world,
        rank,
        crop,
        tuple(sizes),
        seed,
        open_shards,
        colours,
        augment or Augment(),
        start,
        transform,
        remix,
        scenes,
        tuple(skip),
    )
    if (
        min(batch, crop, open_shards, world, epochs or 1, *sizes) < 1
        or not 0 <= rank < world
        or min(start, workers) < 0
    ):
        raise ValueError(
            f"batch, crop, sizes, open_shards, world and epochs are positive, and 0 ≤ rank < world: {settings}"
        )
    mix = open_mix(datasets)
    for dataset in mix.datasets:
        dataset.keep_open = max(dataset.keep_open, 2 * open_shards)  # those that are mixed, and those that come and go
        check_dataset(dataset, split, crop, colours)
    crops = _Crops(mix, split, settings)
    return Stream(crops, min(workers, count_cores()), pin, prefetch, epochs)


def check_dataset(dataset: Dataset, split: str, crop: int, colours: bool) -> None:
    """Refuse a dataset that cannot give such crops.

    Raises
    ------
    DatasetError
        Nothing is in the split, layers are wanted and not there, or the crop is larger than every picture of a
        shard that stands for all: it would see none sharp.
    """
    if not len(dataset.numbers(split)):
        raise DatasetError(
            f"{dataset.path}: no composite is in the split '{split}', only in {', '.join(dataset.splits) or 'none'}"
            + ("; build with --set split.validation=0.1" if split == "validation" else "")
        )
    if colours and not dataset.has_layers:
        raise DatasetError(
            f"{dataset.path}: a loss that composes needs foregrounds and backgrounds, and some of these pictures were"
            " taken as they are (foregrounds.compose = false): nobody knows theirs; leave it out, or weight only"
            " losses on alpha"
        )
    if colours and dataset.background == "none":
        raise DatasetError(
            f"{dataset.path}: a loss that composes needs every crop's background, and this dataset was built without;"
            " build it with --set shards.background=unknown, leave it out, or weight only losses on alpha"
        )
    largest = max(min(row.height, row.width) for row in map(dataset.row, dataset.ranges(split)[0]))
    dataset.close()
    if largest < crop / 2:
        raise DatasetError(
            f"{dataset.path}: crops of {crop} px are more than twice as large as its composites (the largest of the"
            f" first shard is {largest} px on its shorter side); take --set stream.crop={max(32, largest // 32 * 32)}"
        )
