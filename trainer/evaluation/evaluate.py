"""Evaluate: cases and competitors in, scores out. Parallel over pictures, deterministic for any number of processes."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ...composer.base.arrays import UInt8Array
from ...composer.base.errors import FileError
from ...composer.base.progress import OnProgress, Progress, ignore_progress
from ...composer.base.workers import run_in_processes
from ...composer.sources.mattes import read_matte
from ..inference.cutout import side_by_side
from ..inference.files import list_pictures
from ..inference.methods import MatteError, Settings, make_matte, to_bytes
from ..inference.user_trimaps import checked_trimap
from ..metrics import METRICS
from .cases import Case, Material

__all__ = ["PERFECT", "Competitor", "Evaluation", "Failure", "Interval", "Score", "Summary", "evaluate", "summarise"]

PERFECT: Final = "perfect-mask"  # the truth, thresholded: no segmentation can do better


RESAMPLES: Final = 2000


CONFIDENCE: Final = 0.95


CELL: Final = 320  # px, of the worst cases' pictures


@dataclass(frozen=True)
class Competitor:
    """Something to grade: a folder of predictions, or a method that makes them.

    Attributes
    ----------
    name : in tables
    method : one of `methods.METHODS`, or `PERFECT`; or
    folder : with a picture for every case
    """

    name: str
    method: str | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Score:
    """A competitor's errors on one picture, by the names and in the units of `metrics.METRICS`."""

    competitor: str
    foreground: str
    image: str
    errors: dict[str, float]

    def as_row(self) -> dict[str, Any]:
        """Lay it out flat: who, on what, and a column for each metric."""
        return {"competitor": self.competitor, "foreground": self.foreground, "image": self.image, **self.errors}


@dataclass(frozen=True)
class Failure:
    """A matte that a method could not make, and why."""

    competitor: str
    image: str
    reason: str


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval; None where a single foreground leaves nothing to resample."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Summary:
    """A competitor's means: over all pictures, with intervals, and over each foreground's."""

    competitor: str
    images: int
    foregrounds: dict[str, dict[str, float]]
    means: dict[str, Interval]


@dataclass(frozen=True)
class Evaluation:
    """All scores, in the order of competitors and cases, and what follows from them.

    Attributes
    ----------
    region : ``unknown`` or ``whole``
    scores : one for each competitor and case, but for the failures
    failures : mattes that could not be made
    summaries : one for each competitor without failures: a mean that leaves out the hardest pictures flatters
    worst : by competitor, the worst scores by SAD and a picture of each: image, trimap, truth, prediction, error;
        a JPEG
    """

    region: str
    scores: tuple[Score, ...]
    failures: tuple[Failure, ...]
    summaries: tuple[Summary, ...]
    worst: dict[str, list[tuple[Score, bytes]]]


def evaluate(
    cases: Sequence[Case],
    competitors: Sequence[Competitor],
    settings: Settings,
    *,
    whole: bool = False,
    jobs: int = -1,
    worst: int = 0,
    on_progress: OnProgress = ignore_progress,
) -> Evaluation:
    """Grade every competitor on every case.

    Parameters
    ----------
    cases : what to grade on
    competitors : with different names
    settings : of the methods
    whole : grade the whole picture (SHM's variant); else the unknown region where there are trimaps
    jobs : processes; -1 for one per core. With a network on a GPU there is one
    worst : how many of each competitor's worst cases to keep pictures of
    on_progress : called as mattes are graded

    Raises
    ------
    MattingComposeError : a picture cannot be read or graded; the name is in the message
    """
    folders = {c.folder: list_pictures(c.folder) for c in competitors if c.folder}
    tasks = [
        _Task(case, competitor, folders[competitor.folder][case.name] if competitor.folder else None)
        for competitor in competitors
        for case in cases
    ]
    grade = partial(_score, settings=settings, whole=whole, with_picture=worst > 0)
    results = run_in_processes(grade, tasks, len(tasks), jobs)
    scores: list[Score] = []
    failures: list[Failure] = []
    kept: dict[str, list[tuple[float, int, bytes]]] = {c.name: [] for c in competitors}
    for done, (result, picture) in enumerate(results, 1):
        if isinstance(result, Failure):
            failures.append(result)
        else:
            if picture:  # of equals the first is kept; the number also keeps pictures from being compared
                heap = kept[result.competitor]
                push = heapq.heappush if len(heap) < worst else heapq.heappushpop
                push(heap, (result.errors["sad"], -len(scores), picture))
            scores.append(result)
        on_progress(Progress("mattes", done, len(tasks)))
    failed = {failure.competitor for failure in failures}
    return Evaluation(
        region=_region(cases[0], whole),
        scores=tuple(scores),
        failures=tuple(failures),
        summaries=tuple(
            summarise(c.name, [s for s in scores if s.competitor == c.name])
            for c in competitors
            if c.name not in failed
        ),
        worst={
            name: [(scores[-number], picture) for _, number, picture in sorted(heap, reverse=True)]
            for name, heap in kept.items()
        },
    )


@dataclass(frozen=True)
class _Task:
    case: Case
    competitor: Competitor
    prediction: Path | None


def _score(task: _Task, settings: Settings, whole: bool, with_picture: bool) -> tuple[Score | Failure, bytes]:
    """Grade one picture: what a worker does."""
    name, who = task.case.name, task.competitor.name
    material = task.case.load()
    try:
        prediction = (
            read_matte(task.prediction, task.prediction.name, role="prediction")[0]
            if task.prediction
            else _predict(task, material, settings)
        )
    except MatteError as error:
        return Failure(who, name, str(error)), b""
    region = None if whole else material.trimap
    try:
        errors = {key: metric(prediction, material.truth, region) for key, metric in METRICS.items()}
    except ValueError as error:
        raise FileError(f"{who} on {name}: {error}") from None
    score = Score(who, task.case.foreground, name, errors)
    return score, _picture(material, prediction) if with_picture else b""


def _predict(task: _Task, material: Material, settings: Settings) -> UInt8Array:
    method, name = task.competitor.method, task.case.name
    if method == PERFECT:
        return np.where(material.truth >= 128, np.uint8(255), np.uint8(0))
    if material.image is None or material.trimap is None:
        raise FileError(f"{method} makes mattes of images and trimaps: give --images and --trimaps, or a dataset")
    trimap, _ = checked_trimap(material.trimap, material.truth.shape, name)
    return to_bytes(make_matte(str(method), material.image, trimap, settings))


def _picture(material: Material, prediction: UInt8Array) -> bytes:
    """Code image, trimap, truth, prediction and error side by side, as JPEG."""
    error = np.asarray(cv2.absdiff(prediction, material.truth), np.uint8)
    parts = [material.image, material.trimap, material.truth, prediction, error]
    sheet = side_by_side([part for part in parts if part is not None], CELL)
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1])


def summarise(name: str, scores: Sequence[Score]) -> Summary:
    """Average a competitor's errors over all pictures and over each foreground's."""
    by_foreground: dict[str, list[Score]] = {}
    for score in scores:
        by_foreground.setdefault(score.foreground, []).append(score)
    foregrounds = {
        key: {metric: float(np.mean([s.errors[metric] for s in group])) for metric in METRICS}
        for key, group in by_foreground.items()
    }
    counts = np.array([len(group) for group in by_foreground.values()], np.float64)
    means = {
        metric: bootstrap(np.array([values[metric] for values in foregrounds.values()]), counts) for metric in METRICS
    }
    return Summary(name, len(scores), foregrounds, means)


def bootstrap(means: NDArray[np.float64], counts: NDArray[np.float64]) -> Interval:
    """Estimate a mean over pictures and its 95 % interval by resampling foregrounds, not pictures: those that share a
    foreground err alike, and would make the interval too narrow.

    Percentile bootstrap (Efron), 2,000 resamples, always the same draws.

    Parameters
    ----------
    means : (n,) of each foreground's pictures
    counts : (n,) how many these are
    """
    mean = float(np.average(means, weights=counts))
    if len(means) < 2:
        return Interval(mean, None, None)
    picks = np.random.default_rng(0).integers(0, len(means), (RESAMPLES, len(means)))
    drawn = (means * counts)[picks].sum(axis=1) / counts[picks].sum(axis=1)
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(mean, float(low), float(high))


def _region(case: Case, whole: bool) -> str:
    return "whole" if whole or case.load().trimap is None else "unknown"
