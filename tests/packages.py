"""Tiny Debian packages and corpora, true to the format, honest and hostile."""

from __future__ import annotations

import csv
import hashlib
import io
import lzma
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import zstandard

MAGIC = b"!<arch>\n"


def ar_member(name: str, data: bytes, declared: int | None = None) -> bytes:
    """Make a member of an ar archive; it may declare another size than it has."""
    size = len(data) if declared is None else declared
    return f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{size:<10}`\n".encode() + data + b"\n" * (len(data) % 2)


def tar_of(files: Mapping[str, bytes], more: Iterable[tarfile.TarInfo] = ()) -> bytes:
    """Make a tar archive of files, and of entries without content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for entry in more:
            archive.addfile(entry)
        for name, data in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def package_of(tar: bytes, ending: str = ".xz") -> bytes:
    """Make a package of a tar archive."""
    packers = {".xz": lzma.compress, ".zst": zstandard.ZstdCompressor().compress, "": bytes, ".bz2": bytes}
    control = lzma.compress(tar_of({"control": b"Package: tiny\n"}))
    members = ar_member("debian-binary", b"2.0\n") + ar_member("control.tar.xz", control)
    return MAGIC + members + ar_member(f"data.tar{ending}", packers[ending](tar))


def write_corpus(folder: Path, name: str, packages: Mapping[str, Mapping[str, tuple[str, bytes]]]) -> Path:
    """Write packages of version 1:1.0-1 and the tables of a corpus.

    Parameters
    ----------
    folder : Path
        Gets ``NAME.csv``, ``NAME-packages.csv`` and ``debs/``.
    name : str
        The corpus'.
    packages : Mapping
        By name; of each the pictures' places in the fetched folder, with their paths and contents.

    Returns
    -------
    Path
        The table of pictures.
    """
    debs = folder / "debs"
    debs.mkdir(parents=True)
    pictures, rows = [], []
    for package, contents in packages.items():
        data = package_of(tar_of({f"usr/share/doc/{package}/copyright": b"free", **dict(contents.values())}))
        (debs / f"{package}_1%3a1.0-1_all.deb").write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        rows.append([package, "1:1.0-1", len(data), sha256, f"pool/main/{package}_1.0-1_all.deb"])
        for place, (path, content) in contents.items():
            split = "train" if place.startswith("cutouts/") else "background"
            digest = hashlib.sha256(content).hexdigest()
            pictures.append([place, package, path, len(content), digest, 9, 9, 0.1, "CC0-1.0", "nobody", split])
    header = [
        "name",
        "package",
        "path",
        "bytes",
        "sha256",
        "width",
        "height",
        "soft",
        "licence",
        "attribution",
        "split",
    ]
    _write(folder / f"{name}.csv", [header, *pictures])
    _write(folder / f"{name}-packages.csv", [["name", "version", "bytes", "sha256", "address"], *rows])
    return folder / f"{name}.csv"


def _write(path: Path, rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
