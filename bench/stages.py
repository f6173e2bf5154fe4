"""What a build's processor time is spent on, stage by stage, in one process.

    python bench/stages.py --foregrounds cutouts/ --backgrounds photos/
    python bench/stages.py open431 --set variants=10

The real build runs, and the functions that do each stage's work are wrapped in a clock: each stage's time is that
of its function less that of the stages within it, so that the rows add up to the whole. It is the processor time of
the thread that builds; the wall time beside it says where the disk is waited for. The clock itself costs some 2 µs for
each call, 20 µs a composite.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from build import add_pictures, thinned
from commands import spread
from matting_compose.composer.building import build as building
from matting_compose.composer.building import shard_task
from matting_compose.composer.compositing import compose
from matting_compose.composer.compositing.blending import METHODS
from matting_compose.composer.dataset import writer
from matting_compose.composer.recipe import load_recipe
from matting_compose.composer.sources import backgrounds


class Spent(NamedTuple):
    """What a stage took: seconds of processor and wall, in how many calls."""

    cpu: float = 0.0
    wall: float = 0.0
    calls: int = 0


class Stages:
    """What each stage took, without what the stages within it did."""

    def __init__(self) -> None:
        self.spent: dict[str, Spent] = {}
        self._inner: list[tuple[float, float]] = []

    def timed(self, stage: str | Callable[..., str], work: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function; `stage` may be a function of its arguments."""

        @functools.wraps(work)
        def clocked(*arguments: Any, **named: Any) -> Any:
            self._inner.append((0.0, 0.0))
            cpu, wall = time.thread_time(), time.perf_counter()
            try:
                return work(*arguments, **named)
            finally:
                cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
                within = self._inner.pop()
                if self._inner:
                    outer = self._inner[-1]
                    self._inner[-1] = outer[0] + cpu, outer[1] + wall
                name = stage if isinstance(stage, str) else stage(*arguments)
                before = self.spent.get(name, Spent())
                cpu, wall = before.cpu + cpu - within[0], before.wall + wall - within[1]
                self.spent[name] = Spent(cpu, wall, before.calls + 1)

        return clocked

    def wrap(self, owner: Any, name: str, stage: str | Callable[..., str]) -> None:
        """Put a clock around a module's function or a class's method."""
        setattr(owner, name, self.timed(stage, getattr(owner, name)))


def watch(stages: Stages) -> None:
    """Put clocks around all that a build does."""
    stages.wrap(building, "plan_build", "plan")
    stages.wrap(building, "_write_index", "index, checksums, contact sheet")
    stages.wrap(building, "render_shard", "the rest of a shard")
    stages.wrap(shard_task, "read_look", "read foregrounds")
    for layout in (backgrounds.Photographs, backgrounds.DrawnBackgrounds):
        stages.wrap(layout, "load", "decode backgrounds")
    stages.wrap(compose.SceneMaker, "__call__", "prepare backgrounds (scenes)")
    for name, method in METHODS.items():
        blender = stages.timed("blend", method.blender)
        clocked = replace(
            method,
            fit=stages.timed("fit and scale backgrounds", method.fit),
            blender=lambda *parts, make=blender: stages.timed("blend", make(*parts)),
        )
        METHODS.register(name, clocked)
    draw = stages.timed("trimaps: distances, once a foreground", compose.trimap_strategy)
    compose.trimap_strategy = lambda *given: stages.timed("trimaps: drawing", draw(*given))
    stages.wrap(writer.GroupWriter, "_write", lambda _, name, *__: f"encode {name}")
    stages.wrap(writer.GroupWriter, "_write_tiles", "write tiles, and their CRC")
    stages.wrap(writer.GroupWriter, "write_composite", "leave out what is shared")
    stages.wrap(writer.ShardWriter, "finish", "tables, close, wait for the disk")
    stages.wrap(writer.ShardWriter, "_read_back", "read back, compare, SHA-256")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?")
    add_pictures(parser)
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="key=value of the recipe")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    stages = Stages()
    watch(stages)
    work = stages.timed("everything else", building.build)
    rounds: list[dict[str, Spent]] = []
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        out = Path(name) / "out"
        front = options.foregrounds and thinned(options.foregrounds, options.every, Path(name) / "taken")
        recipe = load_recipe(options.recipe, options.overrides, foregrounds=front, backgrounds=options.backgrounds)
        for _ in range(options.rounds):
            made = work(recipe, out, jobs=1)
            shutil.rmtree(out)
            os.sync()
            rounds.append(stages.spent)
            stages.spent = {}
    machine = f"{os.cpu_count()} cores, {platform.machine()}"
    print(f"{made.composites} composites in {made.shards} shards, {recipe.shards.packing}; {machine}")
    print("\n".join(rows(rounds, made.composites)))


def rows(rounds: list[dict[str, Spent]], composites: int) -> list[str]:
    """Return the table, dearest stage first: medians and ranges, and shares of the medians' sum."""
    whole = [Spent(*np.sum(list(spent.values()), axis=0).tolist()) for spent in rounds]
    stages = {stage: [spent[stage] for spent in rounds] for stage in rounds[0]}
    total = sum(statistics.median(s.cpu for s in seen) for seen in stages.values())
    lines = ["| | calls | processor, ms a composite | share | wall, ms a composite |", "|---" * 5 + "|"]
    for stage, seen in [*sorted(stages.items(), key=lambda item: -item[1][0].cpu), ("the whole", whole)]:
        cpu, wall = (spread([getattr(s, c) / composites * 1e3 for s in seen], 2) for c in ("cpu", "wall"))
        share = statistics.median(s.cpu for s in seen) / total
        lines.append(f"| {stage} | {'' if seen is whole else f'{seen[0].calls:,}'} | {cpu} | {share:.1%} | {wall} |")
    return lines


if __name__ == "__main__":
    main()
