"""Build: plan → shards, in parallel, one task a shard; resume, failures, index.

Whatever stops a build, the same command goes on where it stopped: a shard is finished when its sidecar is there
(see `render`), and the dataset when its index is, which is written last.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import h5py
import joblib
import numpy as np
import zstandard
from filelock import FileLock, Timeout

from . import dataset
from .checksums import CHECKSUMS, write_checksums
from .errors import BuildError
from .layouts import CONTACT_SHEET
from .plan import Plan, ShardPlan, make_plan
from .recipe import Recipe
from .render import PROGRESS, TEMPORARY, ShardTask, disk_error, read_json, render_shard, write_json
from .report import write_contact_sheet
from .shard import Header

PLAN = "plan.json"
LOCK = ".lock"
REFRESH = 0.2  # seconds between two looks at the progress


@dataclass(frozen=True)
class Progress:
    """How far a build is, for a display; counts include what earlier runs made."""

    composites: int
    failures: int
    bytes: int


@dataclass(frozen=True)
class BuildResult:
    """What a build made.

    Attributes
    ----------
    out : the dataset's folder
    composites, failures, shards, bytes : of the whole dataset; bytes of shards on disk
    rendered : composites made by this run
    seconds : this run's wall time
    peak_worker_bytes : the largest worker's resident memory
    plan_sha256 : the plan's hash
    """

    out: str
    composites: int
    failures: int
    shards: int
    bytes: int
    rendered: int
    seconds: float
    peak_worker_bytes: int
    plan_sha256: str


def build(
    recipe: Recipe, out: str | Path, *, jobs: int = -1, on_progress: Callable[[Progress], None] | None = None
) -> BuildResult:
    """Build a dataset, or go on with one.

    Parameters
    ----------
    recipe : what to build
    out : the dataset's folder; made where there is none
    jobs : worker processes; -1 for one per core
    on_progress : called about five times a second, from another thread

    Raises
    ------
    PlanError : the recipe and its pictures do not add up
    BuildError : the folder belongs to something else, another build runs in it, or the disk is full
    """
    start = time.monotonic()
    out = Path(out)
    with _locked(out):
        plan = resume_plan(recipe, out)
        shards = _folder(out / "shards")
        _remove_temporaries(out)
        done = _committed(plan, out)
        (out / CHECKSUMS).unlink(missing_ok=True)  # until all is done, it would speak of what was
        left = [shard for shard in plan.shards if shard.index not in done or done[shard.index]["failures"]]
        with _watched(plan, done, out, on_progress):
            rendered, peak = _run((_task(plan, shard, shards, done) for shard in left), len(left), jobs, done)
        index = _write_index(plan, out, done)
    counts = {name: index[name] for name in ("composites", "bytes")}
    return BuildResult(
        out=str(out),
        failures=len(index["failures"]),
        shards=len(index["shards"]),
        rendered=rendered,
        seconds=round(time.monotonic() - start, 3),
        peak_worker_bytes=peak,
        plan_sha256=plan.sha256,
        **counts,
    )


def resume_plan(recipe: Recipe, out: Path, *, write: bool = True) -> Plan:
    """Plan afresh in a new folder; in an old one make sure that it is the same plan.

    Raises
    ------
    BuildError : the folder holds another plan (the first difference is named), or things that are no dataset
    """
    path = out / PLAN
    if not path.exists():
        if out.is_dir() and any(item.name not in (LOCK, "shards") for item in out.iterdir()):
            raise BuildError(f"{out}: the folder is not empty, and holds no dataset; choose another --out")
        plan = make_plan(recipe)
        if write:
            write_json(path, {"plan_sha256": plan.sha256, **plan.document()})
        return plan
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        height, width = (int(side) for side in old["shape"])
        if min(height, width) < 1:
            raise ValueError(f"shape is {old['shape']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BuildError(f"{path}: damaged ({error}); move the folder aside, or restore the file") from None
    plan = make_plan(recipe, shape=(height, width))
    if old.pop("plan_sha256", None) != plan.sha256:
        difference = _first_difference(old, plan.document()) or "the hash of an unchanged plan"
        raise BuildError(
            f"{out} was begun with another plan: {difference}.\n"
            "Build with what it was begun with, or choose another --out"
        )
    return plan


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the folder for this build alone; the lock goes with its process, however that ends."""
    lock = FileLock(_folder(out) / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BuildError(f"{out}: another build is running here; wait for it, or choose another --out") from None
    except OSError as error:
        raise disk_error(error, out) from None
    try:
        yield
    finally:
        lock.release()


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, path) from None
    return path


def _remove_temporaries(out: Path) -> None:
    for path in (*out.glob(f".*{TEMPORARY}"), *(out / "shards").glob(f".*{TEMPORARY}")):
        path.unlink(missing_ok=True)


def _committed(plan: Plan, out: Path) -> dict[int, dict[str, Any]]:
    """Return the sidecars of the shards that are finished, by index."""
    done: dict[int, dict[str, Any]] = {}
    for shard in plan.shards:
        path = out / "shards" / shard.name
        sidecar = read_json(path.with_suffix(".json"))
        if sidecar is None or sidecar.get("plan_sha256") != plan.sha256 or not path.is_file():
            continue
        if path.stat().st_size == sidecar["bytes"]:
            done[shard.index] = sidecar
    _refuse_changed_inputs(plan, done)
    return done


def _refuse_changed_inputs(plan: Plan, done: dict[int, dict[str, Any]]) -> None:
    if not done:
        return
    foregrounds, backgrounds = plan.foreground_layout, plan.background_layout
    paths = {f"background {name}": path for name in plan.backgrounds for path in backgrounds.files(name)}
    for entry in plan.foregrounds:
        for name, path in zip((entry.image, entry.alpha), foregrounds.files(entry), strict=False):
            paths[f"foreground {name}"] = path
        if trimaps := plan.supplied_trimaps:
            for variant in range(plan.recipe.variants):
                paths[f"trimap {trimaps.name(entry.key, variant)}"] = trimaps.path(entry.key, variant)
    sizes: dict[str, int | None] = {}
    for sidecar in done.values():
        for name, used in sidecar["inputs"].items():
            if name not in sizes:
                sizes[name] = paths[name].stat().st_size if name in paths and paths[name].is_file() else None
            if sizes[name] not in (used["bytes"], None):
                raise BuildError(
                    f"{name} has changed since {sidecar['file']} was rendered: it had {used['bytes']:,} bytes,"
                    f" now it has {sizes[name]:,}. Restore it, or build into another --out"
                )


def _task(plan: Plan, shard: ShardPlan, folder: Path, done: dict[int, dict[str, Any]]) -> ShardTask:
    recipe = plan.recipe
    return ShardTask(
        folder=folder.absolute(),
        shard=shard,
        header=Header(
            plan_sha256=plan.sha256,
            index=shard.index,
            split=shard.split,
            packing=recipe.shards.packing,
            quality=recipe.shards.quality,
            tile=recipe.shards.tile,
            background=recipe.shards.background,
        ),
        entries={number: plan.foregrounds[number] for number in shard.foregrounds},
        cells=list(plan.cells(shard)),
        foreground_layout=plan.foreground_layout,
        background_layout=plan.background_layout,
        fit=recipe.fit,
        trimap=recipe.trimap,
        supplied=plan.supplied_trimaps,
        parent=os.getpid(),
        retry=shard.index in done,
    )


def _run(tasks: Iterator[ShardTask], count: int, jobs: int, done: dict[int, dict[str, Any]]) -> tuple[int, int]:
    """Render the tasks; fill `done`. Return the composites rendered and the largest worker's peak memory."""
    rendered = peak = 0
    workers = min(joblib.effective_n_jobs(jobs), max(count, 1))
    parallel = joblib.Parallel(n_jobs=workers, return_as="generator_unordered")
    results = parallel(joblib.delayed(render_shard)(task) for task in tasks)
    try:
        for sidecar, fresh, memory in results:
            done[sidecar["index"]] = sidecar
            rendered += fresh
            peak = max(peak, memory)
    except joblib.externals.loky.process_executor.TerminatedWorkerError:
        raise BuildError(
            "a worker process was killed, perhaps for want of memory (fewer --jobs take less)."
            " Nothing finished is lost: run the same command again"
        ) from None
    return rendered, peak


@contextlib.contextmanager
def _watched(
    plan: Plan,
    done: dict[int, dict[str, Any]],
    out: Path,
    on_progress: Callable[[Progress], None] | None,
) -> Iterator[None]:
    """Call `on_progress` while the body runs, from the counters that workers keep in a shared file."""
    slots = np.memmap(out / "shards" / PROGRESS, np.int64, "w+", shape=(len(plan.shards), 3))
    for index, sidecar in done.items():
        slots[index] = sidecar["composites"], len(sidecar["failures"]), sidecar["bytes"]
    stop = threading.Event()

    def watch() -> None:
        while True:
            last = stop.wait(REFRESH)
            if on_progress is not None:
                on_progress(Progress(*(int(total) for total in slots.sum(axis=0))))
            if last:
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
        (out / "shards" / PROGRESS).unlink(missing_ok=True)
        _remove_temporaries(out)


def _write_index(plan: Plan, out: Path, done: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Write the index, the contact sheet and the checksums."""
    sidecars = [done[shard.index] for shard in plan.shards]
    _refuse_mixed_inputs(sidecars)
    listed = ("file", "index", "split", "composites", "bytes", "sha256")
    document = plan.document()
    index = {
        "format": dataset.FORMAT,
        "version": dataset.VERSION,
        "plan_sha256": plan.sha256,
        "composites": sum(sidecar["composites"] for sidecar in sidecars),
        "planned": len(plan),
        "foregrounds": len(plan.foregrounds),
        "backgrounds": len(plan.backgrounds),
        "bytes": sum(sidecar["bytes"] for sidecar in sidecars),
        "recipe": document["recipe"],
        "shards": [{name: sidecar[name] for name in listed} for sidecar in sidecars if sidecar["composites"]],
        "failures": [failure for sidecar in sidecars for failure in sidecar["failures"]],
        "excluded": [{"source": source, "reason": reason} for source, reason in plan.excluded],
        "made_with": {
            "h5py": h5py.__version__,
            "numpy": np.__version__,
            "opencv": cv2.__version__,
            "zstandard": zstandard.__version__,
        },
    }
    write_json(out / dataset.INDEX, index)
    if index["composites"]:
        write_contact_sheet(dataset.open_dataset(out), out / CONTACT_SHEET)
    small = [PLAN, dataset.INDEX, *([CONTACT_SHEET] if index["composites"] else [])]
    small += [f"shards/{Path(sidecar['file']).stem}.json" for sidecar in sidecars]
    write_checksums(out, {f"shards/{sidecar['file']}": sidecar["sha256"] for sidecar in sidecars}, small)
    return index


def _refuse_mixed_inputs(sidecars: list[dict[str, Any]]) -> None:
    """Make sure that no picture was changed between two shards that show it."""
    seen: dict[str, tuple[str, str]] = {}
    for sidecar in sidecars:
        for name, used in sidecar["inputs"].items():
            file, digest = seen.setdefault(name, (sidecar["file"], used["sha256"]))
            if digest != used["sha256"]:
                raise BuildError(
                    f"{name} was changed while the dataset was built: {file} and {sidecar['file']} show different"
                    f" versions. Delete the one with the wrong version, and run the same command again"
                )


def _first_difference(old: Any, new: Any, place: str = "") -> str:
    """Say where two plans part, in a recipe's own words; empty where they do not."""
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [(str(key), old.get(key), new.get(key)) for key in [*old, *(key for key in new if key not in old)]]
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return f"{place} had {len(old):,} entries, now {len(new):,}"
        pairs = [(f"[{i}]", *both) for i, both in enumerate(zip(old, new, strict=True))]
    else:
        return "" if old == new else f"{place} was {json.dumps(old)}, now it is {json.dumps(new)}"
    for key, before, after in pairs:
        inner = f"{place}{key}" if key.startswith("[") else f"{place}.{key}".lstrip(".")
        if difference := _first_difference(before, after, inner):
            return difference
    return ""
