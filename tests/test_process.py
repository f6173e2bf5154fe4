"""The process that calls the library is left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from conftest import Pictures, call, save
from matting_compose.composer import open_dataset


@contextmanager
def left_alone() -> Iterator[None]:
    """Make sure that Pillow's limit and OpenCV's threads are at the end what they were, and not our own defaults."""
    threads, limit = cv2.getNumThreads(), Image.MAX_IMAGE_PIXELS
    try:
        cv2.setNumThreads(3)
        Image.MAX_IMAGE_PIXELS = 12_345_678
        yield
        assert (cv2.getNumThreads(), Image.MAX_IMAGE_PIXELS) == (3, 12_345_678)
    finally:
        cv2.setNumThreads(threads)
        Image.MAX_IMAGE_PIXELS = limit


@pytest.fixture
def built(pictures: Pictures, tmp_path: Path) -> Path:
    """Build a dataset in this process."""
    with left_alone():
        assert call(*pictures.arguments(tmp_path / "d"), "-j", "1").code == 0
    return tmp_path / "d"


def test_building_and_reading_leave_the_process_alone(built: Path, pictures: Pictures, tmp_path: Path) -> None:
    """Open, a dry run, inspect with verification, doctor, export and extract, all with one job."""
    with left_alone():
        assert open_dataset(built)[0].image.shape[2] == 3
    backgrounds = ("--backgrounds", str(pictures.photos))
    for command in (
        ("inspect", str(built), "--verify", "-j", "1"),
        (*pictures.arguments(tmp_path / "e"), "-j", "1", "--dry-run"),
        ("doctor", "--foregrounds", str(pictures.cutouts), *backgrounds, "-j", "1"),
        ("export", str(built), str(tmp_path / "png"), "--to", "png", "-j", "1"),
        ("extract", str(pictures.cutouts), "--out", str(tmp_path / "x"), "-j", "1"),
    ):
        with left_alone():
            assert call(*command).code == 0, command


def test_prediction_and_evaluation_leave_the_process_alone(tmp_path: Path) -> None:
    """With one job."""
    commands = pytest.importorskip("matting_compose.trainer.commands", exc_type=ImportError)
    picture = np.full((40, 50, 3), 90, np.uint8)
    mask = np.zeros((40, 50), np.uint8)
    mask[10:30, 10:30] = 255
    save(tmp_path / "i" / "a.png", picture)
    save(tmp_path / "m" / "a.png", mask)
    places = {name: str(tmp_path / name) for name in "imo"}
    with left_alone():
        arguments = [places["i"], "--mask", places["m"], "--method", "trimap", "-o", places["o"]]
        done = CliRunner().invoke(commands.predict, arguments)
        assert done.exit_code == 0, done.output
    with left_alone():
        arguments = ["--predictions", places["o"], "--truths", places["m"], "-j", "1"]
        done = CliRunner().invoke(commands.evaluate, arguments)
        assert done.exit_code == 0, done.output
