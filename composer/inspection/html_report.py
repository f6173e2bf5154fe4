"""HTML report: a dataset on a page, one file that needs nothing else: figures, plots, a contact sheet, what is missing.

Names are untrusted. Whatever comes from a dataset is escaped by the template or set as text by the script, and the
page's own policy allows no script and no style but the two that are shipped, and no connection to anywhere.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..base.files import write_text
from ..base.pages import render_page
from ..base.progress import OnProgress, Progress
from ..base.text import escape
from ..base.thumbnails import embed, reduce
from ..dataset.dataset import Dataset, Sample, open_dataset
from ..dataset.documents import FailureRecord
from ..dataset.rows import Row
from .panel import find_detail
from .summary import Columns, Distribution, MaskFigures, Summary, make_summary, measure_masks, read_columns
from .summary_text import describe, list_lines

CELLS = 480  # composites in the contact sheet, about: some 10 MB, which a phone still opens at once


WORST = 16  # of each kind


THUMBNAIL = 208  # px, the longer side; and a side of what is shown of the finest detail, 1:1


LOSSY = {"quality": 70, "alpha_quality": 80, "method": 1}  # of the thumbnails' WebP; below, alpha shows bands


LOSSLESS = {"lossless": True, "quality": 0, "method": 0}  # both take a third of the usual method's time


MOST_FAILURES = 500  # pictures in the table


PLOT_HEIGHT, PLOT_WIDTH = 100, 320


Window = tuple[slice, slice]


@dataclass(frozen=True)
class Bar:
    """A histogram's bar, in the plot's units."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Plot:
    """A histogram, laid out; `labels` stand under the axis: where, anchored how, and what they say."""

    title: str
    text: str
    labels: tuple[tuple[float, str, str], ...]
    bars: tuple[Bar, ...]


def write_report(folder: str | Path, path: str | Path, *, on_progress: OnProgress | None = None) -> Summary:
    """Write a dataset's report. Every composite's masks are looked at, so that the worst cases are the worst.

    Parameters
    ----------
    folder : str or Path
        The dataset's.
    path : str or Path
        The HTML file; an older one is replaced.
    on_progress : callable, optional
        Called as things are read.

    Returns
    -------
    Summary
        What the page says in figures.

    Raises
    ------
    DatasetError
        The dataset is none or damaged.
    BuildError
        The file cannot be written.

    Examples
    --------
    >>> from matting_compose.composer import build, load_recipe
    >>> small = ["foregrounds.count=2", "foregrounds.sides=[64,80]", "backgrounds.count=2", "variants=2"]
    >>> _ = build(load_recipe("demo", small), "dataset", jobs=1)
    >>> write_report("dataset", "report.html").composites
    4
    """
    with closing(open_dataset(folder)) as dataset:
        missing = dataset.missing_shards()
        columns = read_columns(dataset, missing, on_progress)
        masks = measure_masks(dataset, columns, sample=None, on_progress=on_progress)
        summary = make_summary(dataset, missing, columns, masks)
        cells, foregrounds = _cells(dataset, columns, masks, on_progress)
    failures, more = _failures(dataset.failures)
    text = render_page(
        __package__,
        "report.html.j2",
        script="report.js",
        title=f"{dataset.path.resolve().name}: composites for matting",
        summary=summary,
        lines=[(label, escape(text)) for label, text, _ in list_lines(summary)],
        sources=[(note.what, note.licence or "–", note.attribution or "–") for note in summary.sources],
        plots=_plots(summary),
        names=sorted(foregrounds),
        failures=failures,
        more_failures=more,
        recipe=json.dumps(dataset.recipe, ensure_ascii=False, indent=1),
        data={"composites": f"{summary.composites:,}", "cells": cells, "foregrounds": foregrounds},
    )
    write_text(Path(path), text)
    return summary


def choose_cells(columns: Columns, masks: MaskFigures) -> dict[int, list[str]]:
    """Choose composites to show, by number, with why where they are worst cases: those come first.

    Of all, whose masks were read. A worst case is the worst composite of its foreground, so that one difficult
    foreground does not hide the others. Then every foreground is shown, as often as there is room for, each time with
    another variant.
    """
    chosen: dict[int, list[str]] = {}
    numbers, foreground = columns.number, columns.foreground
    by_unknown = np.argsort(masks.unknown, kind="stable")
    by_scale = np.argsort(-columns.scale, kind="stable")
    kinds = {
        "largest unknown region": by_unknown[::-1],
        "smallest unknown region": by_unknown,
        "strongest enlargement": by_scale[columns.scale[by_scale] > 1],
    }
    for why, ordered in kinds.items():
        first = np.sort(np.unique(foreground[ordered], return_index=True)[1])[:WORST]
        for number in numbers[ordered[first]].tolist():
            chosen.setdefault(number, []).append(why)
    variants: dict[str, list[int]] = defaultdict(list)
    for number, which in zip(numbers.tolist(), foreground.tolist(), strict=True):
        if number not in chosen:
            variants[columns.names[which]].append(number)
    each = max(1, (CELLS - len(chosen)) // max(len(variants), 1))
    for number, (_, own) in enumerate(sorted(variants.items())):
        count = min(each, len(own))
        for turn in range(count):
            # Spread over the variants, and begun elsewhere for each foreground.
            chosen.setdefault(own[(number + turn * len(own) // count) % len(own)], [])
    return chosen


def _cells(
    dataset: Dataset, columns: Columns, masks: MaskFigures, on_progress: OnProgress | None
) -> tuple[list[dict[str, Any]], dict[str, dict[str, dict[str, str]]]]:
    """Make the contact sheet's data: a cell per composite, and what all cells of a group share."""
    chosen = choose_cells(columns, masks)
    in_order = sorted(chosen)  # of the shards, so that each is opened once
    unknown = masks.unknown[np.searchsorted(masks.numbers, in_order)].tolist()
    cells: dict[int, dict[str, Any]] = {}
    foregrounds: dict[str, dict[str, dict[str, str]]] = {}
    details: dict[str, Window] = {}
    for done, (number, share) in enumerate(zip(in_order, unknown, strict=True), 1):
        shard, position = dataset.locate(number)
        reader = dataset.reader(shard)
        row = reader.row(position)
        sample = Sample(*reader.read(row, layers=("foreground",)), row)
        group = str(row.group)
        if group not in foregrounds:
            y, x, side = find_detail(sample.alpha, min(THUMBNAIL, *sample.alpha.shape))
            details[group] = np.s_[y : y + side, x : x + side]
            foregrounds[group] = _shared_pictures(sample, details[group])
        split = dataset.shards[shard].split
        cells[number] = {
            "key": row.key,
            "foreground": row.foreground,
            "group": group,
            "index": number,
            "why": chosen[number],
            "unknown": round(share, 5),
            "scale": row.scale,
            "shape": [row.width, row.height],
            **_own_pictures(sample, details[group]),
            "facts": _facts(row, number, split, share),
        }
        if on_progress:
            on_progress(Progress("pictures", done, len(chosen)))
    return [cells[number] for number in chosen], foregrounds


def _facts(row: Row, number: int, split: str, unknown: float) -> list[tuple[str, str]]:
    scaled = "as it is" if row.scale == 1 else f"scaled by {row.scale:.3f}"
    background = f"{row.background}, {scaled}, cut at x {row.offset_x}, y {row.offset_y}"
    facts = [
        ("number", f"{number:,}, {split}"),
        ("foreground", row.foreground),
        ("background", background if row.composed else "its own: a picture as it is"),
        ("size", f"{row.width}×{row.height} px"),
        ("unknown", f"{100 * unknown:.1f} % of its pixels"),
        ("trimap", f"eroded {row.erode} px, dilated {row.dilate} px"),
    ]
    drawn = (f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.changes())
    return [*facts, ("drawn", ", ".join(drawn))] if row.changes() else facts


def _own_pictures(sample: Sample, detail: Window) -> dict[str, dict[str, str]]:
    trimap = reduce(sample.trimap, THUMBNAIL, cv2.INTER_NEAREST)
    pairs = {
        "whole": (reduce(sample.image, THUMBNAIL), trimap),
        "detail": (sample.image[detail], sample.trimap[detail]),
    }
    return {
        what: {"composite": embed(image, **LOSSY), "trimap": embed(trimap, **LOSSLESS)}
        for what, (image, trimap) in pairs.items()
    }


def _shared_pictures(sample: Sample, detail: Window) -> dict[str, dict[str, str]]:
    """Make the cut-out's pictures; the page shows the alpha of them."""
    # Black where nobody sees it, so that it is neither mixed into the rim nor paid for.
    colours = cv2.copyTo(sample.colours, sample.alpha)
    cutout = np.asarray(cv2.merge([*cv2.split(colours), sample.alpha]), np.uint8)
    whole = reduce(cutout, THUMBNAIL)
    return {"whole": {"cutout": embed(whole, **LOSSY)}, "detail": {"cutout": embed(cutout[detail], **LOSSY)}}


def _failures(failures: Sequence[FailureRecord]) -> tuple[list[tuple[str, str, str, str]], int]:
    """Count failures by picture; return the first of them, and how many pictures more there are."""
    counts = Counter((failure.cause, failure.source, failure.detail) for failure in failures)
    table = [
        (f"{count:,}", cause, escape(source), escape(detail))
        for (cause, source, detail), count in counts.most_common(MOST_FAILURES)
    ]
    return table, max(0, len(counts) - MOST_FAILURES)


def _plots(summary: Summary) -> list[Plot]:
    named = (
        ("Unknown region", summary.unknown, ".1%", ""),
        ("Fractional alpha", summary.fractional, ".1%", ""),
        ("Size", summary.megapixels, ".2f", " MP"),
        ("Eroded by", summary.erode, ".0f", " px"),
        ("Dilated by", summary.dilate, ".0f", " px"),
        ("Background enlarged", summary.enlargement, ".2f", "×"),
    )
    plots = [_plot(title, figures, form, unit) for title, figures, form, unit in named if figures]
    return [_alpha_plot(summary), *plots] if summary.alpha else plots


def _plot(title: str, figures: Distribution, form: str, unit: str) -> Plot:
    most = max(figures.counts)
    width = PLOT_WIDTH / len(figures.counts)
    bars = tuple(
        _bar(i, width, 0.5, count / most, f"{low:{form}}–{high:{form}}{unit}: {count:,}")
        for i, (count, low, high) in enumerate(zip(figures.counts, figures.edges, figures.edges[1:], strict=False))
    )
    ends = (0, "start", f"{figures.least:{form}}{unit}"), (PLOT_WIDTH, "end", f"{figures.most:{form}}{unit}")
    return Plot(title, describe(figures, form), ends, bars)


def _bar(number: int, width: float, margin: float, share: float, title: str) -> Bar:
    x, y = number * width + margin, PLOT_HEIGHT * (1 - share)
    return Bar(round(x, 2), round(y, 2), round(width - 2 * margin, 2), round(PLOT_HEIGHT * share, 2), title)


def _alpha_plot(summary: Summary) -> Plot:
    """Lay out the mean shares of opaque, clear and fractional alpha, a bar each."""
    assert summary.alpha is not None
    shares = {"opaque": summary.alpha.opaque, "clear": summary.alpha.clear, "fractional": summary.alpha.fractional}
    width = PLOT_WIDTH / len(shares)
    bars = tuple(_bar(i, width, 8, share, f"{name}: {share:.1%}") for i, (name, share) in enumerate(shares.items()))
    text = ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
    labels = tuple(((i + 0.5) * width, "middle", name) for i, name in enumerate(shares))
    return Plot("Alpha, mean shares", text, labels, bars)
