"""Recipe: what to build. A frozen, strictly typed value, read from TOML."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from .base.errors import RecipeError
from .base.registry import Registry
from .base.settings import Chances, Fraction, Table, explain_finding, join_findings, list_shipped, override, read_toml
from .compositing.blending import Fit
from .compositing.looks import Looks
from .compositing.scenes import Scenes
from .compositing.trimaps import SUPPLIED, Trimap
from .dataset.packings import PACKINGS
from .dataset.rows import UINT16_MAX

# ``seen``: as people see it, upright and in sRGB. ``stored``: the pixels as Pillow decodes them, which is what
# scripts that know neither EXIF nor ICC profiles make of a picture.
Reading = Literal["seen", "stored"]
Kind = Literal["hair", "fur", "lace", "leaves", "glass", "smoke", "motion", "solid", "portrait"]
MANIFESTS = "matting_compose.manifests"


class BackgroundTable(Table):
    """What tables of pictures share: of backgrounds, and of foregrounds, too."""

    licence: str | None = Field(
        default=None, description="of the pictures; it stands in the dataset and in its exports"
    )
    attribution: str | None = Field(default=None, description="whom to name; likewise")


class ForegroundTable(BackgroundTable):
    """What tables of foregrounds share."""

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")] | None = Field(
        default=None,
        description="goes before the foregrounds' names, as a folder does, so that several roots' cannot clash",
    )
    compose: bool = Field(
        default=True,
        description="false: the pictures are taken as they are, each with its alpha and as many trimaps as it has"
        " variants; nothing is laid over a background",
    )
    split: Literal["train", "validation"] | None = Field(
        default=None, description="which side all of them are on, as published sets have it; else [split] says it"
    )
    role: Literal["any", "target", "distractor"] = Field(
        default="any",
        description="target: composites are of them, and they stand in no other's scene; distractor: the other way"
        " round; any: both",
    )
    weight: PositiveFloat = Field(
        default=1, description="each of these foregrounds has so many times the recipe's variants"
    )
    min_side: PositiveInt = Field(
        default=16, description="smaller pictures (shorter side, px) are left out, and listed"
    )
    transparency: Chances = Field(
        default=(0, 1),
        description="those of whose visible pixels less or more than this share is soft, neither clear nor opaque by"
        " [trimap], are left out, and listed",
    )
    max_side: PositiveInt | None = Field(
        default=None, description="larger pictures (longer side, px) are reduced to it"
    )
    enlarge_to: PositiveInt | None = Field(
        default=None, description="smaller pictures (longer side, px) are enlarged to it, and at most doubled"
    )
    max_pixels: PositiveInt = Field(default=120_000_000, description="a picture that declares more is refused unread")

    @model_validator(mode="after")
    def _check_sides(self) -> ForegroundTable:
        if self.max_side is not None and self.enlarge_to is not None and self.enlarge_to > self.max_side:
            raise ValueError(f"enlarge_to = {self.enlarge_to} must not be above max_side = {self.max_side}")
        if self.role == "distractor" and not self.compose:
            raise ValueError("role = distractor: a picture as it is (compose = false) cannot stand in another's scene")
        return self


class PairsForegrounds(ForegroundTable):
    """Pictures in one folder, alphas in another, matched by their names without the ending."""

    layout: Literal["pairs"]
    images: Path
    alphas: Path


class RgbaForegrounds(ForegroundTable):
    """Cut-outs: pictures that carry their alpha (straight, not premultiplied)."""

    layout: Literal["rgba"]
    root: Path


class DimForegrounds(ForegroundTable):
    """Deep Image Matting's tree: a list of names, and under the root folders that hold ``fg`` and ``alpha``."""

    layout: Literal["dim"]
    root: Path
    list: Path = Path("training_fg_names.txt")
    folders: tuple[str, ...] = ("Adobe-licensed images", "Other")
    expected: PositiveInt | None = Field(
        default=None, description="how many names the list should have; `doctor` compares"
    )


DrawnCount = Annotated[int, Field(ge=1, le=10**6)]  # each takes a line in a list


DrawnSide = Annotated[int, Field(ge=1, le=10_000)]  # px; pictures in files have some 120 megapixels at most


class ProceduralForegrounds(ForegroundTable):
    """Foregrounds drawn from noise and strokes, with exact alphas: no files at all."""

    layout: Literal["procedural"]
    compose: Literal[True] = Field(default=True, description="they are drawn without a background")
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = Field(
        default=("hair", "fur", "lace", "leaves", "glass", "smoke", "motion", "solid"), description="drawn in turn"
    )
    count: DrawnCount = 48
    sides: tuple[DrawnSide, DrawnSide] = (448, 640)


class PhotographTable(BackgroundTable):
    """What tables of background photographs share."""

    min_side: PositiveInt | None = Field(
        default=None, description="smaller pictures (shorter side, px) are left out, and listed"
    )
    annotations: Path | None = Field(
        default=None,
        description="COCO's instances_*.json: pictures that show what `without` names are left out, and listed",
    )
    without: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        default=("person",), description="categories of these annotations"
    )
    max_side: PositiveInt | None = Field(
        default=None, description="larger pictures (longer side, px) are reduced to it when they are read"
    )

    @model_validator(mode="after")
    def _check_sides(self) -> PhotographTable:
        if self.max_side is not None and self.min_side is not None and self.min_side > self.max_side:
            raise ValueError(f"min_side = {self.min_side} must not be above max_side = {self.max_side}")
        return self


class FolderBackgrounds(PhotographTable):
    """Every picture in a folder, in the order of their names."""

    layout: Literal["folder"]
    root: Path
    recursive: bool = True
    max_pixels: PositiveInt = 120_000_000


class ListBackgrounds(PhotographTable):
    """The pictures that a text file names, a line each, in its order. COCO's are found under their names of 2014 or
    of 2017, whichever the list has.
    """

    layout: Literal["list"]
    root: Path
    list: Path
    beside: Literal["backgrounds", "foregrounds"] = Field(
        default="backgrounds", description="whose root the list lies below: Adobe's are beside the foregrounds"
    )
    max_pixels: PositiveInt = 120_000_000


class ProceduralBackgrounds(BackgroundTable):
    """Backgrounds drawn from noise and strokes: no files at all."""

    layout: Literal["procedural"]
    count: DrawnCount = 64
    sides: tuple[DrawnSide, DrawnSide] = (512, 768)


class Pairing(Table):
    """Which background each composite gets."""

    order: Literal["sequential", "listed", "shuffled"] = Field(
        default="shuffled",
        description="shuffled: no background twice until all were used; sequential: in order, starting over at the end;"
        " listed: foreground i takes lines [i·variants, (i+1)·variants) of the list, which must be long enough",
    )


class Shards(Table):
    """How the composites are stored."""

    packing: Annotated[str, AfterValidator(PACKINGS.check)] = "delta"
    megabytes: PositiveInt = Field(default=128, description="a shard's size, about")
    variants: PositiveInt = Field(default=50, description="variants of a foreground in one shard, at most")
    tile: Annotated[int, Field(ge=16, le=1024, multiple_of=16)] = 160
    background: Literal["none", "unknown", "full"] = Field(
        default="none",
        description="store the fitted background: not at all, in the unknown region (the loss), or whole",
    )
    quality: Annotated[int, Field(ge=1, le=100)] = Field(default=95, description="of packing jpeg")


class Split(Table):
    """Which foregrounds are kept for validation; no foreground is on both sides."""

    validation: Fraction | tuple[str, ...] | Literal["auto"] = Field(
        default=0.0,
        description="a share of the foregrounds, or their names; auto, as of folders without a recipe: a tenth where"
        " there are 20 or more, else none",
    )


@dataclass(frozen=True)
class Source:
    """A source of pictures: what its table in a recipe holds, and what lists and loads the pictures.

    Attributes
    ----------
    table : type of Table
        Its key ``layout`` holds the name under which the source is registered.
    loader : type or str
        A class whose ``open(table, context)`` gives a `ForegroundLayout` or a `BackgroundLayout`; or where it is,
        ``package.module:Class``, to be imported when it is needed.
    """

    table: type[Table]
    loader: Any

    def open(self, table: Table, context: SourceContext) -> Any:
        """Return what lists and loads a table's pictures."""
        loader = pkgutil.resolve_name(self.loader) if isinstance(self.loader, str) else self.loader
        return loader.open(table, context)


@dataclass(frozen=True)
class SourceContext:
    """What a source is told of the recipe: how pictures are read, its seed, and where files of foregrounds lie."""

    reading: Reading
    seed: int
    foregrounds: Path | None


_HERE = f"{__package__}.sources"


FOREGROUND_SOURCES: Registry[Source] = Registry(
    "layout of foregrounds",
    "matting_compose.foreground_sources",
    {
        "pairs": Source(PairsForegrounds, f"{_HERE}.foregrounds:Pairs"),
        "rgba": Source(RgbaForegrounds, f"{_HERE}.foregrounds:Cutouts"),
        "dim": Source(DimForegrounds, f"{_HERE}.foregrounds:Dim"),
        "procedural": Source(ProceduralForegrounds, f"{_HERE}.foregrounds:DrawnForegrounds"),
    },
)


BACKGROUND_SOURCES: Registry[Source] = Registry(
    "layout of backgrounds",
    "matting_compose.background_sources",
    {
        "folder": Source(FolderBackgrounds, f"{_HERE}.backgrounds:Photographs"),
        "list": Source(ListBackgrounds, f"{_HERE}.backgrounds:Photographs"),
        "procedural": Source(ProceduralBackgrounds, f"{_HERE}.backgrounds:DrawnBackgrounds"),
    },
)


def _check_table(sources: Registry[Source]) -> BeforeValidator:
    """Check a table by the source that its layout names."""

    def check(value: Any) -> Any:
        if isinstance(value, Table):
            return value
        layout = value.get("layout") if isinstance(value, dict) else None
        if not isinstance(layout, str) or layout not in sources:
            names = " | ".join(map(repr, sources))
            raise PydanticCustomError("layout", "expected a table with layout = {names}", {"names": names})
        return sources[layout].table.model_validate(value)

    return BeforeValidator(check)


_ForegroundTable = Annotated[SerializeAsAny[ForegroundTable], _check_table(FOREGROUND_SOURCES)]
_FORMS = ("one", "several")  # tags: pydantic puts them into the place of an error


class Recipe(Table):
    """What to build: foregrounds × variants, how they meet, and how they are stored."""

    seed: NonNegativeInt = 431
    variants: Annotated[int, Field(ge=1, le=UINT16_MAX)] = 100
    foregrounds: Annotated[
        Annotated[_ForegroundTable, Tag("one")] | Annotated[tuple[_ForegroundTable, ...], Tag("several")],
        Discriminator(lambda value: _FORMS[isinstance(value, list | tuple)]),
    ]
    backgrounds: Annotated[SerializeAsAny[BackgroundTable], _check_table(BACKGROUND_SOURCES)] | None = None
    pairing: Pairing = Pairing()
    looks: Looks = Looks()
    fit: Fit = Fit()
    scenes: Scenes = Scenes()
    trimap: Trimap = Trimap()
    shards: Shards = Shards()
    split: Split = Split()

    @property
    def foreground_tables(self) -> tuple[ForegroundTable, ...]:
        """The tables of foregrounds, one or several."""
        return self.foregrounds if isinstance(self.foregrounds, tuple) else (self.foregrounds,)

    @property
    def composes(self) -> bool:
        """Whether anything is laid over backgrounds."""
        return any(table.compose and table.role != "distractor" for table in self.foreground_tables)

    def _check_roles(self) -> None:
        roles = {table.role for table in self.foreground_tables if table.compose}
        if all(table.role == "distractor" for table in self.foreground_tables):
            raise ValueError("foregrounds.role = distractor: composites are of none of them; give others, too")
        if "distractor" in roles and not self.scenes.distractors:
            raise ValueError("foregrounds.role = distractor: nobody sees them while scenes.distractors is 0")
        if self.scenes.distractors and not roles - {"target"}:
            raise ValueError("scenes.distractors needs foregrounds with a role of any or distractor")

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        if not self.foreground_tables:
            raise ValueError("foregrounds: expected at least one table")
        for table in self.foreground_tables:
            if (count := round(self.variants * table.weight)) > UINT16_MAX:
                raise ValueError(
                    f"foregrounds.weight = {table.weight:g} makes {count:,} variants of each foreground; a shard can"
                    f" tell {UINT16_MAX:,}: lower the weight, or variants"
                )
        if self.composes and self.backgrounds is None:
            names = " | ".join(map(repr, BACKGROUND_SOURCES))
            raise ValueError(
                f"backgrounds: expected a table with layout = {names}; only pictures as they are"
                " (foregrounds.compose = false) need none"
            )
        self._check_roles()
        root = foregrounds_root(self)
        if isinstance(self.backgrounds, ListBackgrounds) and self.backgrounds.beside == "foregrounds" and root is None:
            raise ValueError("backgrounds.beside = foregrounds needs one table of foregrounds in files")
        if isinstance(self.backgrounds, PhotographTable) and self.pairing.order == "listed":
            for key in ("min_side", "annotations"):
                if getattr(self.backgrounds, key) is not None:
                    raise ValueError(f"pairing.order = listed takes every line as it is; leave backgrounds.{key} out")
        if self.trimap.strategy == SUPPLIED:
            if not isinstance(self.foregrounds, DimForegrounds | PairsForegrounds):
                raise ValueError("trimap.strategy = supplied goes with one table of foregrounds, layout dim or pairs")
            if self.foregrounds.max_side is not None:
                raise ValueError("trimap.strategy = supplied: the trimaps would not fit foregrounds cut to max_side")
            if self.looks != Looks():
                raise ValueError("trimap.strategy = supplied: the trimaps would not fit other looks; leave [looks] out")
        return self


def reading_of(recipe: Recipe) -> Reading:
    """Return how a recipe's pictures are read: as Adobe's script does where its fit is Adobe's."""
    return "stored" if recipe.fit.method == "adobe" else "seen"


def source_context(recipe: Recipe) -> SourceContext:
    """Return what a recipe's sources are told of it."""
    return SourceContext(reading_of(recipe), recipe.seed, foregrounds_root(recipe))


def foregrounds_root(recipe: Recipe) -> Path | None:
    """Return the folder that holds all there is of a recipe's foregrounds; None where they are drawn, or of several."""
    match recipe.foregrounds:
        case PairsForegrounds(images=images):
            return images.parent
        case RgbaForegrounds(root=root) | DimForegrounds(root=root):
            return root
        case _:
            return None


def shipped_recipes() -> list[str]:
    """Name the recipes that come with the package, sorted."""
    return list_shipped(MANIFESTS)


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
    name : str, Path or None
        A shipped recipe's name, the path of a TOML file, or None for the defaults, and ``split.validation = "auto"``
        if there are `foregrounds`. Relative paths inside a file are relative to the file, all others to the working
        directory.
    overrides : Sequence[str]
        ``key=value``, the key dotted (``trimap.erode=[2,30]``); values are TOML, else plain text.
    foregrounds, alphas, backgrounds : Path, optional
        Folders that take the place of the recipe's; where it names none, cut-outs with their own alpha are expected,
        or pairs if `alphas` is given.

    Raises
    ------
    RecipeError
        With the key's path, what was found and what is allowed.

    Examples
    --------
    >>> recipe = load_recipe("demo", ["variants=4", "trimap.erode=[2,30]"])
    >>> recipe.variants, recipe.trimap.erode
    (4, (2.0, 30.0))
    """
    data, folder = read_toml(name, MANIFESTS, "recipe", RecipeError)
    if name is None and foregrounds is not None:
        data["split"] = {"validation": "auto"}
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
        raise RecipeError(_explain(error, data, str(name or "the command line"))) from None


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
PLACES = {"foregrounds": ("root", "images", "alphas"), "backgrounds": ("root", "annotations")}


# Keys that came later: a recipe that does not use them is the plan that it was, to its hash.
LATER_TABLES = ("looks", "scenes")
LATER_KEYS = {
    "foregrounds": ("name", "weight", "compose", "split", "role", "transparency", "kinds", "licence", "attribution"),
    "backgrounds": ("min_side", "max_side", "without", "licence", "attribution"),
    "scenes": ("distractors", "distractor_count", "distractor_size"),
}


def plain(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as plain types, without places, and without later keys that it does not use."""
    data = recipe.model_dump(mode="json")
    if recipe.backgrounds is None:
        del data["backgrounds"]
    backgrounds = () if recipe.backgrounds is None else (recipe.backgrounds,)
    tables = {"foregrounds": recipe.foreground_tables, "backgrounds": backgrounds, "scenes": (recipe.scenes,)}
    for name, models in tables.items():
        for table, model in zip(_tables(data, name), models, strict=True):
            for key in PLACES.get(name, ()):
                table.pop(key, None)
            for key in LATER_KEYS[name]:
                if key in table and getattr(model, key) == type(model).model_fields[key].default:
                    del table[key]
    for key in LATER_TABLES:
        if getattr(recipe, key) == Recipe.model_fields[key].default:
            del data[key]
    return data


def _tables(data: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return a recipe's tables of that name: one, or several in a list."""
    value = data.get(name)
    return [table for table in (value if isinstance(value, list) else [value]) if isinstance(table, dict)]


def rooted(recipe: Recipe) -> Recipe:
    """Return the recipe with absolute places."""

    def absolute(table: Any, keys: tuple[str, ...]) -> Any:
        places = {key: place.absolute() for key in keys if (place := getattr(table, key, None)) is not None}
        return table.model_copy(update=places)

    tables = {}
    for name, keys in PLACES.items():
        if (value := getattr(recipe, name)) is None:
            continue
        one = not isinstance(value, tuple)
        tables[name] = absolute(value, keys) if one else tuple(absolute(table, keys) for table in value)
    return recipe.model_copy(update=tables)


def _anchor(data: dict[str, Any], folder: Path) -> None:
    for name, keys in PLACES.items():
        for table in _tables(data, name):
            for key in keys:
                if isinstance(table.get(key), str):
                    table[key] = str(folder / table[key])


SOURCES = {"foregrounds": FOREGROUND_SOURCES, "backgrounds": BACKGROUND_SOURCES}


def _explain(error: ValidationError, data: dict[str, Any], origin: str) -> str:
    """Turn pydantic's findings into a line each: the key, what is wrong, what is allowed."""
    return join_findings([_explain_one(found, data) for found in error.errors(include_url=False)], origin, "recipe")


def _table_of(root: str, given: Any) -> type[Table] | None:
    """Return what a table may hold, by the layout that it names."""
    layout = given.get("layout") if isinstance(given, dict) else None
    return SOURCES[root][layout].table if isinstance(layout, str) and layout in SOURCES[root] else None


def _explain_one(found: ErrorDetails, data: dict[str, Any]) -> str:
    place = [str(part) for part in found["loc"]]
    if not place:  # what tables say to each other is no one key's
        return found["msg"].removeprefix("Value error, ")
    head, rest = place[0], place[1:]
    root, table = head, Recipe.model_fields[head].annotation if head in Recipe.model_fields else None
    if head in SOURCES:
        given: Any = data.get(root)
        if root == "foregrounds" and rest and rest.pop(0) == "several" and rest:
            given = given[int(rest[0])] if isinstance(given, list) else None
            head = f"{head}[{rest.pop(0)}]"
        table = _table_of(root, given) if rest else None
    model = table if isinstance(table, type) and issubclass(table, BaseModel) else Recipe
    # What follows the key is which member of a union or of a tuple pydantic was trying.
    key = ".".join([head, *rest[:1]] if model is not Recipe else [head])
    if found["type"] == "layout" or (key in SOURCES and found["type"] == "missing"):
        names = " | ".join(map(repr, SOURCES[root]))
        return f"{key}: expected a table with layout = {names} (found {found['input']!r})"
    return explain_finding(key, found, model.model_fields)
