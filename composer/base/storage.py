"""Storage: where a dataset lies: in a folder, or under an address such as ``s3://bucket/dataset``.

What lies elsewhere is given as a `UPath`, which has a `Path`'s methods, so that few need to know. Three things differ.
Whole objects are put and none is renamed, so a file is made here, sent, and read back. HDF5 wants files, so shards are
copied to this machine before they are read. And nothing can be locked.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from .errors import BuildError, DatasetError
from .packages import install_command
from .text import format_size

logger = logging.getLogger(__name__)


ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://.+")


CACHE_FOLDER = "MATTING_COMPOSE_CACHE"  # environment: where copies are kept


CACHE_GIGABYTES = "MATTING_COMPOSE_CACHE_GB"  # environment: how much they may take


DEFAULT_GIGABYTES = 32.0


COPY = re.compile(r"[0-9a-f]{32}(-.+|\.part)")  # and what a killed process left of one


PIECE = 8 * 2**20  # bytes moved at once


def resolve_path(where: str | Path) -> Path:
    """Return where a dataset lies: a `Path` as it is, an address as something that acts like one.

    Parameters
    ----------
    where : str or Path
        A folder, or ``s3://bucket/dataset`` and the like.

    Returns
    -------
    Path
        Or a `UPath`, which has a Path's methods; `is_remote` tells them apart.

    Raises
    ------
    DatasetError
        There is no such kind of address, what speaks to it is not installed, or nothing answers.
    """
    if isinstance(where, str) and ADDRESS.fullmatch(where):
        try:
            import fsspec
            from upath import UPath

            fsspec.get_filesystem_class(where.partition("://")[0])
            found = UPath(where.rstrip("/"), use_listings_cache=False)  # others write there too
            storage = found.fs
        except (ImportError, ValueError) as error:
            raise DatasetError(
                f"{where}: cannot be reached ({error}); object storage needs {install_command('remote')}"
            ) from None
        with _translate_errors(cast(Path, found)), contextlib.suppress(FileNotFoundError):
            storage.isdir(found.path)  # does anybody answer?
        return cast(Path, found)
    return Path(where) if isinstance(where, str) else where


def is_remote(where: Path) -> bool:
    """Tell whether what `resolve_path` gave is no path of this machine."""
    return not isinstance(where, Path)


def list_sizes(folder: Path) -> dict[str, int]:
    """List a folder's files; none where there is no folder.

    Returns
    -------
    dict[str, int]
        Sizes in bytes, by name.

    Raises
    ------
    DatasetError
        The storage does not answer.
    """
    if not is_remote(folder):
        found = {}
        for item in folder.iterdir() if folder.is_dir() else ():
            with contextlib.suppress(FileNotFoundError):  # another process' temporary file has just been renamed
                found[item.name] = item.stat().st_size
        return found
    with _translate_errors(folder):
        try:
            items = _fs(folder).ls(_key(folder), detail=True, refresh=True)
        except FileNotFoundError:
            return {}
        return {item["name"].rpartition("/")[2]: int(item["size"] or 0) for item in items}


def put(file: Path, final: Path, sha256: str) -> None:
    """Give a finished file its final name: at once or not at all, durably, and proved.

    Parameters
    ----------
    file : Path
        On this machine, its bytes on the disk.
    final : Path
        Its name, in the same folder or in object storage.
    sha256 : str
        Of its bytes, hex.

    Raises
    ------
    BuildError
        What is read back from the storage is not what was sent.
    DatasetError
        The storage does not answer.
    """
    if not is_remote(final):
        file.replace(final)
        sync_to_disk(final.parent)
        return
    with _translate_errors(final):
        _fs(final).put_file(str(file), _key(final))
        with _open(final) as sent:
            digest = hashlib.file_digest(sent, "sha256").hexdigest()
    if digest != sha256:
        final.unlink(missing_ok=True)
        raise BuildError(f"{final}: what was read back is not what was sent; run the same command again")


def sync_to_disk(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, have reached the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        if path.is_dir():  # Windows opens no folders
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP)):  # some network's folders
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """Give a folder on this machine in which files for `folder` are made: itself, if it is here."""
    if not is_remote(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="matting-compose-") as here:
        yield Path(here)


@contextlib.contextmanager
def copy_locally(path: Path) -> Iterator[Path]:
    """Give a file on this machine while the body runs: itself, or a copy that goes afterwards.

    Raises
    ------
    FileNotFoundError
        There is none.
    """
    with staging_folder(path.parent) as folder:
        if is_remote(path):
            _fetch(path, folder / path.name)
        yield folder / path.name


def cache_locally(path: Path, size: int, sha256: str) -> Path:
    """Return a file on this machine: itself, or a copy that is kept until room is needed for others.

    Copies are proved when they come, and shared by all processes. They lie in the folder that ``MATTING_COMPOSE_CACHE``
    names, and take up to ``MATTING_COMPOSE_CACHE_GB``; the one used longest ago goes first. Who has one open keeps it.

    Parameters
    ----------
    path : Path
        The file, here or in object storage.
    size : int
        Its bytes.
    sha256 : str
        Of its bytes, hex.

    Returns
    -------
    Path
        On this machine.

    Raises
    ------
    DatasetError
        There is no such file, or it is not the one that `sha256` speaks of.
    """
    if not is_remote(path):
        return path
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise DatasetError(f"{path}: the index lists it with '{sha256}' for a SHA-256; verify the dataset")
    from .locks import lock_kind  # whose package takes longer to import than the rest of the format

    root = _cache_folder()
    copy = root / f"{sha256[:32]}-{path.name}"
    locks = _make_folder(root / "locks")
    with lock_kind(locks)(locks / sha256[:2]):  # one of several processes fetches it, the others wait
        if not copy.exists() or copy.stat().st_size != size:
            part = root / f"{uuid.uuid4().hex}.part"
            try:
                digest = _fetch(path, part)
                if digest != sha256:
                    raise DatasetError(f"{path}: it is not the shard that the index lists; verify the dataset")
                sync_to_disk(part)
                part.replace(copy)
            except FileNotFoundError:
                raise DatasetError(f"{path}: the shard is missing; build again to render it") from None
            finally:
                part.unlink(missing_ok=True)
            _make_room(root, keep=copy)
        os.utime(copy)
    return copy


def locks_folder(folder: Path) -> Path:
    """Return where a folder's locks lie: in it; or here, for processes of this machine, where it cannot be locked."""
    if not is_remote(folder):
        return folder
    return _make_folder(_cache_folder() / "builds" / hashlib.sha256(str(folder).encode()).hexdigest())


def _fetch(path: Path, to: Path) -> str:
    """Copy a file here; return its SHA-256."""
    digest = hashlib.sha256()
    try:
        with to.open("wb") as file:
            for piece in _pieces(path):
                digest.update(piece)
                file.write(piece)
    except FileNotFoundError:
        raise
    except OSError as error:  # of this machine's disk
        raise DatasetError(
            f"{to.parent}: a copy of {path.name} cannot be written there ({error.strerror}); make room, or let"
            f" {CACHE_FOLDER} name another folder"
        ) from None
    return digest.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    with _translate_errors(path), _open(path) as source:
        while piece := source.read(PIECE):
            yield piece


def _make_room(root: Path, keep: Path) -> None:
    """Remove the copies that were used longest ago until the rest is as small as it should be."""
    text = os.environ.get(CACHE_GIGABYTES, str(DEFAULT_GIGABYTES))
    try:
        limit = float(text) * 1e9
    except ValueError:
        raise DatasetError(f"{CACHE_GIGABYTES}: expected a number of gigabytes, found '{text}'") from None
    copies = []
    for copy in filter(lambda path: COPY.fullmatch(path.name), root.iterdir()):  # a user may keep others there
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            copies.append((copy.stat().st_mtime, copy.stat().st_size, copy))
    copies = sorted(entry for entry in copies if entry[2].is_file())
    total = sum(size for _, size, _ in copies)
    for _, size, copy in copies:
        if total > limit and copy != keep:
            copy.unlink(missing_ok=True)
            total -= size
            logger.debug("%s: evicted from the cache, which may take %s", copy.name, format_size(limit))


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(CACHE_FOLDER) or Path(base) / "matting-compose")


def _make_folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _open(path: Path) -> Any:
    return _fs(path).open(_key(path), "rb", block_size=PIECE, cache_type="readahead")


def _fs(path: Path) -> Any:
    return cast(Any, path).fs


def _key(path: Path) -> str:
    return str(cast(Any, path).path)


@contextlib.contextmanager
def _translate_errors(path: Path) -> Iterator[None]:
    """Tell in a line what a storage's own error, of whatever kind, means."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DatasetError(
            f"{path}: the storage does not answer, or refuses ({reason}). Nothing finished is lost: run it again"
        ) from error
