"""Noted: PNG files that say in a text chunk what they were made of, so that each is its own record."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..base.files import atomic_write, encode_picture

START: Final = 8 + 25  # bytes: the signature and the header's chunk


END: Final = b"\0\0\0\0IEND\xaeB`\x82"


KIND: Final = b"tEXt"


MOST: Final = 10_000  # bytes


def write_noted(path: Path, picture: NDArray[np.uint8], keyword: str, note: dict[str, Any]) -> None:
    """Write a PNG with its note, whole or not at all; the same bytes for the same picture and note.

    Parameters
    ----------
    path : its folder is made where there is none
    picture : (H, W, 4) uint8 RGBA
    keyword : what the note is about, 1..79 letters
    note : plain types

    Raises
    ------
    OSError : the disk refuses
    DatasetError : the picture cannot be coded
    """
    data = encode_picture(picture, ".png")
    text = keyword.encode("ascii") + b"\0" + json.dumps(note, sort_keys=True).encode("ascii")
    chunk = struct.pack(">I", len(text)) + KIND + text + struct.pack(">I", zlib.crc32(KIND + text))
    with atomic_write(path) as temporary, temporary.open("xb") as file:
        for piece in (data[:START], chunk, data[START:]):
            file.write(piece)


def is_noted(path: Path, keyword: str) -> bool:
    """Tell whether a file begins as `write_noted` begins one, be it whole or not."""
    begin = KIND + keyword.encode("ascii") + b"\0"
    try:
        with path.open("rb") as file:
            return file.read(START + 4 + len(begin))[START + 4 :] == begin
    except OSError:
        return False


def read_note(path: Path, keyword: str) -> dict[str, Any] | None:
    """Read a PNG's note; None where there is no such file, it has no such note, or it breaks off."""
    try:
        with path.open("rb") as file:
            head = file.read(START + 8 + MOST)
            file.seek(-len(END), os.SEEK_END)
            complete = file.read() == END
    except OSError:
        return None
    if not complete or len(head) < START + 8:
        return None
    length, kind = struct.unpack(">I4s", head[START : START + 8])
    name, _, text = head[START + 8 : START + 8 + length].partition(b"\0")
    if kind != KIND or name != keyword.encode("ascii"):
        return None
    try:
        note = json.loads(text)
    except ValueError:
        return None
    return note if isinstance(note, dict) else None
