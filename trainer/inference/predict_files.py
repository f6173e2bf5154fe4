"""Predict files: pictures from their files to their mattes, and whatever else is wanted of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...composer.base.arrays import UInt8Array
from ...composer.base.errors import FileError, MattingComposeError, SourceError, describe_error
from ...composer.base.files import refuse_replacing, share_folder
from ...composer.extraction.foreground import pymatting
from ...composer.sources.image_io import read_image, read_image_alpha, write_picture
from ...composer.sources.listings import Listing, list_place, log_passed_over
from ...composer.sources.mattes import read_matte, read_trimap
from ...composer.sources.pairing import (
    ALPHA_SUFFIXES,
    NUMBER,
    TRIMAP_SUFFIXES,
    Pair,
    find_partner,
    index_names,
    match_key,
    pair_alphas,
    stem,
)
from .cutout import estimate_foreground, on_background, panel, segmented
from .methods import MatteOptions, finds_trimaps, make_automatic, make_matte, prepare, to_bytes
from .user_trimaps import RADIUS, trimap_from_alpha

__all__ = ["PRODUCTS", "PredictOptions", "PredictTask", "TaskResult", "plan_tasks", "prepare_all", "run_tasks"]

Result = TypeVar("Result")


Product = Literal["trimap", "cutout", "composite", "panel"]


PRODUCTS: Final[dict[Product, str]] = {"trimap": ".png", "cutout": ".png", "composite": ".png", "panel": ".jpg"}


@dataclass(frozen=True)
class PredictOptions:
    """What is to be made of each picture.

    Attributes
    ----------
    method : str
        One of `methods.METHODS`.
    matte : MatteOptions
        How mattes are made.
    bits : int
        8 or 16, of the alpha's file.
    radius : float
        Of trimaps drawn from masks, see `user_trimaps.trimap_from_alpha`.
    trimap, cutout, panel : bool
        Also write the trimap that was used; an RGBA with the foreground's estimated colours; all of it side by side.
    background : (h, w, 3) uint8 RGB, optional
        Also write the foreground over this picture.
    """

    method: str = "network"
    matte: MatteOptions = field(default_factory=MatteOptions)
    bits: int = 8
    radius: float = RADIUS
    trimap: bool = False
    cutout: bool = False
    background: UInt8Array | None = None
    panel: bool = False

    @property
    def products(self) -> list[Product]:
        """What is written beside the alpha."""
        wanted = {
            "trimap": self.trimap,
            "cutout": self.cutout,
            "composite": self.background is not None,
            "panel": self.panel,
        }
        return [kind for kind in PRODUCTS if wanted[kind]]


@dataclass(frozen=True)
class PredictTask:
    """One picture's files: the image, its trimap or else a mask (or neither: its own alpha), and the alpha to write.

    Other products lie in folders of their own where a folder is written, else beside the alpha with their kind in
    their name.
    """

    image: Path
    trimap: Path | None
    mask: Path | None
    out: Path
    folder: Path | None

    def product(self, kind: Product) -> Path:
        """Return the file for a product."""
        if self.folder is None:
            return self.out.with_name(f"{self.out.stem}-{kind}{PRODUCTS[kind]}")
        return (self.folder / kind / self.out.relative_to(self.folder)).with_suffix(PRODUCTS[kind])

    def outputs(self, kinds: Sequence[Product]) -> list[Path]:
        """Return all files that are written."""
        return [self.out, *map(self.product, kinds)]


_Source = tuple[UInt8Array, UInt8Array | None, list[str]]  # an image, its trimap unless it is to be found, warnings


@dataclass(frozen=True)
class _Made:
    """What is to be written of one picture, and warnings."""

    files: dict[Path, NDArray[np.uint8] | NDArray[np.uint16]]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class TaskResult:
    """What became of one picture: warnings for the person at the keyboard, and why there is no matte, if so."""

    warnings: tuple[str, ...] = ()
    error: str | None = None


def plan_tasks(
    images: Sequence[Path],
    trimap: Path | None,
    mask: Path | None,
    out: Path,
    options: PredictOptions,
    others: Sequence[Path] = (),
) -> list[PredictTask]:
    """Match images, trimaps or masks, and results by their names without ending, see `pairing`.

    Parameters
    ----------
    images : sequence of Path
        Pictures, and folders with all that lies below them, but for what lies in `out`.
    trimap, mask : Path, optional
        A picture for a single image, else a folder.
    out : Path
        A .png file for a single image, else a folder, which gets the images' subfolders.
    options : PredictOptions
    others : sequence of Path
        What else is read, and must not be written over.

    Raises
    ------
    FileError, PlanError
        A companion is missing, names clash, or a result would replace an input or another result.
    """
    listings = [list_place(place, without=out) for place in images]
    log_passed_over(*listings)
    if not any(listing.names for listing in listings):
        raise FileError(f"{', '.join(map(str, images))}: expected pictures, found none")
    single = sum(len(listing.names) for listing in listings) == 1
    in_folder = _check_out(out, single, sum(len(listing.names) for listing in listings))
    suffixes = TRIMAP_SUFFIXES if trimap else ALPHA_SUFFIXES
    tasks: dict[str, PredictTask] = {}
    for image, companion, key in _pairs(listings, trimap or mask, suffixes, single):
        if key in tasks:
            raise FileError(f"{tasks[key].image} and {image} would write the same result; matte them one by one")
        alpha = out / f"{key}.png" if in_folder else out
        given, rough = (companion, None) if trimap else (None, companion)
        tasks[key] = PredictTask(image, given, rough, alpha, out if in_folder else None)
    _refuse_overwriting(list(tasks.values()), options.products, others)
    return list(tasks.values())


def prepare_all(options: PredictOptions, tasks: Sequence[PredictTask]) -> None:
    """Load what all pictures need and see that results can be written, before the first is read.

    Raises
    ------
    MattingComposeError
        The checkpoint or device cannot be used, a package is missing, or nothing can be written.
    """
    prepare(options.method, options.matte)
    if {"cutout", "composite", "panel"} & set(options.products):
        pymatting()
    folder = _root(tasks)
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise FileError(f"{folder}: results cannot be written there; choose another -o")


def run_tasks(tasks: Sequence[PredictTask], options: PredictOptions) -> Iterator[TaskResult]:
    """Matte pictures one after the other and write what is wanted; yield what became of each.

    The next is read, and the last one written, while one is matted: three are held at most. What goes wrong is the
    picture's own, and told.
    """
    results = [path for task in tasks for path in task.outputs(options.products)]
    with share_folder(_root(tasks), results), ThreadPoolExecutor(1) as reading, ThreadPoolExecutor(1) as writing:
        sources = (reading.submit(_read, task, options) for task in tasks)
        ahead = next(sources, None)
        last: Future[TaskResult] | None = None
        for task in tasks:
            source, ahead = ahead, next(sources, None)
            made = _attempt(task, _make, task, options, source)
            if last is not None:
                yield last.result()
            last = writing.submit(_attempt, task, _write, made)
        if last is not None:
            yield last.result()


def _root(tasks: Sequence[PredictTask]) -> Path:
    """Return the folder in which, and below which, all results go."""
    return tasks[0].folder or tasks[0].out.parent


def _attempt(task: PredictTask, function: Callable[..., Result], *arguments: Any) -> Result | TaskResult:
    try:
        return function(*arguments)
    except Exception as error:  # of a library, too: the other pictures are none of its business
        text = describe_error(error)
        return TaskResult(error=text if isinstance(error, MattingComposeError) else f"{task.image.name}: {text}")


def _check_out(out: Path, single: bool, count: int) -> bool:
    """Tell whether results go into a folder."""
    in_folder = not (single and out.suffix)
    if in_folder and out.suffix.lower() == ".png":
        raise FileError(f"{out}: {count} images were given, so -o must be a folder")
    if not in_folder and out.suffix.lower() != ".png":
        raise FileError(f"{out}: an alpha is written as .png; other formats lose levels or are not read elsewhere")
    return in_folder


def _pairs(
    listings: Sequence[Listing], companions: Path | None, suffixes: Sequence[str], single: bool
) -> Iterator[tuple[Path, Path | None, str]]:
    """Yield images with their companions, and what to call their results."""
    if companions is not None and not companions.is_dir() and not (single and companions.is_file()):
        count = sum(len(listing.names) for listing in listings)
        given = f"{count} images need a folder of them" if companions.exists() else "found nothing"
        raise FileError(f"{companions}: expected a trimap or mask; {given}")
    partners = list_place(companions) if companions is not None and companions.is_dir() else None
    for listing in listings:
        if partners is None:
            index_names(listing)  # two pictures would be written as one
            yield from ((listing.path(name), companions, stem(name)) for name in listing.names)
            continue
        for pair in _pair_composites(pair_alphas(listing, partners, suffixes), partners, suffixes):
            image, name = listing.path(pair.image), stem(pair.image)
            if pair.alpha is None:
                raise FileError(f"{companions}: no picture is called '{name}', for {image}; they are matched by name")
            yield image, partners.path(pair.alpha), name


def _pair_composites(pairs: Sequence[Pair], partners: Listing, suffixes: Sequence[str]) -> Iterator[Pair]:
    """Pair also what is called as its foreground and a number, unless a picture is called as that foreground."""
    names = {match_key(pair.image) for pair in pairs}
    index = {match_key(name): name for name in partners.names}
    for pair in pairs:
        foreground = NUMBER.sub("", match_key(pair.image))
        found = pair.alpha or (find_partner(foreground, index, suffixes) if foreground not in names else None)
        yield Pair(pair.image, found)


def _refuse_overwriting(tasks: Sequence[PredictTask], kinds: Sequence[Product], others: Sequence[Path]) -> None:
    """Make sure that no result replaces an input or another result."""
    given = [path for task in tasks for path in (task.image, task.trimap, task.mask) if path]
    results = [path for task in tasks for path in task.outputs(kinds)]
    refuse_replacing(results, [*given, *others])
    found = Counter(path.resolve() for path in results)
    if twice := next((path for path in results if found[path.resolve()] > 1), None):
        raise FileError(f"{twice}: two results would be written there; matte the folders one by one")


def _make(task: PredictTask, options: PredictOptions, source: Future[_Source]) -> _Made:
    """Matte a picture, and make of it what is wanted."""
    image, given, warnings = source.result()
    if given is None:
        found = make_automatic(options.method, image, options.matte)
        matte, trimap = found.alpha, found.trimap
        if found.is_empty:
            warnings = [f"{task.image.name}: nobody was found in it; its matte is empty"]
    else:
        matte, trimap = make_matte(options.method, image, given, options.matte), given
    alpha = to_bytes(matte)
    deep = options.bits == 16
    files = {task.out: np.rint(matte * np.float32(65_535)).astype(np.uint16) if deep else alpha}
    if options.trimap:
        files[task.product("trimap")] = trimap
    pictures: list[UInt8Array] = []
    if options.cutout or options.background is not None or options.panel:
        pictures.append(estimate_foreground(image, matte))
    if options.cutout:
        files[task.product("cutout")] = np.dstack([pictures[0], alpha])
    if options.background is not None:
        pictures.append(on_background(pictures[0], alpha, options.background))
        files[task.product("composite")] = pictures[1]
    if options.panel:
        pictures.append(segmented(image, alpha, options.background))
        files[task.product("panel")] = panel(image, trimap, alpha, *pictures)
    return _Made(files, tuple(warnings))


def _write(made: _Made | TaskResult) -> TaskResult:
    """Write what was made, if it was."""
    if isinstance(made, TaskResult):
        return made
    for path, picture in made.files.items():
        write_picture(path, picture)
    return TaskResult(made.warnings)


def _read(task: PredictTask, options: PredictOptions) -> _Source:
    """Read the image and its trimap, or draw one, unless the method finds it."""
    name, radius = task.image.name, options.radius
    if task.trimap is None and task.mask is None and finds_trimaps(options.method, options.matte):
        return read_image(task.image), None, []
    if task.trimap is not None:
        image = read_image(task.image)
        return image, *read_trimap(task.trimap, task.trimap.name, image.shape[:2])
    if task.mask is not None:
        image, (alpha, _) = read_image(task.image), read_matte(task.mask, task.mask.name, role="mask")
        if alpha.shape != image.shape[:2]:
            raise FileError(
                f"{task.mask}: the mask is {alpha.shape[1]}×{alpha.shape[0]} px, its image"
                f" {image.shape[1]}×{image.shape[0]} px; they must be of one size"
            )
        return image, trimap_from_alpha(alpha, task.mask.name, radius), []
    try:
        own = read_image_alpha(task.image)
    except SourceError as error:
        if error.cause != "no-alpha":
            raise
        raise FileError(
            f"{name}: a matte needs a hint of where the subject is: give --trimap, or --mask with a rough mask,"
            " or a network that finds it (SHM)"
        ) from None
    return own.image, trimap_from_alpha(own.alpha, name, radius), []
