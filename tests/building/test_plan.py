"""Plans: deterministic, fair, independent of how they are cut, and quick at COCO's size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from conftest import Pictures, call, photograph, save
from matting_compose.composer import open_dataset
from matting_compose.composer.base.errors import BuildError, PlanError, RecipeError
from matting_compose.composer.building.make_plan import make_plan
from matting_compose.composer.building.plan import PLAN, Plan
from matting_compose.composer.building.resume import plan_build
from matting_compose.composer.recipe import Recipe, Split, load_recipe


def plan(pictures: Pictures, *overrides: str) -> Plan:
    """Plan the small tree, four variants."""
    recipe = load_recipe(None, ["variants=4", *overrides], foregrounds=pictures.cutouts, backgrounds=pictures.photos)
    return make_plan(recipe)


def drawn(count: int, backgrounds: int, *overrides: str) -> Plan:
    """Plan without files."""
    sizes = [f"foregrounds.count={count}", f"backgrounds.count={backgrounds}"]
    return make_plan(load_recipe("demo", [*sizes, *overrides]))


def test_a_cell_depends_on_its_place_alone() -> None:
    """Shard size and the number of foregrounds change no cell's draws."""
    one, other = drawn(20, 50), drawn(12, 50, "shards.megabytes=1", "shards.variants=3")
    assert one.shape != other.shape
    for place in ((0, 0), (3, 7), (11, 9)):
        assert one.cell(*place) == other.cell(*place)
    assert one.cell(0, 0) != drawn(20, 50, "seed=1").cell(0, 0)


def test_shards_cover_the_matrix_once() -> None:
    """Every cell is in exactly one shard, and no foreground is on both sides of the split."""
    whole = drawn(33, 20, "variants=7", "shards.variants=3", "split.validation=0.2")
    cells = [(cell.foreground, cell.variant) for shard in whole.shards for cell in whole.cells(shard)]
    assert sorted(cells) == [(f, v) for f in range(33) for v in range(7)]
    sides: dict[str, set[int]] = {"train": set(), "validation": set()}
    for shard in whole.shards:
        sides[shard.split] |= {strip.foreground for strip in shard.strips}
    assert len(sides["validation"]) == round(0.2 * 33)
    assert not sides["validation"] & sides["train"]


def test_shuffled_pairing_repeats_nothing_before_all_were_used() -> None:
    """Each round over the backgrounds uses each once, in another order."""
    whole = drawn(10, 30, "variants=9")
    names = [whole.background_name(f, v) for f in range(10) for v in range(9)]
    rounds = [names[i : i + 30] for i in range(0, 90, 30)]
    assert all(sorted(names) == sorted(whole.backgrounds) for names in rounds)
    assert rounds[0] != rounds[1]


def test_sequential_pairing_starts_over() -> None:
    """Backgrounds are taken in order."""
    whole = drawn(3, 5, "variants=4", "pairing.order=sequential")
    names = [whole.background_name(f, v) for f in range(3) for v in range(4)]
    assert names == [whole.backgrounds[i % 5] for i in range(12)]


def test_listed_pairing_needs_a_line_for_each(pictures: Pictures) -> None:
    """Foreground i takes lines [i·variants, (i+1)·variants); a list without a last line end counts whole."""
    names = [f"COCO_{i % 7:012d}.jpg" for i in range(20)]
    whole = _listed(pictures, names)
    assert [whole.background_name(2, v) for v in range(4)] == names[8:12]
    with pytest.raises(PlanError, match="needs 5 × 4 = 20 backgrounds, the list has 19"):
        _listed(pictures, names[:-1])


def test_listed_pairing_leaves_none_out(pictures: Pictures) -> None:
    """Without the second foreground all later ones would meet others' backgrounds."""
    with pytest.raises(PlanError, match=r"disc 1\.png: 120×64 px, under min_side = 65; without it, pairing listed"):
        _listed(pictures, [f"COCO_{i % 7:012d}.jpg" for i in range(20)], "foregrounds.min_side=65")


def _listed(pictures: Pictures, names: list[str], *overrides: str) -> Plan:
    text = f"""
    variants = 4
    foregrounds = {{ layout = "rgba", root = "{pictures.cutouts.as_posix()}" }}
    backgrounds = {{ layout = "list", root = "{pictures.photos.as_posix()}", list = "../list.txt" }}
    pairing = {{ order = "listed" }}
    """
    (pictures.root / "list.txt").write_text("\n".join(names))
    (pictures.root / "recipe.toml").write_text(text)
    return make_plan(load_recipe(pictures.root / "recipe.toml", overrides))


def test_dim_layout_follows_its_lists(tmp_path: Path) -> None:
    """Names come in the list's order, from whichever folder holds them; commas, spaces and parentheses are names."""
    names = ["b, (1) x.jpg", "A.jpg", "c.jpg"]
    for name, folder in zip(names, ("Other", "Adobe-licensed images", "Other"), strict=True):
        for kind in ("fg", "alpha"):
            save(tmp_path / folder / kind / name, photograph(20, 30, 1))
    (tmp_path / "training_fg_names.txt").write_text("\n".join(names))
    save(tmp_path / "bg" / "x.jpg", photograph(20, 30, 2))
    (tmp_path / "r.toml").write_text(
        'variants=2\nforegrounds={layout="dim", root="."}\nbackgrounds={layout="folder", root="bg"}'
    )
    whole = make_plan(load_recipe(tmp_path / "r.toml"))
    assert [entry.key for entry in whole.foregrounds] == ["b, (1) x", "A", "c"]
    assert whole.foregrounds[1].alpha == "Adobe-licensed images/alpha/A.jpg"
    assert whole.sizes == ((20, 30),) * 3


def test_the_hash_covers_names_and_recipe_but_not_places(pictures: Pictures) -> None:
    """A dataset may be finished from another disk; another name, order or setting is another dataset."""
    before = plan(pictures).sha256
    pictures.root.rename(pictures.root.with_name("moved"))
    moved = Pictures(pictures.root.with_name("moved"))
    assert plan(moved).sha256 == before
    assert plan(moved, "trimap.dilate=[1, 21]").sha256 != before
    (moved.photos / "COCO_000000000003.jpg").rename(moved.photos / "COCO_000000000033.jpg")
    assert plan(moved).sha256 != before


def test_small_pictures_are_left_out_by_name(pictures: Pictures) -> None:
    """What `min_side` leaves out is listed with its size."""
    whole = plan(pictures, "foregrounds.min_side=65")
    assert len(whole.foregrounds) == 3
    assert [source for source, _ in whole.excluded] == ["disc 1.png", "disc 4.png"]
    assert "48×130 px" in whole.excluded[1][1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["foregrounds.min_side=5000"], r"no foregrounds: .*5 were left out"),
        (["split.validation=['nobody']"], "'nobody', which is no foreground"),
        (["split.validation=0.95"], "takes every foreground"),
        (["backgrounds.root=/nonexistent"], "expected a folder of pictures, found nothing"),
    ],
)
def test_what_does_not_add_up_is_said(pictures: Pictures, overrides: list[str], message: str) -> None:
    """A plan that cannot be is refused before anything is rendered."""
    with pytest.raises(PlanError, match=message):
        plan(pictures, *overrides)


def test_what_no_dataset_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe of a line asks for no trillion pictures, and none as large as a house."""
    for override in ("foregrounds.count=999999999999", "backgrounds.count=999999999999", "foregrounds.sides=[1,99999]"):
        with pytest.raises(RecipeError, match="expected at most"):
            load_recipe("demo", [override])
    monkeypatch.setattr("matting_compose.composer.building.make_plan.MOST_COMPOSITES", 11)
    with pytest.raises(PlanError, match="3 foregrounds × 4 variants: 12 composites, and a dataset has 11 at most"):
        make_plan(load_recipe("demo", ["foregrounds.count=3", "variants=4"]))


def test_names_that_clash_are_refused(pictures: Pictures) -> None:
    """Two foregrounds of one name up to the ending would overwrite each other."""
    (pictures.cutouts / "disc 0.webp").write_bytes((pictures.cutouts / "disc 0.png").read_bytes())
    with pytest.raises(PlanError, match="two foregrounds are called 'disc 0'"):
        plan(pictures)


def test_coco_sized_folders_are_listed_once(tmp_path: Path, pictures: Pictures) -> None:
    """82,783 files in nested folders are found, in order, without opening one."""
    for folder in range(8):
        (tmp_path / "coco" / f"{folder}").mkdir(parents=True)
    for i in range(82_783):
        (tmp_path / "coco" / f"{i % 8}" / f"{i:012d}.jpg").touch()
    (tmp_path / "coco" / "readme.txt").touch()
    recipe = load_recipe(None, ["variants=100"], foregrounds=pictures.cutouts, backgrounds=tmp_path / "coco")
    whole = make_plan(recipe)
    assert len(whole.backgrounds) == 82_783
    assert list(whole.backgrounds) == sorted(whole.backgrounds)
    assert len({whole.background_name(f, v) for f in range(5) for v in range(100)}) == 500


def test_foregrounds_are_chosen_by_their_transparency(tmp_path: Path) -> None:
    """Those that are softer or harder than asked are left out and listed, by plan, dry run, doctor and index alike."""
    colour = np.full((40, 40, 3), 90, np.uint8)
    for name, soft in (("opaque", 0), ("hair", 8), ("net", 30)):
        alpha = np.full((40, 40), 255, np.uint8)
        alpha[:, :soft], alpha[:, -5:] = 128, 0
        save(tmp_path / "cutouts" / f"{name}.png", np.dstack([colour, alpha]))
    save(tmp_path / "photos" / "a.jpg", photograph(50, 60, 0))
    folders = ["--foregrounds", str(tmp_path / "cutouts"), "--backgrounds", str(tmp_path / "photos")]
    folders += ["--set", "foregrounds.transparency=[0.1,0.5]", "--set", "variants=2"]
    found = call("doctor", *folders, "--json").json
    left_out = next(finding["names"] for finding in found["findings"] if finding["kind"] == "left-out")
    assert found["composites"] == 2
    dry = call("build", *folders, "--out", str(tmp_path / "d"), "--dry-run", "--json", "-j", "1").json["excluded"]
    assert call("build", *folders, "--out", str(tmp_path / "d"), "-j", "1").code == 0
    index = json.loads((tmp_path / "d" / "dataset.json").read_text())["excluded"]
    for told in (left_out, map(" ".join, dry), [f"{item['source']} {item['reason']}" for item in index]):
        net, opaque = sorted(told)
        assert net.startswith("net.png")
        assert "85.7 % soft" in net
        assert opaque.startswith("opaque.png")
        assert " 0.0 % soft" in opaque.replace("(", " ")
    assert [row.key for row in open_dataset(tmp_path / "d").rows()] == ["hair_0", "hair_1"]


def many(pictures: Pictures, count: int) -> Recipe:
    """Return the recipe of two folders, of so many cut-outs, none of whose keys is given."""
    for number in range(len(list(pictures.cutouts.iterdir())), count):
        (pictures.cutouts / f"disc {number}.png").hardlink_to(pictures.cutouts / "disc 0.png")
    return load_recipe(None, ["variants=1"], foregrounds=pictures.cutouts, backgrounds=pictures.photos)


def test_folders_without_a_recipe_keep_a_tenth_for_validation(pictures: Pictures) -> None:
    """Of 20 foregrounds and more; fewer are all trained on. A recipe keeps what it says."""
    few = make_plan(many(pictures, 19))
    assert (few.splits.count("validation"), few.recipe.split.validation) == (0, 0.0)
    enough = make_plan(many(pictures, 20))
    assert (enough.splits.count("validation"), enough.recipe.split.validation) == (2, 0.1)
    assert enough.sha256 == make_plan(load_recipe(
        None, ["variants=1", "split.validation=0.1"], foregrounds=pictures.cutouts, backgrounds=pictures.photos
    )).sha256  # fmt: skip
    assert drawn(40, 5, "split.validation=0").splits.count("validation") == 0


def test_a_build_that_was_begun_keeps_its_split(pictures: Pictures, tmp_path: Path) -> None:
    """Also where folders without a recipe would keep another share today; a damaged plan is named."""
    recipe, out = many(pictures, 20), tmp_path / "dataset"
    begun = make_plan(recipe.model_copy(update={"split": Split(validation=0.0)}))
    out.mkdir()
    document = {"plan_sha256": begun.sha256, **begun.document()}
    (out / PLAN).write_text(json.dumps(document))
    assert plan_build(recipe, out).sha256 == begun.sha256
    document["recipe"]["split"] = {"validation": 7}
    (out / PLAN).write_text(json.dumps(document))
    with pytest.raises(BuildError, match=r"plan\.json: damaged"):
        plan_build(recipe, out)
