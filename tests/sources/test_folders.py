"""Folders: every command lists and pairs the same pictures, whatever their names, and says what it passes over."""

from __future__ import annotations

import logging
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from conftest import Pictures, call, photograph, save, soft_disc
from matting_compose.composer import load_recipe, open_dataset
from matting_compose.composer.base.errors import PlanError, RecipeError
from matting_compose.composer.building.make_plan import make_plan
from matting_compose.composer.recipe import BACKGROUND_SOURCES, BackgroundTable, Source, SourceContext
from matting_compose.composer.sources.backgrounds import Background
from matting_compose.composer.sources.listings import (
    Listing,
    describe_passed_over,
    find_file,
    list_pictures,
    list_place,
    read_list,
)
from matting_compose.composer.sources.pairing import pair_alphas


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def pairs(images: Path, alphas: Path) -> dict[str, str | None]:
    return {pair.image: pair.alpha for pair in pair_alphas(list_pictures(images), list_pictures(alphas))}


# ---- listing ----


def test_what_is_no_picture_is_counted_by_kind(tmp_path: Path) -> None:
    """Endings count in any case; a Mac's copies and all other files are passed over, each kind counted."""
    touch(tmp_path, "a.JPG", "sub/b.Png", "sub/c.psd", "d.PSD", "e.psd", "notes", "sub/._b.png", ".hidden.png")
    touch(tmp_path, "__MACOSX/x.png", ".git/y.png", "contact-sheet.jpg", "extract.json", ".lock")
    listing = list_pictures(tmp_path)
    assert listing.names == ("a.JPG", "sub/b.Png")
    assert dict(listing.passed_over) == {
        ".psd": 3, "without an ending": 1, "._*": 1, "hidden": 1, "__MACOSX/": 1, ".git/": 1,
    }  # fmt: skip
    assert describe_passed_over([listing]).startswith("8 files passed over: 3 .psd, ")
    assert describe_passed_over([Listing(tmp_path, ())]) == ""
    assert list_pictures(tmp_path, recursive=False).names == ("a.JPG",)


def test_links_are_followed_and_loops_cut(tmp_path: Path) -> None:
    """A linked folder's pictures are listed; a folder that is linked to twice, or holds itself, is listed once."""
    touch(tmp_path, "photos/a.png", "photos/sub/b.png", "elsewhere/c.png", "elsewhere/deep/d.png")
    (tmp_path / "photos" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "0").symlink_to(tmp_path / "photos" / "sub")
    (tmp_path / "photos" / "sub" / "loop").symlink_to(tmp_path / "photos")
    (tmp_path / "elsewhere" / "deep" / "self").symlink_to("self")
    listing = list_pictures(tmp_path / "photos")
    assert listing.names == ("a.png", "linked/c.png", "linked/deep/d.png", "sub/b.png")


def test_many_folders_linked_to_each_other_end(tmp_path: Path) -> None:
    """Each of twelve folders links to all others: ways through them are without number, pictures are twelve."""
    folders = [touch(tmp_path / str(i), "p.png") for i in range(12)]
    for folder in folders:
        for other in folders:
            (folder / f"to{other.name}").symlink_to(other)
    assert len(list_pictures(tmp_path).names) == 12


def test_the_output_within_the_input_is_no_input(tmp_path: Path) -> None:
    """Unless it is the input itself."""
    touch(tmp_path, "a.png", "out/b.png")
    assert list_pictures(tmp_path, without=tmp_path / "out").names == ("a.png",)
    assert list_pictures(tmp_path, without=tmp_path).names == ("a.png", "out/b.png")
    assert list_pictures(tmp_path, without=tmp_path / "nowhere").names == ("a.png", "out/b.png")


def test_a_file_is_a_listing_of_one(tmp_path: Path) -> None:
    """Nothing at all is refused, and so is a file where a folder belongs."""
    touch(tmp_path, "a.png")
    assert list_place(tmp_path / "a.png").path("a.png") == tmp_path / "a.png"
    with pytest.raises(PlanError, match="expected a picture or a folder of pictures, found nothing"):
        list_place(tmp_path / "b")
    with pytest.raises(PlanError, match="expected a folder of pictures, found a file"):
        list_pictures(tmp_path / "a.png")


# ---- names ----


def test_names_of_any_bytes_are_listed_and_found_again(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are escaped, in a document they are text, and they lead back to the file."""
    raw = os.fsdecode(b"caf\xe9 \xff.png")
    touch(tmp_path, f"sub{raw[3]}/{raw}")
    (name,) = list_pictures(tmp_path).names
    assert name == r"sub\xe9/caf\xe9 \xff.png"
    name.encode()
    assert find_file(tmp_path, name).exists()
    touch(tmp_path, r"as\xe9.png")
    assert find_file(tmp_path, r"as\xe9.png").name == r"as\xe9.png"


def test_accents_are_matched_however_they_are_coded(tmp_path: Path) -> None:
    """A list that was written on Linux finds a Mac's files; pictures and alphas are paired."""
    composed, decomposed = (unicodedata.normalize(form, "naïve été.png") for form in ("NFC", "NFD"))
    touch(tmp_path / "mac", decomposed)
    touch(tmp_path / "linux", composed)
    assert find_file(tmp_path / "mac", composed).exists()
    assert find_file(tmp_path / "linux", decomposed).exists()
    assert pairs(tmp_path / "mac", tmp_path / "linux") == {decomposed: composed}


def test_lists_as_other_tools_write_them(tmp_path: Path) -> None:
    """`find` begins names with ./ and keeps bytes; Windows ends lines its way, and its UTF-16 is refused."""
    (tmp_path / "l.txt").write_bytes(b"\xef\xbb\xbf./a.jpg\r\n\n  b/c.jpg\ncaf\xe9.jpg")
    assert read_list(tmp_path / "l.txt") == ["a.jpg", "b/c.jpg", r"caf\xe9.jpg"]
    (tmp_path / "l.txt").write_text("a.jpg\n", encoding="utf-16")
    with pytest.raises(PlanError, match="in UTF-8; found zeros, as UTF-16 has them"):
        read_list(tmp_path / "l.txt")


# ---- pairing ----


def test_alphas_are_found_by_name_in_another_folder(tmp_path: Path) -> None:
    """The picture's own name comes first, then those that add a word; what has none is kept without."""
    images = touch(tmp_path / "i", "a.jpg", "b.jpg", "c.jpg", "sub/d.jpg", "gas_mask.jpg", "e.jpg")
    alphas = touch(
        tmp_path / "a", "a.png", "a_alpha.png", "b_alpha.png", "c_matte.png", "sub/d_mask.png", "gas_mask.png"
    )
    assert pairs(images, alphas) == {
        "a.jpg": "a.png", "b.jpg": "b_alpha.png", "c.jpg": "c_matte.png", "e.jpg": None,
        "gas_mask.jpg": "gas_mask.png", "sub/d.jpg": "sub/d_mask.png",
    }  # fmt: skip


def test_alphas_among_the_pictures_are_no_pictures(tmp_path: Path) -> None:
    """In the same folder, under its other names too, and in a folder below; a picture is never its own alpha."""
    both = touch(tmp_path / "d", "a.jpg", "a_alpha.png", "b.jpg", "b.png", "c.jpg")
    (tmp_path / "link").symlink_to(both)
    for alphas in (both, tmp_path / "link", tmp_path / "d" / ".." / "d"):
        assert pairs(both, alphas) == {"a.jpg": "a_alpha.png", "b.jpg": "b.png", "c.jpg": None}
    below = touch(tmp_path / "e", "a.jpg", "alpha/a.png", "alpha/other.png")
    assert pairs(below, below / "alpha") == {"a.jpg": "a.png"}


def test_two_alphas_for_one_picture_are_refused(tmp_path: Path) -> None:
    """Nothing tells which is meant."""
    touch(tmp_path / "i", "a.jpg")
    touch(tmp_path / "a", "a.png", "a.tif")
    with pytest.raises(PlanError, match=r"a\.png and a\.tif differ by their endings only; keep one"):
        pairs(tmp_path / "i", tmp_path / "a")
    with pytest.raises(PlanError, match=r"nothing says which is the alpha; call it a_alpha"):
        pairs(tmp_path / "a", tmp_path / "a")


# ---- commands ----


def test_pictures_that_would_be_their_own_alphas_are_refused(tmp_path: Path) -> None:
    """One folder for both, without an alpha in it: no composite is made."""
    for i in range(2):
        save(tmp_path / "d" / f"{i}.jpg", photograph(64, 64, i))
    done = call(
        "build", "--foregrounds", "d", "--alphas", "d", "--backgrounds", "d", "--out", "o", "-j", "1", cwd=tmp_path
    )
    assert done.code == 1
    assert "d has an alpha of the same name in" in done.err
    assert "no picture is its own alpha" in done.err
    assert not (tmp_path / "o" / "shards").exists()


def test_a_build_of_odd_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Alphas beside pictures, bytes for names, a Mac's copies: all is built, verified, and what is left is said."""
    for i, name in enumerate(("one", "caf\udce9")):
        image, alpha = soft_disc(64, 72, i)
        save(tmp_path / "t.jpg", image)
        save(tmp_path / "t.png", alpha)
        (tmp_path / "fg").mkdir(exist_ok=True)
        (tmp_path / "t.jpg").rename(tmp_path / "fg" / f"{name}.jpg")
        (tmp_path / "t.png").rename(tmp_path / "fg" / f"{name}_alpha.png")
        save(tmp_path / "t.jpg", photograph(80, 80, i))
        (tmp_path / "bg").mkdir(exist_ok=True)
        (tmp_path / "t.jpg").rename(tmp_path / "bg" / f"{name}.jpg")
        (tmp_path / "bg" / f"._{name}.jpg").write_bytes(b"\0\5\x16\7")
    touch(tmp_path, "bg/a.psd", "bg/b.psd", "bg/c.pdf")
    arguments = ("--foregrounds", "fg", "--alphas", "fg", "--backgrounds", "bg")
    with caplog.at_level(logging.WARNING, "matting_compose"):
        done = call("build", *arguments, "--variants", "2", "--out", "d", "-j", "1", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "bg: 5 files passed over: " in caplog.text
    assert "2 .psd" in caplog.text
    assert "1 .pdf" in caplog.text
    assert call("doctor", *arguments, "-j", "1", cwd=tmp_path).code == 0
    assert call("inspect", "d", "--verify", "-j", "1", cwd=tmp_path).code == 0
    samples = {sample.row.foreground: sample for sample in open_dataset(tmp_path / "d")}
    assert set(samples) == {"one", r"caf\xe9"}
    np.testing.assert_array_equal(samples["one"].alpha, soft_disc(64, 72, 0)[1])


def test_doctor_finds_what_a_build_finds_in_lists(tmp_path: Path) -> None:
    """Names with ./, accents coded otherwise: there for both; what is missing is missing for both."""
    image, alpha = soft_disc(64, 72, 0)
    save(tmp_path / "fg" / "a.png", np.dstack([image, alpha]))
    for name in ("a.jpg", unicodedata.normalize("NFD", "é.jpg")):
        save(tmp_path / "bg" / name, photograph(80, 80, 1))
    (tmp_path / "bg" / "l.txt").write_text(unicodedata.normalize("NFC", "./a.jpg\né.jpg\ngone.jpg\n"))
    (tmp_path / "r.toml").write_text(
        'variants = 3\nforegrounds = {layout = "rgba", root = "fg"}\npairing = {order = "listed"}\n'
        'backgrounds = {layout = "list", root = "bg", list = "l.txt"}\n'
    )
    found = call("doctor", "r.toml", "-j", "1", "--json", cwd=tmp_path).json
    assert found["lost"] == 1
    assert [finding["names"] for finding in found["findings"]] == [["gone.jpg"]]
    done = call("build", "r.toml", "--out", "d", "-j", "1", "--json", cwd=tmp_path)
    assert done.json["failures"] == 1
    assert make_plan(load_recipe(tmp_path / "r.toml")).backgrounds[0] == "a.jpg"


# ---- sources ----


@dataclass(frozen=True)
class Greys:
    """Backgrounds of one grey: a source from outside."""

    table: GreyTable

    @classmethod
    def open(cls, table: GreyTable, context: SourceContext) -> Greys:
        return cls(table)

    def names(self) -> list[str]:
        return [f"grey-{level}" for level in (0, 99)]

    def files(self, name: str) -> list[Path]:
        return []

    def size(self, name: str) -> tuple[int, int]:
        return self.table.side, self.table.side

    def load(self, name: str) -> Background:
        return Background(np.full((*self.size(name), 3), int(name[5:]), np.uint8), name)


class GreyTable(BackgroundTable):
    """Its settings."""

    layout: Literal["grey"]
    side: int = 80


def test_a_source_is_added_by_one_entry(pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its table is checked, its pictures are blended, its settings are part of the plan."""
    monkeypatch.setattr(BACKGROUND_SOURCES, "_entries", dict(BACKGROUND_SOURCES))
    BACKGROUND_SOURCES.register("grey", Source(GreyTable, Greys))
    recipe = tmp_path / "r.toml"
    foregrounds = f'{{layout = "rgba", root = "{pictures.cutouts}"}}'
    recipe.write_text(f'variants = 2\nforegrounds = {foregrounds}\nbackgrounds = {{layout = "grey"}}')
    done = call("build", str(recipe), "--out", str(tmp_path / "d"), "-j", "1")
    assert done.code == 0, done.err
    clear = {tuple(sample.image[sample.alpha == 0][0]) for sample in open_dataset(tmp_path / "d")}
    assert clear == {(0, 0, 0), (99, 99, 99)}
    assert make_plan(load_recipe(recipe)).sha256 != make_plan(load_recipe(recipe, ["backgrounds.side=81"])).sha256
    for wrong, message in (("side=[1]", "side"), ("hue=1", "hue: unknown key"), ("layout=gray", "'grey'")):
        with pytest.raises(RecipeError, match=f"backgrounds.*{message}"):
            load_recipe(recipe, [f"backgrounds.{wrong}"])
