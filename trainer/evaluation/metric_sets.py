"""Metric sets: the errors that papers put in one table, with the region they are taken over and their units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from ...composer.base.arrays import UInt8Array
from ...composer.dataset.rows import BACKGROUND, FOREGROUND, UNKNOWN
from ..metrics import METRICS, Metric, connectivity_error, gradient_error, mse, sad

__all__ = ["METRIC_SETS", "TITLES", "MetricSet", "SetName", "find_set"]

SetName = Literal["composition-1k", "shm", "p3m"]


TITLES: Final = {
    "sad": "SAD", "mse": "MSE", "mad": "MAD", "gradient": "Grad", "connectivity": "Conn", "sad_t": "SAD-T",
    "mse_t": "MSE-T", "mad_t": "MAD-T", "sad_fg": "SAD-FG", "sad_bg": "SAD-BG",
}  # fmt: skip


@dataclass(frozen=True)
class MetricSet:
    """What one table has.

    Attributes
    ----------
    region : str
        What is graded, in words.
    units : Mapping[str, str]
        In words, by the metrics' names; those of a package's own metrics are that package's to say.
    metrics : Mapping[str, Metric]
    masked : bool
        Whether metrics are given the trimap.
    trimap_metrics : Mapping[str, Metric]
        More of them, which need one.

    Examples
    --------
    >>> prediction, truth = np.array([[255, 51, 0, 0]], np.uint8), np.array([[255, 0, 0, 0]], np.uint8)
    >>> trimap = np.array([[255, 128, 128, 0]], np.uint8)
    >>> METRIC_SETS["p3m"].measure(prediction, truth, trimap)["sad_t"]
    0.0002
    """

    region: str
    units: Mapping[str, str]
    metrics: Mapping[str, Metric]
    masked: bool
    trimap_metrics: Mapping[str, Metric]

    def measure(self, prediction: UInt8Array, truth: UInt8Array, trimap: UInt8Array | None) -> dict[str, float]:
        """Compute all errors of an alpha, (H, W) uint8, against the true one."""
        region = trimap if self.masked else None
        errors = {name: metric(prediction, truth, region) for name, metric in self.metrics.items()}
        if trimap is not None:
            errors |= {name: metric(prediction, truth, trimap) for name, metric in self.trimap_metrics.items()}
        return errors

    def legend(self) -> str:
        """Say region and units in a line."""
        names: dict[str, list[str]] = {}
        for name, unit in self.units.items():
            names.setdefault(unit, []).append(TITLES[name])
        return f"Over {self.region}; " + "; ".join(f"{', '.join(found)}: {unit}" for unit, found in names.items())


def find_set(name: SetName | None, has_trimaps: bool) -> SetName:
    """Choose the set of a table: the one that is named, else Composition-1k's where there are trimaps, else SHM's."""
    return name or ("composition-1k" if has_trimaps else "shm")


def _mad(prediction: UInt8Array, truth: UInt8Array, trimap: UInt8Array | None = None) -> float:
    """Average |p − g| / 255 over all pixels."""
    return sad(prediction, truth) / 1000


def _summed(metric: Metric) -> Metric:
    """Take a metric of the unknown region over all pixels."""
    return lambda prediction, truth, _trimap: metric(prediction, truth, np.full_like(truth, UNKNOWN))


def _fused(metric: Metric, per_unknown: bool) -> Metric:
    """Set the prediction to what the trimap knows, and sum over all pixels; over the unknown ones' count if so."""

    def measure(prediction: UInt8Array, truth: UInt8Array, trimap: UInt8Array | None) -> float:
        assert trimap is not None
        total = metric(np.where(trimap == UNKNOWN, prediction, trimap), truth, None)  # in 1e-3 a pixel
        return total / 1000 * truth.size / (np.count_nonzero(trimap == UNKNOWN) if per_unknown else 1000)

    return measure


def _over(level: int) -> Metric:
    """Sum |p − g| / 255 over what the trimap takes for background or foreground, in thousands."""

    def measure(prediction: UInt8Array, truth: UInt8Array, trimap: UInt8Array | None) -> float:
        assert trimap is not None
        there = trimap == level
        return float(np.abs(prediction[there].astype(np.int64) - truth[there]).sum()) / 255 / 1000

    return measure


METRIC_SETS: Final[dict[SetName, MetricSet]] = {
    # Xu et al., Deep Image Matting, CVPR 2017: the MATLAB code that comes with the data.
    "composition-1k": MetricSet(
        "the unknown region",
        {"sad": "sum, thousands", "mse": "mean, 0..1", "gradient": "sum, thousands", "connectivity": "sum, thousands"},
        METRICS, True, {},
    ),
    # Chen et al., Semantic Human Matting, 2018, table 2.
    "shm": MetricSet(
        "the whole picture",
        {"sad": "mean, 1e-3", "mse": "mean, 1e-3", "gradient": "mean, 1e-5", "connectivity": "mean, 1e-5"},
        METRICS, False, {},
    ),
    # Li et al., Privacy-Preserving Portrait Matting, 2021, and its authors' code: what automatic matting is graded by.
    "p3m": MetricSet(
        "the whole picture (-T: the trimap's knowledge taken; -FG, -BG: where it knows)",
        {
            "sad": "sum, thousands", "mse": "mean, 0..1", "mad": "mean, 0..1", "gradient": "sum, thousands",
            "connectivity": "sum, thousands", "sad_t": "sum, thousands", "mse_t": "sum / unknown pixels",
            "mad_t": "sum / unknown pixels", "sad_fg": "sum, thousands", "sad_bg": "sum, thousands",
        },
        {
            "sad": _summed(sad), "mse": _summed(mse), "mad": _mad, "gradient": _summed(gradient_error),
            "connectivity": _summed(connectivity_error),
        },
        False,
        {
            "sad_t": _fused(sad, False), "mse_t": _fused(mse, True), "mad_t": _fused(sad, True),
            "sad_fg": _over(FOREGROUND), "sad_bg": _over(BACKGROUND),
        },
    ),
}  # fmt: skip
