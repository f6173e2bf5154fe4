"""Make small datasets, cut-outs, exports, networks, mattes and reports, and print the SHA-256 of all that was made.

    python bench/digests.py > before    # then change what must not change bytes
    python bench/digests.py > after
    diff before after

Run it before and after a change that must not change bytes, on one machine and with the same libraries: others round
otherwise. It draws its own pictures and knows the program by its commands alone, those beside this Python, so that it
runs on any checkout. One line a result, sorted: the digest and the name. A command that ends otherwise than it should
has the line `failed` instead, and the exit code is 1. One core, some minutes; `--only 'build/trimap-*'` is quicker.

What may differ between two runs of the same program is left out of a digest, see `LEFT_OUT`. Pictures that may carry
texts (of extract, matting-predict and trainings) are hashed by their pixels, checkpoints by their tensors, and
everything else by its bytes. Warnings, progress and messages of errors are not looked at.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Command = tuple[str, ...]

# Keys of JSON files that are not the same in every run: the clock's, the disk's and the process's; and the libraries'
# versions, which stand in an index and in sidecars to say why bytes differ. No result holds an absolute path.
LEFT_OUT = {
    "dataset.json": ("made_with",),
    "shard-*.json": ("made_with",),
    "extract.json": ("seconds",),
    "metrics.jsonl": ("crops_per_second", "waiting", "memory", "seconds"),
    "dry-run.json": ("seconds", "free_bytes"),
    "verify.json": ("seconds",),
}
# Lines of a text file, by their ends: the sums of files of which a part is left out.
LEFT_OUT_LINES = {"SHA256SUMS": ".json"}
UNREAD = ("index.html",)  # of a run's folder: it shows the clock's part of metrics.jsonl
FOLDER = "Adobe-licensed images"
FAILED = "failed"  # in the place of a digest
STATES = ("model", "ema", "optimiser")  # of a checkpoint; beside them it holds seconds and plain settings
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "OMP_THREAD_LIMIT"), "1"
)


@dataclass(frozen=True)
class Case:
    """Something to make.

    Attributes
    ----------
    name : str
        What to call it, and where it lies.
    commands : tuple of Command
        Run in turn, in the folder of the inputs; ``{out}`` is the case's own place, ``{NAME}`` another case's.
    code : int
        What each of them exits with.
    pixels : bool
        Whether pictures are hashed by their pixels.
    printed : bool
        Whether what is printed is the result.
    """

    name: str
    commands: tuple[Command, ...]
    code: int = 0
    pixels: bool = False
    printed: bool = False

    @property
    def needs(self) -> set[str]:
        """The names of the cases that it reads."""
        found = re.findall(r"\{([\w/.-]+)\}", " ".join(word for command in self.commands for word in command))
        return set(found) - {"out"}


class Failed(Exception):
    """A command did not do what it should."""


# --- what is made -----------------------------------------------------------------------------------------------------

CUTOUTS = "--foregrounds cutouts --backgrounds photos --variants 2"
PAIRS = "--foregrounds pairs/fg --alphas pairs/alpha --backgrounds photos --variants 2"
LISTED = ("backgrounds.layout=list", "backgrounds.list=names.txt")
LOOKS = {
    "flip": ("looks.flip=1",),
    "smaller": ("looks.scale=[0.4,0.8]",),
    "larger": ("looks.scale=[1.2,1.7]",),
    "rotate": ("looks.rotate=40",),
    "pair": ("looks.pair=1",),
    "jitter": ("looks.jitter=0.3",),
    "count": ("variants=4", "looks.count=3", "looks.flip=0.5"),
    "all": ("variants=4", "looks.count=2", "looks.flip=0.5", "looks.scale=[0.7,1.2]", "looks.rotate=20",
            "looks.pair=0.5", "looks.jitter=0.2"),
}  # fmt: skip
SCENES = {
    "denoise": ("scenes.denoise=1",),
    "blur": ("scenes.blur=1", "scenes.sigma=[0.5,3]"),
    "harmonise": ("scenes.harmonise=[0.3,1]",),
    "shadow": ("scenes.shadow=1", "scenes.darkness=[0.3,0.9]"),
    "all": ("scenes.denoise=0.5", "scenes.blur=0.5", "scenes.harmonise=[0,1]", "scenes.shadow=0.5"),
}
TRIMAPS = {
    "px": ("trimap.erode=[1,5]", "trimap.dilate=[2,30]"),
    "subject": ("trimap.unit=subject", "trimap.erode=[2.5,40]", "trimap.dilate=[10,60.5]"),
    "solid": ("trimap.opaque=240", "trimap.clear=10"),
    **{name: (f"trimap.strategy={name}",) for name in ("mmagic", "gca", "indexnet", "huochaitiantang", "tsing90")},
    "gca-solid": ("trimap.strategy=gca", "trimap.opaque=240", "trimap.clear=10"),
}
PLAIN_BUILDS = {
    "seed": (CUTOUTS, "seed=7"),
    "jobs": (f"{CUTOUTS} -j 2", "variants=3"),
    "pairing-shuffled": (CUTOUTS, "pairing.order=shuffled", "variants=3"),
    "pairing-sequential": (CUTOUTS, "pairing.order=sequential", "variants=3"),
    "pairing-listed": (PAIRS, "pairing.order=listed", *LISTED),
    "split-share": (CUTOUTS, "split.validation=0.3"),
    "split-names": (CUTOUTS, 'split.validation=["disc","sub folder/räder"]'),
    "cut-small": (CUTOUTS, "variants=5", "shards.variants=2", "shards.megabytes=1", "shards.tile=16"),
    "cut-large": (CUTOUTS, "shards.tile=1024"),
    "foregrounds-sides": (CUTOUTS, "foregrounds.min_side=40", "foregrounds.max_side=110", "foregrounds.enlarge_to=100"),
    "foregrounds-pairs": (PAIRS, "trimap.opaque=250", "trimap.clear=5"),
    "foregrounds-tables": ("several.toml",),
    "backgrounds-list": (CUTOUTS, *LISTED),
    "backgrounds-sides": (CUTOUTS, "backgrounds.min_side=100", "backgrounds.recursive=false"),
    "backgrounds-reduced": (CUTOUTS, "backgrounds.max_side=90", "shards.background=full"),
    "backgrounds-annotations": (CUTOUTS, *LISTED, "backgrounds.annotations=instances.json",
                                'backgrounds.without=["cat"]'),
    "backgrounds-drawn": ("--foregrounds cutouts --variants 2", "backgrounds.layout=procedural", "backgrounds.count=6",
                          "backgrounds.sides=[60,200]"),
    "kinds": ("--foregrounds kinds/fg --backgrounds kinds/bg --variants 5",),
    "licence": (CUTOUTS, "foregrounds.licence=CC0", "foregrounds.attribution=Ä", "backgrounds.licence=MIT"),
    "drawn": ("drawn.toml",),
    "demo": ("demo", "variants=2"),
    "modern": ("modern", "variants=4", "foregrounds.count=8", "backgrounds.count=12", "foregrounds.sides=[100,160]"),
    "modern-cutouts": (f"modern {CUTOUTS}", "variants=6"),
    "open431": (f"open431 {CUTOUTS}", "split.validation=0.3"),
    "trimap-supplied": (PAIRS, "trimap.strategy=supplied"),
    "fit-adobe": (CUTOUTS, "fit.method=adobe", "shards.background=full"),
    "fit-adobe-pairs": (PAIRS, "fit.method=adobe", "shards.background=full"),
    "fit-adobe-modern": (f"modern {CUTOUTS}", "variants=4", "fit.method=adobe", "shards.background=full"),
    "adobe-training": ("dim431-coco2014 --foregrounds Training_set --backgrounds train2014", "variants=2",
                       "foregrounds.expected=4"),
    "adobe-test": ("composition-1k --foregrounds Test_set --backgrounds VOC", "variants=2", "foregrounds.expected=2"),
    "for-export": (f"modern {CUTOUTS}", "variants=4", "looks.count=2", "shards.background=full"),
    "for-training": (CUTOUTS, "variants=3", "foregrounds.min_side=60", "shards.background=unknown",
                     'split.validation=["disc"]'),
}  # fmt: skip

TINY = (
    "seed=7", "log_every=1", "save_every=100", "network.width=0.03", "stream.crop=32", "stream.sizes=[32,48]",
    "stream.workers=0", "optimiser.rate=1e-3", "validation.every=3", "validation.limit=2", "validation.panel=1",
)  # fmt: skip
LOSSES = "losses={alpha_prediction=1.0,compositional=0.5,shm_prediction=0.5,laplacian=0.5,gradient=0.5}"
SHM = ("shm-mnet", "stream.batch=3", "network.encoder=random", "network.decoder=resize", "keep_every=2")
TRAININGS = {
    "cpu-small": ("cpu-small", "stream.batch=4", "optimiser.warmup=2", "optimiser.ema=0.9"),
    "dim": ("dim", "stream.batch=2", "network.encoder=random", "network.norm=group", "optimiser.accumulate=2", LOSSES,
            "stream.augment.jitter=0.2", "stream.augment.chance=0.5"),
    "modern": ("modern", "stream.batch=2", "stream.workers=1"),
}  # fmt: skip
NETWORK = "{train/cpu-small}/last.pt"
MATTES = {
    "own.png": f"{NETWORK} cutouts/large.png",
    "trimap": f"{NETWORK} pairs/fg --trimap pairs/masks --bits 16",
    "mask": f"{NETWORK} pairs/fg --mask pairs/alpha --save-trimap --cutout --background photos/small.png --panel",
    "tiles.png": f"{NETWORK} pairs/large.jpg --trimap pairs/large.png --tile 512",
    "reduced.png": f"{NETWORK} pairs/large.jpg --trimap pairs/large.png --max-side 200",
    "segmentation.png": f"{NETWORK} cutouts/large.png --method segmentation",
    "closed-form": "pairs/fg --trimap pairs/masks --method closed-form",
    "by-trimap": "pairs/fg --trimap pairs/masks --method trimap",
}
EXTRACTS = {
    "pairs": "pairs/fg --alphas pairs/alpha",
    "cutouts": "cutouts mixed kinds/fg",
    "huge": "huge.jpg --alphas huge",
    **{layout: f"{layout} --layout {layout}" for layout in ("aim500", "am2k", "p3m10k", "ppm100")},
}
EXPORTS = {
    "png": "{build/for-export} {out} --to png",
    "png-part": "{build/for-export} {out} --to png --split train --foreground large --foreground disc --count 3",
    "png-plain": "{build/packing-delta-none} {out} --to png",
    "webdataset": "{build/for-export} {out} --to webdataset",
    "webdataset-part": "{build/packing-jpeg-unknown} {out} --to webdataset --count 5",
}
TOLD = {  # what is printed, and the exit code
    "summary.json": ("inspect {build/for-export} --full", 0),
    "verify.json": ("inspect {build/for-export} --verify -j 1", 0),
    "diff.json": ("inspect {build/for-export} --diff {build/modern-cutouts}", 1),
    "doctor.json": ("doctor modern --foregrounds cutouts --backgrounds photos -j 1", 0),
    "doctor-failures.json": ("doctor --foregrounds damaged --backgrounds broken -j 1", 3),
    "doctor-adobe.json": ("doctor dim431-coco2014 --foregrounds Training_set --backgrounds train2014 -j 1", 3),
    "dry-run.json": (f"build {CUTOUTS} --dry-run -j 1", 0),
}
SHOWN = {
    "panel.png": ("matting-compose", "inspect {build/for-export} --show 3 -o {out}"),
    "report.html": ("matting-compose", "inspect {build/for-export} --report {out}"),
    "scores": ("matting-evaluate", f"--dataset {{build/for-training}} --checkpoint {NETWORK} --method network"
               " --method trimap --method perfect-mask --device cpu -j 1 -o {out}"),
    "network.safetensors": ("matting-export", f"{NETWORK} -o {{out}}"),
    "network.onnx": ("matting-export", f"{NETWORK} -o {{out}}"),
}  # fmt: skip


def command(program: str, text: str, *overrides: str) -> Command:
    """Return the words of a command; `overrides` are given by ``--set``."""
    return (program, *text.split(), *(f"--set={override}" for override in overrides))


def cases() -> dict[str, Case]:
    """Return everything that can be made, by its name."""
    found = [*build_cases(), *picture_cases(), *training_cases(), *telling_cases()]
    return {case.name: case for case in found}


def build_cases() -> Iterator[Case]:
    """Yield a dataset for each key of a recipe."""
    for name, (sources, *overrides) in build_arguments().items():
        jobs = "" if " -j " in sources else " -j 1"
        words = command("matting-compose", f"build {sources}{jobs} --out {{out}}", *overrides)
        yield Case(f"build/{name}", (words,))
    shares = (f"build {CUTOUTS} -j 1 --out {{out}} --shards {share}/2" for share in (2, 1))
    yield Case("build/shares", tuple(command("matting-compose", share) for share in shares))
    failing = "build --foregrounds damaged --backgrounds broken --variants 4 -j 1 --out {out}"
    yield Case("build/failures", (command("matting-compose", failing),), code=3)


def build_arguments() -> dict[str, tuple[str, ...]]:
    """Return for each build where its pictures come from, and what of the recipe is overridden."""
    found: dict[str, tuple[str, ...]] = dict(PLAIN_BUILDS)
    for packing in ("delta", "solid", "plain", "webp", "jpeg"):
        for background in ("none", "unknown", "full"):
            shards = (f"shards.packing={packing}", f"shards.background={background}")
            found[f"packing-{packing}-{background}"] = (CUTOUTS, *shards, "shards.tile=64")
    found["packing-jpeg-quality"] = (CUTOUTS, "shards.packing=jpeg", "shards.quality=60")
    for enlarge in ("needed", "always"):
        for offset in ("random", "centre", "top-left"):
            fit = (f"fit.enlarge={enlarge}", f"fit.offset={offset}", "shards.background=full")
            found[f"fit-{enlarge}-{offset}"] = (CUTOUTS, *fit)
    for kind, table in (("look", LOOKS), ("scene", SCENES), ("trimap", TRIMAPS)):
        for name, overrides in table.items():
            found[f"{kind}-{name}"] = (CUTOUTS, *overrides)
    return found


def picture_cases() -> Iterator[Case]:
    """Yield what is made of pictures and datasets."""
    for name, text in EXTRACTS.items():
        yield Case(f"extract/{name}", (command("matting-compose", f"extract {text} -j 1 --out {{out}}"),), pixels=True)
    for name, text in EXPORTS.items():
        yield Case(f"export/{name}", (command("matting-compose", f"export {text} -j 1"),))
    for name, text in MATTES.items():
        yield Case(f"predict/{name}", (command("matting-predict", f"{text} -o {{out}} --device cpu"),), pixels=True)


def training_cases() -> Iterator[Case]:
    """Yield trainings of six steps, one of them in two parts."""
    text = "{build/for-training} --out {out} --device cpu"
    for name, (config, *overrides) in TRAININGS.items():
        words = command("matting-train", f"{text} --config {config} --steps 6", *TINY, *overrides)
        yield Case(f"train/{name}", (words,), pixels=True)
    config, *overrides = SHM
    begun = command("matting-train", f"{text} --config {config} --steps 3", *TINY, *overrides)
    resumed = command("matting-train", f"{text} --resume --steps 6")
    yield Case("train/resumed", (begun, resumed), pixels=True)


def telling_cases() -> Iterator[Case]:
    """Yield what is told and shown of datasets, recipes and networks."""
    for name, (text, code) in TOLD.items():
        yield Case(f"told/{name}", (command("matting-compose", f"{text} --json"),), code=code, printed=True)
    for name, (program, text) in SHOWN.items():
        yield Case(f"told/{name}", (command(program, text),))


# --- what it is made of -----------------------------------------------------------------------------------------------


def colours(height: int, width: int, seed: int) -> Array:
    """Draw something as smooth and as grainy as a photograph, (H, W, 3) uint8 BGR."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 3, (height, width, 1)), 0, 255).astype(np.uint8)


def matte(height: int, width: int, seed: int, below: float = 0.0) -> Array:
    """Draw a disc with a soft and hairy rim, (H, W) uint8; `below` moves it down, in shares of the height."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    y, x = y - height * (rng.uniform(0.45, 0.55) + below), x - width * rng.uniform(0.45, 0.55)
    hairs = np.sin(np.arctan2(y, x) * 24) * min(height, width) * 0.03
    inside = (min(height, width) * 0.35 - np.hypot(y, x) + hairs) / 6 + 0.5
    return np.rint(np.clip(inside, 0, 1) * 255).astype(np.uint8)


def cutout(height: int, width: int, seed: int, below: float = 0.0) -> Array:
    """Draw a picture with its alpha, (H, W, 4) uint8 BGRA."""
    return np.dstack([colours(height, width, seed), matte(height, width, seed, below)])


def over(picture: Array, level: int) -> Array:
    """Mix a cut-out's colours with a backdrop's, as one does that was made of a picture over it."""
    share = picture[..., 3:] / 255
    mixed = np.rint(picture[..., :3] * share + level * (1 - share)).astype(np.uint8)
    return np.dstack([mixed, picture[..., 3]])


def trimap_of(alpha: Array, radius: int) -> Array:
    """Draw the trimap of an alpha, (H, W) uint8."""
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    unknown = cv2.dilate(np.uint8(255) * ((alpha > 0) & (alpha < 255)).astype(np.uint8), disk) > 0
    return np.where(unknown, 128, np.where(alpha > 127, 255, 0)).astype(np.uint8)


def save(path: Path, picture: Array) -> None:
    """Write a picture in the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), picture):
        raise Failed(f"{path}: OpenCV cannot write it")


def save_png(path: Path, kind: int, rows: Array, *more: tuple[bytes, bytes]) -> None:
    """Write a PNG of a colour type that OpenCV does not write, (H, W[, C]) uint8, with further chunks."""
    header = rows.shape[1].to_bytes(4) + rows.shape[0].to_bytes(4) + bytes([8, kind, 0, 0, 0])
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = [(b"IHDR", header), *more, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    whole = [len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4) for name, data in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(whole))


def cut_short(path: Path, target: Path) -> None:
    """Copy the first half of a file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def turn(path: Path) -> None:
    """Say in a JPEG file that its picture is to be turned by a quarter."""
    data = path.read_bytes()
    tags = b"Exif\0\0MM\0*\0\0\0\x08" + bytes.fromhex("0001 0112 0003 00000001 00060000 00000000")
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(tags) + 2).to_bytes(2) + tags + data[2:])


def make_inputs(root: Path) -> None:
    """Draw all pictures, and write the lists and recipes that name them."""
    make_cutouts(root)
    make_photographs(root)
    make_pairs(root / "pairs")
    make_kinds(root / "kinds")
    make_broken(root)
    make_huge(root)
    make_trees(root)
    make_adobe(root)
    make_recipes(root)


def make_cutouts(root: Path) -> None:
    """Draw cut-outs: small, large, of 16 bits, cut off, too small, over black and over white."""
    folder = root / "cutouts"
    save(folder / "tiny.png", cutout(20, 18, 1))
    save(folder / "disc.png", cutout(90, 70, 2))
    save(folder / "wide.v2.png", cutout(64, 121, 3))
    save(folder / "bust.png", cutout(120, 100, 4, below=0.5))
    save(folder / "large.png", cutout(301, 260, 5))
    save(folder / "deep.png", cutout(80, 75, 6).astype(np.uint16) * 257)
    save(folder / "sub folder" / "räder.png", cutout(70, 63, 7))
    save(folder / "mote.png", cutout(12, 40, 8))
    save(root / "mixed" / "black.png", over(cutout(88, 77, 9), 0))
    save(root / "mixed" / "white.png", over(cutout(77, 88, 10), 255))


def make_photographs(root: Path) -> None:
    """Draw backgrounds of odd sizes and several formats, a list of them, and annotations as COCO's."""
    names = {
        "COCO_train2014_000000000009.jpg": (241, 321),
        "000000000025.jpg": (99, 101),
        "small.png": (37, 53),
        "wide.png": (100, 401),
        "below/tall.webp": (333, 151),
        "turned.jpg": (75, 211),
        "grey.jpg": (130, 171),
    }
    for seed, (name, (height, width)) in enumerate(names.items(), start=100):
        picture = colours(height, width, seed)
        save(root / "photos" / name, picture[..., 0] if name == "grey.jpg" else picture)
    turn(root / "photos" / "turned.jpg")
    listed = ["000000000009.jpg", "COCO_train2014_000000000025.jpg", *list(names)[2:]]  # COCO's, by their other names
    (root / "photos" / "names.txt").write_text("\n".join(listed), encoding="utf-8")
    known = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    shown = [{"image_id": 0, "category_id": 1}, {"image_id": 3, "category_id": 17}]
    kinds = [{"id": 1, "name": "person"}, {"id": 17, "name": "cat"}]
    (root / "instances.json").write_text(json.dumps({"images": known, "annotations": shown, "categories": kinds}))


def make_pairs(folder: Path) -> None:
    """Draw pictures with alphas beside them, JPEG and PNG, and their trimaps; and one larger than a network's tile."""
    for seed, (name, ending, size) in enumerate(
        [("a", "jpg", (80, 103)), ("b", "png", (71, 66)), ("c", "jpg", (150, 128))], start=200
    ):
        alpha = matte(*size, seed)
        save(folder / "fg" / f"{name}.{ending}", colours(*size, seed))
        save(folder / "alpha" / f"{name}.{'jpg' if name == 'c' else 'png'}", alpha)
        save(folder / "masks" / f"{name}.png", trimap_of(alpha, 6))
        for variant in range(2):
            save(folder / "trimaps" / f"{name}_{variant}.png", trimap_of(alpha, 3 + 4 * variant))
    save(folder / "large.jpg", colours(560, 611, 210))
    save(folder / "large.png", trimap_of(matte(560, 611, 210), 20))


def make_kinds(folder: Path) -> None:
    """Draw pictures of kinds that are read in ways of their own: palettes, grey, 16 bits, TIFF, BMP."""
    save(folder / "fg" / "deep-tiff.tiff", cutout(70, 64, 500).astype(np.uint16) * 257)
    alpha, levels = matte(58, 66, 501), np.arange(16, dtype=np.uint8)
    palette = np.dstack([levels * 16, 255 - levels * 16, levels * 5]).tobytes()
    transparency = (levels * 17).tobytes()
    save_png(folder / "fg" / "palette.png", 3, alpha // 16, (b"PLTE", palette), (b"tRNS", transparency))
    save_png(folder / "fg" / "grey.png", 4, np.dstack([colours(58, 66, 502)[..., 0], alpha]))
    save(folder / "bg" / "deep.tiff", colours(81, 95, 503).astype(np.uint16) * 257)
    save(folder / "bg" / "deep-grey.png", colours(95, 81, 504)[..., 0].astype(np.uint16) * 255 + 77)
    save(folder / "bg" / "grey.png", colours(66, 140, 505)[..., 0])
    save(folder / "bg" / "plain.bmp", colours(140, 66, 506))
    save_png(folder / "bg" / "palette.png", 3, colours(99, 77, 507)[..., 0] // 16, (b"PLTE", palette))


def make_broken(root: Path) -> None:
    """Write pictures that cannot be used, and good ones beside them."""
    save(root / "damaged" / "good.png", cutout(60, 50, 600))
    save(root / "damaged" / "opaque.png", colours(50, 60, 601))
    cut_short(root / "cutouts" / "disc.png", root / "damaged" / "short.png")
    save(root / "broken" / "good.jpg", colours(50, 60, 602))
    cut_short(root / "photos" / "grey.jpg", root / "broken" / "short.jpg")
    (root / "broken" / "empty.jpg").write_bytes(b"")
    (root / "broken" / "text.png").write_text("no picture")


def make_huge(root: Path) -> None:
    """Draw a picture that is too large for its colours to be estimated in one go; its alpha is a thin diagonal."""
    height, width = 2150, 2000
    y, x = np.mgrid[:height, :width].astype(np.float32)
    save(root / "huge.jpg", colours(height, width, 700))
    save(root / "huge" / "huge.png", np.rint(np.clip((y - x) / 12 + 0.5, 0, 1) * 255).astype(np.uint8))


def make_trees(root: Path) -> None:
    """Lay pictures and alphas out as published data sets are."""
    folders = {
        "aim500": ("original", "mask"),
        "am2k/train": ("original", "mask"),
        "am2k/validation": ("original", "mask"),
        "p3m10k/train": ("blurred_image", "mask"),
        "p3m10k/validation/P3M-500-P": ("original_image", "mask"),
        "ppm100": ("image", "matte"),
    }
    for seed, (place, (pictures, alphas)) in enumerate(folders.items(), start=300):
        save(root / place / pictures / "x.jpg", colours(60, 50, seed))
        save(root / place / alphas / "x.png", matte(60, 50, seed))


def make_adobe(root: Path) -> None:
    """Lay pictures out as Adobe's, COCO's and VOC's are: in two folders, listed, alphas of three channels."""
    names = {"Girl, 1.jpg": "Other", "a-1920 (2).jpg": FOLDER, "drop.jpg": FOLDER, "x_o.jpg": "Other"}
    for seed, (name, folder) in enumerate(names.items(), start=400):
        save(root / "Training_set" / folder / "fg" / name, colours(60, 72, seed))
        save(root / "Training_set" / folder / "alpha" / name, matte(60, 72, seed))
    tests = ("cat.png", "dog 1.png")
    for seed, name in enumerate(tests, start=410):
        alpha, home = matte(66, 58, seed), root / "Test_set" / FOLDER
        save(home / "fg" / name, colours(66, 58, seed))
        save(home / "alpha" / name, np.dstack([np.zeros_like(alpha), np.zeros_like(alpha), alpha]))  # BGR: red is first
        for variant in range(2):
            save(home / "trimaps" / f"{Path(name).stem}_{variant}.png", trimap_of(alpha, 2 + variant))
    coco = [f"COCO_train2014_{number:012d}.jpg" for number in range(8)]
    voc = [f"2008_{number:06d}.jpg" for number in range(4)]
    make_listed(root / "train2014", root / "Training_set" / "training_bg_names.txt", coco)
    make_listed(root / "VOC", root / "Test_set" / "test_bg_names.txt", voc)
    (root / "Training_set" / "training_fg_names.txt").write_text("\n".join(names))
    (root / "Test_set" / "test_fg_names.txt").write_text("\n".join(tests))


def make_listed(folder: Path, listing: Path, names: Sequence[str]) -> None:
    """Draw backgrounds, larger and smaller than what comes before them, grey and turned, and list them."""
    for number, name in enumerate(names):
        picture = colours(30 + 17 * number, 140 - 13 * number, 420 + number)
        save(folder / name, picture[..., 0] if number == 1 else picture)
    turn(folder / names[2])
    listing.write_text("\r\n".join(reversed(names)), newline="")


def make_recipes(root: Path) -> None:
    """Write recipes that the command line has no words for."""
    (root / "drawn.toml").write_text(
        'variants = 3\n[foregrounds]\nlayout = "procedural"\ncount = 9\nsides = [50, 90]\n'
        '[backgrounds]\nlayout = "procedural"\ncount = 7\nsides = [40, 120]\n'
    )
    (root / "several.toml").write_text(
        'variants = 2\n[[foregrounds]]\nlayout = "pairs"\nimages = "pairs/fg"\nalphas = "pairs/alpha"\n'
        'weight = 2.5\nlicence = "my own"\n[[foregrounds]]\nlayout = "rgba"\nroot = "cutouts"\nname = "stamps"\n'
        'licence = "GPL-2.0-only"\nattribution = "others"\nmax_side = 150\n[[foregrounds]]\nlayout = "procedural"\n'
        'count = 3\nsides = [40, 60]\nname = "drawn"\nweight = 0.5\n[backgrounds]\nlayout = "folder"\n'
        'root = "photos"\nmin_side = 50\nattribution = "somebody"\n[split]\nvalidation = ["a", "stamps/disc"]\n'
    )


# --- digests ----------------------------------------------------------------------------------------------------------


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pixels(path: Path) -> bytes:
    """Return a picture's type, size and pixels."""
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise Failed(f"{path}: no picture")
    return f"{picture.dtype} {picture.shape} ".encode() + np.ascontiguousarray(picture).tobytes()


def without(text: str, keys: Sequence[str]) -> str:
    """Return a JSON object as text without some keys; the others stay in their order."""
    return json.dumps({key: value for key, value in json.loads(text).items() if key not in keys}, indent=1)


def stable_bytes(path: Path) -> bytes:
    """Return what of a file is the same in every run."""
    if path.name in LEFT_OUT_LINES:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        return "".join(line for line in lines if not line.rstrip().endswith(LEFT_OUT_LINES[path.name])).encode()
    left_out = next((keys for name, keys in LEFT_OUT.items() if fnmatch.fnmatchcase(path.name, name)), ())
    if left_out:
        text = path.read_text(encoding="utf-8")
        parts = text.splitlines() if path.suffix == ".jsonl" else [text]
        return "\n".join(without(part, left_out) for part in parts).encode()
    return path.read_bytes()


def tensors(value: Any, name: str = "") -> Iterator[tuple[str, bytes]]:
    """Yield every tensor of a nested state, with its name: its type, shape and numbers."""
    import torch

    if isinstance(value, torch.Tensor):
        numbers = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        yield name, f"{value.dtype} {tuple(value.shape)} ".encode() + numbers
    elif isinstance(value, Mapping):
        for key in value:
            yield from tensors(value[key], f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from tensors(item, f"{name}/{number}")


def checkpoint_digests(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the digest of each of a checkpoint's states: of its tensors, by their names."""
    import torch

    document = torch.load(path, map_location="cpu", weights_only=True)
    for state in STATES:
        if found := sorted(tensors(document.get(state))):
            yield f"{path.name}:{state}", sha256(b"".join(name.encode() + b" " + data for name, data in found))


def file_digests(path: Path, by_pixels: bool) -> Iterator[tuple[str, str]]:
    """Yield what is to be told of a file: names, and digests."""
    if path.name in UNREAD:
        return
    if path.suffix == ".pt":
        yield from checkpoint_digests(path)
    elif by_pixels and path.suffix in (".png", ".jpg"):
        yield path.name, sha256(pixels(path))
    else:
        yield path.name, sha256(stable_bytes(path))


def folder_digests(folder: Path, name: str, by_pixels: bool = False) -> dict[str, str]:
    """Return the digests of all files in a folder, or of one file; hidden ones, such as locks, are passed over."""
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    found = {}
    for path in files:
        place = Path(name) / path.relative_to(folder) if path != folder else Path(name)
        if not path.name.startswith("."):
            found.update({str(place.with_name(label)): digest for label, digest in file_digests(path, by_pixels)})
    return found


# --- making -----------------------------------------------------------------------------------------------------------


class Workshop:
    """Make cases in a folder, each once; what a case needs is made before it."""

    def __init__(self, root: Path) -> None:
        self.inputs, self._made = root / "inputs", root / "made"
        self._known, self._outcomes = cases(), dict[str, str]()
        make_inputs(self.inputs)

    def digests(self, case: Case) -> dict[str, str]:
        """Make a case; return its digests by name, or one line that says that it failed."""
        try:
            self._make(case)
            return folder_digests(self._made / case.name, case.name, case.pixels)
        except Exception as error:  # readers of damaged results raise whatever they stumble over
            click.echo(f"{case.name}: {type(error).__name__}: {error}", err=True)
            return {case.name: FAILED}

    def _make(self, case: Case) -> None:
        for name in sorted(case.needs):
            self._make(self._known[name])
        if case.name not in self._outcomes:
            self._outcomes[case.name] = "\n".join(filter(None, (self._run(case, words) for words in case.commands)))
        if problem := self._outcomes[case.name]:
            raise Failed(problem)

    def _run(self, case: Case, words: Command) -> str:
        """Run a command; return what is wrong with how it ended, nothing where all is well."""
        (self._made / case.name).parent.mkdir(parents=True, exist_ok=True)
        filled = [place_names(case, word) for word in words]
        program = Path(sys.executable).parent / filled[0]
        done = subprocess.run(
            [str(program), *filled[1:]],
            cwd=self.inputs, env=os.environ | ONE_THREAD, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        if done.returncode != case.code:
            return f"{shlex.join(filled)}: exit code {done.returncode}, not {case.code}\n{done.stderr.strip()}"
        if case.printed:
            (self._made / case.name).write_text(done.stdout, encoding="utf-8")
        return ""


def place_names(case: Case, word: str) -> str:
    """Put the places of cases into a word of a command; relative ones, since some results repeat them."""
    for name in case.needs:
        word = word.replace(f"{{{name}}}", f"../made/{name}")
    return word.replace("{out}", f"../made/{case.name}")


def chosen(patterns: Sequence[str]) -> list[Case]:
    """Return the cases whose names match any of the patterns."""
    known = cases()
    found = [case for name, case in known.items() if any(fnmatch.fnmatchcase(name, p) for p in patterns or ("*",))]
    if not found:
        raise click.UsageError(f"--only: no case is called so; there are {', '.join(known)}")
    return found


def work_folder(keep: Path | None, stack: ExitStack) -> Path:
    """Return the folder to work in: the one to keep, which must be new or empty, or one that goes at the end."""
    if keep is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="digests-")))
    if keep.exists() and any(keep.iterdir()):
        raise click.UsageError(f"--keep: {keep} is not empty; what is there would be gone on with, not made")
    keep.mkdir(parents=True, exist_ok=True)
    return keep.resolve()


@click.command(help=__doc__.replace("\n\n    ", "\n\n\b\n    "))  # \b is click's mark: these lines stay as they are
@click.option("--only", multiple=True, metavar="GLOB", help="Only the cases whose names match; repeatable.")
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), help="Keep inputs and results here.")
def main(only: tuple[str, ...], keep: Path | None) -> None:
    """Make the cases and print their digests."""
    wanted, start = chosen(only), time.monotonic()
    found: dict[str, str] = {}
    with ExitStack() as stack:
        workshop = Workshop(work_folder(keep, stack))
        inputs = folder_digests(workshop.inputs, "inputs")
        found["inputs"] = sha256(json.dumps(inputs, sort_keys=True).encode())  # where these differ, nothing compares
        for number, case in enumerate(wanted, start=1):
            began = time.monotonic()
            found |= workshop.digests(case)
            click.echo(f"{number}/{len(wanted)} {case.name}: {time.monotonic() - began:.1f} s", err=True)
    for name in sorted(found):
        click.echo(f"{found[name]}  {name}")
    failures = sum(digest == FAILED for digest in found.values())
    click.echo(f"{len(found):,} lines, {failures} failures, {time.monotonic() - start:.0f} s", err=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
