"""Files: written whole or not at all, in a folder that one process holds; and what a refusal of the disk means.

Whatever is written goes through `atomic_write`: durable first, named then.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import BuildError, DatasetError, FileError
from .file_names import LOCK
from .storage import is_remote, sync_to_disk
from .system import READ_AT_ONCE, fcntl

TEMPORARY = ".tmp"


OURS = re.compile(rf"\.[^/]{{1,50}}\.[0-9a-f]{{32}}{re.escape(TEMPORARY)}")


MOST_BYTES = 2**28  # of a document: a plan of five million composites takes a tenth of it


MOST_VALUES = 2**24  # of a document: a plan of three million foregrounds, as large as may be, has three quarters of it


PNG_LEVEL = 3  # half of the time of OpenCV's own, for files a few per cent larger


REFUSED = re.compile(r"errno = (\d+), error message = '([^']*)'")  # HDF5's words for what the system said


def temporary_name(path: Path) -> Path:
    """Name a file that is to become `path`; two machines may share a folder, and have processes of the same number."""
    return path.with_name(f".{path.name[:50]}.{uuid.uuid4().hex}{TEMPORARY}")  # a name may be as long as names can be


def free_name(path: Path) -> Path:
    """Return a path, or where there is something already, it with a number behind: nothing is replaced."""
    numbers = (path.with_name(f"{path.name}.{n}") for n in range(1, 1_000_000))
    return path if not path.exists() else next(other for other in numbers if not other.exists())


def is_temporary(name: str) -> bool:
    """Tell whether a file's name is one that `temporary_name` gives: another program's are not ours to remove."""
    return OURS.fullmatch(name) is not None


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary name to write under; what is there becomes `path` when the body ends well, else it goes.

    The folder is made where there is none. The bytes are on the disk before the name is, and the name before the next
    statement runs: a power cut leaves what was there before, or all of the new.

    Parameters
    ----------
    path : Path
        The final name, on this machine.

    Yields
    ------
    Path
        A name in the same folder, at which there is no file yet.

    Raises
    ------
    OSError
        The disk refuses, or a device is there; what was there before is still there.

    Examples
    --------
    >>> from pathlib import Path
    >>> with atomic_write(Path("notes/today.txt")) as temporary:
    ...     _ = temporary.write_text("all or nothing")
    >>> Path("notes/today.txt").read_text()
    'all or nothing'
    """
    temporary = temporary_name(path)
    _refuse_device(path)
    try:
        _make_folder(path.parent)
        yield temporary
        sync_to_disk(temporary)
        temporary.replace(path)
        sync_to_disk(path.parent)
    finally:
        with contextlib.suppress(OSError):  # what could not be made need not be removed
            temporary.unlink(missing_ok=True)


def _refuse_device(path: Path) -> None:
    """Let no file take the place of a device: of /dev/null, who may write there would take it from everybody."""
    with contextlib.suppress(FileNotFoundError):
        kind = path.lstat().st_mode
        if stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
            raise OSError(errno.EINVAL, "expected a file or nothing, found a device", str(path))


def _make_folder(folder: Path) -> None:
    """Make a folder, and those above it, so that a power cut leaves them."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in new:
        sync_to_disk(path.parent)


@contextlib.contextmanager
def lock_exclusively(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder, made where there is none, for this process alone, and clear away what a killed one left.

    Parameters
    ----------
    folder : Path
        On this machine.
    what : str
        What runs in it, for the message: ``fetch``.

    Raises
    ------
    BuildError
        Another such `what` runs there, or the folder cannot be written.
    """
    from filelock import Timeout  # which readers need not wait for

    from .locks import lock_kind

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_kind(folder)(folder / LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        raise BuildError(f"{folder}: another {what} is running here; wait for it, or choose another --out") from None
    except OSError as error:
        raise disk_error(error, folder) from None
    try:
        for left in folder.rglob(f".*{TEMPORARY}"):
            if is_temporary(left.name):
                left.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def share_folder(folder: Path, results: Iterable[Path]) -> Iterator[None]:
    """Write into a folder, made where there is none, beside others who do; first clear away what a killed one left.

    That is temporary files of these results, and only while no other process shares the folder. The lock is on the
    folder itself and leaves no file; where there are no such locks, as on Windows, nothing is cleared away.

    Parameters
    ----------
    folder : Path
        On this machine.
    results : iterable of Path
        What is to be written, in it or below it.

    Raises
    ------
    BuildError
        The folder cannot be made.
    """
    try:
        _make_folder(folder)
    except OSError as error:
        raise disk_error(error, folder) from None
    descriptor = None
    with contextlib.suppress(OSError):  # Windows opens no folders, and some may be written and not read
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        if _lock(descriptor, alone=True):
            begun = {_trunk(temporary_name(path)) for path in results}
            for left in (left for parent in {path.parent for path in begun} for left in parent.glob(f".*{TEMPORARY}")):
                if is_temporary(left.name) and _trunk(left) in begun:
                    with contextlib.suppress(OSError):  # it may be another user's
                        left.unlink()
        _lock(descriptor, alone=False)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _trunk(temporary: Path) -> Path:
    """Return what the temporary files of one result have in common."""
    return temporary.with_name(temporary.name.rsplit(".", 2)[0])


def _lock(descriptor: int | None, *, alone: bool) -> bool:
    """Lock a folder, alone or with others, if that is possible at once; tell whether it is."""
    with contextlib.suppress(OSError):
        if descriptor is not None:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            return True
    return False


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file to be read, if it is one: a pipe may never begin, and a device never end.

    Raises
    ------
    OSError
        It is missing, a folder, a device or a pipe, or may not be read.
    """
    descriptor = os.open(path, READ_AT_ONCE)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "expected a file, found a folder, a device or a pipe", str(path))
    return os.fdopen(descriptor, "rb")


def read_document(path: Path) -> bytes:
    """Read a small file, here or in object storage.

    Raises
    ------
    OSError
        It cannot be read, is no file, or holds more than `MOST_BYTES`.
    """
    with path.open("rb") if is_remote(path) else open_regular(path) as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise OSError(errno.EFBIG, f"holds more than {MOST_BYTES:,} bytes", str(path))
    return bytes(data)


def bound_values(data: bytes) -> bytes:
    """Return JSON or TOML as it is: a list takes three bytes of text, and a hundred once it is parsed.

    Raises
    ------
    ValueError
        It may have more than `MOST_VALUES`.
    """
    found = sum(map(data.count, (b",", b"[", b"{", b"=")))
    if found > MOST_VALUES:
        raise ValueError(f"some {found:,} values, at most {MOST_VALUES:,} are read")
    return data


def parse_json(data: bytes) -> Any:
    """Parse JSON in UTF-8, numbers finite. Raise ValueError where it is none, too large or nested too deeply."""
    try:
        return json.loads(
            bound_values(data).decode("utf-8"), parse_constant=_refuse_constant, parse_float=_parse_finite
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _parse_finite(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"{text[:20]} is larger than any number")
    return value


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None where it is missing or damaged, which means: make it again."""
    try:
        value = parse_json(read_document(path))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object; see `write_file`."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file; see `write_file`. What UTF-8 has no bytes for, of names that are not UTF-8, is escaped."""
    write_file(path, text.encode(errors="backslashreplace"))


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Write a file whole or not at all, and durably.

    Parameters
    ----------
    path : Path
        On this machine, or in object storage.
    data : bytes-like
        All of it.

    Raises
    ------
    BuildError
        It cannot be written; what was there before is still there.
    """
    if is_remote(path):
        path.write_bytes(data)
        return
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise disk_error(error, path.parent) from None


def encode_picture(picture: NDArray[np.uint8] | NDArray[np.uint16], ending: str) -> memoryview:
    """Encode a picture in the format of a file's ending.

    Parameters
    ----------
    picture : (H, W), (H, W, 3) or (H, W, 4), uint8 or uint16
        Grey, RGB or RGBA.
    ending : str
        ``.png``, ``.jpg``, or another that OpenCV writes.

    Returns
    -------
    memoryview
        The file's bytes.

    Raises
    ------
    DatasetError
        It cannot be encoded.
    """
    orders = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    ordered = picture if picture.ndim == 2 else cv2.cvtColor(picture, orders[picture.shape[2]])
    settings = [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL] if ending == ".png" else []
    done, data = cv2.imencode(ending, ordered, settings)
    if not done:
        raise DatasetError(f"a picture of {picture.shape} could not be encoded as {ending}")
    return memoryview(data)  # type: ignore[arg-type]  # an array of bytes


def disk_error(error: Exception, folder: Path) -> BuildError:
    """Say what an operating system's refusal means for a build, and what to do.

    Parameters
    ----------
    error : Exception
        The system's, or HDF5's, which holds the system's words.
    folder : Path
        Where was written, unless the error names another place: the disk that is full may be that of TMPDIR.
    """
    found = REFUSED.search(str(error))
    number = int(found[1]) if found else getattr(error, "errno", None)
    named = getattr(error, "filename", None)
    place = folder if not isinstance(named, str) or folder.absolute() in Path(named).absolute().parents else Path(named)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return BuildError(f"{place}: the disk is full. Nothing finished is lost: make room and run the same command")
    reason = found[2] if found else (getattr(error, "strerror", None) or str(error)).partition("\n")[0]
    return BuildError(f"{place}: cannot be written ({reason}); then run the same command again")


def refuse_replacing(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Make sure that nothing that is to be written is one of the files that are read, by whatever name.

    Raises
    ------
    FileError
        It is.
    """
    read = {path.resolve() for path in inputs}
    if output := next((path for path in outputs if path.resolve() in read), None):
        raise FileError(f"{output}: the result would replace its own input; choose another -o")


def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    with path.open("rb") if is_remote(path) else open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, digest: str, package: str) -> None:
    """See that a file that an installed package brought is the one that is known. Raise ValueError where it is not."""
    if (found := file_sha256(path)) != digest:
        raise ValueError(f"{path}: expected SHA-256 {digest}, found {found}; install {package} again")


def free_bytes(folder: Path) -> int:
    """Return the room on the disk where a folder is, or will be."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free
