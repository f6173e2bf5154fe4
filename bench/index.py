"""What a dataset of millions of composites costs besides its pixels: plan, sidecars, index, opening it.

    python bench/index.py --foregrounds 50000 --backgrounds 82783

A plan of drawn pictures is made. Each of its shards gets a file with its table and no pixels, and the sidecar that
rendering would write, with made-up digests. Then the build's own functions read the sidecars and write the index
and the checksums, and another process opens the dataset, as every reader does. Then it is summarised, its last
composite is looked for, and it is converted, without pixels: what would be written is taken to be so. At last all is
verified, with the plan and without, but for the shards themselves: each is taken to be as it was planned. Each step is
a process of its own, whose largest size is noted. Pictures are not looked for, and no contact sheet is drawn. Needs
Linux.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from matting_compose.composer.building import build as building
from matting_compose.composer.building.inputs import BuildInputs
from matting_compose.composer.building.plan import PLAN, Plan, ShardPlan
from matting_compose.composer.building.resume import committed_sidecars, keep_plan, plan_build
from matting_compose.composer.dataset.dataset import open_dataset
from matting_compose.composer.dataset.documents import INDEX
from matting_compose.composer.dataset.rows import Header, Row, to_table
from matting_compose.composer.dataset.writer import ShardWriter
from matting_compose.composer.inspection import export as exporting
from matting_compose.composer.inspection import panel, summary
from matting_compose.composer.inspection import verify as verification
from matting_compose.composer.inspection.verify_shard import ShardResult, VerifyTask
from matting_compose.composer.recipe import Recipe, load_recipe
from memory import alone, resident

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
        write_table(plan, shard, path)
        sidecar = invent_sidecar(plan, shard.index, path.stat().st_size)
        path.with_suffix(".json").write_text(json.dumps(sidecar, ensure_ascii=False, indent=1) + "\n")
    return [planned]


def write_table(plan: Plan, shard: ShardPlan, path: Path) -> None:
    """Write a shard that has its composites' rows, but no pixels."""
    header = Header(plan.sha256, shard.index, shard.split, "delta", 95, 160, "none")
    usual = Row("-" * 32, "-" * 32, 0, "-" * 32, DIGEST, 400, 500, 1.0, 0, 0, 10, 10, 0, 0)
    with ShardWriter(path, header) as writer:
        writer.finish([usual])
    table = np.repeat(to_table([usual]), len(shard))
    cells = [(strip, variant) for strip in shard.strips for variant in strip.variants]
    keys = [plan.foregrounds[strip.foreground].key for strip, _ in cells]
    table["key"] = [f"{key}_{variant}" for key, (_, variant) in zip(keys, cells, strict=True)]
    table["foreground"] = keys
    table["background"] = [plan.background_name(strip.foreground, variant) for strip, variant in cells]
    table["group"] = [strip.group for strip, _ in cells]
    table["variant"] = [variant for _, variant in cells]
    table["position"] = [variant - strip.variants.start for strip, variant in cells]
    with h5py.File(path, "r+") as file:
        del file["samples"]
        file["samples"] = table


def invent_sidecar(plan: Plan, number: int, size: int) -> dict[str, Any]:
    """Return the sidecar of a shard of so many bytes."""
    shard = plan.shards[number]
    names = [f"foreground {plan.foregrounds[strip.foreground].image}" for strip in shard.strips]
    shown = {plan.background_name(strip.foreground, variant) for strip in shard.strips for variant in strip.variants}
    names += [f"background {name}" for name in sorted(shown)]
    return {
        "file": shard.name, "plan_sha256": plan.sha256, "index": number, "split": shard.split, "composites": len(shard),
        "bytes": size, "sha256": DIGEST,
        "inputs": {name: {"bytes": 1, "sha256": DIGEST} for name in names}, "failures": [],
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


def survey(out: Path) -> list[Step]:
    """Look for the last composite by its key, and summarise the tables."""
    summary.SAMPLE = 0
    begun, _ = step("imports, before the next", lambda: None)
    with closing(open_dataset(out)) as dataset:
        key = dataset.row(len(dataset) - 1).key
        found, _ = step("inspect --show, the last key", lambda: panel._find(dataset, key))
    known, _ = step("inspect, without masks", lambda: summary.summarise(out))
    return [begun, found, known]


def convert(out: Path, to: exporting.Form) -> list[Step]:
    """Convert it, without writing pictures."""

    def as_written(_: object, tasks: Iterable[Any], *__: object) -> Iterator[Any]:
        for task in tasks:
            files = {path for own in task.paths.values() for path in own.values()} or {exporting._file_name(task)}
            sums = {path: hashlib.sha256(path.encode()).hexdigest() for path in files}
            done = exporting._Exported(len(task.numbers), len(task.numbers), sums)
            yield pickle.loads(pickle.dumps(done))  # as it comes from a worker, with texts of its own

    exporting.run_in_processes = as_written
    begun, _ = step("imports, before the next", lambda: None)
    done, _ = step(f"convert --to {to}", lambda: exporting.export(out, out.with_name(f"{out.name} as {to}"), to))
    return [begun, done]


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
        out = Path(name) / "dataset"
        steps = alone(begin, recipe, out) + alone(finish, recipe, out)
        for _ in range(options.rounds):
            steps += alone(look, out, recipe.seed)
        steps += alone(survey, out) + alone(convert, out, "png") + alone(convert, out, "webdataset")
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
