"""Inputs: the pictures to extract, each with its alpha: in anybody's folders, and in published data sets' trees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..base.errors import FileError
from ..base.file_names import file_name
from ..base.text import escape
from ..sources.listings import list_place, log_passed_over
from ..sources.pairing import Pair, pair_alphas, require_alphas, stem
from ..sources.probe import ENDINGS


@dataclass(frozen=True)
class ExtractInput:
    """A picture and its alpha.

    Attributes
    ----------
    key : str
        What to call it: the file to write below the output, without its ending; safe, and with forward slashes.
    name : str
        What to call the picture in messages; never an absolute path.
    image : Path
        The picture's file.
    alpha : Path or None
        Its alpha's file; None where there is none.
    own : bool
        Whether its alpha is its own fourth channel.
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


def list_inputs(
    pictures: Sequence[Path], alphas: Path | None = None, layout: str | None = None, *, out: Path | None = None
) -> list[ExtractInput]:
    """List pictures with their alphas, sorted by key.

    Parameters
    ----------
    pictures : sequence of Path
        Files, and folders with all that lies below them; with a layout the data set's folder, or several.
    alphas : Path, optional
        The folder of their alphas, see `pairing`; without it pictures carry their own.
    layout : str, optional
        One of `LAYOUTS`.
    out : Path, optional
        Where cut-outs are written: what lies there is no input.

    Raises
    ------
    FileError
        No picture, two of one name, or another tree than the layout's.
    PlanError
        A folder is missing, no picture has an alpha, or one has two.
    """
    if layout is None:
        found = [one for place in pictures for one in _of_place(place, alphas, out)]
    else:
        found = [one for root in pictures for one in _of_layout(root, layout, out)]
    if alphas is not None:
        require_alphas(
            [Pair(one.name, str(one.alpha) if one.alpha else None) for one in found], _places(pictures), alphas
        )
    if not found:
        raise FileError(f"{_places(pictures)}: no picture was found ({', '.join(sorted(ENDINGS))} are looked for)")
    _refuse_clashes(found)
    return sorted(found, key=lambda one: one.key)


def _places(pictures: Sequence[Path]) -> str:
    return ", ".join(map(str, pictures))


def _of_layout(root: Path, layout: str, out: Path | None) -> Iterator[ExtractInput]:
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
        for one in _of_place(root / part.images, root / part.alphas, out):
            below = f"{part.keep}/" if part.keep else ""
            yield ExtractInput(below + one.key, f"{part.images}/{one.name}", one.image, one.alpha)


def _of_place(place: Path, alphas: Path | None, out: Path | None) -> Iterator[ExtractInput]:
    images = list_place(place, without=out)
    log_passed_over(images)
    if alphas is None:
        pairs, partners = [Pair(name, None) for name in images.names], images
    else:
        partners = list_place(alphas, without=out)
        pairs = pair_alphas(images, partners)
    for pair in pairs:
        alpha = None if pair.alpha is None else partners.path(pair.alpha)
        yield ExtractInput(file_name(stem(pair.image)), pair.image, images.path(pair.image), alpha, alphas is None)


def _refuse_clashes(inputs: Sequence[ExtractInput]) -> None:
    """Make sure that no two pictures get one file, also where a file system does not tell case apart."""
    names: dict[str, str] = {}
    for one in inputs:
        other = names.setdefault(one.key.casefold(), one.name)
        if other is not one.name:
            raise FileError(
                f"{escape(other)} and {escape(one.name)} would both be written as {escape(one.key)}.png; rename one,"
                " or extract them into folders of their own"
            )
