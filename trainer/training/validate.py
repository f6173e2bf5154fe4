"""Validate: whole composites of foregrounds that training never saw, by the official metrics, and as pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ...composer.base.errors import DatasetError, TrainingError
from ...composer.dataset.dataset import Dataset, Sample, open_dataset
from ...composer.dataset.rows import BACKGROUND, FOREGROUND, UNKNOWN
from ..data.mix import Mix
from ..inference.tiled import predict_alpha, smallest_tile
from ..metrics import METRICS
from ..networks.network import MattingNetwork
from .config import Config, ValidationTable
from .runtime import Runtime, StopRequest

__all__ = [
    "Scores", "Validation", "ValidationSet", "guess_half", "guess_ramp", "open_validation_sets", "panel",
    "predict_whole", "score", "spread",
]  # fmt: skip

Array = NDArray[np.uint8]


PANEL_SIDE, PANEL_RIM = 256, 3  # px, of each picture's square, and left free around it


PANEL_GREY = 96  # of what is left free: neither a trimap's nor an alpha's


ERROR_GAIN = 4  # a quarter of the range is shown as white


Scores = dict[str, float]  # mean errors over the unknown region, by `metrics.METRICS`


def predict_whole(network: MattingNetwork, image: Array, trimap: Array, max_side: int, bf16: bool = False) -> Array:
    """Predict a whole picture's alpha as `predict_alpha` does, but in one piece, so that all of it is normalised alike.

    Parameters
    ----------
    network : MattingNetwork
    image : (H, W, 3) uint8 RGB
    trimap : (H, W) uint8 {0, 128, 255}
        What it knows is kept (SHM's fusion).
    max_side : int
        px. A longer picture is reduced for the network, and its alpha enlarged again, as SHM tests.
    bf16 : bool
        By autocast.

    Returns
    -------
    (H, W) uint8
        Alpha.
    """
    device = next(network.parameters()).device.type
    tile = max(smallest_tile(network), -(-max_side // network.stride) * network.stride)
    # Every picture has a size of its own: trying all of cuDNN's ways for each would take longer than any of them.
    tried = torch.backends.cudnn.flags(enabled=True, benchmark=False)  # its own default is to do without cuDNN
    with torch.autocast(device, torch.bfloat16, enabled=bf16), tried:
        alpha = predict_alpha(network, image, trimap, tile=tile, max_side=max_side)
    return np.rint(alpha * 255).astype(np.uint8)


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


def open_validation_sets(mix: Mix, settings: ValidationTable) -> list[ValidationSet]:
    """Open what is to be scored: the datasets that are named, or else those of the training that keep some apart.

    Of a dataset with a validation split that is scored, of any other all.

    Raises
    ------
    DatasetError
        As `open_dataset`.
    TrainingError
        All of one is trained on, or `settings.best` names none of them.
    """
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
        deciding_score(settings.best, sets)
    return sets


def spread(numbers: Sequence[int], limit: int) -> list[int]:
    """Pick at most `limit` composites, evenly."""
    count = min(limit, len(numbers))
    return [numbers[int((i + 0.5) * len(numbers) / count)] for i in range(count)]


def deciding_score(best: str, sets: Sequence[ValidationSet]) -> tuple[ValidationSet, str]:
    """Find whose which error says which network is the best; see `ValidationTable.best`."""
    name, _, metric = best.rpartition(".")
    found = next((one for one in sets if one.name == (name or sets[0].name)), None)
    if found is None or metric not in METRICS:
        known = f"{', '.join(METRICS)}, or one of these after {' or '.join(f'{one.name}.' for one in sets)}"
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
        self._bf16 = config.precision == "bf16" and runtime.device.type == "cuda"

    @property
    def decided_by(self) -> tuple[ValidationSet, str]:
        """Whose which error says whether a network is better than another; only where something is scored."""
        return deciding_score(self._settings.best, self.sets)

    def score_guesses(self) -> Iterator[tuple[str, dict[str, Scores] | None]]:
        """Score what a network must beat: no answer at all, and the best that the trimap alone allows."""
        for name, guess in (("unknown = 0.5", guess_half), ("trimap alone", guess_ramp)):
            yield name, self._score(guess)

    def score_network(self, network: MattingNetwork) -> dict[str, Scores] | None:
        """Score a network on each dataset, by their names; see `score`."""
        return self._score(partial(self._predict, network))

    def draw_panel(self, network: MattingNetwork) -> Array:
        """Draw some composites with what a network makes of them; see `panel`. Raise DatasetError as reading does."""
        samples = (one.dataset[number] for one in self.sets for number in one.panel)
        return panel([(sample, self._predict(network, sample)) for sample in samples])

    def _score(self, predict: Callable[[Sample], Array]) -> dict[str, Scores] | None:
        found = {}
        for one in self.sets:
            scores = score(one.dataset, one.numbers, predict, self._runtime, self._stop)
            if scores is None:
                return None
            found[one.name] = scores
        return found

    def _predict(self, network: MattingNetwork, sample: Sample) -> Array:
        return predict_whole(network, sample.image, sample.trimap, self._settings.max_side, self._bf16)


def score(
    dataset: Dataset,
    numbers: Sequence[int],
    predict: Callable[[Sample], Array],
    runtime: Runtime,
    stop: StopRequest,
) -> Scores | None:
    """Score a predictor on composites, each process its share: the mean of each metric over all of them.

    Metrics are computed beside the predictions, in threads: OpenCV lets go of Python's lock. None where somebody asked
    to stop before the last.

    Raises
    ------
    DatasetError
        In all processes, where one of them cannot read a composite.
    """
    failure = ""
    found = torch.zeros(len(numbers), len(METRICS), dtype=torch.float64)

    def measure(i: int, alpha: Array, sample: Sample) -> None:
        values = [metric(alpha, sample.alpha, sample.trimap) for metric in METRICS.values()]
        found[i] = torch.tensor(values, dtype=found.dtype)

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
    return dict(zip(METRICS, runtime.sum(found).mean(dim=0).tolist(), strict=True))


def guess_half(sample: Sample) -> Array:
    """Answer as if nothing were known: 0.5 wherever the trimap is unknown."""
    return sample.trimap


def guess_ramp(sample: Sample) -> Array:
    """Answer from the trimap alone, as well as that can be: alpha falls with the distances to what is known."""
    inside = _distance_to(sample.trimap == FOREGROUND)
    outside = _distance_to(sample.trimap == BACKGROUND)
    ramp = np.where(np.isinf(inside), 0, np.where(np.isinf(outside), 1, outside / np.maximum(inside + outside, 1e-6)))
    ramp[np.isinf(inside) & np.isinf(outside)] = 0.5
    return np.where(sample.trimap == UNKNOWN, np.rint(ramp * 255), sample.trimap).astype(np.uint8)


def _distance_to(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    if not mask.any():
        return np.full(mask.shape, np.inf)
    found = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Its last bit differs from call to call; what is under the root is a whole number.
    return np.sqrt(np.rint(np.asarray(found, np.float64) ** 2))


def panel(rows: Sequence[tuple[Sample, Array]]) -> Array:
    """Show composites, a row each: image, trimap, predicted alpha, true alpha, error (times four).

    Returns
    -------
    (H, W, 3) uint8 RGB
    """
    strips = []
    for sample, alpha in rows:
        error = np.minimum(cv2.absdiff(alpha, sample.alpha).astype(np.uint16) * ERROR_GAIN, 255).astype(np.uint8)
        pictures = [sample.image, *(cv2.merge([grey] * 3) for grey in (sample.trimap, alpha, sample.alpha, error))]
        strips.append(np.hstack([_fit_square(np.asarray(picture, np.uint8)) for picture in pictures]))
    return np.vstack(strips)


def _fit_square(picture: Array) -> Array:
    """Fit a picture, (H, W, 3), into a square of `PANEL_SIDE`, on grey."""
    scale = (PANEL_SIDE - 2 * PANEL_RIM) / max(picture.shape[:2])
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    square = np.full((PANEL_SIDE, PANEL_SIDE, 3), PANEL_GREY, np.uint8)
    top, left = (PANEL_SIDE - height) // 2, (PANEL_SIDE - width) // 2
    square[top : top + height, left : left + width] = small
    return square
