"""Fetch ahead: the shards that a stream needs next are copied out of object storage beside its reading.

Which ones they are follows from the order alone. So a network waits for the storage where that is too slow for it, and
not because it is far.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Sequence
from typing import Final

from ...composer.base.errors import DatasetError
from ...composer.base.storage import is_remote
from ...composer.dataset.dataset import Dataset
from .order import Order

__all__ = ["FetchAhead"]

AT_ONCE: Final = 4  # copies under way, in each process that reads; of several that want one shard one copies it


SHARDS: Final = 2  # how far ahead: in so many shards' worth of places, and as many new shards, by the order's nature


class FetchAhead:
    """Copy shards before they are needed; nothing is to be done for datasets that lie on this machine.

    What cannot be copied is not told here: its reader tries again, and says so.

    Parameters
    ----------
    datasets : Sequence of Dataset
        A stream's.
    order : Order
        The stream's.
    """

    def __init__(self, datasets: Sequence[Dataset], order: Order) -> None:
        self._datasets, self._order = datasets, order
        remote = [len(dataset) / len(dataset.shards) for dataset in datasets if is_remote(dataset.path)]
        self._ahead = int(SHARDS * len(datasets) * max(remote, default=0))
        self._next = 0  # the first place that was not looked at
        self._asked: set[tuple[int, int, int]] = set()
        self._wanted: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def look(self, place: int) -> None:
        """Have what the places from this one on need on its way."""
        for ahead in range(max(place, self._next), place + self._ahead):
            dataset, epoch, sample = self._order[ahead]
            shard = self._datasets[dataset].locate(sample)[0]
            if (dataset, epoch, shard) not in self._asked and is_remote(self._datasets[dataset].path):
                self._ask(dataset, epoch, shard)
        self._next = max(self._next, place + self._ahead)

    def _ask(self, dataset: int, epoch: int, shard: int) -> None:
        self._asked = {asked for asked in self._asked if asked[0] != dataset or asked[1] >= epoch - 1}
        self._asked.add((dataset, epoch, shard))
        self._wanted.put((dataset, shard))
        if len(self._threads) < AT_ONCE:
            thread = threading.Thread(target=self._copy, daemon=True)
            thread.start()
            self._threads.append(thread)

    def _copy(self) -> None:
        while True:
            dataset, shard = self._wanted.get()
            with contextlib.suppress(DatasetError):
                self._datasets[dataset].fetch(shard)
