"""Pictures as they are: in the same shards as composites, stored once, with trimaps of their own, and no layers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from conftest import Pictures, call, make_once, photograph, save, shard_bytes, soft_disc
from matting_compose.composer import build, load_recipe, open_dataset
from matting_compose.composer.base.errors import DatasetError, RecipeError
from matting_compose.composer.building.make_plan import make_plan
from matting_compose.composer.compositing.blending import blend
from matting_compose.composer.compositing.compose import PreparedPicture

MIXED = """
variants = 4
[[foregrounds]]
layout = "rgba"
root = "cutouts"
[[foregrounds]]
layout = "pairs"
name = "real"
images = "real"
alphas = "real"
compose = false
weight = 0.75
[backgrounds]
layout = "folder"
root = "photos"
[looks]
count = 2
pair = 1
flip = 1
[scenes]
blur = 1
[shards]
variants = 2
tile = 48
background = "full"
"""


def portrait(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture as a camera would take it, and its alpha."""
    foreground, alpha = soft_disc(80 + 9 * number, 70, 50 + number)
    return blend(foreground, alpha, photograph(*alpha.shape, 60 + number)), alpha


def make_mixed(folder: Path) -> None:
    """Make cut-outs, photographs, three portraits, and one dataset of them all."""
    Pictures.make(folder)
    for number in range(3):
        image, alpha = portrait(number)
        save(folder / "real" / f"{number}.png", image)
        save(folder / "real" / f"{number}_alpha.png", alpha)
    (folder / "mixed.toml").write_text(MIXED)
    done = call("build", str(folder / "mixed.toml"), "--out", str(folder / "mixed"), "-j", "1")
    assert done.code == 0, done.err


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make it once. To be read only."""
    return make_once(tmp_path_factory, "as-they-are", make_mixed)


@pytest.fixture
def portraits(tree: Path, tmp_path: Path) -> list[str]:
    """Copy the portraits, to be damaged; return a build's arguments."""
    shutil.copytree(tree / "real", tmp_path / "real")
    real = str(tmp_path / "real")
    return ["build", "--foregrounds", real, "--alphas", real, "--set", "foregrounds.compose=false", "--variants", "3"]


def test_pictures_are_stored_as_they_are(tree: Path) -> None:
    """Image and alpha are the files' own, to the bit; each variant has its own trimap, drawn by the recipe."""
    dataset = open_dataset(tree / "mixed")
    plan = make_plan(load_recipe(tree / "mixed.toml"))
    seen = []
    for sample in dataset:
        if sample.row.composed:
            continue
        number = int(sample.row.foreground.removeprefix("real/"))
        image, alpha = portrait(number)
        np.testing.assert_array_equal(sample.image, image)
        np.testing.assert_array_equal(sample.alpha, alpha)
        assert sample.foreground is None
        assert sample.background is None
        cell = plan.cell(5 + number, sample.row.variant)
        drawn = PreparedPicture(image, alpha, plan.recipe.trimap).draw_trimap(cell)
        np.testing.assert_array_equal(sample.trimap, drawn.trimap)
        assert (sample.row.erode, sample.row.dilate) == (drawn.erode, drawn.dilate)
        seen.append((number, sample.trimap.tobytes()))
    assert len(seen) == len(set(seen)) == 9  # three variants each, by weight


def test_composites_beside_them_do_not_change(tree: Path, tmp_path: Path) -> None:
    """The composites of a mixed recipe are those of the same recipe without pictures as they are, to the bit."""
    table = MIXED[MIXED.index('[[foregrounds]]\nlayout = "pairs"') : MIXED.index("[backgrounds]")]
    (tree / "composed.toml").write_text(MIXED.replace(table, ""))
    build(load_recipe(tree / "composed.toml"), tmp_path / "composed", jobs=1)
    mixed = {sample.row.key: sample for sample in open_dataset(tree / "mixed")}
    alone = {sample.row.key: sample for sample in open_dataset(tmp_path / "composed")}
    assert len(mixed) == len(alone) + 9
    for key, sample in alone.items():
        for part in ("image", "trimap", "alpha", "foreground", "background"):
            np.testing.assert_array_equal(getattr(mixed[key], part), getattr(sample, part))
        assert not mixed[key].row.look.partner.startswith("real/")


def test_a_picture_lies_in_a_shard_once(tree: Path) -> None:
    """A group of a picture as it is has one image, a trimap for each variant, and nothing else."""
    found = []
    for path in sorted((tree / "mixed" / "shards").glob("*.h5")):
        with h5py.File(path) as file:
            for group in file["groups"].values():
                if group.attrs["foreground"].startswith("real/"):
                    assert file.attrs["version"] == 2
                    assert sorted(group) == ["alpha", "image", "trimap"]
                    assert group["image"].ndim == 3
                    found.append(len(group["trimap"]))
    assert sum(found) == 9


def test_only_datasets_with_them_are_of_version_2(tree: Path, finished: Path) -> None:
    """Older programs go on reading datasets of composites alone, and say of others that they are too new."""
    versions = [json.loads((folder / "dataset.json").read_text())["version"] for folder in (tree / "mixed", finished)]
    assert versions == [2, 1]


def test_verify_proves_them(tree: Path, tmp_path: Path) -> None:
    """A sound dataset is well; a bit that changes in a picture as it is, is found."""
    assert call("inspect", str(tree / "mixed"), "--verify", "-j", "1").code == 0
    shutil.copytree(tree / "mixed", tmp_path / "mixed")
    for path in sorted((tmp_path / "mixed" / "shards").glob("*.h5")):
        with h5py.File(path) as file:
            groups = [g for g in file["groups"].values() if g.attrs["foreground"].startswith("real/")]
            place = groups[0]["image"].id.get_chunk_info(0).byte_offset if groups else None
        if place is not None:
            data = bytearray(path.read_bytes())
            data[place + 20] ^= 1
            path.write_bytes(data)
            break
    done = call("inspect", str(tmp_path / "mixed"), "--verify", "--json", "-j", "1")
    assert {problem["cause"] for problem in done.json["problems"]} == {"changed", "damaged-composite"}


def test_a_row_that_lies_is_damage(tree: Path, tmp_path: Path) -> None:
    """A shard whose table calls a picture a composite is refused, not read past its arrays."""
    shutil.copytree(tree / "mixed", tmp_path / "mixed")
    dataset = open_dataset(tmp_path / "mixed")
    number = next(number for number, row in enumerate(dataset.rows()) if not row.composed)
    path = tmp_path / "mixed" / "shards" / dataset.shard_of(number).file
    dataset.close()
    with h5py.File(path, "r+") as file:
        table = file["samples"][()]
        table["background"] = b"x"
        file["samples"][...] = table
    with pytest.raises(DatasetError, match="whether it is composed"):
        _ = open_dataset(tmp_path / "mixed")[number]


def test_a_mended_picture_gives_the_same_bytes(portraits: list[str], tmp_path: Path) -> None:
    """What failed is listed by variant, and the same command makes it, to the bytes of a build that never failed."""
    assert call(*portraits, "--out", str(tmp_path / "whole"), "-j", "1").code == 0
    alpha = tmp_path / "real" / "1_alpha.png"
    good = alpha.read_bytes()
    alpha.write_bytes(good[:200])
    doctor = call("doctor", *portraits[1:5], "--set", "foregrounds.compose=false", "--set", "variants=3", "--json")
    assert (doctor.code, doctor.json["lost"]) == (3, 3)
    assert call(*portraits, "--out", str(tmp_path / "mended"), "-j", "1").code == 3
    alpha.write_bytes(good)
    assert call(*portraits, "--out", str(tmp_path / "mended"), "-j", "1").code == 0
    assert shard_bytes(tmp_path / "mended") == shard_bytes(tmp_path / "whole")


def test_a_dry_run_says_what_there_is(portraits: list[str], tmp_path: Path) -> None:
    """No backgrounds are needed, and the estimate counts each picture once."""
    asked = [*portraits, "--set", "shards.packing=plain", "--set", "shards.tile=16", "--out", str(tmp_path / "d")]
    done = call(*asked, "--dry-run", "-j", "1")
    assert done.code == 0, done.err
    assert "9 composites: 3 foregrounds × 3 variants as they are" in done.out
    pixels = sum(portrait(number)[1].size for number in range(3))
    found = call(*asked, "--dry-run", "--json", "-j", "1").json
    assert 6 * pixels <= found["bytes"] <= 9 * pixels  # 3 of colour and 3 trimaps, in tiles that are not all full


def test_limits_scale_the_picture_plainly(tree: Path) -> None:
    """A picture that is reduced keeps what is around its subject: no colour is weighted by alpha."""
    pairs = [f"foregrounds.{key}" for key in (f"images={tree / 'real'}", f"alphas={tree / 'real'}", "compose=false")]
    recipe = load_recipe(None, ["foregrounds.layout=pairs", *pairs, "foregrounds.max_side=40"])
    layout = make_plan(recipe).foreground_layout
    image, alpha = portrait(0)
    loaded = layout.load(layout.entries()[0])
    expected = [cv2.resize(part, (35, 40), interpolation=cv2.INTER_AREA) for part in (image, alpha)]
    np.testing.assert_array_equal(loaded.image, expected[0])
    np.testing.assert_array_equal(loaded.alpha, expected[1])


def test_exports_hold_a_picture_once(tree: Path, tmp_path: Path) -> None:
    """PNG trees share a picture among its trimaps, and lists say so; tar files have no layers of it."""
    assert call("export", str(tree / "mixed"), str(tmp_path / "png"), "--to", "png", "-j", "1").code == 0
    listed = [entry for entry in json.loads((tmp_path / "png" / "train.json").read_text()) if "fg" not in entry]
    assert len(listed) == 9
    assert {tuple(entry) for entry in listed} == {("merged", "alpha", "trimap")}
    assert sorted({entry["merged"] for entry in listed}) == [f"merged/real/{number}.png" for number in range(3)]
    merged = cv2.imread(str(tmp_path / "png" / "merged" / "real" / "2.png"))
    np.testing.assert_array_equal(merged[..., ::-1], portrait(2)[0])
    assert call("export", str(tree / "mixed"), str(tmp_path / "tar"), "--to", "webdataset", "-j", "1").code == 0


def test_they_are_told_and_shown(tree: Path, tmp_path: Path) -> None:
    """The summary counts them, the report and a panel show them."""
    assert "9 of them are pictures that were not composed" in call("inspect", str(tree / "mixed")).out
    assert call("inspect", str(tree / "mixed"), "--json").json["as_they_are"] == 9
    page = tmp_path / "report.html"
    assert call("inspect", str(tree / "mixed"), "--report", str(page)).code == 0
    assert "its own: a picture as it is" in page.read_text()
    shown = call("inspect", str(tree / "mixed"), "--show", "real/1_0", "-o", str(tmp_path / "panel.png"))
    assert shown.code == 0, shown.err


def test_crops_mix_and_losses_that_compose_refuse(tree: Path) -> None:
    """A stream gives crops of both; who asks for layers is told which pictures have none."""
    pytest.importorskip("torch", reason="streams need the 'train' extra")
    from matting_compose.trainer import open_stream

    stream = open_stream(tree / "mixed", batch=4, crop=32, sizes=[32, 48], epochs=1)
    samples = np.concatenate([batch.samples for batch in stream])
    composed = [row.composed for row in open_dataset(tree / "mixed").rows()]
    assert {composed[number] for number in samples} == {True, False}
    with pytest.raises(DatasetError, match="taken as they are"):
        open_stream(tree / "mixed", batch=4, crop=32, colours=True)


def test_crops_of_them_are_not_composed_anew(tree: Path) -> None:
    """Where crops get new backgrounds, those of pictures as they are stay; and they serve as backgrounds of others."""
    pytest.importorskip("torch", reason="streams need the 'train' extra")
    from matting_compose.trainer import open_stream
    from matting_compose.trainer.data.remix import Remix

    settings = {"batch": 4, "crop": 32, "sizes": [32, 48], "epochs": 1}
    plain = open_stream(tree / "mixed", **settings)
    anew = open_stream(tree / "mixed", **settings, remix=Remix(chance=1, combine=1))
    composed = np.array([row.composed for row in open_dataset(tree / "mixed").rows()])
    for before, after in zip(plain, anew, strict=True):
        same = [bool((one == other).all()) for one, other in zip(before.image, after.image, strict=True)]
        np.testing.assert_array_equal(same, ~composed[before.samples])


def test_what_is_composed_needs_backgrounds() -> None:
    """Without backgrounds only pictures as they are can be built, and drawn foregrounds are none."""
    with pytest.raises(RecipeError, match=r"backgrounds: expected a table .* only pictures as they are"):
        load_recipe(None, ["foregrounds.layout=rgba", "foregrounds.root=x"])
    with pytest.raises(RecipeError, match=r"foregrounds\.compose"):
        load_recipe("demo", ["foregrounds.compose=false"])
