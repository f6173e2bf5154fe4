"""Panel: one composite looked at closely, as a picture for a file or for the terminal."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np

from ..base.arrays import UInt8Array
from ..base.errors import DatasetError
from ..base.files import encode_picture, write_file
from ..base.sheets import draw_caption, draw_cutout, draw_sheet, enlarge, find_busiest, fit_square, grey_to_rgb
from ..base.text import escape
from ..dataset.dataset import Dataset, Sample, open_dataset

CELL = 440  # px, a picture's side


GAP = 8


CAPTION = 26  # px, a caption's height


HARD = 0.02  # what a change at an opaque or clear pixel counts, beside one at a fractional pixel


DETAIL = 9  # the detail's side is this part of the composite's longer side,


SMALLEST_DETAIL = 32  # but at least so many px


def read_composite(folder: str | Path, name: str) -> Sample:
    """Read the composite that is meant: a key, a number, or ``random``.

    A number is that of the dataset's order; negative ones count from the end. Where a key looks like a number, the
    key is meant.

    Parameters
    ----------
    folder : str or Path
        The dataset's.
    name : str
        The composite's.

    Raises
    ------
    DatasetError
        There is none such, or the dataset is none or damaged.
    """
    with closing(open_dataset(folder)) as dataset:
        if not len(dataset):
            raise DatasetError(f"{dataset.path}: holds no composite")
        return dataset[_find(dataset, name)]


def _find(dataset: Dataset, name: str) -> int:
    key, count = name.encode(errors="surrogateescape"), len(dataset)
    for numbers, table in dataset.read_tables():
        if (found := np.flatnonzero(table["key"] == key)).size:
            return numbers[int(found[0])]
    if name == "random":
        return int(np.random.default_rng().integers(count))
    if re.fullmatch(r"-?[0-9]{1,12}", name) and -count <= int(name) < count:
        return int(name)
    raise DatasetError(
        f"no composite is called '{escape(name)}': expected a key such as '{escape(dataset.row(0).key)}', a number"
        f" up to {count - 1}, or random"
    )


def draw_panel(sample: Sample) -> UInt8Array:
    """Lay out a composite: above it, its trimap and its alpha; below the cut-out and the finest detail, enlarged.

    Parameters
    ----------
    sample : Sample
        Whole, not a window.

    Returns
    -------
    (H, W, 3) uint8 RGB
        The panel.
    """
    y, x, side = find_detail(sample.alpha)
    window = np.s_[y : y + side, x : x + side]
    marked = np.asarray(sample.image.copy(), np.uint8)
    thick = max(1, max(sample.alpha.shape) // CELL * 2)
    cv2.rectangle(marked, (x, y), (x + side - 1, y + side - 1), (255, 255, 0), thick)
    cells = (
        ("composite", marked),
        ("trimap", grey_to_rgb(sample.trimap)),
        ("alpha", grey_to_rgb(sample.alpha)),
        ("cut-out", draw_cutout(sample.colours, sample.alpha)),
        (f"detail, {side} px", enlarge(sample.image[window], CELL)),
        ("its alpha", enlarge(grey_to_rgb(sample.alpha[window]), CELL)),
    )
    captioned = [np.vstack([fit_square(picture, CELL), draw_caption(text, CELL, CAPTION)]) for text, picture in cells]
    return draw_sheet(captioned, 3, GAP)


def find_detail(alpha: UInt8Array, side: int | None = None) -> tuple[int, int, int]:
    """Find the square with the most hair-like detail: where alpha changes most often.

    Parameters
    ----------
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    side : int, optional
        The square's, px, at most the picture's shorter one; by default a ninth of its longer one.

    Returns
    -------
    tuple of int
        Its corner (y, x) and its side, px; inside the picture.
    """
    height, width = alpha.shape
    side = side or min(height, width, max(SMALLEST_DETAIL, max(height, width) // DETAIL))
    # A second derivative is strong at strands and weak along a soft but straight edge; a hard edge is no strand.
    weights = np.ones(256, np.float32)
    weights[[0, 255]] = HARD
    change = np.abs(cv2.Laplacian(alpha, cv2.CV_32F)) * np.asarray(cv2.LUT(alpha, weights), np.float32)
    return *find_busiest(change, side), side


def write_panel(picture: UInt8Array, path: Path) -> None:
    """Write a panel in the format that the file's name says: PNG, JPEG or WebP.

    Parameters
    ----------
    picture : (H, W, 3) uint8 RGB
        The panel.
    path : Path
        The file.

    Raises
    ------
    DatasetError, BuildError
        It cannot be written, or its name ends otherwise.
    """
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise DatasetError(f"{path}: expected a name that ends in .png, .jpg or .webp")
    write_file(path, encode_picture(picture, path.suffix.lower()))
