"""A stranger's shard: what HDF5 would fetch from elsewhere, and what decoders would unpack, is refused before."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from PIL import Image

from matting_compose.composer import load_recipe, open_dataset
from matting_compose.composer.base import files
from matting_compose.composer.base.errors import DatasetError, MattingComposeError
from matting_compose.composer.building.plan_file import load_plan
from matting_compose.composer.dataset import writer
from matting_compose.composer.dataset.codecs import Jpeg, TileCodec, WebP
from matting_compose.composer.dataset.documents import MOST_COMPOSITES, load_index, load_sidecar
from matting_compose.composer.dataset.reader import ShardReader
from matting_compose.composer.dataset.rows import Header, Row
from matting_compose.composer.dataset.writer import ShardWriter
from matting_compose.composer.inspection.verify import verify

Change = Callable[[h5py.File, Path], None]
SHARD = Path("shards") / "shard-00000.h5"


def array_name(file: h5py.File, name: str) -> str:
    return f"groups/{min(file['groups'])}/{name}"


def external_table(file: h5py.File, elsewhere: Path) -> None:
    """Let the table's bytes lie in another file."""
    table = file["samples"][()]
    elsewhere.write_bytes(table.tobytes())
    del file["samples"]
    file.create_dataset("samples", table.shape, table.dtype, external=[(str(elsewhere), 0, table.nbytes)])


def external_array(file: h5py.File, elsewhere: Path) -> None:
    """Let a picture's bytes lie in another file."""
    name = array_name(file, "alpha")
    alpha = file[name]
    elsewhere.write_bytes(bytes(alpha.size))
    shape = alpha.shape
    del file[name]
    file.create_dataset(name, shape, "u1", external=[(str(elsewhere), 0, int(np.prod(shape)))])


def virtual_array(file: h5py.File, elsewhere: Path) -> None:
    """Let composites be a view of another HDF5 file's."""
    name = array_name(file, "image")
    shape = file[name].shape
    with h5py.File(elsewhere, "w") as other:
        other.create_dataset("image", shape, "u1")
    view = h5py.VirtualLayout(shape, "u1")
    view[...] = h5py.VirtualSource(elsewhere, "image", shape)
    del file[name]
    file.create_virtual_dataset(name, view)


def linked_array(file: h5py.File, elsewhere: Path) -> None:
    """Let a name lead to another name."""
    name = array_name(file, "trimap")
    file.move(name, "hidden")
    file[name] = h5py.SoftLink("/hidden")


def linked_group(file: h5py.File, elsewhere: Path) -> None:
    """Let the groups lie in another HDF5 file."""
    shutil.copy(file.filename, elsewhere)
    del file["groups"]
    file["groups"] = h5py.ExternalLink(str(elsewhere), "/groups")


def linked_tiles(file: h5py.File, elsewhere: Path) -> None:
    """Let the table of tiles lie in another HDF5 file."""
    shutil.copy(file.filename, elsewhere)
    del file["tiles"]
    file["tiles"] = h5py.ExternalLink(str(elsewhere), "/tiles")


def other_chunks(file: h5py.File, elsewhere: Path) -> None:
    """Cut pictures otherwise than the codec would."""
    name = array_name(file, "foreground")
    pixels = file[name]
    shape, start = pixels.shape, pixels.attrs["tiles"]
    del file[name]
    array = file.create_dataset(name, shape, "u1", chunks=(1, *shape[1:]))
    array.attrs["tiles"] = start


@pytest.mark.parametrize("change", [external_table, external_array, virtual_array, linked_array, linked_group,
                                    linked_tiles, other_chunks])  # fmt: skip
def test_nothing_is_read_from_elsewhere(
    copied: Path, tmp_path: Path, change: Callable[[h5py.File, Path], None]
) -> None:
    """External storage, virtual datasets, links and foreign layouts are errors, for readers and for --verify."""
    with h5py.File(copied / SHARD, "r+") as file:
        change(file, tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match=r"shard-00000\.h5: .*damaged"):
        list(open_dataset(copied))
    causes = {problem.cause for problem in verify(copied, jobs=1).problems if problem.file == SHARD.as_posix()}
    assert causes & {"unreadable", "damaged-composite"}


def test_pipes_and_devices_are_no_documents(copied: Path) -> None:
    """An index that would never begin and a shard that would never end are errors, at once."""
    (copied / SHARD).unlink()
    (copied / SHARD).symlink_to("/dev/zero")
    with pytest.raises(DatasetError, match="a device or a pipe"):
        open_dataset(copied).reader(0)
    (copied / "dataset.json").unlink()
    os.mkfifo(copied / "dataset.json")
    with pytest.raises(DatasetError, match="a device or a pipe"):
        open_dataset(copied)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": NaN}', '{"a": 1e999}', '{"a": ' + "9" * 5000 + "}"])
def test_json_is_bounded(copied: Path, text: str) -> None:
    """Depth, numbers that are none, numbers without end: errors, before anything is made of them."""
    (copied / "dataset.json").write_text(text)
    with pytest.raises(DatasetError, match="damaged, cannot be read"):
        open_dataset(copied)


def test_documents_are_of_a_bounded_size(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A larger file is not read to its end."""
    monkeypatch.setattr(files, "MOST_BYTES", 1000)
    os.truncate(copied / "dataset.json", 2**26)
    tracemalloc.start()
    with pytest.raises(DatasetError, match="holds more than 1,000 bytes"):
        open_dataset(copied)
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()


@pytest.mark.parametrize("item", ["[],", '{"a":{}},', '"ab",', "1e1,"])
def test_bombs_of_values_are_refused(copied: Path, item: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that takes ten to thirty times its size once it is parsed is refused before, in a few times its size."""
    monkeypatch.setattr(files, "MOST_VALUES", 100_000)
    monkeypatch.setattr(files, "MOST_BYTES", 2_000_000)
    text = item * 150_000 + "0]"
    sidecar = copied / "shards" / "shard-00000.json"
    for path in (copied / "dataset.json", copied / "plan.json", sidecar):
        path.write_text('{"a":[' + text + "}")
    (copied / "recipe.toml").write_text("a=[" + text)
    readers = (
        lambda: load_index(copied),
        lambda: load_plan(copied),
        lambda: load_sidecar(sidecar),
        lambda: load_recipe(str(copied / "recipe.toml")),
    )
    for read in readers:
        tracemalloc.start()
        with pytest.raises(MattingComposeError, match=r"some \d{3},\d{3} values, at most 100,000 are read"):
            read()
        assert tracemalloc.get_traced_memory()[1] < 8_000_000  # parsed: 10 to 43
        tracemalloc.stop()


def test_an_index_cannot_ask_for_any_memory(copied: Path) -> None:
    """Readers make room for a number for each composite, so there is an end to how many there can be."""
    document = json.loads((copied / "dataset.json").read_text())
    document["shards"][0]["composites"] = MOST_COMPOSITES
    (copied / "dataset.json").write_text(json.dumps(document))
    with pytest.raises(DatasetError, match="it lists 268,435,"):
        open_dataset(copied)


def png_bomb(side: int) -> bytes:
    """Pack black pixels into a small PNG."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + 3 * side)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    framed = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def coded(kind: str, side: int = 64, mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, kind, **options)
    return file.getvalue()


def sealed(data: bytes) -> bytes:
    """Add the checksum that a WebP tile ends in."""
    return data + zlib.crc32(data).to_bytes(4, "little")


JPEG_TILE = Jpeg(95).encode_tile(np.zeros((64, 64, 3), np.uint8))
BITMAP = coded("BMP")


@pytest.mark.parametrize(
    ("codec", "data"),
    [
        (Jpeg(95), png_bomb(3000)),
        (Jpeg(95), coded("JPEG", progressive=True)),
        (Jpeg(95), coded("JPEG", 65)),
        (Jpeg(95), coded("JPEG", mode="L")),
        (Jpeg(95), coded("PNG")),
        (Jpeg(95), JPEG_TILE[: len(JPEG_TILE) // 4]),
        (Jpeg(95), b""),
        (WebP(3), sealed(coded("PNG"))),
        (WebP(3), sealed(BITMAP[:12] + b"VP8L" + BITMAP[16:21] + (63 | 63 << 14).to_bytes(4, "little") + BITMAP[25:])),
        (WebP(3), sealed(coded("WEBP", quality=80))),
    ],
)
def test_a_tile_is_of_its_codecs_own_format(codec: TileCodec, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another format, another kind of it, or another size never reaches the decoder."""
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match="tile is damaged"):
        codec.decode_tile(data, (64, 64, 3))


HEADER = Header("0" * 64, 0, "train", "plain", 95, 32, "none")


def write_shard(path: Path) -> str:
    """Write a shard of one composite, 40×40 px."""
    pixels = np.arange(40 * 40 * 3, dtype=np.uint8).reshape(40, 40, 3)
    alpha = pixels[..., 0].copy()
    row = Row("disc_0", "disc", 0, "photo", "1" * 64, 40, 40, 1.0, 0, 0, 1, 1, 0, 0)
    with ShardWriter(path, HEADER) as shard:
        group = shard.group(0, "disc", "2" * 64, (40, 40), 1)
        group.write_foreground(pixels, alpha)
        group.write_composite(0, pixels, alpha, pixels)
        return shard.finish([row])


def test_what_is_read_back_is_what_users_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of header, row, digest, tile or table, made when the file is closed, is noticed before it is used."""
    write_shard(tmp_path / "whole.h5")
    whole = (tmp_path / "whole.h5").read_bytes()
    with ShardReader(tmp_path / "whole.h5") as reader:
        tile, first = (
            reader.arrays(0)["image"].read_tile(None, 0, 0),
            reader.arrays(0)["alpha"].tiles[0, 0, 0].tobytes(),
        )
    places = {
        "plan": HEADER.plan_sha256.encode(), "packing": b"plain", "split": b"train", "complete": b"complete",
        "key": b"disc_0", "background": b"1" * 64, "foreground's digest": b"2" * 64, "tile": tile, "table": first,
        "signature": b"\x89HDF",
    }  # fmt: skip
    for what, known in places.items():
        at = whole.rindex(known) if what == "table" else whole.index(known)

        def damaged(path: Path, at: int = at) -> ShardReader:
            with path.open("r+b") as file:
                file.seek(at)
                file.write(bytes([whole[at] ^ 1]))
            return ShardReader(path)

        monkeypatch.setattr(writer, "ShardReader", damaged)
        with pytest.raises(DatasetError, match=r"damaged\.h5"):
            write_shard(tmp_path / "damaged.h5")


def test_a_group_whose_composites_all_failed_is_written(tmp_path: Path) -> None:
    """Its foreground is there, its composites never were; what was written is proved all the same."""
    pixels, alpha = np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.uint8)
    with ShardWriter(tmp_path / "empty.h5", HEADER) as shard:
        shard.group(0, "disc", "2" * 64, (40, 40), 1).write_foreground(pixels, alpha)
        shard.finish([])
    with ShardReader(tmp_path / "empty.h5") as reader:
        assert reader.rows == []
        with pytest.raises(ValueError, match="was never written"):
            reader.arrays(0)["image"].read_tile(0, 0, 0)
