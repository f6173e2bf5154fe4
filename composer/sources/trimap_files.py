"""Supplied trimaps: picture files, one for each composite, used as they are.

Composition-1k's results are compared on the trimaps that come with it; others drawn from the same alphas would grade
another task.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..base.arrays import UInt8Array
from ..base.errors import SourceError
from ..dataset.documents import InputRecord
from ..dataset.rows import BACKGROUND, FOREGROUND, UNKNOWN
from ..recipe import Recipe, foregrounds_root
from .listings import find_file
from .mattes import read_matte


@dataclass(frozen=True)
class SuppliedTrimaps:
    """Where a recipe's trimaps lie.

    Attributes
    ----------
    root : Path
        The foregrounds' root.
    folder : str
        The trimaps' folder below it, with forward slashes.
    max_pixels : int
        A picture that declares more is refused unread.
    """

    root: Path
    folder: str
    max_pixels: int

    def name(self, key: str, variant: int) -> str:
        """Return the name of a composite's trimap, below the root."""
        return f"{self.folder}/{key}_{variant}.png"

    def path(self, key: str, variant: int) -> Path:
        """Return the file of a composite's trimap."""
        return find_file(self.root, self.name(key, variant))

    def load(self, key: str, variant: int, size: tuple[int, ...]) -> tuple[UInt8Array, InputRecord]:
        """Read the trimap of a composite.

        Parameters
        ----------
        key : str
            The foreground's name.
        variant : int
            Which of its composites.
        size : (H, W)
            Of the composite, px.

        Returns
        -------
        (H, W) uint8
            0 background, 128 unknown, 255 foreground.
        InputRecord
            The file as it was read.

        Raises
        ------
        SourceError
            As `mattes.read_matte`, and causes ``size-mismatch``, ``not-a-trimap``.
        """
        name = self.name(key, variant)
        trimap, file = read_matte(self.path(key, variant), name, self.max_pixels, "stored")
        if trimap.shape != size:
            found, expected = (f"{width}×{height} px" for height, width in (trimap.shape, size))
            raise SourceError(name, "size-mismatch", f"the trimap is {found}, its foreground {expected}")
        others = sorted({*np.unique(trimap).tolist()} - {BACKGROUND, UNKNOWN, FOREGROUND})
        if others:
            shown = ", ".join(map(str, others[:5])) + (", …" if len(others) > 5 else "")
            raise SourceError(
                name,
                "not-a-trimap",
                f"a supplied trimap holds 0, 128 and 255 only, this one {shown} too;"
                " was it scaled, or saved as JPEG? Take the original",
            )
        return trimap, file


def supplied_trimaps(recipe: Recipe) -> SuppliedTrimaps | None:
    """Return where a recipe's trimaps lie; None where they are drawn."""
    root = foregrounds_root(recipe)
    if recipe.trimap.strategy != "supplied" or root is None:
        return None
    return SuppliedTrimaps(root, recipe.trimap.folder, recipe.foreground_tables[0].max_pixels)
