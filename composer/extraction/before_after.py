"""Before and after: what extracting has done to pictures, to be judged by looking."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from ..base.arrays import UInt8Array
from ..base.files import encode_picture, write_file
from ..base.sheets import draw_caption, draw_sheet, enlarge, find_busiest, fit_square
from ..compositing.blending import blend

PICTURES: Final = 16  # on a sheet


COLUMNS: Final = 2  # pictures side by side


CELL: Final = 240  # px, a picture's side


GAP: Final = 6


CAPTION: Final = 22  # px, a caption's height


DETAIL: Final = 60  # px, a detail's side


# Plain colours to put subjects on: the one that differs most from a subject and from its old background is taken.
PLAIN: Final = ((255, 255, 255), (16, 16, 16), (0, 150, 60), (210, 40, 160), (30, 110, 230))


@dataclass(frozen=True)
class BeforeAfter:
    """A picture and what was made of it.

    Attributes
    ----------
    name : str
        What to call it.
    image : (H, W, 3) uint8
        RGB, its raw colours.
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    foreground : (H, W, 3) uint8
        RGB, not premultiplied: the cut-out's colours.
    halo_before, halo_after : float, optional
        See `halo.halo`; None where they were not measured.
    """

    name: str
    image: UInt8Array
    alpha: UInt8Array
    foreground: UInt8Array
    halo_before: float | None
    halo_after: float | None


def write_sheet(pictures: Iterable[BeforeAfter], path: Path) -> None:
    """Write a sheet of pictures as JPEG: each on a plain colour with its raw colours and with the cut-out's, whole and
    where that differs most. Nothing is written where there is no picture.

    Raises
    ------
    BuildError
        It cannot be written.
    """
    panels = [_panel(picture) for picture in pictures]
    if not panels:
        return
    write_file(path, encode_picture(draw_sheet(panels, COLUMNS, 2 * GAP), ".jpg"))


def _panel(picture: BeforeAfter) -> UInt8Array:
    """Lay out four cells in a row, with a caption: before and after, and the detail of both."""
    alpha = picture.alpha
    plain = np.broadcast_to(np.array(_contrasting(picture), np.uint8), picture.image.shape)
    both = [blend(colours, alpha, plain) for colours in (picture.image, picture.foreground)]
    change = cv2.absdiff(both[0], both[1]).max(axis=2).astype(np.float32)
    side = min(DETAIL, *alpha.shape)
    y, x = find_busiest(change if change.any() else alpha.astype(np.float32), side)
    details = [enlarge(colours[y : y + side, x : x + side], CELL) for colours in both]
    figures = "" if picture.halo_before is None else f"  halo {picture.halo_before:.1f} -> {picture.halo_after:.1f}"
    text = picture.name.encode("ascii", "replace").decode() + figures
    cells = draw_sheet([fit_square(cell, CELL) for cell in (*both, *details)], 4, GAP)
    return np.vstack([draw_caption(text, cells.shape[1], CAPTION), cells])


def _contrasting(picture: BeforeAfter) -> tuple[int, int, int]:
    """Choose the plain colour that is furthest from both the subject's mean colour and the old background's."""
    known = [picture.image[where].mean(axis=0) for where in (picture.alpha == 255, picture.alpha == 0) if where.any()]
    return max(PLAIN, key=lambda plain: min((float(np.linalg.norm(colour - plain)) for colour in known), default=0.0))
