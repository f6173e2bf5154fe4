"""Scoresheet: an evaluation as a table for the terminal, as CSV and JSON, and as a page with the worst cases."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from ...composer.base.files import write_text
from ..metrics import METRICS
from .evaluate import Evaluation, Interval

__all__ = ["as_document", "as_table", "write_scoresheet"]

TITLES: Final = {"sad": "SAD", "mse": "MSE", "gradient": "Grad", "connectivity": "Conn"}


STYLE: Final = """body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:1700px;padding:0 1em}
table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}small{color:#666}img{max-width:100%}figure{margin:1em 0}"""


def as_document(evaluation: Evaluation) -> dict[str, Any]:
    """Return all of it, but for the pictures, as plain types for JSON."""
    return {
        "region": evaluation.region,
        "failures": [asdict(failure) for failure in evaluation.failures],
        "summaries": [asdict(summary) for summary in evaluation.summaries],
        "scores": [asdict(score) for score in evaluation.scores],
    }


def as_table(evaluation: Evaluation) -> str:
    """Lay the means out as text, a line per competitor, the interval under each mean's own column."""
    rows = [["", "images", *TITLES.values()]]
    for summary in evaluation.summaries:
        rows.append([summary.competitor, f"{summary.images:,}", *map(_interval, summary.means.values())])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for name, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]))
    return "\n".join(lines)


def write_scoresheet(evaluation: Evaluation, folder: Path) -> None:
    """Write `scores.csv` (a row per picture), `foregrounds.csv`, `summary.csv`, `scores.json` and `worst.html`.

    Raises
    ------
    BuildError : the folder cannot be written
    """
    documents = {
        "scores.csv": _csv([asdict(score) for score in evaluation.scores]),
        "foregrounds.csv": _csv(
            [
                {"competitor": summary.competitor, "foreground": name, **means}
                for summary in evaluation.summaries
                for name, means in summary.foregrounds.items()
            ]
        ),
        "summary.csv": _csv(
            [
                {"competitor": summary.competitor, "images": summary.images, "metric": metric, **asdict(interval)}
                for summary in evaluation.summaries
                for metric, interval in summary.means.items()
            ]
        ),
        "scores.json": json.dumps(as_document(evaluation), indent=1, ensure_ascii=False) + "\n",
        "worst.html": _page(evaluation),
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
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 1e-4 else f"{value:.1e}"


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys() if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _page(evaluation: Evaluation) -> str:
    region = "the unknown region" if evaluation.region == "unknown" else "the whole picture"
    head = "".join(f"<th>{title}</th>" for title in TITLES.values())
    rows = "".join(
        f"<tr><td>{html.escape(s.competitor)}</td><td>{s.images:,}</td>"
        + "".join(f"<td>{html.escape(_interval(interval))}</td>" for interval in s.means.values())
        + "</tr>"
        for s in evaluation.summaries
    )
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Mattes, graded</title><style>{STYLE}</style>",
        f"<h1>Mattes, graded over {region}</h1>",
        f"<table><tr><th></th><th>images</th>{head}</tr>{rows}</table>",
        "<p><small>In brackets: 95 % intervals, by resampling foregrounds. Less is better.</small></p>",
    ]
    for name, cases in evaluation.worst.items():
        parts.append(f"<h2>{html.escape(name)}: worst by SAD</h2>")
        for score, picture in cases:
            errors = ", ".join(f"{title} {_number(getattr(score, metric))}" for metric, title in TITLES.items())
            data = base64.b64encode(picture).decode()
            parts.append(
                f"<figure><figcaption><b>{html.escape(score.image)}</b> <small>{errors}</small></figcaption>"
                f'<img alt="image, trimap, truth, prediction, error" src="data:image/jpeg;base64,{data}"></figure>'
            )
    for summary in evaluation.summaries:
        body = "".join(
            f"<tr><td>{html.escape(name)}</td>" + "".join(f"<td>{_number(means[m])}</td>" for m in METRICS) + "</tr>"
            for name, means in summary.foregrounds.items()
        )
        parts.append(f"<h2>{html.escape(summary.competitor)}: by foreground</h2>")
        parts.append(f"<table><tr><th></th>{head}</tr>{body}</table>")
    return "\n".join(parts) + "\n"
