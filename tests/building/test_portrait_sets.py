"""Shipped recipes of published sets: each finds its tree as it comes, and keeps apart what its authors keep apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import call, make_once, photograph, save
from matting_compose.composer import load_recipe, open_dataset
from matting_compose.composer.base.errors import PlanError
from matting_compose.composer.building.make_plan import make_plan
from matting_compose.composer.sources.image_io import read_image
from portrait_trees import make_portrait_sets


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the trees once. To be read only."""
    return make_once(tmp_path_factory, "portrait-sets", make_portrait_sets)


@pytest.mark.parametrize(
    ("recipe", "train", "validation", "picture"),
    [
        ("p3m10k", 8, 4, "P3M-10k/train/blurred_image/p_00000001.jpg"),
        ("am2k", 8, 2, "AM-2k/train/original/m_00030000.jpg"),
        ("ppm100", 0, 2, "PPM-100/image/1070_00050000.jpg"),
        ("aim500", 0, 2, "AIM-500/original/o_00060001.jpg"),
        ("shm-data", 4, 4, "data/image/00070000.jpg"),
    ],
)
def test_a_published_set_is_taken_as_it_is(
    sets: Path, tmp_path: Path, recipe: str, train: int, validation: int, picture: str
) -> None:
    """The doctor finds nothing wrong, and the dataset holds the set's own pictures on the sides they belong to."""
    found = call("doctor", recipe, "--json", cwd=sets)
    assert (found.code, [f for f in found.json["findings"] if f["problem"]]) == (0, [])
    out = tmp_path / "dataset"
    done = call("build", recipe, "--out", str(out), "-j", "1", cwd=sets)
    assert done.code == 0, done.err
    dataset = open_dataset(out)
    assert (len(dataset.numbers("train")), len(dataset.numbers("validation"))) == (train, validation)
    stem = Path(picture).stem
    sample = next(sample for sample in dataset if sample.row.foreground.rpartition("/")[2] == stem)
    np.testing.assert_array_equal(sample.image, read_image(sets / picture))
    assert sample.foreground is None


def test_portraits_of_ones_own_are_composed_and_taken_as_they_are(sets: Path, tmp_path: Path) -> None:
    """Cut-outs with true colours are composed by a shipped recipe, and the same pictures are taken as they are."""
    pytest.importorskip("pymatting")
    images, alphas = str(sets / "data" / "image"), str(sets / "data" / "alpha")
    save(tmp_path / "photographs" / "a.jpg", photograph(220, 240, 0))
    done = call("extract", images, "--alphas", alphas, "--out", "portraits", "-j", "1", cwd=tmp_path)
    assert done.code == 0, done.err
    composed = call("build", "portraits", "--out", "composed", "--variants", "4", "-j", "1", cwd=tmp_path)
    assert composed.code == 0, composed.err
    more = ["--set", "foregrounds.compose=false", "--variants", "2", "--out", "natural", "-j", "1"]
    natural = call("build", "--foregrounds", images, "--alphas", alphas, *more, cwd=tmp_path)
    assert natural.code == 0, natural.err
    assert (len(open_dataset(tmp_path / "composed")), len(open_dataset(tmp_path / "natural"))) == (8, 4)


def test_a_table_s_split_is_kept(sets: Path) -> None:
    """A share for validation is taken of tables without a split, and their names cannot move what has one."""
    parts = [f"{sets}/P3M-10k/{part}" for part in ("train", "validation/P3M-500-P")]
    text = "".join(
        f'[[foregrounds]]\nlayout = "pairs"\nimages = "{part}/blurred_image"\nalphas = "{part}/mask"\n{more}\n'
        for part, more in zip(parts, ("compose = false", 'compose = false\nsplit = "train"'), strict=True)
    )
    recipe = sets.parent / "sides.toml"
    recipe.write_text(text)
    plan = make_plan(load_recipe(recipe, ["split.validation=0.5"]))
    assert sorted(plan.splits[:2]) == ["train", "validation"]
    assert plan.splits[2:] == ("train", "train")
    with pytest.raises(PlanError, match=r"'p_00010000', which is no foreground, or of a table with a split"):
        make_plan(load_recipe(recipe, ['split.validation=["p_00010000"]']))
