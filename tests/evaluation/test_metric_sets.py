"""Metric sets: the errors of automatic matting against a plain reference, and methods compared picture by picture."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from conftest import save, soft_disc
from matting_compose.trainer import commands
from matting_compose.trainer.evaluation.evaluate import Score, compare, summarise
from matting_compose.trainer.evaluation.metric_sets import METRIC_SETS, TITLES
from matting_compose.trainer.metrics import METRICS, connectivity_error, gradient_error

Picture = NDArray[np.uint8]


def reference(prediction: Picture, truth: Picture, trimap: Picture) -> dict[str, float]:
    """Compute P3M's errors as its authors write them: floats in 0..1, the prediction fused in a copy."""
    p, g = prediction / 255.0, truth / 255.0
    fused = np.copy(p)
    fused[trimap == 255] = 1.0
    fused[trimap == 0] = 0.0
    unknown = float((trimap == 128).sum())
    return {
        "sad": np.sum(np.abs(p - g)) / 1000,
        "mse": np.sum((p - g) ** 2) / p.size,
        "mad": np.sum(np.abs(p - g)) / p.size,
        "sad_t": np.sum(np.abs(fused - g)) / 1000,
        "mse_t": np.sum((fused - g) ** 2) / unknown,
        "mad_t": np.sum(np.abs(fused - g)) / unknown,
        "sad_fg": np.sum(np.abs(p - g) * (trimap == 255)) / 1000,
        "sad_bg": np.sum(np.abs(p - g) * (trimap == 0)) / 1000,
    }


@pytest.mark.parametrize("seed", range(8))
def test_errors_of_automatic_matting(seed: int) -> None:
    """Also where the truth is not what the trimap says, and where nothing is known."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 40, 2))
    prediction, truth = (rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(2))
    trimap = rng.choice(np.array([0, 128, 255], np.uint8), shape)
    trimap[0, 0] = 128
    if seed == 0:
        trimap[:] = 128
    found = METRIC_SETS["p3m"].measure(prediction, truth, trimap)
    expected = reference(prediction, truth, trimap)
    everywhere = np.full_like(truth, 128)
    expected["gradient"] = gradient_error(prediction, truth, everywhere)
    expected["connectivity"] = connectivity_error(prediction, truth, everywhere)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    without = METRIC_SETS["p3m"].measure(prediction, truth, None)
    assert without == {name: found[name] for name in ("sad", "mse", "mad", "gradient", "connectivity")}


def test_sets_of_papers_are_the_metrics() -> None:
    """Composition-1k's over the unknown region, SHM's over all; every set says all its units."""
    rng = np.random.default_rng(0)
    prediction, truth = (rng.integers(0, 256, (9, 12), dtype=np.uint8) for _ in range(2))
    trimap = rng.choice(np.array([0, 128, 255], np.uint8), (9, 12))
    for name, region in (("composition-1k", trimap), ("shm", None)):
        expected = {key: metric(prediction, truth, region) for key, metric in METRICS.items()}
        assert METRIC_SETS[name].measure(prediction, truth, trimap) == expected
    for found in METRIC_SETS.values():
        assert found.units.keys() == found.measure(prediction, truth, trimap).keys()
        assert all(TITLES[name] in found.legend() for name in found.units)


def scores(name: str, errors: NDArray[np.float64]) -> list[Score]:
    return [Score(name, f"f{i // 2}", f"p{i}", {"sad": float(error)}) for i, error in enumerate(errors)]


def test_a_paired_interval_is_that_of_the_differences() -> None:
    """Resampled by foreground from the differences alone, the same each time; far narrower than either mean's."""
    rng = np.random.default_rng(1)
    hardness = np.repeat(rng.normal(50, 20, 40), 2)
    one = scores("one", hardness + rng.normal(0, 1, 80))
    two = scores("two", hardness - 1 + rng.normal(0, 1, 80))
    found = compare(one, two)
    assert (found.competitor, found.reference) == ("two", "one")
    interval = found.differences["sad"]
    pairs = np.array([b.errors["sad"] - a.errors["sad"] for a, b in zip(one, two, strict=True)])
    by_foreground = pairs.reshape(40, 2).mean(axis=1)
    half = 1.96 * by_foreground.std() / np.sqrt(40)
    assert interval.mean == pytest.approx(pairs.mean())
    assert (interval.high - interval.mean, interval.mean - interval.low) == pytest.approx((half, half), rel=0.2)
    assert interval.high < 0
    alone = summarise("one", one).means["sad"]
    assert alone.high - alone.low > 5 * (interval.high - interval.low)
    assert compare(one, two) == found


def test_the_command_compares_and_says_units(tmp_path: Path) -> None:
    """The table, JSON and CSV; each method is compared with each other."""
    for i in range(3):
        image, alpha = soft_disc(40, 50, i)
        trimap = np.where(cv2.dilate((alpha % 255 > 0).view(np.uint8), np.ones((9, 9))) > 0, 128, alpha)
        blurred = cv2.GaussianBlur(alpha, (0, 0), 2)
        for folder, picture in (("images", image), ("truths", alpha), ("trimaps", trimap), ("blurred", blurred)):
            save(tmp_path / folder / f"{i}.png", np.asarray(picture, np.uint8))
    given = [part for name in ("images", "truths", "trimaps") for part in (f"--{name}", str(tmp_path / name))]
    given += ["--predictions", str(tmp_path / "blurred"), "--method", "trimap", "--method", "perfect-mask", "-j", "1"]
    told = CliRunner().invoke(commands.evaluate, [*given, "--metrics", "p3m"])
    assert told.exit_code == 0, told.output
    assert "less blurred" in told.stdout
    assert all(title in told.stdout for title in ("SAD-T", "MAD-T", "SAD-FG", "sum / unknown pixels", "whole picture"))
    out = str(tmp_path / "out")
    document = json.loads(CliRunner().invoke(commands.evaluate, [*given, "--json", "-o", out]).stdout)
    assert document["units"]["sad"] == "sum, thousands"
    assert [(c["competitor"], c["reference"]) for c in document["comparisons"]] == [
        ("trimap", "blurred"), ("perfect-mask", "blurred"), ("blurred", "trimap"), ("perfect-mask", "trimap"),
        ("blurred", "perfect-mask"), ("trimap", "perfect-mask")]  # fmt: skip
    means = {s["competitor"]: s["means"]["sad"]["mean"] for s in document["summaries"]}
    difference = document["comparisons"][0]["differences"]["sad"]
    assert difference["mean"] == pytest.approx(means["trimap"] - means["blurred"])
    with (tmp_path / "out" / "differences.csv").open(encoding="utf-8") as file:
        assert float(next(csv.DictReader(file))["low"]) == difference["low"]
    assert document["comparisons"][2]["differences"]["sad"]["mean"] == -difference["mean"]
