"""Recipe: what to build. A frozen, strictly typed value, read from TOML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator
from pydantic_core import ErrorDetails

from .errors import RecipeError
from .settings import Range, Share, Table, explain, override, read_toml, shipped

MANIFESTS = "matting_compose.manifests"


class _Foregrounds(Table):
    min_side: PositiveInt = Field(16, description="smaller pictures (shorter side, px) are left out, and listed")
    max_side: PositiveInt | None = Field(None, description="larger pictures (longer side, px) are reduced to it")
    enlarge_to: PositiveInt | None = Field(
        None, description="smaller pictures (longer side, px) are enlarged to it, and at most doubled"
    )
    max_pixels: PositiveInt = Field(120_000_000, description="a picture that declares more is refused unread")

    @model_validator(mode="after")
    def _check_sides(self) -> _Foregrounds:
        if self.max_side is not None and self.enlarge_to is not None and self.enlarge_to > self.max_side:
            raise ValueError(f"enlarge_to = {self.enlarge_to} must not be above max_side = {self.max_side}")
        return self


class PairsForegrounds(_Foregrounds):
    """Pictures in one folder, alphas in another, matched by their names without the ending."""

    layout: Literal["pairs"]
    images: Path
    alphas: Path


class RgbaForegrounds(_Foregrounds):
    """Cut-outs: pictures that carry their alpha (straight, not premultiplied)."""

    layout: Literal["rgba"]
    root: Path


class DimForegrounds(_Foregrounds):
    """Deep Image Matting's tree: a list of names, and under the root folders that hold ``fg`` and ``alpha``."""

    layout: Literal["dim"]
    root: Path
    list: Path = Path("training_fg_names.txt")
    folders: tuple[str, ...] = ("Adobe-licensed images", "Other")
    expected: PositiveInt | None = Field(None, description="how many names the list should have; `doctor` compares")


class ProceduralForegrounds(_Foregrounds):
    """Foregrounds drawn from noise and strokes, with exact alphas: no files at all."""

    layout: Literal["procedural"]
    count: PositiveInt = 48
    sides: tuple[PositiveInt, PositiveInt] = (448, 640)


class FolderBackgrounds(Table):
    """Every picture in a folder, in the order of their names."""

    layout: Literal["folder"]
    root: Path
    recursive: bool = True
    max_pixels: PositiveInt = 120_000_000


class ListBackgrounds(Table):
    """The pictures that a text file names, a line each, in its order. COCO's are found under their names of 2014 or
    of 2017, whichever the list has.
    """

    layout: Literal["list"]
    root: Path
    list: Path
    beside: Literal["backgrounds", "foregrounds"] = Field(
        "backgrounds", description="whose root the list lies below: Adobe's are beside the foregrounds"
    )
    max_pixels: PositiveInt = 120_000_000


class ProceduralBackgrounds(Table):
    """Backgrounds drawn from noise and strokes: no files at all."""

    layout: Literal["procedural"]
    count: PositiveInt = 64
    sides: tuple[PositiveInt, PositiveInt] = (512, 768)


ADOBE_FIT = {"enlarge": "needed", "offset": "top-left"}  # the only ones that Adobe's script knows


class Pairing(Table):
    """Which background each composite gets."""

    order: Literal["sequential", "listed", "shuffled"] = Field(
        "shuffled",
        description="shuffled: no background twice until all were used; sequential: in order, starting over at the end;"
        " listed: foreground i takes lines [i·variants, (i+1)·variants) of the list, which must be long enough",
    )


class Fit(Table):
    """How a background is brought to the foreground's size, and blended with it."""

    method: Literal["exact", "adobe"] = Field(
        "exact",
        description="exact: correctly rounded; adobe: what Deep Image Matting's own script does, to the last bit,"
        " which leaves `enlarge` and `offset` no choice",
    )
    enlarge: Literal["needed", "always"] = Field(
        "needed", description="needed: only where the background is too small; always: until it just covers (or down)"
    )
    offset: Literal["random", "centre", "top-left"] = "random"

    @model_validator(mode="before")
    @classmethod
    def _follow_adobe(cls, data: Any) -> Any:
        return {**ADOBE_FIT, **data} if isinstance(data, dict) and data.get("method") == "adobe" else data

    @model_validator(mode="after")
    def _check(self) -> Fit:
        for key, only in ADOBE_FIT.items():
            if self.method == "adobe" and getattr(self, key) != only:
                raise ValueError(f"with method = adobe {key} is {only}; leave the key out, or use method = exact")
        return self


class Trimap(Table):
    """How the unknown region is drawn. Radii are ranges, both ends included."""

    strategy: Literal["distance", "mmagic", "gca", "indexnet", "huochaitiantang", "tsing90", "supplied"] = "distance"
    folder: str = Field(
        "trimaps", description="of strategy supplied: holds {foreground}_{variant}.png, below the foregrounds' root"
    )
    erode: Range = (1, 20)
    dilate: Range = (1, 20)
    unit: Literal["px", "subject"] = Field(
        "px", description="px, or thousandths of the subject's size (the side of the square of its bounding box's area)"
    )
    opaque: Annotated[int, Field(ge=1, le=255)] = Field(255, description="alpha from here on is opaque (250 for JPEG)")
    clear: Annotated[int, Field(ge=0, le=254)] = Field(0, description="alpha up to here is clear (5 for JPEG)")

    @model_validator(mode="after")
    def _check(self) -> Trimap:
        for name, (low, high) in (("erode", self.erode), ("dilate", self.dilate)):
            if self.unit == "px" and (low != int(low) or high != int(high)):
                raise ValueError(f"{name}: radii in px are whole numbers, found [{low:g}, {high:g}]")
        if self.clear >= self.opaque:
            raise ValueError(f"clear = {self.clear} must be below opaque = {self.opaque}")
        return self


class Shards(Table):
    """How the composites are stored."""

    packing: Literal["delta", "solid", "plain", "webp", "jpeg"] = "delta"
    megabytes: PositiveInt = Field(128, description="a shard's size, about")
    variants: PositiveInt = Field(50, description="variants of a foreground in one shard, at most")
    tile: Annotated[int, Field(ge=16, le=1024, multiple_of=16)] = 160
    background: Literal["none", "unknown", "full"] = Field(
        "none", description="store the fitted background: not at all, in the unknown region (the loss), or whole"
    )
    quality: Annotated[int, Field(ge=1, le=100)] = Field(95, description="of packing jpeg")


class Split(Table):
    """Which foregrounds are kept for validation; no foreground is on both sides."""

    validation: Share | tuple[str, ...] = Field(0.0, description="a share of the foregrounds, or their names")


ForegroundTable = PairsForegrounds | RgbaForegrounds | DimForegrounds | ProceduralForegrounds
BackgroundTable = FolderBackgrounds | ListBackgrounds | ProceduralBackgrounds


class Recipe(Table):
    """What to build: foregrounds × variants, how they meet, and how they are stored."""

    seed: NonNegativeInt = 431
    variants: Annotated[int, Field(ge=1, le=65_535)] = 100
    foregrounds: Annotated[ForegroundTable, Field(discriminator="layout")]
    backgrounds: Annotated[BackgroundTable, Field(discriminator="layout")]
    pairing: Pairing = Pairing()
    fit: Fit = Fit()
    trimap: Trimap = Trimap()
    shards: Shards = Shards()
    split: Split = Split()

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        root = foregrounds_root(self)
        if isinstance(self.backgrounds, ListBackgrounds) and self.backgrounds.beside == "foregrounds" and root is None:
            raise ValueError("backgrounds.beside = foregrounds needs foregrounds in files, these are drawn")
        if self.trimap.strategy == "supplied":
            if not isinstance(self.foregrounds, DimForegrounds | PairsForegrounds):
                raise ValueError("trimap.strategy = supplied goes with foregrounds of layout dim or pairs")
            if self.foregrounds.max_side is not None:
                raise ValueError("trimap.strategy = supplied: the trimaps would not fit foregrounds cut to max_side")
        return self


def foregrounds_root(recipe: Recipe) -> Path | None:
    """Return the folder that holds all there is of a recipe's foregrounds; None where they are drawn."""
    match recipe.foregrounds:
        case PairsForegrounds(images=images):
            return images.parent
        case RgbaForegrounds(root=root) | DimForegrounds(root=root):
            return root
        case ProceduralForegrounds():
            return None


def shipped_recipes() -> list[str]:
    """Name the recipes that come with the package, sorted."""
    return shipped(MANIFESTS)


def load_recipe(
    name: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    foregrounds: Path | None = None,
    alphas: Path | None = None,
    backgrounds: Path | None = None,
) -> Recipe:
    """Read a recipe by name or path.

    Parameters
    ----------
    name : a shipped recipe's name, the path of a TOML file, or None for the defaults.
        Relative paths inside a file are relative to the file, all others to the working directory.
    overrides : ``key=value`` strings, the key dotted (``trimap.erode=[2,30]``); values are TOML, else plain text
    foregrounds, alphas, backgrounds : folders that take the place of the recipe's; where it names none, cut-outs
        with their own alpha are expected, or pairs if `alphas` is given

    Raises
    ------
    RecipeError : naming the key's path, what was found and what is allowed
    """
    data, folder = read_toml(name, MANIFESTS, "recipe", RecipeError)
    _anchor(data, folder)
    _place_foregrounds(data, foregrounds, alphas)
    if backgrounds is not None:
        table = _layout_table(data, "backgrounds", "folder", ("folder", "list"))
        data["backgrounds"] = {**table, "root": str(backgrounds)}
    for item in overrides:
        override(data, item, RecipeError)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(_explain(error, str(name or "the command line"))) from None


def _place_foregrounds(data: dict[str, Any], foregrounds: Path | None, alphas: Path | None) -> None:
    if foregrounds is None:
        if alphas is not None:
            raise RecipeError("--alphas says where the alphas are; --foregrounds must say where their pictures are")
    elif alphas is not None:
        table = _layout_table(data, "foregrounds", "pairs", ("pairs",))
        data["foregrounds"] = {**table, "images": str(foregrounds), "alphas": str(alphas)}
    else:
        table = _layout_table(data, "foregrounds", "rgba", ("rgba", "dim", "pairs"))
        if table["layout"] == "pairs":
            raise RecipeError("this recipe's foregrounds are pairs: give --alphas with --foregrounds")
        data["foregrounds"] = {**table, "root": str(foregrounds)}


def _layout_table(data: dict[str, Any], name: str, default: str, keeps: tuple[str, ...]) -> dict[str, Any]:
    """Return a recipe's table if a folder can be put into its layout, else an empty one of the default layout."""
    table = data.get(name)
    return table if isinstance(table, dict) and table.get("layout") in keeps else {"layout": default}


# The only keys that hold a place on this machine. They say where the pictures are, not which they are,
# so they are no part of a plan's hash: a dataset may be finished from another disk.
PLACES = {"foregrounds": ("root", "images", "alphas"), "backgrounds": ("root",)}


def rooted(recipe: Recipe) -> Recipe:
    """Return the recipe with absolute places, for workers that run in other folders."""
    tables = {}
    for name, keys in PLACES.items():
        table = getattr(recipe, name)
        places = {key: getattr(table, key).absolute() for key in keys if hasattr(table, key)}
        tables[name] = table.model_copy(update=places)
    return recipe.model_copy(update=tables)


def _anchor(data: dict[str, Any], folder: Path) -> None:
    for table, keys in PLACES.items():
        values = data.get(table)
        if isinstance(values, dict):
            for key in keys:
                if isinstance(values.get(key), str):
                    values[key] = str(folder / values[key])


# A table's keys depend on its layout; pydantic puts the layout's name into the place of an error.
LAYOUTS: dict[str, dict[str, type[Table]]] = {
    table: {get_args(model.model_fields["layout"].annotation)[0]: model for model in get_args(union)}
    for table, union in (("foregrounds", ForegroundTable), ("backgrounds", BackgroundTable))
}


def _explain(error: ValidationError, origin: str) -> str:
    """Turn pydantic's findings into a line each: the key, what is wrong, what is allowed."""
    return explain([_explain_one(found) for found in error.errors(include_url=False)], origin, "recipe")


def _explain_one(found: ErrorDetails) -> str:
    place = [str(part) for part in found["loc"]]
    if not place:  # what tables say to each other is no one key's
        return found["msg"].removeprefix("Value error, ")
    table: type[BaseModel] = Recipe
    if place[0] in LAYOUTS and len(place) > 1:
        table = LAYOUTS[place[0]][place.pop(1)]
    elif len(place) > 1:
        annotation = Recipe.model_fields[place[0]].annotation
        table = annotation if isinstance(annotation, type) else Recipe
    # What follows the key is which member of a union or of a tuple pydantic was trying.
    key = ".".join(place[:2] if place[0] in Recipe.model_fields and table is not Recipe else place[:1])
    if found["type"] == "extra_forbidden":
        return f"{key}: unknown key; allowed here are {', '.join(table.model_fields)}"
    if found["type"].startswith("union_tag") or (key in LAYOUTS and found["type"] == "missing"):
        return f"{key}: expected a table with layout = {' | '.join(map(repr, LAYOUTS[key]))} (found {found['input']!r})"
    if found["type"] == "missing":
        return f"{key}: missing"
    return f"{key}: {found['msg'].removeprefix('Value error, ')} (found {found['input']!r})"
