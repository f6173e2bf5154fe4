"""Listings: which pictures a folder holds, what in it is passed over, and how a listed name is found again.

All commands list folders here. A name is a relative one with forward slashes, in valid Unicode: bytes of a file's name
that are not UTF-8 are written ``\\xE9`` as Python's ``backslashreplace`` does, so that every document can hold it.
"""

from __future__ import annotations

import heapq
import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..base.errors import PlanError
from ..base.file_names import LOCK
from ..base.files import read_document
from .picture_bytes import safe_path
from .probe import ENDINGS

logger = logging.getLogger(__name__)

CONTACT_SHEET: Final = "contact-sheet.jpg"  # this program's own, in folders of pictures that it wrote


EXTRACT_REPORT: Final = "extract.json"  # likewise


EXTRACT_PAGE: Final = "extract.html"


OWN: Final = frozenset({CONTACT_SHEET, EXTRACT_REPORT, EXTRACT_PAGE, LOCK})


MACOS_COPIES: Final = "__MACOSX"  # the folder of attributes in archives that were packed on a Mac


UNDECODED: Final = re.compile(r"\\x([89a-f][0-9a-f])")


@dataclass(frozen=True)
class Listing:
    """The pictures of a folder.

    Attributes
    ----------
    root : Path
        The folder.
    names : tuple of str
        Its pictures below it, sorted by code points.
    passed_over : tuple of (str, int)
        What else it holds: kinds of files (an ending, ``._*``, ``hidden``) and folders, and how many of each.
    """

    root: Path
    names: tuple[str, ...]
    passed_over: tuple[tuple[str, int], ...] = ()

    def path(self, name: str) -> Path:
        """Return the file of one of the names."""
        return find_file(self.root, name)


def list_pictures(root: Path, *, recursive: bool = True, without: Path | None = None) -> Listing:
    """List the picture files of a folder, by their endings in any case.

    Links to folders are followed. A folder is listed once, under its own name where it has one, so that no loop of
    links is run through. Hidden files and folders, macOS's copies of attributes and this program's own files are no
    pictures.

    Parameters
    ----------
    root : Path
        The folder.
    recursive : bool
        Whether folders in it are listed, too.
    without : Path, optional
        A folder in it that is passed over: where results are written.

    Raises
    ------
    PlanError
        There is no such folder, or one in it cannot be read.

    Examples
    --------
    >>> from pathlib import Path
    >>> for name in ("a.JPG", "b/c.png", "b/notes.psd", "__MACOSX/b/._c.png"):
    ...     Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
    ...     Path("photos", name).touch()
    >>> listing = list_pictures(Path("photos"))
    >>> listing.names
    ('a.JPG', 'b/c.png')
    >>> describe_passed_over([listing])
    '2 files passed over: 1 .psd, 1 __MACOSX/'
    """
    if not root.is_dir():
        raise PlanError(f"{root}: expected a folder of pictures, found {'a file' if root.exists() else 'nothing'}")
    names: list[str] = []
    passed_over: Counter[str] = Counter()
    for prefix, item in _walk(root, recursive, without, passed_over):
        if _is_picture(item.name):
            names.append(prefix + document_name(item.name))
        elif item.name not in OWN:
            passed_over[_kind(item.name)] += 1
    return Listing(root, tuple(sorted(names)), _most_first(passed_over))


def list_place(place: Path, *, without: Path | None = None) -> Listing:
    """List a folder as `list_pictures` does; a file is a listing of one, whatever its ending.

    Raises
    ------
    PlanError
        There is neither.
    """
    if place.is_file():
        return Listing(place.parent, (document_name(place.name),))
    if not place.exists():
        raise PlanError(f"{place}: expected a picture or a folder of pictures, found nothing")
    return list_pictures(place, without=without)


def describe_passed_over(listings: Iterable[Listing]) -> str:
    """Say what folders hold that is not used; nothing where all is."""
    kinds: Counter[str] = Counter()
    for listing in listings:
        kinds.update(dict(listing.passed_over))
    if not kinds:
        return ""
    count = kinds.total()
    listed = ", ".join(f"{number:,} {kind}" for kind, number in _most_first(kinds))
    return f"{count:,} {'file' if count == 1 else 'files'} passed over: {listed}"


def log_passed_over(*listings: Listing) -> None:
    """Log what folders hold that is not used."""
    for listing in listings:
        if listing.passed_over:
            logger.warning("%s: %s", document_name(str(listing.root)), describe_passed_over([listing]))


@contextmanager
def say_once() -> Iterator[None]:
    """Log what a folder holds that is not used once, however often the folder is listed meanwhile."""
    said: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        before = len(said)
        said.add(record.getMessage())
        return len(said) > before

    logger.addFilter(is_new)
    try:
        yield
    finally:
        logger.removeFilter(is_new)


def document_name(name: str) -> str:
    r"""Write a file's name as valid Unicode, bytes that are not UTF-8 as ``\xe9``.

    >>> document_name("caf\udce9.png")
    'caf\\xe9.png'
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def find_file(root: Path, name: str) -> Path:
    """Return the file of a listed name: as it stands, with its bytes as they were, or its accents coded otherwise.

    Raises
    ------
    SourceError
        The name would leave the root.
    """
    path = safe_path(root, name)
    if (name.isascii() and "\\x" not in name) or os.path.lexists(path):
        return path
    raw = UNDECODED.sub(lambda found: chr(0xDC00 + int(found[1], 16)), name)
    forms = (raw, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))
    return next((other for other in (safe_path(root, form) for form in forms) if os.path.lexists(other)), path)


def read_list(path: Path) -> list[str]:
    """Read a list of names, a line each; a last line may lack its end, and names may begin with ``./``.

    Raises
    ------
    PlanError
        The file cannot be read.
    """
    try:
        text = read_document(path).decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise PlanError(f"{path}: expected a list of names, a line each: {error.strerror}") from None
    if "\0" in text:
        raise PlanError(f"{path}: expected a list of names, a line each, in UTF-8; found zeros, as UTF-16 has them")
    lines = (document_name(line.strip()) for line in text.splitlines())
    return [line.removeprefix("./") for line in lines if line]


def _most_first(kinds: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0])))


def _walk(
    root: Path, recursive: bool, without: Path | None, passed_over: Counter[str]
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield files, each with what goes before its name: of folders first, and then of links to folders."""
    seen = {_identity(without)} if without and without.is_dir() and not without.samefile(root) else set()
    folders, links = [("", root)], list[tuple[str, Path]]()
    while folders or links:
        prefix, folder = folders.pop() if folders else heapq.heappop(links)
        for item in _scan(folder, seen):
            if not _is_folder(item):
                yield prefix, item
            elif item.name == MACOS_COPIES or item.name.startswith("."):
                passed_over[f"{item.name}/"] += 1
            elif recursive:
                below = (f"{prefix}{document_name(item.name)}/", Path(item.path))
                heapq.heappush(links, below) if item.is_symlink() else folders.append(below)


def _scan(folder: Path, seen: set[tuple[int, int]]) -> list[os.DirEntry[str]]:
    """List what is in a folder, unless it was seen."""
    try:
        if (identity := _identity(folder)) in seen:
            return []
        seen.add(identity)
        with os.scandir(folder) as found:
            return list(found)
    except OSError as error:
        raise PlanError(f"{folder}: the folder cannot be read: {error.strerror}") from None


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError:  # a link to itself
        return False


def _is_picture(name: str) -> bool:
    return _ending(name) in ENDINGS and name not in OWN and not name.startswith(".")


def _kind(name: str) -> str:
    if name.startswith("."):
        return "._*" if name.startswith("._") else "hidden"
    return document_name(_ending(name)) or "without an ending"


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122
