"""Mix: datasets that are read together, each with its weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from ...composer.dataset.dataset import Dataset, open_dataset
from .order import count_shares

__all__ = ["REMEMBER", "Datasets", "Mix", "open_mix"]

REMEMBER: Final = 256_000_000  # bytes of decoded tiles that each process keeps


One: TypeAlias = str | Path | Dataset


Datasets: TypeAlias = One | Sequence[One | tuple[One, float]]


@dataclass(frozen=True)
class Mix:
    """Open datasets, and how many crops of each come beside how many of the others."""

    datasets: tuple[Dataset, ...]
    weights: tuple[float, ...]

    @property
    def shares(self) -> tuple[int, ...]:
        """The weights, brought to whole numbers."""
        return count_shares(self.weights)

    def close(self) -> None:
        """Close their files; they open again when read."""
        for dataset in self.datasets:
            dataset.close()


def open_mix(datasets: Datasets | Mix) -> Mix:
    """Open one dataset or several; those that are open are taken as they are.

    Raises
    ------
    DatasetError
        As `open_dataset`.
    ValueError
        There is none.
    """
    if isinstance(datasets, Mix):
        return datasets
    several = [datasets] if isinstance(datasets, (str, Path, Dataset)) else list(datasets)
    pairs = [item if isinstance(item, tuple) else (item, 1.0) for item in several]
    if not pairs:
        raise ValueError("no dataset is given")
    remember = REMEMBER // len(pairs)
    opened = (one if isinstance(one, Dataset) else open_dataset(one, remember) for one, _ in pairs)
    return Mix(tuple(opened), tuple(float(weight) for _, weight in pairs))
