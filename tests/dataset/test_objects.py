"""A shard's attributes and links, read without HDF5, which does not end reading some that are damaged, or falls."""

from __future__ import annotations

import multiprocessing
import os
import re
import struct
from collections.abc import Callable
from contextlib import nullcontext
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import pytest

from matting_compose.composer.base.errors import DatasetError
from matting_compose.composer.dataset import attributes, objects
from matting_compose.composer.dataset.layout import attributes_of
from matting_compose.composer.dataset.links import read_links
from matting_compose.composer.dataset.objects import Store, lookup3
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


@pytest.mark.parametrize(("part", "byte"), [(b"FRHP", 30), (b"BTLF", 19), (b"quality\0", 24)])
def test_a_changed_byte_is_found_by_its_checksum(tmp_path: Path, part: bytes, byte: int) -> None:
    """HDF5 compares those of what it reads, and does not read this: where the attributes lie, and they themselves."""
    write_shard(tmp_path / "a.h5")
    data = bytearray((tmp_path / "a.h5").read_bytes())
    data[data.index(part) + byte] ^= 1
    (tmp_path / "a.h5").write_bytes(data)
    with pytest.raises(DatasetError, match="does not match its checksum"):
        read_texts(tmp_path / "a.h5")


@pytest.mark.parametrize(("groups", "name"), [(1, "disc"), (70, "disc"), (9, "d" * 900), (2, "ö" * 3000)])
@pytest.mark.parametrize("libver", [LIBVER, None])
def test_attributes_are_what_hdf5_reads(tmp_path: Path, groups: int, name: str, libver: tuple[str, str] | None) -> None:
    """Of a few and of many groups, whose texts lie between the pictures; texts larger than most collections; many.

    What other programs put into a shard by default has an older form.
    """
    write_shard(tmp_path / "a.h5", groups, name)
    with h5py.File(tmp_path / "a.h5", "r+", libver=libver) as file:
        file.attrs.update(composites=7, complete=True, split="ä", packing="")
        for number in range(40):
            file["groups/00000/alpha"].attrs[f"more-{number}" * 9] = number
    with h5py.File(tmp_path / "a.h5") as file:
        parts = [None, *(part for group in file["groups"].values() for part in (group, *group.values()))]
        for part in parts:
            by_hdf5 = {key: getattr(value, "item", lambda v=value: v)() for key, value in (part or file).attrs.items()}
            assert attributes_of(file, part and part.id) == by_hdf5
    assert len(parts) == 1 + 5 * groups


def forge_every_byte(path: Path, store: Store, block: bytes) -> None:
    """Read a shard as often as heap, index and leaf of a store have bytes, with one of them changed.

    Their checksums are made to fit, as somebody would who means harm. `block` begins what lies in the heap.
    """
    data, refused = path.read_bytes(), 0
    tree = data.index(b"BTHD\0" + bytes([store.kind]))
    leaf = 6 + store.record.size * int.from_bytes(data[tree + 24 : tree + 26], "little")
    start = 13 + store.bits // 8
    heap = int.from_bytes(data[data.index(block) - start - 4 :][5:13], "little")
    parts = [(heap, 146, 142), (tree, 38, 34), (data.index(b"BTLF\0" + bytes([store.kind])), leaf + 4, leaf)]
    parts += [(data.index(block) - start - 4, store.block, start)]
    with path.open("r+b", buffering=0) as file:
        for begin, size, place in parts:
            whole = data[begin : begin + size]
            for at, change in product(range(len(whole.rstrip(b"\0"))), (0x01, 0x10, 0xFF)):  # zeros are free
                forged = bytearray(whole)
                forged[at] ^= change
                forged[place : place + 4] = bytes(4)
                covered = forged[:place] if place + 4 == size else forged
                forged[place : place + 4] = lookup3(bytes(covered)).to_bytes(4, "little")
                os.pwrite(file.fileno(), forged, begin)
                try:
                    read_texts(path)
                except DatasetError:
                    refused += 1
            os.pwrite(file.fileno(), whole, begin)
    read_texts(path)
    assert refused > 0


def forge_attributes(path: Path) -> None:
    """Forge those of the file."""
    forge_every_byte(path, objects.ATTRIBUTES, b"\3\0\7\0\x14\0\4\0\0format")


def forge_links(path: Path) -> None:
    """Forge those to the groups."""
    forge_every_byte(path, objects.LINKS, b"\1\0\x0500000")


@pytest.mark.parametrize(("change", "groups"), [(flip_every_bit, 1), (forge_attributes, 1), (forge_links, 9)])
def test_whatever_is_changed_is_read_to_an_end(tmp_path: Path, change: Callable[[Path], None], groups: int) -> None:
    """A shard with other attributes or groups, or an error: no process that falls, and none that does not end."""
    write_shard(tmp_path / "a.h5", groups)
    child = multiprocessing.get_context("spawn").Process(target=change, args=(tmp_path / "a.h5",))
    child.start()
    child.join(LONGEST)
    child.kill()
    child.join()
    assert child.exitcode == 0


@pytest.mark.parametrize("groups", [1, 9, 60, 2000])
def test_links_are_what_hdf5_follows(tmp_path: Path, groups: int) -> None:
    """Of a few, which lie in the header, and of many, in a heap of several blocks and a tree of two or three levels."""
    with h5py.File(tmp_path / "a.h5", "w", libver=LIBVER) as file:
        for number in range(groups):
            file.create_group(f"groups/{number:05d}")
        wanted = {name: h5py.h5o.get_info(group.id).addr for name, group in file["groups"].items()}
        there = h5py.h5o.get_info(file["groups"].id).addr
    with (tmp_path / "a.h5").open("rb") as raw:
        assert read_links(raw.fileno())["groups"] == there
        assert read_links(raw.fileno(), there) == wanted


@pytest.mark.parametrize(
    ("part", "byte", "value", "said"),
    [
        (b"FRHP", 141, 0xFF, "more than a shard's"),  # 65,000 rows of blocks, each twice as large as the one before
        (b"FRHP", 22, 0, "more than a shard's"),  # messages outside its blocks
        (b"FRHP", 115, 0x40, "more than a shard's"),  # blocks of a gibibyte
        (b"BTHD", 24, 0xFF, "more than a shard's"),  # more records than a node takes
        (b"BTHD", 12, 9, "laid out otherwise"),  # a depth of nine
        (b"BTHD", 26, 1, "laid out otherwise"),  # other messages than are counted
        (b"BTLF", 10, 0x10, "parts lie elsewhere"),  # of the other kinds of places
        (b"\x89HDF", 8, 0, "another form"),  # a superblock that begins otherwise
        (b"\x89HDF", 20, 0, "another form"),  # an extension of it, which may hold an image of other headers
        (b"00001", 4, ord("0"), "two links of one name"),  # HDF5 would follow the first, and we the last
        (b"00001", 4, 0, "link to elsewhere"),  # a name that ends earlier for HDF5
        (b"OHDR", 7, 0x11, "another form"),  # a table of symbols, as programs of 2008 write
    ],
)
def test_forged_links_are_refused_before_they_are_followed(
    tmp_path: Path, part: bytes, byte: int, value: int, said: str
) -> None:
    """What HDF5 would fall over, or not end reading, or take gigabytes for, by the field that is forged."""
    with h5py.File(tmp_path / "a.h5", "w", libver=LIBVER) as file:
        for number in range(9):
            file.create_group(f"{number:05d}")
    data = bytearray((tmp_path / "a.h5").read_bytes())
    data[data.index(part) + byte] = value
    (tmp_path / "a.h5").write_bytes(data)
    with (tmp_path / "a.h5").open("rb") as raw, pytest.raises(ValueError, match=said):
        read_links(raw.fileno())


def with_a_soft_link(group: h5py.Group) -> None:
    """Add a name that stands for another."""
    group["more"] = h5py.SoftLink("/samples")


def with_an_external_link(group: h5py.Group) -> None:
    """Add a name that stands for what is in another file."""
    group["more"] = h5py.ExternalLink("b.h5", "/samples")


@pytest.mark.parametrize("groups", [1, 9])
@pytest.mark.parametrize("of", ["/", "groups", "groups/00000"])
@pytest.mark.parametrize("change", [with_a_soft_link, with_an_external_link])
def test_links_to_elsewhere_are_refused(
    tmp_path: Path, groups: int, of: str, change: Callable[[h5py.Group], None]
) -> None:
    """Wherever they are, and whether the names are few or many."""
    write_shard(tmp_path / "a.h5", groups)
    with h5py.File(tmp_path / "a.h5", "r+", libver=LIBVER) as file:
        change(file[of])
    with pytest.raises(DatasetError, match="link to elsewhere"):
        read_texts(tmp_path / "a.h5")


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


def with_a_preface(path: Path) -> None:
    """Let HDF5 begin later in the file, so that all of its addresses are of other places."""
    path.write_bytes(bytes(512) + path.read_bytes())


@pytest.mark.parametrize("change", [
    too_large, too_many, of_another_form, of_another_kind, of_larger_letters, with_a_preface,
])  # fmt: skip
def test_attributes_of_another_form_are_refused(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """What cannot be followed by the few rules of a shard."""
    write_shard(tmp_path / "a.h5")
    change(tmp_path / "a.h5")
    with pytest.raises(DatasetError, match="damaged"):
        read_texts(tmp_path / "a.h5")


@pytest.mark.parametrize("length", [0, 3, 5, 2**32 - 1])
def test_a_text_is_as_long_as_its_attribute_says(tmp_path: Path, length: int) -> None:
    """HDF5 would take so much memory before it looks."""
    path = tmp_path / "texts"
    path.write_bytes(b"GCOL\1\0\0\0" + struct.pack("<QHHIQ4s4x8xQ", 4096, 1, 1, 0, 4, b"disc", 4056).ljust(4088, b"\0"))
    with path.open("rb") as file:
        texts = attributes._Texts(objects.FileBytes(file.fileno(), check=True))
        message = b"\3\0" + struct.pack("<HHHB", 5, 20, 4, 1) + b"name\0" + attributes.TEXT + b"\2\0\0\0"
        assert attributes._decode(message + struct.pack("<IQI", 4, 0, 1), texts) == ("name", "disc")
        with nullcontext() if not length else pytest.raises(ValueError, match="another kind"):
            assert attributes._decode(message + struct.pack("<IQI", length, 0, 1), texts) == ("name", "")


def test_texts_take_no_more_than_they_are_counted_for(tmp_path: Path) -> None:
    """Many attributes of one large text: each is a text of its own once it is read."""
    write_shard(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+", libver=LIBVER) as file:
        file["groups/00000"].attrs["more"] = "m" * 2**18
        for number in range(8):
            file["groups/00000"].attrs[f"more-{number}"] = "n"
    data = bytearray((tmp_path / "a.h5").read_bytes())
    texts = {match[1]: match.start(2) for match in re.finditer(rb"(more[-0-7]*)\0.{24}(.{16})", data, re.DOTALL)}
    for number in range(8):
        at = texts[f"more-{number}".encode()]
        data[at : at + 16] = data[texts[b"more"] :][:16]
    part = data.rindex(b"FHDB", 0, at)
    data[part + 18 : part + 22] = lookup3(
        bytes(data[part : part + 18] + bytes(4) + data[part + 22 : part + 1024])
    ).to_bytes(4, "little")
    (tmp_path / "a.h5").write_bytes(data)
    with pytest.raises(DatasetError, match="larger than a shard's"):
        read_texts(tmp_path / "a.h5")


def test_messages_take_no_more_than_they_are_counted_for(tmp_path: Path) -> None:
    """Many records of one large message of a heap: each is a message of its own once it is read."""
    with h5py.File(tmp_path / "a.h5", "w", libver=LIBVER) as file:
        file.attrs["m" * 3900] = 1
        for number in range(400):
            file.attrs[f"more-{number}"] = number
    data = bytearray((tmp_path / "a.h5").read_bytes())
    with (tmp_path / "a.h5").open("r+b", buffering=0) as file:
        raw = objects.FileBytes(file.fileno(), check=False)
        [info] = [body for kind, body in objects.messages(raw, None) if kind == objects.ATTRIBUTE_INFO]
        records = objects._records(raw, objects.ATTRIBUTES, int.from_bytes(info[10:18], "little"))
        _, place, length = max(records, key=lambda record: record[2])
        for leaf in re.finditer(rb"BTLF\0\x08", bytes(data)):
            for at in range(leaf.end(), leaf.end() + 29 * 17, 17):
                os.pwrite(file.fileno(), b"\0" + place + length.to_bytes(2, "little"), at)
        with pytest.raises(ValueError, match="larger than a shard's"):
            list(objects.stored_messages(objects.FileBytes(file.fileno(), check=False), objects.ATTRIBUTES, info))


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
        dict(attributes._texts_of(data.ljust(4096, b"\0")))


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
