"""How a build's time falls with its workers, on the same composites, in turn.

    python bench/workers.py --foregrounds cutouts/ --backgrounds photos/ --workers 1 2

Each build is a process of its own, from the command's start to its end: the interpreter, the plan, the workers' start,
all shards, the index and the contact sheet count. What starting and closing take is measured too, with only two
composites to build, and left out in the last columns. What the machine itself gives is measured by as many builds of
one worker at once, each of all composites and with nothing to share: their rate together is what to compare with. How
much of the machine was not there, because other processes or the hypervisor had it, is said too (on Linux).
Without folders it draws its own pictures, of some 1.2 megapixels.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from build import add_pictures, drawn_pictures, thinned
from commands import Cost, cost, spread
from matting_compose.composer.building.make_plan import make_plan
from matting_compose.composer.recipe import load_recipe

COMMAND = str(Path(sys.executable).parent / "matting-compose")
TWO = ("variants=2", "shards.variants=1")  # of one foreground: a shard for each of two workers


@dataclass(frozen=True)
class Build(Cost):
    """A build's cost, and the share of the machine's processor time that others had meanwhile."""

    elsewhere: float


def busy() -> float:
    """Return the seconds that the machine's processors have worked, for anybody or another machine; 0 if unknown."""
    file = Path("/proc/stat")
    ticks = [int(number) for number in file.read_text().split("\n")[0].split()[1:9]] if file.exists() else [0] * 8
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # without being idle and waiting for a disk


def built(words: list[str], overrides: list[str], workers: int, out: Path, times: int = 1) -> Build:
    """Build, so many times at once, and throw away what was built. Return the slowest's time, and the sum's CPU."""
    before = busy()
    settings = [word for override in overrides for word in ("--set", override)]
    command = [COMMAND, "build", *words, *settings, "-j", str(workers), "--out"]
    with ThreadPoolExecutor(times) as pool:
        costs = list(pool.map(lambda number: cost([*command, str(out / str(number))]), range(times)))
    wall, cpu = max(c.wall for c in costs), sum(c.cpu for c in costs)
    elsewhere = max(0.0, busy() - before - cpu) / wall / (os.cpu_count() or 1)
    shutil.rmtree(out)
    os.sync()
    return Build(wall, cpu, max(c.peak for c in costs), elsewhere)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_pictures(parser)
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="key=value of the recipe")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        scratch = Path(name)
        if options.foregrounds is None:
            options.foregrounds, options.backgrounds = drawn_pictures(scratch)
        folders = {"foregrounds": thinned(options.foregrounds, options.every, scratch / "all")}
        folders["backgrounds"] = options.backgrounds
        first = thinned(options.foregrounds, sys.maxsize, scratch / "first")
        plan = make_plan(load_recipe(None, options.overrides, **folders))
        shards, megapixels = len(plan.shards), plan.pixels / len(plan) / 1e6
        machine = f"{os.cpu_count()} cores, {platform.machine()}"
        print(f"{len(plan)} composites of {megapixels:.2f} MP in {shards} shards; {machine}")
        whole, bare, apart = ({workers: [] for workers in options.workers} for _ in range(3))
        behind, out = ["--backgrounds", str(options.backgrounds)], scratch / "out"
        small, all_ = (["--foregrounds", str(front), *behind] for front in (first, folders["foregrounds"]))
        for _ in range(options.rounds):
            for workers in options.workers:
                whole[workers].append(built(all_, options.overrides, workers, out))
                bare[workers].append(built(small, [*options.overrides, *TWO], workers, out))
                if workers > 1:
                    apart[workers].append(built(all_, options.overrides, 1, out, workers))
    print("\n".join(rows(len(plan), whole, bare, apart)))


Runs = dict[int, list[Build]]  # by number of workers, round by round


def rows(count: int, whole: Runs, bare: Runs, apart: Runs) -> list[str]:
    """Return the table; ratios are of the same round."""
    lines = [
        "| workers | composites/s | × | processor, ms each | elsewhere, % "
        "| start and end, s | composites/s without | × |",
        "|---" * 8 + "|",
    ]
    one = next(iter(whole))
    between = {w: [all_.wall - fixed.wall for all_, fixed in zip(whole[w], bare[w], strict=True)] for w in whole}
    for workers, costs in whole.items():
        rates = spread([count / c.wall for c in costs], 1)
        ratios = spread([a.wall / b.wall for a, b in zip(whole[one], costs, strict=True)], 2)
        each = spread([c.cpu / count * 1e3 for c in costs], 2)
        fixed = spread([c.wall for c in bare[workers]], 2)
        inner = f"{count / statistics.median(between[workers]):.1f}"
        inner_ratios = spread([a / b for a, b in zip(between[one], between[workers], strict=True)], 2)
        lost = spread([c.elsewhere * 100 for c in costs], 0)
        lines.append(f"| {workers} | {rates} | {ratios} | {each} | {lost} | {fixed} | {inner} | {inner_ratios} |")
    for workers, costs in apart.items():
        if costs:
            rates = spread([workers * count / c.wall for c in costs], 1)
            ratios = spread([workers * a.wall / b.wall for a, b in zip(whole[one], costs, strict=True)], 2)
            each = spread([c.cpu / count / workers * 1e3 for c in costs], 2)
            lost = spread([c.elsewhere * 100 for c in costs], 0)
            lines.append(f"| {workers} builds of one | {rates} | {ratios} | {each} | {lost} | | | |")
    return lines


if __name__ == "__main__":
    main()
