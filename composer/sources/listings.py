"""Listings: the names of pictures: what a folder holds, what a text file lists, and what else COCO's are called."""

from __future__ import annotations

import os
from pathlib import Path

from ..base.errors import PlanError
from .probe import ENDINGS

CONTACT_SHEET = "contact-sheet.jpg"  # this program's own, in folders of pictures that it wrote


def list_pictures(root: Path, *, recursive: bool = True) -> list[str]:
    """List the picture files below a folder, by their endings, sorted by name (code points, forward slashes).

    A contact sheet that this program wrote beside them is none of them.

    Raises
    ------
    PlanError : there is no such folder
    """
    if not root.is_dir():
        raise PlanError(f"{root}: expected a folder of pictures, found {'a file' if root.exists() else 'nothing'}")
    found = []

    def refuse(error: OSError) -> None:
        raise PlanError(f"{error.filename}: the folder cannot be read: {error.strerror}")

    for folder, folders, names in os.walk(root, onerror=refuse):
        below = Path(folder).relative_to(root).as_posix()
        prefix = "" if below == "." else f"{below}/"
        pictures = (name for name in names if os.path.splitext(name)[1].lower() in ENDINGS)  # noqa: PTH122
        found += [prefix + name for name in pictures if name != CONTACT_SHEET]
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
    return sorted(found)


def read_list(path: Path) -> list[str]:
    """Read a list of names, a line each; a last line may lack its end.

    Raises
    ------
    PlanError : the file cannot be read
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise PlanError(f"{path}: expected a list of names, a line each: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise PlanError(f"{path}: expected a list of names, a line each, in UTF-8: {error}") from None
    return [line.strip() for line in lines if line.strip()]
