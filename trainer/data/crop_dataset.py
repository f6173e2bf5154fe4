"""Crop dataset: crops by their samples' numbers, for a plain ``DataLoader`` with its own order and workers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils import data

from ...composer.dataset.dataset import Dataset, open_dataset
from .crops import Augment, CropBuffers, Transform, cut_crop
from .mix import REMEMBER
from .stream import SIZES, check_dataset

__all__ = ["CropDataset"]


class CropDataset(data.Dataset[dict[str, Tensor]]):
    """A split's composites as crops: ``len`` and index, safe in any workers.

    A crop follows from (seed, epoch, sample), as in `open_stream`. That one's order costs less where shards lie on a
    slow disk: a ``DataLoader`` that shuffles reads everywhere at once, and takes fresh memory for each crop.

    Parameters
    ----------
    dataset : str, Path or Dataset
    crop : int
        The crops' side, px.
    sizes : Sequence[int]
        The sides of the windows that become crops, px.
    seed : int
    split : str
        ``train`` or ``validation``.
    augment : Augment, optional
        Flips only, where None.
    colours : bool
        Give foregrounds and backgrounds too.
    transform : Callable, optional
        See `open_stream`.

    Raises
    ------
    DatasetError
        As `open_stream`.

    Examples
    --------
    >>> from matting_compose.composer import build, load_recipe
    >>> small = ["foregrounds.count=2", "foregrounds.sides=[64,80]", "backgrounds.count=2", "variants=2"]
    >>> _ = build(load_recipe("demo", [*small, "split.validation=0"]), "small", jobs=1)
    >>> crops = CropDataset("small", crop=32, sizes=(32, 48))
    >>> len(crops)
    4
    >>> batch = next(iter(data.DataLoader(crops, batch_size=4)))
    >>> {name: tuple(part.shape) for name, part in batch.items()}
    {'image': (4, 3, 32, 32), 'trimap': (4, 32, 32), 'alpha': (4, 1, 32, 32), 'sample': (4,)}
    """

    def __init__(
        self,
        dataset: str | Path | Dataset,
        *,
        crop: int = 320,
        sizes: Sequence[int] = SIZES,
        seed: int = 431,
        split: str = "train",
        augment: Augment | None = None,
        colours: bool = False,
        transform: Transform | None = None,
    ) -> None:
        self.dataset = dataset if isinstance(dataset, Dataset) else open_dataset(dataset, REMEMBER)
        check_dataset(self.dataset, split, crop, colours)
        self.numbers = self.dataset.numbers(split)
        self._crop, self._sizes, self._seed, self._colours = crop, tuple(sizes), seed, colours
        self._augment, self._transform = augment or Augment(), transform
        _spare_forks_opencvs_threads()
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]  # workers that live on see it change

    def __len__(self) -> int:
        return len(self.numbers)

    def set_epoch(self, epoch: int) -> None:
        """Draw other crops from now on, in workers too; call it before each epoch, as with ``DistributedSampler``."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Cut a crop.

        Returns
        -------
        dict of Tensor
            ``image`` (3, S, S) uint8 RGB, ``trimap`` (S, S) uint8 {0, 128, 255}, ``alpha`` (1, S, S) uint8, with
            `colours` ``foreground`` and ``background`` (3, S, S) uint8 RGB, and ``sample``, the composite's number.

        Raises
        ------
        DatasetError
            Its shard cannot be read.
        """
        number = int(self.numbers[index])
        colours = [(3,), (3,)] if self._colours else []
        shapes = [(3,), (), (), *colours]
        parts = [np.empty((self._crop, self._crop, *last), np.uint8) for last in shapes]
        out = CropBuffers(*parts, *[None] * (5 - len(parts)))
        rng = np.random.default_rng((self._seed, int(self._epoch), number))
        cut_crop(self.dataset, number, self._sizes, self._augment, rng, out, self._transform)
        found = {field.name: torch.from_numpy(part) for field, part in zip(fields(out), parts, strict=False)}
        planes = {name: part.permute(2, 0, 1) if part.ndim == 3 else part for name, part in found.items()}
        return planes | {"alpha": planes["alpha"][None], "sample": torch.tensor(number)}


@cache
def _spare_forks_opencvs_threads() -> None:
    """End OpenCV's threads before each fork, and let the parent have them again: a ``DataLoader`` forks its workers.

    A forked process has the parent's pool but none of its threads, and would wait for them for ever.
    """
    counts: list[int] = []

    def before() -> None:
        counts.append(cv2.getNumThreads())
        cv2.setNumThreads(1)

    os.register_at_fork(before=before, after_in_parent=lambda: cv2.setNumThreads(counts.pop()))
