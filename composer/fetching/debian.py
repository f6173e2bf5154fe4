"""Debian packages: what lies in one, read in one pass, without dpkg. Packages are untrusted.

A package is an ar archive of three members: ``debian-binary``, ``control.tar.*`` and ``data.tar.*`` (deb(5)).
Nothing is unpacked here: a caller is handed one regular file after the other, and takes what it knows by name.
Memory is bounded whatever a package declares, by what follows the headers and by the constants below.
"""

from __future__ import annotations

import io
import lzma
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Protocol

import zstandard

from ..base.errors import MattingComposeError
from ..base.files import open_regular

AR_MAGIC, AR_ENTRY = b"!<arch>\n", 60


CHUNK = 2**20


MAX_UNPACKED = 16 * 2**30  # the largest data packages of games unpack to 3 GB


MAX_HEADER = 2**20  # a tar header that wants more than this in one piece is no file's name


MAX_DICTIONARY = 256 * 2**20  # of a decoder; dpkg's strongest settings take 65 MiB


class PackageError(MattingComposeError):
    """A package cannot be read: it names the file, and what is wrong with it."""


@dataclass(frozen=True)
class Member:
    """A regular file in a package.

    Attributes
    ----------
    path : str
        Below the root it would be installed to: ``usr/share/…``, as the package spells it.
    size : int
        Bytes, as declared.
    read : Callable[[int], bytes]
        Return the next bytes, at most so many; empty at the end.
    """

    path: str
    size: int
    read: Callable[[int], bytes]


def read_members(path: Path, on_progress: Callable[[int], None] | None = None) -> Iterator[Member]:
    """Yield the regular files of a package, in its order; each is to be read before the next is asked for.

    Links, devices and sparse files are passed over: no picture is one.

    Parameters
    ----------
    path : Path
        The package.
    on_progress : Callable[[int], None] | None
        Called now and then with how many of the package's bytes have been read.

    Raises
    ------
    PackageError
        It cannot be opened, is no package, breaks off, is damaged, or unpacks to more than 16 GiB.
    """
    report = on_progress or (lambda _: None)
    with _translate_errors(path), open_regular(path) as file:
        name, start, size = _find_data(file, path)
        file.seek(start)
        source = _Slice(file, size)
        stream = _ForwardStream(_decoder(name, source, path))
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            while (entry := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # else it keeps every header, of millions if need be
                report(file.tell())
                content = archive.extractfile(entry) if entry.isreg() and not entry.issparse() else None
                if content is not None:
                    yield Member(entry.name.removeprefix("./"), entry.size, partial(_read_content, path, content))
        while source.read(CHUNK):  # whatever follows the last file belongs to the package too
            report(file.tell())


def _read_content(path: Path, content: IO[bytes], size: int) -> bytes:
    with _translate_errors(path):
        return content.read(size)


@contextmanager
def _translate_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except PackageError:
        raise
    except (tarfile.TarError, lzma.LZMAError, zstandard.ZstdError, EOFError, ValueError, OverflowError) as error:
        raise PackageError(f"{path}: the package breaks off or is damaged ({error}); download it again") from None


def _find_data(file: IO[bytes], path: Path) -> tuple[str, int, int]:
    """Return the name, offset and size of the member that holds the files."""
    total = path.stat().st_size
    if file.read(len(AR_MAGIC)) != AR_MAGIC:
        raise PackageError(f"{path}: not a Debian package: expected an ar archive")
    while len(header := file.read(AR_ENTRY)) == AR_ENTRY:
        name, digits = header[:16].decode("latin-1").strip(" /"), header[48:58].strip()
        if header[58:] != b"`\n" or not digits.isdigit():
            raise PackageError(f"{path}: not a Debian package: the header of an ar member is damaged")
        start, size = file.tell(), int(digits)
        if start + size > total:
            found = f"'{name}' declares {size:,} bytes, {total - start:,} follow"
            raise PackageError(f"{path}: the package breaks off: {found}; download it again")
        if name.startswith("data.tar"):
            return name, start, size
        file.seek(start + size + size % 2)
    raise PackageError(f"{path}: not a Debian package: it holds no data.tar")


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Slice:
    """One member of the ar archive, as a file of its own."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    def read(self, size: int = CHUNK, /) -> bytes:
        data = self._file.read(min(size, self._left) if size >= 0 else self._left)
        self._left -= len(data)
        return data


def _decoder(name: str, source: _Slice, path: Path) -> _Reader:
    match name.removeprefix("data.tar"):
        case ".xz":
            return _Xz(source)
        case ".zst":
            return zstandard.ZstdDecompressor(max_window_size=MAX_DICTIONARY).stream_reader(source)  # type: ignore[arg-type]
        case "":
            return source
    raise PackageError(f"{path}: {name} is packed in a way that is not read here; expected .xz, .zst or plain")


class _Xz:
    """An xz stream, decoded piece by piece; `lzma.LZMAFile` knows no limit of memory."""

    def __init__(self, source: _Slice) -> None:
        self._source = source
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_DICTIONARY)

    def read(self, size: int, /) -> bytes:
        while not self._decoder.eof:
            packed = self._source.read(CHUNK) if self._decoder.needs_input else b""
            if self._decoder.needs_input and not packed:
                raise EOFError("the xz stream has no end")
            data = self._decoder.decompress(packed, size)
            if data:
                return data
        return b""


class _ForwardStream(io.RawIOBase):
    """What a decoder gives, as tarfile wants it: it tells where it is and goes forward, never back."""

    def __init__(self, source: _Reader) -> None:
        self._source, self._at = source, 0

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if whence or offset < self._at:
            raise ValueError("a header points backwards")
        if offset > MAX_UNPACKED:
            raise ValueError(f"it unpacks to more than {MAX_UNPACKED >> 30} GiB")
        while self._at < offset and self.read(min(CHUNK, offset - self._at)):
            pass
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise ValueError(f"a header wants {size:,} bytes at once")
        if self._at + size > MAX_UNPACKED:
            raise ValueError(f"it unpacks to more than {MAX_UNPACKED >> 30} GiB")
        pieces = []
        while size and (piece := self._source.read(size)):
            pieces.append(piece)
            size -= len(piece)
            self._at += len(piece)
        return b"".join(pieces)
