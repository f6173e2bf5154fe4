"""What a dataset of millions of composites costs besides its pixels: plan, sidecars, index, opening it.

    python bench/index.py --foregrounds 50000 --backgrounds 82783

A plan of drawn pictures is made. Each of its shards gets a file of the right length with nothing in it, and the sidecar
that rendering would write, with made-up digests. Then the build's own functions read the sidecars and write the index
and the checksums, and another process opens the dataset, as every reader does. At last all is verified, with the plan
and without, but for the shards themselves: each is taken to be as it was planned. Each step is a process of its own,
whose largest size is noted. Pictures are not looked for, and no contact sheet is drawn. Needs Linux.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from matting_compose.composer.building import build as building
from matting_compose.composer.building.inputs import BuildInputs
from matting_compose.composer.building.plan import PLAN, Plan
from matting_compose.composer.building.resume import committed_sidecars, keep_plan, plan_build
from matting_compose.composer.dataset.dataset import open_dataset
from matting_compose.composer.dataset.documents import INDEX
from matting_compose.composer.inspection import verify as verification
from matting_compose.composer.inspection.verify_shard import ShardResult, VerifyTask
from matting_compose.composer.recipe import Recipe, load_recipe
from memory import alone, resident

EACH = 185_000  # bytes of a composite
DIGEST = hashlib.sha256().hexdigest()

Step = tuple[str, float, float, float]  # what; seconds by the clock and of the processor; MB at most


def step(what: str, work: Callable[[], Any]) -> tuple[Step, Any]:
    """Time something."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return (what, time.perf_counter() - wall, time.process_time() - cpu, resident("VmHWM")), result


def begin(recipe: Recipe, out: Path) -> list[Step]:
    """Plan, and write what rendering would leave, but for the pixels."""
    planned, plan = step("plan", lambda: plan_build(recipe, out))
    keep_plan(plan, out)
    (out / "shards").mkdir()
    for shard in plan.shards:
        path = out / "shards" / shard.name
        sidecar = invent_sidecar(plan, shard.index)
        with path.open("wb") as file:
            file.truncate(sidecar["bytes"])
        path.with_suffix(".json").write_text(json.dumps(sidecar, ensure_ascii=False, indent=1) + "\n")
    return [planned]


def invent_sidecar(plan: Plan, number: int) -> dict[str, Any]:
    """Return a shard's sidecar."""
    shard = plan.shards[number]
    names = [f"foreground {plan.foregrounds[strip.foreground].image}" for strip in shard.strips]
    shown = {plan.background_name(strip.foreground, variant) for strip in shard.strips for variant in strip.variants}
    names += [f"background {name}" for name in sorted(shown)]
    return {
        "file": shard.name, "plan_sha256": plan.sha256, "index": number, "split": shard.split, "composites": len(shard),
        "bytes": len(shard) * EACH, "sha256": DIGEST,
        "inputs": {name: {"bytes": EACH, "sha256": DIGEST} for name in names}, "failures": [],
    }  # fmt: skip


def finish(recipe: Recipe, out: Path) -> list[Step]:
    """Do what a build does when all is rendered: read all sidecars, write the index and the checksums."""
    building.write_contact_sheet = lambda _, path: path.touch()
    plan = plan_build(recipe, out)
    sidecars = "read the sidecars"
    read, done = step(sidecars, lambda: committed_sidecars(BuildInputs(plan), plan, out, plan.shards))
    write, _ = step(
        "write index and checksums",
        lambda: building._write_index(plan, out, [done[shard.index] for shard in plan.shards]),
    )
    return [read, write]


def look(out: Path, seed: int) -> list[Step]:
    """Do what a reader does before the first crop."""
    begun, _ = step("imports, before the next", lambda: None)
    opened, dataset = step("open_dataset", lambda: open_dataset(out))
    from matting_compose.trainer.data.order import epoch_order  # torch's memory is not the dataset's

    trains, _ = step("imports, before the next", lambda: None)
    sizes = tuple(shard.composites for shard in dataset.shards)
    order, _ = step("an epoch's order", lambda: epoch_order(sizes, seed, 0, 8))
    return [begun, opened, trains, order]


def prove(out: Path, planned: bool) -> list[Step]:
    """Verify all but the shards themselves, with the plan or without."""

    def as_planned(_: object, tasks: Iterable[VerifyTask], *__: object) -> Iterator[ShardResult]:
        for task in tasks:
            record = task.record
            keys = [] if task.cells else [f"{record.file}_{number}" for number in range(record.composites)]
            yield ShardResult(record.file, [], record.composites, keys, [], record.bytes, True)

    verification.run_in_processes = as_planned
    if not planned:
        (out / PLAN).unlink()
    begun, _ = step("imports, before the next", lambda: None)
    proved, _ = step(f"verify, with{'' if planned else 'out'} a plan", lambda: verification.verify(out, jobs=1))
    return [begun, proved]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--foregrounds", type=int, default=50_000)
    parser.add_argument("--backgrounds", type=int, default=82_783)
    parser.add_argument("--variants", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3, help="of opening it")
    parser.add_argument("--scratch", type=Path)
    options = parser.parse_args()
    counts = [f"foregrounds.count={options.foregrounds}", f"backgrounds.count={options.backgrounds}"]
    sides = ["foregrounds.sides=[320,640]", "shards.megabytes=128"]
    recipe = load_recipe("demo", [*counts, *sides, f"variants={options.variants}", "shards.variants=50"])
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        out = Path(name)
        steps = alone(begin, recipe, out) + alone(finish, recipe, out)
        for _ in range(options.rounds):
            steps += alone(look, out, recipe.seed)
        plan_bytes = (out / PLAN).stat().st_size
        steps += alone(prove, out, True) + alone(prove, out, False)
        files = list((out / "shards").glob("*.json"))
        print(f"{recipe.variants * options.foregrounds:,} composites in {len(files):,} shards; {os.cpu_count()} cores")
        print(f"sidecars: {sum(path.stat().st_size for path in files) / 1e6:.1f} MB")
        print(f"{PLAN}: {plan_bytes / 1e6:.2f} MB")
        for file in (INDEX, "SHA256SUMS"):
            print(f"{file}: {(out / file).stat().st_size / 1e6:.2f} MB")
    print("| | wall, s | processor, s | MB at most |")
    print("|---" * 4 + "|")
    for what, wall, cpu, most in steps:
        print(f"| {what} | {wall:.2f} | {cpu:.2f} | {most:.0f} |")


if __name__ == "__main__":
    main()
