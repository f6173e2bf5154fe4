"""Recognise: what a file is that was given in the place of a checkpoint, so that it is told as that."""

from __future__ import annotations

import logging
from pathlib import Path

from ...composer.base.files import open_regular

__all__ = ["find_checkpoint"]

logger = logging.getLogger(__name__)


BEST, LAST = "best.pt", "last.pt"


# The first bytes of what is often given instead, and what to do.
KINDS = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself: run git lfs pull"),
    (b"<", "a page (HTML or XML), such as a site sends in the place of a file: download the file itself"),
    (b"\x89HDF", "an HDF5 file: a shard, or weights of another program; give the file that training wrote"),
    (b"\x80", "a bare pickle, as PyTorch wrote before 1.6: it could run code, so it is not read; save it anew"),
)


def find_checkpoint(path: Path) -> Path:
    """Find the file that is meant by a path: itself, or a run's best.pt; its last.pt where nothing was validated.

    Parameters
    ----------
    path : Path
        A file, or a run's folder.

    Returns
    -------
    Path
        A regular file that may be a checkpoint.

    Raises
    ------
    ValueError
        It is something else: a folder that is no run, a pipe, a pointer of Git LFS, a page, a bare pickle.
    OSError
        It cannot be read.
    """
    if path.is_dir():
        found = next((path / name for name in (BEST, LAST) if (path / name).is_file()), None)
        if found is None:
            raise ValueError(f"{path}: expected a checkpoint, or a run's folder with {BEST} or {LAST}; found neither")
        if found.name == LAST:
            logger.info("%s: no %s, since nothing was validated; %s it is", path, BEST, LAST)
        path = found
    with open_regular(path) as file:
        start = file.read(64).lstrip()
    if not start:
        raise ValueError(f"{path}: expected a checkpoint, found an empty file; fetch it again")
    # A .safetensors file begins with the size of its header, which may look like anything.
    for magic, what in KINDS if path.suffix != ".safetensors" else KINDS[:1]:
        if start.startswith(magic):
            raise ValueError(f"{path}: expected a checkpoint, found {what}")
    return path
