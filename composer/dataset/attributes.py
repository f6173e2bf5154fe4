"""Attributes: those of a shard, read without HDF5, which is not to be trusted with forged ones.

libhdf5 2.0 goes without end through texts where one bit of a length is changed, takes gigabytes for a text that only
declares them, and falls where the index of names leads to what is no attribute. So what few forms `writer` has
attributes written in are read here, and all others are refused.

They lie in an object's header, or, many of them, in a "fractal heap" of one block, and a "tree" of one leaf says where
in it; texts lie in collections of the file's "global heap". Offsets are those of the HDF5 File Format Specification,
version 3.0: II.A superblock, III.A.2 trees, III.E global heap, III.G fractal heap, IV.A.1.b object header, IV.A.2
messages.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Final

Attribute = str | int | bool

MOST_BYTES: Final = 2**20  # of an object's attributes and their texts, which take some 7,000 in a shard


SUPERBLOCKS: Final = tuple(b"\x89HDF\r\n\x1a\n" + bytes([version, 8, 8]) for version in (2, 3))  # addresses: 8 bytes


NOWHERE: Final = b"\xff" * 8  # an address that leads nowhere


ATTRIBUTE, ATTRIBUTE_INFO, CONTINUATION = 0x0C, 0x15, 0x10  # what a header's message is


SCALAR: Final = b"\2\0\0\0"  # a "data space"


# Kinds of values: a text in UTF-8, of any length; whole numbers, unsigned and signed, whose size follows.
TEXT: Final = b"\x19\1\1\0\x10\0\0\0\x10\0\0\0\1\0\0\0\0\0\x08\0"
UNSIGNED, SIGNED = b"\x10\0\0\0", b"\x10\x08\0\0"
BOOL: Final = b"8\2\0\0\1\0\0\0" + SIGNED + b"\1\0\0\0\0\0\x08\0FALSE\0TRUE\0\0\1"


RECORD: Final = struct.Struct("<B5sHBII")  # in a tree's leaf: an attribute's place and length in the heap, its flags


def read_attributes(descriptor: int, address: int | None = None) -> dict[str, Attribute]:
    """Read an object's attributes.

    Parameters
    ----------
    descriptor : int
        Of the open file.
    address : int or None
        Where the object's header lies, which HDF5 has found whole; that of the root, if not given.

    Raises
    ------
    ValueError
        They are damaged, or laid out otherwise than in a shard.
    """
    file = _Bytes(descriptor)
    start = file.read(0, 44)
    if not start.startswith(SUPERBLOCKS) or start[12:28] != bytes(8) + NOWHERE:
        raise ValueError("HDF5 of another form than a shard's")
    texts, header = _Texts(file), _number(start[36:44]) if address is None else address
    try:
        return dict(_decode(message, texts) for message in _attributes_at(file, header))
    except struct.error as error:
        raise ValueError(f"attributes that are cut off: {error}") from None


class _Bytes:
    """A file's bytes, of which no more are read than attributes can have."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._left, self._size = descriptor, MOST_BYTES, os.fstat(descriptor).st_size

    def read(self, start: int, count: int, signature: bytes = b"", *, check: bool = False) -> bytes:
        """Return `count` bytes, which begin with a signature, and, where asked, end in their checksum.

        Raises
        ------
        ValueError
            They do not, the file has fewer, or too many were read.
        """
        if not 0 <= count <= min(self._left, self._size - start):
            raise ValueError("attributes that lead out of the file, or are larger than a shard's")
        self._left -= count
        data = os.pread(self._descriptor, count, start)
        if not data.startswith(signature):
            raise ValueError("attributes laid out otherwise than a shard's")
        if check and _number(data[-4:]) != lookup3(data[:-4]):
            raise ValueError("attributes that do not match their checksum")
        return data


class _Texts:
    """The texts of a file's collections."""

    def __init__(self, file: _Bytes) -> None:
        self._file = file
        self._collections: dict[int, dict[int, bytes]] = {}

    def read(self, address: int, number: int) -> bytes:
        """Return a collection's text. Raise LookupError where it has none of that number, ValueError if damaged."""
        if address not in self._collections:
            size = _number(self._file.read(address, 16, b"GCOL\1")[8:])
            self._collections[address] = dict(_texts_of(self._file.read(address, size)))
        return self._collections[address][number]


def _texts_of(collection: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield a collection's texts by their numbers: one follows the other to its end, the last of them what is free."""
    at, seen = 16, set()
    while at + 16 <= len(collection):
        number, length = struct.unpack_from("<H6xQ", collection, at)
        start, at = at + 16, at + (16 + (length + 7) // 8 * 8 if number else length)
        if at > len(collection) or number in seen or (not number and at != len(collection)):
            raise ValueError("texts of attributes whose lengths do not fit")
        seen.add(number)
        yield number, collection[start : start + length]


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _decode(message: bytes, texts: _Texts) -> tuple[str, Attribute]:
    """Return the name and the value that an attribute's message holds."""
    version, flags, *sizes = struct.unpack_from("<BBHHH", message)
    parts, at = [], 9
    for size in (*sizes, len(message)):
        parts.append(message[at : at + size])
        at += size
    name, kind, space, value = parts
    if (version, flags, space) != (3, 0, SCALAR):
        raise ValueError("an attribute of another form than a shard's")
    return name[:-1].decode(), _decode_value(kind, value, texts)


def _decode_value(kind: bytes, value: bytes, texts: _Texts) -> Attribute:
    if kind == TEXT:
        length, address, number = struct.unpack("<IQI", value)
        text = texts.read(address, number) if length else b""
        if len(text) == length:
            return text.decode()
    if kind == BOOL and value in (b"\0", b"\1"):
        return value == b"\1"
    if kind[:4] in (UNSIGNED, SIGNED) and len(kind) == 12 and 0 < _number(kind[4:8]) == len(value) <= 8:
        return int.from_bytes(value, "little", signed=kind.startswith(SIGNED))
    raise ValueError("an attribute of another kind than a shard's")


def _attributes_at(file: _Bytes, address: int) -> Iterator[bytes]:
    """Yield the messages of all attributes of the object whose header is at an address."""
    flags = file.read(address, 6, b"OHDR\2")[5]
    start, width = address + 6 + (16 if flags & 32 else 0) + (4 if flags & 16 else 0), 1 << (flags & 3)
    parts = [(start + width, _number(file.read(start, width)))]
    for start, count in parts:
        for kind, body in _messages(file.read(start, count), 6 if flags & 4 else 4):
            if kind == CONTINUATION:
                parts.append((_number(body[:8]) + 4, _number(body[8:16]) - 8))  # without signature and checksum
            elif kind == ATTRIBUTE:
                yield body
            elif kind == ATTRIBUTE_INFO:
                heap, tree = struct.unpack_from("<8s8s", body, 2 + 2 * (body[1] & 1))
                if heap != NOWHERE:
                    yield from _attributes_in(file, _number(heap), _number(tree))


def _messages(block: bytes, prefix: int) -> Iterator[tuple[int, bytes]]:
    """Yield a part of a header's messages: what each is, and its bytes after a prefix of so many."""
    at = 0
    while at + prefix <= len(block):
        kind, size, flags = struct.unpack_from("<BHB", block, at)
        if flags & 2:  # shared
            raise ValueError("attributes that lie elsewhere")
        at += prefix + size
        yield kind, block[at - size : at]


def _attributes_in(file: _Bytes, heap: int, tree: int) -> Iterator[bytes]:
    """Yield the messages of the attributes that lie in a heap, where a tree says."""
    top = file.read(heap, 146, b"FRHP\0\x08\0\0\0", check=True)  # places of eight bytes, nothing compressed
    size, bits = struct.unpack_from("<Q8xH", top, 112)
    root, rows = struct.unpack_from("<QH", top, 132)
    index = file.read(tree, 38, b"BTHD\0\x08", check=True)
    width, depth = struct.unpack_from("<HH", index, 10)
    leaf, count = struct.unpack_from("<QH", index, 16)
    if (bits, rows, width, depth) != (40, 0, RECORD.size, 0):
        raise ValueError("more attributes than a shard's")
    block = file.read(root, size, b"FHDB")
    if top[9] & 2 and _number(block[18:22]) != lookup3(block[:18] + bytes(4) + block[22:]):
        raise ValueError("attributes that do not match their checksum")
    records = file.read(leaf, 6 + count * RECORD.size + 4, b"BTLF\0\x08", check=True)[6:-4]
    for kind, place, length, flags, _, _ in RECORD.iter_unpack(records):
        if kind or flags:
            raise ValueError("attributes that lie elsewhere")
        yield block[_number(place) :][:length]


def lookup3(data: bytes) -> int:
    """Return HDF5's checksum of what is not empty: Jenkins' `lookup3`, of 32 bits."""
    words = struct.unpack(f"<{-(-len(data) // 12) * 3}I", data.ljust(-(-len(data) // 12) * 12, b"\0"))
    a = b = c = (0xDEADBEEF + len(data)) & 0xFFFFFFFF
    for at in range(0, len(words), 3):
        a, b, c = ((x + y) & 0xFFFFFFFF for x, y in zip((a, b, c), words[at : at + 3], strict=True))
        if at + 3 == len(words):
            break
        for turn in (4, 6, 8, 16, 19, 4):
            a, c = ((a - c) & 0xFFFFFFFF) ^ _rotate(c, turn), (c + b) & 0xFFFFFFFF
            a, b, c = b, c, a
    for turn in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - _rotate(b, turn)) & 0xFFFFFFFF
        a, b, c = b, c, a
    return b


def _rotate(word: int, turn: int) -> int:
    return (word << turn | word >> (32 - turn)) & 0xFFFFFFFF
