"""Target: a reader of untrusted bytes, what to begin from, and where its files lie. See targets.py for all of them."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Target:
    """A reader: `run` takes the bytes, `seeds` yields some to begin from, `repair` makes mutated ones credible."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]
    repair: Callable[[bytes], bytes] = bytes


@cache
def home() -> Path:
    """Return this process's own folder, in memory where there is such a place."""
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix=f"targets-{os.getpid()}-", dir=memory if memory.is_dir() else None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def file_of(data: bytes, name: str) -> Path:
    """Write the bytes to a file of this process."""
    path = home() / name
    path.write_bytes(data)
    return path
