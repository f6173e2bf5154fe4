"""Cases: what a matte is graded on. A truth, mostly a trimap, and the image where mattes are still to be made."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, Protocol

from ...composer.base.arrays import UInt8Array
from ...composer.base.errors import FileError, SourceError
from ...composer.base.text import list_briefly
from ...composer.dataset.dataset import Dataset, open_dataset
from ...composer.sources.image_io import picture_size, read_image
from ...composer.sources.listings import Listing, list_place, log_passed_over
from ...composer.sources.mattes import read_matte, read_trimap
from ...composer.sources.pairing import (
    ALPHA_SUFFIXES,
    NUMBER,
    TRIMAP_SUFFIXES,
    find_partner,
    index_names,
    match_key,
    pair_alphas,
)
from ...composer.sources.probe import MAX_PIXELS
from ..inference.predict_files import PRODUCTS

__all__ = ["Case", "CasePictures", "DatasetCase", "FolderCase", "dataset_cases", "folder_cases"]

SHOWN: Final = 8  # names listed in an error


SUFFIX: Final = re.compile("(" + "|".join({*ALPHA_SUFFIXES, *TRIMAP_SUFFIXES} - {""}) + ")$")


@dataclass(frozen=True)
class CasePictures:
    """What a case holds.

    Attributes
    ----------
    truth : (H, W) uint8
        0 clear .. 255 opaque.
    trimap : (H, W) uint8, optional
        0 background, 128 unknown, 255 foreground.
    image : (H, W, 3) uint8 RGB, optional
    """

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

    @property
    def has_trimap(self) -> bool:
        """Whether it can be graded over its unknown region."""

    @property
    def has_image(self) -> bool:
        """Whether a matte can be made of it."""

    @property
    def predictions(self) -> Sequence[Path]:
        """Files of mattes that others made."""

    def load(self) -> CasePictures:
        """Read it."""


@dataclass(frozen=True)
class FolderCase:
    """A case in files."""

    name: str
    foreground: str
    truth: Path
    trimap: Path | None
    image: Path | None
    predictions: tuple[Path, ...] = ()

    @property
    def has_trimap(self) -> bool:
        """See `Case`."""
        return self.trimap is not None

    @property
    def has_image(self) -> bool:
        """See `Case`."""
        return self.image is not None

    def load(self) -> CasePictures:
        """Read it. Raise SourceError where a file cannot be read, or is no trimap."""
        truth, _ = read_matte(self.truth, self.truth.name, role="truth")
        trimap = read_trimap(self.trimap, self.trimap.name, truth.shape)[0] if self.trimap else None
        return CasePictures(truth, trimap, read_image(self.image) if self.image else None)


@dataclass(frozen=True)
class DatasetCase:
    """A case in a dataset."""

    name: str
    foreground: str
    dataset: Path
    index: int
    has_trimap: bool = True
    has_image: bool = True
    predictions: tuple[Path, ...] = ()

    def load(self) -> CasePictures:
        """Read it. Raise DatasetError where the shard is damaged."""
        sample = _dataset(self.dataset)[self.index]
        return CasePictures(sample.alpha, sample.trimap, sample.image)


def folder_cases(
    truths: Path, *, trimaps: Path | None, images: Path | None, predictions: Sequence[Path]
) -> list[FolderCase]:
    """Match the files of folders and of those below them by their names without ending, strictly.

    The cases are the trimaps, or without them the images, or else the truths. A truth serves the case of its name, and
    those that add ``_`` and a number to it: Composition-1k has 50 truths for 1,000 trimaps ``{truth}_{0..19}``. Names
    may add ``_alpha``, ``_matte``, ``_mask`` or ``_trimap``, see `pairing`.

    Parameters
    ----------
    truths, trimaps, images : Path
        Folders (or single pictures).
    predictions : sequence of Path
        Folders that must hold one picture for each case, of the case's size, and no others but what matting-predict
        writes beside its alphas.

    Raises
    ------
    FileError, PlanError
        Something is missing, extra, or of another size; the names are in the message.
    """
    listings = {place: list_place(place) for place in (truths, trimaps, images, *predictions) if place}
    log_passed_over(*listings.values())
    by_truth = index_names(listings[truths])
    names = _case_names(listings, trimaps or images or truths, truths)
    owners = {name: _find_truth(name, by_truth, names) for name in names}
    _require(truths, "truth for", [name for name, owner in owners.items() if owner is None])
    unused = [key for key, name in by_truth.items() if name not in owners.values()]
    _require(truths, "case that uses truth", [] if truths == images else unused, extra=True)
    trimap_of = _match(listings[trimaps], names, "trimap") if trimaps else {}
    image_of = _match(listings[images], names, "image") if images else {}
    matched = [_match(listings[folder], names, "prediction", only=True) for folder in predictions]
    truth_of = {name: listings[truths].path(str(owner)) for name, owner in owners.items()}
    for folder, found in zip(predictions, matched, strict=True):
        if same := [name for name in names if found[name].resolve() == truth_of[name].resolve()]:
            raise FileError(f"{folder}: its predictions are the truths themselves ({list_briefly(same, SHOWN)})")
    cases = [
        FolderCase(
            name,
            match_key(str(owners[name])),
            truth_of[name],
            trimap_of.get(name),
            image_of.get(name),
            tuple(found[name] for found in matched),
        )
        for name in names
    ]
    for case in cases:
        _require_size(case)
    return cases


def dataset_cases(path: Path, split: Literal["auto", "train", "validation", "all"] = "auto") -> list[DatasetCase]:
    """List a dataset's composites.

    Parameters
    ----------
    path : Path
        The dataset's folder.
    split : {"auto", "train", "validation", "all"}
        ``auto`` is validation where there is any, else all.

    Raises
    ------
    DatasetError
        It is no finished dataset.
    FileError
        The split is empty.
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


def _case_names(listings: Mapping[Path, Listing], cases: Path, truths: Path) -> list[str]:
    """Name the cases after the files that they are; where truths lie among these, they are none."""
    if cases == truths:
        names = list(index_names(listings[truths]))
    else:
        names = [match_key(pair.image) for pair in pair_alphas(listings[cases], listings[truths])]
    if not names:
        raise FileError(f"{cases}: expected pictures, found none")
    return list(dict.fromkeys(names))


def _find(name: str, index: Mapping[str, str], cases: Container[str]) -> str | None:
    """Find a case's file: under its name and a suffix, or, where that is no other case's, without its own suffix."""
    suffixes = tuple(dict.fromkeys((*ALPHA_SUFFIXES, *TRIMAP_SUFFIXES)))
    base = SUFFIX.sub("", name)
    own = find_partner(name, index, suffixes)
    return own if own or base in cases else find_partner(base, index, suffixes)


def _find_truth(name: str, truths: Mapping[str, str], cases: Container[str]) -> str | None:
    return _find(name, truths, cases) or _find(NUMBER.sub("", SUFFIX.sub("", name)), truths, ())


def _match(listing: Listing, names: Sequence[str], what: str, *, only: bool = False) -> dict[str, Path]:
    """Find each case's file in a folder; with `only`, refuse others, but for what was written beside alphas."""
    index, cases = index_names(listing), set(names)
    found = {name: _find(name, index, cases) for name in names}
    _require(listing.root, f"{what} for", [name for name, file in found.items() if file is None])
    if only:
        used = set(found.values())
        extra = [key for key, file in index.items() if file not in used and not _is_product(key, index)]
        _require(listing.root, f"case that expects {what}", extra, extra=True)
    return {name: listing.path(str(file)) for name, file in found.items()}


def _is_product(key: str, index: Mapping[str, str]) -> bool:
    """Tell whether a file is none of the alphas in matting-predict's output, but was written beside one."""
    kind, _, rest = key.partition("/")
    return kind in PRODUCTS and rest in index


def _require(folder: Path, what: str, names: Iterable[str], *, extra: bool = False) -> None:
    """Refuse a folder with missing or extra pictures, by their names."""
    if names := list(names):
        advice = "remove the extra files" if extra else "pictures are matched by their names without ending"
        raise FileError(f"{folder}: no {what} {list_briefly(names, SHOWN)}; {advice}")


def _require_size(case: FolderCase) -> None:
    """Refuse a case whose pictures differ in size; one that cannot be read fails when it is graded."""
    try:
        size = picture_size(case.truth, case.truth.name, MAX_PIXELS)
        others = [path for path in (case.trimap, case.image, *case.predictions) if path]
        for path in others:
            found = picture_size(path, path.name, MAX_PIXELS)
            if found != size:
                raise FileError(
                    f"{path}: {found[1]}×{found[0]} px, but its truth {case.truth.name} is {size[1]}×{size[0]} px;"
                    " scores need pictures of one size"
                )
    except SourceError:
        return
