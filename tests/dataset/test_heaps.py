"""The texts of a shard's attributes: HDF5 has no checksum for them, and does not end reading some that are damaged."""

from __future__ import annotations

import multiprocessing
import os
import re
import struct
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import h5py
import numpy as np
import pytest

from matting_compose.composer.base.errors import DatasetError
from matting_compose.composer.dataset import heaps
from matting_compose.composer.dataset.reader import ShardReader
from matting_compose.composer.dataset.rows import FORMAT, Header, Row
from matting_compose.composer.dataset.writer import LIBVER, ShardWriter

LONGEST = 600  # seconds; a child that is still at work then goes round in circles


def write_shard(path: Path, groups: int = 1, name: str = "disc") -> None:
    """Write a shard of composites of 16×16 px, one to a group."""
    pixels = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    alpha = pixels[..., 0].copy()
    rows = [
        Row(f"{name}{n}_0", f"{name}{n}", 0, "photo", "1" * 64, 16, 16, 1.0, 0, 0, 1, 1, n, 0) for n in range(groups)
    ]
    with ShardWriter(path, Header("0" * 64, 0, "train", "plain", 95, 16, "none")) as shard:
        for row in rows:
            group = shard.group(row.group, row.foreground, "2" * 64, (16, 16), 1)
            group.write_foreground(pixels, alpha)
            group.write_composite(0, pixels, alpha, pixels)
        shard.finish(rows)


def collections(data: bytes) -> list[tuple[int, int]]:
    """Return where a shard's collections of texts lie: start and length of each."""
    found = [match.start() for match in re.finditer(rb"GCOL\x01", data)]
    return [(at, int.from_bytes(data[at + 8 : at + 16], "little")) for at in found]


def read_texts(path: Path) -> None:
    """Open a shard, and read the attributes of all its groups."""
    with ShardReader(path) as reader:
        for number in set(reader.table["group"].tolist()):
            reader.attributes(number)


def flip_every_bit(path: Path) -> None:
    """Read a shard as often as its collections have bits, with one of them changed: in a process that may hang."""
    data, refused = path.read_bytes(), 0
    used = [(at, len(data[at : at + length].rstrip(b"\0")) + 8) for at, length in collections(data)]  # zeros are free
    with path.open("r+b", buffering=0) as file:
        for at in (at for start, length in used for at in range(start, start + length)):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([data[at] ^ 1 << bit]), at)
                try:
                    read_texts(path)
                except DatasetError:
                    refused += 1
            os.pwrite(file.fileno(), data[at : at + 1], at)
    read_texts(path)
    assert refused > 0


def test_a_flipped_bit_of_a_text_is_read_to_an_end(tmp_path: Path) -> None:
    """Whichever bit of the texts, their lengths and their numbers it is: a shard with other texts, or an error."""
    write_shard(tmp_path / "a.h5")
    child = multiprocessing.get_context("spawn").Process(target=flip_every_bit, args=(tmp_path / "a.h5",))
    child.start()
    child.join(LONGEST)
    child.kill()
    child.join()
    assert child.exitcode == 0


def looked_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> set[bytes]:
    """Return the collections that are looked at while all attributes of a shard are read."""
    seen = set()
    with monkeypatch.context() as patch:
        patch.setattr(heaps, "_check_collection", seen.add)
        read_texts(path)
    return seen


@pytest.mark.parametrize(("groups", "name"), [(1, "disc"), (70, "disc"), (9, "d" * 900), (2, "ö" * 3000)])
def test_every_collection_is_looked_at(tmp_path: Path, groups: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few and many groups, whose texts lie between the pictures; texts larger than most collections."""
    write_shard(tmp_path / "a.h5", groups, name)
    data = (tmp_path / "a.h5").read_bytes()
    found = collections(data)
    assert looked_at(tmp_path / "a.h5", monkeypatch) == {data[at : at + length] for at, length in found}
    assert len(found) > 1 or groups == 1


def test_collections_of_many_attributes_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many attributes of a group move to a heap of their own, of one block or of several."""
    for count in (9, 90):
        write_shard(tmp_path / "a.h5")
        with h5py.File(tmp_path / "a.h5", "r+", libver=LIBVER) as file:
            for number in range(count):
                file["groups/00000"].attrs[f"more-{number}"] = "m" * 100
        data = (tmp_path / "a.h5").read_bytes()
        assert looked_at(tmp_path / "a.h5", monkeypatch) == {data[at : at + n] for at, n in collections(data)}


def too_large(path: Path) -> None:
    """Give a group an attribute that lies outside its heap's blocks."""
    with h5py.File(path, "r+", libver=LIBVER) as file:
        for number in range(9):
            file["groups/00000"].attrs[f"more-{number}"] = ["m"] * 400


def too_many(path: Path) -> None:
    """Give a group an attribute with a text that is larger than all of a shard's."""
    with h5py.File(path, "r+", libver=LIBVER) as file:
        file["groups/00000"].attrs["foreground"] = "m" * 2**21


def of_another_form(path: Path) -> None:
    """Write it as HDF5 does for programs of 2008."""
    with h5py.File(path, "w") as file:
        file.attrs["format"] = FORMAT


def of_another_kind(path: Path) -> None:
    """Put several texts where one is."""
    with h5py.File(path, "r+", libver=LIBVER) as file:
        file["groups/00000"].attrs["foreground"] = ["disc", "disc"]


def of_larger_letters(path: Path) -> None:
    """Let eight bytes be what a text's letters are: HDF5 would take eight times its length."""
    with h5py.File(path, "r+", libver=LIBVER) as file:
        del file["groups/00000"].attrs["foreground"]
        kind, space = h5py.h5t.py_create(h5py.vlen_dtype(np.int64)), h5py.h5s.create(h5py.h5s.SCALAR)
        h5py.h5a.create(file["groups/00000"].id, b"foreground", kind, space)


def with_a_long_name(path: Path) -> None:
    """Add an attribute whose message is none of those that are looked at."""
    with h5py.File(path, "r+", libver=LIBVER) as file:
        file["groups/00000"].attrs["m" * 255] = "m"


def with_a_preface(path: Path) -> None:
    """Let HDF5 begin later in the file, so that all of its addresses are of other places."""
    path.write_bytes(bytes(512) + path.read_bytes())


@pytest.mark.parametrize("change", [
    too_large, too_many, of_another_form, of_another_kind, of_larger_letters, with_a_long_name, with_a_preface,
])  # fmt: skip
def test_attributes_of_another_form_are_refused(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """What cannot be followed by the few rules of a shard is not given to HDF5."""
    write_shard(tmp_path / "a.h5")
    change(tmp_path / "a.h5")
    with pytest.raises(DatasetError, match="damaged"):
        read_texts(tmp_path / "a.h5")


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("before", [0, 5])
def test_the_declared_length_of_a_text_is_looked_at(version: int, before: int) -> None:
    """HDF5 takes so much memory before it looks for the text; 15 GB were seen where its letters were larger, too."""
    name, kind, space = b"format\0", b"\x19\1\0\0\x10\0\0\0", b"\2\0\0\0"
    parts = [part.ljust(-(-len(part) // 8) * 8, b"\0") if version == 1 else part for part in (name, kind, space)]
    head = bytes([version, 0]) + struct.pack("<HHH", len(name), len(kind), len(space)) + b"\1" * (version == 3)
    for length, fits in ((23, True), (heaps.MOST_BYTES, True), (heaps.MOST_BYTES + 1, False), (2**32 - 1, False)):
        block = bytes(before) + head + b"".join(parts) + struct.pack("<IQI", length, 2048, 1)
        with nullcontext() if fits else pytest.raises(ValueError, match="larger than a shard's"):
            heaps._check_lengths(block)


@pytest.mark.parametrize(
    ("objects", "fits"),
    [
        ([(1, 5), (2, 8)], True),
        ([(2, 0), (1, 9)], True),
        ([(1, 5), (1, 8)], False),
        ([(1, 2**64 - 16)], False),
        ([(1, 5000)], False),
        ([(1, 8), (0, 0)], False),
        ([(1, 8), (0, 32)], False),
    ],
)
def test_a_collection_ends(objects: list[tuple[int, int]], fits: bool) -> None:
    """Its texts are numbered each otherwise and lie in it; what is free lies behind them, to the end."""
    data = b"GCOL\1\0\0\0" + (4096).to_bytes(8, "little")
    for number, length in objects:
        data += struct.pack("<HHIQ", number, 1, 0, length) + bytes(-(-length // 8) * 8 if length < 100 else 0)
    data += struct.pack("<8xQ", 4096 - len(data)) if fits else b""
    with nullcontext() if fits else pytest.raises(ValueError, match="do not fit"):
        heaps._check_collection(data.ljust(4096, b"\0"))


def test_pointers_in_the_table_are_not_followed(tmp_path: Path) -> None:
    """A column that no shard has, of texts that lie in collections."""
    write_shard(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+", libver=LIBVER) as file:
        table = file["samples"][()]
        kinds = [*((name, table.dtype[name]) for name in table.dtype.names), ("more", h5py.string_dtype())]
        wider = np.zeros(len(table), kinds)
        for name in table.dtype.names:
            wider[name] = table[name]
        wider["more"] = "text"
        del file["samples"]
        file.create_dataset("samples", data=wider)
    with pytest.raises(DatasetError, match="a table of 1 rows"):
        ShardReader(tmp_path / "a.h5")
