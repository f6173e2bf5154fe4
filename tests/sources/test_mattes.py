"""Mattes: one right reading is taken; where there is none, the reason is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matting_compose.composer.base.errors import SourceError
from matting_compose.composer.sources.mattes import mend_trimap, read_trimap

TRIMAP = np.repeat(np.repeat(np.array([[0, 128, 255]], np.uint8), 40, 0), 40, 1)


def test_trimaps_are_mended_where_that_is_safe() -> None:
    """What JPEG does to levels is undone, with a warning; a smoothed border is unknown."""
    trimap, warnings = mend_trimap(TRIMAP, "t", TRIMAP.shape)
    np.testing.assert_array_equal(trimap, TRIMAP)
    assert warnings == []
    noisy = np.clip(TRIMAP + np.random.default_rng(1).integers(-9, 10, TRIMAP.shape), 0, 255).astype(np.uint8)
    noisy[:, 39] = 64
    mended, warnings = mend_trimap(noisy, "t.jpg", TRIMAP.shape)
    np.testing.assert_array_equal(mended[:, :39], TRIMAP[:, :39])
    assert (mended[:, 39] == 128).all()
    assert "t.jpg" in warnings[0]
    _, warnings = mend_trimap(np.full((9, 9), 128, np.uint8), "t", (9, 9))
    assert ["background" in w or "foreground" in w for w in warnings] == [True, True]


@pytest.mark.parametrize(
    ("levels", "size", "cause", "message"),
    [
        (np.full((20, 30), 128, np.uint8), (40, 60), "size-mismatch", "enlarge or reduce the trimap by nearest"),
        (np.full((20, 30), 128, np.uint8), (30, 20), "size-mismatch", "another image's"),
        (np.zeros((20, 30), np.uint8), (20, 30), "no-unknown", "no pixel is unknown"),
        (np.arange(600).reshape(20, 30).astype(np.uint8), (20, 30), "not-a-trimap", "far from 0, 128 and 255"),
    ],
)
def test_what_is_no_trimap_is_refused(levels: np.ndarray, size: tuple[int, int], cause: str, message: str) -> None:
    """Another size, a mask, an alpha: each with its cause, and what to do."""
    with pytest.raises(SourceError, match=message) as caught:
        mend_trimap(levels, "t.png", size)
    assert (caught.value.cause, caught.value.source) == (cause, "t.png")


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_trimap_files_of_127_or_of_jpeg_are_trimaps(tmp_path: Path, ending: str) -> None:
    """The levels are mended as they are read."""
    path = tmp_path / f"t.{ending}"
    Image.fromarray(np.where(TRIMAP == 128, np.uint8(127), TRIMAP)).save(path)
    trimap, warnings = read_trimap(path, path.name, TRIMAP.shape)
    assert (trimap == TRIMAP).mean() > 0.9
    assert set(np.unique(trimap)) == {0, 128, 255}
    assert len(warnings) == 1
