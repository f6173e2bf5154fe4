"""Build: plan → shards, in parallel, one task a shard; resume, failures, index.

Whatever stops a build, the same command goes on where it stopped: a shard is finished when its sidecar is there
(see `render`), and the dataset when its index is, which is written last. Several processes may each build a share
(see `shares`): the one that finds all shards finished writes the index.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..base.errors import BuildError
from ..base.files import TEMPORARY, disk_error, is_temporary
from ..base.progress import OnProgress, ignore_progress
from ..base.storage import is_remote, list_sizes, locks_folder, resolve_path
from ..base.text import count_of
from ..base.workers import run_in_processes, use_cluster
from ..dataset.card import CARD, dataset_card, write_card
from ..dataset.checksums import CHECKSUMS, write_checksums
from ..dataset.dataset import open_dataset
from ..dataset.documents import INDEX, VERSION, ExcludedRecord, FailureRecord, Index, Sidecar, write_document
from ..recipe import Recipe, rooted
from ..sources.listings import CONTACT_SHEET
from .background_reader import all_fit, known_backgrounds
from .contact_sheet import write_contact_sheet
from .counters import watch_counters
from .inputs import BuildInputs
from .library_versions import join_versions
from .plan import PLAN, Plan, ShardPlan
from .render import render_shard
from .resume import committed_sidecars, keep_plan, plan_build
from .shard_task import make_task
from .shares import WHOLE_BUILD, Share, lock_share

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildResult:
    """What a build made.

    Attributes
    ----------
    out : str
        The dataset's folder.
    share : str
        Which share of it was built, ``1/1`` being all; all counts but `missing` are the share's.
    composites, failures, shards, bytes : int
        That are there; bytes of shards on disk.
    missing : int
        Shards of other shares that are not finished; where there are none, the dataset is, and has its index.
    rendered : int
        Composites made by this run.
    seconds : float
        This run's wall time.
    peak_worker_bytes : int
        The largest worker's resident memory.
    plan_sha256 : str
        The plan's hash.
    failed : tuple[FailureRecord, ...]
        The composites that could not be made, in the plan's order.
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
    failed: tuple[FailureRecord, ...] = ()


def build(
    recipe: Recipe | Plan,
    out: str | Path,
    *,
    jobs: int = -1,
    share: Share = WHOLE_BUILD,
    cluster: str | None = None,
    on_progress: OnProgress = ignore_progress,
) -> BuildResult:
    """Build a dataset, or go on with one.

    Parameters
    ----------
    recipe : Recipe or Plan
        What to build; a plan (`plan_build`) is not made again.
    out : str or Path
        The dataset's folder, made where there is none; or its address in object storage.
    jobs : int
        Worker processes; -1 for one per core, 1 for none but the caller's.
    share : Share
        Render no more than this share of the shards; other processes may render others in the same folder.
    cluster : str, optional
        The address of a Dask scheduler whose workers, which must see the same `out` and pictures, render.
    on_progress : Callable[[Progress], None]
        Called about five times a second, from another thread.

    Raises
    ------
    PlanError
        The recipe and its pictures do not add up.
    BuildError
        The folder belongs to something else, another build runs in it, the disk is full, a picture has changed, or
        the cluster cannot be used.

    Examples
    --------
    >>> from matting_compose.composer import build, load_recipe
    >>> small = ["foregrounds.count=2", "foregrounds.sides=[64,80]", "backgrounds.count=2", "variants=2"]
    >>> result = build(load_recipe("demo", small), "dataset", jobs=1)
    >>> result.composites, result.failures
    (4, 0)
    """
    start = time.monotonic()
    out = resolve_path(out)
    with (
        lock_share(locks_folder(_make_folder(out)), share) as lock,
        use_cluster(cluster),
        _explain_disk_errors(out),
    ):
        plan = _anchor(recipe) if isinstance(recipe, Plan) else plan_build(recipe, out)
        with lock():
            begun = keep_plan(plan, out)
        done, rendered, peak = _render_share(plan, out, share, jobs, begun, on_progress)
        with lock():
            missing = _finish(plan, out, share, done, begun, changed=rendered > 0)
    made = [done[shard.index] for shard in share.of(plan.shards)]
    failed = tuple(failure for sidecar in made for failure in sidecar.failures)
    return BuildResult(
        out=str(out),
        share=str(share),
        composites=sum(sidecar.composites for sidecar in made),
        failures=len(failed),
        shards=sum(1 for sidecar in made if sidecar.composites),
        bytes=sum(sidecar.bytes for sidecar in made),
        missing=missing,
        rendered=rendered,
        seconds=round(time.monotonic() - start, 3),
        peak_worker_bytes=peak,
        plan_sha256=plan.sha256,
        failed=failed,
    )


def _anchor(plan: Plan) -> Plan:
    """Return a plan whose pictures are found from any working directory: a cluster's workers are in others."""
    recipe = rooted(plan.recipe)
    return plan if recipe == plan.recipe else replace(plan, recipe=recipe)


def _render_share(
    plan: Plan,
    out: Path,
    share: Share,
    jobs: int,
    begun: float,
    on_progress: OnProgress,
) -> tuple[dict[int, Sidecar], int, int]:
    """Render what is left of a share. Return its sidecars, the composites rendered, and the largest worker's memory."""
    shards = _make_folder(out / "shards")
    mine = share.of(plan.shards)
    _remove_temporaries(out, mine)
    inputs = BuildInputs(plan)
    done = committed_sidecars(inputs, plan, out, mine, begun)
    left = [shard for shard in mine if shard.index not in done or done[shard.index].failures]
    if done:
        logger.info("%s: already there: %d of %s", out, len(done), count_of(len(mine), "shard"))
    for index in sorted(done):
        logger.debug("%s: finished earlier", done[index].file)
    if left:
        (out / CHECKSUMS).unlink(missing_ok=True)  # until all is done, it would speak of what was
    rendered = peak = 0
    with watch_counters(plan, done, sum(map(len, mine)), on_progress) as counters:
        keep = bool(left) and all_fit(plan.background_layout, plan.backgrounds)
        tasks = (
            make_task(plan, shard, shards, counters.file, keep_backgrounds=keep, retry=shard.index in done)
            for shard in left
        )
        try:
            for shard in run_in_processes(render_shard, tasks, len(left), jobs, ordered=False):
                done[shard.sidecar.index] = inputs.take(shard.sidecar)
                counters.finish(shard.sidecar)
                rendered += shard.rendered
                peak = max(peak, shard.peak_bytes)
        finally:
            known_backgrounds.cache_clear()  # without workers, this process rendered
            _remove_temporaries(out, mine)
    inputs.refuse_mixed()
    return done, rendered, peak


@contextlib.contextmanager
def _explain_disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise disk_error(error, folder) from None


def _make_folder(path: Path) -> Path:
    if not is_remote(path):  # object storage knows no folders
        with _explain_disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
    return path


def _remove_temporaries(out: Path, mine: Sequence[ShardPlan]) -> None:
    """Remove what killed runs left of these shards; what else is unfinished may be another process's."""
    stems = {Path(shard.name).stem for shard in mine}
    _remove(path for path in (out / "shards").glob(f".shard-*{TEMPORARY}") if path.name.split(".")[1] in stems)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if is_temporary(path.name):  # another program's are not ours
            path.unlink(missing_ok=True)


def _finish(plan: Plan, out: Path, share: Share, done: dict[int, Sidecar], begun: float, *, changed: bool) -> int:
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
    if missing or not (changed or share == WHOLE_BUILD or not (out / CHECKSUMS).exists()):
        return missing
    if share != WHOLE_BUILD:
        done = committed_sidecars(BuildInputs(plan), plan, out, plan.shards, begun)
    if len(done) == len(plan.shards):
        _write_index(plan, out, [done[shard.index] for shard in plan.shards])
    return len(plan.shards) - len(done)


def _write_index(plan: Plan, out: Path, sidecars: Sequence[Sidecar]) -> None:
    """Write the index, the contact sheet and the checksums."""
    index = Index(
        version=1 if all(entry.composed for entry in plan.foregrounds) else VERSION,
        plan_sha256=plan.sha256,
        composites=sum(sidecar.composites for sidecar in sidecars),
        planned=len(plan),
        foregrounds=len(plan.foregrounds),
        backgrounds=len(plan.backgrounds),
        bytes=sum(sidecar.bytes for sidecar in sidecars),
        recipe=plan.document()["recipe"],
        shards=[sidecar.record() for sidecar in sidecars if sidecar.composites],
        failures=[failure for sidecar in sidecars for failure in sidecar.failures],
        excluded=[ExcludedRecord(source=source, reason=reason) for source, reason in plan.excluded],
        made_with=join_versions(sidecar.made_with for sidecar in sidecars),
    )
    write_document(out / INDEX, index)
    small = [PLAN, INDEX, *(f"shards/{Path(sidecar.file).stem}.json" for sidecar in sidecars)]
    if index.composites:
        write_contact_sheet(open_dataset(out), out / CONTACT_SHEET)
        small.append(CONTACT_SHEET)
    splits: dict[str, int] = {shard.split: 0 for shard in plan.shards}
    for shard, sidecar in zip(plan.shards, sidecars, strict=True):
        splits[shard.split] += sidecar.composites
    write_card(out, dataset_card(index.recipe, splits, index.foregrounds, index.bytes, "hdf5"))
    small.append(CARD)
    write_checksums(out, {f"shards/{sidecar.file}": sidecar.sha256 for sidecar in sidecars}, small)
