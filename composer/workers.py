"""Workers: one function over many tasks, in processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import joblib

from .errors import DatasetError

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_processes(function: Callable[[Task], Result], tasks: Sequence[Task], jobs: int) -> Iterator[Result]:
    """Yield `function` of every task, in their order; with one job, or one task, in this process.

    Raises
    ------
    DatasetError : a worker process was killed, or has no memory left
    """
    workers = min(joblib.effective_n_jobs(jobs), max(len(tasks), 1))
    try:
        yield from joblib.Parallel(n_jobs=workers, return_as="generator")(joblib.delayed(function)(t) for t in tasks)
    except joblib.externals.loky.process_executor.TerminatedWorkerError:
        raise DatasetError(
            "a worker process was killed, perhaps for want of memory (fewer --jobs take less); run the command again"
        ) from None
    except MemoryError:
        raise DatasetError("there is no memory left for a worker; fewer --jobs take less") from None
