"""Hostile input: no crash without a message, no code run, no write outside the folder, memory bounded."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

import fuzz
import targets
from matting_compose.composer.base.errors import MattingComposeError, SourceError, TrainingError
from matting_compose.composer.sources.image_io import picture_size, read_rgb

MOST = 1_000_000
SHARDS = ("shard", "forged-shard", "rows", "texts")
INPUTS = {"recipe": 40, "checkpoint": 40, "picture": 500, "matte": 500}
FUZZ = Path(fuzz.__file__)


@pytest.mark.parametrize("target", [name for name in targets.TARGETS if name not in SHARDS])
def test_mutated_input_is_told_as_such(target: str, tmp_path: Path) -> None:
    """Seeds and some mutations of every reader of untrusted bytes, as the fuzzer runs them for hours."""
    for data in itertools.islice(fuzz.inputs(target), INPUTS.get(target, 120)):
        fuzz.attempt(targets.TARGETS[target].run, data, tmp_path, target)
    found = [path.read_text() for path in tmp_path.glob("*.txt")]
    assert not found, found[0]


def test_mutated_shards_kill_nobody(tmp_path: Path) -> None:
    """HDF5 is another's: it reads damaged and forged shards in a process of its own, which lives."""
    command = [sys.executable, str(FUZZ), *SHARDS]
    done = subprocess.run(
        [*command, "--blind", "--seconds", "1", "--out", str(tmp_path)], capture_output=True, text=True, check=False
    )
    found = [path.read_text() for path in (tmp_path / "findings").glob("*.txt")]
    assert (done.returncode, found) == (0, []), done.stderr


@given(st.text())
@example("con")
@example("LPT1.tar.gz")
@example("a/../..//b")
def test_names_become_safe(name: str) -> None:
    """Whatever a foreground is called, its file stays in its folder and has a name that every system takes."""
    targets.make_names(name.encode("utf-8", "surrogatepass"))


@given(st.text(), st.sampled_from(["seed", "variants", "trimap.erode", "foregrounds.root", "split.validation", ""]))
@example("[1,inf]", "trimap.erode")
@example("9" * 5000, "seed")
@example("[" * 3000, "seed")
@example("nan", "split.validation")
def test_any_override_is_a_value_or_an_error(value: str, key: str) -> None:
    """`--set` with anything at all."""
    with contextlib.suppress(MattingComposeError):
        targets.load_recipe("demo", [f"{key}={value}"])


def png(*chunks: tuple[bytes, bytes], side: int = 60_000) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    framed = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def declaring(kind: str, width: int, height: int) -> bytes:
    """Make a tiny picture that declares another size than it has."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    data = bytearray(file.getvalue())
    if kind == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", height, width)
    elif kind == "WEBP":
        data[21:25] = ((width - 1) | (height - 1) << 14).to_bytes(4, "little")
    elif kind == "BMP":
        data[18:26] = struct.pack("<ii", width, height)
    elif kind == "TIFF":
        for tag, value in ((256, width), (257, height)):
            at = max(data.find(struct.pack("<HH", tag, size)) for size in (3, 4))  # a short or a long
            data[at : at + 12] = struct.pack("<HHII", tag, 4, 1, value)
    return bytes(data)


BOMBS = {
    "png": png(),
    "tif": declaring("TIFF", 60_000, 60_000),
    "jpg": declaring("JPEG", 60_000, 60_000),
    "webp": declaring("WEBP", 16_000, 16_000),
    "bmp": declaring("BMP", 60_000, 60_000),
}


@pytest.mark.parametrize("ending", BOMBS)
def test_decompression_bombs_are_refused_by_their_header(tmp_path: Path, ending: str) -> None:
    """A file of a kilobyte that declares gigabytes is not decoded."""
    path = tmp_path / f"bomb.{ending}"
    path.write_bytes(BOMBS[ending])
    for read in (read_rgb, picture_size):
        with pytest.raises(SourceError) as caught:
            read(path, "bomb", MOST)
        assert caught.value.cause == "too-large"


@pytest.mark.parametrize("kind", [b"iTXt", b"zTXt", b"iCCP"])
def test_text_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path: Path, kind: bytes) -> None:
    """Metadata of a hundred megabytes in a hundred kilobytes costs no memory worth speaking of."""
    packed = zlib.compress(bytes(100_000_000))
    data = {b"iTXt": b"a\0\1\0\0\0" + packed, b"zTXt": b"a\0\0" + packed, b"iCCP": b"a\0\0" + packed}[kind]
    path = tmp_path / "a.png"
    path.write_bytes(png((kind, data), side=10))
    assert memory_of_reading(path, MOST) < 80_000  # kilobytes


def scans_jpeg(side: int, scans: int, before: bytes = b"") -> bytes:
    """Make a progressive JPEG of empty scans, each of which is a pass over the whole picture; bytes before each."""

    def segment(marker: int, data: bytes) -> bytes:
        return b"\xff" + bytes([marker]) + (len(data) + 2).to_bytes(2, "big") + data

    def bits(text: str) -> bytes:
        text += "1" * (-len(text) % 8)
        return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")

    blocks = (-(-side // 8)) ** 2
    start = segment(0xDB, b"\0" + b"\1" * 64)
    start += segment(0xC2, bytes([8]) + side.to_bytes(2, "big") * 2 + bytes([1, 1, 0x11, 0]))
    start += segment(0xC4, bytes([0, 1] + [0] * 15) + b"\0") + segment(0xC4, bytes([0x10, 1] + [0] * 15) + b"\xe0")
    first = segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + bits("0" * blocks)
    empty = before + segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + bits(("0" + "1" * 14) * (-(-blocks // 32767)))
    return b"\xff\xd8" + start + first + empty * scans + b"\xff\xd9"


def test_a_jpeg_of_a_thousand_scans_is_refused(tmp_path: Path) -> None:
    """Its size says nothing of the time that it takes; ten scans are what programs write."""
    path = tmp_path / "a.jpg"
    for before in (b"", b"\xff\x01"):  # a marker that stands alone: what follows is no length
        path.write_bytes(scans_jpeg(80, 1000, before))
        with pytest.raises(SourceError, match="more than 100 scans") as caught:
            read_rgb(path, "a", MOST)
        assert caught.value.cause == "unsupported"
    path.write_bytes(scans_jpeg(80, 10))
    assert read_rgb(path, "a", MOST)[0].shape == (80, 80, 3)


def test_16_bits_of_many_pixels_take_bounded_memory(tmp_path: Path) -> None:
    """A PNG of 100 kB that holds 12 megapixels of 16-bit RGBA takes some 13 bytes for each, not 50."""
    side, packer = 3_464, zlib.compressobj(9)
    rows = [packer.compress(bytes(1 + 8 * side) * 8) for _ in range(side // 8)]
    header = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", b"".join([*rows, packer.flush()])), (b"IEND", b"")]
    framed = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts)
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))
    assert memory_of_reading(path, 10**9) < 20 * side * side / 1000  # kilobytes


def memory_of_reading(path: Path, limit: int) -> int:
    """Return by how many kilobytes a process grows as it reads a picture."""
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from matting_compose.composer.sources.image_io import read_rgb\n"
        "from matting_compose.composer.base.errors import SourceError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_rgb(Path(sys.argv[1]), 'a', int(sys.argv[2]))\n"
        "except SourceError: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", code, str(path), str(limit)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_and_devices_are_no_pictures(tmp_path: Path) -> None:
    """A picture that would never begin, and one that would never end, are refused before they are opened."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "endless.png"):
        for read in (read_rgb, picture_size):
            with pytest.raises(SourceError, match="a device or a pipe"):
                read(tmp_path / name, name, MOST)


READERS = {
    "list.txt": "composer.sources.listings:read_list",
    "recipe.toml": "composer.recipe:load_recipe",
    "config.toml": "trainer.training.config:load_config",
    "config.json": "trainer.training.config:load_config",
    "corpus.csv": "composer.fetching.corpus:load_corpus",
    "coco.json": "composer.sources.coco:pictures_showing",
    "weights.pth": "trainer.networks.weights:read_tensors",
    "weights.safetensors": "trainer.networks.weights:read_tensors",
    "network.safetensors": "trainer.networks.checkpoint:load_network",
    "a.deb": "composer.fetching.debian:read_members",
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("name", READERS)
def test_pipes_are_nothing_else(tmp_path: Path, name: str) -> None:
    """No reader of files from elsewhere waits for one that never begins."""
    module, _, function = READERS[name].partition(":")
    read = getattr(import_module(f"matting_compose.{module}"), function)
    os.mkfifo(tmp_path / name)
    path = str(tmp_path / name) if "load_" in function else tmp_path / name
    with pytest.raises((MattingComposeError, OSError), match="a device or a pipe"):
        list(read(path, ["person"]) if name == "coco.json" else read(path))


class Payload:
    """A pickle that runs a command when it is read carelessly."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def test_checkpoints_run_no_code(tmp_path: Path) -> None:
    """Neither as a bare pickle nor inside the archive that torch writes."""
    from matting_compose.trainer.networks.checkpoint import load_checkpoint, load_network

    hostile = pickle.dumps(Payload(f"touch {tmp_path / 'owned'}"), protocol=2)
    inside = io.BytesIO()
    with zipfile.ZipFile(inside, "w") as archive:
        archive.writestr("archive/data.pkl", hostile)
        archive.writestr("archive/version", "3\n")
    for data, told in ((hostile, "found a bare pickle"), (inside.getvalue(), "more than plain data")):
        (tmp_path / "last.pt").write_bytes(data)
        with pytest.raises(TrainingError, match=told):
            load_checkpoint(tmp_path / "last.pt")
        with pytest.raises(ValueError, match=told):
            load_network(tmp_path / "last.pt")
    assert not (tmp_path / "owned").exists()


def compress(path: Path) -> None:
    """Add ten megabytes that take ten kilobytes."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/more", bytes(10_000_000))


def enlarge(path: Path) -> None:
    """Let the archive's last record declare two gigabytes."""
    data = bytearray(path.read_bytes())
    declared = data.rindex(b"PK\1\2") + 24
    data[declared : declared + 4] = (2**31).to_bytes(4, "little")
    path.write_bytes(data)


def double(path: Path) -> None:
    """Add a record of a name that is there: one of the two would be checked, and perhaps the other read."""
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(archive.namelist()[0], b"")


def stretch(path: Path) -> None:
    """Add a tensor of a million numbers that are one."""
    import torch

    torch.save({**torch.load(path, weights_only=True), "more": torch.zeros(1).expand(1_000_000)}, path)


@pytest.mark.parametrize(("forge", "told"), [
    (compress, "its records are compressed"), (enlarge, "its records are larger than the file"),
    (double, "a record is there twice"), (stretch, "its tensors are larger than the file"),
])  # fmt: skip
def test_checkpoints_are_no_zip_bombs(tmp_path: Path, forge: Callable[[Path], None], told: str) -> None:
    """Nothing takes more memory than the file has bytes: ten megabytes could be ten gigabytes."""
    from matting_compose.trainer.networks.checkpoint import load_checkpoint

    path = tmp_path / "last.pt"
    path.write_bytes(targets.good_checkpoint())
    load_checkpoint(path)
    forge(path)
    with pytest.raises(TrainingError, match=told):
        load_checkpoint(path)
