"""Prefetch: fetch the next of something while the last one is being used."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

__all__ = ["Prefetcher"]

Item = TypeVar("Item")


STALLED: Final = 10.0  # seconds after which a thread that does not come back is left behind


class Prefetcher(Iterator[Item], Generic[Item]):
    """Iterate in a thread, one item before it is asked for.

    What it takes to receive a batch, a millisecond after a processor has been asleep or at other work, then passes
    beside the step and not between two.
    """

    def __init__(self, items: Iterator[Item]) -> None:
        self._requests: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._fetched: queue.SimpleQueue[Item | BaseException] = queue.SimpleQueue()
        thread = threading.Thread(target=_fetch, args=(items, self._requests, self._fetched), daemon=True)
        self._end = weakref.finalize(self, _let_go, thread, self._requests)  # at the program's end, at the latest
        thread.start()
        self._requests.put(True)

    def __next__(self) -> Item:
        item = self._fetched.get()
        self._requests.put(True)
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Fetch no more, and let go of the iterator."""
        self._end()


def _fetch(
    items: Iterator[Item], requests: queue.SimpleQueue[bool], fetched: queue.SimpleQueue[Item | BaseException]
) -> None:
    while requests.get():
        try:
            fetched.put(next(items))
        except BaseException as error:  # raised where it was asked for
            fetched.put(error)


def _let_go(thread: threading.Thread, requests: queue.SimpleQueue[bool]) -> None:
    requests.put(False)
    if thread is not threading.current_thread():  # that of the garbage collector
        thread.join(STALLED)
