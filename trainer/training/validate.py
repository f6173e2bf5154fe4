"""Validate: whole composites of foregrounds that training never saw, scored and shown as a judge says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ...composer.base.arrays import spread
from ...composer.base.errors import DatasetError, TrainingError
from ...composer.dataset.dataset import Dataset, Sample, open_dataset
from ..data.mix import Mix
from ..networks.network import MattingNetwork
from .config import Config
from .judges import Judge, judge_of
from .runtime import Runtime, StopRequest

__all__ = ["Scores", "Validation", "ValidationSet", "open_validation_sets", "panel", "score"]

Array = NDArray[np.uint8]


PANEL_SIDE, PANEL_RIM = 256, 3  # px, of each picture's square, and left free around it


PANEL_GREY = 96  # of what is left free: neither a trimap's nor an alpha's


Scores = dict[str, float]  # mean errors, by `Judge.errors`


@dataclass(frozen=True)
class ValidationSet:
    """A dataset that is scored.

    Attributes
    ----------
    name : str
        Its folder's, or the whole path where two folders are called alike.
    dataset : Dataset
    numbers : list of int
        The composites that are scored.
    panel : list of int
        Those that are shown.
    """

    name: str
    dataset: Dataset
    numbers: list[int]
    panel: list[int]


def open_validation_sets(mix: Mix, config: Config) -> list[ValidationSet]:
    """Open what is to be scored: the datasets that are named, or else those of the training that keep some apart.

    Of a dataset with a validation split that is scored, of any other all.

    Raises
    ------
    DatasetError
        As `open_dataset`.
    TrainingError
        All of one is trained on, or `validation.best` names none of them.
    """
    settings = config.validation
    datasets = [open_dataset(path) for path in settings.datasets]
    datasets = datasets or [dataset for dataset in mix.datasets if "validation" in dataset.splits]
    names = [dataset.path.name or dataset.path.resolve().name for dataset in datasets]
    names = [str(d.path) if names.count(name) > 1 else name for name, d in zip(names, datasets, strict=True)]
    sets = []
    for name, dataset in zip(names, datasets, strict=True):
        split = "validation" if "validation" in dataset.splits else None
        if split is None and dataset.plan_sha256 in [trained.plan_sha256 for trained in mix.datasets]:
            raise TrainingError(
                f"{dataset.path}: all of it is trained on, and no score of that says anything; build it with --set"
                " split.validation=0.1, or validate on another dataset"
            )
        numbers = dataset.numbers(split).tolist()
        sets.append(ValidationSet(name, dataset, spread(numbers, settings.limit), spread(numbers, settings.panel)))
    if sets:
        deciding_score(settings.best, sets, judge_of(config).errors)
    return sets


def deciding_score(best: str, sets: Sequence[ValidationSet], errors: Sequence[str]) -> tuple[ValidationSet, str]:
    """Find whose which error says which network is the best; see `ValidationTable.best`."""
    name, _, metric = best.rpartition(".")
    found = next((one for one in sets if one.name == (name or sets[0].name)), None)
    if found is None or metric not in errors:
        known = f"{', '.join(errors)}, or one of these after {' or '.join(f'{one.name}.' for one in sets)}"
        raise TrainingError(f"validation.best: '{best}' is no error of what is validated; take {known}")
    return found, metric


class Validation:
    """Scores on composites that training never sees, each process its share.

    Attributes
    ----------
    sets : list of ValidationSet
        What is scored; empty where nothing is kept apart.
    """

    def __init__(self, sets: list[ValidationSet], config: Config, runtime: Runtime, stop: StopRequest) -> None:
        self.sets, self._settings, self._runtime, self._stop = sets, config.validation, runtime, stop
        self.judge = judge_of(config, bf16=config.precision == "bf16" and runtime.device.type == "cuda")

    @property
    def decided_by(self) -> tuple[ValidationSet, str]:
        """Whose which error says whether a network is better than another; only where something is scored."""
        return deciding_score(self._settings.best, self.sets, self.judge.errors)

    def score_guesses(self) -> Iterator[tuple[str, dict[str, Scores] | None]]:
        """Score what a network must beat."""
        for name, guess in self.judge.guesses.items():
            yield name, self._score(guess)

    def score_network(self, network: MattingNetwork) -> dict[str, Scores] | None:
        """Score a network on each dataset, by their names; see `score`."""
        return self._score(partial(self.judge.predict, network))

    def draw_panel(self, network: MattingNetwork) -> Array:
        """Draw some composites with what a network makes of them; see `panel`. Raise DatasetError as reading does."""
        samples = (one.dataset[number] for one in self.sets for number in one.panel)
        return panel([self.judge.row(sample, self.judge.predict(network, sample)) for sample in samples])

    def _score(self, predict: Callable[[Sample], Array]) -> dict[str, Scores] | None:
        found = {}
        for one in self.sets:
            scores = score(one.dataset, one.numbers, self.judge, predict, self._runtime, self._stop)
            if scores is None:
                return None
            found[one.name] = scores
        return found


def score(
    dataset: Dataset,
    numbers: Sequence[int],
    judge: Judge,
    predict: Callable[[Sample], Array],
    runtime: Runtime,
    stop: StopRequest,
) -> Scores | None:
    """Score a predictor on composites, each process its share: the mean of each error over all of them.

    Errors are computed beside the predictions, in threads: OpenCV lets go of Python's lock. None where somebody asked
    to stop before the last.

    Raises
    ------
    DatasetError
        In all processes, where one of them cannot read a composite.
    """
    failure = ""
    found = torch.zeros(len(numbers), len(judge.errors), dtype=torch.float64)

    def measure(i: int, predicted: Array, sample: Sample) -> None:
        found[i] = torch.tensor(judge.measure(predicted, sample), dtype=found.dtype)

    with ThreadPoolExecutor(2) as pool:
        waiting: list[Future[None]] = []
        for i in range(runtime.rank, len(numbers), runtime.world):
            if stop.asked:
                break
            try:
                sample = dataset[numbers[i]]
            except DatasetError as error:
                failure = str(error)
                break
            waiting.append(pool.submit(measure, i, predict(sample), sample))
            if len(waiting) > 4:
                waiting[-5].result()  # few whole pictures are held at once
        for job in waiting:
            job.result()
    if failure := runtime.first_of(failure):
        raise DatasetError(failure)
    if runtime.any(stop.asked) > 0:
        return None
    return dict(zip(judge.errors, runtime.sum(found).mean(dim=0).tolist(), strict=True))


def panel(rows: Sequence[Sequence[Array]]) -> Array:
    """Show composites, a row each of pictures (H, W, 3) or (H, W) uint8: see `Judge.row`.

    Returns
    -------
    (H, W, 3) uint8 RGB
    """
    return np.vstack([np.hstack([_fit_square(picture) for picture in row]) for row in rows])


def _fit_square(picture: Array) -> Array:
    """Fit a picture, (H, W, 3) or (H, W), into a square of `PANEL_SIDE`, on grey."""
    scale = (PANEL_SIDE - 2 * PANEL_RIM) / max(picture.shape[:2])
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    square = np.full((PANEL_SIDE, PANEL_SIDE, 3), PANEL_GREY, np.uint8)
    top, left = (PANEL_SIDE - height) // 2, (PANEL_SIDE - width) // 2
    square[top : top + height, left : left + width] = small if small.ndim == 3 else small[..., None]
    return square
