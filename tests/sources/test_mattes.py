"""Mattes: one right reading is taken; where there is none, the reason is given."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import picture_files as files
from matting_compose.composer.base.errors import SourceError
from matting_compose.composer.sources.image_io import read_cutout
from matting_compose.composer.sources.mattes import mend_trimap, read_matte, read_trimap

LIMIT = 1_000_000
COLOUR = cv2.resize(
    np.random.default_rng(2).integers(0, 256, (4, 5, 3), dtype=np.uint8), (40, 30), interpolation=cv2.INTER_CUBIC
)
MATTE = np.zeros((30, 40), np.uint8)
cv2.circle(MATTE, (20, 15), 9, 255, -1)
MATTE = cv2.GaussianBlur(MATTE, (0, 0), 2)
HARD = np.where(MATTE > 127, 255, 0).astype(np.uint8)
GREY = np.dstack([COLOUR[..., :1]] * 3)
VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0, *[7, 8, 9] * 252, 224, 224, 192]
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


def palette(indices: np.ndarray, colours: list[int] = VOC) -> Image.Image:
    picture = Image.fromarray(indices.astype(np.uint8), "L")
    picture.putpalette(colours)
    return picture


# What is given, and the one right reading of it.
RIGHT = {
    "grey": (Image.fromarray(MATTE), MATTE),
    "three equal channels": (Image.fromarray(np.dstack([MATTE] * 3)), MATTE),
    "cut-out": (Image.fromarray(np.dstack([COLOUR, MATTE])), MATTE),
    "white, and transparency": (Image.fromarray(np.dstack([np.full_like(COLOUR, 255), MATTE])), MATTE),
    "grey levels, and opaque": (Image.fromarray(np.dstack([MATTE] * 3 + [np.full_like(MATTE, 255)])), MATTE),
    "grey levels, and the same as transparency": (Image.fromarray(np.dstack([MATTE] * 4)), MATTE),
    "red on black": (Image.fromarray(np.dstack([MATTE, 0 * MATTE, 0 * MATTE])), MATTE),
    "0 and 1": (Image.fromarray(HARD // 255), HARD),
    "0 and 1 in 16 bits": (Image.fromarray((HARD // 255).astype(np.uint16)), HARD),
    "0..255 in 16 bits": (Image.fromarray(MATTE.astype(np.uint16)), MATTE),
    "16 bits": (Image.fromarray(MATTE.astype(np.uint16) * 257), MATTE),
    "one bit": (Image.fromarray(HARD > 0), HARD),
    "palette of greys": (palette(255 - MATTE, [v for v in range(255, -1, -1) for _ in range(3)]), MATTE),
    "palette, one class": (palette(HARD // 255 * 2), HARD),
}


@pytest.mark.parametrize("kind", RIGHT)
@pytest.mark.parametrize("role", ["alpha", "mask", "truth", "prediction"])
def test_the_one_right_reading_is_taken(kind: str, role: str, tmp_path: Path) -> None:
    """Whatever the matte is to be, and wherever in the file it lies."""
    picture, matte = RIGHT[kind]
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_matte(tmp_path / "a.png", "a", LIMIT, role=role)[0], matte)


def test_a_reading_that_is_chosen_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """For each folder; what leaves no choice is not worth a word."""
    for number in range(3):
        RIGHT["cut-out"][0].save(tmp_path / f"{number}.png")
        RIGHT["grey"][0].save(tmp_path / f"grey {number}.png")
    with caplog.at_level(logging.INFO, "matting_compose"):
        for path in sorted(tmp_path.iterdir()):
            read_matte(path, path.name, LIMIT)
    assert [record.getMessage()[:40] for record in caplog.records] == ["0.png: it has colours and transparency, "]


WRONG = {
    "a photograph": (Image.fromarray(COLOUR), "three channels differ"),
    "a photograph, opaque": (Image.fromarray(np.dstack([COLOUR, np.full_like(MATTE, 255)])), "three channels differ"),
    "grey cut-out": (Image.fromarray(np.dstack([GREY, MATTE])), "both its grey levels and its transparency"),
    "red on white": (Image.fromarray(np.dstack([255 - 0 * MATTE, 255 - MATTE, 255 - MATTE])), "channels differ"),
    "inverted": (Image.fromarray(255 - MATTE), "is it inverted"),
    "labels": (Image.fromarray(HARD // 255 * 15), "levels 15 of 255 are labels"),
    "labels and void": (Image.fromarray(np.where((MATTE > 99) & (MATTE < 150), 255, HARD // 255 * 15)), "labels"),
    "12 bits in 16": (Image.fromarray(MATTE.astype(np.uint16) * 16), "largest level is 4,0.. of 65,535"),
    "several classes": (palette(HARD // 255 * 2 + (np.arange(40) < 19)), "2 classes|3 classes"),
    "void": (palette(np.where((MATTE > 99) & (MATTE < 150), 255, HARD // 255 * 2)), "void"),
    "CMYK": (Image.fromarray(COLOUR).convert("CMYK"), "CMYK has no channel"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_has_no_one_reading_is_refused(kind: str, tmp_path: Path) -> None:
    """With what was found, and what to do."""
    picture, reason = WRONG[kind]
    path = tmp_path / ("a.tif" if kind == "CMYK" else "a.png")
    picture.save(path)
    with pytest.raises(SourceError, match=reason) as caught:
        read_matte(path, "a", LIMIT)
    assert caught.value.cause == "not-a-matte"


def test_void_is_unknown_in_a_mask(tmp_path: Path) -> None:
    """PASCAL VOC's borders of objects belong to no class."""
    void = (MATTE > 99) & (MATTE < 150)
    palette(np.where(void, 255, HARD // 255 * 2)).save(tmp_path / "a.png")
    expected = np.where(void, 128, HARD)
    np.testing.assert_array_equal(read_matte(tmp_path / "a.png", "a", LIMIT, role="mask")[0], expected)


def test_predictions_may_be_all_but_clear_or_inverted(tmp_path: Path) -> None:
    """They are graded as they are."""
    for levels in (MATTE // 15, 255 - MATTE):
        Image.fromarray(levels).save(tmp_path / "a.png")
        np.testing.assert_array_equal(read_matte(tmp_path / "a.png", "a", LIMIT, role="prediction")[0], levels)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_noise_of_jpeg_is_taken_out(mode: str, tmp_path: Path) -> None:
    """Solid areas are solid, soft ones as they were but for compression; chroma's noise is no colour."""
    picture = Image.fromarray(MATTE).convert(mode)
    if mode == "RGB":
        noise = np.random.default_rng(3).integers(-3, 4, (30, 40, 3))
        picture = Image.fromarray(np.clip(np.asarray(picture).astype(int) + noise, 0, 255).astype(np.uint8))
    picture.save(tmp_path / "a.jpg", quality=95)
    found = read_matte(tmp_path / "a.jpg", "a", LIMIT)[0]
    assert not ((found > 0) & (found <= 5) | (found >= 250) & (found < 255)).any()
    assert np.abs(found.astype(int) - MATTE).max() < 20


def test_a_cutouts_alpha_of_0_and_1_is_a_mask(tmp_path: Path) -> None:
    """As it is in a file of its own."""
    Image.fromarray(np.dstack([COLOUR, HARD // 255])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_cutout(tmp_path / "a.png", "a", LIMIT).alpha, HARD)


def test_an_alpha_of_one_pixel_is_read(tmp_path: Path) -> None:
    """And so is one of none but clear or opaque levels."""
    for level in (0, 128, 255):
        (tmp_path / "a.png").write_bytes(files.png(np.uint8([[[level]]]), 8))
        assert read_matte(tmp_path / "a.png", "a", LIMIT)[0].tolist() == [[level]]
