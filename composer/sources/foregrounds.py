"""Layouts: how pictures lie on disk. Each layout lists its pictures by name, and loads one by its name.

A layout is a small frozen value that travels to the workers; nothing is read before it is asked for.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from ..base.errors import PlanError, SourceError
from ..recipe import (
    FOREGROUND_SOURCES,
    DimForegrounds,
    ForegroundTable,
    PairsForegrounds,
    ProceduralForegrounds,
    Reading,
    Recipe,
    RgbaForegrounds,
    SourceContext,
    source_context,
)
from .drawn.canvas import DRAWN_FOREGROUNDS, drawn_names, drawn_rng, drawn_size
from .drawn.foregrounds import draw_foreground
from .image_io import Foreground, composed_size, limit_side, picture_size, read_cutout, read_pair
from .listings import document_name, find_file, list_pictures, log_passed_over, read_list
from .pairing import pair_alphas, require_alphas, stem


@dataclass(frozen=True)
class Entry:
    """A foreground as a layout lists it.

    Attributes
    ----------
    key : str
        Its name in the dataset.
    image : str
        Its file, below the layout's root, with forward slashes.
    alpha : str, optional
        Its alpha's file; None where the layout has none beside it.
    table : int
        Which of the recipe's tables of foregrounds lists it, from 0.
    composed : bool
        False: it is taken as it is.
    distracts : bool
        It may stand in another's scene.
    """

    key: str
    image: str
    alpha: str | None = None
    table: int = 0
    composed: bool = True
    distracts: bool = True


class ForegroundLayout(Protocol):
    """Where foregrounds come from."""

    def entries(self) -> list[Entry]:
        """List the foregrounds, in the order that the plan will keep."""

    def files(self, entry: Entry) -> list[Path]:
        """Return the files that a foreground is read from."""

    def size(self, entry: Entry) -> tuple[int, int]:
        """Return (height, width) px as composed, from the header only."""

    def load(self, entry: Entry) -> Foreground:
        """Read a foreground."""


def foreground_layout(recipe: Recipe) -> ForegroundLayout:
    """Return the layout of a recipe's foregrounds."""
    tables = recipe.foreground_tables
    context = source_context(recipe)
    layouts = tuple(FOREGROUND_SOURCES[table.layout].open(table, context) for table in tables)  # type: ignore[attr-defined]
    names = tuple(table.name for table in tables)
    return layouts[0] if names == (None,) else Several(layouts, names)


@dataclass(frozen=True)
class _Files:
    """What the layouts of picture files share."""

    table: ForegroundTable
    reading: Reading = "seen"

    @classmethod
    def open(cls, table: ForegroundTable, context: SourceContext) -> Self:
        """Return the layout of a recipe's table."""
        return cls(table, context.reading)

    def files(self, entry: Entry) -> list[Path]:
        """See `ForegroundLayout`: the picture, and its alpha where that is a file of its own."""
        raise NotImplementedError

    def size(self, entry: Entry) -> tuple[int, int]:
        """See `ForegroundLayout`."""
        height, width = picture_size(self.files(entry)[0], entry.image, self.table.max_pixels, self.reading)
        return composed_size((height, width), self.table.max_side, self.table.enlarge_to)

    def load(self, entry: Entry) -> Foreground:
        """See `ForegroundLayout`."""
        paths, limit = self.files(entry), self.table.max_pixels
        pair = read_pair(paths[0], paths[1], entry.image, limit, self.reading) if len(paths) == 2 else None
        foreground = pair or read_cutout(paths[0], entry.image, limit, self.reading)
        table = self.table
        return limit_side(foreground, table.max_side, table.enlarge_to, composed=table.compose)


@dataclass(frozen=True)
class Pairs(_Files):
    """Pictures in one folder, alphas in another, under the same names up to the ending."""

    table: PairsForegrounds
    reading: Reading = "seen"

    def entries(self) -> list[Entry]:
        """See `ForegroundLayout`. A picture without an alpha is listed, and fails when it is read."""
        images, alphas = list_pictures(self.table.images), list_pictures(self.table.alphas)
        log_passed_over(images, alphas)
        pairs = pair_alphas(images, alphas)
        require_alphas(pairs, str(self.table.images), self.table.alphas)
        return [Entry(stem(pair.image), pair.image, pair.alpha) for pair in pairs]

    def files(self, entry: Entry) -> list[Path]:
        """See `ForegroundLayout`."""
        paths = [find_file(self.table.images, entry.image)]
        return paths if entry.alpha is None else [*paths, find_file(self.table.alphas, entry.alpha)]

    def load(self, entry: Entry) -> Foreground:
        """See `ForegroundLayout`."""
        if entry.alpha is None:
            raise SourceError(entry.image, "no-alpha", f"the alphas' folder has no picture called {entry.key}")
        return super().load(entry)


@dataclass(frozen=True)
class Cutouts(_Files):
    """Pictures that carry their alpha."""

    table: RgbaForegrounds
    reading: Reading = "seen"

    def entries(self) -> list[Entry]:
        """See `ForegroundLayout`."""
        listing = list_pictures(self.table.root)
        log_passed_over(listing)
        return [Entry(stem(name), name) for name in listing.names]

    def files(self, entry: Entry) -> list[Path]:
        """See `ForegroundLayout`."""
        return [find_file(self.table.root, entry.image)]


@dataclass(frozen=True)
class Dim(_Files):
    """Deep Image Matting's tree; the list of names gives the order."""

    table: DimForegrounds
    reading: Reading = "seen"

    def entries(self) -> list[Entry]:
        """See `ForegroundLayout`."""
        table = self.table
        homes = {
            _composed(document_name(name)): folder
            for folder in reversed(table.folders)
            if (table.root / folder / "fg").is_dir()
            for name in os.listdir(table.root / folder / "fg")  # noqa: PTH208
        }
        if not homes:
            tried = ", ".join(f"{folder}/fg" for folder in table.folders)
            raise PlanError(
                f"{table.root}: expected Deep Image Matting's folders ({tried}), found none of them;"
                " give the folder that holds them: --foregrounds …/Combined_Dataset/Training_set, or Test_set"
            )
        names = read_list(table.root / table.list)
        return [self._entry(name, homes.get(_composed(name), table.folders[0])) for name in names]

    @staticmethod
    def _entry(name: str, folder: str) -> Entry:
        return Entry(stem(name), f"{folder}/fg/{name}", f"{folder}/alpha/{name}")

    def files(self, entry: Entry) -> list[Path]:
        """See `ForegroundLayout`."""
        return [find_file(self.table.root, name) for name in (entry.image, entry.alpha) if name]


@dataclass(frozen=True)
class DrawnForegrounds:
    """Foregrounds out of noise and strokes."""

    table: ProceduralForegrounds
    seed: int

    @classmethod
    def open(cls, table: ProceduralForegrounds, context: SourceContext) -> DrawnForegrounds:
        """Return the layout of a recipe's table."""
        return cls(table, context.seed)

    def entries(self) -> list[Entry]:
        """See `ForegroundLayout`."""
        return [Entry(name, name) for name in drawn_names(self.table.kinds, self.table.count)]

    def files(self, entry: Entry) -> list[Path]:
        """See `ForegroundLayout`."""
        return []

    def size(self, entry: Entry) -> tuple[int, int]:
        """See `ForegroundLayout`."""
        return drawn_size(self.table.sides, self._rng(entry))

    def load(self, entry: Entry) -> Foreground:
        """See `ForegroundLayout`."""
        rng = self._rng(entry)
        size = drawn_size(self.table.sides, rng)
        image, alpha = draw_foreground(entry.key.rpartition("-")[0], size, rng)
        return Foreground(image, alpha, hashlib.sha256(image.tobytes() + alpha.tobytes()).hexdigest())

    def _rng(self, entry: Entry) -> np.random.Generator:
        return drawn_rng(self.seed, DRAWN_FOREGROUNDS, entry.key)


@dataclass(frozen=True)
class Several:
    """The foregrounds of several tables, one table after the other; its name goes before the names of a table's."""

    layouts: tuple[ForegroundLayout, ...]
    names: tuple[str | None, ...]

    def entries(self) -> list[Entry]:
        """See `ForegroundLayout`."""
        return [self._outer(table, entry) for table, layout in enumerate(self.layouts) for entry in layout.entries()]

    def prefix(self, table: int) -> str:
        """Return what goes before the names of one of the layouts."""
        return f"{self.names[table]}/" if self.names[table] else ""

    def _outer(self, table: int, entry: Entry) -> Entry:
        prefix = self.prefix(table)
        alpha = None if entry.alpha is None else prefix + entry.alpha
        return Entry(prefix + entry.key, prefix + entry.image, alpha, table)

    def files(self, entry: Entry) -> list[Path]:
        """See `ForegroundLayout`."""
        return self.layouts[entry.table].files(self._inner(entry))

    def size(self, entry: Entry) -> tuple[int, int]:
        """See `ForegroundLayout`."""
        with self._named(entry):
            return self.layouts[entry.table].size(self._inner(entry))

    def load(self, entry: Entry) -> Foreground:
        """See `ForegroundLayout`."""
        with self._named(entry):
            return self.layouts[entry.table].load(self._inner(entry))

    def _inner(self, entry: Entry) -> Entry:
        start = len(self.prefix(entry.table))
        return Entry(entry.key[start:], entry.image[start:], entry.alpha and entry.alpha[start:])

    @contextmanager
    def _named(self, entry: Entry) -> Iterator[None]:
        try:
            yield
        except SourceError as error:
            raise SourceError(self.prefix(entry.table) + error.source, error.cause, error.detail) from None


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
