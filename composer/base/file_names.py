"""File names: a key that may hold anything, as a name that every file system takes."""

from __future__ import annotations

import hashlib

LONGEST_NAME = 180  # bytes: file systems allow 255, and endings are to come


LOCK = ".lock"  # of a folder, in it


DEVICES = frozenset({"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in "123456789¹²³")})


UNSAFE = frozenset('<>:"|?*\\%')  # what some file systems refuse, and our own escape


def file_name(name: str) -> str:
    """Make a name that is safe in any folder out of any name: different ones stay different.

    Folders in it stay folders. What could leave them, or is refused by some file system, is written as ``%`` and the
    hex of its UTF-8 bytes; what is too long ends in its digest.
    """
    return "/".join(_safe_part(part) for part in name.split("/"))


def _safe_part(part: str) -> str:
    coded = "".join(c if c.isprintable() and c not in UNSAFE else _percent_encode(c) for c in part)
    if not coded or coded[0] in ". " or coded[-1] in ". ":  # hidden, or cut off by some file systems; and . and ..
        coded = "".join(_percent_encode(c) if c in ". " else c for c in coded) or "%"
    if coded.partition(".")[0].rstrip(" ").upper() in DEVICES:
        coded = _percent_encode(coded[0]) + coded[1:]
    if len(coded.encode()) > LONGEST_NAME:
        digest = hashlib.sha256(coded.encode()).hexdigest()[:16]
        coded = coded.encode()[: LONGEST_NAME - 17].decode(errors="ignore") + "~" + digest
    return coded


def _percent_encode(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
