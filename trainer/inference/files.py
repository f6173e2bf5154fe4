"""Files: which pictures belong together by name, and how results are written."""

from __future__ import annotations

from pathlib import Path

from ...composer.base.errors import FileError
from ...composer.sources.probe import ENDINGS

__all__ = ["list_pictures"]


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
