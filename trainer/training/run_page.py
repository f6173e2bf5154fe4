"""Run page: a training on a page that lives while it runs: curves, scores, panels through time, configuration."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

from ...composer.base.errors import BuildError
from ...composer.base.files import write_text
from ...composer.base.pages import render_page
from ...composer.base.text import format_duration
from ...composer.base.thumbnails import ERROR_GAIN
from .records import TITLES, errors_of, read_records

__all__ = ["EVERY", "PAGE", "PANELS", "RunPage", "warn_only"]

logger = logging.getLogger(__name__)


PAGE: Final = "index.html"


PANELS: Final = "panels"


COLUMNS: Final = ("composite", "trimap", "alpha", "true alpha", f"error × {ERROR_GAIN}")  # as `judges` draws


TRIMAP_COLUMNS: Final = ("composite", "true trimap", "trimap", "true alpha", "error")


EVERY: Final = 60.0  # seconds: a page is never older while steps are taken, and loads itself anew as often


MOST_POINTS: Final = 1000  # of a curve: more than a screen has columns


State = Literal["Running.", "Stopped.", "Finished."]


class RunPage:
    """The page of a run's folder.

    Parameters
    ----------
    folder : Path
        The run's.
    config : str
        The configuration, as it is to be shown.
    """

    def __init__(self, folder: Path, config: str) -> None:
        self._folder, self._config = folder, config
        self._written = -math.inf
        self._steps, self._left = 0, 0.0

    def refresh(self, steps: int, left: float) -> None:
        """Draw the page if it is older than `EVERY`; there are so many steps in all, and seconds left."""
        self._steps, self._left = steps, left
        if time.monotonic() - self._written >= EVERY:
            self.write("Running.")

    def write(self, state: State) -> None:
        """Draw the page. One that cannot be written, or whose records cannot be read, is warned of and ends nothing."""
        self._written = time.monotonic()
        with warn_only():
            write_text(self._folder / PAGE, self._draw(state))

    def _draw(self, state: State) -> str:
        records = read_records(self._folder)
        validations = [record for record in records if record["kind"] == "validation"]
        best = next((record for record in reversed(validations) if record.get("best")), None)
        errors = list(errors_of(validations[0])) if validations else ["sad"]
        panels = [path.name for path in sorted((self._folder / PANELS).glob("step-*.png"))]
        return render_page(
            __package__, "run_page.html.j2", script="run_page.js", images="'self' file:",
            title=self._folder.resolve().name, state=state, every=EVERY, config=self._config, best=best,
            steps=self._steps, left=format_duration(self._left),
            validations=validations, errors=errors, titles=TITLES, panels=panels, folder=PANELS,
            columns=TRIMAP_COLUMNS if errors[0] == "trimap_error" else COLUMNS,
            last=next((record for record in reversed(records) if record["kind"] == "train"), None),
            data={"charts": _charts(records, best, errors[0]), "panels": panels, "folder": PANELS},
        )  # fmt: skip


@contextmanager
def warn_only() -> Iterator[None]:
    """Go on without what is there to be looked at, where it cannot be written or read."""
    try:
        yield
    except (BuildError, OSError) as error:
        logger.warning("%s; the training goes on without", error)


def _charts(records: Sequence[Mapping[str, Any]], best: Mapping[str, Any] | None, error: str) -> list[dict[str, Any]]:
    """Lay out what is plotted: for each chart its title, its scale and its series, each a list of (step, value)."""
    train = [record for record in records if record["kind"] == "train"]
    losses = dict.fromkeys(name for record in train for name in record["losses"])
    weighted = [("weighted sum", _points(train, lambda r: r["loss"]))] if len(losses) > 1 else []
    parts = [(name, _points(train, lambda r, name=name: r["losses"].get(name))) for name in losses]
    title = "SAD, thousands" if error == "sad" else error
    return [
        _chart("loss", [*parts, *weighted], scale="log"),
        _chart(f"validation {title}", list(_scores(records, error)), mark=best and [best["step"], best[error]]),
        _chart("learning rate", [("rate", _points(train, lambda r: r["rate"]))]),
        _chart("norm of the gradient", [("gradient", _points(train, lambda r: r.get("gradient")))], scale="log"),
        _chart("crops per second", [("crops/s", _points(train, lambda r: r["crops_per_second"]))]),
        _chart("time waiting for data, %", [("waiting", _points(train, lambda r: 100 * r["waiting"]))]),
        _chart("memory, GB", [("memory", _points(train, lambda r: r.get("memory", math.nan) / 1e9))]),
    ]


def _chart(
    title: str, series: Iterable[tuple[str, list[Any]]], scale: str = "linear", mark: Any = None
) -> dict[str, Any]:
    found = [{"name": name, "points": points} for name, points in series if points]
    return {"title": title, "scale": scale, "series": found, "mark": mark}


def _scores(records: Sequence[Mapping[str, Any]], error: str) -> Iterator[tuple[str, list[Any]]]:
    """Give the network's error, and what it has to beat as lines from the first step to the last."""
    end = max((record["step"] for record in records), default=0)
    validations = [record for record in records if record["kind"] == "validation"]
    several = len({v["dataset"] for v in validations}) > 1
    lines = {(v["what"], v["dataset"]) for v in validations}
    for what, dataset in sorted(lines, key=lambda line: (line[0] != "network", line)):
        own = [v for v in validations if (v["what"], v["dataset"]) == (what, dataset)]
        points = _points(own, lambda v: v.get(error))
        points = points if what == "network" or not points else [[0, points[0][1]], [end, points[0][1]]]
        yield f"{dataset}: {what}" if several else what, points


def _points(records: Sequence[Mapping[str, Any]], value: Any) -> list[list[float]]:
    """Take (step, value) of records, thinned evenly; values that are none or not finite are left out."""
    stride = math.ceil(len(records) / MOST_POINTS) or 1
    thinned = records[:-1:stride] + records[-1:] if records else []  # type: ignore[operator]
    found = [(record["step"], value(record)) for record in thinned]
    return [[step, float(f"{number:.6g}")] for step, number in found if number is not None and math.isfinite(number)]
