"""Cases: what a matte is graded on. A truth, mostly a trimap, and the image where mattes are still to be made."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol

from ...composer.base.arrays import UInt8Array
from ...composer.base.errors import FileError
from ...composer.dataset.dataset import Dataset, open_dataset
from ...composer.sources.image_io import picture_size, read_image
from ...composer.sources.mattes import read_matte, read_trimap
from ...composer.sources.probe import MAX_PIXELS
from ..inference.files import list_pictures

__all__ = ["Case", "DatasetCase", "FolderCase", "Material", "dataset_cases", "folder_cases"]

SHOWN = 8  # names listed in an error


@dataclass(frozen=True)
class Material:
    """What a case holds: truth (H, W) uint8, trimap (H, W) uint8 or None, image (H, W, 3) uint8 RGB or None."""

    truth: UInt8Array
    trimap: UInt8Array | None
    image: UInt8Array | None


class Case(Protocol):
    """One picture to be graded on; small, and safe to hand to another process."""

    @property
    def name(self) -> str:
        """The picture's name, unique among the cases."""

    @property
    def foreground(self) -> str:
        """The foreground's name: pictures that share one are not independent."""

    def load(self) -> Material:
        """Read it."""


@dataclass(frozen=True)
class FolderCase:
    """A case in files."""

    name: str
    foreground: str
    truth: Path
    trimap: Path | None
    image: Path | None

    def load(self) -> Material:
        """Read it. Raise SourceError where a file cannot be read."""
        truth, _ = read_matte(self.truth, self.truth.name, role="truth")
        trimap = read_trimap(self.trimap, self.trimap.name, truth.shape)[0] if self.trimap else None
        return Material(truth, trimap, read_image(self.image) if self.image else None)


@dataclass(frozen=True)
class DatasetCase:
    """A case in a dataset."""

    name: str
    foreground: str
    dataset: Path
    index: int

    def load(self) -> Material:
        """Read it. Raise DatasetError where the shard is damaged."""
        sample = _dataset(self.dataset)[self.index]
        return Material(sample.alpha, sample.trimap, sample.image)


def folder_cases(
    truths: Path, *, trimaps: Path | None, images: Path | None, predictions: Iterable[Path]
) -> list[FolderCase]:
    """Match the files of folders by their names without ending, strictly.

    The cases are the trimaps, or without them the images, or else the truths. A truth serves the case of its name, and
    those that add ``_`` and a number to it: Composition-1k has 50 truths for 1,000 trimaps ``{truth}_{0..19}``.

    Parameters
    ----------
    truths, trimaps, images : folders (or single pictures)
    predictions : folders that must hold one picture for each case, of the case's size, and no others

    Raises
    ------
    FileError : something is missing, extra, or of another size; the names are in the message
    """
    by_truth = list_pictures(truths)
    by_trimap = list_pictures(trimaps) if trimaps else {}
    by_image = list_pictures(images) if images else {}
    names = by_trimap or by_image or by_truth
    owners = {name: _owner(name, by_truth) for name in names}
    _require(truths, "truth for", [name for name, owner in owners.items() if owner is None])
    _require(truths, "case that uses truth", sorted(set(by_truth) - set(owners.values())), extra=True)
    if images:
        _require(images, "image for", [name for name in names if name not in by_image])
    folders = {folder: list_pictures(folder) for folder in predictions}
    for folder, found in folders.items():
        _require(folder, "prediction for", [name for name in names if name not in found])
        _require(folder, "case that expects prediction", [name for name in found if name not in names], extra=True)
    cases = [
        FolderCase(name, str(owner), by_truth[str(owner)], by_trimap.get(name), by_image.get(name))
        for name, owner in owners.items()
    ]
    for case in cases:
        others = [case.trimap, case.image, *(found[case.name] for found in folders.values())]
        _require_size(case.truth, [path for path in others if path])
    return cases


def dataset_cases(path: Path, split: Literal["auto", "train", "validation", "all"] = "auto") -> list[DatasetCase]:
    """List a dataset's composites.

    Parameters
    ----------
    path : the dataset's folder
    split : ``auto`` is validation where there is any, else all

    Raises
    ------
    DatasetError : it is no finished dataset
    FileError : the split is empty
    """
    dataset = _dataset(path)
    if split == "auto":
        split = "validation" if "validation" in dataset.splits else "all"
    numbers = dataset.numbers(None if split == "all" else split).tolist()
    rows = ((number, dataset.row(number)) for number in numbers)
    cases = [DatasetCase(row.key, row.foreground, path, number) for number, row in rows]
    if not cases:
        raise FileError(f"{path}: no composite is in the {split} split; give --split, or build with split.validation")
    return cases


@lru_cache(maxsize=4)
def _dataset(path: Path) -> Dataset:
    return open_dataset(path)


def _owner(name: str, truths: dict[str, Path]) -> str | None:
    if name in truths:
        return name
    stem = re.sub(r"_\d+$", "", name)
    return stem if stem in truths else None


def _require(folder: Path, what: str, names: list[str], *, extra: bool = False) -> None:
    """Refuse a folder with missing or extra pictures, by their names."""
    if names:
        more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
        advice = "remove the extra files" if extra else "pictures are matched by their names without ending"
        raise FileError(f"{folder}: no {what} {', '.join(names[:SHOWN])}{more}; {advice}")


def _require_size(truth: Path, others: list[Path]) -> None:
    size = picture_size(truth, truth.name, MAX_PIXELS)
    for path in others:
        found = picture_size(path, path.name, MAX_PIXELS)
        if found != size:
            raise FileError(
                f"{path}: {found[1]}×{found[0]} px, but its truth {truth.name} is {size[1]}×{size[0]} px;"
                " scores need pictures of one size"
            )
