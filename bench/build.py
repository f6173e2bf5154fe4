"""Build throughput and size: this project, the usual script, and the bare limit, in turn on the same composites.

    python bench/build.py --foregrounds cutouts/ --backgrounds photos/

usual script   what most projects do: Pillow, float64 NumPy blend, cv2 trimap, PNG out, a process pool
bare limit     decode each background, write as many bytes as the uncompressed composite, alpha and trimap take

All three work on the same foregrounds and pairs, with as many processes, and end when their bytes are on the disk
(fsync). The usual script, which takes ten times as long, makes every fifth variant only; its bytes are composites and
trimaps, without alphas.
Without folders it draws its own pictures, of some 1.2 megapixels.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from matting_compose.composer.building.build import build
from matting_compose.composer.building.make_plan import make_plan
from matting_compose.composer.building.plan import Plan
from matting_compose.composer.recipe import RgbaForegrounds, load_recipe
from matting_compose.composer.sources.drawn import backgrounds as backdrops
from matting_compose.composer.sources.drawn import foregrounds as procedural


@dataclass(frozen=True)
class Job:
    """One foreground's composites, for the two rivals."""

    foreground: Path
    backgrounds: list[Path]
    out: Path
    number: int


def usual_script(job: Job) -> int:
    """Compose as the common scripts do; return the bytes written."""
    picture = np.array(Image.open(job.foreground).convert("RGBA"))
    foreground, alpha = picture[..., :3], picture[..., 3]
    height, width = alpha.shape
    rng = np.random.default_rng(job.number)
    paths = []
    for variant, path in enumerate(job.backgrounds):
        background = Image.open(path).convert("RGB")
        ratio = max(width / background.width, height / background.height)
        if ratio > 1:
            size = (math.ceil(background.width * ratio), math.ceil(background.height * ratio))
            background = background.resize(size, Image.Resampling.BICUBIC)
        cut = np.array(background)[:height, :width]
        weight = alpha[..., None] / 255.0
        image = (weight * foreground + (1 - weight) * cut).astype(np.uint8)
        sides = rng.integers(1, 30, 2).tolist()
        kernels = [cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)) for side in sides]
        trimap = np.full(alpha.shape, 128, np.uint8)
        trimap[cv2.erode(alpha, kernels[0]) == 255] = 255
        trimap[cv2.dilate(alpha, kernels[1]) == 0] = 0
        for kind, pixels in (("merged", image), ("trimap", trimap)):
            paths.append(job.out / f"{job.number}_{variant}_{kind}.png")
            Image.fromarray(pixels).save(paths[-1])
    return sum(path.stat().st_size for path in paths)


def bare_limit(job: Job) -> int:
    """Decode the backgrounds and write the uncompressed bytes; return how many."""
    with Image.open(job.foreground) as picture:
        content = bytes(picture.width * picture.height * 5)
    with (job.out / str(job.number)).open("wb") as file:
        for path in job.backgrounds:
            cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR_RGB)
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return len(content) * len(job.backgrounds)


RIVALS = {"usual script": usual_script, "bare limit": bare_limit}


def pooled(work: Callable[[Job], int], plan: Plan, out: Path, processes: int, step: int = 1) -> int:
    """Run a rival over every `step`th variant of the plan; return the bytes written."""
    jobs = [
        Job(
            plan.foreground_layout.files(entry)[0],
            [plan.background_layout.files(plan.background_name(i, v))[0] for v in range(0, plan.recipe.variants, step)],
            out,
            i,
        )
        for i, entry in enumerate(plan.foregrounds)
    ]
    out.mkdir()
    with multiprocessing.get_context("spawn").Pool(processes, cv2.setNumThreads, (1,)) as pool:
        written = sum(pool.imap_unordered(work, jobs))
    os.sync()
    return written


def drawn_pictures(folder: Path) -> tuple[Path, Path]:
    """Draw 16 cut-outs and 64 backgrounds as files."""
    rng = np.random.default_rng(0)
    for name in ("cutouts", "photos"):
        (folder / name).mkdir()
    for i in range(16):
        kind = procedural.FOREGROUND_KINDS[i % len(procedural.FOREGROUND_KINDS)]
        cutout = np.dstack(procedural.draw_foreground(kind, (1000, 1200), rng))
        Image.fromarray(cutout).save(folder / f"cutouts/{i}.png")
    for i in range(64):
        kind = backdrops.BACKGROUND_KINDS[i % len(backdrops.BACKGROUND_KINDS)]
        Image.fromarray(backdrops.draw_background(kind, (800, 1000), rng)).save(folder / f"photos/{i}.jpg", quality=92)
    return folder / "cutouts", folder / "photos"


def thinned(folder: Path, step: int, out: Path) -> Path:
    """Link every `step`th cut-out, so that a long list gives a short benchmark."""
    out.mkdir()
    if not folder.is_dir():
        sys.exit(f"{folder}: expected a folder of pictures, found nothing")
    for path in sorted(folder.iterdir())[::step]:
        (out / path.name).symlink_to(path.resolve())
    return out


def add_pictures(parser: argparse.ArgumentParser) -> None:
    """Add what says which pictures are taken, and where the work is done."""
    parser.add_argument("--foregrounds", type=Path)
    parser.add_argument("--backgrounds", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take every Nth foreground")
    parser.add_argument("--scratch", type=Path, help="a folder on the disk that is to be measured")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_pictures(parser)
    parser.add_argument("--variants", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--script-every", type=int, default=5, help="the usual script makes every Nth variant only")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--packings", nargs="+", default=["delta", "solid", "plain", "webp", "jpeg"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        scratch = Path(name)
        if options.foregrounds is None:
            options.foregrounds, options.backgrounds = drawn_pictures(scratch)
        foregrounds = thinned(options.foregrounds, options.every, scratch / "taken")
        measure(options, foregrounds, scratch)


def measure(options: argparse.Namespace, foregrounds: Path, scratch: Path) -> None:
    """Run everything in turn, round after round."""
    base = load_recipe(None, [f"variants={options.variants}"], foregrounds=foregrounds, backgrounds=options.backgrounds)
    assert isinstance(base.foregrounds, RgbaForegrounds)
    plan = make_plan(base)
    megapixels = plan.pixels / len(plan) / 1e6
    machine = f"{options.jobs} processes, {os.cpu_count()} cores, {platform.machine()}"
    print(f"{len(plan)} composites of {megapixels:.2f} MP, {machine}")
    runs: dict[str, list[tuple[float, int]]] = {}
    for _ in range(options.rounds):
        for what in (*RIVALS, *options.packings):
            out = scratch / "out"
            step = options.script_every if what == "usual script" else 1
            start = time.perf_counter()
            if what in options.packings:
                recipe = base.model_copy(update={"shards": base.shards.model_copy(update={"packing": what})})
                written = build(recipe, out, jobs=options.jobs).bytes
            else:
                written = pooled(RIVALS[what], plan, out, options.jobs, step)
            count = len(plan.foregrounds) * len(range(0, plan.recipe.variants, step))
            runs.setdefault(what, []).append(((time.perf_counter() - start) / count, written / count))
            shutil.rmtree(out)
            os.sync()
    script, limit = (statistics.median(seconds for seconds, _ in runs[what]) for what in RIVALS)
    print(f"{'':14} {'composites/s: median (min–max)':32} {'× script':>9} {'× limit':>8} {'kB each':>8} {'of PNG':>7}")
    for what, measured in runs.items():
        middle, size = statistics.median(seconds for seconds, _ in measured), measured[0][1]
        rates = sorted(1 / seconds for seconds, _ in measured)
        rate = f"{1 / middle:8.1f} ({rates[0]:.1f}–{rates[-1]:.1f})"
        share = size / runs["usual script"][0][1]
        print(f"{what:14} {rate:32} {script / middle:9.2f} {limit / middle:8.2f} {size / 1e3:8.0f} {share:7.2f}")
    print(json.dumps(runs))


if __name__ == "__main__":
    main()
