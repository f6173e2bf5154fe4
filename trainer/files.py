"""Files: which pictures belong together by name, and how results are written."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ..composer.errors import MattingComposeError
from ..composer.files import coded, write_file
from ..composer.sources import ENDINGS, Foreground, read_alpha, read_cutout, read_rgb

__all__ = ["FileError", "list_pictures", "read_grey", "read_image", "read_image_alpha", "write_picture"]

Picture = NDArray[np.uint8]

MAX_PIXELS: Final = 250_000_000  # refuse more from the header: a file of a kilobyte can declare a terabyte


class FileError(MattingComposeError):
    """A file or folder is not what a command needs."""


def list_pictures(place: Path) -> dict[str, Path]:
    """List a folder's pictures (not its subfolders') by name without ending, in order; a file is a list of one.

    Raises
    ------
    FileError : there are none, or two differ by their endings only
    """
    if place.is_file():
        return {place.stem: place}
    if not place.is_dir():
        raise FileError(f"{place}: expected a picture or a folder of pictures, found nothing")
    found: dict[str, Path] = {}
    for path in sorted(place.iterdir()):
        if path.suffix.lower() not in ENDINGS or path.name.startswith(".") or not path.is_file():
            continue
        if path.stem in found:
            raise FileError(f"{place}: {found[path.stem].name} and {path.name} differ by their endings only; keep one")
        found[path.stem] = path
    if not found:
        raise FileError(f"{place}: expected pictures ({', '.join(sorted(ENDINGS))}), found none")
    return found


def read_image(path: Path) -> Picture:
    """Read (H, W, 3) uint8 RGB, upright, in sRGB. Raise SourceError where it cannot be."""
    return read_rgb(path, path.name, MAX_PIXELS)[0]


def read_image_alpha(path: Path) -> Foreground:
    """Read a picture with its own alpha. Raise SourceError where it cannot be, or has none."""
    return read_cutout(path, path.name, MAX_PIXELS)


def read_grey(path: Path) -> Picture:
    """Read an alpha, trimap or mask, (H, W) uint8: its first channel. Raise SourceError where it cannot be."""
    return read_alpha(path, path.name, MAX_PIXELS)[0]


def write_picture(path: Path, picture: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """Write (H, W[, 3 or 4]) RGB(A), 8 or 16 bits, in the format that the name says: whole, or not at all.

    Raises
    ------
    FileError : its format is not among those that are written
    BuildError : it cannot be written
    """
    try:
        write_file(path, coded(picture, path.suffix.lower()))
    except cv2.error:
        raise FileError(f"{path}: pictures are not written as '{path.suffix}'; use .png or .jpg") from None
