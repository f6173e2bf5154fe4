"""Heaps: where HDF5 keeps the texts of attributes, walked through before HDF5 does.

A text lies in a collection of the file's "global heap", the one part of a shard's structure that has no checksum: where
one bit of a length is changed, libhdf5 2.0 goes through the collection without end. No function of HDF5 tells where an
object's attributes lead. So its header is read here, and the "fractal heap" that many attributes move to; whatever
eight bytes there point to a collection are taken for the address of a text.

Offsets are those of the HDF5 File Format Specification, version 3.0: II.A superblock, III.E global heap, III.G fractal
heap, IV.A.1.b object header.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator

import numpy as np

MOST_BYTES = 2**20  # of an object's attributes and their texts, which take some 7,000 in a shard


SUPERBLOCKS = tuple(b"\x89HDF\r\n\x1a\n" + bytes([version, 8, 8]) for version in (2, 3))  # addresses of eight bytes


LONGEST_NAME = 254  # bytes, of an attribute


# What an attribute's message may begin with: version, flags, and the length of such a name and the zero that ends it.
MESSAGE = re.compile(rb"(?=[\1-\3][\0-\3][^\0]\0)", re.DOTALL)


NOWHERE = b"\xff" * 8  # an address that leads nowhere


ATTRIBUTE_INFO, CONTINUATION = 0x15, 0x10  # what a header's message is


TEXT = 9  # a class of types: of variable length


SHARED = 2  # a message's flag: it lies elsewhere


def check_heaps(descriptor: int, address: int | None = None) -> None:
    """See that reading an object's attributes will come to an end.

    Parameters
    ----------
    descriptor : int
        Of the open file.
    address : int or None
        Where the object's header lies; that of the root, if not given.

    Raises
    ------
    ValueError
        It might not, or the attributes are laid out otherwise than in a shard.
    """
    file = _Bytes(descriptor)
    start = file.read(0, 44)
    if not start.startswith(SUPERBLOCKS) or start[12:28] != bytes(8) + NOWHERE:
        raise ValueError("HDF5 of another form than a shard's")
    for block in _attribute_blocks(file, _number(start[36:44]) if address is None else address):
        _check_lengths(block)
        for place in file.places_in(block):
            if os.pread(descriptor, 5, place) == b"GCOL\1":
                _check_collection(file.read(place, _number(file.read(place + 8, 8))))


class _Bytes:
    """A file's bytes, of which no more are read than attributes can have."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._left, self._size = descriptor, MOST_BYTES, os.fstat(descriptor).st_size

    def read(self, start: int, count: int) -> bytes:
        """Return `count` bytes. Raise ValueError where the file has fewer, or too many were read."""
        if not 0 <= count <= min(self._left, self._size - start):
            raise ValueError("attributes that lead out of the file, or are larger than a shard's")
        self._left -= count
        return os.pread(self._descriptor, count, start)

    def places_in(self, block: bytes) -> set[int]:
        """Return every place in the file that eight bytes of a block, from anywhere on, could be the address of."""
        numbers = np.ndarray(max(len(block) - 7, 0), "<u8", block, strides=(1,))
        return set(numbers[numbers < self._size].tolist())


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _attribute_blocks(file: _Bytes, address: int) -> Iterator[bytes]:
    """Yield all bytes that may hold attributes of the object whose header is at an address."""
    flags = _checked(file.read(address, 6), b"OHDR\2")[5]
    start, width = address + 6 + (16 if flags & 32 else 0) + (4 if flags & 16 else 0), 1 << (flags & 3)
    parts = [(start + width, _number(file.read(start, width)))]
    for start, count in parts:
        block = file.read(start, count)
        yield block
        for kind, body in _messages(block, 6 if flags & 4 else 4):
            if kind == CONTINUATION:
                parts.append((_number(body[:8]) + 4, _number(body[8:16]) - 8))  # without signature and checksum
            elif kind == ATTRIBUTE_INFO:
                heap = body[2 + 2 * (body[1] & 1) :][:8]
                if heap != NOWHERE:
                    yield from _heap_blocks(file, _number(heap))


def _messages(block: bytes, prefix: int) -> Iterator[tuple[int, bytes]]:
    """Yield a part of a header's messages: what each is, and its bytes after a prefix of so many."""
    at = 0
    while at + prefix <= len(block):
        kind, size, flags = block[at], _number(block[at + 1 : at + 3]), block[at + 3]
        if flags & SHARED:
            raise ValueError("attributes that lie elsewhere")
        at += prefix + size
        yield kind, block[at - size : at]


def _heap_blocks(file: _Bytes, address: int) -> Iterator[bytes]:
    """Yield the blocks of a fractal heap in which its objects lie."""
    header = _checked(file.read(address, 142), b"FRHP")
    if header[5:9] != b"\x08\0\0\0" or header[22:30] != NOWHERE:  # no filters, and no object outside its blocks
        raise ValueError("attributes that are larger than a shard's")
    width, size, largest, bits = struct.unpack_from("<HQQH", header, 110)
    root, rows = struct.unpack_from("<QH", header, 132)
    if not rows:
        yield file.read(root, size)
        return
    table = _checked(file.read(root, 13), b"FHIB") and root + 13 + -(-bits // 8)
    for row in range(rows):
        children = file.read(table + 8 * width * row, 8 * width)
        row_size = size << max(row - 1, 0)
        if row_size > largest:
            raise ValueError("attributes that are larger than a shard's")
        for at in range(0, len(children), 8):
            if children[at : at + 8] != NOWHERE:
                yield file.read(_number(children[at : at + 8]), row_size)


def _check_lengths(block: bytes) -> None:
    """See that no text is declared larger than a shard's: HDF5 takes the memory before it looks for the text.

    A heap's objects are not told apart here: whatever may be an attribute's message, of any version, is looked at.
    """
    for match in MESSAGE.finditer(block, 0, max(len(block) - 8, 0)):
        at = match.start()
        version, sizes = block[at], struct.unpack_from("<HHH", block, at + 2)
        at += 9 if version == 3 else 8
        name, kind, space = (-(-size // 8) * 8 if version == 1 else size for size in sizes)
        text = at + name + kind + space
        if text + 4 <= len(block) and block[at + name] & 15 == TEXT and _number(block[text : text + 4]) > MOST_BYTES:
            raise ValueError("texts of attributes that are larger than a shard's")


def _check_collection(data: bytes) -> None:
    """See that a collection's objects follow each other to its end, the last of them what is free."""
    at, seen = 16, set()
    while at + 16 <= len(data):
        index, length = struct.unpack_from("<H6xQ", data, at)
        at += 16 + (length + 7) // 8 * 8 if index else length
        if at > len(data) or index in seen or (not index and at != len(data)):
            raise ValueError("texts of attributes whose lengths do not fit")
        seen.add(index)


def _checked(data: bytes, signature: bytes) -> bytes:
    if not data.startswith(signature):
        raise ValueError("attributes laid out otherwise than a shard's")
    return data
