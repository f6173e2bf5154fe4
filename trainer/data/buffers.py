"""Room: memory for batches, used again and again.

Fresh memory is the dearest part of a batch: the system hands it out page by page, each cleared, which for 5 MB takes
longer than to decode what goes there; and memory shared between processes is opened, sent and mapped anew besides. So
a batch's memory is taken again once nobody holds the batch any more. Who keeps many batches gets fresh memory.
"""

from __future__ import annotations

import itertools
import weakref
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

Array: TypeAlias = NDArray[np.uint8]


Place: TypeAlias = tuple[int, int, int]  # a room's number, a worker, one of its slots


_ROOMS: Final[weakref.WeakValueDictionary[int, Room]] = weakref.WeakValueDictionary()


_NUMBERS: Final = itertools.count()


class Room:
    """Memory for batches of one size, in this process or, once it is shared, for its workers too."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: list[Array] = []
        self._slots: Tensor | None = None
        self._taken: Tensor | None = None
        self._number = next(_NUMBERS)
        _ROOMS[self._number] = self

    def share(self, workers: int, slots: int) -> None:
        """Make so many slots for each worker, in memory that it and this process see. Pages are used when written."""
        self._slots = torch.empty((workers, slots, self._size), dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
        self._taken = torch.zeros((workers, slots), dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]

    def take(self) -> tuple[Tensor, Place | None]:
        """Return memory to fill, and its place if it is a slot."""
        worker = get_worker_info()
        if worker is None:
            return self._lent(self._free.pop() if self._free else np.empty(self._size, np.uint8)), None
        if self._slots is None or self._taken is None:
            raise AssertionError("a worker has a room of its own only after `share`")
        free = (self._taken[worker.id] == 0).nonzero()
        if not len(free):
            return _fresh_shared(self._size), None
        slot = int(free[0])
        self._taken[worker.id, slot] = 1
        return self._slots[worker.id, slot], (self._number, worker.id, slot)

    def arrived(self, worker: int, slot: int) -> Tensor:
        """Return a slot that a worker has filled; it is free again when the tensor and all its views are gone."""
        if self._slots is None or self._taken is None:
            raise AssertionError("nothing arrives in a room that is not shared")
        view = self._slots[worker, slot].numpy()[:]
        weakref.finalize(view, self._taken[worker, slot].zero_).atexit = False
        return torch.from_numpy(view)

    def _lent(self, data: Array) -> Tensor:
        view = data[:]  # what the tensor holds, and with it all its views
        weakref.finalize(view, self._free.append, data).atexit = False
        return torch.from_numpy(view)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_free": []}


@dataclass
class Filled:
    """A batch's bytes and its samples' numbers. From a worker only the place of the bytes travels."""

    data: Tensor | None
    place: Place | None
    samples: NDArray[np.int64]

    def tensor(self) -> Tensor:
        """Return the bytes; call it once."""
        if self.place is not None:
            return _ROOMS[self.place[0]].arrived(*self.place[1:])
        if self.data is None:
            raise AssertionError("a batch is in memory of its own or has a place")
        return self.data

    def pin_memory(self) -> Filled:
        """Copy into page-locked memory: the loader's thread calls this."""
        return Filled(self.tensor().pin_memory(), None, self.samples)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "data": None if self.place else self.data}


def _fresh_shared(size: int) -> Tensor:
    # As torch's own default_collate does.
    storage: torch.UntypedStorage = torch.UntypedStorage._new_shared(size)  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=torch.uint8).set_(storage)
