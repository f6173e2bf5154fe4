"""Contact sheet: a dozen composites of a dataset, each with its trimap, alpha and cut-out, as one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..base.arrays import spread
from ..base.files import encode_picture, write_file
from ..base.sheets import CELL, GAP, Array, draw_cutout, draw_sheet, fit_square, grey_to_rgb
from ..dataset.dataset import Dataset, Sample


def contact_sheet(dataset: Dataset, rows: int = 4, columns: int = 6) -> Array:
    """Lay out composites spread over a dataset: above the composite, below it trimap, alpha and cut-out.

    Returns
    -------
    (H, W, 3) uint8
        RGB.
    """
    picks = spread(range(len(dataset)), rows * columns)
    return draw_sheet([_cell(dataset[index]) for index in picks], columns, GAP)


def _cell(sample: Sample) -> Array:
    parts = (grey_to_rgb(sample.trimap), grey_to_rgb(sample.alpha), draw_cutout(sample.colours, sample.alpha))
    return np.vstack([fit_square(sample.image, CELL), np.hstack([fit_square(part, CELL // 3) for part in parts])])


def write_contact_sheet(dataset: Dataset, path: Path) -> None:
    """Write `contact_sheet` as JPEG.

    Raises
    ------
    BuildError
        The picture cannot be written.
    """
    write_file(path, encode_picture(contact_sheet(dataset), ".jpg"))
