"""Looks and scenes: more from few, exact, the same at every build, and apart from what builds without them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Pictures, call, photograph, shard_bytes, soft_disc
from matting_compose.composer import open_dataset
from matting_compose.composer.building.look_reader import read_look
from matting_compose.composer.building.make_plan import make_plan
from matting_compose.composer.building.plan import Plan, plan_sha256
from matting_compose.composer.compositing.looks import Looks, combine, cut_edges, draw_look, place_partner, turn
from matting_compose.composer.compositing.scenes import SceneMaker
from matting_compose.composer.dataset.rows import Look, Scene
from matting_compose.composer.recipe import load_recipe
from matting_compose.composer.sources.foregrounds import Entry, foreground_layout

OPTIONS = {
    "flip": ["looks.flip=1"],
    "rotate": ["looks.rotate=20"],
    "scale": ["looks.scale=[0.5,1.5]"],
    "jitter": ["looks.jitter=0.3"],
    "pair": ["looks.pair=1"],
    "denoise": ["scenes.denoise=1"],
    "blur": ["scenes.blur=1"],
    "harmonise": ["scenes.harmonise=[0.5,1]"],
    "shadow": ["scenes.shadow=1"],
}
EVERYTHING = [text for texts in OPTIONS.values() for text in texts] + ["looks.count=2"]
PARTS = ("image", "trimap", "alpha", "foreground", "background")


def sets(*overrides: str) -> list[str]:
    return [argument for text in overrides for argument in ("--set", text)]


# ---- arithmetic ----


def test_a_pair_is_what_blending_twice_gives() -> None:
    """All 256² pairs of alphas: the alpha and the colours are float64's, rounded; and over a third colour so is I."""
    rng = np.random.default_rng(1)
    first, second = (v.astype(np.uint8) for v in np.meshgrid(np.arange(256), np.arange(256), indexing="ij"))
    front, back, far = (rng.integers(0, 256, (256, 256, 3), np.uint8) for _ in range(3))
    image, alpha = combine(front, first, back, second)
    a, b = first[..., None] / 255, second[..., None] / 255
    total = 1 - (1 - a) * (1 - b)
    np.testing.assert_array_equal(alpha, np.rint(255 * total[..., 0]))
    colours = (a * front + (1 - a) * b * back) / np.where(total > 0, total, 1)
    expected = np.where(total > 0, colours, front)
    halves = np.abs(expected - np.floor(expected) - 0.5) < 1e-9  # float64 cannot say to which side of a half it falls
    np.testing.assert_array_equal(image[~halves], np.rint(expected)[~halves])
    twice = a * front + (1 - a) * (b * back + (1 - b) * far)
    share = alpha[..., None] / 255
    assert np.abs(share * image + (1 - share) * far - twice).max() <= 1.0


def test_nothing_behind_changes_nothing() -> None:
    """A partner that is clear leaves every bit as it was, below clear pixels too."""
    image, alpha = soft_disc(50, 60, 1)
    same, still = combine(image, alpha, photograph(50, 60, 2), np.zeros((50, 60), np.uint8))
    np.testing.assert_array_equal(same, image)
    np.testing.assert_array_equal(still, alpha)


@settings(max_examples=40)
@given(st.floats(-45, 45), st.integers(40, 90), st.integers(40, 90), st.sampled_from(["all", "bottom", "above"]))
def test_turning_shows_no_edge_at_which_a_foreground_was_cut(degrees: float, tall: int, wide: int, cut: str) -> None:
    """What fills its frame fills it still; what was cut off below, in the frame or above its edge, is so still."""
    alpha = np.zeros((tall, wide), np.uint8)
    margin = 0 if cut == "all" else 3
    alpha[margin : tall - (0 if cut != "above" else 3), margin : wide - margin] = 255
    image = np.full((tall, wide, 3), (200, 90, 40), np.uint8)
    colours, matte = turn(image, alpha, degrees)
    assert colours.shape == (*matte.shape, 3)
    if matte is alpha:  # upright: too much would have been lost
        return
    assert min(matte.shape) >= 2 / 3 * min(tall, wide) - 1
    np.testing.assert_array_equal(np.abs(colours[matte > 0].astype(int) - (200, 90, 40)).max(initial=0), 0)
    middle = matte[:, matte.shape[1] // 2]
    assert middle[-1] > 250
    if cut == "all":
        assert matte.min() == 255


def test_turning_agrees_with_where_things_go() -> None:
    """Marks far from the edges go where a turn about the middle takes them, counter-clockwise, in both parts."""
    image, alpha = np.zeros((201, 201, 3), np.uint8), np.zeros((201, 201), np.uint8)
    cv2.circle(alpha, (150, 100), 8, 255, -1)
    image[...] = alpha[..., None]
    colours, matte = turn(image, alpha, 30)
    y, x = np.nonzero(matte > 127)
    np.testing.assert_allclose((x.mean(), y.mean()), (100 + 50 * np.cos(np.pi / 6), 100 - 25), atol=0.2)
    np.testing.assert_array_equal(colours[matte == 255], 255)


def test_a_partner_stays_at_the_side_at_which_it_was_cut() -> None:
    """A bust stands on the frame's edge wherever it was drawn to; what fills its frame fills the other's."""
    size, look = (120, 100), Look(partner_size=0.8, partner_y=0.1, partner_x=0.5)
    bust = np.zeros((60, 60), np.uint8)
    bust[20:57, 15:45] = 255
    cv2.circle(bust, (30, 20), 12, 255, -1)
    assert cut_edges(bust).keys() >= {"bottom"}
    image, alpha = place_partner(np.dstack([bust] * 3), bust, size, look)
    assert alpha.shape == size
    assert alpha[-1].max() == 255
    assert alpha[0].max() == 0
    np.testing.assert_array_equal(image[alpha == 255], 255)
    disc = soft_disc(60, 70, 3)[1]
    assert not cut_edges(disc)
    assert place_partner(np.dstack([disc] * 3), disc, size, look)[1][-1].max() == 0
    full = np.full((40, 70), 255, np.uint8)
    assert place_partner(np.dstack([full] * 3), full, size, look)[1].min() == 255
    empty = np.zeros((40, 70), np.uint8)
    assert place_partner(np.dstack([empty] * 3), empty, size, look)[1].max() == 0


@given(st.integers(0, 10_000))
def test_draws_keep_to_the_recipe(seed: int) -> None:
    """Whatever is drawn lies within what the recipe allows; with nothing allowed nothing is done."""
    table = Looks(count=3, flip=0.5, rotate=10, scale=(0.5, 1.5), jitter=0.2, pair=0.5)
    look = draw_look(table, 2, ["a", "b", "own", "c"], 2, np.random.default_rng(seed))
    assert look.number == 2
    assert abs(look.rotate) <= 10
    assert 0.5 <= look.scale <= 1.5
    assert all(abs(gain - 1) <= 0.2 for gain in (look.red, look.green, look.blue))
    assert look.partner in ("", "a", "b", "c")
    assert draw_look(Looks(count=3), 0, ["a", "own"], 1, np.random.default_rng(seed)) == Look()
    assert draw_look(table, 0, ["own"], 0, np.random.default_rng(seed)).partner == ""


def test_scenes_do_what_they_say() -> None:
    """A shadow only darkens, most where it falls; blur and denoising lessen noise; brightness goes the right way."""
    foreground, alpha = soft_disc(120, 140, 1)
    stage, background = SceneMaker(foreground, alpha), photograph(120, 140, 5)
    shadowed, _ = stage(background, Scene(shadow=0.5, shadow_y=0.05, shadow_x=0.05, shadow_blur=0.02))
    assert (shadowed <= background).all()
    inside = alpha == 255
    assert shadowed[inside].sum() < 0.65 * background[inside].sum()
    np.testing.assert_array_equal(shadowed[0], background[0])
    noisy = np.random.default_rng(1).normal(128, 6, (120, 140, 3)).clip(0, 255).astype(np.uint8)
    for scene in (Scene(denoise=True), Scene(blur=1.0)):
        assert stage(noisy, scene)[0].std() < 0.7 * noisy.std()
    grey = np.asarray(cv2.cvtColor(foreground, cv2.COLOR_RGB2GRAY), np.float64)
    goal = float((grey * alpha).sum() / alpha.sum())
    for level in (40, 220):
        plain = np.full((120, 140, 3), level, np.uint8)
        toned, scene = stage(plain, Scene(harmonise=1.0))
        assert min(level, goal) - 1 <= toned.mean() <= max(level, goal) + 1
        assert abs(toned.mean() - goal) < abs(level - goal)
        assert 0.6 <= scene.gamma <= 1.6
    same, scene = stage(background, Scene())
    assert same is background
    assert scene == Scene()


# ---- plans ----


def drawn(*overrides: str) -> Plan:
    """Plan without files."""
    return make_plan(load_recipe("demo", ["foregrounds.count=24", "backgrounds.count=30", *overrides]))


@pytest.mark.parametrize("looks", [1, 3, 10, 17])
def test_looks_share_the_variants_evenly(looks: int) -> None:
    """Every cell is in one shard and one group, and a foreground's looks have as many variants, to one."""
    plan = drawn(f"looks.count={looks}", "looks.flip=0.5", "shards.variants=2")
    cells = [cell for shard in plan.shards for cell in plan.cells(shard)]
    assert sorted((cell.foreground, cell.variant) for cell in cells) == [(f, v) for f in range(24) for v in range(10)]
    groups = {strip.group: strip for shard in plan.shards for strip in shard.strips}
    assert all(groups[cell.group].foreground == cell.foreground for cell in cells)
    sizes = [sum(cell.group == group for cell in cells) for group in groups]
    assert len(groups) == 24 * min(looks, 10)
    assert max(sizes) - min(sizes) <= 1


def test_a_look_depends_on_its_place_alone() -> None:
    """Neither shards nor the number of variants change what is drawn."""
    one, other = drawn("looks.count=2", "looks.rotate=9"), drawn("looks.count=2", "looks.rotate=9", "shards.variants=1")
    assert one.shape != other.shape
    assert [one.look(group) for group in range(48)] == [other.look(group) for group in range(48)]
    assert len({one.look(group).rotate for group in range(48)}) == 48
    assert one.cell(3, 7).erode == drawn().cell(3, 7).erode


@pytest.mark.parametrize("seed", range(5))
def test_no_pair_crosses_the_split(seed: int) -> None:
    """Who stands behind is of the same split, and somebody else."""
    plan = drawn("looks.pair=1", "looks.count=5", "split.validation=0.25", f"seed={seed}")
    split = dict(zip((entry.key for entry in plan.foregrounds), plan.splits, strict=True))
    seen = set()
    for row in plan.rows:
        own, partner = plan.foregrounds[row.foreground].key, plan.look(row.group).partner
        assert partner != own
        assert split[partner] == split[own]
        seen.add((split[own], partner))
    assert len(seen) > 18
    lonely = drawn("looks.pair=1", "split.validation=0.05")
    assert [lonely.look(row.group).partner for row in lonely.rows if lonely.splits[row.foreground] != "train"] == [""]


def test_plans_without_looks_are_what_they_were(tmp_path: Path) -> None:
    """The hashes of 2 plans from before there were looks and scenes, but for the version of the rules they follow."""

    def sha256_of_version_1(plan: Plan) -> str:
        return plan_sha256(plan.document() | {"plan_version": 1})

    assert sha256_of_version_1(drawn()) == "256e016a1a543dbc40c0bec03f73c7dda456f257a114f3c4cb8008c3701b7093"
    (tmp_path / "fg" / "Other" / "fg").mkdir(parents=True)
    (tmp_path / "fg" / "Other" / "fg" / "a.jpg").touch()
    (tmp_path / "fg" / "training_fg_names.txt").write_text("a.jpg\nb, (1).jpg")
    (tmp_path / "fg" / "training_bg_names.txt").write_text("\n".join(f"COCO_{i:012d}.jpg" for i in range(200)))
    dim = load_recipe(
        "dim431-coco2014", ["shards.background=none"], foregrounds=tmp_path / "fg", backgrounds=tmp_path / "bg"
    )
    assert sha256_of_version_1(make_plan(dim)) == "4e302348255b328516883f684c30e256458af4e3995c0dec2f0e2cb64818e449"


# ---- datasets ----


@pytest.mark.parametrize("option", [*OPTIONS, "everything"])
def test_every_option_keeps_the_equation(pictures: Pictures, tmp_path: Path, option: str) -> None:
    """I = αF + (1−α)B, rounded, of what is stored, over every pixel; the row says what was done; verify agrees."""
    overrides = OPTIONS.get(option, EVERYTHING)
    out = tmp_path / "d"
    done = call(*pictures.arguments(out, "-j", "1", *sets("shards.background=full", "shards.tile=64", *overrides)))
    assert done.code == 0, done.err
    dataset = open_dataset(out)
    for sample in dataset:
        assert sample.background is not None
        share = sample.alpha[..., None] / 255
        blended = np.rint(share * sample.foreground + (1 - share) * sample.background)
        np.testing.assert_array_equal(sample.image, blended, err_msg=sample.row.key)
    columns = {name for row in dataset.rows() for name, _ in row.changes()}
    names = {"denoise": "scene_denoise", "jitter": "look_red", "pair": "look_partner", "harmonise": "scene_gamma"}
    for name in OPTIONS if option == "everything" else [option]:
        part = "look" if name in ("flip", "rotate", "scale") else "scene"
        assert names.get(name, f"{part}_{name}") in columns
    dataset.close()
    checked = call("inspect", str(out), "--verify", "-j", "1")
    assert checked.code == 0, checked.out


def test_looks_are_flips_of_colours_and_alpha_alike(pictures: Pictures) -> None:
    """A mirrored look is the foreground's mirror image, and so is its alpha; a tint touches colours only."""
    layout = foreground_layout(load_recipe(foregrounds=pictures.cutouts, backgrounds=pictures.photos))
    entry = Entry("disc 1", "disc 1.png")
    plain = layout.load(entry)
    mirrored = read_look(layout, entry, Look(flip=True), {})
    np.testing.assert_array_equal(mirrored.image, plain.image[:, ::-1])
    np.testing.assert_array_equal(mirrored.alpha, plain.alpha[:, ::-1])
    tinted = read_look(layout, entry, Look(red=1.2, offset=3.0), {})
    np.testing.assert_array_equal(tinted.alpha, plain.alpha)
    expected = np.rint(plain.image * np.array([1.2, 1, 1]) + 3).clip(0, 255)
    np.testing.assert_array_equal(tinted.image, expected)


def test_bytes_do_not_depend_on_workers_or_stops(pictures: Pictures, tmp_path: Path) -> None:
    """One worker or two, with shards lost on the way; and other shards hold the same composites."""
    options = sets("shards.tile=64", *EVERYTHING)
    whole, stopped, other = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    assert call(*pictures.arguments(whole, "-j", "1", *options)).code == 0
    assert call(*pictures.arguments(stopped, "-j", "2", *options)).code == 0
    for path in sorted((stopped / "shards").glob("*.json"))[::2]:
        path.unlink()
    assert call(*pictures.arguments(stopped, "-j", "1", *options)).code == 0
    assert shard_bytes(stopped) == shard_bytes(whole)
    assert (
        call(*pictures.arguments(other, "-j", "1", *options, *sets("shards.megabytes=1", "shards.variants=1"))).code
        == 0
    )
    first, second = open_dataset(whole), open_dataset(other)
    by_key = {sample.row.key: sample for sample in second}
    for sample in first:
        again = by_key.pop(sample.row.key)
        assert replace(again.row, position=0) == replace(sample.row, position=0)
        for part in PARTS:
            np.testing.assert_array_equal(getattr(again, part), getattr(sample, part))
    assert not by_key


def test_a_bad_partner_costs_its_pairs_and_is_mended(pictures: Pictures, tmp_path: Path) -> None:
    """Composites fail where a foreground or its partner cannot be read; after repair nothing tells the difference."""
    options = sets("shards.tile=64", "looks.pair=0.7", "looks.count=2")
    clean, out = tmp_path / "clean", tmp_path / "d"
    assert call(*pictures.arguments(clean, "-j", "1", *options)).code == 0
    victims = {row.key for row in open_dataset(clean).rows() if "disc 2" in (row.foreground, row.look.partner)}
    assert 4 < len(victims) < 20
    bad = pictures.cutouts / "disc 2.png"
    content = bad.read_bytes()
    bad.write_bytes(content[:300])
    assert call(*pictures.arguments(out, "-j", "1", *options)).code == 3
    failures = json.loads((out / "dataset.json").read_text())["failures"]
    assert {failure["key"] for failure in failures} == victims
    assert {failure["source"] for failure in failures} == {"disc 2.png"}
    bad.write_bytes(content)
    mended = call(*pictures.arguments(out, "-j", "1", "--json", *options))
    assert (mended.code, mended.json["rendered"]) == (0, len(victims))
    assert shard_bytes(out) == shard_bytes(clean)


def test_a_table_without_looks_is_as_it_was(finished: Path) -> None:
    """A dataset that uses none of this has the columns of old, and old ones are read with the usual values."""
    path = next((finished / "shards").glob("*.h5"))
    with h5py.File(path) as file:
        assert file["samples"].dtype.names[-2:] == ("group", "position")
        assert len(file["samples"].dtype.names) == 14
    assert {(row.look, row.scene) for row in open_dataset(finished).rows()} == {(Look(), Scene())}


def test_a_row_that_says_something_else_is_found(pictures: Pictures, tmp_path: Path) -> None:
    """A look that was not planned is a disagreement, named by its composite."""
    out = tmp_path / "d"
    assert call(*pictures.arguments(out, "-j", "1", *sets("looks.flip=1", "looks.rotate=9"))).code == 0
    with h5py.File(out / "shards" / "shard-00000.h5", "r+") as file:
        table = file["samples"][()]
        table["look_flip"][0] = 0
        file["samples"][...] = table
    found = call("inspect", str(out), "--verify", "-j", "1")
    assert found.code == 1
    assert "planned were Look(number=0, flip=True" in found.out


def test_each_look_is_exported_with_its_own_alpha(pictures: Pictures, tmp_path: Path) -> None:
    """In folders of PNG each composite of a foreground of several looks has an alpha under its own name."""
    out = tmp_path / "d"
    assert call(*pictures.arguments(out, "-j", "1", *sets("looks.count=2", "looks.scale=[0.5,1.5]"))).code == 0
    assert call("export", str(out), str(tmp_path / "png"), "--to", "png", "-j", "1").code == 0
    entries = json.loads((tmp_path / "png" / "train.json").read_text())
    assert len({entry["alpha"] for entry in entries}) == len(entries) == 20
    for sample in open_dataset(out):
        entry = next(entry for entry in entries if Path(entry["merged"]).stem == sample.row.key)
        stored = cv2.imread(str(tmp_path / "png" / entry["alpha"]), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(stored, sample.alpha)


def test_the_modern_recipe_works_over_folders(pictures: Pictures, tmp_path: Path) -> None:
    """Given folders take the place of the drawn pictures, and everything is on; a dry run tells what it would take."""
    folders = ["--foregrounds", str(pictures.cutouts), "--backgrounds", str(pictures.photos), "-j", "1", "--json"]
    told = call("build", "modern", *folders, "--out", str(tmp_path / "d"), "--dry-run")
    assert (told.code, told.json["composites"]) == (0, 100)
    done = call("build", "modern", *folders, "--out", str(tmp_path / "d"), "--variants", "8")
    assert (done.code, done.json["composites"]) == (0, 40), done.err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("looks.flip=2", "looks.flip: expected at most 1, found 2"),
        ("looks.rotate=90", "looks.rotate: expected at most 45, found 90"),
        ("looks.scale=[0.01,1]", "scale lies between 0.1 and 2, found [0.01, 1]"),
        ("looks.scale=[1.5,0.5]", "upside down"),
        ("looks.tilt=3", "looks.tilt: unknown key; allowed here are count, flip, rotate"),
        ("scenes.harmonise=[0,2]", "scenes.harmonise: expected at most 1, found 2"),
        ("scenes.shade=1", "scenes.shade: unknown key; did you mean 'shadow'? allowed here are denoise, blur"),
    ],
)
def test_impossible_looks_are_explained(pictures: Pictures, tmp_path: Path, override: str, message: str) -> None:
    """Wrong usage names the key, what was found and what is allowed."""
    done = call(*pictures.arguments(tmp_path / "d", *sets(override)))
    assert done.code == 2
    assert message in done.err


def test_supplied_trimaps_fit_no_other_look() -> None:
    """Trimaps that come as files are of the foregrounds as they are."""
    done = call("build", "composition-1k", *sets("looks.flip=0.5"))
    assert done.code == 2
    assert "trimap.strategy = supplied: the trimaps would not fit other looks; leave [looks] out" in done.err
