"""Distractors: other foregrounds in a composite's scene. They are part of the background, and of no alpha."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import Pictures, call, make_once, shard_bytes
from matting_compose.composer import build, load_recipe, open_dataset
from matting_compose.composer.base.errors import RecipeError
from matting_compose.composer.building.make_plan import make_plan
from matting_compose.composer.compositing.blending import blend
from matting_compose.composer.compositing.compose import place_distractor
from matting_compose.composer.compositing.scenes import Distractor
from matting_compose.composer.recipe import plain
from matting_compose.composer.sources.image_io import read_image_alpha

MORE = ["shards.background=full", "shards.tile=48", 'split.validation=["disc 1","disc 3"]', "variants=4"]
CROWD = ["scenes.distractors=0.8", "scenes.distractor_count=[1,3]"]


def make_crowd(folder: Path) -> None:
    """Build the tree's cut-outs alone, and among each other."""
    tree = Pictures.make(folder)
    for name, more in (("alone", MORE), ("crowd", MORE + CROWD)):
        recipe = load_recipe(None, more, foregrounds=tree.cutouts, backgrounds=tree.photos)
        build(recipe, folder / name, jobs=1)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make both once. To be read only."""
    return make_once(tmp_path_factory, "distractors", make_crowd)


def test_the_background_is_what_the_target_is_laid_on(tree: Path) -> None:
    """The stored background is the photograph with each distractor blended over it; image, alpha and trimap follow."""
    alone, crowded = (open_dataset(tree / name) for name in ("alone", "crowd"))
    many = []
    for before, after in zip(alone, crowded, strict=True):
        behind = json.loads(after.row.scene.distractors or "[]")
        many.append(len(behind))
        assert before.background is not None
        expected = before.background
        for item in behind:
            one = Distractor(*item)
            picture = read_image_alpha(tree / "cutouts" / f"{one.key}.png")
            expected = blend(*place_distractor(picture.image, picture.alpha, after.alpha.shape, one), expected)
        np.testing.assert_array_equal(after.background, expected)
        np.testing.assert_array_equal(after.image, blend(before.foreground, before.alpha, expected))
        for part in ("trimap", "alpha", "foreground"):
            np.testing.assert_array_equal(getattr(after, part), getattr(before, part))
    assert {0, 1, 3} <= set(many) <= {0, 1, 2, 3}


def test_they_are_others_of_the_same_split(tree: Path) -> None:
    """Nobody stands behind themselves, and what validation keeps is in no scene of training."""
    kept = {"disc 1", "disc 3"}
    for row in open_dataset(tree / "crowd").rows():
        for key, *_ in json.loads(row.scene.distractors or "[]"):
            assert key != row.foreground
            assert (key in kept) == (row.foreground in kept)


def test_verify_and_sidecars_know_them(tree: Path) -> None:
    """The dataset is proved well, and each shard lists every file that it shows."""
    done = call("inspect", str(tree / "crowd"), "--verify", "-j", "1")
    assert done.code == 0, done.out
    for path in (tree / "crowd" / "shards").glob("*.json"):
        inputs = json.loads(path.read_text())["inputs"]
        number = int(path.stem[-5:])
        shown = {row.foreground for row in open_dataset(tree / "crowd").reader(number).rows}
        rows = open_dataset(tree / "crowd").reader(number).rows
        shown |= {key for row in rows for key, *_ in json.loads(row.scene.distractors or "[]")}
        assert {f"foreground {key}.png" for key in shown} == {name for name in inputs if name.startswith("foreground")}


def test_a_damaged_distractor_costs_the_composites_that_show_it(tree: Path, tmp_path: Path) -> None:
    """The doctor counts them before; once it is mended, the bytes are those of a build that never failed."""
    shutil.copytree(tree / "cutouts", tmp_path / "cutouts")
    bad = tmp_path / "cutouts" / "disc 0.png"
    good = bad.read_bytes()
    bad.write_bytes(good[:300])
    folders = ["--foregrounds", str(tmp_path / "cutouts"), "--backgrounds", str(tree / "photos")]
    more = [word for item in MORE + CROWD for word in ("--set", item)]
    out = tmp_path / "crowd"
    lost = call("doctor", *folders, *more, "--json").json["lost"]
    assert lost > 4  # its own, and others
    done = call("build", *folders, *more, "--out", str(out), "-j", "1", "--json")
    assert (done.code, done.json["failures"]) == (3, lost)
    bad.write_bytes(good)
    assert call("build", *folders, *more, "--out", str(out), "-j", "1").code == 0
    assert shard_bytes(out) == shard_bytes(tree / "crowd")


def test_roles_say_who_stands_where(tmp_path: Path) -> None:
    """Of distractors there are no composites, and targets stand in no other's scene; both splits have some of each."""
    small = ["foregrounds.0.count=8", "foregrounds.1.count=6", "split.validation=0.25", "scenes.distractors=1"]
    recipe = load_recipe("portrait-demo", small)
    plan = make_plan(recipe)
    assert [count for count in plan.counts if count] == [recipe.variants] * 8
    assert plan.splits.count("validation") == 2 + 2
    for number, entry in enumerate(plan.foregrounds[:8]):
        found = plan.distractors(number, 0)
        assert {one.key.partition("/")[0] for one in found} == {"things"}
        assert {plan.splits[[e.key for e in plan.foregrounds].index(one.key)] for one in found} == {plan.splits[number]}
        assert entry.key.startswith("people/")


def test_recipes_that_do_not_use_them_are_the_same_plan() -> None:
    """A recipe with other scenes has the same plain form as before there were distractors."""
    assert "distractors" not in plain(load_recipe("modern"))["scenes"]
    assert "role" not in plain(load_recipe("modern"))["foregrounds"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["scenes.distractors=0"], r"role = distractor: nobody sees them"),
        (["foregrounds.1.role=target"], r"scenes\.distractors needs foregrounds"),
        (["foregrounds.0.role=distractor"], r"composites are of none of them"),
        (["scenes.distractor_count=[0,2]"], r"distractor_count"),
        (["scenes.distractor_count=[3,2]"], r"distractor_count lies between 1 and 8"),
        (["foregrounds.count=3"], r"there are 2 such tables; say which, from 0: foregrounds\.0\.count"),
        (["foregrounds.2.count=3"], r"'2' is a value, not a table"),
    ],
)
def test_recipes_that_cannot_be_meant_are_refused(overrides: list[str], message: str) -> None:
    """Each says which key, and why."""
    with pytest.raises(RecipeError, match=message):
        load_recipe("portrait-demo", overrides)
