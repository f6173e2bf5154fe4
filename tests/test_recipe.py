"""Recipes: strict about names, types and values, and clear about what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from matting_compose.composer.base.errors import RecipeError
from matting_compose.composer.recipe import RgbaForegrounds, load_recipe, shipped_recipes

TWO_FOLDERS = """
variants = 3
[foregrounds]
layout = "rgba"
root = "cutouts"
[backgrounds]
layout = "folder"
root = "photos"
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "my.toml"
    path.write_text(TWO_FOLDERS)
    return path


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_recipes(name: str) -> None:
    """Every shipped recipe parses as it is."""
    assert load_recipe(name).variants >= 1


def test_paths_in_a_file_are_relative_to_it(recipe_file: Path) -> None:
    """A recipe works from any working directory."""
    table = load_recipe(recipe_file).foregrounds
    assert isinstance(table, RgbaForegrounds)
    assert table.root == recipe_file.parent / "cutouts"


def test_overrides_are_toml_or_text(recipe_file: Path) -> None:
    """`--set` takes numbers, lists and bare words."""
    recipe = load_recipe(recipe_file, ["trimap.dilate=[2, 30]", "shards.packing=solid", "seed=7"])
    assert (recipe.trimap.dilate, recipe.shards.packing, recipe.seed) == ((2, 30), "solid", 7)


def test_folders_alone_make_a_recipe(tmp_path: Path) -> None:
    """Without a file, the folders' layouts follow from which folders are given."""
    cutouts = load_recipe(foregrounds=tmp_path, backgrounds=tmp_path)
    pairs = load_recipe(foregrounds=tmp_path, alphas=tmp_path, backgrounds=tmp_path)
    assert (cutouts.foregrounds.layout, pairs.foregrounds.layout) == ("rgba", "pairs")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("foo.bar=1", ["foo: unknown key", "seed, variants"]),
        ("trimap.erosion=[1,2]", ["trimap.erosion: unknown key", "did you mean 'erode'?"]),
        ("foregrounds.roots=x", ["foregrounds.roots: unknown key", "root"]),
        ("shards.packing=zip", ["shards.packing", "delta, solid, plain, webp, jpeg", "'zip'"]),
        ("trimap.erode=[9, 2]", ["trimap", "upside down"]),
        ("trimap.erode=[1.5, 2]", ["trimap", "whole numbers"]),
        ("trimap.erode=3", ["trimap.erode: expected a list, [a, b], found 3"]),
        ("variants=0", ["variants: expected at least 1, found 0"]),
        ("variants=many", ["variants: expected a whole number, found 'many'"]),
        ("split.validation=1.5", ["split.validation: expected", "found 1.5"]),
        ("trimap.clear=250", None),
        ("trimap.opaque=3", None),
        ("foregrounds.layout=heap", ["foregrounds", "'pairs' | 'rgba' | 'dim' | 'procedural'", "heap"]),
        ("nothing", ["KEY=VALUE"]),
        ("seed.x=1", ["seed", "not a table"]),
    ],
)
def test_impossible_values_are_explained(recipe_file: Path, override: str, expected: list[str] | None) -> None:
    """The message names the key's path, what was found and what is allowed."""
    overrides = [override, "seed=1"] if override != "seed.x=1" else ["seed=1", override]
    if expected is None:
        load_recipe(recipe_file, overrides)
        return
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe_file, overrides)
    for text in expected:
        assert text in str(caught.value)


def test_thresholds_that_meet_are_refused(recipe_file: Path) -> None:
    """Clear must stay below opaque."""
    with pytest.raises(RecipeError, match=r"clear = 200 must be below opaque = 100"):
        load_recipe(recipe_file, ["trimap.clear=200", "trimap.opaque=100"])


def test_missing_tables_are_asked_for() -> None:
    """A recipe without backgrounds says which layouts there are."""
    with pytest.raises(RecipeError, match=r"backgrounds: expected a table with layout = 'folder' \| 'list'"):
        load_recipe(foregrounds=Path())


@pytest.mark.parametrize("text", ["variants = ", "\xff\xfe"])
def test_broken_files_are_named(tmp_path: Path, text: str) -> None:
    """A file that is no TOML is an error with its name."""
    path = tmp_path / "broken.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RecipeError, match=r"broken\.toml: not TOML"):
        load_recipe(path)


def test_unknown_names_list_the_shipped() -> None:
    """A recipe that is not there is an error that says what is."""
    with pytest.raises(RecipeError, match=r"shipped are .*demo"):
        load_recipe("nonesuch")
    with pytest.raises(RecipeError, match="no such recipe file"):
        load_recipe("nonesuch.toml")
