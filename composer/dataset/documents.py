"""Documents: a dataset's JSON files as typed values. They are untrusted: each is checked before it is used.

What is checked is the shape, not the truth: whether they agree with each other and with the shards, `verify` says.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from ..base.errors import DatasetError

INDEX = "dataset.json"


FORMAT = "matting-compose/dataset"


VERSION = 1


FIELDS = {"version": int, "plan_sha256": str, "recipe": dict, "shards": list, "failures": list}  # that readers need


def expect_type(value: object, kind: type, name: str) -> None:
    """Raise TypeError where a value is not exactly of a type."""
    if type(value) is not kind:
        raise TypeError(f"{name}: expected {kind.__name__}, found {type(value).__name__}")


def read_index(path: Path) -> dict[str, Any]:
    """Read and check a dataset's index.

    Raises
    ------
    DatasetError : as `open_dataset`
    """
    if not path.is_dir():
        raise DatasetError(f"{path}: expected a dataset's folder, found {'a file' if path.exists() else 'nothing'}")
    try:
        index = json.loads((path / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        unfinished = (path / "plan.json").exists()
        way_out = "run the same build again to finish it" if unfinished else f"it has no {INDEX}"
        raise DatasetError(f"{path}: {'an unfinished dataset' if unfinished else 'no dataset'}: {way_out}") from None
    except OSError as error:
        raise DatasetError(f"{path / INDEX}: cannot be read ({error})") from None
    except (ValueError, RecursionError) as error:
        reason = f"damaged, cannot be read ({error})"
        raise DatasetError(f"{path / INDEX}: {reason}; run the build again to restore it") from None
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise DatasetError(f"{path / INDEX}: not a dataset's index")
    version = index.get("version")
    if isinstance(version, int) and version > VERSION:
        raise DatasetError(f"{path}: of format version {version}; this program reads up to {VERSION}: update it")
    try:
        for name, kind in FIELDS.items():
            expect_type(index.get(name), kind, name)
        expect_type(index["recipe"].get("shards"), dict, "recipe.shards")
        expect_type(index["recipe"]["shards"].get("background"), str, "recipe.shards.background")
    except TypeError as error:
        raise DatasetError(f"{path / INDEX}: damaged ({error}); run the build again to restore it") from None
    return index


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


ShardName = Annotated[str, Field(pattern=r"^shard-[0-9]{5,9}\.h5$")]


Split = Literal["train", "validation"]


class Document(BaseModel):
    """Strict about what it knows, and indifferent to what a later writer may add."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


Model = TypeVar("Model", bound=Document)


class FailureRecord(Document):
    """A composite that could not be made: see `render.Failure`."""

    key: str
    source: str
    cause: str
    detail: str


class ExcludedRecord(Document):
    """A picture that was left out on purpose."""

    source: str
    reason: str


class ShardRecord(Document):
    """A shard as the index lists it."""

    file: ShardName
    index: NonNegativeInt
    split: Split
    composites: NonNegativeInt
    bytes: NonNegativeInt
    sha256: Sha256


class InputRecord(Document):
    """A file that a shard was made from."""

    bytes: NonNegativeInt
    sha256: Sha256


class Sidecar(ShardRecord):
    """What lies beside a shard: the index's line, and what it was made from."""

    plan_sha256: Sha256
    inputs: dict[str, InputRecord]
    failures: list[FailureRecord]

    def record(self) -> ShardRecord:
        """Return what of it the index repeats."""
        return ShardRecord(**{name: getattr(self, name) for name in ShardRecord.model_fields})


class TrimapSettings(Document):
    """What of a recipe's trimaps can be checked in a finished dataset."""

    strategy: str
    opaque: Annotated[int, Field(ge=1, le=255)]
    clear: Annotated[int, Field(ge=0, le=254)]


class FitSettings(Document):
    """How a recipe blends."""

    method: Literal["exact", "adobe"]


class ShardSettings(Document):
    """How a recipe stores composites."""

    packing: str
    background: Literal["none", "unknown", "full"]


class Settings(Document):
    """The keys of a dataset's recipe that looking at it needs; others may be newer than this program."""

    seed: NonNegativeInt
    variants: PositiveInt
    fit: FitSettings
    trimap: TrimapSettings
    shards: ShardSettings


class Index(Document):
    """A dataset's index, `dataset.json`."""

    version: PositiveInt
    plan_sha256: Sha256
    composites: NonNegativeInt
    planned: NonNegativeInt
    foregrounds: NonNegativeInt
    backgrounds: NonNegativeInt
    bytes: NonNegativeInt
    recipe: dict[str, Any]
    shards: list[ShardRecord]
    failures: list[FailureRecord]
    excluded: list[ExcludedRecord]
    made_with: dict[str, str]

    @property
    def settings(self) -> Settings:
        """The recipe's keys that are looked at."""
        return Settings.model_validate(self.recipe)


def load_index(folder: Path) -> Index:
    """Read a dataset's index.

    Raises
    ------
    DatasetError : the folder holds no dataset, an unfinished one, one of a newer version, or a damaged index
    """
    try:
        document = read_index(folder)
    except (KeyError, TypeError, RecursionError) as error:
        raise DatasetError(f"{folder / INDEX}: damaged ({error!r}); run the build again to restore it") from None
    index = validated(Index, document, folder / INDEX, "run the build again to restore it")
    validated(Settings, index.recipe, folder / INDEX, "run the build again to restore it")
    names = [shard.file for shard in index.shards]
    if len(set(names)) < len(names):
        raise DatasetError(f"{folder / INDEX}: damaged (a shard is listed twice); run the build again to restore it")
    if index.version != VERSION:
        raise DatasetError(f"{folder / INDEX}: of version {index.version}; this program knows version {VERSION}")
    return index


def load_sidecar(path: Path) -> Sidecar:
    """Read a shard's sidecar.

    Raises
    ------
    DatasetError : it is missing or damaged
    """
    return validated(Sidecar, read_json_object(path), path, "build again to render the shard anew")


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object. Raise DatasetError where it does not."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DatasetError(f"{path}: missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: cannot be read ({error})") from None
    if not isinstance(value, dict):
        raise DatasetError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def validated(model: type[Model], document: dict[str, Any], path: Path, way_out: str) -> Model:
    """Check a document's shape. Raise DatasetError, with what is wrong and the way out."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise DatasetError(f"{path}: damaged ({first_finding(error)}); {way_out}") from None


def first_finding(error: ValidationError) -> str:
    """Say pydantic's first finding in a line."""
    found = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in found["loc"])
    return f"{place or 'it'}: {found['msg']}"
