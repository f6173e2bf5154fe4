"""Links: those of a shard's groups, gone through before HDF5 follows one (`objects` says why).

HDF5 can lead from one name to another (soft links) and to other files (external links): a shard's links are hard ones.
The form of their messages is IV.A.2.g of the HDF5 File Format Specification, version 3.0.
"""

from __future__ import annotations

from .objects import LINK, LINK_INFO, LINKS, SYMBOLS, FileBytes, messages, stored_messages, to_int


def read_links(descriptor: int, address: int | None = None) -> dict[str, int]:
    """Return the names of what is in a group, and where the headers of that lie.

    Parameters
    ----------
    descriptor : int
        Of the open file.
    address : int or None
        Where the group's header lies, which HDF5 has found whole; that of the root, if not given.

    Raises
    ------
    ValueError, LookupError, struct.error
        HDF5 might not come to an end, or they are laid out otherwise than in a shard.
    """
    file, links = FileBytes(descriptor, check=False), {}
    for kind, body in messages(file, address):
        if kind == SYMBOLS:
            raise ValueError("a group of another form than a shard's")
        stored = stored_messages(file, LINKS, body) if kind == LINK_INFO else ()
        for message in (body,) if kind == LINK else stored:
            name, target = _decode(message)
            if name in links:
                raise ValueError("two links of one name")
            links[name] = target
    return links


def _decode(message: bytes) -> tuple[str, int]:
    length = message[2] if len(message) > 2 else 0
    if message[:2] != b"\1\0" or len(message) != 3 + length + 8 or b"\0" in message[3:-8] or not length:
        raise ValueError("a link to elsewhere, or of another form than a shard's")
    return message[3:-8].decode("ascii"), to_int(message[-8:])
