"""Mattes: which picture goes with which alpha, in the trees of published data sets and in anybody's folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..base.errors import FileError
from ..base.file_names import file_name
from ..base.text import escape
from ..sources.listings import list_pictures
from ..sources.probe import ENDINGS

ALPHA_ENDINGS: Final = ("", "_alpha", "_matte", "_mask")  # of an alpha's name, after its picture's


@dataclass(frozen=True)
class Matte:
    """A picture and its alpha.

    Attributes
    ----------
    key : what to call it: the file to write below the output, without its ending; safe, and with forward slashes
    name : what to call the picture in messages; never an absolute path
    image : the picture's file
    alpha : its alpha's file; None where there is none
    own : its alpha is its own fourth channel
    """

    key: str
    name: str
    image: Path
    alpha: Path | None
    own: bool = False


@dataclass(frozen=True)
class Part:
    """A folder of a data set: where in its tree pictures and their alphas lie, and below what name to keep them."""

    images: str
    alphas: str
    keep: str


# As their authors' own code reads them, and as others describe the archives. The parts that are there are taken; of
# several that would be kept below one name, the first.
LAYOUTS: Final[dict[str, tuple[Part, ...]]] = {
    "aim500": (Part("original", "mask", ""), Part("validation/original", "validation/mask", "")),
    "am2k": (
        Part("train/original", "train/mask", "train"),
        Part("validation/original", "validation/mask", "validation"),
    ),
    "p3m10k": (
        Part("train/blurred_image", "train/mask", "train"),
        *(
            Part(f"validation/{part}/{pictures}", f"validation/{part}/mask", f"validation/{part}")
            for part in ("P3M-500-P", "P3M-500-NP")
            for pictures in ("original_image", "blurred_image")
        ),
        Part("validation1/blurred_image", "validation1/mask", "validation1"),
        Part("validation2/original_image", "validation2/mask", "validation2"),
    ),
    "ppm100": (
        Part("image", "matte", ""),
        Part("train/image", "train/matte", "train"),
        Part("val/image", "val/matte", "val"),
    ),
}


def list_mattes(pictures: Sequence[Path], alphas: Path | None = None, layout: str | None = None) -> list[Matte]:
    """List pictures with their alphas, sorted by key.

    Parameters
    ----------
    pictures : files and folders, which are searched recursively; with a layout the data set's folder, or several
    alphas : the folder of their alphas, which have the pictures' names, or those and ``_alpha``, ``_matte`` or
        ``_mask``; None where pictures carry their own
    layout : one of `LAYOUTS`

    Raises
    ------
    FileError : no picture, no alpha at all, two of one name, or another tree than the layout's
    PlanError : a folder is missing
    """
    if layout is None:
        found = list(_matched(pictures, alphas))
    else:
        found = [matte for root in pictures for matte in _of_layout(root, layout)]
    if not found:
        raise FileError(
            f"{', '.join(map(str, pictures))}: no picture was found ({', '.join(sorted(ENDINGS))} are looked for)"
        )
    if alphas is not None and not any(matte.alpha for matte in found):
        raise FileError(
            f"{alphas}: no picture has an alpha there (looked for {escape(Path(found[0].name).stem)}.png and the like)"
        )
    _refuse_clashes(found)
    return sorted(found, key=lambda matte: matte.key)


def _of_layout(root: Path, layout: str) -> Iterator[Matte]:
    parts: dict[str, Part] = {}
    for part in LAYOUTS[layout]:
        if (root / part.images).is_dir() and (root / part.alphas).is_dir():
            parts.setdefault(part.keep, part)
    if not parts:
        tried = "; ".join(f"{part.images} with {part.alphas}" for part in LAYOUTS[layout])
        raise FileError(
            f"{root}: expected {layout}'s folders ({tried}), found none of them; give the folder that holds them"
        )
    for part in parts.values():
        for matte in _matched([root / part.images], root / part.alphas):
            below = f"{part.keep}/" if part.keep else ""
            yield Matte(below + matte.key, f"{part.images}/{matte.name}", matte.image, matte.alpha)


def _matched(pictures: Sequence[Path], alphas: Path | None) -> Iterator[Matte]:
    known = {} if alphas is None else {_stem(name): alphas / name for name in list_pictures(alphas)}
    taken: set[Path] = set()
    listed = [(name, path, _alpha_of(name, path, known)) for place in pictures for name, path in _pictures(place)]
    taken = {alpha for _, _, alpha in listed if alpha is not None}
    for name, path, alpha in listed:
        if path not in taken:  # in one folder with the pictures, alphas are listed among them
            yield Matte(file_name(_stem(name)), name, path, alpha, own=alphas is None)


def _pictures(place: Path) -> list[tuple[str, Path]]:
    if place.is_file():
        return [(place.name, place)]
    return [(name, place / name) for name in list_pictures(place)]


def _alpha_of(name: str, picture: Path, known: dict[str, Path]) -> Path | None:
    found = (known.get(_stem(name) + ending) for ending in ALPHA_ENDINGS)
    return next((path for path in found if path is not None and path != picture), None)


def _refuse_clashes(mattes: list[Matte]) -> None:
    """Make sure that no two pictures get one file, also where a file system does not tell case apart."""
    names: dict[str, str] = {}
    for matte in mattes:
        other = names.setdefault(matte.key.casefold(), matte.name)
        if other is not matte.name:
            raise FileError(
                f"{escape(other)} and {escape(matte.name)} would both be written as {escape(matte.key)}.png;"
                " rename one, or extract them into folders of their own"
            )


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122  # names have forward slashes, whatever the system
