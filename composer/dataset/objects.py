"""Objects: what an HDF5 file says of its groups and arrays, read without HDF5, which forged ones can harm.

libhdf5 2.0 goes without end through texts where one bit of a length is changed, takes gigabytes for a text that only
declares them, and falls where an index leads to what is none of its kind. So attributes are read here alone, and links
are gone through here before libhdf5 follows one; what few forms `writer` has them written in are known, and all others
are refused.

They lie in an object's header, or, where they are many, in a "fractal heap", and a "tree" says where in it. Offsets are
those of the HDF5 File Format Specification, version 3.0: II.A superblock, III.A.2 trees, III.G fractal heap, IV.A.1.b
object header, IV.A.2 messages.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MOST_BYTES: Final = 2**20  # of an object's attributes or links: some 7,000 in a shard, 41 for a group


SUPERBLOCKS: Final = tuple(b"\x89HDF\r\n\x1a\n" + bytes([version, 8, 8]) for version in (2, 3))  # addresses: 8 bytes


NOWHERE: Final = b"\xff" * 8  # an address that leads nowhere


LINK_INFO, LINK, ATTRIBUTE, CONTINUATION, SYMBOLS, ATTRIBUTE_INFO = 0x02, 0x06, 0x0C, 0x10, 0x11, 0x15  # messages


NODE: Final = 512  # bytes of a tree's node


LARGEST: Final = 2**16  # bytes of a heap's block


@dataclass(frozen=True)
class Store:
    """Where many messages of one kind lie.

    Attributes
    ----------
    kind : int
        Of tree.
    record : struct.Struct
        In a tree's node: a zero, the message's place in the heap, its length.
    bits : int
        Of a place.
    block : int
        Bytes of the heap's smallest block.
    order : int
        Bytes of a number in the order of creation, which may stand before the addresses of heap and tree.
    """

    kind: int
    record: struct.Struct
    bits: int
    block: int
    order: int


LINKS: Final = Store(5, struct.Struct("<4xB4sH"), 32, 512, 8)


ATTRIBUTES: Final = Store(8, struct.Struct("<B5sH9x"), 40, 1024, 2)


class FileBytes:
    """A file's bytes, of which no more are read than an object can have.

    Parameters
    ----------
    descriptor : int
        Of the open file.
    check : bool
        Compare checksums. HDF5 compares those of what it reads itself.
    """

    def __init__(self, descriptor: int, *, check: bool) -> None:
        self._descriptor, self._left, self._size = descriptor, MOST_BYTES, os.fstat(descriptor).st_size
        self._check = check

    def read(self, start: int, count: int, signature: bytes = b"", checksum: int | None = None) -> bytes:
        """Return `count` bytes, which begin with a signature; `checksum` says where the one of them all lies.

        Raises
        ------
        ValueError
            They do not, the file has fewer, too many were read, or the checksum is another's.
        """
        self.take(count)
        if count > self._size - start:
            raise ValueError("a group or an array that leads out of the file")
        data = os.pread(self._descriptor, count, start)
        if not data.startswith(signature):
            raise ValueError("a group or an array that is laid out otherwise than a shard's")
        if self._check and checksum is not None:
            covered = data[:-4] if checksum + 4 == count else data[:checksum] + bytes(4) + data[checksum + 4 :]
            if to_int(data[checksum : checksum + 4]) != lookup3(covered):
                raise ValueError("a group or an array that does not match its checksum")
        return data

    def take(self, count: int) -> None:
        """Count bytes that are made of what was read: parts may overlap. Raise ValueError where they are too many."""
        self._left -= count
        if count < 0 or self._left < 0:
            raise ValueError("a group or an array that is larger than a shard's")


def to_int(data: bytes) -> int:
    """Return the number that bytes are."""
    return int.from_bytes(data, "little")


def _root_address(file: FileBytes) -> int:
    """Return where the root's header lies. Raise ValueError for a file of another form than a shard's."""
    start = file.read(0, 44)
    if (
        not start.startswith(SUPERBLOCKS) or start[20:28] != NOWHERE
    ):  # an extension may hold other headers than the file
        raise ValueError("HDF5 of another form than a shard's")
    return to_int(start[36:44])


def messages(file: FileBytes, address: int | None) -> Iterator[tuple[int, bytes]]:
    """Yield the messages of a header, which HDF5 has found whole: what each is, and its bytes. The root's for None."""
    if address is None:
        address = _root_address(file)
    flags = file.read(address, 6, b"OHDR\2")[5]
    start, width = address + 6 + (16 if flags & 32 else 0) + (4 if flags & 16 else 0), 1 << (flags & 3)
    parts, prefix = [(start + width, to_int(file.read(start, width)))], 6 if flags & 4 else 4
    for start, count in parts:
        block, at = file.read(start, count), 0
        while at + prefix <= count:
            kind, size = struct.unpack_from("<BH", block, at)
            at += prefix + size
            body = block[at - size : at]
            if kind == CONTINUATION:
                parts.append((to_int(body[:8]) + 4, to_int(body[8:16]) - 8))  # without signature and checksum
            yield kind, body


def stored_messages(file: FileBytes, store: Store, info: bytes) -> Iterator[bytes]:
    """Yield the messages of a store, of which a header's message says where it is."""
    heap, tree = struct.unpack_from("<8s8s", info, 2 + store.order * (info[1] & 1))
    if heap == NOWHERE:
        return
    blocks = list(_heap_blocks(file, store, to_int(heap)))
    for flags, where, length in _records(file, store, to_int(tree)):
        place = to_int(where)
        start, block = next((found for found in reversed(blocks) if found[0] <= place), (0, b""))
        if flags:
            raise ValueError("a group or an array of which parts lie elsewhere")
        file.take(length)
        yield block[place - start :][:length]


def _heap_blocks(file: FileBytes, store: Store, address: int) -> Iterator[tuple[int, bytes]]:
    """Yield the blocks of a heap, each with the place that its first byte has in the heap."""
    top = file.read(address, 146, b"FRHP\0" + struct.pack("<HHBI", 3 + store.bits // 8, 0, 2, 4096), 142)
    root, rows = struct.unpack_from("<QH", top, 132)
    shape = struct.pack("<HQQHH", 4, store.block, LARGEST, store.bits, 1)
    if top[22:30] != NOWHERE or top[110:132] != shape:
        raise ValueError("a group or an array with more than a shard's")
    if not rows:
        yield 0, file.read(root, store.block, b"FHDB\0" + address.to_bytes(8, "little"), 13 + store.bits // 8)
        return
    if store.block << max(rows - 2, 0) > LARGEST:
        raise ValueError("a group or an array with more than a shard's")
    sizes = [store.block << max(row - 1, 0) for row in range(rows) for _ in range(4)]
    start = 13 + store.bits // 8
    table = file.read(root, start + 8 * len(sizes) + 4, b"FHIB\0", start + 8 * len(sizes))
    place = 0
    for child, size in zip(struct.unpack_from(f"<{len(sizes)}Q", table, start), sizes, strict=True):
        if child != to_int(NOWHERE):
            yield place, file.read(child, size, b"FHDB\0" + address.to_bytes(8, "little"), start)
        place += size


def _records(file: FileBytes, store: Store, address: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield what a tree's nodes say of each message: flags, place, length."""
    head = file.read(address, 38, b"BTHD\0" + struct.pack("<BIH", store.kind, NODE, store.record.size), 34)
    depth, root, count, total = struct.unpack_from("<H2xQHQ", head, 12)
    leaf = (NODE - 10) // store.record.size
    most, pointers, below = [leaf], [0], leaf
    for level in range(1, min(depth, 4) + 1):
        pointers.append(8 + _width(leaf) + (_width(below) if level > 1 else 0))
        most.append((NODE - 10 - pointers[-1]) // (store.record.size + pointers[-1]))
        below += most[-1] * (below + 1)

    def walk(address: int, count: int, level: int) -> Iterator[tuple[int, bytes, int]]:
        if count > most[level]:
            raise ValueError("a group or an array with more than a shard's")
        start, signature = 6 + count * store.record.size, b"BTIN\0" if level else b"BTLF\0"
        end = start + (count + 1) * pointers[level]
        data = file.read(address, end + 4, signature + bytes([store.kind]), end)
        yield from store.record.iter_unpack(data[6:start])
        for at in range(start, end, pointers[level] or 1):
            yield from walk(to_int(data[at : at + 8]), to_int(data[at + 8 :][: _width(leaf)]), level - 1)

    found = list(walk(root, count, depth)) if depth < len(most) and total else []
    if len(found) != total:
        raise ValueError("a group or an array that is laid out otherwise than a shard's")
    yield from found


def _width(most: int) -> int:
    """Return how many bytes a count takes that is at most so large."""
    return (most.bit_length() - 1) // 8 + 1


def lookup3(data: bytes) -> int:
    """Return HDF5's checksum of what is not empty: Jenkins' `lookup3`, of 32 bits."""
    words = struct.unpack(f"<{-(-len(data) // 12) * 3}I", data.ljust(-(-len(data) // 12) * 12, b"\0"))
    a = b = c = 0xDEADBEEF + len(data)
    for at in range(0, len(words), 3):
        a, b, c = a + words[at], b + words[at + 1], (c + words[at + 2]) & 0xFFFFFFFF
        if at + 3 < len(words):
            for turn in (4, 6, 8, 16, 19, 4):
                mixed = ((a - c) ^ (c << turn | c >> (32 - turn))) & 0xFFFFFFFF
                a, b, c = b, c + b, mixed
    b &= 0xFFFFFFFF
    for turn in (14, 11, 25, 16, 4, 14, 24):
        mixed = ((c ^ b) - (b << turn | b >> (32 - turn))) & 0xFFFFFFFF
        a, b, c = b, mixed, a
    return b
