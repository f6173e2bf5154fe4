"""Evaluate: cases and competitors in, scores out. Parallel over pictures, deterministic for any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ...composer.base.arrays import UInt8Array
from ...composer.base.errors import BuildError, FileError, describe_error
from ...composer.base.progress import OnProgress, Progress, ignore_progress
from ...composer.base.workers import run_in_processes
from ...composer.sources.mattes import read_matte
from ..inference.methods import MatteOptions, finds_trimaps, make_automatic, make_matte, to_bytes
from .cases import Case, CasePictures
from .gallery import CasePreview, Gallery, draw_preview
from .metric_sets import METRIC_SETS, MetricSet, SetName, find_set

__all__ = [
    "PERFECT",
    "Comparison",
    "Competitor",
    "Evaluation",
    "Failure",
    "Interval",
    "Score",
    "Summary",
    "compare",
    "evaluate",
    "summarise",
]

PERFECT: Final = "perfect-mask"  # the truth, thresholded: no segmentation can do better


RESAMPLES: Final = 2000


CONFIDENCE: Final = 0.95


@dataclass(frozen=True)
class Competitor:
    """Something to grade: a folder of predictions, or a method that makes them.

    Attributes
    ----------
    name : str
        In tables.
    method : str, optional
        One of `methods.METHODS`, or `PERFECT`; or
    prediction : int
        Which of the cases' predictions.
    checkpoint : Path, optional
        The method's, where it is not that of the `MatteOptions`.
    """

    name: str
    method: str | None = None
    prediction: int = 0
    checkpoint: Path | None = None

    def own(self, options: MatteOptions) -> MatteOptions:
        """Give the options of its mattes."""
        return replace(options, checkpoint=self.checkpoint) if self.checkpoint else options


@dataclass(frozen=True)
class Score:
    """A competitor's errors on one picture, by the names and in the units of a `metric_sets.MetricSet`."""

    competitor: str
    foreground: str
    image: str
    errors: dict[str, float]

    def as_row(self) -> dict[str, Any]:
        """Lay it out flat: who, on what, and a column for each metric."""
        return {"competitor": self.competitor, "foreground": self.foreground, "image": self.image, **self.errors}


@dataclass(frozen=True)
class Failure:
    """A matte that could not be made, read or graded, and why."""

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
class Comparison:
    """How much more a competitor errs than another on the same pictures: means of the differences, with intervals.

    Below 0 it is the better one; where the interval has no 0 in it, not by chance alone.
    """

    competitor: str
    reference: str
    differences: dict[str, Interval]


@dataclass(frozen=True)
class Evaluation:
    """All scores, in the order of competitors and cases, and what follows from them.

    Attributes
    ----------
    set_name : str
        Of the metrics; see `metric_sets.METRIC_SETS`.
    scores : tuple of Score
        One for each competitor and case, but for the failures.
    failures : tuple of Failure
        In the same order.
    summaries : tuple of Summary
        One for each competitor without failures: a mean that leaves out the hardest pictures flatters.
    comparisons : tuple of Comparison
        Of each of these with each other, as the reference; those with the first come first.
    previews : dict of str to CasePreview
        By image, pictures of those that are worst by SAD.
    """

    set_name: SetName
    scores: tuple[Score, ...]
    failures: tuple[Failure, ...]
    summaries: tuple[Summary, ...]
    comparisons: tuple[Comparison, ...]
    previews: dict[str, CasePreview]

    @property
    def metrics(self) -> MetricSet:
        """What was measured."""
        return METRIC_SETS[self.set_name]

    @property
    def names(self) -> list[str]:
        """The metrics' names."""
        return list(self.scores[0].errors) if self.scores else list(self.metrics.metrics)


def evaluate(
    cases: Sequence[Case],
    competitors: Sequence[Competitor],
    options: MatteOptions,
    *,
    metrics: SetName | None = None,
    jobs: int = -1,
    worst: int = 0,
    on_score: Callable[[Score], None] | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Evaluation:
    """Grade every competitor on every case.

    Parameters
    ----------
    cases : sequence of Case
        What to grade on.
    competitors : sequence of Competitor
        With different names.
    options : MatteOptions
        Of the methods.
    metrics : {"composition-1k", "shm", "p3m"}, optional
        See `metric_sets.METRIC_SETS`; by default the first where there are trimaps, else the second.
    jobs : int
        Worker processes; -1 for one per core.
    worst : int
        How many cases to keep pictures of, at most: as many of each competitor's worst.
    on_score : callable, optional
        Called with each score as it comes, case by case.
    on_progress : callable
        Called as cases are graded.

    Raises
    ------
    FileError
        A method has no images or trimaps to work on.
    """
    for competitor in competitors:
        if competitor.method in (None, PERFECT):
            continue
        alone = finds_trimaps(competitor.method, competitor.own(options))
        if not all(case.has_image and (alone or case.has_trimap) for case in cases):
            raise FileError(f"{competitor.method} makes mattes of images and trimaps: give --images and --trimaps")
    set_name = find_set(metrics, cases[0].has_trimap)
    scores: list[Score] = []
    failures: list[Failure] = []
    gallery = Gallery(worst, len(competitors))
    total = len(cases) * len(competitors)
    grade = partial(_grade, options, set_name, worst > 0)
    for number, (results, preview) in enumerate(_grade_all(cases, competitors, grade, jobs)):
        found = [result for result in results if isinstance(result, Score)]
        failures += [result for result in results if isinstance(result, Failure)]
        scores += found
        if on_score:
            for score in found:
                on_score(score)
        if preview:
            sads = {score.competitor: score.errors["sad"] for score in found}
            gallery.add(cases[number].name, number, sads, preview)
        on_progress(Progress("mattes", len(scores) + len(failures), total, len(failures)))
    order = [competitor.name for competitor in competitors]
    scores.sort(key=lambda score: order.index(score.competitor))
    failures.sort(key=lambda failure: order.index(failure.competitor))
    failed = {failure.competitor for failure in failures}
    graded = {name: [s for s in scores if s.competitor == name] for name in order if name not in failed}
    return Evaluation(
        set_name,
        tuple(scores),
        tuple(failures),
        summaries=tuple(summarise(name, found) for name, found in graded.items()),
        comparisons=tuple(compare(reference, found) for reference, found in permutations(graded.values(), 2)),
        previews=gallery.previews(),
    )


@dataclass(frozen=True)
class _Task:
    """A case, and who is graded on it: all of them, so that the place is shown where all of them err."""

    case: Case
    competitors: tuple[Competitor, ...]


Graded = tuple[list[Score | Failure], CasePreview | None]  # a result for each competitor; a preview if it is wanted


def _grade_all(
    cases: Sequence[Case], competitors: Sequence[Competitor], grade: Callable[[_Task], Graded], jobs: int
) -> Iterator[Graded]:
    """Yield each case's results, in order. After a worker was killed the next case has one to itself, which tells
    whether it is to blame, and if it is, each competitor on it.
    """
    tasks = [_Task(case, tuple(competitors)) for case in cases]
    done, alone, least = 0, False, 1
    while done < len(tasks):
        batch = tasks[done : done + 1] if alone else tasks[done:]
        try:
            for result in run_in_processes(grade, batch, max(len(batch), least), jobs):
                done += 1
                yield result
            alone = False
        except BuildError as error:
            if alone:
                yield _grade_apart(tasks[done], grade, jobs, str(error)), None
                done += 1
            alone, least = not alone, 2  # never again in this process, which must survive


def _grade_apart(task: _Task, grade: Callable[[_Task], Graded], jobs: int, reason: str) -> list[Score | Failure]:
    """Grade a case that has killed a worker, each competitor in a worker of its own."""
    if len(task.competitors) == 1:
        return [Failure(task.competitors[0].name, task.case.name, reason)]
    results: list[Score | Failure] = []
    for competitor in task.competitors:
        try:
            for found, _ in run_in_processes(grade, [_Task(task.case, (competitor,))], 2, jobs):
                results += found
        except BuildError as error:
            results.append(Failure(competitor.name, task.case.name, str(error)))
    return results


def _grade(options: MatteOptions, set_name: SetName, with_preview: bool, task: _Task) -> Graded:
    """Grade on one case: what a worker does. What goes wrong is this case's alone, or a competitor's on it."""
    cv2.setNumThreads(1)
    name, metrics = task.case.name, METRIC_SETS[set_name]
    results: list[Score | Failure] = []
    mattes = {}
    try:
        pictures = task.case.load()
    except MemoryError:
        raise
    except Exception as error:
        return [Failure(competitor.name, name, describe_error(error)) for competitor in task.competitors], None
    for competitor in task.competitors:
        try:
            matte = _prediction(task.case, competitor, pictures, options)
            errors = metrics.measure(matte, pictures.truth, pictures.trimap)
        except MemoryError:
            raise
        except Exception as error:
            results.append(Failure(competitor.name, name, describe_error(error)))
        else:
            results.append(Score(competitor.name, task.case.foreground, name, errors))
            mattes[competitor.name] = matte
    return results, draw_preview(pictures, mattes, metrics.masked) if with_preview and mattes else None


def _prediction(case: Case, competitor: Competitor, pictures: CasePictures, options: MatteOptions) -> UInt8Array:
    method, options = competitor.method, competitor.own(options)
    if method is None:
        path = case.predictions[competitor.prediction]
        return read_matte(path, path.name, role="prediction")[0]
    if method == PERFECT:
        return np.where(pictures.truth >= 128, np.uint8(255), np.uint8(0))
    if pictures.image is not None and finds_trimaps(method, options):
        return to_bytes(make_automatic(method, pictures.image, options).alpha)
    if pictures.image is None or pictures.trimap is None:
        raise FileError(f"{method} needs an image and its trimap")
    return to_bytes(make_matte(method, pictures.image, pictures.trimap, options))


def summarise(name: str, scores: Sequence[Score]) -> Summary:
    """Average a competitor's errors over all pictures and over each foreground's."""
    foregrounds, means = _average([(score.foreground, score.errors) for score in scores])
    return Summary(name, len(scores), foregrounds, means)


def compare(reference: Sequence[Score], scores: Sequence[Score]) -> Comparison:
    """Compare a competitor with another, picture by picture: what both find hard does not count.

    Parameters
    ----------
    reference, scores : sequence of Score
        Of two competitors on the same pictures, in the same order.

    Examples
    --------
    >>> one = [Score("one", key, key, {"sad": sad}) for key, sad in (("cat", 9.0), ("net", 90.0))]
    >>> two = [Score("two", key, key, {"sad": sad}) for key, sad in (("cat", 8.0), ("net", 88.0))]
    >>> compare(one, two).differences["sad"]
    Interval(mean=-1.5, low=-2.0, high=-1.0)
    """
    pairs = zip(reference, scores, strict=True)
    differences = [
        (old.foreground, {name: error - old.errors[name] for name, error in new.errors.items()}) for old, new in pairs
    ]
    return Comparison(scores[0].competitor, reference[0].competitor, _average(differences)[1])


def _average(values: Sequence[tuple[str, dict[str, float]]]) -> tuple[dict[str, dict[str, float]], dict[str, Interval]]:
    """Average pictures' values by foreground, and over all with intervals."""
    groups: dict[str, list[dict[str, float]]] = {}
    for foreground, found in values:
        groups.setdefault(foreground, []).append(found)
    names = list(values[0][1])
    foregrounds = {
        key: {name: float(np.mean([found[name] for found in group])) for name in names} for key, group in groups.items()
    }
    counts = np.array([len(group) for group in groups.values()], np.float64)
    means = {name: bootstrap(np.array([found[name] for found in foregrounds.values()]), counts) for name in names}
    return foregrounds, means


def bootstrap(means: NDArray[np.float64], counts: NDArray[np.float64]) -> Interval:
    """Estimate a mean over pictures and its 95 % interval by resampling foregrounds, not pictures: those that share a
    foreground err alike, and would make the interval too narrow.

    Percentile bootstrap (Efron), 2,000 resamples, always the same draws.

    Parameters
    ----------
    means : (n,) float64
        Of each foreground's pictures.
    counts : (n,) float64
        How many these are.
    """
    mean = float(np.average(means, weights=counts))
    if len(means) < 2:
        return Interval(mean, None, None)
    picks = np.random.default_rng(0).integers(0, len(means), (RESAMPLES, len(means)))
    drawn = (means * counts)[picks].sum(axis=1) / counts[picks].sum(axis=1)
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(mean, float(low), float(high))
