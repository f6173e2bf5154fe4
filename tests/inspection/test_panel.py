"""The panel of one composite: found by key, number or chance; written to a file, drawn in a terminal."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import call
from matting_compose.composer import open_dataset
from matting_compose.composer.base.errors import DatasetError
from matting_compose.composer.console.printing import half_blocks
from matting_compose.composer.inspection.panel import draw_panel, find_detail, read_composite


@pytest.mark.parametrize("name", ["disc 3_1", "7", "-1"])
def test_a_composite_is_shown(finished: Path, tmp_path: Path, name: str) -> None:
    """The file is a picture of all six parts; the row is printed, names and all."""
    done = call("inspect", str(finished), "--show", name, "-o", str(tmp_path / "p.png"), "--json")
    assert done.code == 0, done.err
    dataset = open_dataset(finished)
    expected = {row.key: row for row in dataset.rows()}[name] if "_" in name else dataset.row(int(name))
    assert done.json["key"] == expected.key
    picture = cv2.imread(str(tmp_path / "p.png"), cv2.IMREAD_COLOR_RGB)
    assert picture is not None
    np.testing.assert_array_equal(picture, draw_panel(read_composite(finished, name)))


def test_random_is_one_of_them(finished: Path) -> None:
    """And without a file it is drawn with half blocks."""
    done = call("inspect", str(finished), "--show", "random")
    assert done.code == 0
    assert done.out.splitlines()[0].startswith("key")
    assert "▀" in done.out


@pytest.mark.parametrize("name", ["disc 9_9", "20", "-21", "", "../x", "\x1b[31m"])
def test_what_is_not_there_is_explained(finished: Path, name: str) -> None:
    """With what could be asked for, and no control character repeated."""
    with pytest.raises(DatasetError, match="no composite is called") as raised:
        read_composite(finished, name)
    assert str(raised.value).isprintable()


def test_the_detail_is_where_the_strands_are() -> None:
    """Thin lines win against wide soft edges and hard ones; the window lies inside, however small the picture is."""
    alpha = np.zeros((400, 600), np.uint8)
    alpha[200:260:2, 400:460] = 255
    alpha[:, :300] = np.linspace(255, 0, 300).astype(np.uint8)
    alpha[300:360:4, 500:560] = 150
    y, x, side = find_detail(alpha)
    assert 280 <= y <= 330
    assert 480 <= x <= 530
    assert side == 66
    for shape in ((1, 1), (5, 300), (300, 5)):
        y, x, side = find_detail(np.zeros(shape, np.uint8))
        assert 0 <= y <= shape[0] - side
        assert 0 <= x <= shape[1] - side


def test_half_blocks_hold_two_pixels_a_character() -> None:
    """Above in the foreground's colour, below in the background's."""
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[:2] = 255
    lines = list(half_blocks(picture, 2))
    assert [line.plain for line in lines] == ["▀▀"]
    style = lines[0].spans[0].style
    assert not isinstance(style, str)
    assert style.color is not None
    assert style.bgcolor is not None
    assert (style.color.triplet, style.bgcolor.triplet) == ((255, 255, 255), (0, 0, 0))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--show", "0", "-o", "x.txt"], 1),
        (["-o", "x.png"], 2),
        (["--show", "0", "--verify"], 2),
    ],
)
def test_wrong_usage(finished: Path, tmp_path: Path, arguments: list[str], code: int) -> None:
    """Explained, and nothing is written."""
    done = call("inspect", str(finished), *arguments, cwd=tmp_path)
    assert done.code == code
    assert not list(tmp_path.iterdir())
