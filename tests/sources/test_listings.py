"""Listings that grow: several roots of foregrounds with weights and licences, backgrounds left out on purpose."""

from __future__ import annotations

import io
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Pictures, call, photograph, save, shard_bytes, soft_disc
from matting_compose.composer import open_dataset
from matting_compose.composer.base.errors import PlanError, RecipeError
from matting_compose.composer.building.make_plan import make_plan
from matting_compose.composer.building.plan import Plan
from matting_compose.composer.recipe import load_recipe, rooted
from matting_compose.composer.sources.coco import picture_identity, pictures_showing

RECIPE = """
variants = 4
[[foregrounds]]
layout = "rgba"
root = "cutouts"
weight = 2.5
licence = "CC0-1.0"
[[foregrounds]]
layout = "pairs"
images = "fg"
alphas = "alpha"
name = "mine"
min_side = 50
attribution = "A. Person"
[backgrounds]
layout = "folder"
root = "photos"
licence = "CC-BY-4.0"
[shards]
variants = 3
background = "full"
"""


LISTED = ["backgrounds.layout=list", "backgrounds.list=names.txt"]


@pytest.fixture
def roots(pictures: Pictures) -> Pictures:
    """Add a second root to the small tree, of pairs with a name that the first has too, and a recipe of both."""
    for name, height in (("disc 1", 60), ("other", 70), ("small", 40)):
        foreground, alpha = soft_disc(height, 64, height)
        save(pictures.root / "fg" / f"{name}.png", foreground)
        save(pictures.root / "alpha" / f"{name}.png", alpha)
    (pictures.root / "two.toml").write_text(RECIPE)
    return pictures


def plan(tree: Pictures, *overrides: str) -> Plan:
    return make_plan(load_recipe(tree.root / "two.toml", overrides))


# ---- several roots ----


def test_a_weight_multiplies_the_variants(roots: Pictures) -> None:
    """Each foreground has its root's share, every cell is in one shard, and shards hold the roots in proportion."""
    whole = plan(roots)
    assert whole.counts == (10,) * 5 + (4,) * 2
    assert [entry.key for entry in whole.foregrounds][-3:] == ["disc 4", "mine/disc 1", "mine/other"]
    assert whole.excluded == (("mine/small.png", "64×40 px, under min_side = 50"),)
    cells = [(cell.foreground, cell.variant) for shard in whole.shards for cell in whole.cells(shard)]
    assert sorted(cells) == [(f, v) for f, count in enumerate(whole.counts) for v in range(count)]
    names = [whole.background_name(*cell) for cell in sorted(cells)]
    assert all(len(set(names[i : i + 7])) == 7 for i in range(0, len(names) - 7, 7))
    wide = make_plan(load_recipe(roots.root / "two.toml", ["variants=20"]), shape=(7, 9))
    assert len(wide.shards) == 6
    for shard in wide.shards[:-1]:
        lengths = {strip.foreground: len(strip.variants) for strip in shard.strips}
        assert all(lengths[f] == 9 if count == 50 else lengths[f] in (3, 4) for f, count in enumerate(wide.counts))


def test_several_roots_make_one_dataset(roots: Pictures, tmp_path: Path) -> None:
    """What is read is what lies in either root; licences come along; verify and any number of workers agree."""
    arguments = ["build", str(roots.root / "two.toml"), "--out"]
    assert call(*arguments, str(tmp_path / "a"), "-j", "1").code == 0
    assert call(*arguments, str(tmp_path / "b"), "-j", "2").code == 0
    assert shard_bytes(tmp_path / "a") == shard_bytes(tmp_path / "b")
    dataset = open_dataset(tmp_path / "a")
    assert len(dataset) == 58
    sample = next(sample for sample in dataset if sample.row.key == "mine/disc 1_3")
    np.testing.assert_array_equal(sample.alpha, soft_disc(60, 64, 60)[1])
    np.testing.assert_array_equal(sample.foreground, soft_disc(60, 64, 60)[0])
    checked = call("inspect", str(tmp_path / "a"), "--verify", "-j", "1")
    assert checked.code == 0, checked.out
    told = call("inspect", str(tmp_path / "a")).out
    for text in ("foregrounds[0]: CC0-1.0", "foregrounds mine: A. Person", "backgrounds: CC-BY-4.0", "by weight"):
        assert text in told
    assert call("export", str(tmp_path / "a"), str(tmp_path / "png"), "--to", "png", "--count", "3").code == 0
    assert len(json.loads((tmp_path / "png" / "export.json").read_text())["sources"]) == 3


def test_a_bad_picture_of_a_root_is_called_by_its_whole_name(roots: Pictures, tmp_path: Path) -> None:
    """A failure and the doctor's findings speak of the root's own picture; the other root's namesake is whole."""
    (roots.root / "fg" / "disc 1.png").write_bytes(b"no picture")
    done = call("build", str(roots.root / "two.toml"), "--out", str(tmp_path / "d"), "-j", "1")
    assert done.code == 3
    assert "4 × not-an-image: mine/disc 1.png" in done.err
    found = call("doctor", str(roots.root / "two.toml"), "--json", "-j", "1")
    assert (found.code, found.json["composites"], found.json["lost"]) == (3, 58, 4)


def test_names_that_clash_are_refused(roots: Pictures) -> None:
    """Two roots with one name need a name of their own; places are no part of the plan, roots' names are."""
    text = RECIPE.replace('name = "mine"\n', "")
    (roots.root / "clash.toml").write_text(text)
    with pytest.raises(PlanError, match=r"two foregrounds are called 'disc 1'.*give one of the tables .* a name"):
        make_plan(load_recipe(roots.root / "clash.toml"))
    before = plan(roots).sha256
    roots.root.rename(roots.root.with_name("moved"))
    moved = Pictures(roots.root.with_name("moved"))
    assert plan(moved).sha256 == before
    (moved.root / "two.toml").write_text(RECIPE.replace('"mine"', '"yours"'))
    assert plan(moved).sha256 != before


def test_given_folders_take_the_place_of_all_roots(roots: Pictures) -> None:
    """`--foregrounds` leaves nothing of a recipe's list."""
    whole = make_plan(load_recipe(roots.root / "two.toml", foregrounds=roots.cutouts, backgrounds=roots.photos))
    assert whole.counts == (4,) * 5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "mine"', 'name = "../x"', r"foregrounds\[1\]\.name: String should match pattern"),
        ("weight = 2.5", "weight = 0", r"foregrounds\[0\]\.weight: expected more than 0, found 0"),
        ("weight = 2.5", "heft = 1", r"foregrounds\[0\]\.heft: unknown key; allowed here are .*root"),
        ('layout = "pairs"', 'layout = "heap"', r"foregrounds\[1\]: expected a table with layout = 'pairs'"),
        ('alphas = "alpha"\n', "", r"foregrounds\[1\]\.alphas: missing"),
        ('licence = "CC-BY-4.0"', "min_side = 0", r"backgrounds\.min_side: expected more than 0, found 0"),
        ('licence = "CC-BY-4.0"', "without = []", r"backgrounds\.without: expected at least 1, .*found"),
        (
            'licence = "CC-BY-4.0"',
            'min_side = 9\n[pairing]\norder = "listed"',
            "listed takes every line as it is; leave backgrounds.min_side out",
        ),
        ('licence = "CC-BY-4.0"', "max_side = 0", r"backgrounds\.max_side: expected more than 0, found 0"),
        ('licence = "CC-BY-4.0"', "min_side = 9\nmax_side = 8", "min_side = 9 must not be above max_side = 8"),
        (
            'layout = "folder"\nroot = "photos"',
            'layout = "procedural"\nmax_side = 8',
            r"backgrounds\.max_side: unknown key; did you mean 'sides'",
        ),
    ],
)
def test_wrong_tables_are_explained(roots: Pictures, old: str, new: str, message: str) -> None:
    """The message names the table by its number, the key, and what is allowed."""
    assert old in RECIPE
    (roots.root / "two.toml").write_text(RECIPE.replace(old, new))
    with pytest.raises(RecipeError, match=message):
        plan(roots)


def test_no_table_at_all_is_refused(tmp_path: Path) -> None:
    """An empty list of tables is no recipe."""
    (tmp_path / "r.toml").write_text('foregrounds = []\nbackgrounds = {layout = "procedural"}')
    with pytest.raises(RecipeError, match="foregrounds: expected at least one table"):
        load_recipe(tmp_path / "r.toml")


# ---- backgrounds ----


def coco(shown: dict[str, list[int]], order: str = "images annotations categories") -> dict[str, Any]:
    """Write annotations as COCO does, of pictures and the categories that they show."""
    parts: dict[str, list[dict[str, Any]]] = {
        "images": [{"id": i, "file_name": name, "license": 3} for i, name in enumerate(shown)],
        "annotations": [
            {"id": 1, "image_id": i, "category_id": category, "segmentation": [[1.5, 2.5]], "iscrowd": 0}
            for i, categories in enumerate(shown.values())
            for category in categories
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}, {"id": 90, "name": "toothbrush"}],
    }
    return {"info": {"year": 2014}, "licenses": [{"id": 3}], **{name: parts[name] for name in order.split()}}


def test_small_backgrounds_are_left_out_by_name(roots: Pictures) -> None:
    """What `min_side` leaves out is listed with its size; one that cannot be read stays, to fail where it is seen."""
    (roots.photos / "COCO_000000000005.jpg").write_bytes(b"no picture")
    whole = plan(roots, "backgrounds.min_side=100")
    assert list(whole.backgrounds) == [f"COCO_{i:012d}.jpg" for i in (1, 2, 3, 5)]
    assert ("COCO_000000000006.jpg", "101×99 px, under min_side = 100") in whole.excluded
    save(roots.photos / "COCO_000000000005.jpg", photograph(9, 9, 1))
    with pytest.raises(PlanError, match=r"no backgrounds: .*7 were left out, COCO_000000000000\.jpg because"):
        plan(roots, "backgrounds.min_side=1000")


@pytest.mark.parametrize("overrides", [[], LISTED, ["fit.method=adobe"]], ids=["folder", "list", "adobe"])
def test_larger_backgrounds_are_reduced(pictures: Pictures, tmp_path: Path, overrides: list[str]) -> None:
    """Composites are to the bit those over photographs that were reduced beforehand; what is mended, too."""
    if overrides == LISTED:  # by names of another year
        (pictures.photos / "names.txt").write_text("\n".join(f"COCO_train2014_{i:012d}.jpg" for i in range(7)))
        for path in pictures.photos.glob("*.jpg"):
            path.rename(path.with_name(path.name.removeprefix("COCO_")))
    settings = [f"--set={one}" for one in (*overrides, "shards.background=full")]
    limited = pictures.arguments(tmp_path / "limited", "-j", "1", *settings, "--set=backgrounds.max_side=90")
    done = call(*limited)
    assert "over 7 backgrounds, reduced to 90 px at most, in" in done.err
    damaged = next((tmp_path / "limited" / "shards").glob("*.h5"))
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1])
    assert call("inspect", str(tmp_path / "limited"), "--verify", "--repair", "-j", "1").code == 1
    assert (call(*limited).code, damaged.read_bytes()) == (0, whole)
    assert call("inspect", str(tmp_path / "limited"), "--verify", "-j", "1").code == 0
    for path in pictures.photos.glob("*.jpg"):
        picture = cv2.imread(str(path))
        scale = min(1, 90 / max(picture.shape))
        height, width = (round(side * scale) for side in picture.shape[:2])
        reduced = picture if scale == 1 else cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        path.write_bytes(cv2.imencode(".png", reduced)[1].tobytes())
    assert call(*pictures.arguments(tmp_path / "beforehand", "-j", "1", *settings)).code == 0
    for one, other in zip(open_dataset(tmp_path / "limited"), open_dataset(tmp_path / "beforehand"), strict=True):
        assert replace(one.row, background_sha256="") == replace(other.row, background_sha256="")
        for part in ("image", "trimap", "background"):
            np.testing.assert_array_equal(getattr(one, part), getattr(other, part))


def test_a_plan_knows_reduced_backgrounds(roots: Pictures) -> None:
    """Their sizes, which of them are too small, how far composites enlarge them, and whether all fit into memory."""
    whole = plan(roots, "backgrounds.max_side=40", "backgrounds.min_side=30")
    assert ("COCO_000000000002.jpg", "40×10 px, under min_side = 30") in whole.excluded
    layout = whole.background_layout
    assert all(layout.size(name) == layout.load(name).image.shape[:2] for name in whole.backgrounds)
    assert {max(layout.size(name)) for name in whole.backgrounds} == {40}
    recipe = str(roots.root / "two.toml")
    told = [
        call("build", recipe, "--out", "d", "--dry-run", "-j", "1", *more).out
        for more in ((), ("--set=backgrounds.max_side=40",))
    ]
    assert "reduced to 40 px at most" in told[1]
    assert ["enlarge their background more than 4×" in text for text in told] == [False, True]


@pytest.mark.parametrize("order", ["images annotations categories", "categories annotations images"])
def test_people_are_left_out(roots: Pictures, order: str) -> None:
    """Pictures annotated with people, and those that nobody annotated, are left out, by names of any year."""
    for path in sorted(roots.photos.iterdir()):
        path.rename(path.with_name(path.name.replace("COCO_", "COCO_train2014_")))
    shown = {f"{i:012d}.jpg": ([1, 18], [18], [], [1], [90, 1, 1], [90])[i] for i in range(6)}
    (roots.root / "instances.json").write_text(json.dumps(coco(shown, order), indent=1))
    text = RECIPE.replace('licence = "CC-BY-4.0"', 'annotations = "instances.json"')
    (roots.root / "two.toml").write_text(text)
    whole = plan(roots)
    assert [picture_identity(name) for name in whole.backgrounds] == [f"{i:012d}.jpg" for i in (1, 2, 5)]
    reasons = {picture_identity(name): reason for name, reason in whole.excluded[1:]}
    assert reasons["000000000004.jpg"] == "annotated with person"
    assert reasons["000000000006.jpg"] == "not in the annotations: nobody knows what it shows"
    others = plan(roots, 'backgrounds.without=["dog", "toothbrush"]')
    assert [picture_identity(name) for name in others.backgrounds] == [f"{i:012d}.jpg" for i in (2, 3)]
    assert others.sha256 != whole.sha256


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected COCO's annotations: No such file"),
        ("", "not COCO's annotations.*premature EOF"),
        ('{"images": [{"id": 1, "file_name": "a.jpg"}, {"id"', "not COCO's annotations"),
        ('["images"]', "not COCO's annotations.*an object was expected"),
        ('{"images": [{"id": 1}]}', "not COCO's annotations.*file_name"),
        ('{"images": [7]}', "not COCO's annotations"),
        ('{"annotations": [{"image_id": 1, "category_id": 123456789012}]}', "category 123456789012"),
        ('{"images": ' + "[" * 100_000, "not COCO's annotations"),
        ('{"images": [], "categories": [{"id": 3, "name": "car"}]}', "no category 'person'; it has car"),
        ('{"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 1, "name": "person"}]}', "knows none of"),
        ("\udcff", "not COCO's annotations"),
    ],
)
def test_wrong_annotations_are_named(roots: Pictures, content: str | None, message: str) -> None:
    """Missing, cut short, foreign, hostile: the file is named, and what is wrong with it."""
    if content is not None:
        (roots.root / "a.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(PlanError, match=f"a\\.json: .*{message}|a\\.json: {message}"):
        plan(roots, f"backgrounds.annotations={roots.root / 'a.json'}")


def test_deep_nesting_takes_little_memory(tmp_path: Path) -> None:
    """Whether below a list or below a long key, brackets cost no more than what they take in the file."""
    for begin in ('{"images": ', '{"images": [{"' + "a" * 100_000 + '": '):
        (tmp_path / "a.json").write_text(begin + "[" * 100_000)
        tracemalloc.start()
        with pytest.raises(PlanError, match="not COCO's annotations"):
            pictures_showing(tmp_path / "a.json", ["person"])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 30_000_000


names = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=9)


@settings(max_examples=60)
@given(st.dictionaries(names, st.lists(st.sampled_from([1, 18, 90]), max_size=3), max_size=8), st.integers(1, 40))
def test_a_stream_reads_what_json_reads(shown: dict[str, list[int]], chunk: int) -> None:
    """Wherever the chunks end, within a number, a name or an escape, the answer is that of the whole document."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("matting_compose.composer.sources.coco.CHUNK", chunk)
        text = json.dumps(coco(shown))
        patched.setattr("matting_compose.composer.sources.coco.open_regular", lambda _: io.BytesIO(text.encode()))
        known, showing = pictures_showing(Path("instances.json"), ["dog", "person"])
    assert known == {picture_identity(name) for name in shown}
    assert showing == {picture_identity(name) for name, seen in shown.items() if {1, 18} & set(seen)}


def test_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    """Of 24 MB of outlines a tenth at most is held at any time."""
    outline = json.dumps({"counts": "1b0Q" * 2_500})
    path = tmp_path / "instances.json"
    with path.open("w") as file:
        file.write('{"images": [{"id": 0, "file_name": "a.jpg"}], "annotations": [')
        file.write(",".join(f'{{"image_id": 0, "category_id": 1, "segmentation": {outline}}}' for _ in range(2_200)))
        file.write('], "categories": [{"id": 1, "name": "person"}]}')
    assert path.stat().st_size > 20e6
    tracemalloc.start()
    try:
        assert pictures_showing(path, ["person"]) == ({"a.jpg"}, {"a.jpg"})
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()


def test_every_place_of_a_recipe_can_be_made_absolute(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a cluster's workers, which run in other folders: of one table or several."""
    monkeypatch.chdir(pictures.root)
    one = rooted(load_recipe(foregrounds=Path("cutouts"), backgrounds=Path("photos")))
    assert one.foreground_tables[0].root == pictures.cutouts
    (pictures.root / "two.toml").write_text(
        '[[foregrounds]]\nlayout = "rgba"\nroot = "cutouts"\n[[foregrounds]]\nlayout = "rgba"\nroot = "more"\n'
        '[backgrounds]\nlayout = "folder"\nroot = "photos"\nannotations = "coco.json"\n'
    )
    two = rooted(load_recipe("two.toml"))
    assert [table.root for table in two.foreground_tables] == [pictures.cutouts, pictures.root / "more"]
    assert (two.backgrounds.root, two.backgrounds.annotations) == (pictures.photos, pictures.root / "coco.json")
