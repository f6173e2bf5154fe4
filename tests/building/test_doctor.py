"""Doctor: every kind of fault is found, named and counted, before anything is rendered."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adobe_tree import FOLDERS, SIDE, Adobe, alpha_picture, foreground_picture, make_adobe
from conftest import Pictures, call, photograph, run, save, soft_disc
from matting_compose.composer.building.doctor import Diagnosis, Finding, examine
from matting_compose.composer.recipe import load_recipe


def kinds(found: dict[str, Any]) -> dict[str, tuple[bool, int]]:
    """Map each finding's kind to whether it is a problem, and how many pictures it is about."""
    return {finding["kind"]: (finding["problem"], len(finding["names"])) for finding in found["findings"]}


def finding(diagnosis: Diagnosis, kind: str) -> Finding:
    return next(found for found in diagnosis.findings if found.kind == kind)


def replaced(path: Path, content: bytes | None = None) -> Path:
    """Cut a hard link, so that other names keep their picture; write something else, or nothing."""
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def adobe(tmp_path_factory: pytest.TempPathFactory) -> Adobe:
    return make_adobe(tmp_path_factory.mktemp("adobe"))


def test_all_is_well(adobe: Adobe) -> None:
    """The official folders as they come: no finding, exit code 0."""
    arguments = ["--foregrounds", str(adobe.test), "--backgrounds", str(adobe.voc)]
    plain = run("doctor", "composition-1k", *arguments)
    assert (plain.code, plain.out.splitlines()) == (
        0,
        ["50 foregrounds × 20 variants, 1,000 backgrounds", "1,000 of 1,000 composites can be made"],
    )
    found = run("doctor", "composition-1k", *arguments, "--json").json
    assert (found["healthy"], found["composites"], found["lost"], found["findings"]) == (True, 1000, 0, [])


def test_every_fault_of_the_training_set_is_found(adobe: Adobe) -> None:
    """One of each kind among 431 foregrounds and 43,100 backgrounds; the others are no findings."""
    lines = (adobe.training / "training_bg_names.txt").read_text().splitlines()
    coco = adobe.coco
    replaced(coco / lines[0])
    (coco / lines[1]).rename(coco / lines[1].replace(".jpg", ".JPG"))
    (coco / lines[2]).rename(coco / lines[2].removeprefix("COCO_train2014_"))
    replaced(coco / lines[3], b"")
    whole = (adobe.root / "templates" / "large.jpg").read_bytes()
    replaced(coco / lines[4], whole[:-60])
    replaced(coco / lines[5], whole + b"a tail")  # as some cameras write: a picture for all that
    replaced(coco / lines[6], b"<html>404</html>")
    (coco / "COCO_train2014_000000999999.jpg").write_bytes(whole)

    names = adobe.training_names
    homes = [adobe.folder(name) for name in names]
    replaced(homes[10] / "fg" / names[10])
    (homes[20] / "alpha" / names[20]).rename(homes[20] / "alpha" / names[20].upper())
    Image.fromarray(alpha_picture(0)[:9, :9]).save(replaced(homes[30] / "alpha" / names[30]), "JPEG")
    Image.fromarray(np.full(SIDE, 90, np.uint8)).save(replaced(homes[40] / "alpha" / names[40]), "JPEG")
    picture = (homes[50] / "fg" / names[50]).read_bytes()
    replaced(homes[50] / "fg" / names[50], picture[:-60])
    os.link(homes[0] / "fg" / names[0], homes[0] / "fg" / "nobody's.jpg")

    ran = run("doctor", "dim431-coco2014", "--foregrounds", str(adobe.training), "--backgrounds", str(coco), "--json")
    assert ran.code == 3
    found = ran.json
    assert (found["foregrounds"], found["backgrounds"], found["composites"]) == (431, 43_100, 43_100)
    by_kind = {(finding["kind"], finding["text"].partition(":")[0]): finding for finding in found["findings"]}
    assert {(kind, text): (each["problem"], len(each["names"])) for (kind, text), each in by_kind.items()} == {
        ("missing-foreground", "missing foregrounds"): (True, 1),
        ("missing-alpha", "missing alphas"): (True, 1),
        ("missing-background", "missing backgrounds"): (True, 2),
        ("size-mismatch", "foregrounds that cannot be used (size-mismatch)"): (True, 1),
        ("truncated", "foregrounds that cannot be used (truncated)"): (True, 1),
        ("empty", "backgrounds that cannot be used (empty)"): (True, 1),
        ("not-an-image", "backgrounds that cannot be used (not-an-image)"): (True, 1),
        ("truncated", "backgrounds that cannot be used (truncated)"): (True, 1),
        ("unlisted-foreground", "foregrounds that no list names, not used"): (False, 1),
        ("unlisted-alpha", "alphas that no list names, not used"): (False, 1),
        ("unlisted-background", "backgrounds that no list names, not used"): (False, 2),
        ("never-opaque", "alphas that are never opaque (glass, smoke, a net, or a mistake)"): (False, 1),
        ("coco-names", "backgrounds found under COCO's names of another year, the same pictures"): (False, 1),
    }
    renamed = by_kind["missing-background", "missing backgrounds"]["names"][1]
    assert renamed == f"{lines[1]} (there is {lines[1].replace('.jpg', '.JPG')})"
    folder = homes[20].name
    assert by_kind["missing-alpha", "missing alphas"]["names"] == [
        f"{folder}/alpha/{names[20]} (there is {folder}/alpha/{names[20].upper()})"
    ]
    assert (
        f"the foreground is 22×26 px, its alpha {names[30]} is 9×9"
        in by_kind["size-mismatch", "foregrounds that cannot be used (size-mismatch)"]["names"][0]
    )
    # Four foregrounds with their hundred, and five backgrounds that belong to the first foreground.
    assert found["lost"] == 405


def test_lists_that_are_too_short_or_too_long(adobe: Adobe) -> None:
    """Counts are compared with what the recipe expects; a list that is too short stops a plan, and says so once."""
    root, lists = adobe.test, ("test_fg_names.txt", "test_bg_names.txt")
    foregrounds, backgrounds = ((root / name).read_text().split("\n") for name in lists)
    cases = {
        (50, 1001): {"background-count": "listed backgrounds: 1,001, expected 1,000", "repeated": "more than once: 1"},
        (50, 999): {"background-count": "listed backgrounds: 999, expected 1,000", "no-plan": "the list has 999"},
        (49, 1000): {"foreground-count": "listed foregrounds: 49, expected 50"},
    }
    for (first, second), expected in cases.items():
        (root / lists[0]).write_text("\n".join(foregrounds[:first]))
        (root / lists[1]).write_text("\n".join([*backgrounds, backgrounds[0]][:second]))
        found = examine(load_recipe("composition-1k", foregrounds=root, backgrounds=adobe.voc), jobs=1)
        texts = {each.kind: each.text for each in found.findings if not each.kind.startswith("unlisted")}
        assert set(texts) == set(expected)
        assert all(part in texts[kind] for kind, part in expected.items())
        assert not found.healthy
        assert (found.composites is None) == ("no-plan" in expected)
    for name, names in zip(lists, (foregrounds, backgrounds), strict=True):
        (root / name).write_text("\n".join(names))


def test_trimaps_are_looked_at(adobe: Adobe) -> None:
    """A missing one, one of another size and one too many; each costs its own composite."""
    folder = adobe.test / FOLDERS[0] / "trimaps"
    stem = Path(adobe.test_names[3]).stem
    contents = {variant: (folder / f"{stem}_{variant}.png").read_bytes() for variant in (1, 2)}
    replaced(folder / f"{stem}_1.png")
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(replaced(folder / f"{stem}_2.png"))
    os.link(folder / f"{stem}_0.png", folder / f"{stem}_20.png")
    found = examine(load_recipe("composition-1k", foregrounds=adobe.test, backgrounds=adobe.voc), jobs=1)
    assert {each.kind for each in found.findings} == {"missing-trimap", "size-mismatch", "unlisted-trimap"}
    assert finding(found, "missing-trimap").names == (f"Adobe-licensed images/trimaps/{stem}_1.png",)
    assert finding(found, "size-mismatch").names == (
        f"Adobe-licensed images/trimaps/{stem}_2.png: the trimap is 5×5 px, its foreground 22×26 px",
    )
    assert found.lost == 2
    (folder / f"{stem}_20.png").unlink()
    for variant, content in contents.items():
        replaced(folder / f"{stem}_{variant}.png", content)


def test_other_layouts_are_looked_at(tmp_path: Path, pictures: Pictures) -> None:
    """Cut-outs without alpha, pairs without a partner; long lists are cut on a terminal, not in --json."""
    Image.fromarray(photograph(40, 40, 1)).save(pictures.cutouts / "no alpha.png")
    cutouts = examine(load_recipe(None, foregrounds=pictures.cutouts, backgrounds=pictures.photos), jobs=1)
    assert {each.kind for each in cutouts.findings} == {"no-alpha"}
    assert cutouts.lost == 100
    for i in range(30):
        image, alpha = soft_disc(30, 30, i)
        save(tmp_path / "fg" / f"{i}.jpg", image)
        save(tmp_path / "alpha" / (f"{i}.png" if i < 15 else f"x{i}.png"), alpha)
    arguments = ["doctor", "--foregrounds", str(tmp_path / "fg"), "--alphas", str(tmp_path / "alpha")]
    arguments += ["--backgrounds", str(pictures.photos), "-j", "1"]
    plain = run(*arguments)
    assert plain.code == 3
    assert "problem  missing alphas: 15" in plain.out
    assert "… and 5 more (--json lists all)" in plain.out
    assert plain.out.endswith("1,500 of 3,000 composites can be made\n")
    assert kinds(run(*arguments, "--json").json) == {"missing-alpha": (True, 15), "unlisted-alpha": (False, 15)}


def test_pictures_of_several_roots_have_the_names_of_the_plan(tmp_path: Path, pictures: Pictures) -> None:
    """A root's name goes before theirs, in what is missing, odd or broken as in what a build says."""
    save(tmp_path / "fg" / "0.jpg", soft_disc(30, 30, 0)[0])
    save(tmp_path / "alpha" / "1.png", soft_disc(30, 30, 0)[1])
    (pictures.cutouts / "broken.png").write_bytes(b"broken")
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f'variants = 2\nbackgrounds = {{layout = "folder", root = "{pictures.photos}"}}\n'
        f'[[foregrounds]]\nlayout = "rgba"\nroot = "{pictures.cutouts}"\nname = "ours"\n'
        '[[foregrounds]]\nlayout = "pairs"\nimages = "fg"\nalphas = "alpha"\nname = "theirs"\n'
    )
    save(tmp_path / "fg" / "1.jpg", soft_disc(30, 30, 0)[0])
    found = examine(load_recipe(recipe), jobs=1)
    assert finding(found, "missing-alpha").names == ("theirs/0.*",)
    (broken,) = finding(found, "not-an-image").names
    assert broken.startswith("ours/broken.png: ")
    assert found.lost == 4


def test_folders_that_are_not_there(tmp_path: Path, adobe: Adobe) -> None:
    """Each missing folder is one problem with a way out, not forty thousand."""
    one_up = run("doctor", "dim431-coco2014", "--foregrounds", str(adobe.root), "--backgrounds", str(tmp_path / "no"))
    assert one_up.code == 3
    assert "give the folder that holds them: --foregrounds" in one_up.out
    assert one_up.out.endswith("Nothing can be built from this\n")
    found = examine(load_recipe("composition-1k", foregrounds=adobe.test, backgrounds=tmp_path / "no"), jobs=1)
    assert [each.kind for each in found.findings] == ["no-folder"]
    assert found.lost == 1000
    assert run("doctor", "nonesuch").code == 2


def test_the_demo_needs_no_doctor() -> None:
    """Drawn pictures have no files to look at."""
    found = examine(load_recipe("demo"), jobs=1)
    assert (found.healthy, found.lost, found.findings) == (True, 0, ())


def test_pictures_of_the_tree_hold_every_branch() -> None:
    """The tree's alphas have 0, 1, 254 and 255, and its foregrounds white: what the comparison is about."""
    assert {0, 1, 254, 255} <= set(np.unique(alpha_picture(0)).tolist())
    assert (foreground_picture(0) == 255).mean() > 0.2


def test_doctor_dry_run_and_build_agree(tmp_path: Path) -> None:
    """Over one folder of everything odd: what doctor and dry run say cannot be made is what the build cannot make."""
    cutouts, photos = tmp_path / "cutouts", tmp_path / "photos"
    image, alpha = soft_disc(60, 80, 1)
    for name in ("good.png", "torn.png"):
        save(cutouts / name, np.dstack([image, alpha]))
    save(cutouts / "opaque.png", np.dstack([image, np.full_like(alpha, 255)]))
    save(cutouts / "clear.png", np.dstack([image, np.zeros_like(alpha)]))
    save(cutouts / "glass.png", np.dstack([image, alpha // 2]))
    save(cutouts / "flat.png", image)
    (cutouts / "torn.png").write_bytes((cutouts / "torn.png").read_bytes()[:900])
    (cutouts / "empty.png").write_bytes(b"")
    for number in range(4):
        save(photos / f"{number}.jpg", photograph(90, 90, number))
    (photos / "1.jpg").write_bytes((photos / "1.jpg").read_bytes()[:700])
    (photos / "2.jpg").write_bytes(b"<html>404</html>")
    pictures = ["--foregrounds", str(cutouts), "--backgrounds", str(photos), "-j", "1", "--json"]
    build = ["build", *pictures, "--variants", "4", "--out", str(tmp_path / "d")]
    found = call("doctor", *pictures, "--set", "variants=4").json
    would = call(*build, "--dry-run")
    made = call(*build)
    assert made.json["composites"] == found["composites"] - found["lost"] == 4
    assert (would.code, made.code) == (3, 3)
    sources = {failure["source"] for failure in made.json["failed"]}
    assert {source for source, _ in would.json["failing"]} == sources
    problems = " ".join(text for finding in found["findings"] if finding["problem"] for text in finding["names"])
    assert all(source in problems for source in sources)
    assert sources == {"torn.png", "opaque.png", "clear.png", "flat.png", "empty.png", "1.jpg", "2.jpg"}


def test_what_is_passed_over_is_said_once(pictures: Pictures, caplog: pytest.LogCaptureFixture) -> None:
    """The doctor lists the folders, and asks the plan, which lists them again."""
    for folder in (pictures.cutouts, pictures.photos):
        (folder / "a.psd").touch()
    examine(load_recipe(None, foregrounds=pictures.cutouts, backgrounds=pictures.photos), jobs=1)
    assert caplog.text.count("1 file passed over") == 2
