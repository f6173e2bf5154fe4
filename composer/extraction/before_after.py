"""Before and after: what extracting has done to pictures, on a page, to be judged by looking."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from ..base.arrays import UInt8Array
from ..base.files import write_text
from ..base.pages import render_page
from ..base.sheets import find_busiest
from ..base.thumbnails import embed, reduce
from ..compositing.blending import blend

__all__ = ["PICTURES", "BeforeAfter", "write_page"]

PICTURES: Final = 48  # on a page: some 8 MB


SIDE: Final = 480  # px, a picture's longer side at most


DETAIL: Final = 120  # px, a detail's side, which is shown four times enlarged


QUALITY: Final = 80  # of the WebP


MOST_FAILURES: Final = 200  # in the table


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
    facts : tuple of str
        What is said beside its name.
    """

    name: str
    image: UInt8Array
    alpha: UInt8Array
    foreground: UInt8Array
    facts: tuple[str, ...]


def write_page(
    pictures: Iterable[BeforeAfter],
    path: Path,
    *,
    facts: Sequence[tuple[str, str]],
    failures: Sequence[tuple[str, str, str]],
) -> None:
    """Write a page of pictures, each with its cut-out under a slider, whole and where their colours differ most.

    Parameters
    ----------
    pictures : iterable of BeforeAfter
        In their order on the page; one at a time is held.
    path : Path
        The HTML file.
    facts : sequence of (str, str)
        What is said of all of them: names and texts.
    failures : sequence of (str, str, str)
        Pictures, causes and details of what was not extracted.

    Raises
    ------
    BuildError
        It cannot be written.
    """
    cases = [_case(picture) for picture in pictures]
    text = render_page(
        __package__, "before_after.html.j2", script="before_after.js", title="Cut-outs, before and after", facts=facts,
        failures=failures[:MOST_FAILURES], more_failures=len(failures) - MOST_FAILURES, data={"cases": cases},
    )  # fmt: skip
    write_text(path, text)


def _case(picture: BeforeAfter) -> dict[str, Any]:
    """Lay out a picture for the page: before and after, and the detail of both."""
    alpha, plain = picture.alpha, _contrasting(picture)
    backdrop = np.broadcast_to(np.array(plain, np.uint8), picture.image.shape)
    both = [blend(colours, alpha, backdrop) for colours in (picture.image, picture.foreground)]
    change = cv2.absdiff(both[0], both[1]).max(axis=2).astype(np.float32)
    side = min(DETAIL, *alpha.shape)
    y, x = find_busiest(change if change.any() else alpha.astype(np.float32), side)
    window = np.s_[y : y + side, x : x + side]
    cutout = np.dstack([picture.foreground, alpha])
    height, width = alpha.shape
    return {
        "name": picture.name,
        "facts": [f"{width}×{height} px", *picture.facts],
        "plain": "rgb({} {} {})".format(*plain),
        "whole": _pair(reduce(picture.image, SIDE), reduce(cutout, SIDE)),
        "detail": _pair(picture.image[window], cutout[window]),
        "place": f"{side} px at {x}, {y}",
    }


def _pair(image: UInt8Array, cutout: UInt8Array) -> dict[str, str]:
    return {"before": embed(image, quality=QUALITY), "after": embed(cutout, quality=QUALITY, alpha_quality=QUALITY)}


def _contrasting(picture: BeforeAfter) -> tuple[int, int, int]:
    """Choose the plain colour that is furthest from both the subject's mean colour and the old background's."""
    known = [picture.image[where].mean(axis=0) for where in (picture.alpha == 255, picture.alpha == 0) if where.any()]
    return max(PLAIN, key=lambda plain: min((float(np.linalg.norm(colour - plain)) for colour in known), default=0.0))
