"""Debian packages: read as dpkg reads them, and no hostile one does harm."""

from __future__ import annotations

import lzma
import random
import tarfile
from pathlib import Path

import pytest

from matting_compose.composer.fetching.debian import PackageError, read_members
from packages import MAGIC, ar_member, package_of, tar_of

FILES = {"usr/share/a.png": b"abc" * 999, "usr/share/with space.png": b"", f"usr/{'long/' * 40}name.png": b"x" * 600}


def contents(path: Path) -> dict[str, bytes]:
    return {member.path: member.read(2**20) for member in read_members(path)}


def saved(folder: Path, data: bytes) -> Path:
    path = folder / "tiny_1_all.deb"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("ending", [".xz", ".zst", ""])
def test_every_packing_is_read(tmp_path: Path, ending: str) -> None:
    """All that dpkg writes comes out byte for byte, long names and empty files too."""
    assert contents(saved(tmp_path, package_of(tar_of(FILES), ending))) == FILES


def test_what_is_not_read_may_be_passed_over(tmp_path: Path) -> None:
    """A caller takes what it wants; the progress ends at the package's end."""
    path = saved(tmp_path, package_of(tar_of(FILES)))
    seen: list[int] = []
    assert [member.path for member in read_members(path, seen.append)] == list(FILES)
    assert seen == sorted(seen)


def test_links_and_devices_are_no_files(tmp_path: Path) -> None:
    """Only regular files are handed out, so nothing that is one by another name."""
    entries = []
    for name, kind in (("s", tarfile.SYMTYPE), ("h", tarfile.LNKTYPE), ("d", tarfile.DIRTYPE), ("c", tarfile.CHRTYPE)):
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, "/etc/passwd"
        entries.append(entry)
    assert contents(saved(tmp_path, package_of(tar_of(FILES, entries)))) == FILES


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.99])
@pytest.mark.parametrize("ending", [".xz", ".zst", ""])
def test_a_package_that_breaks_off_is_an_error(tmp_path: Path, ending: str, share: float) -> None:
    """Whichever part is lacking, the message names the file."""
    whole = package_of(tar_of({"a": random.Random(1).randbytes(50_000)}), ending)
    with pytest.raises(PackageError, match=r"tiny_1_all\.deb"):
        contents(saved(tmp_path, whole[: int(len(whole) * share)]))


@pytest.mark.parametrize("ending", [".xz", ".zst", ""])
def test_a_stream_that_breaks_off_is_an_error(tmp_path: Path, ending: str) -> None:
    """The ar archive may be whole when what it holds is not."""
    inner = package_of(tar_of({"a": random.Random(1).randbytes(50_000)}), ending)
    stream = inner[inner.index(b"data.tar") + 60 :][:30_000]
    with pytest.raises(PackageError, match="breaks off or is damaged"):
        contents(saved(tmp_path, MAGIC + ar_member(f"data.tar{ending}", stream)))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"PK\3\4" + bytes(99), "expected an ar archive"),
        (MAGIC, "no data.tar"),
        (MAGIC + ar_member("data.tar.xz", b"abc", declared=10**9), "declares 1,000,000,000 bytes, 4 follow"),
        (MAGIC + ar_member("data.tar.xz", b"abc", declared=-5), "damaged"),
        (package_of(tar_of({}), ".bz2"), "expected .xz, .zst or plain"),
        (MAGIC + ar_member("data.tar.xz", lzma.compress(b"no tar" * 999)), "damaged"),
    ],
)
def test_what_is_no_package_is_said(tmp_path: Path, data: bytes, text: str) -> None:
    """The message says what was expected and what was found."""
    with pytest.raises(PackageError, match=text):
        contents(saved(tmp_path, data))


def test_bombs_do_not_fill_memory(tmp_path: Path) -> None:
    """A header that declares gigabytes is refused before they are unpacked."""
    header = tarfile.TarInfo("././@LongLink")
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
        header.type, header.size = kind, 2**33
        bomb = header.tobuf(tarfile.GNU_FORMAT) + bytes(10_000)
        with pytest.raises(PackageError, match="wants 8,589,934,592 bytes at once"):
            contents(saved(tmp_path, package_of(bomb, "")))


@pytest.mark.parametrize("size", [2**40, -512])
def test_impossible_sizes_are_refused(tmp_path: Path, size: int) -> None:
    """A file of a terabyte, and one of less than nothing."""
    header = tarfile.TarInfo("a")
    header.size = 2**40
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    if size < 0:
        block[124:136] = b"\xff" * 10 + b"\xfe\x00"
        block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:512]))
    path = saved(tmp_path, package_of(tar_of({"a": b"x" * 512})[:1024] + bytes(block) + tar_of(FILES), ""))
    with pytest.raises(PackageError):
        list(read_members(path))


def test_damage_is_always_told_as_such(tmp_path: Path) -> None:
    """Whatever byte is wrong, the answer is files or a `PackageError`, never another error."""
    whole = package_of(tar_of(FILES), "")
    rng = random.Random(431)
    refused = 0
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            contents(saved(tmp_path, bytes(data)))
        except PackageError:
            refused += 1
    assert refused > 10
