"""Corpus: pictures that anyone may have, and the packages they come in. Two tables, and what a folder has of them.

``NAME.csv`` has a row per picture, ``NAME-packages.csv`` a row per package; both pin SHA-256 sums.
Nothing is fetched here.
"""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from ..base.errors import FileError
from ..base.files import file_sha256, read_document
from ..base.settings import explain_finding
from ..base.text import did_you_mean

FOLDERS = ("cutouts", "photographs")


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Package(_Row):
    """A Debian package that pictures come from.

    Attributes
    ----------
    name, version : str
        As Debian has them; another version will do where its pictures are the same.
    bytes : int
        Of the package's file of that version.
    sha256 : str
        Of the same file, hex.
    address : str
        Where Debian's mirrors keep it, below their root.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+-]+$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9.+:~-]+$")]
    bytes: PositiveInt
    sha256: Sha256
    address: str


class Picture(_Row):
    """A picture of a corpus.

    Attributes
    ----------
    name : str
        Its place in the fetched folder, ``cutouts/…`` or ``photographs/…``.
    package, path : str
        Where it comes from.
    bytes : int
        Of its file.
    sha256 : str
        Of its file, hex.
    width, height : int
        In px.
    soft : float
        Share of a cut-out's visible pixels that are neither clear nor opaque to within 5 %; 0 for photographs.
    licence, attribution : str
        As the package states them.
    split : {"train", "validation", "background"}
        ``train`` or ``validation``; ``background`` for photographs.
    """

    name: Annotated[str, Field(pattern=r"^(cutouts|photographs)/[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    package: str
    path: str
    bytes: Annotated[int, Field(gt=0, le=64 * 2**20)]  # a bound on memory; the largest picture has 4 MB
    sha256: Sha256
    width: PositiveInt
    height: PositiveInt
    soft: Annotated[float, Field(ge=0, le=1)]
    licence: str
    attribution: str
    split: Literal["train", "validation", "background"]


class Corpus(BaseModel):
    """Both tables, read and checked; `table` is the text of the pictures' one."""

    model_config = ConfigDict(frozen=True)

    name: str
    packages: tuple[Package, ...]
    pictures: tuple[Picture, ...]
    table: str


def list_corpora() -> list[str]:
    """Name the corpora that come with matting-compose, sorted."""
    names = [item.name for item in resources.files("matting_compose.manifests").iterdir()]
    return sorted(name.removesuffix("-packages.csv") for name in names if name.endswith("-packages.csv"))


def load_corpus(name: str) -> Corpus:
    """Read a corpus: a shipped one by its name, or one's own by the path of its table of pictures, ``NAME.csv``.

    Raises
    ------
    FileError
        No such corpus, or a row that cannot be used, with its line.
    """
    if name.endswith(".csv"):
        stem = name.removesuffix(".csv")
        first, second = _read(Path(f"{stem}.csv")), _read(Path(f"{stem}-packages.csv"))
    elif name in list_corpora():
        stem, folder = name, resources.files("matting_compose.manifests")
        first, second = (folder.joinpath(f"{name}{end}.csv").read_text(encoding="utf-8") for end in ("", "-packages"))
    else:
        known = list_corpora()
        raise FileError(
            f"no corpus is called '{name}'; {did_you_mean(name, known)}shipped are {', '.join(known)};"
            " a table's name ends in .csv"
        )
    pictures = _parse_rows(first, f"{stem}.csv", Picture)
    packages = _parse_rows(second, f"{stem}-packages.csv", Package)
    if len({picture.name for picture in pictures}) < len(pictures):
        raise FileError(f"{stem}.csv: two pictures have one name")
    if unknown := {picture.package for picture in pictures} - {package.name for package in packages}:
        raise FileError(f"{stem}-packages.csv: no row for {', '.join(sorted(unknown))}")
    return Corpus(name=Path(stem).name, packages=packages, pictures=pictures, table=first)


def find_missing(corpus: Corpus, out: Path) -> list[Picture]:
    """List the pictures that a folder has not, or with another content.

    Raises
    ------
    FileError
        A file cannot be read.
    """
    return [picture for picture in corpus.pictures if not _is_whole(out / picture.name, picture)]


def find_strays(corpus: Corpus, out: Path) -> list[str]:
    """Name what lies among a corpus' pictures and is none of them: a build would take it for one."""
    names = {picture.name for picture in corpus.pictures}
    found = [path.relative_to(out).as_posix() for folder in FOLDERS for path in sorted((out / folder).rglob("*"))]
    return [name for name in found if name not in names]


def _is_whole(path: Path, picture: Picture) -> bool:
    try:
        unlike = path.is_symlink() or path.stat().st_size != picture.bytes
        return not unlike and file_sha256(path) == picture.sha256
    except FileNotFoundError:
        return False
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from None


def _read(path: Path) -> str:
    try:
        return read_document(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: expected a corpus' table: {error}") from None


Row = TypeVar("Row", Package, Picture)


def _parse_rows(text: str, place: str, model: type[Row]) -> tuple[Row, ...]:
    rows: list[Row] = []
    try:
        for values in csv.DictReader(text.splitlines()):
            rows.append(model.model_validate(values))
    except csv.Error as error:
        raise FileError(f"{place}, line {len(rows) + 2}: {error}") from None
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        key = ".".join(map(str, found["loc"]))
        raise FileError(f"{place}, line {len(rows) + 2}: {explain_finding(key, found, model.model_fields)}") from None
    if not rows:
        raise FileError(f"{place}: the table has no rows")
    return tuple(rows)
