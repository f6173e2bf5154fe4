"""Checksums: `SHA256SUMS`, which covers every file of a finished dataset, its index included.

The form is that of ``sha256sum``, which can check it too: ``sha256sum --check SHA256SUMS``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..base.errors import DatasetError
from ..base.files import file_sha256, read_document, write_text

CHECKSUMS = "SHA256SUMS"


LINE = re.compile(r"([0-9a-f]{64})  ((?:shards/)?[A-Za-z0-9-]+\.[a-z0-9]+)")


def write_checksums(folder: Path, known: Mapping[str, str], files: Iterable[str]) -> None:
    """Write the checksums of a dataset.

    Parameters
    ----------
    folder : Path
        The dataset's.
    known : dict of str to str
        Digests that are known already (shards: reading them all again would take long), by name.
    files : iterable of str
        Further files to be read, relative to the folder.
    """
    digests = {**known, **{name: file_sha256(folder / name) for name in files}}
    write_text(folder / CHECKSUMS, "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)))


def covered_files(folder: Path) -> list[Path]:
    """List the files that a dataset consists of, as far as its checksums can be read."""
    try:
        names = read_checksums(folder) or {}
    except DatasetError:
        names = {}
    return [folder / name for name in (CHECKSUMS, *names)]


def read_checksums(folder: Path) -> dict[str, str] | None:
    """Read a dataset's checksums, by name; None where the file is missing.

    Raises
    ------
    DatasetError
        A line is not what `write_checksums` writes.
    """
    try:
        text = read_document(folder / CHECKSUMS).decode("ascii")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{CHECKSUMS}: cannot be read ({error})") from None
    digests: dict[str, str] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        found = LINE.fullmatch(line)
        if found is None or found[2] in digests or not text.endswith("\n"):
            raise DatasetError(f"{CHECKSUMS}: line {number} is damaged")
        digests[found[2]] = found[1]
    return digests
