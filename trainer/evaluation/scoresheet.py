"""Scoresheet: an evaluation as a table for the terminal, as CSV and JSON, and as a page to look at."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, TextIO

from ...composer.base.files import disk_error, free_name, write_text
from ...composer.base.pages import render_page
from ...composer.base.text import escape_cell
from ...composer.base.thumbnails import ERROR_GAIN
from .evaluate import Comparison, Evaluation, Interval, Score
from .metric_sets import TITLES

__all__ = ["PAGE", "as_document", "as_table", "open_scores", "write_scoresheet"]

PAGE: Final = "index.html"


PARTIAL: Final = "scores.partial.csv"


MOST_FAILURES: Final = 200  # on the page


logger = logging.getLogger(__name__)


def as_document(evaluation: Evaluation) -> dict[str, Any]:
    """Return all of it, but for the pictures, as plain types for JSON."""
    return {
        "metrics": evaluation.set_name,
        "region": evaluation.metrics.region,
        "units": dict(evaluation.metrics.units),
        "failures": [asdict(failure) for failure in evaluation.failures],
        "summaries": [asdict(summary) for summary in evaluation.summaries],
        "comparisons": [asdict(comparison) for comparison in evaluation.comparisons],
        "scores": [score.as_row() for score in evaluation.scores],
    }


@contextmanager
def open_scores(folder: Path) -> Iterator[Callable[[Score], None]]:
    """Write scores as they come to `scores.partial.csv`, which stays if the body does not end well.

    Where one has stayed, it is left as it is, and the name gets a number. What cannot be written is warned of at once,
    and ends no grading: the scores can still be shown.

    Yields
    ------
    callable
        Takes one score.
    """
    partial = _PartialScores(folder / PARTIAL)
    try:
        yield partial.write
    finally:
        partial.close()
    with suppress(OSError):
        partial.path.unlink(missing_ok=True)


class _PartialScores:
    """A table that grows, as long as the disk takes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file() and path.stat().st_size:
                self.path = free_name(path)
                logger.warning("%s has the scores of a grading that did not end: it stays", path)
            self._file = self.path.open("w", encoding="utf-8", newline="", buffering=1)
        except OSError as error:
            self._warn(error)

    def write(self, score: Score) -> None:
        if self._file is None:
            return
        row = score.as_row()
        writer = csv.DictWriter(self._file, row, lineterminator="\n")
        try:
            if not self._file.tell():
                writer.writeheader()
            writer.writerow(_cells(row))
        except OSError as error:
            self._warn(error)
            self.close()

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._file = None

    def _warn(self, error: OSError) -> None:
        logger.warning("%s. Grading goes on, and shows its scores at the end", disk_error(error, self.path.parent))


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    return {key: escape_cell(value) if isinstance(value, str) else value for key, value in row.items()}


def as_table(evaluation: Evaluation) -> str:
    """Lay the means out as text, a line per competitor, then the differences from the first, then region and units."""
    titles = list(map(_title, evaluation.names))
    means = [
        [summary.competitor, f"{summary.images:,}", *map(_interval, summary.means.values())]
        for summary in evaluation.summaries
    ]
    parts = [_aligned([["", "images", *titles], *means])]
    if evaluation.comparisons:
        reference, comparisons = next(_by_reference(evaluation))
        head = [f"less {reference}", *titles]
        rows = [[c.competitor, *map(_interval, c.differences.values())] for c in comparisons]
        parts.append(_aligned([head, *rows]))
    return "\n\n".join([*parts, evaluation.metrics.legend()])


def _by_reference(evaluation: Evaluation) -> Iterator[tuple[str, list[Comparison]]]:
    for reference, comparisons in groupby(evaluation.comparisons, attrgetter("reference")):
        yield reference, list(comparisons)


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for name, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]))
    return "\n".join(lines)


def write_scoresheet(evaluation: Evaluation, folder: Path) -> None:
    """Write `scores.csv` (a row per picture), `foregrounds.csv`, `summary.csv` (with units), `differences.csv`,
    `scores.json` and `index.html`.

    Parameters
    ----------
    evaluation : Evaluation
        What was graded.
    folder : Path
        Made where there is none.

    Raises
    ------
    BuildError
        The folder cannot be written.
    """
    documents = {
        "scores.csv": _csv([score.as_row() for score in evaluation.scores]),
        "foregrounds.csv": _csv(
            [
                {"competitor": summary.competitor, "foreground": name, **means}
                for summary in evaluation.summaries
                for name, means in summary.foregrounds.items()
            ]
        ),
        "summary.csv": _csv(
            [
                {
                    "competitor": summary.competitor,
                    "images": summary.images,
                    "metric": metric,
                    **asdict(interval),
                    "unit": evaluation.metrics.units.get(metric, ""),
                }
                for summary in evaluation.summaries
                for metric, interval in summary.means.items()
            ]
        ),
        "differences.csv": _csv(
            [
                {"competitor": found.competitor, "less": found.reference, "metric": metric, **asdict(interval)}
                for found in evaluation.comparisons
                for metric, interval in found.differences.items()
            ]
        ),
        "scores.json": json.dumps(as_document(evaluation), indent=1, ensure_ascii=False) + "\n",
        PAGE: _page(evaluation),
    }
    for name, text in documents.items():
        write_text(folder / name, text)


def _interval(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return _number(interval.mean)
    return f"{_number(interval.mean)} [{_number(interval.low)}, {_number(interval.high)}]"


def _number(value: float) -> str:
    """Three significant digits below 100, none after the point above."""
    if value == 0:
        return "0"
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.3g}" if size >= 1e-4 else f"{value:.1e}"


def _title(metric: str) -> str:
    return TITLES.get(metric, metric)


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys() if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:  # names come from files
        writer.writerow(_cells(row))
    return text.getvalue()


def _page(evaluation: Evaluation) -> str:
    names = evaluation.names
    cases = _cases(evaluation)
    competitors = [score.competitor for score in evaluation.scores] + [f.competitor for f in evaluation.failures]
    return render_page(
        __package__, "scoresheet.html.j2", script="scoresheet.js", title="Mattes, graded",
        pictures=len(cases), foregrounds=len({case["foreground"] for case in cases}),
        legend=evaluation.metrics.legend(), titles=list(map(_title, names)), gain=ERROR_GAIN,
        summaries=[(s.competitor, f"{s.images:,}", list(s.means.values())) for s in evaluation.summaries],
        best=[min((s.means[name].mean for s in evaluation.summaries), default=0.0) for name in names],
        comparisons=dict(_by_reference(evaluation)),
        widest=[
            max((abs(end) for c in evaluation.comparisons for end in _ends(c.differences[name])), default=0.0) or 1.0
            for name in names
        ],
        failures=[astuple(failure) for failure in evaluation.failures[:MOST_FAILURES]],
         more_failures=len(evaluation.failures) - MOST_FAILURES,
        interval=_interval, ends=_ends,
        data={
            "errors": [{"title": _title(name), "unit": evaluation.metrics.units.get(name, "")} for name in names],
            "competitors": list(dict.fromkeys(competitors)),
            "cases": cases,
        },
    )  # fmt: skip


def _ends(interval: Interval) -> tuple[float, float]:
    """Return an interval's ends; of a mean that has none, the mean twice."""
    if interval.low is None or interval.high is None:
        return interval.mean, interval.mean
    return interval.low, interval.high


def _cases(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Lay the scores out by case: errors by competitor, in the order of the metrics, and pictures if there are some."""
    cases: dict[str, dict[str, Any]] = {}
    for score in evaluation.scores:
        if score.image not in cases:
            preview = evaluation.previews.get(score.image)
            cases[score.image] = {
                "name": score.image, "foreground": score.foreground, "errors": {},
                "preview": asdict(preview) if preview else None,
            }  # fmt: skip
        errors = [float(f"{error:.4g}") for error in score.errors.values()]
        cases[score.image]["errors"][score.competitor] = errors
    return list(cases.values())
