"""Documents: a dataset's JSON files as typed values. They are untrusted: each is checked before it is used.

What is checked is the shape, not the truth: whether they agree with each other and with the shards, `verify` says.
"""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from ..base.errors import DatasetError
from ..base.files import parse_json, read_document, write_json

INDEX = "dataset.json"


FORMAT: Final = "matting-compose/dataset"


VERSION = 2  # the newest that is read: see `rows`


MOST_COMPOSITES = 2**28  # of a dataset; readers make room for a number each


WAY_OUT = "run the build again to restore it"


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _check_shard_name(name: str) -> str:
    if not SHARD_NAME.fullmatch(name):
        raise ValueError(f"'{name}' is no shard's name; a shard lies in the dataset's own folder")
    return name


SHARD_NAME = re.compile(r"shard-[0-9]{5,9}\.h5")


ShardName = Annotated[str, AfterValidator(_check_shard_name)]


Split = Literal["train", "validation"]


class Document(BaseModel):
    """Strict about what it knows, and indifferent to what a later writer may add."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, defer_build=True)  # most readers need but two


Model = TypeVar("Model", bound=Document)


class FailureRecord(Document):
    """A composite that could not be made: its key, the picture at fault, a countable word, and the details."""

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


def record_input(data: bytes) -> InputRecord:
    """Record a file by what was read of it."""
    return InputRecord(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


class Sidecar(Document):
    """What lies beside a shard: the index's record of it, and what it was made from."""

    file: ShardName
    plan_sha256: Sha256
    index: NonNegativeInt
    split: Split
    composites: NonNegativeInt
    bytes: NonNegativeInt
    sha256: Sha256
    inputs: dict[str, InputRecord]
    failures: list[FailureRecord]
    made_with: dict[str, str] = {}  # libraries' versions; those of early builds do not say

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

    method: str


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

    format: Literal["matting-compose/dataset"] = FORMAT
    version: PositiveInt = 1
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

    @model_validator(mode="after")
    def _check(self) -> Index:
        if len({shard.file for shard in self.shards}) < len(self.shards):
            raise ValueError("a shard is listed twice")
        if (total := sum(shard.composites for shard in self.shards)) > MOST_COMPOSITES:
            raise ValueError(f"it lists {total:,} composites")
        return self

    @cached_property
    def settings(self) -> Settings:
        """The recipe's keys that looking at a dataset needs."""
        return Settings.model_validate(self.recipe)


def load_index(folder: Path) -> Index:
    """Read and check a dataset's index.

    Parameters
    ----------
    folder : Path
        The dataset's, as `resolve_path` gives it.

    Raises
    ------
    DatasetError
        The folder holds no dataset, an unfinished one, one of a newer version, or a damaged index.
    """
    path = folder / INDEX
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise DatasetError(f"{folder}: expected a dataset's folder, found {found}")
    if not path.exists():
        unfinished = (folder / "plan.json").exists()
        way_out = "run the same build again to finish it" if unfinished else f"it has no {INDEX}"
        raise DatasetError(f"{folder}: {'an unfinished dataset' if unfinished else 'no dataset'}: {way_out}")
    document = read_json_object(path, WAY_OUT)
    if document.get("format") != FORMAT:
        raise DatasetError(f"{path}: not a dataset's index")
    version = document.get("version")
    if isinstance(version, int) and version > VERSION:
        raise DatasetError(f"{folder}: of format version {version}; this program reads up to {VERSION}: update it")
    index = parse_document(Index, document, path, WAY_OUT)
    parse_document(Settings, index.recipe, path, WAY_OUT)
    return index


def load_sidecar(path: Path) -> Sidecar:
    """Read and check a shard's sidecar.

    Raises
    ------
    DatasetError
        It is missing or damaged.
    """
    way_out = "build again to render the shard anew"
    return parse_document(Sidecar, read_json_object(path, way_out), path, way_out)


def write_document(path: Path, document: Document) -> None:
    """Write a document whole or not at all, and durably; its keys in the order of its fields.

    Raises
    ------
    BuildError
        It cannot be written; what was there before is still there.
    """
    write_json(path, document.model_dump(mode="json"))


def read_json_object(path: Path, way_out: str) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises
    ------
    DatasetError
        It is missing, no JSON, or something else; the message ends in the way out.
    """
    try:
        value = parse_json(read_document(path))
    except FileNotFoundError:
        raise DatasetError(f"{path}: missing; {way_out}") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error})") from None
    except ValueError as error:
        raise DatasetError(f"{path}: damaged, cannot be read ({error}); {way_out}") from None
    if not isinstance(value, dict):
        raise DatasetError(f"{path}: expected a JSON object, found {type(value).__name__}; {way_out}")
    return value


def parse_document(model: type[Model], document: dict[str, Any], path: Path, way_out: str) -> Model:
    """Check a document's shape.

    Raises
    ------
    DatasetError
        With the first thing that is wrong, and the way out.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise DatasetError(f"{path}: damaged ({describe_first(error)}); {way_out}") from None


def describe_first(error: ValidationError) -> str:
    """Describe pydantic's first finding in a line: the key, and what is wrong with it."""
    found = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in found["loc"])
    return f"{key or 'it'}: {found['msg'].removeprefix('Value error, ')}"
