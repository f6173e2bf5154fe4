"""Targets: every reader of untrusted bytes, by name, with seeds to begin from. Used by fuzz.py and by the tests.

A target takes any bytes at all and returns, or raises `MattingComposeError`. Anything else is a defect.
"""

from __future__ import annotations

import io
import itertools
import json
import lzma
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import zstandard
from PIL import Image, ImageCms, features
from PIL.PngImagePlugin import PngInfo

import target_datasets
from matting_compose.composer.base.errors import MattingComposeError
from matting_compose.composer.base.file_names import file_name
from matting_compose.composer.base.progress import ignore_progress
from matting_compose.composer.compositing.trimaps import Trimap, trimap_strategy
from matting_compose.composer.fetching.corpus import load_corpus
from matting_compose.composer.fetching.debian import read_members
from matting_compose.composer.recipe import Reading, load_recipe
from matting_compose.composer.sources import image_io, mattes, picture_bytes
from matting_compose.composer.sources.probe import ORIENTATION
from target import Target, file_of, home

MAX_PIXELS = 1_000_000


# Pictures


NAME = "picture.tga"  # TGA alone is known by its ending


def read_picture(data: bytes) -> None:
    """Read a picture's header, its colours and its cut-out; sizes must agree. One in four is taken as stored."""
    path = file_of(data, NAME)
    reading: Reading = "seen" if len(data) % 4 else "stored"
    size = image_io.picture_size(path, NAME, MAX_PIXELS, reading)
    image, _ = image_io.read_rgb(path, NAME, MAX_PIXELS, reading)
    if image.shape != (*size, 3):
        raise AssertionError(f"the header says {size}, the pixels {image.shape}")
    image_io.read_cutout(path, NAME, MAX_PIXELS, reading)


def read_matte(data: bytes) -> None:
    """Read a matte as what its length says, and make a trimap of it."""
    path = file_of(data, NAME)
    role = mattes.ROLES[len(data) % len(mattes.ROLES)]
    matte, _ = mattes.read_matte(path, NAME, MAX_PIXELS, role=role)
    mattes.mend_trimap(matte, NAME, matte.shape)


def pictures() -> Iterator[bytes]:
    """Code a small picture in every format, 8 and 16 bits, with metadata, with several frames."""
    rng = np.random.default_rng(1)
    colour = cv2.resize(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8), (20, 16), interpolation=cv2.INTER_CUBIC)
    rgba = Image.fromarray(np.dstack([colour, colour[..., :1]]))
    rgb, grey = Image.fromarray(np.asarray(colour, np.uint8)), Image.fromarray(np.asarray(colour[..., 0], np.uint8))
    exif, text = Image.Exif(), PngInfo()
    exif[ORIENTATION] = 6
    text.add_itxt("Comment", "long " * 50, zip=True)
    linear = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    for picture, kind, options in (
        (rgba, "PNG", {"pnginfo": text, "exif": exif, "icc_profile": matrix_profile()}),
        (rgb, "PNG", {"save_all": True, "append_images": [rgb]}),
        (rgb.quantize(7), "PNG", {"transparency": 0}),
        (grey, "PNG", {"transparency": 9}),
        (Image.fromarray(np.asarray(colour[..., 0] > 99, np.uint16)), "PNG", {}),
        (rgb, "JPEG", {"exif": exif, "icc_profile": linear}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (grey, "JPEG", {"progressive": True}),
        (rgba, "TIFF", {"compression": "tiff_lzw"}),
        (rgb, "TIFF", {"save_all": True, "append_images": [rgb], "icc_profile": matrix_profile()}),
        (grey.convert("I;16"), "TIFF", {}),
        (rgba, "WEBP", {"lossless": True, "exif": exif}),
        (rgb, "WEBP", {"save_all": True, "append_images": [rgb]}),
        (rgb, "BMP", {}),
        (rgb, "SGI", {}),
        (rgba, "TGA", {"compression": "tga_rle"}),
        (rgb, "PPM", {}),
        (rgba, "JPEG2000", {}),
        (rgb.quantize(5), "GIF", {"transparency": 1}),
        *([(rgba, "AVIF", {"exif": exif})] if features.check("avif") else []),
    ):
        file = io.BytesIO()
        picture.save(file, kind, **options)
        yield file.getvalue()
    deep = rng.integers(0, 65536, (9, 8, 4), dtype=np.uint16)
    for channels, ending in itertools.product((1, 3, 4), (".png", ".tif")):
        yield cv2.imencode(ending, deep[..., :channels])[1].tobytes()


def matrix_profile() -> bytes:
    """Write an ICC profile of curves and a matrix."""
    tags = {b"rXYZ": (0.6, 0.3, 0.02), b"gXYZ": (0.2, 0.6, 0.07), b"bXYZ": (0.15, 0.07, 0.7)}
    parts = {key: b"XYZ \0\0\0\0" + struct.pack(">3i", *(int(v * 65536) for v in value)) for key, value in tags.items()}
    para = b"para\0\0\0\0" + struct.pack(">HH5i", 3, 0, 157286, 62119, 3417, 5072, 2651)
    parts |= {b"rTRC": b"curv\0\0\0\0" + struct.pack(">IHH", 1, 563, 0), b"gTRC": para}
    parts |= {b"bTRC": b"curv\0\0\0\0" + struct.pack(">I4H", 4, 0, 9000, 30000, 65535)}
    table, body, at = struct.pack(">I", len(parts)), b"", 132 + 12 * len(parts)
    for key, value in parts.items():
        table += key + struct.pack(">II", at + len(body), len(value))
        body += value
    head = b"lcms" + struct.pack(">I", 0x02100000) + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    return struct.pack(">I", 132 + len(table) + len(body) - 4) + head + table + body


def repair_png(data: bytes) -> bytes:
    """Make the checksums of a PNG's chunks fit, so that what they protect is looked at."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        length = min(int.from_bytes(data[at : at + 4], "big"), len(data) - at - 12)
        body = data[at + 4 : at + 8 + length]
        out += struct.pack(">I", length) + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return bytes(out)


# Text


def read_recipe(data: bytes) -> None:
    """Read a recipe, and a configuration of a training."""
    path = file_of(data, "recipe.toml")
    with suppress(MattingComposeError):
        load_recipe(path)
    with suppress(MattingComposeError):
        load_recipe("demo", [data.decode(errors="replace")])
    if find_spec("torch"):
        from matting_compose.trainer.training.config import load_config

        with suppress(MattingComposeError):
            load_config(str(path), [data.decode(errors="replace")])


def recipes() -> Iterator[bytes]:
    """Yield the shipped recipes, and single keys."""
    for name in ("demo", "dim431-coco2014", "open431"):
        yield resources.files("matting_compose.manifests").joinpath(f"{name}.toml").read_bytes()
    yield b"trimap.erode=[1,inf]"
    yield b"split.validation=['a']"


def read_tables(data: bytes) -> None:
    """Read a corpus: one table is the data, the other a good one, in turn."""
    for ending, text in (("", TABLES[0]), ("-packages", TABLES[1])):
        file_of(text, f"tables{ending}.csv")
    for ending in ("", "-packages"):
        kept = (home() / f"tables{ending}.csv").read_bytes()
        file_of(data, f"tables{ending}.csv")
        with suppress(MattingComposeError):
            load_corpus(str(home() / "tables.csv"))
        file_of(kept, f"tables{ending}.csv")


TABLES = (
    b"name,package,path,bytes,sha256,width,height,soft,licence,attribution,split\n"
    b"cutouts/a.png,tiny,usr/a.png,9,%s,9,9,0.1,CC0-1.0,nobody,train\n" % (b"0" * 64),
    b"name,version,bytes,sha256,address\ntiny,1:1.0-1,9,%s,pool/tiny.deb\n" % (b"0" * 64),
)


def read_records(data: bytes) -> None:
    """Read a run's records, and go on writing them."""
    from matting_compose.trainer.training.records import METRICS_FILE
    from matting_compose.trainer.training.run_log import RunLog

    file_of(data, METRICS_FILE)
    with suppress(MattingComposeError):
        RunLog(home(), 10, 10, ignore_progress).close()


def records() -> Iterator[bytes]:
    """Yield a few lines."""
    train = {"kind": "train", "loss": 1.5, "losses": {"a": 0.5}, "rate": 0.1, "crops_per_second": 2.0, "waiting": 0.1}
    scores = {"kind": "validation", "what": "network", "sad": 1.0, "mse": 0.1, "gradient": 2.0, "connectivity": 2.0}
    yield b"".join(json.dumps({"step": n, **line}).encode() + b"\n" for n in range(2) for line in (train, scores))


# Packages, checkpoints


def read_package(data: bytes) -> None:
    """Read a package as it is, and one whose tar archive the data is."""
    wrapped = b"!<arch>\n" + f"{'data.tar':<16}{0:<32}{len(data):<10}`\n".encode() + data
    for content in (data, wrapped):
        with suppress(MattingComposeError):
            for member in read_members(file_of(content, "tiny_1_all.deb")):
                while member.read(2**20):
                    pass


def packages() -> Iterator[bytes]:
    """Yield archives with files, long names, links and sparse files; plain, and packed."""
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as archive:
            for name in ("./usr/a.png", "./" + "long/" * 40, "../../ä"):
                entry = tarfile.TarInfo(name)
                entry.size = 600
                archive.addfile(entry, io.BytesIO(bytes(600)))
            entry = tarfile.TarInfo("link")
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(entry)
        plain = out.getvalue()
        yield plain
        for ending, packed in ((".xz", lzma.compress(plain)), (".zst", zstandard.compress(plain))):
            yield b"!<arch>\n" + f"{'data.tar' + ending:<16}{0:<32}{len(packed):<10}`\n".encode() + packed


def read_checkpoint(data: bytes) -> None:
    """Read a checkpoint as it is, and one whose pickle the data is, with good tensors beside it."""
    from matting_compose.trainer.networks.checkpoint import load_checkpoint, load_network

    forged = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good_checkpoint())) as good, zipfile.ZipFile(forged, "w") as out:
        for item in good.infolist():
            out.writestr(item, data if item.filename.endswith("/data.pkl") else good.read(item))
    for content in (data, forged.getvalue()):
        path = file_of(content, "last.pt")
        with suppress(MattingComposeError):
            load_checkpoint(path)
        with suppress(ValueError):
            load_network(path)


RUN = {"step": 3, "judged": 0, "seconds": 1.5, "best": (1, 0.5), "config": {}, "crops": 2, "plan_sha256": ""}
RUN |= {"composites": 9, "optimiser": {}}


@cache
def good_checkpoint() -> bytes:
    """Return the checkpoint of a narrow network."""
    from matting_compose.trainer.networks.checkpoint import save_checkpoint
    from matting_compose.trainer.networks.mnet import MNet

    network = MNet(width=0.05)
    state = {"network": dict(network.config), "model": network.state_dict(), "ema": None}
    save_checkpoint(home() / "good.pt", {**RUN, **state})
    return (home() / "good.pt").read_bytes()


def checkpoints() -> Iterator[bytes]:
    """Yield a checkpoint, its pickle, and pickles that would do harm."""
    yield good_checkpoint()
    with zipfile.ZipFile(io.BytesIO(good_checkpoint())) as good:
        yield next(good.read(name) for name in good.namelist() if name.endswith("/data.pkl"))
    yield b"cposix\nsystem\n(S'false'\ntR."
    yield pickle.dumps({"format": "matting-compose/checkpoint", "version": 1})


# Pure functions


def draw_trimaps(data: bytes) -> None:
    """Draw trimaps by every strategy; each is of its alpha's size and has the three levels only."""
    if len(data) < 4:
        return
    height = 1 + data[0] % 24
    pixels = np.frombuffer(data[3:], np.uint8)
    alpha = np.resize(pixels, (height, max(1, min(len(pixels) // height, 64))))
    for strategy in ("distance", "mmagic", "gca", "indexnet", "huochaitiantang", "tsing90"):
        draw = trimap_strategy(alpha, Trimap(strategy=strategy))
        trimap = draw(data[1] / 256, data[2] / 256).trimap
        assert trimap.shape == alpha.shape
        assert not set(np.unique(trimap).tolist()) - {0, 128, 255}


def alphas() -> Iterator[bytes]:
    """Yield a few alphas."""
    for seed in range(4):
        yield np.random.default_rng(seed).bytes(300)
    yield bytes(200)


def make_names(data: bytes) -> None:
    """Make a file's name of any text: it stays in its folder, on any system, and a path cannot leave its root."""
    text = data.decode("utf-8", "surrogateescape")
    made = file_name(text)
    for part in made.split("/"):
        assert part not in ("", ".", "..")
        assert len(part.encode("utf-8", "surrogatepass")) < 200
        assert not set(part) & set('\\:*?"<>|\0')
        assert part.split(".")[0].upper() not in WINDOWS
        part.encode()
    with suppress(MattingComposeError):
        assert home() in Path(os.path.normpath(picture_bytes.safe_path(home(), text))).parents


WINDOWS = {"CON", "PRN", "AUX", "NUL", *(f"{name}{n}" for name in ("COM", "LPT") for n in range(1, 10))}


def names() -> Iterator[bytes]:
    """Yield names that are up to something."""
    for name in (
        "../../etc/passwd",
        "/etc/passwd",
        "a\0b",
        "con",
        "aux.png/a",
        "a" * 999,
        "ä/é",
        "..",
        "a//b",
        "C:\\x",
    ):
        yield name.encode()
    yield b"\xff\xfe"


TARGETS: dict[str, Target] = {
    "picture": Target(read_picture, pictures, repair_png),
    "matte": Target(read_matte, pictures, repair_png),
    **target_datasets.TARGETS,
    "recipe": Target(read_recipe, recipes),
    "tables": Target(read_tables, lambda: iter(TABLES)),
    "records": Target(read_records, records),
    "package": Target(read_package, packages),
    "checkpoint": Target(read_checkpoint, checkpoints),
    "trimap": Target(draw_trimaps, alphas),
    "names": Target(make_names, names),
}
