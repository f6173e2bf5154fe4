"""System: what Linux, macOS and Windows each do in their own way, and modules that one of them lacks."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.context import BaseContext

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["READ_AT_ONCE", "count_cores", "fcntl", "peak_memory", "worker_context"]

# Flags of os.open to read bytes as they are, without waiting for who would write into a pipe, in no child process.
READ_AT_ONCE = os.O_RDONLY | sum(
    getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NONBLOCK", "O_BINARY", "O_NOINHERIT")
)


def peak_memory() -> int:
    """Return this process's largest resident size, bytes; 0 where the system does not tell."""
    if resource is None:
        return 0
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def count_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_context(*preloaded: str) -> BaseContext:
    """Return how reading processes are started.

    Not forked from this process: a fork whose OpenCV or OpenMP had started threads waits for them for ever. The server
    that they are forked from has imported the modules that are `preloaded`, so that they start at once and share its
    memory; where there can be none each process starts anew.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", *preloaded])
    return context
