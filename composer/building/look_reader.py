"""Look reader: a look's pictures, and the files that they were read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..base.arrays import UInt8Array
from ..compositing.looks import make_look
from ..dataset.documents import InputRecord
from ..dataset.rows import Look
from ..sources.foregrounds import Entry, ForegroundLayout
from ..sources.image_io import Foreground


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
    digests : (str, str)
        SHA-256 of the foreground and of its partner; empty where there is none.
    files : Mapping[str, InputRecord]
        What was read, by the names that sidecars give.
    """

    image: UInt8Array
    alpha: UInt8Array
    look: Look
    digests: tuple[str, str]
    files: Mapping[str, InputRecord]


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
    files, behind, partner_digest = name_files(entry, foreground), None, ""
    if look.partner:
        partner = layout.load(partners[look.partner])
        behind, partner_digest = (partner.image, partner.alpha), partner.sha256
        files |= name_files(partners[look.partner], partner)
    image, alpha, look = make_look(foreground.image, foreground.alpha, look, behind)
    return LookPictures(image, alpha, look, (foreground.sha256, partner_digest), files)


def foreground_files(entry: Entry) -> list[str]:
    """Name a foreground's files as sidecars do, in the order in which its source lists them."""
    return [f"foreground {name}" for name in (entry.image, entry.alpha) if name is not None]


def name_files(entry: Entry, foreground: Foreground) -> dict[str, InputRecord]:
    """Return what was read of a foreground, by the names that sidecars give."""
    return dict(zip(foreground_files(entry), foreground.files, strict=False))  # what is drawn has none
