"""Targets: every reader of untrusted bytes, by name, with seeds to begin from. Used by fuzz.py and by the tests.

A target takes any bytes at all and returns, or raises `MattingComposeError`. Anything else is a defect.
"""

from __future__ import annotations

import io
import json
import lzma
import os
import pickle
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import zstandard

import target_datasets
import target_pictures
from matting_compose.composer.base.errors import MattingComposeError
from matting_compose.composer.base.file_names import file_name
from matting_compose.composer.base.progress import ignore_progress
from matting_compose.composer.compositing.trimaps import Trimap, trimap_strategy
from matting_compose.composer.fetching.corpus import load_corpus
from matting_compose.composer.fetching.debian import read_members
from matting_compose.composer.recipe import load_recipe
from matting_compose.composer.sources import picture_bytes
from target import Target, file_of, home

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
    for aside in home().glob("*.damaged.jsonl*"):  # one for each input: finding a free name would take ever longer
        aside.unlink()


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


RUN = {"step": 3, "judged": 0, "seconds": 1.5, "best": (1, 0.5), "config": {}, "crops": 2, "optimiser": {}}
RUN |= {"datasets": [{"plan_sha256": "", "composites": 9, "share": 1}]}


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
    **target_pictures.TARGETS,
    **target_datasets.TARGETS,
    "recipe": Target(read_recipe, recipes),
    "tables": Target(read_tables, lambda: iter(TABLES)),
    "records": Target(read_records, records),
    "package": Target(read_package, packages),
    "checkpoint": Target(read_checkpoint, checkpoints),
    "trimap": Target(draw_trimaps, alphas),
    "names": Target(make_names, names),
}
