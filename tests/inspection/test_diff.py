"""The difference between two datasets: recipe, rows and pixels, each found, and nothing where nothing differs."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Pictures, call
from matting_compose.composer import open_dataset
from matting_compose.composer.dataset.rows import Look, Row, Scene, compare_tables, to_table
from matting_compose.composer.inspection.diff import compare


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Build a dataset, and one of other radii, another packing and one foreground less."""
    pictures = Pictures.make(tmp_path_factory.mktemp("diff") / "pictures")
    a, b = pictures.root / "a", pictures.root / "b"
    assert call(*pictures.arguments(a, "-j", "1")).code == 0
    (pictures.cutouts / "disc 4.png").unlink()
    more = ("--set", "trimap.dilate=[5,30]", "--set", "shards.packing=jpeg", "--set", "pairing.order=sequential")
    assert call(*pictures.arguments(b, *more, "-j", "1")).code == 0
    return a, b


def test_every_difference_is_found(pair: tuple[Path, Path]) -> None:
    """Against a comparison of all composites with plain NumPy."""
    found = compare(*pair, full=True)
    assert not found.same
    changed = {change.key: (change.before, change.after) for change in found.recipe}
    assert changed["trimap.dilate"] == ([1.0, 20.0], [5.0, 30.0])
    assert changed["shards.packing"] == ("delta", "jpeg")
    assert changed.keys() == {"trimap.dilate", "shards.packing", "pairing.order"}
    assert (found.only_a, found.only_b, found.shared, found.compared, found.identical) == (4, 0, 16, 16, 0)
    assert set(found.examples) == {f"disc 4_{i}" for i in range(4)}

    first = {sample.row.key: sample for sample in open_dataset(pair[0])}
    second = {sample.row.key: sample for sample in open_dataset(pair[1])}
    for part in ("image", "trimap"):
        distances = [
            int(np.abs(getattr(first[key], part).astype(int) - getattr(second[key], part)).max()) for key in second
        ]
        assert found.pixels[part].composites == sum(distance > 0 for distance in distances) > 0
        assert found.pixels[part].largest == max(distances)
        assert found.pixels[part].share == pytest.approx(np.mean(np.array(distances) > 0))
    assert found.pixels.keys() == {"image", "trimap"}
    dilated = sum(first[key].row.dilate != second[key].row.dilate for key in second)
    assert found.rows["dilate"] == dilated > 0
    assert "erode" not in found.rows


def test_the_same_is_the_same(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """A copy needs no look at its pixels; nor is a folder's name a difference."""
    shutil.copytree(pair[0], tmp_path / "copy")
    found = compare(pair[0], tmp_path / "copy", full=True)
    assert found.same
    assert (found.identical, found.compared) == (20, 0)


def test_other_cuts_and_packings_hold_the_same_pixels(finished: Path, tmp_path: Path) -> None:
    """The same plan but for how it is stored: the recipe differs, no row and no pixel does."""
    pictures = finished.parent
    arguments = ("build", "--foregrounds", str(pictures / "cutouts"), "--backgrounds", str(pictures / "photos"),
                 "--variants", "4", "--out", str(tmp_path / "d"), "--set", "shards.packing=solid",
                 "--set", "shards.background=full", "-j", "1")  # fmt: skip
    assert call(*arguments).code == 0
    found = compare(finished, tmp_path / "d", full=True)
    assert not found.same
    assert (found.rows, found.pixels, found.compared) == ({}, {}, 20)
    assert {change.key.partition(".")[0] for change in found.recipe} == {"shards", "split"}


def test_rows_are_compared_as_columns(pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Millions of composites would not fit as values: none is made where no pixels are read."""

    def refuse(table: object) -> None:
        raise AssertionError("rows were made of a table")

    shutil.copytree(pair[0], tmp_path / "copy")
    for module in ("dataset", "reader"):
        monkeypatch.setattr(f"matting_compose.composer.dataset.{module}.from_table", refuse, raising=False)
    assert compare(pair[0], tmp_path / "copy", full=True).shared == 20


def test_each_field_is_compared() -> None:
    """Of a look and a scene, too, whose columns are left out where all are usual; texts of several lengths."""
    row = Row("a_0", "a", 0, "b.png", "12", 8, 9, 1.0, 0, 0, 3, 4, 0, 0)
    changes: list[dict[str, Any]] = [
        {"background": "longer.png"}, {"dilate": 5}, {"scale": 2.0}, {"look": Look(flip=True)},
        {"scene": Scene(distractors="[1]")}, {"look": Look(partner="c"), "scene": Scene(blur=2.0)}, {},
    ]  # fmt: skip
    for changed in changes:
        tables = to_table([row, row]), to_table([row, replace(row, **changed)])
        for one, other in (tables, tables[::-1]):
            found = {name: differs.tolist() for name, differs in compare_tables(one, other)}
            assert found == {field.name: [False, field.name in changed] for field in fields(Row)}


def test_the_command(pair: tuple[Path, Path]) -> None:
    """Exit code 0 for the same, 1 for different; the terminal names what differs."""
    done = call("inspect", str(pair[0]), "--diff", str(pair[1]))
    assert done.code == 1
    for text in ("recipe: trimap.dilate: [1.0, 20.0] → [5.0, 30.0]", "4 only in the first", "pixels: trimap differs"):
        assert text in done.out
    assert call("inspect", str(pair[0]), "--diff", str(pair[0])).code == 0
