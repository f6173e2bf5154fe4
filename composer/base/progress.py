"""Progress: how far a long job is, in one form for all of them. What is shown of it is the console's business."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    Attributes
    ----------
    phase : str
        What is counted: ``composites``.
    done, total : int
        How much of it, of how much; `done` includes what earlier runs did, and what failed.
    failures : int
        How much of `done` failed.
    unit : {"", "bytes"}
        In what both are counted.
    detail : str
        What else is worth a look.
    """

    phase: str
    done: int
    total: int
    failures: int = 0
    unit: Literal["", "bytes"] = ""
    detail: str = ""


OnProgress = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """Do nothing: for jobs that nobody watches."""
