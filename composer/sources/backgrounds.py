"""Backgrounds: where they come from, and which of them are taken."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..base.arrays import UInt8Array
from ..base.errors import PlanError, SourceError
from ..dataset.documents import InputRecord
from ..recipe import (
    BACKGROUND_SOURCES,
    FolderBackgrounds,
    ListBackgrounds,
    PhotographTable,
    ProceduralBackgrounds,
    Reading,
    Recipe,
    SourceContext,
    source_context,
)
from .coco import coco_names, picture_identity, pictures_showing
from .drawn.backgrounds import BACKGROUND_KINDS, draw_background
from .drawn.canvas import DRAWN_BACKGROUNDS, drawn_names, drawn_rng, drawn_size
from .image_io import composed_size, limit_picture, picture_size, read_rgb
from .listings import find_file, list_pictures, log_passed_over, read_list


@dataclass(frozen=True)
class Background:
    """A background, and the files that it was read from.

    Attributes
    ----------
    image : (H, W, 3) uint8
        RGB, reduced where the recipe says so.
    sha256 : str
        Of where it came from, in hex.
    files : tuple[InputRecord, ...]
        As they were read; none where it was drawn.
    """

    image: UInt8Array
    sha256: str
    files: tuple[InputRecord, ...] = ()


class BackgroundLayout(Protocol):
    """Where backgrounds come from."""

    def names(self) -> list[str]:
        """List the backgrounds, in the order that the plan will keep."""

    def files(self, name: str) -> list[Path]:
        """Return the files that a background is read from."""

    def size(self, name: str) -> tuple[int, int]:
        """Return (height, width) px as loaded, from the header only."""

    def load(self, name: str) -> Background:
        """Read a background."""


def background_layout(recipe: Recipe) -> BackgroundLayout:
    """Return the layout of a recipe's backgrounds."""
    table = recipe.backgrounds
    if table is None:
        return NoBackgrounds()
    layout: BackgroundLayout = BACKGROUND_SOURCES[table.layout].open(table, source_context(recipe))  # type: ignore[attr-defined]
    return layout


@dataclass(frozen=True)
class NoBackgrounds:
    """None at all: of a recipe that only takes pictures as they are."""

    def names(self) -> list[str]:
        """See `BackgroundLayout`."""
        return []

    def files(self, name: str) -> list[Path]:
        """See `BackgroundLayout`."""
        return []

    def size(self, name: str) -> tuple[int, int]:
        """See `BackgroundLayout`."""
        raise SourceError(name, "missing", "the recipe has no backgrounds")

    def load(self, name: str) -> Background:
        """See `BackgroundLayout`."""
        raise SourceError(name, "missing", "the recipe has no backgrounds")


@dataclass(frozen=True)
class Photographs:
    """Picture files, all of a folder's or those that a list names.

    Attributes
    ----------
    table : FolderBackgrounds or ListBackgrounds
        The recipe's table.
    reading : {"seen", "stored"}
        See `mattes.read_matte`.
    beside : Path, optional
        The folder that a list lies below; the table's root where it is left out.
    """

    table: FolderBackgrounds | ListBackgrounds
    reading: Reading = "seen"
    beside: Path | None = None

    @classmethod
    def open(cls, table: FolderBackgrounds | ListBackgrounds, context: SourceContext) -> Photographs:
        """Return the layout of a recipe's table."""
        listed_below = isinstance(table, ListBackgrounds) and table.beside == "foregrounds"
        return cls(table, context.reading, context.foregrounds if listed_below else table.root)

    def names(self) -> list[str]:
        """See `BackgroundLayout`."""
        if isinstance(self.table, FolderBackgrounds):
            listing = list_pictures(self.table.root, recursive=self.table.recursive)
            log_passed_over(listing)
            return list(listing.names)
        return read_list((self.beside or self.table.root) / self.table.list)

    def files(self, name: str) -> list[Path]:
        """See `BackgroundLayout`."""
        path = find_file(self.table.root, name)
        names = coco_names(name) if isinstance(self.table, ListBackgrounds) else [name]
        others = (find_file(self.table.root, other) for other in names[1:])
        # Only what may lie there under another name is looked for.
        return [path if len(names) == 1 or path.exists() else next((p for p in others if p.exists()), path)]

    def size(self, name: str) -> tuple[int, int]:
        """See `BackgroundLayout`."""
        size = picture_size(self.files(name)[0], name, self.table.max_pixels, self.reading)
        return composed_size(size, self.table.max_side)

    def load(self, name: str) -> Background:
        """See `BackgroundLayout`."""
        image, file = read_rgb(self.files(name)[0], name, self.table.max_pixels, self.reading)
        return Background(limit_picture(image, self.table.max_side), file.sha256, (file,))


@dataclass(frozen=True)
class DrawnBackgrounds:
    """Backgrounds out of noise and strokes."""

    table: ProceduralBackgrounds
    seed: int

    @classmethod
    def open(cls, table: ProceduralBackgrounds, context: SourceContext) -> DrawnBackgrounds:
        """Return the layout of a recipe's table."""
        return cls(table, context.seed)

    def names(self) -> list[str]:
        """See `BackgroundLayout`."""
        return drawn_names(BACKGROUND_KINDS, self.table.count)

    def files(self, name: str) -> list[Path]:
        """See `BackgroundLayout`."""
        return []

    def size(self, name: str) -> tuple[int, int]:
        """See `BackgroundLayout`."""
        return drawn_size(self.table.sides, drawn_rng(self.seed, DRAWN_BACKGROUNDS, name))

    def load(self, name: str) -> Background:
        """See `BackgroundLayout`."""
        rng = drawn_rng(self.seed, DRAWN_BACKGROUNDS, name)
        size = drawn_size(self.table.sides, rng)
        image = draw_background(name.rpartition("-")[0], size, rng)
        return Background(image, hashlib.sha256(image.tobytes()).hexdigest())


def select_backgrounds(recipe: Recipe) -> tuple[list[str], list[tuple[str, str]]]:
    """List a recipe's backgrounds, and those that it leaves out.

    Returns
    -------
    list of str
        The names of those that are used, in the layout's order.
    list of (str, str)
        The names of those that are left out, each with the reason.

    Raises
    ------
    PlanError
        They cannot be listed; the annotations are damaged, or speak of other pictures.
    """
    layout, table = background_layout(recipe), recipe.backgrounds
    names = layout.names() if recipe.composes else []
    if not isinstance(table, PhotographTable):
        return names, []
    unfit: dict[str, str] = {}
    if table.annotations is not None and names:
        known, showing = pictures_showing(table.annotations, table.without)
        unfit |= _annotated(names, known, showing, table.without)
        if not any(picture_identity(name) in known for name in names):
            raise PlanError(
                f"{table.annotations}: knows none of the backgrounds ({names[0]} and so on);"
                " give the annotations of their year and set"
            )
    if table.min_side is not None:
        unfit |= _small(layout, [name for name in names if name not in unfit], table.min_side)
    return [name for name in names if name not in unfit], list(unfit.items())


def _annotated(names: Sequence[str], known: set[str], showing: set[str], categories: Sequence[str]) -> dict[str, str]:
    unfit = {}
    for name in names:
        picture = picture_identity(name)
        if picture in showing:
            unfit[name] = f"annotated with {' or '.join(categories)}"
        elif picture not in known:
            unfit[name] = "not in the annotations: nobody knows what it shows"
    return unfit


def _small(layout: BackgroundLayout, names: Sequence[str], least: int) -> dict[str, str]:
    unfit = {}
    for name in names:
        try:
            height, width = layout.size(name)
        except SourceError:
            continue  # it stays in the plan, fails when it is rendered, and is listed there
        if min(height, width) < least:
            unfit[name] = f"{width}×{height} px, under min_side = {least}"
    return unfit
