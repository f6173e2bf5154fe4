"""Counters: how far a build is, from counters that the workers of this machine keep in a shared file."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..base.progress import OnProgress, Progress
from ..base.text import format_size
from ..dataset.documents import Sidecar
from .plan import Plan

REFRESH = 0.2  # seconds between two looks at the counters


class ShardCounters:
    """One shard's counters, as its worker writes them; on another machine there are none, and only whole shards count.

    Parameters
    ----------
    file : Path
        `Counters.file`.
    index : int
        The shard's.
    """

    def __init__(self, file: Path, index: int) -> None:
        self._slot: NDArray[np.int64] | None = None
        with contextlib.suppress(OSError, ValueError):
            self._slot = np.memmap(file, np.int64, "r+").reshape(-1, 3)[index]

    def write(self, composites: int, failures: int, size: int) -> None:
        """Say how far the shard is; `size` in bytes."""
        if self._slot is not None:
            self._slot[:] = composites, failures, size


class Counters:
    """All shards' counters: a file of (shards, 3) int64, composites, failures and bytes."""

    def __init__(self, file: Path, shards: int) -> None:
        self.file = file
        file.write_bytes(bytes(shards * 3 * 8))  # room on the disk, without which to write to a map kills
        self._slots = np.memmap(file, np.int64, "r+", shape=(shards, 3))

    def finish(self, sidecar: Sidecar) -> None:
        """Note a finished shard, which a worker on another machine cannot."""
        self._slots[sidecar.index] = sidecar.composites, len(sidecar.failures), sidecar.bytes

    def read(self, total: int) -> Progress:
        """Return how far all shards together are; `total` composites are to be made."""
        composites, failures, size = (int(count) for count in self._slots.sum(axis=0))
        return Progress("composites", composites + failures, total, failures, detail=format_size(size))


@contextlib.contextmanager
def watch_counters(plan: Plan, done: Mapping[int, Sidecar], total: int, on_progress: OnProgress) -> Iterator[Counters]:
    """Call `on_progress` while the body runs, about five times a second, from another thread."""
    with tempfile.TemporaryDirectory(prefix="matting-compose-") as folder:
        counters = Counters(Path(folder) / "progress", len(plan.shards))
        for sidecar in done.values():
            counters.finish(sidecar)
        stop = threading.Event()

        def watch() -> None:
            while True:
                last = stop.wait(REFRESH)
                on_progress(counters.read(total))
                if last:
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield counters
        finally:
            stop.set()
            watcher.join()
