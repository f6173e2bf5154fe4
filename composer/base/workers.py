"""Workers: one function over many tasks, in processes of this machine; or joblib's tasks on a Dask cluster."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TypeVar

import cv2
import joblib

from .errors import RESUME_HINT, BuildError
from .packages import install_command

Task = TypeVar("Task")


Result = TypeVar("Result")


def run_in_processes(
    function: Callable[[Task], Result], tasks: Iterable[Task], count: int, jobs: int, *, ordered: bool = True
) -> Iterator[Result]:
    """Yield `function` of every task; with one job, or one task, in this process.

    Parameters
    ----------
    function : Callable[[Task], Result]
        What processes can import by its name.
    tasks : Iterable[Task]
        Taken as workers are free for them; relative paths in them are relative to this process's folder.
    count : int
        How many there are.
    jobs : int
        Worker processes; -1 for one per core.
    ordered : bool
        In the order of the tasks, else as they are done.

    Raises
    ------
    BuildError
        A worker process was killed, or has no memory left.
    """
    workers = min(joblib.effective_n_jobs(jobs), max(count, 1))
    local = _uses_local_workers()
    parallel = joblib.Parallel(
        n_jobs=workers,
        return_as="generator" if ordered else "generator_unordered",
        **({"initializer": _start_worker, "initargs": (os.getpid(),)} if local else {}),
    )
    folder = Path.cwd() if local else None
    try:
        results = parallel(joblib.delayed(_run_task)(folder, function, task) for task in tasks)
        if workers > 1:
            _end_workers_at_exit()
        yield from results
    except joblib.externals.loky.process_executor.TerminatedWorkerError:
        raise BuildError(
            f"a worker process was killed, perhaps for want of memory (fewer --jobs take less). {RESUME_HINT}"
        ) from None
    except MemoryError:
        raise BuildError(f"there is no memory left for a worker (fewer --jobs take less). {RESUME_HINT}") from None


@functools.cache
def _end_workers_at_exit() -> None:
    """End workers by a signal when this process exits: they have nothing left to do.

    Loky asks them to leave, and waits; where that message is lost, which was seen on a busy machine, it waits forever.
    What is registered last is called first, so this must follow the start of its workers.
    """
    threading._register_atexit(_end_workers)  # type: ignore[attr-defined]  # atexit's own come after loky's wait


def _end_workers() -> None:
    executor = joblib.externals.loky.reusable_executor._executor
    if executor is not None:
        executor.shutdown(wait=True, kill_workers=True)


def _run_task(folder: Path | None, function: Callable[[Task], Result], task: Task) -> Result:
    if folder is not None:
        os.chdir(folder)  # a worker is used again, and would stay where it was started
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the processes are the parallelism
    try:
        return function(task)
    finally:
        cv2.setNumThreads(threads)  # it may be the caller's own process


def _start_worker(parent: int) -> None:
    """Leave Ctrl-C to the parent, as it reaches every process of a terminal; end when that is gone, however it went.

    Nobody waits for a worker any more then, and the same command may have been run again. What it leaves under a
    temporary name, that one removes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _uses_local_workers() -> bool:
    """Tell whether joblib's tasks would run in processes that this one starts, not in a cluster's."""
    return isinstance(joblib.parallel.get_active_backend()[0], joblib.parallel.LokyBackend)


@contextlib.contextmanager
def use_cluster(address: str | None) -> Iterator[None]:
    """Send joblib's tasks to a Dask cluster while the body runs; without an address, leave them where they run.

    Parameters
    ----------
    address : str or None
        Of its scheduler, ``tcp://host:port``.

    Raises
    ------
    BuildError
        Dask is not installed, nothing answers at the address, no worker is there, or too many were lost.
    """
    if address is None:
        yield
        return
    try:
        from distributed import Client, KilledWorker
    except ImportError:
        raise BuildError(f"--cluster needs Dask: {install_command('cluster')}") from None
    for chatter in ("distributed.client", "tornado.application"):
        logging.getLogger(chatter).setLevel(logging.CRITICAL)  # what a lost connection means is said below
    try:
        client = Client(address, timeout=10)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise BuildError(
            f"no Dask scheduler answers at {address} ({error}); is it running, and is that its address?"
        ) from None
    try:
        with client, joblib.parallel_config(backend="dask"):
            yield
    except CancelledError:
        raise BuildError(f"the Dask scheduler at {address} is gone. {RESUME_HINT}") from None
    except KilledWorker:
        raise BuildError(
            f"workers of the cluster were killed again and again, perhaps for want of memory. {RESUME_HINT}"
        ) from None
    except TimeoutError:
        raise BuildError(f"the Dask scheduler at {address} has no workers; start some: dask worker {address}") from None
