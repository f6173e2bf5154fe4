"""Picture files as bytes: names stay below their root, and what is no plain file is not opened."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

from ..base.errors import SourceError
from ..base.files import open_regular

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
    with open_picture(path, name) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise SourceError(name, "too-large", f"the file has {size:,} bytes; a picture has less")
        data = file.read(size)
    if not data:
        raise SourceError(name, "empty", "the file has no bytes; fetch it again")
    return data


@contextmanager
def open_picture(path: Path, name: str) -> Iterator[io.BufferedReader]:
    """Open a picture file to be read, and say what the system refuses meanwhile.

    Raises
    ------
    SourceError
        Cause ``missing``; or ``not-an-image``: a folder, a device or a pipe, which end never or do not begin.
    """
    try:
        with open_regular(path) as file:
            yield file
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise SourceError(name, "not-an-image", str(error.strerror)) from None
        raise SourceError(name, "missing", f"cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # a zero in its name
        raise SourceError(name, "missing", f"cannot be read: {error}") from None
