"""PNG text: a file that says what it was made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matting_compose.composer.sources.png_text import is_noted, read_note, write_noted

PICTURE = np.random.default_rng(1).integers(0, 256, (9, 7, 4), dtype=np.uint8)
NOTE = {"version": 2, "inputs": ["a"], "name": "ä"}


def test_a_note_comes_back_with_the_picture(tmp_path: Path) -> None:
    """For this program, and for whoever reads PNG text."""
    write_noted(tmp_path / "new" / "a.png", PICTURE, "made of", NOTE)
    assert read_note(tmp_path / "new" / "a.png", "made of") == NOTE
    assert read_note(tmp_path / "new" / "a.png", "another word") is None
    with Image.open(tmp_path / "new" / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), PICTURE)
        assert '"version": 2' in picture.text["made of"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_a_file_that_breaks_off_is_known_but_tells_nothing(tmp_path: Path) -> None:
    """So that it is made again, and nobody else's file is replaced."""
    path = tmp_path / "a.png"
    write_noted(path, PICTURE, "made of", NOTE)
    path.write_bytes(path.read_bytes()[:-20])
    assert is_noted(path, "made of")
    assert read_note(path, "made of") is None


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_what_has_no_note_is_none(tmp_path: Path, content: bytes | None) -> None:
    """Another file, none, or another picture."""
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    assert not is_noted(path, "made of")
    assert read_note(path, "made of") is None
    Image.fromarray(PICTURE).save(path)
    assert not is_noted(path, "made of")
