"""Attributes: those of a shard's objects, read without HDF5 (`objects` says why).

Texts lie in collections of the file's "global heap" (HDF5 File Format Specification, version 3.0, III.E), without a
checksum; the rest in messages (IV.A.2.m, of data types IV.A.2.d).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from .objects import ATTRIBUTE, ATTRIBUTE_INFO, ATTRIBUTES, FileBytes, messages, stored_messages, to_int

Attribute = str | int | bool

# Kinds of values: a text in UTF-8, of any length; whole numbers, unsigned and signed, whose size follows.
TEXT: Final = b"\x19\1\1\0\x10\0\0\0\x10\0\0\0\1\0\0\0\0\0\x08\0"
UNSIGNED, SIGNED = b"\x10\0\0\0", b"\x10\x08\0\0"
BOOLS: Final = (
    b"8\2\0\0\1\0\0\0" + SIGNED + b"\1\0\0\0\0\0\x08\0FALSE\0TRUE\0\0\1",
    b"\x18\2\0\0\1\0\0\0" + SIGNED + b"\1\0\0\0\0\0\x08\0FALSE\0\0\0TRUE\0\0\0\0\0\1",
)


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
    ValueError, LookupError, struct.error
        They are damaged, or laid out otherwise than in a shard.
    """
    file = FileBytes(descriptor, check=True)
    texts = _Texts(file)
    return dict(_decode(message, texts) for message in _attributes_at(file, address))


class _Texts:
    """The texts of a file's collections."""

    def __init__(self, file: FileBytes) -> None:
        self._file = file
        self._collections: dict[int, dict[int, bytes]] = {}

    def read(self, address: int, number: int) -> bytes:
        """Return a collection's text. Raise LookupError where it has none of that number, ValueError if damaged."""
        if address not in self._collections:
            size = to_int(self._file.read(address, 16, b"GCOL\1")[8:])
            self._collections[address] = dict(_texts_of(self._file.read(address, size)))
        text = self._collections[address][number]
        self._file.take(len(text))
        return text


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


def _decode(message: bytes, texts: _Texts) -> tuple[str, Attribute]:
    """Return the name and the value that an attribute's message holds."""
    version, *sizes = struct.unpack_from("<BxHHH", message)
    at, step = (8, 8) if version == 1 else (9, 1)  # 1, which other programs write by default, has all of it padded
    parts = []
    for size in sizes:
        parts.append(message[at : at + size])
        at += -(-size // step) * step
    name, kind, _ = parts  # and the shape, of a single value: the length of what follows says it, too
    return name.rstrip(b"\0").decode(), _decode_value(kind, message[at:], texts)


def _decode_value(kind: bytes, value: bytes, texts: _Texts) -> Attribute:
    if kind == TEXT:
        length, address, number = struct.unpack("<IQI", value)
        text = texts.read(address, number) if length else b""
        if len(text) == length:
            return text.decode()
    if kind in BOOLS and value in (b"\0", b"\1"):
        return value == b"\1"
    if kind[:4] in (UNSIGNED, SIGNED) and len(kind) == 12 and 0 < to_int(kind[4:8]) == len(value) <= 8:
        return int.from_bytes(value, "little", signed=kind.startswith(SIGNED))
    raise ValueError("an attribute of another kind than a shard's")


def _attributes_at(file: FileBytes, address: int | None) -> Iterator[bytes]:
    """Yield the messages of all attributes of the object whose header is at an address, the root's if it is None."""
    for kind, body in messages(file, address):
        if kind == ATTRIBUTE:
            yield body
        elif kind == ATTRIBUTE_INFO:
            yield from stored_messages(file, ATTRIBUTES, body)
