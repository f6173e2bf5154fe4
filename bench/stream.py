"""The stream beside other ways to read crops: the same composites, in turn, in one run.

    python bench/stream.py --foregrounds cutouts/ --backgrounds photos/
    python bench/stream.py open431 --every 10 --variants 10

Builds a dataset of every packing asked for, writes the composites in every rival's form (`loaders.py` says how each is
written and read), and measures, round after round, all of them in turn:

per core       crops per second of CPU time, of all processes, read in this process out of the page cache, with
               windows of 320 px and of 320, 480 and 640 px
cold           crops per second from the first one on, every file thrown out of the page cache before; and how many kB
               each crop then had read from the disk
workers        crops per second of a clock, read by other processes
waiting        share of a training step that is spent waiting for the next batch, when a network takes 20 ms of each
               (asleep, as the processor is while a GPU works) and two workers read

A rival that is not installed is skipped, and named. A name, TOML file or folders as for `matting-compose build`.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import torch

from loaders import RIVALS, Form, Wanted, forget, installed, one_thread, quiet
from matting_compose.composer.building.build import build
from matting_compose.composer.building.make_plan import make_plan
from matting_compose.composer.dataset.dataset import open_dataset
from matting_compose.composer.recipe import Recipe, load_recipe
from matting_compose.trainer.data.stream import SIZES, open_stream


@dataclass
class Contender:
    """One form of the composites and all that was measured of it."""

    name: str
    files: list[Path]
    kilobytes: float
    batches: Callable[[Wanted], Iterable[Any]]
    figures: dict[str, list[float]] = field(default_factory=dict)

    def note(self, what: str, value: float) -> None:
        """Add a measurement."""
        self.figures.setdefault(what, []).append(value)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?")
    parser.add_argument("--foregrounds", type=Path)
    parser.add_argument("--alphas", type=Path)
    parser.add_argument("--backgrounds", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="key=value of the recipe")
    parser.add_argument("--every", type=int, default=1, help="take every Nth foreground")
    parser.add_argument("--variants", type=int, default=10)
    parser.add_argument("--packings", nargs="+", default=["delta", "solid", "plain"])
    parser.add_argument("--crop", type=int, default=320, help="px; windows are 1 and 1, 1.5 and 2 times as large")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement")
    parser.add_argument("--step", type=float, default=0.02, help="seconds that the network takes")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--worker-rounds", type=int, default=2, help="rounds with workers: these take seconds to start")
    parser.add_argument("--scratch", type=Path, help="a folder on the disk that is to be measured")
    parser.add_argument("--json", action="store_true", help="every single measurement")
    options = parser.parse_args()
    quiet()
    one_thread(0)
    # Imported once, and forked from there: a worker starts at once.
    multiprocessing.set_forkserver_preload(["loaders", "matting_compose.trainer.data.stream"])
    with tempfile.TemporaryDirectory(dir=options.scratch) as name, silence():
        contenders, title = prepare(options, Path(name))
        measure(contenders, options)
    if options.json:
        print(json.dumps({"title": title, "figures": {c.name: c.figures for c in contenders}}))
    else:
        print(title)
        show(contenders, options)


def prepare(options: argparse.Namespace, scratch: Path) -> tuple[list[Contender], str]:
    """Build the datasets, and write the rivals' forms of their composites."""
    recipe = wanted_recipe(options, scratch)
    plan = make_plan(recipe)
    if len(plan) < options.batch:
        sys.exit(
            f"--batch {options.batch}: there are only {len(plan)} composites, so the rivals' epochs would be empty"
        )
    contenders: list[Contender] = []
    for packing in options.packings:
        shards = recipe.shards.model_copy(update={"packing": packing})
        out = scratch / packing
        build(recipe.model_copy(update={"shards": shards}), out)
        contenders.append(Contender(f"`{packing}`", *weight(out, len(plan)), ours(out)))
    dataset = open_dataset(scratch / options.packings[0])
    for form in RIVALS:
        if not installed(form):
            print(f"{form.name}: skipped, {form.needs} is not installed", file=sys.stderr)
            continue
        out = scratch / form.name
        out.mkdir()
        form.write(dataset, plan, out)
        contenders.append(Contender(form.name, *weight(out, len(plan)), theirs(form, out)))
    os.sync()  # only what is on the disk can be thrown out of the page cache
    machine = f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}, OpenCV {cv2.__version__}"
    megapixels = plan.pixels / len(plan) / 1e6
    title = (
        f"{len(dataset)} composites of {megapixels:.2f} MP, {len(plan.foregrounds)} foregrounds; batches of"
        f" {options.batch} crops of {options.crop} px; {machine}"
    )
    return contenders, title


def wanted_recipe(options: argparse.Namespace, scratch: Path) -> Recipe:
    """Read the recipe, with every Nth of its foregrounds and all of them for training."""
    folders = {"foregrounds": options.foregrounds, "alphas": options.alphas, "backgrounds": options.backgrounds}
    overrides = [f"variants={options.variants}", "split.validation=0.0", "shards.megabytes=32", *options.overrides]
    recipe = load_recipe(options.recipe, overrides, **folders)
    if options.every == 1:
        return recipe
    plan = make_plan(recipe)
    layout = plan.foreground_layout
    for number, key in enumerate(("foregrounds", "alphas")):
        for entry in plan.foregrounds[:: options.every]:
            for path in layout.files(entry)[number : number + 1]:
                (scratch / key).mkdir(exist_ok=True)
                (scratch / key / path.name).symlink_to(path.resolve())
                folders[key] = scratch / key
    return load_recipe(options.recipe, overrides, **folders)


def weight(folder: Path, composites: int) -> tuple[list[Path], float]:
    """Return a folder's files, and its kB for each composite."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return files, sum(path.stat().st_size for path in files) / 1e3 / composites


def ours(folder: Path) -> Callable[[Wanted], Iterable[Any]]:
    """Return what opens this project's stream."""

    def batches(wanted: Wanted) -> Iterator[Any]:
        stream = open_stream(folder, batch=wanted.batch, crop=wanted.crop, sizes=wanted.sizes, workers=wanted.workers)
        with closing(stream):
            yield from stream

    return batches


def theirs(form: Form, folder: Path) -> Callable[[Wanted], Iterable[Any]]:
    """Return what opens a rival's."""
    return lambda wanted: form.batches(folder, wanted)


def measure(contenders: list[Contender], options: argparse.Namespace) -> None:
    """Run everything in turn, round after round."""
    windows = {"320": (options.crop,), "320–640": tuple(options.crop * side // SIZES[0] for side in SIZES)}
    alone = {
        (c.name, what): iter(c.batches(Wanted(sizes, options.crop, options.batch, 0)))
        for c in contenders
        for what, sizes in windows.items()
    }
    for number in range(options.rounds + 1):
        for contender in contenders:
            for what in windows:
                taken, cpu, clock = run(alone[contender.name, what], options)
                if number:  # the first warms up
                    contender.note(f"per core, {what}", taken / cpu)
                    contender.note(f"clock, {what}", taken / clock)
    alone.clear()
    forget()  # what is mapped cannot be thrown out
    for number in range(options.rounds):
        for contender in contenders:
            cold(contender, windows["320"], options)
            if number >= options.worker_rounds:
                continue
            for workers in options.workers:
                with_workers(contender, windows["320"], workers, options)


def run(batches: Iterator[Any], options: argparse.Namespace) -> tuple[int, float, float]:
    """Take batches for a while; return how many crops, in how many seconds of CPU time and of a clock."""
    cpu, start, taken = cpu_seconds(), time.perf_counter(), 0
    while time.perf_counter() - start < options.seconds or not taken:
        next(batches)
        taken += options.batch
    return taken, max(cpu_seconds() - cpu, 1e-9), time.perf_counter() - start


def waiting(batches: Iterator[Any], options: argparse.Namespace) -> float:
    """Take a batch after each step of a network for a while; return the share of the time that it took to get them."""
    start, asleep = time.perf_counter(), 0.0
    while (now := time.perf_counter()) - start < options.seconds or not asleep:
        time.sleep(options.step)
        asleep += time.perf_counter() - now
        next(batches)
    return 1 - asleep / (time.perf_counter() - start)


def cold(contender: Contender, sizes: tuple[int, ...], options: argparse.Namespace) -> None:
    """Read from the disk."""
    for path in contender.files:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    read = read_bytes()
    taken, _, clock = run(iter(contender.batches(Wanted(sizes, options.crop, options.batch, 0))), options)
    contender.note("cold", taken / clock)
    contender.note("cold, kB a crop", (read_bytes() - read) / 1e3 / taken)
    for path in contender.files:
        path.read_bytes()


def with_workers(contender: Contender, sizes: tuple[int, ...], workers: int, options: argparse.Namespace) -> None:
    """Let other processes read: as quickly as they can, then beside a network."""
    batches = iter(contender.batches(Wanted(sizes, options.crop, options.batch, workers)))
    run(batches, options)
    taken, _, clock = run(batches, options)
    contender.note(f"{workers} workers", taken / clock)
    if workers == max(options.workers):
        contender.note("waiting", waiting(batches, options))
    del batches
    gc.collect()


def cpu_seconds() -> float:
    """Return the CPU time of this process and those that it started and that still run."""
    total = time.process_time()
    ticks = os.sysconf("SC_CLK_TCK")
    for child in multiprocessing.active_children():
        numbers = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(numbers[11]) + int(numbers[12])) / ticks
    return total


def read_bytes() -> int:
    """Return the bytes that this process has had read from the disk."""
    return int(Path("/proc/self/io").read_text().partition("\nread_bytes: ")[2].split()[0])


def show(contenders: list[Contender], options: argparse.Namespace) -> None:
    """Print medians, ranges and ratios as a table of Markdown."""
    columns = list(dict.fromkeys(what for c in contenders for what in c.figures if not what.startswith("clock")))
    base = next((c for c in contenders if c.name == RIVALS[0].name), contenders[0])
    print("| | kB each | " + " | ".join(f"{what} | ×" if "core" in what else what for what in columns) + " |")
    print("|---" * (2 + sum(2 if "core" in what else 1 for what in columns)) + "|")
    for contender in contenders:
        cells = [contender.name, f"{contender.kilobytes:.0f}"]
        for what in columns:
            values = contender.figures[what]
            middle, scale = statistics.median(values), 100 if what == "waiting" else 1
            digits = 0 if middle * scale >= 20 else 1
            text, low, high = (f"{v * scale:.{digits}f}" for v in (middle, min(values), max(values)))
            cells.append(f"{text}{'%' if scale == 100 else ''} ({low}–{high})")
            if "core" in what:
                cells.append(f"{middle / statistics.median(base.figures[what]):.2f}")
        print("| " + " | ".join(cells) + " |")


@contextmanager
def silence() -> Iterator[None]:
    """Send what rivals print elsewhere: standard output is for the table."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


if __name__ == "__main__":
    main()
