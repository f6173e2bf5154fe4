"""Build: plan → shards, in parallel, one task a shard; resume, failures, index.

Whatever stops a build, the same command goes on where it stopped: a shard is finished when its sidecar is there
(see `render`), and the dataset when its index is, which is written last. Several processes may each build a share
(see `shares`): the one that finds all shards finished writes the index.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import zstandard
from numpy.typing import NDArray

from ..base.errors import BuildError
from ..base.files import TEMPORARY, disk_error, write_json
from ..base.progress import OnProgress, Progress, ignore_progress
from ..base.storage import is_remote, list_sizes, locks_folder, resolve_path
from ..base.text import format_size
from ..base.workers import run_in_processes, use_cluster, uses_local_workers
from ..dataset.checksums import CHECKSUMS, write_checksums
from ..dataset.dataset import open_dataset
from ..dataset.documents import FORMAT, INDEX, VERSION
from ..dataset.rows import Header
from ..recipe import Recipe, rooted
from ..sources.listings import CONTACT_SHEET
from .contact_sheet import write_contact_sheet
from .plan import PLAN, Plan, ShardPlan
from .render import ShardTask, render_shard
from .resume import Inputs, committed_sidecars, resume_plan
from .shares import WHOLE, Share, held

REFRESH = 0.2  # seconds between two looks at the progress


@dataclass(frozen=True)
class BuildResult:
    """What a build made.

    Attributes
    ----------
    out : the dataset's folder
    share : which share of it was built, ``1/1`` being all; all counts but `missing` are the share's
    composites, failures, shards, bytes : that are there; bytes of shards on disk
    missing : shards of other shares that are not finished; where there are none, the dataset is, and has its index
    rendered : composites made by this run
    seconds : this run's wall time
    peak_worker_bytes : the largest worker's resident memory
    plan_sha256 : the plan's hash
    """

    out: str
    share: str
    composites: int
    failures: int
    shards: int
    bytes: int
    missing: int
    rendered: int
    seconds: float
    peak_worker_bytes: int
    plan_sha256: str


def build(
    recipe: Recipe,
    out: str | Path,
    *,
    jobs: int = -1,
    share: Share = WHOLE,
    cluster: str | None = None,
    on_progress: OnProgress = ignore_progress,
) -> BuildResult:
    """Build a dataset, or go on with one.

    Parameters
    ----------
    recipe : what to build
    out : the dataset's folder, made where there is none; or its address in object storage
    jobs : worker processes; -1 for one per core
    share : render no more than this share of the shards; other processes may render others in the same folder
    cluster : the address of a Dask scheduler whose workers, which must see the same `out` and pictures, render
    on_progress : called about five times a second, from another thread

    Raises
    ------
    PlanError : the recipe and its pictures do not add up
    BuildError : the folder belongs to something else, another build runs in it, the disk is full, or the cluster
        cannot be used
    """
    start = time.monotonic()
    out = resolve_path(out)
    with held(locks_folder(_folder(out)), share) as alone, use_cluster(cluster), _disk_explained(out):
        ours = uses_local_workers()
        plan = resume_plan(rooted(recipe), out, alone=alone)  # a cluster's workers are in other folders
        shards = _folder(out / "shards")
        mine = share.of(plan.shards)
        _remove_temporaries(out, mine)
        inputs = Inputs(plan)
        done = committed_sidecars(inputs, plan, out, mine)
        left = [shard for shard in mine if shard.index not in done or done[shard.index]["failures"]]
        if left:
            (out / CHECKSUMS).unlink(missing_ok=True)  # until all is done, it would speak of what was
        with _watched(plan, done, on_progress, sum(map(len, mine))) as slots:
            parent = os.getpid() if ours else None
            progress = Path(str(slots.filename))
            tasks = (_task(plan, shard, shards, progress, parent, shard.index in done) for shard in left)
            try:
                rendered, peak = _run(tasks, len(left), jobs, done, inputs, slots)
            finally:
                _remove_temporaries(out, mine)
        inputs.refuse_mixed()
        with alone():
            missing = _finish(plan, out, share, done, changed=rendered > 0)
    made = [done[shard.index] for shard in mine]
    return BuildResult(
        out=str(out),
        share=str(share),
        composites=sum(sidecar["composites"] for sidecar in made),
        failures=sum(len(sidecar["failures"]) for sidecar in made),
        shards=sum(1 for sidecar in made if sidecar["composites"]),
        bytes=sum(sidecar["bytes"] for sidecar in made),
        missing=missing,
        rendered=rendered,
        seconds=round(time.monotonic() - start, 3),
        peak_worker_bytes=peak,
        plan_sha256=plan.sha256,
    )


@contextlib.contextmanager
def _disk_explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise disk_error(error, folder) from None


def _folder(path: Path) -> Path:
    if not is_remote(path):  # object storage knows no folders
        with _disk_explained(path):
            path.mkdir(parents=True, exist_ok=True)
    return path


def _remove_temporaries(out: Path, mine: Sequence[ShardPlan]) -> None:
    """Remove what killed runs left of these shards; what else is unfinished may be another process's."""
    stems = {Path(shard.name).stem for shard in mine}
    _remove(path for path in (out / "shards").glob(f".shard-*{TEMPORARY}") if path.name.split(".")[1] in stems)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _task(plan: Plan, shard: ShardPlan, folder: Path, progress: Path, parent: int | None, retry: bool) -> ShardTask:
    recipe = plan.recipe
    looks = {strip.group: plan.look(strip.group) for strip in shard.strips}
    partners = {look.partner for look in looks.values()}
    return ShardTask(
        folder=folder.absolute(),
        progress=progress,
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
        entries={strip.foreground: plan.foregrounds[strip.foreground] for strip in shard.strips},
        looks=looks,
        partners={entry.key: entry for entry in plan.foregrounds if entry.key in partners},
        cells=list(plan.cells(shard)),
        foreground_layout=plan.foreground_layout,
        background_layout=plan.background_layout,
        fit=recipe.fit,
        trimap=recipe.trimap,
        supplied=plan.supplied_trimaps,
        parent=parent,
        retry=retry,
    )


def _run(
    tasks: Iterator[ShardTask],
    count: int,
    jobs: int,
    done: dict[int, dict[str, Any]],
    inputs: Inputs,
    slots: NDArray[np.int64],
) -> tuple[int, int]:
    """Render the tasks; fill `done` and `inputs`. Return how many composites, and the largest worker's memory."""
    rendered = peak = 0
    for sidecar, fresh, memory in run_in_processes(render_shard, tasks, count, jobs, ordered=False):
        done[sidecar["index"]] = inputs.take(sidecar)
        slots[sidecar["index"]] = _counts(sidecar)  # a worker on another machine cannot
        rendered += fresh
        peak = max(peak, memory)
    return rendered, peak


def _counts(sidecar: dict[str, Any]) -> tuple[int, int, int]:
    return sidecar["composites"], len(sidecar["failures"]), sidecar["bytes"]


@contextlib.contextmanager
def _watched(
    plan: Plan, done: dict[int, dict[str, Any]], on_progress: OnProgress, total: int
) -> Iterator[np.memmap[Any, np.dtype[np.int64]]]:
    """Call `on_progress` while the body runs, from the counters that workers of this machine keep in a shared file."""
    with tempfile.TemporaryDirectory(prefix="matting-compose-") as folder:
        counters = Path(folder) / "progress"
        counters.write_bytes(bytes(len(plan.shards) * 3 * 8))  # room on the disk, without which to write to a map kills
        slots = np.memmap(counters, np.int64, "r+", shape=(len(plan.shards), 3))
        for index, sidecar in done.items():
            slots[index] = _counts(sidecar)
        stop = threading.Event()

        def watch() -> None:
            while True:
                last = stop.wait(REFRESH)
                made, failed, size = (int(count) for count in slots.sum(axis=0))
                on_progress(Progress("composites", made + failed, total, failed, detail=format_size(size)))
                if last:
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield slots
        finally:
            stop.set()
            watcher.join()


def _finish(plan: Plan, out: Path, share: Share, done: dict[int, dict[str, Any]], *, changed: bool) -> int:
    """Write the index if all shards are finished, else return how many are not. Nobody else writes meanwhile."""
    _remove(out.glob(f".*{TEMPORARY}"))
    there = list_sizes(out / "shards").keys()
    for shard in share.of(plan.shards):
        if not {shard.name, f"{Path(shard.name).stem}.json"} <= there:
            raise BuildError(
                f"{shard.name} was rendered, but it is not in {out / 'shards'}: every worker of a cluster must see the"
                " same folder under the same path. Choose an --out that they share"
            )
    missing = sum(f"{Path(shard.name).stem}.json" not in there for shard in plan.shards)
    if missing or not (changed or share == WHOLE or not (out / CHECKSUMS).exists()):
        return missing
    done = done if share == WHOLE else committed_sidecars(Inputs(plan), plan, out, plan.shards)
    if len(done) == len(plan.shards):
        _write_index(plan, out, done)
    return len(plan.shards) - len(done)


def _write_index(plan: Plan, out: Path, done: dict[int, dict[str, Any]]) -> None:
    """Write the index, the contact sheet and the checksums."""
    sidecars = [done[shard.index] for shard in plan.shards]
    listed = ("file", "index", "split", "composites", "bytes", "sha256")
    document = plan.document()
    index = {
        "format": FORMAT,
        "version": VERSION,
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
    write_json(out / INDEX, index)
    if index["composites"]:
        write_contact_sheet(open_dataset(out), out / CONTACT_SHEET)
    small = [PLAN, INDEX, *([CONTACT_SHEET] if index["composites"] else [])]
    small += [f"shards/{Path(sidecar['file']).stem}.json" for sidecar in sidecars]
    write_checksums(out, {f"shards/{sidecar['file']}": sidecar["sha256"] for sidecar in sidecars}, small)
