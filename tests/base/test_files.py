"""Files: written whole, whatever they are called."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from matting_compose.composer.base.errors import BuildError
from matting_compose.composer.base.files import (
    atomic_write,
    disk_error,
    is_temporary,
    lock_exclusively,
    temporary_name,
    write_text,
)


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    """What is written meanwhile has a name of its own, which must not be longer than names can be."""
    path = tmp_path / f"{'ü' * 125}.json"  # 255 bytes
    write_text(path, "{}")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_bytes_are_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut at any time leaves all of a file or none: its bytes, its name and new folders are synced in order."""
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def record_fsync(descriptor: int) -> None:
        events.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def record_replace(path: Path, target: Path) -> Path:
        events.append(f"name {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_replace)
    with atomic_write(tmp_path / "a" / "b" / "file") as temporary:
        temporary.write_bytes(b"content")
        events.append("written")
    assert events == [
        "sync a", f"sync {tmp_path.name}", "written", f"sync {temporary.name}", "name file", "sync b",
    ]  # fmt: skip


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    """The body fails: the old content stays, and no temporary file."""
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("file", "old")]


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    """Whoever may write there would take /dev/null from everybody."""
    try:
        os.mknod(tmp_path / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    except (AttributeError, PermissionError):
        pytest.skip("only root makes devices")
    with pytest.raises(BuildError, match="found a device"):
        write_text(tmp_path / "null", "a report")
    assert stat.S_ISCHR((tmp_path / "null").stat().st_mode)


def test_only_our_own_temporary_files_are_cleared_away(tmp_path: Path) -> None:
    """What a killed run left goes; what another program calls by such a name stays."""
    ours, others = temporary_name(tmp_path / "sub" / "a.png"), tmp_path / "sub" / ".syncthing.film.mkv.tmp"
    ours.parent.mkdir()
    for path in (ours, others):
        path.write_bytes(b"x")
    with lock_exclusively(tmp_path, "build"):
        assert (ours.exists(), others.exists()) == (False, True)
        with pytest.raises(BuildError, match="another fetch is running here"), lock_exclusively(tmp_path, "fetch"):
            pass
    assert (is_temporary(ours.name), is_temporary(others.name)) == (True, False)


@pytest.mark.skipif(sys.platform == "win32", reason="there, files can always be locked")
def test_a_lock_is_no_mere_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would stay when its process is killed. Where a disk knows no flock, its records do; else it is refused."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with lock_exclusively(tmp_path, "export"):
        pass
    monkeypatch.setattr("fcntl.lockf", refuse)
    refused = pytest.raises(BuildError, match=r"cannot lock files.*Mount it with locks")
    with refused, lock_exclusively(tmp_path, "export"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_the_disk_that_is_full_is_named(tmp_path: Path) -> None:
    """An error of another place, such as that of temporary files, does not blame the dataset's disk."""
    error = OSError(28, "No space left on device", "/tmp-of-another-disk/x")
    assert str(disk_error(error, tmp_path)).startswith("/tmp-of-another-disk/x: the disk is full")
    assert str(disk_error(OSError(28, "No space left on device"), tmp_path)).startswith(f"{tmp_path}: the disk is full")


def test_names_that_are_not_utf8_can_be_written_of(tmp_path: Path) -> None:
    """They are escaped in a text of ours."""
    write_text(tmp_path / "list.txt", "caf\udce9.png")
    assert (tmp_path / "list.txt").read_text(encoding="utf-8") == "caf\\udce9.png"
