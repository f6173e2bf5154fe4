"""Look reader: a look's pictures, read from where a recipe's foregrounds lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..base.arrays import UInt8Array
from ..compositing.looks import make_look
from ..dataset.rows import Look
from ..sources.foregrounds import Entry, ForegroundLayout


@dataclass(frozen=True)
class LookPictures:
    """A look as it is composed.

    Attributes
    ----------
    image : (H, W, 3) uint8
        RGB.
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    look : Look
        What was done; it may have been left upright.
    sha256 : str
        Of the foreground's files.
    partner_sha256 : str
        Of the partner's files; empty where there is none.
    """

    image: UInt8Array
    alpha: UInt8Array
    look: Look
    sha256: str
    partner_sha256: str


def read_look(layout: ForegroundLayout, entry: Entry, look: Look, partners: Mapping[str, Entry]) -> LookPictures:
    """Read a foreground, and its partner if it has one, and make the look.

    Parameters
    ----------
    layout : ForegroundLayout
        Where they lie.
    entry : Entry
        The foreground.
    look : Look
        What is done to it.
    partners : Mapping[str, Entry]
        By key, at least the look's own.

    Raises
    ------
    SourceError
        One of the two cannot be read.
    """
    foreground = layout.load(entry)
    partner = layout.load(partners[look.partner]) if look.partner else None
    behind = (partner.image, partner.alpha) if partner else None
    image, alpha, look = make_look(foreground.image, foreground.alpha, look, behind)
    return LookPictures(image, alpha, look, foreground.sha256, partner.sha256 if partner else "")
