"""Picture files as bytes: names stay below their root, and what is no plain file is not opened."""

from __future__ import annotations

import stat
from pathlib import Path, PurePosixPath
from typing import Final

from ..base.errors import SourceError

MAX_BYTES: Final = 2**30  # no picture file of a gigabyte is a picture


def safe_path(root: Path, name: str) -> Path:
    """Join a name from a list or a manifest to its root.

    Raises
    ------
    SourceError
        Cause ``unsupported``: the name is absolute or would leave the root.
    """
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\0" in name or not pure.parts:
        raise SourceError(name, "unsupported", "a name must stay below its root: no '..', no absolute path")
    return root / pure


def read_bytes(path: Path, name: str) -> bytes:
    """Read a picture file.

    Raises
    ------
    SourceError
        Causes ``missing``, ``empty``, ``not-an-image``, ``too-large``.
    """
    size = refuse_special(path, name)
    if size > MAX_BYTES:
        raise SourceError(name, "too-large", f"the file has {size:,} bytes; a picture has less")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(name, error) from None
    if not data:
        raise SourceError(name, "empty", "the file has no bytes; fetch it again")
    return data


def refuse_special(path: Path, name: str) -> int:
    """Return a file's size; refuse devices and pipes, which end never or do not begin.

    Raises
    ------
    SourceError
        Causes ``missing``, ``not-an-image``.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise unreadable(name, error) from None
    if not stat.S_ISREG(found.st_mode):
        raise SourceError(name, "not-an-image", "expected a file, found a folder, a device or a pipe")
    return found.st_size


def unreadable(name: str, error: Exception) -> SourceError:
    """Return the error of a file that the system does not give."""
    return SourceError(name, "missing", f"cannot be read: {getattr(error, 'strerror', None) or error}")
