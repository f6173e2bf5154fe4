"""How much memory building and reading take as a dataset grows: flat is what is wanted.

    python bench/memory.py --foregrounds cutouts/ --backgrounds photos/ --variants 1 10 100
    python bench/memory.py dataset another

Builds the recipe with each number of variants, and notes the larger worker's peak; then reads the same number of
batches from each dataset, and from those that are named, in a process of its own that does nothing else, and notes its
resident memory after a tenth, a half and all of them: by then the tiles that the stream remembers have filled their
room. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from build import add_pictures, thinned

COMMAND = str(Path(sys.executable).parent / "matting-compose")
PLACES = (0.1, 0.5, 1.0)  # of the batches


def alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process that has done nothing before."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def resident(what: str = "VmRSS") -> float:
    """Return this process's memory, MB: now, or with ``VmHWM`` at most."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{what}:")[2].split()[0]) * 1024 / 1e6


def read(folder: Path, batches: int) -> tuple[int, list[float], float]:
    """Read batches; return the dataset's length, the memory after each of `PLACES`, and the most."""
    from matting_compose.trainer.data.stream import open_stream

    stream = open_stream(folder)
    stops = {max(1, round(batches * place)) for place in PLACES}
    seen = []
    for number, _ in enumerate(stream, 1):
        if number in stops:
            seen.append(resident())
        if number == batches:
            break
    return stream.length, seen, resident("VmHWM")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", type=Path)
    parser.add_argument("--recipe", help="a name or a TOML file")
    add_pictures(parser)
    parser.add_argument("--variants", type=int, nargs="*", default=[])
    parser.add_argument("--set", action="append", default=[], help="key=value of the recipe")
    parser.add_argument("--batches", type=int, default=1500, help="of 8 crops")
    options = parser.parse_args()
    print(f"| composites that train | building: MB | reading {options.batches:,} batches: MB on the way | at most |")
    print("|---" * 4 + "|")
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        words = [options.recipe] if options.recipe else []
        words += [word for override in options.set for word in ("--set", override)]
        if options.foregrounds:
            taken = thinned(options.foregrounds, options.every, Path(name) / "taken")
            words += ["--foregrounds", str(taken), "--backgrounds", str(options.backgrounds)]
        for variants in options.variants:
            out = Path(name) / str(variants)
            command = [COMMAND, "build", *words, "--variants", str(variants), "--out", str(out), "--json"]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            show(out, options.batches, f"{json.loads(done.stdout)['peak_worker_bytes'] / 1e6:.0f}")
        for folder in options.datasets:
            show(folder, options.batches)


def show(folder: Path, batches: int, building: str = "") -> None:
    """Read a dataset and print its row."""
    length, seen, most = alone(read, folder, batches)
    print(f"| {length:,} | {building} | {', '.join(f'{value:.0f}' for value in seen)} | {most:.0f} |", flush=True)


if __name__ == "__main__":
    main()
