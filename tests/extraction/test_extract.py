"""Extracting: colours nearer to the truth than the picture's own, nothing lost, nothing replaced that is not ours."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import Browser, find_faults
from numpy.typing import NDArray

from conftest import Array, Ran, call, photograph, save, soft_disc
from matting_compose.cli import LAYOUTS
from matting_compose.composer.base.files import temporary_name
from matting_compose.composer.compositing.blending import blend
from matting_compose.composer.extraction import extract as extracting
from matting_compose.composer.extraction import foreground as estimating
from matting_compose.composer.extraction import inputs
from matting_compose.composer.extraction.foreground import Layers, estimate_layers, extend_colours
from matting_compose.composer.extraction.halo import halo, matted_on, reblending_error, surroundings, unmatted
from matting_compose.composer.sources.image_io import Foreground


def subject(seed: int, height: int = 120, width: int = 140) -> tuple[Array, Array, Array]:
    """Draw a foreground, its alpha with an edge that is several pixels wide, and it over a photograph."""
    colour, alpha = soft_disc(height, width, seed)
    colour = np.asarray(cv2.GaussianBlur(colour, (0, 0), 4), np.uint8)  # without edges of its own
    alpha = np.asarray(cv2.blur(alpha, (9, 9)), np.uint8)
    return colour, alpha, blend(colour, alpha, photograph(height, width, 50 + seed))


def error(colours: Array, truth: Array, alpha: Array) -> float:
    """Return the mean difference over fractional pixels, as composites show it: times alpha."""
    mixed = (alpha > 0) & (alpha < 255)
    difference = np.abs(colours[mixed].astype(float) - truth[mixed]) * (alpha[mixed][:, None] / 255)
    return float(difference.mean())


def read(path: Path) -> Array:
    """Read RGBA."""
    return np.asarray(cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA), np.uint8)


def tree(folder: Path, count: int = 3) -> Path:
    """Save pictures and their alphas in two folders."""
    for i in range(count):
        _, alpha, image = subject(i)
        save(folder / "photos" / f"{i}.png", image)
        save(folder / "mattes" / f"{i}.png", alpha)
    return folder


def extract(folder: Path, *more: str) -> Ran:
    pytest.importorskip("pymatting")
    return call("extract", "photos", "--alphas", "mattes", "--out", "out", "-j", "1", "--json", *more, cwd=folder)


def cutouts(folder: Path) -> dict[str, bytes]:
    """Read all cut-outs of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


@pytest.mark.parametrize("whole", [10**9, 4000], ids=["whole", "reduced"])
def test_colours_are_nearer_to_the_truth(whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways halve the error of raw colours, re-blend to the picture, and leave less than half of its halo."""
    pytest.importorskip("pymatting")
    monkeypatch.setattr(estimating, "WHOLE", whole)
    errors = []
    for seed in range(6):
        colour, alpha, image = subject(seed)
        layers = estimate_layers(image, alpha.astype(np.float32) / np.float32(255))
        errors.append((error(image, colour, alpha), error(layers.foreground, colour, alpha)))
        assert errors[-1][1] < 0.8 * errors[-1][0]
        assert reblending_error(image, alpha, layers) < 1
        near = surroundings(image, alpha)
        assert near is not None
        assert halo(layers.foreground, alpha, near) < halo(image, alpha, near) / 2
        solid = alpha == 255
        np.testing.assert_array_equal(layers.foreground[solid], image[solid])
    before, after = np.mean(errors, axis=0)
    assert after < before / 2


def test_strips_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that is refined and extended in strips of a few rows is the same as in one."""
    pytest.importorskip("pymatting")
    _, alpha, image = subject(1, 151, 133)
    monkeypatch.setattr(estimating, "WHOLE", 4000)
    matte = alpha.astype(np.float32) / np.float32(255)
    whole = estimate_layers(image, matte)
    extended = extend_colours(image, alpha)
    monkeypatch.setattr(estimating, "STRIP", 133 * 10)
    monkeypatch.setattr(estimating.strips, "__defaults__", (133 * 10,))
    assert len(list(estimating.strips(151, 133))) == 16
    parts = estimate_layers(image, matte)
    np.testing.assert_array_equal(parts.foreground, whole.foreground)
    np.testing.assert_array_equal(parts.background, whole.background)
    np.testing.assert_array_equal(extend_colours(image, alpha), extended)


def test_resizing_an_extended_cutout_brings_in_nothing() -> None:
    """A red subject whose clear pixels were black stays red wherever a careless reduction mixes them in."""
    alpha = subject(2)[1]
    red = np.zeros((*alpha.shape, 3), np.uint8)
    red[alpha > 0] = 250, 20, 30
    extended = extend_colours(red, alpha)
    assert (np.abs(extended.astype(int) - [250, 20, 30]) <= 1).all()
    for empty in (np.zeros_like(alpha), np.full_like(alpha, 255)):
        np.testing.assert_array_equal(extend_colours(red, empty), red)


def test_measures_know_perfect_and_raw_colours() -> None:
    """White around black: raw colours have half of the difference, true ones nothing; true layers re-blend exactly."""
    alpha = subject(0)[1]
    black, white = (np.full((*alpha.shape, 3), level, np.uint8) for level in (0, 255))
    image = blend(black, alpha, white)
    near = surroundings(image, alpha)
    assert near is not None
    a = alpha[(alpha > 0) & (alpha < 255)] / 255
    assert halo(image, alpha, near) == pytest.approx(255 * np.average(1 - a, weights=a * (1 - a)), abs=0.5)
    assert halo(black, alpha, near) == 0
    assert reblending_error(image, alpha, Layers(black, white)) < 0.3  # what rounding to 8 bits makes
    assert reblending_error(image, alpha, Layers(image, white)) > 10
    assert surroundings(image, np.full_like(alpha, 255)) is None


@pytest.mark.parametrize(("name", "level"), [("black", 0), ("white", 255)])
def test_matted_cutouts_are_told_and_mended(name: str, level: int) -> None:
    """Premultiplied colours, and colours over white, are found and taken apart to what 8 bits have kept of them."""
    for seed in range(4):
        colour, alpha, _ = subject(seed)
        colour = np.clip(colour, 60, 200)
        mixed = blend(colour, alpha, np.full_like(colour, level))
        assert matted_on(mixed, alpha) == name
        mended = unmatted(mixed, alpha, name)  # type: ignore[arg-type]
        assert error(mended, colour, alpha) < 0.5
        assert matted_on(colour, alpha) is None


def test_true_colours_are_left_alone() -> None:
    """Clear pixels painted black or white, dark subjects, shadows and veils are not taken for mixed colours."""
    colour, alpha, image = subject(3)
    for level in (0, 255):
        painted = colour.copy()
        painted[alpha == 0] = level
        assert matted_on(painted, alpha) is None
        assert matted_on(np.full_like(colour, level), alpha) is None  # nothing to tell, and nothing to mend
    assert matted_on(image, alpha) is None  # mixed, but with a photograph
    veil = (alpha // 2).astype(np.uint8)
    assert matted_on(blend(colour, veil, np.zeros_like(colour)), veil) is None  # nothing opaque to compare with
    shadow, dark = alpha.copy(), colour.copy()
    shadow[80:][alpha[80:] == 0] = 90
    dark[80:][alpha[80:] == 0] = 0
    assert matted_on(dark, shadow) is None


def test_a_folder_is_extracted_and_built(tmp_path: Path) -> None:
    """Straight alpha, unchanged; extended colours; a report and a sheet beside them, which a build does not take."""
    done = extract(tree(tmp_path))
    assert done.code == 0, done.err
    assert (done.json["made"], done.json["colours"]) == (3, {"estimated": 3})
    assert done.json["halo_after"]["median"] < done.json["halo_before"]["median"] / 2
    for i in range(3):
        colour, alpha, image = subject(i)
        cutout = read(tmp_path / "out" / f"{i}.png")
        np.testing.assert_array_equal(cutout[..., 3], alpha)
        assert error(cutout[..., :3], colour, alpha) < 0.8 * error(image, colour, alpha)
    report = json.loads((tmp_path / "out" / "extract.json").read_text())
    assert [entry["file"] for entry in report["cutouts"]] == ["0.png", "1.png", "2.png"]
    save(tmp_path / "backgrounds" / "a.jpg", photograph(100, 100, 9))
    built = call(
        "build", "--foregrounds", "out", "--backgrounds", "backgrounds", "--variants", "1", "--out", "d", "-j", "1",
        "--json", cwd=tmp_path,
    )  # fmt: skip
    assert built.code == 0, built.err
    assert built.json["composites"] == 3


def test_before_and_after_in_a_browser(tmp_path: Path, page: Browser) -> None:
    """The worst first; a slider between picture and cut-out, by keys, too; other backdrops; what failed; any screen."""
    tree(tmp_path)
    for folder in ("photos", "mattes"):
        (tmp_path / folder / "0.png").rename(tmp_path / folder / "<i>0.png")
    save(tmp_path / "photos" / "<b>alone.png", photograph(20, 20, 1))
    done = extract(tmp_path)
    assert (done.code, done.json["made"]) == (3, 3), done.err
    report = json.loads((tmp_path / "out" / "extract.json").read_text())
    address = (tmp_path / "out" / "extract.html").as_uri()
    page.open(address)
    worst = sorted(report["cutouts"], key=lambda cutout: -cutout["figures"]["halo_after"])
    names = "[...document.querySelectorAll('h3')].map(h => h.firstChild.data)"
    assert page.evaluate(names) == [cutout["name"] for cutout in worst]
    assert page.evaluate("document.querySelectorAll('main i i, main b, h3 i').length") == 0  # names are no HTML
    assert "<b>alone.png" in page.evaluate("document.querySelector('td').textContent")
    assert (
        page.evaluate(
            "Promise.all([...document.images].map(i => i.decode())).then(() => "
            "[...document.images].map(i => `${i.naturalWidth}×${i.naturalHeight}`))"
        )
        == ["140×120", "140×120", "120×120", "120×120"] * 3
    )
    page.evaluate("document.querySelector('.stage input').focus()")
    page.press("ArrowRight")
    assert page.evaluate("document.querySelector('.stage').style.getPropertyValue('--at')") != ""
    page.evaluate("form.elements.before.value = 'cut'; form.elements.behind.value = 'white'")
    page.evaluate("form.dispatchEvent(new Event('input'))")
    assert page.evaluate("getComputedStyle(document.querySelector('.before')).maskImage").startswith("url(")
    assert page.evaluate("getComputedStyle(document.querySelector('.stage')).backgroundColor") == "rgb(255, 255, 255)"
    assert find_faults(page, address) == []


def test_only_what_is_missing_or_changed_is_made(tmp_path: Path) -> None:
    """Also after damage; the bytes are those of an extraction in peace, for any number of workers."""
    assert extract(tree(tmp_path)).code == 0
    before = cutouts(tmp_path / "out")
    assert extract(tmp_path).json["made"] == 0
    (tmp_path / "out" / "0.png").unlink()
    (tmp_path / "out" / "1.png").write_bytes(before["1.png"][:-9])  # it says still whose it is
    left = temporary_name(tmp_path / "out" / "0.png")
    left.write_bytes(b"of a killed run")
    (tmp_path / "out" / ".syncthing.film.tmp").write_bytes(b"another program's")
    done = extract(tmp_path)
    assert (done.code, done.json["made"], done.json["present"]) == (0, 2, 1)
    (tmp_path / "out" / "1.png").write_bytes(before["1.png"][:40])  # it might be anybody's
    done = extract(tmp_path)
    assert (done.code, done.json["failures"][0]["cause"]) == (3, "occupied")
    (tmp_path / "out" / "1.png").unlink()
    rotten = bytearray(before["2.png"])
    rotten[len(rotten) // 2] ^= 1
    (tmp_path / "out" / "2.png").write_bytes(rotten)
    assert extract(tmp_path, "-j", "2").json["made"] == 2
    assert cutouts(tmp_path / "out") == before
    assert not left.exists()
    assert (tmp_path / "out" / ".syncthing.film.tmp").exists()
    save(tmp_path / "mattes" / "2.png", subject(5)[1])
    assert extract(tmp_path).json["made"] == 1
    assert cutouts(tmp_path / "out").keys() == before.keys()
    assert cutouts(tmp_path / "out")["2.png"] != before["2.png"]


def test_a_picture_that_changes_while_it_is_read_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut-out never says that it was made of other bytes than those that it was made of."""
    tree(tmp_path, 1)
    save(tmp_path / "own" / "0.png", np.dstack(subject(0)[:2]))
    usual = extracting._digests
    for arguments, changing in (("photos --alphas mattes", "mattes"), ("own", "own")):

        def change(task: extracting._Task, folder: str = changing) -> list[str]:
            digests = usual(task)
            path = tmp_path / folder / "0.png"
            save(path, cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[::-1])
            return digests

        monkeypatch.setattr(extracting, "_digests", change)
        done = call("extract", *arguments.split(), "--out", "out", "-j", "1", "--json", cwd=tmp_path)
        assert (done.code, done.json["failures"][0]["cause"]) == (3, "changed")
        assert not list((tmp_path / "out").glob("*.png"))


def test_workers_may_be_in_another_folder(tmp_path: Path) -> None:
    """Those that an earlier call has left are used again: relative paths are not theirs."""
    for count in (2, 3):
        done = extract(tree(tmp_path / str(count), count), "-j", "2")
        assert (done.code, done.json["made"]) == (0, count), done.err


def test_a_picture_that_is_too_large_has_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that an extraction has: there is no recipe whose key could be raised."""
    tree(tmp_path, 1)
    monkeypatch.setattr("matting_compose.composer.extraction.extract.MAX_PIXELS", 1000)
    failure = extract(tmp_path).json["failures"][0]
    assert failure["cause"] == "too-large"
    assert "over the limit of 1,000 px; reduce it" in failure["detail"]


def test_bad_pictures_are_counted_and_named(tmp_path: Path) -> None:
    """Each fails for itself; what is not ours is not replaced; mended, the same command makes the rest."""
    tree(tmp_path, 2)
    (tmp_path / "photos" / "broken.png").write_bytes((tmp_path / "photos" / "0.png").read_bytes()[:300])
    save(tmp_path / "mattes" / "broken.png", subject(0)[1])
    save(tmp_path / "photos" / "alone.png", subject(0)[2])
    save(tmp_path / "photos" / "small.png", subject(0)[2])
    save(tmp_path / "mattes" / "small.png", subject(0)[1][:50])
    save(tmp_path / "photos" / "clear.png", subject(0)[2])
    save(tmp_path / "mattes" / "clear.png", np.zeros((120, 140), np.uint8))
    save(tmp_path / "out" / "1.png", subject(0)[2])
    save(tmp_path / "out" / "foreign.png", subject(0)[2])
    dry = extract(tmp_path, "--dry-run")
    assert dry.code == 3
    assert not (tmp_path / "out" / "0.png").exists()
    done = extract(tmp_path)
    assert done.code == 3
    assert dry.json["failures"] == done.json["failures"]
    assert dry.json["pictures"] - dry.json["present"] - len(dry.json["failures"]) == done.json["made"] == 1
    assert {failure["source"]: failure["cause"] for failure in done.json["failures"]} == {
        "1.png": "occupied", "alone.png": "no-alpha", "broken.png": "truncated", "clear.png": "no-alpha",
        "small.png": "size-mismatch",
    }  # fmt: skip
    assert "failed: occupied: 1.png" in done.err
    assert done.json["foreign"] == ["foreign.png"]
    assert json.loads((tmp_path / "out" / "extract.json").read_text())["failures"] == done.json["failures"]
    assert read(tmp_path / "out" / "0.png").shape == (120, 140, 4)
    save(tmp_path / "mattes" / "small.png", subject(0)[1])
    assert extract(tmp_path).json["made"] == 1


def test_wrong_usage_is_said_before_anything_is_written(tmp_path: Path) -> None:
    """Folders that are missing, empty or the wrong ones, and an output among the inputs."""
    tree(tmp_path, 1)
    (tmp_path / "empty").mkdir()
    for code, said, arguments in (
        (1, "expected a picture or a folder of pictures, found nothing", ["nowhere"]),
        (1, "no picture was found", ["empty"]),
        (1, "no picture in photos has an alpha", ["photos", "--alphas", "empty"]),
        (1, "expected p3m10k's folders", ["photos", "--layout", "p3m10k"]),
        (2, "exclude each other", ["photos", "--layout", "aim500", "--alphas", "mattes"]),
        (2, "--jobs", ["photos", "-j", "0"]),
        (1, "would both be written as 0.png", ["photos", "mattes"]),
        (2, "PICTURES", []),
    ):
        done = call("extract", *arguments, "--out", "out", cwd=tmp_path)
        assert (done.code, said in done.err) == (code, True), done.err
    for out in ("photos", ".", "mattes"):
        done = call("extract", "photos", "--alphas", "mattes", "--out", out, cwd=tmp_path)
        assert (done.code, "is to be extracted" in done.err) == (1, True), done.err
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "mattes", "empty"}


def test_what_to_install_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pymatting, pictures with alphas cannot be extracted, but cut-outs can."""
    monkeypatch.setitem(sys.modules, "pymatting", None)
    tree(tmp_path, 1)
    done = call("extract", "photos", "--alphas", "mattes", "--out", "out", cwd=tmp_path)
    assert done.code == 1
    assert "[classical]'" in done.err
    colour, alpha, _ = subject(0)
    save(tmp_path / "rgba" / "a.png", np.dstack([colour, alpha]))
    assert call("extract", "rgba", "--out", "out", "-j", "1", cwd=tmp_path).code == 0


def test_cutouts_are_mended_and_extended(tmp_path: Path) -> None:
    """Each says where its colours come from; true ones stay to the bit."""
    colour, alpha, _ = subject(0)
    colour = np.clip(colour, 60, 200)
    painted = np.where(alpha[..., None] > 0, colour, 0).astype(np.uint8)
    save(tmp_path / "rgba" / "true.png", np.dstack([painted, alpha]))
    for name, level in (("black", 0), ("white", 255)):
        mixed = blend(colour, alpha, np.full_like(colour, level))
        save(tmp_path / "rgba" / f"{name}.png", np.dstack([mixed, alpha]))
    done = call("extract", "rgba", "--out", "out", "-j", "1", "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.json["colours"] == {"kept": 1, "unmatted-black": 1, "unmatted-white": 1}
    assert done.json["halo_after"]["most"] < done.json["halo_before"]["least"] / 3
    visible = alpha > 0
    np.testing.assert_array_equal(read(tmp_path / "out" / "true.png")[visible][:, :3], colour[visible])
    for name in ("true", "black", "white"):
        around: NDArray[np.uint8] = read(tmp_path / "out" / f"{name}.png")[..., :3][~visible]
        assert 55 <= around.min() <= around.max() <= 205


def test_layouts_of_data_sets_are_known(tmp_path: Path) -> None:
    """Each in small, as its authors' code reads it; parts keep apart; what is not there is not asked for."""
    assert set(LAYOUTS) == set(inputs.LAYOUTS)
    for layout, parts in inputs.LAYOUTS.items():
        root = tmp_path / layout
        for number, part in enumerate(parts):
            (root / part.images).mkdir(parents=True, exist_ok=True)
            (root / part.alphas).mkdir(parents=True, exist_ok=True)
            (root / part.images / f"p_{number}.jpg").touch()
            (root / part.alphas / f"p_{number}.png").touch()
        found = inputs.list_inputs([root], layout=layout)
        assert len(found) == len({part.keep for part in parts})
        assert all(matte.alpha is not None and matte.alpha.stem == matte.image.stem for matte in found)
    keys = {matte.key for matte in inputs.list_inputs([tmp_path / "p3m10k"], layout="p3m10k")}
    assert {"train/p_0", "validation/P3M-500-P/p_1", "validation/P3M-500-NP/p_3"} <= keys


def test_alphas_may_lie_beside_their_pictures(tmp_path: Path) -> None:
    """Under the picture's name and a word; what serves as an alpha is no picture."""
    for name in ("a.jpg", "a_alpha.png", "b.jpg", "b_matte.png", "sub/c.jpg", "sub/c_mask.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = inputs.list_inputs([tmp_path], tmp_path)
    assert [(matte.key, matte.alpha and matte.alpha.name) for matte in found] == [
        ("a", "a_alpha.png"), ("b", "b_matte.png"), ("sub/c", "c_mask.png"),
    ]  # fmt: skip


def test_an_output_within_the_input_is_not_extracted_again(tmp_path: Path) -> None:
    """The same command does the same the second time; one picture of a single pixel is no reason to stop."""
    colour, alpha, _ = subject(0)
    save(tmp_path / "f" / "a.png", np.dstack([colour, alpha]))
    save(tmp_path / "f" / "dot.png", np.full((1, 1, 4), 128, np.uint8))
    for made, present in ((2, 0), (0, 2)):
        done = call("extract", "f", "--out", "f/cut", "-j", "1", "--json", cwd=tmp_path)
        assert (done.code, done.json["made"], done.json["present"]) == (0, made, present)


def test_a_fault_of_a_library_is_one_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is listed with its type, and the other pictures are made."""
    tree(tmp_path, 2)
    usual, broken = extracting._cut_out, subject(0)[1]

    def fail_once(source: Foreground, *, estimated: bool) -> tuple[NDArray[np.uint8], extracting.Quality]:
        if np.array_equal(source.alpha, broken):
            raise ZeroDivisionError("by zero")
        return usual(source, estimated=estimated)

    monkeypatch.setattr(extracting, "_cut_out", fail_once)
    done = extract(tmp_path)
    assert (done.code, done.json["made"]) == (3, 1)
    assert [failure["detail"] for failure in done.json["failures"]] == ["ZeroDivisionError: by zero"]


def test_hostile_names_stay_in_the_folder(tmp_path: Path) -> None:
    """Full stops, quotes, folders, controls, bytes that are no text: as files below the output, as text elsewhere."""
    colour, alpha, _ = subject(0, 40, 40)
    names = ["..hidden", "a, \"b\" 'c'", "sub/ü 漢字", "x.y.z", "100%", "red\x1b[31m", ".dot/d", "b\udcff"]
    save(tmp_path / "plain.png", np.dstack([colour, alpha]))
    for name in names:
        target = tmp_path / "rgba" / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((tmp_path / "plain.png").read_bytes())
    before = set(tmp_path.rglob("*"))
    files = [str(tmp_path / "rgba" / f"{name}.png") for name in names if "/" not in name]
    done = call("extract", *files, str(tmp_path / "rgba" / "sub"), "--out", "out", "-j", "1", "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.json["made"] == 7
    new = set(tmp_path.rglob("*")) - before
    assert all(tmp_path / "out" in (path, *path.parents) for path in new)
    assert len(cutouts(tmp_path / "out")) == 7
    assert "\x1b" not in (tmp_path / "out" / "extract.json").read_text(encoding="utf-8")
