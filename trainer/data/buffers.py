"""Buffers: memory for batches, used again and again.

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

__all__ = ["BufferPool", "FilledBuffer"]

Array: TypeAlias = NDArray[np.uint8]


Slot: TypeAlias = tuple[int, int, int]  # a pool's number, a worker, one of its buffers


_POOLS: Final[weakref.WeakValueDictionary[int, BufferPool]] = weakref.WeakValueDictionary()


_NUMBERS: Final = itertools.count()


class BufferPool:
    """Memory for batches of one size, in this process or, once it is shared, for its workers too."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: list[Array] = []
        self._slots: Tensor | None = None
        self._taken: Tensor | None = None
        self._number = next(_NUMBERS)
        _POOLS[self._number] = self

    def share(self, workers: int, slots: int) -> None:
        """Make so many slots for each worker, in memory that it and this process see. Pages are used when written."""
        self._slots = torch.empty((workers, slots, self._size), dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
        self._taken = torch.zeros((workers, slots), dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]

    def take(self) -> tuple[Tensor, Slot | None]:
        """Return memory to fill, and which slot it is if it is shared."""
        worker = get_worker_info()
        if worker is None:
            return self._lend(self._free.pop() if self._free else np.empty(self._size, np.uint8)), None
        if self._slots is None or self._taken is None:
            raise AssertionError("a worker has buffers only after `share`")
        free = (self._taken[worker.id] == 0).nonzero()
        if not len(free):
            return _fresh_shared(self._size), None
        slot = int(free[0])
        self._taken[worker.id, slot] = 1
        return self._slots[worker.id, slot], (self._number, worker.id, slot)

    def receive(self, worker: int, slot: int) -> Tensor:
        """Return a slot that a worker has filled; it is free again when the tensor and all its views are gone."""
        if self._slots is None or self._taken is None:
            raise AssertionError("nothing arrives in a pool that is not shared")
        view = self._slots[worker, slot].numpy()[:]
        weakref.finalize(view, self._taken[worker, slot].zero_).atexit = False
        return torch.from_numpy(view)

    def _lend(self, data: Array) -> Tensor:
        view = data[:]  # what the tensor holds, and with it all its views
        weakref.finalize(view, self._free.append, data).atexit = False
        return torch.from_numpy(view)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_free": []}


@dataclass
class FilledBuffer:
    """A batch's bytes, and which composites they are. From a worker only the slot of the bytes travels.

    `names` are (2, N) int64: datasets, and composites' numbers in them.
    """

    data: Tensor | None
    slot: Slot | None
    names: NDArray[np.int64]

    def tensor(self) -> Tensor:
        """Return the bytes; call it once."""
        if self.slot is not None:
            return _POOLS[self.slot[0]].receive(*self.slot[1:])
        if self.data is None:
            raise AssertionError("a batch is in memory of its own or in a slot")
        return self.data

    def pin_memory(self) -> FilledBuffer:
        """Copy into page-locked memory: the loader's thread calls this."""
        return FilledBuffer(self.tensor().pin_memory(), None, self.names)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "data": None if self.slot else self.data}


def _fresh_shared(size: int) -> Tensor:
    # As torch's own default_collate does.
    storage: torch.UntypedStorage = torch.UntypedStorage._new_shared(size)  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=torch.uint8).set_(storage)
