"""PNG text: files that say in a text chunk what they were made of, so that each is its own record."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..base.arrays import UInt8Array
from ..base.errors import SourceError
from ..base.files import PNG_LEVEL, atomic_write, parse_json
from .picture_bytes import open_picture
from .probe import MAX_PIXELS, probe

END: Final = b"\0\0\0\0IEND\xaeB`\x82"


def write_noted(path: Path, picture: UInt8Array, keyword: str, note: dict[str, Any]) -> None:
    """Write a PNG with its note, whole or not at all.

    Parameters
    ----------
    path : Path
        Its folder is made where there is none.
    picture : (H, W, 4) uint8 RGBA
        What it shows.
    keyword : str
        What the note is about, 1..79 letters.
    note : dict
        Plain types.

    Raises
    ------
    OSError
        The disk refuses.
    """
    text = PngInfo()
    text.add_text(keyword, json.dumps(note, sort_keys=True))
    with atomic_write(path) as temporary:
        Image.fromarray(picture).save(temporary, "PNG", pnginfo=text, compress_level=PNG_LEVEL)


def is_noted(path: Path, keyword: str) -> bool:
    """Tell whether a file begins as `write_noted` begins one, be it whole or not."""
    return keyword in _texts(path)


def read_note(path: Path, keyword: str) -> dict[str, Any] | None:
    """Read a PNG's note; None where there is no such file, it has no such note, or it is damaged."""
    text = _texts(path).get(keyword)
    if text is None or not _is_whole(path):
        return None
    try:
        note = parse_json(text.encode())
    except ValueError:
        return None
    return note if isinstance(note, dict) else None


def _texts(path: Path) -> dict[str, str]:
    """Return the texts before a PNG's pixels; none of what is no PNG."""
    try:
        with open_picture(path, path.name) as file:
            header = probe(file, path.name, MAX_PIXELS)
            return {key: value for key, value in header.picture.info.items() if isinstance(value, str)}
    except SourceError:
        return {}


def _is_whole(path: Path) -> bool:
    """Tell whether a PNG has its end, and all its chunks are what their checksums say."""
    with open_picture(path, path.name) as file:
        try:
            probe(file, path.name, MAX_PIXELS).picture.verify()
        except (SourceError, OSError, SyntaxError, ValueError):
            return False
        file.seek(-len(END), os.SEEK_END)
        return file.read() == END
