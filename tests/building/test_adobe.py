"""Adobe's data: the official script's pictures to the last bit, out of folders as they come."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import adobe as script
from adobe_tree import FOLDERS, SIDE, Adobe, make_adobe
from conftest import Array, photograph, run, save, soft_disc
from matting_compose.composer import open_dataset
from matting_compose.composer.base.errors import RecipeError
from matting_compose.composer.building.make_plan import make_plan
from matting_compose.composer.compositing.blending import METHODS, AdobeBlender, fit_like_adobe
from matting_compose.composer.recipe import load_recipe
from matting_compose.composer.sources.coco import coco_names
from matting_compose.composer.sources.image_io import read_rgb
from matting_compose.composer.sources.mattes import read_matte

LIMIT = 1_000_000


def by_the_script(foreground: Path, alpha: Path, background: Path) -> Array:
    """Compose three files pixel by pixel, independently of what is tested."""
    return script.by_the_script(Image.open(foreground), Image.open(alpha), Image.open(background))


@pytest.fixture(scope="module")
def adobe(tmp_path_factory: pytest.TempPathFactory) -> Adobe:
    """Make the tree once; tests add to it, and put back what they change."""
    return make_adobe(tmp_path_factory.mktemp("adobe"))


# ---- arithmetic ----


def test_blending_is_the_scripts_for_every_input() -> None:
    """All 256³ triples: float64, in the script's order of operations, truncated; and some of them are cut by one."""
    foreground, background = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    as_rgb = [np.repeat(v[..., None].astype(np.uint8), 3, axis=2) for v in (foreground, background)]
    cut = 0
    for alpha in range(256):
        share = alpha / 255
        scripts = (share * foreground + (1 - share) * background).astype(np.uint8)
        expected = {0: background, 255: foreground}.get(alpha, scripts)
        image = AdobeBlender(as_rgb[0], np.full((256, 256), alpha, np.uint8))(as_rgb[1])
        np.testing.assert_array_equal(image, np.repeat(expected[..., None], 3, axis=2))
        cut += int((expected != (alpha * foreground + (255 - alpha) * background) // 255).sum())
    assert cut == 12_397


def test_a_float_is_cut_where_both_colours_are_one() -> None:
    """The script makes 254 of white on white for some alphas, and so must we."""
    white = np.full((1, 254, 3), 255, np.uint8)
    image = AdobeBlender(white, np.arange(1, 255, dtype=np.uint8)[None])(white)
    expected = [int(a / 255 * 255 + (1 - a / 255) * 255) for a in range(1, 255)]
    assert image[0, :, 0].tolist() == expected
    assert 254 in expected


def test_one_blender_serves_views_of_any_shape() -> None:
    """What is premultiplied is not spent, backgrounds may be views, and bands of rows meet."""
    rng = np.random.default_rng(2)
    foreground, alpha = rng.integers(0, 256, (71, 33, 3), np.uint8), rng.integers(0, 256, (71, 33), np.uint8)
    blender = AdobeBlender(foreground, alpha)
    share = alpha[..., None] / 255
    for i in range(3):
        background = rng.integers(254, 256, (90, 60, 3), np.uint8)[i : 71 + i, 2 * i : 33 + 2 * i]
        scripts = (share * foreground + (1 - share) * background).astype(np.uint8)
        expected = np.where(share == 1, foreground, np.where(share == 0, background, scripts))
        np.testing.assert_array_equal(blender(background), expected)


def test_backgrounds_are_enlarged_as_a_whole_and_cut_at_the_top_left() -> None:
    """For sizes of every proportion: Pillow's bicubic filter over the whole picture, sides rounded up, then the cut."""
    rng = np.random.default_rng(3)
    enlarged = 0
    for _ in range(200):
        h, w, rows, columns = (int(side) for side in rng.integers(1, 70, 4))
        background = rng.integers(0, 256, (h, w, 3), np.uint8)
        ratio = max(columns / w, rows / h)
        whole = Image.fromarray(background)
        if ratio > 1:
            whole = whole.resize((math.ceil(w * ratio), math.ceil(h * ratio)), Image.Resampling.BICUBIC)
            enlarged += 1
        expected = np.asarray(whole.crop((0, 0, columns, rows)))
        np.testing.assert_array_equal(fit_like_adobe(background, (rows, columns)), expected)
    assert 100 < enlarged < 200


def test_a_thread_of_a_background_is_no_memory_bomb() -> None:
    """Enlarged whole, 100,000×1 px behind a portrait would be 10¹² px; it is refused with a way out."""
    with pytest.raises(ValueError, match=r"100000×1 px would be enlarged 3000×, whole.*fit\.method = exact"):
        fit_like_adobe(np.zeros((1, 100_000, 3), np.uint8), (3000, 2000))


# ---- reading ----


def test_pictures_are_read_as_pillow_stores_them(adobe: Adobe) -> None:
    """No EXIF turn, no profile, Pillow's own decoder for every kind."""
    for path in background_kinds(adobe):
        np.testing.assert_array_equal(
            read_rgb(path, path.name, LIMIT, "stored")[0], np.asarray(Image.open(path).convert("RGB"))
        )
    turned = adobe.root / "templates" / "turned.jpg"
    assert read_rgb(turned, "turned", LIMIT, "stored")[0].shape == (20, 60, 3)
    assert read_rgb(turned, "turned", LIMIT)[0].shape == (60, 20, 3)


def test_stored_pictures_of_every_mode(tmp_path: Path) -> None:
    """Palettes and transparency give what `convert("RGB")` gives; deep grey is refused, not guessed."""
    colour = Image.fromarray(photograph(20, 24, 9))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24), np.uint8))
    rgba = colour.copy()
    rgba.putalpha(noise)
    files = {"p": colour.quantize(9), "rgba": rgba, "la": rgba.convert("LA"), "l": colour.convert("L")}
    for name, picture in files.items():
        picture.save(tmp_path / f"{name}.png", **({"transparency": 3} if name == "p" else {}))
        path = tmp_path / f"{name}.png"
        expected = np.asarray(Image.open(path).convert("RGB"))
        np.testing.assert_array_equal(read_rgb(path, name, LIMIT, "stored")[0], expected)
    Image.fromarray(np.full((20, 24), 40_000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(Exception, match="mode I;16 cannot be taken as stored"):
        read_matte(tmp_path / "deep.png", "deep", LIMIT, "stored")


def background_kinds(adobe: Adobe) -> list[Path]:
    return sorted((adobe.root / "templates").glob("*.jpg"))


# ---- the recipes ----


def recipe_arguments(adobe: Adobe, name: str) -> list[str]:
    roots = {"dim431-coco2014": (adobe.training, adobe.coco), "composition-1k": (adobe.test, adobe.voc)}[name]
    return [name, "--foregrounds", str(roots[0]), "--backgrounds", str(roots[1])]


def test_the_training_plan_is_the_official_one(adobe: Adobe) -> None:
    """431 × 100 = 43,100: foreground i meets lines [100·i, 100·i + 100) of the list, whatever order folders have."""
    plan = make_plan(load_recipe("dim431-coco2014", foregrounds=adobe.training, backgrounds=adobe.coco))
    lines = (adobe.training / "training_bg_names.txt").read_text().split("\n")
    assert len(plan) == 43_100
    assert [entry.image.rpartition("/")[2] for entry in plan.foregrounds] == adobe.training_names
    assert sorted(adobe.training_names) != adobe.training_names
    assert [plan.background_name(f, v) for f in range(431) for v in range(100)] == [line.strip() for line in lines]
    assert {entry.image.rpartition("/fg/")[0] for entry in plan.foregrounds} == set(FOLDERS)
    assert None not in plan.sizes


@pytest.mark.parametrize("name", ["dim431-coco2014", "composition-1k"])
def test_composites_are_the_scripts_to_the_last_bit(adobe: Adobe, tmp_path: Path, name: str) -> None:
    """Built by the shipped recipe from the folders as they come, composite by composite against the slow script."""
    first = {"dim431-coco2014": adobe.training_names, "composition-1k": adobe.test_names}[name][:6]
    root = {"dim431-coco2014": adobe.training, "composition-1k": adobe.test}[name]
    backgrounds = {"dim431-coco2014": adobe.coco, "composition-1k": adobe.voc}[name]
    (root / "first.txt").write_text("\n".join(first))
    more = ["--out", str(tmp_path / "out"), "-j", "1", "--set", "foregrounds.list=first.txt"]
    built = run("build", *recipe_arguments(adobe, name), *more)
    assert built.code == 0, built.err
    dataset = open_dataset(tmp_path / "out")
    variants = {"dim431-coco2014": 100, "composition-1k": 20}[name]
    assert sorted(row.key for row in dataset.rows()) == sorted(
        f"{Path(picture).stem}_{variant}" for picture in first for variant in range(variants)
    )
    pixels = 0
    for sample in dataset:
        folder = next(root / f for f in FOLDERS if list((root / f / "fg").glob(f"{sample.row.foreground}.*")))
        ending = Path(first[0]).suffix
        sources = [folder / kind / f"{sample.row.foreground}{ending}" for kind in ("fg", "alpha")]
        expected = by_the_script(*sources, backgrounds / sample.row.background)
        np.testing.assert_array_equal(sample.image, expected)
        np.testing.assert_array_equal(sample.alpha, np.asarray(Image.open(sources[1]).split()[0]))
        if name == "composition-1k":
            supplied = root / FOLDERS[0] / "trimaps" / f"{sample.row.key}.png"
            np.testing.assert_array_equal(sample.trimap, np.asarray(Image.open(supplied)))
        pixels += sample.alpha.size
    assert pixels == 6 * variants * SIDE[0] * SIDE[1]


def test_coco_of_either_year_serves(adobe: Adobe, tmp_path: Path) -> None:
    """COCO 2017 has the same pictures without the prefix: the same plan, the same composites."""
    (adobe.training / "two.txt").write_text("\n".join(adobe.training_names[:2]))
    lines = (adobe.training / "training_bg_names.txt").read_text().splitlines()[:200]
    (tmp_path / "train2017").mkdir()
    for line in lines:
        os.link(adobe.coco / line, tmp_path / "train2017" / line.removeprefix("COCO_train2014_"))
    shared = ["build", "dim431-coco2014", "--foregrounds", str(adobe.training), "-j", "1"]
    shared += ["--set", "foregrounds.list=two.txt"]
    for folder, out in ((adobe.coco, "2014"), (tmp_path / "train2017", "2017")):
        assert run(*shared, "--backgrounds", str(folder), "--out", str(tmp_path / out)).code == 0
    shards = [sorted((tmp_path / year / "shards").glob("*.h5")) for year in ("2014", "2017")]
    assert [path.read_bytes() for path in shards[0]] == [path.read_bytes() for path in shards[1]]
    assert coco_names("a/000000000009.jpg")[1] == "a/COCO_train2014_000000000009.jpg"
    assert coco_names("2008_000009.jpg") == ["2008_000009.jpg"]


@pytest.mark.parametrize("name", ["dim431-coco2014", "composition-1k"])
def test_official_datasets_are_verified_by_their_own_rules(adobe: Adobe, tmp_path: Path, name: str) -> None:
    """With backgrounds stored, the script's blend is what is expected; supplied trimaps are nobody's to judge."""
    root, names = (adobe.training, adobe.training_names) if name.startswith("dim") else (adobe.test, adobe.test_names)
    (root / "one.txt").write_text(names[0])
    arguments = ["build", *recipe_arguments(adobe, name), "--set", "foregrounds.list=one.txt", "-j", "1"]
    assert run(*arguments, "--set", "shards.background=full", "--out", str(tmp_path / "out")).code == 0
    checked = run("inspect", str(tmp_path / "out"), "--verify", "-j", "1")
    assert checked.code == 0, checked.out


@pytest.mark.parametrize(
    ("trimap", "cause", "text"),
    [
        (np.full(SIDE, 127, np.uint8), "not-a-trimap", "this one 127 too"),
        (np.zeros((9, 9), np.uint8), "size-mismatch", "the trimap is 9×9 px, its foreground 22×26 px"),
        (None, "missing", "cannot be read"),
    ],
)
def test_a_bad_trimap_costs_its_composite(
    adobe: Adobe, tmp_path: Path, trimap: Array | None, cause: str, text: str
) -> None:
    """Only 0, 128 and 255, of the foreground's size; the failure names the file, and mending it is enough."""
    stem = Path(adobe.test_names[0]).stem
    path = adobe.test / FOLDERS[0] / "trimaps" / f"{stem}_3.png"
    good = path.read_bytes()
    (adobe.test / "one.txt").write_text(adobe.test_names[0])
    arguments = ["build", *recipe_arguments(adobe, "composition-1k"), "--set", "foregrounds.list=one.txt", "-j", "1"]
    arguments += ["--out", str(tmp_path / "out"), "--json"]
    path.unlink()  # a hard link: writing into it would change others
    try:
        if trimap is not None:
            Image.fromarray(trimap).save(path)
        ran = run(*arguments)
        assert (ran.code, ran.json["composites"], ran.json["failures"]) == (3, 19, 1)
        assert f"{cause}: Adobe-licensed images/trimaps/{stem}_3.png: " in ran.err
        assert text in ran.err
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(good)
    mended = run(*arguments)
    assert (mended.code, mended.json["composites"], mended.json["rendered"]) == (0, 20, 1)
    path.unlink()
    path.write_bytes(good + b"\0")
    changed = run(*arguments)
    assert changed.code == 1
    assert f"trimap Adobe-licensed images/trimaps/{stem}_3.png has changed" in changed.err
    path.write_bytes(good)


def test_a_dry_run_reads_supplied_trimaps(adobe: Adobe, tmp_path: Path) -> None:
    """It counts them, and foretells the failure of a foreground whose first is not there."""
    stem = Path(adobe.test_names[0]).stem
    (adobe.test / "one.txt").write_text("\n".join(adobe.test_names[:2]))
    arguments = ["build", *recipe_arguments(adobe, "composition-1k"), "--set", "foregrounds.list=one.txt", "-j", "1"]
    arguments += ["--out", str(tmp_path / "out"), "--dry-run", "--json"]
    fine = run(*arguments)
    assert (fine.code, fine.json["composites"], fine.json["failing"]) == (0, 40, [])
    path = adobe.test / FOLDERS[0] / "trimaps" / f"{stem}_0.png"
    path.rename(tmp_path / "aside.png")
    lacking = run(*arguments)
    (tmp_path / "aside.png").rename(path)
    assert (lacking.code, len(lacking.json["failing"])) == (3, 1)
    assert lacking.json["failing"][0][0] == f"Adobe-licensed images/trimaps/{stem}_0.png"


def test_pairs_may_come_with_trimaps(tmp_path: Path) -> None:
    """Beside the folders of pictures and of alphas; without Adobe's method as well."""
    foreground, alpha = soft_disc(60, 50, 1)
    trimap = np.full((60, 50), 128, np.uint8)
    save(tmp_path / "fg" / "a.png", foreground)
    save(tmp_path / "alpha" / "a.png", alpha)
    for variant in range(2):
        trimap[variant] = 255
        save(tmp_path / "mine" / f"a_{variant}.png", trimap)
        save(tmp_path / "bg" / f"{variant}.png", photograph(70, 70, variant))
    ran = run(
        *("build", "--foregrounds", "fg", "--alphas", "alpha", "--backgrounds", "bg", "--variants", "2", "-j", "1"),
        *("--set", "trimap.strategy=supplied", "--set", "trimap.folder=mine", "--out", "out"),
        cwd=tmp_path,
    )
    assert ran.code == 0, ran.err
    trimaps = [sample.trimap for sample in open_dataset(tmp_path / "out")]
    assert [int((trimap == 255).sum()) for trimap in trimaps] == [50, 100]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["fit.offset=centre"], r"with method = adobe offset is top-left"),
        (["fit.enlarge=always"], r"with method = adobe enlarge is needed"),
        (["foregrounds.max_side=100"], r"would not fit foregrounds cut to max_side"),
        (["trimap.strategy=distance", "fit.method=other"], r"no fit method is called 'other'; there are exact, adobe"),
    ],
)
def test_what_contradicts_the_script_is_refused(overrides: list[str], message: str) -> None:
    """A recipe cannot ask for Adobe's bits and for something else."""
    with pytest.raises(RecipeError, match=message):
        load_recipe("composition-1k", overrides)


def test_supplied_trimaps_and_lists_beside_need_files() -> None:
    """Drawn foregrounds have no folder."""
    with pytest.raises(RecipeError, match="goes with one table of foregrounds, layout dim or pairs"):
        load_recipe("demo", ["trimap.strategy=supplied"])
    listed = ["backgrounds={layout='list', root='.', list='x.txt', beside='foregrounds'}"]
    with pytest.raises(RecipeError, match="needs one table of foregrounds in files"):
        load_recipe("demo", listed)


def test_every_method_can_be_asked_for() -> None:
    """The recipe's choices are those that there are."""
    assert set(METHODS) == {"exact", "adobe"}
    assert load_recipe("demo", ["fit.method=adobe"]).fit.offset == "top-left"
