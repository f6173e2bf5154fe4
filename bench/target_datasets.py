"""The targets that read a dataset: its JSON files, and its shards, damaged or forged with care."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from matting_compose.composer.base.errors import MattingComposeError
from matting_compose.composer.building.build import build
from matting_compose.composer.building.inputs import BuildInputs
from matting_compose.composer.building.make_plan import make_plan
from matting_compose.composer.building.plan import Plan
from matting_compose.composer.building.plan_file import load_plan
from matting_compose.composer.building.resume import committed_sidecars, keep_plan, plan_build
from matting_compose.composer.dataset.checksums import CHECKSUMS, read_checksums
from matting_compose.composer.dataset.dataset import open_dataset
from matting_compose.composer.dataset.documents import load_index, load_sidecar
from matting_compose.composer.dataset.objects import lookup3
from matting_compose.composer.dataset.reader import ShardReader
from matting_compose.composer.recipe import load_recipe
from target import Target, file_of, home

RECIPE = ("variants=1", "foregrounds.count=80", "backgrounds.count=3", "shards.tile=16", "shards.background=full")
SIDES = ("foregrounds.sides=[40,48]", "backgrounds.sides=[40,48]")


@cache
def dataset() -> Path:
    """Build a tiny dataset of drawn pictures."""
    out = home() / "dataset"
    build(load_recipe("demo", (*RECIPE, *SIDES)), out, jobs=1)
    return out


@cache
def plan() -> Plan:
    """Return that dataset's plan."""
    return make_plan(load_recipe("demo", (*RECIPE, *SIDES)))


def with_file(name: str, data: bytes, look: Callable[[Path], Any]) -> None:
    """Put the bytes into the place of one of the dataset's files, look, and put the file back."""
    path = dataset() / name
    whole = path.read_bytes()
    path.write_bytes(data)
    try:
        look(dataset())
    finally:
        path.write_bytes(whole)


def read_all(folder: Path) -> None:
    """Read every composite that an index lists."""
    with suppress(MattingComposeError):
        load_index(folder)
    opened = open_dataset(folder)
    for number in range(min(len(opened), 8)):
        with suppress(MattingComposeError):
            opened[number]
    opened.close()


def read_sidecar(folder: Path) -> None:
    """Read a sidecar as `inspect` does, and as a build does."""
    with suppress(MattingComposeError):
        load_sidecar(folder / "shards" / "shard-00000.json")
    committed_sidecars(BuildInputs(plan()), plan(), folder, plan().shards)


def read_plan(folder: Path) -> None:
    """Read a plan as `inspect` does, and as a build does."""
    with suppress(MattingComposeError):
        len(load_plan(folder).plan.shards)
    keep_plan(plan_build(plan().recipe, folder), folder)


def dataset_file(name: str, look: Callable[[Path], Any]) -> Target:
    """Return the target of one of a dataset's files."""
    return Target(lambda data: with_file(name, data, look), lambda: iter([(dataset() / name).read_bytes()]))


# Shards: the bytes are a list of changes to a good one, so that few of them are wasted


@cache
def good_shard() -> bytes:
    """Return a shard."""
    return (dataset() / "shards" / "shard-00000.h5").read_bytes()


def edited(whole: bytes, data: bytes, places: Sequence[int]) -> bytearray:
    """Apply changes, five bytes each: place (3), way (1), value (1); a cut where the way says so."""
    out = bytearray(whole)
    for at in range(0, len(data) - 4, 5):
        place = places[int.from_bytes(data[at : at + 3], "little") % len(places)]
        way, value = data[at + 3], data[at + 4]
        if way == 255 and at == 0:
            return out[:place]
        if place < len(out):
            out[place] = value if way & 1 else out[place] ^ (1 << (value & 7))
    return out


def read_shard(data: bytes) -> None:
    """Read every composite of a shard."""
    reader = ShardReader(file_of(data, "shard-00000.h5"))
    for row in reader.rows[:3]:
        with suppress(MattingComposeError):
            reader.read(row)
        with suppress(MattingComposeError):
            reader.find_pixel(row, 128, [0], [0])
        with suppress(MattingComposeError):
            reader.attributes(row.group)
    reader.close()


def damaged_shard(data: bytes) -> None:
    """Read a shard that was damaged: HDF5's own checksums do not fit any more."""
    read_shard(bytes(edited(good_shard(), data, range(len(good_shard())))))


def forged_shard(data: bytes) -> None:
    """Read a shard that somebody has changed with care: HDF5's own checksums fit."""
    out = edited(good_shard(), data, [place for start, end, _ in metadata_blocks() for place in range(start, end)])
    for start, end, checksum in metadata_blocks():
        if max(end, checksum + 4) <= len(out):
            out[checksum : checksum + 4] = sum_of(out, start, end, checksum).to_bytes(4, "little")
    read_shard(bytes(out))


def forged_rows(data: bytes) -> None:
    """Read a shard whose table was changed, which nothing in the file protects."""
    with h5py.File(io.BytesIO(good_shard())) as file:
        start, size = file["samples"].id.get_offset(), file["samples"].id.get_storage_size()
    read_shard(bytes(edited(good_shard(), data, range(start, start + size))))


def forged_texts(data: bytes) -> None:
    """Read a shard whose attributes' texts were changed, and their lengths: nothing protects them either."""
    start = good_shard().index(b"GCOL\1")
    size = int.from_bytes(good_shard()[start + 8 : start + 16], "little")
    read_shard(bytes(edited(good_shard(), data, range(start, start + size))))


def edits() -> Iterator[bytes]:
    """Yield some changes."""
    rng = np.random.default_rng(2)
    yield b""
    for count in (1, 2, 4, 8):
        for _ in range(8):
            yield rng.bytes(5 * count)


@cache
def metadata_blocks() -> tuple[tuple[int, int, int], ...]:
    """Return what HDF5's checksums in a good shard cover: start, end and where the checksum lies."""
    data, blocks = good_shard(), [(0, 44, 44)]
    for match in re.finditer(b"OHDR|OCHK|FAHD|FADB|FRHP|FHIB|FHDB|BTHD|BTLF", data):
        at = match.start()
        ends = range(at + 8, min(at + 4096, len(data) - 4))
        spans = [(at + 1024, at + 18)] if match[0] == b"FHDB" else [(end, end) for end in ends]
        for end, checksum in spans:
            if sum_of(data, at, end, checksum) == int.from_bytes(data[checksum : checksum + 4], "little"):
                blocks.append((at, end, checksum))
                break
    return tuple(blocks)


def sum_of(data: bytes | bytearray, start: int, end: int, checksum: int) -> int:
    """Return the checksum of a block; where it lies inside, it is taken for zeros."""
    block = bytearray(data[start:end])
    if checksum < end:
        block[checksum - start : checksum - start + 4] = bytes(4)
    return lookup3(bytes(block))


TARGETS: dict[str, Target] = {
    "index": dataset_file("dataset.json", read_all),
    "sidecar": dataset_file("shards/shard-00000.json", read_sidecar),
    "plan": dataset_file("plan.json", read_plan),
    "sums": dataset_file(CHECKSUMS, read_checksums),
    "shard": Target(damaged_shard, edits),
    "forged-shard": Target(forged_shard, edits),
    "rows": Target(forged_rows, edits),
    "texts": Target(forged_texts, edits),
}
