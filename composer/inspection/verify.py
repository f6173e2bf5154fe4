"""Verify: prove that a dataset is what its plan says, to the bit; and move aside what is not.

Three files state each shard's digest: the index, its sidecar, and `SHA256SUMS`, which states those of all other files
too. Then what digests cannot tell: that every planned composite is there, decodes, and makes sense.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..base.errors import DatasetError
from ..base.file_names import LOCK
from ..base.files import file_sha256, free_name
from ..base.progress import OnProgress, Progress
from ..base.storage import copy_locally, is_remote, resolve_path
from ..base.text import list_briefly
from ..base.workers import run_in_processes
from ..building.plan import PLAN
from ..building.plan_file import PlanFile, load_plan
from ..building.resume import refuse_other_rules
from ..building.shares import WHOLE_BUILD, lock_share
from ..dataset.card import CARD
from ..dataset.checksums import CHECKSUMS, read_checksums
from ..dataset.documents import INDEX, Index, Sidecar, load_index, load_sidecar
from ..dataset.packings import load_packing
from ..dataset.reader import ShardReader
from ..dataset.rows import digest_keys
from ..sources.listings import CONTACT_SHEET
from .verify_shard import NOT_OPENED, Problem, ShardResult, VerifyTask, planned_cells, verify_shard

__all__ = ["Problem", "VerifyResult", "move_aside", "verify"]

DAMAGED = "damaged"  # the folder that bad shards are moved to


NAMED = 5  # keys that one problem names


@dataclass(frozen=True)
class VerifyResult:
    """What `verify` found.

    Attributes
    ----------
    path : str
        The dataset's folder.
    problems : tuple of Problem
        Empty where all is well.
    notes : tuple of str
        What could not be proved, or is no part of the dataset.
    shards, composites, bytes : int
        How much was read.
    seconds : float
        How long it took.
    moved : tuple of str
        Shards that were moved aside.
    plan_version : int or None
        Of the rules that its pixels follow; None where the plan cannot be believed.
    """

    path: str
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    shards: int
    composites: int
    bytes: int
    seconds: float
    moved: tuple[str, ...] = ()
    plan_version: int | None = None


@dataclass(frozen=True)
class _Documents:
    """What a dataset's documents say, as far as they can be believed: None where they cannot.

    Sidecars, by shard, come without their inputs, which together would fill the memory: see `VerifyTask`.
    """

    folder: Path
    sums: Mapping[str, str] | None
    index: Index | None
    plan: PlanFile | None
    sidecars: Mapping[str, Sidecar | None]


def verify(folder: str | Path, *, jobs: int = -1, on_progress: OnProgress | None = None) -> VerifyResult:
    """Check a dataset: every byte, every composite, every planned cell.

    Parameters
    ----------
    folder : str or Path
        The dataset's.
    jobs : int
        Worker processes; -1 for one per core.
    on_progress : callable, optional
        Called as things are checked.

    Raises
    ------
    DatasetError
        The folder holds no dataset, an unfinished one, or one of a newer version.

    Examples
    --------
    >>> from matting_compose.composer import build, load_recipe
    >>> small = ["foregrounds.count=2", "foregrounds.sides=[64,80]", "backgrounds.count=2", "variants=2"]
    >>> _ = build(load_recipe("demo", small), "dataset", jobs=1)
    >>> result = verify("dataset", jobs=1)
    >>> result.problems, result.composites
    ((), 4)
    """
    start = time.monotonic()
    problems: list[Problem] = []
    documents = _read_documents(resolve_path(folder), problems)
    if documents.index:
        problems += _check_index(documents.index, documents)
    results = _verify_shards(documents, jobs, on_progress)
    for result in results:
        problems += result.problems
    problems += _check_coverage(documents, results)
    return VerifyResult(
        path=str(documents.folder),
        problems=tuple(dict.fromkeys(problems)),
        notes=tuple(_notes(documents)),
        shards=len(results),
        composites=sum(result.composites for result in results),
        bytes=sum(result.bytes for result in results),
        seconds=round(time.monotonic() - start, 3),
        plan_version=documents.plan.version if documents.plan else None,
    )


def move_aside(folder: Path, result: VerifyResult) -> VerifyResult:
    """Move the shards that have problems, with their sidecars, so that a build renders them again.

    Everything else that can be damaged but the plan, a build writes anew anyway.

    Parameters
    ----------
    folder : Path
        The dataset's.
    result : VerifyResult
        What was found in it.

    Returns
    -------
    VerifyResult
        The same, and the shards that were moved.

    Raises
    ------
    BuildError
        A build is running in the folder, or its shards follow other rules than those that would be made.
    DatasetError
        It cannot be written, or is no folder of this machine.
    """
    if is_remote(folder):
        raise DatasetError(f"{folder}: nothing is moved aside in object storage; delete the bad shards' .json there")
    shards = folder / "shards"
    found = (p for p in result.problems if p.file.startswith("shards/") and p.cause != NOT_OPENED)
    bad = sorted({Path(problem.file).stem for problem in found})
    aside = folder / DAMAGED
    if bad and result.plan_version is not None:
        refuse_other_rules(result.plan_version, folder)
    try:
        with lock_share(folder, WHOLE_BUILD):
            if bad and aside.is_symlink():
                raise DatasetError(f"{aside}: is a link; nothing is moved out of the dataset's folder")
            for stem in bad:
                aside.mkdir(exist_ok=True)
                for path in (shards / f"{stem}.json", shards / f"{stem}.h5"):  # without a sidecar, it counts as absent
                    if path.exists() or path.is_symlink():
                        path.replace(free_name(aside / path.name))
    except OSError as error:
        raise DatasetError(f"{folder}: shards cannot be moved aside ({error})") from None
    return replace(result, moved=tuple(f"{stem}.h5" for stem in bad))


def _read_documents(folder: Path, problems: list[Problem]) -> _Documents:
    sums = _read_sums(folder, problems)
    problems += _compare_sums(folder, sums or {}, shards=False)
    # An index that is known to have changed is not believed: it would put the blame on good shards.
    index = None if any(problem.file == INDEX for problem in problems) else load_index(folder)
    if index is None:
        problems += _compare_sums(folder, sums or {}, shards=True)
    plan = _read_plan(folder, index, problems)
    return _Documents(folder, sums, index, plan, _read_sidecars(folder, index, plan, problems))


def _read_sums(folder: Path, problems: list[Problem]) -> dict[str, str] | None:
    try:
        return read_checksums(folder)
    except DatasetError as error:
        problems.append(Problem(CHECKSUMS, "unreadable", f"{error}; the same build again writes it anew"))
        return {}


def _compare_sums(folder: Path, sums: Mapping[str, str], *, shards: bool) -> Iterator[Problem]:
    """Compare the shards, or all other files, with the checksums."""
    for name, stated in sums.items():
        path = folder / name
        if name.endswith(".h5") != shards:
            continue
        if not path.is_file():
            yield Problem(name, "missing", f"{CHECKSUMS} lists it")
        elif file_sha256(path) != stated:
            yield Problem(name, "changed", f"its SHA-256 is not what {CHECKSUMS} says: it, or that line, has changed")


def _read_plan(folder: Path, index: Index | None, problems: list[Problem]) -> PlanFile | None:
    try:
        plan = load_plan(folder)
    except DatasetError as error:
        problems.append(Problem(PLAN, "unreadable", f"{error}"))
        return None
    if plan.computed != plan.declared:
        problems.append(Problem(PLAN, "changed", f"its content hashes to {plan.computed}, it says {plan.declared}"))
        return None
    if index and plan.declared != index.plan_sha256:
        problems.append(Problem(PLAN, "foreign", f"{INDEX} is of plan {index.plan_sha256}, this is {plan.declared}"))
        return None
    return plan


def _read_sidecars(
    folder: Path, index: Index | None, plan: PlanFile | None, problems: list[Problem]
) -> dict[str, Sidecar | None]:
    """Read the sidecars of all planned shards, or of all that the index lists."""
    digests = {*([plan.declared] if plan else []), *([index.plan_sha256] if index else [])}
    sidecars: dict[str, Sidecar | None] = {}
    for name in _shard_names(index, plan):
        file = f"shards/{Path(name).stem}.json"
        sidecars[name] = None
        try:
            sidecar = load_sidecar(folder / file)
        except DatasetError as error:
            cause = "unreadable" if (folder / file).exists() else "missing"
            problems.append(Problem(file, cause, str(error)))
            continue
        if sidecar.plan_sha256 not in digests:
            problems.append(Problem(file, "foreign", f"it belongs to plan {sidecar.plan_sha256}"))
        elif sidecar.file != name:
            problems.append(Problem(file, "foreign", f"it is of {sidecar.file}"))
        else:
            sidecars[name] = sidecar.model_copy(update={"inputs": {}})
    return sidecars


def _shard_names(index: Index | None, plan: PlanFile | None) -> list[str]:
    """Name the shards that there should be, sidecars at least: the plan knows, else the index."""
    if plan:
        return [shard.name for shard in plan.plan.shards]
    return [shard.file for shard in index.shards] if index else []


def _check_index(index: Index, documents: _Documents) -> Iterator[Problem]:
    """Compare the index with the plan, with the sidecars, and with itself."""
    plan, sidecars = documents.plan, documents.sidecars
    counts = {
        "composites": sum(shard.composites for shard in index.shards),
        "planned": len(plan.plan) if plan else index.planned,
        "foregrounds": len(plan.plan.foregrounds) if plan else index.foregrounds,
        "backgrounds": len(plan.plan.backgrounds) if plan else index.backgrounds,
    }
    for name, expected in counts.items():
        if getattr(index, name) != expected:
            yield Problem(INDEX, "disagrees", f"{name} is {getattr(index, name):,}, but it should be {expected:,}")
    if plan and index.recipe != plan.recipe:
        yield Problem(INDEX, "disagrees", f"its recipe is not {PLAN}'s")
    listed = {shard.file: shard for shard in index.shards}
    for name in listed.keys() - sidecars.keys():
        yield Problem(INDEX, "disagrees", f"{name} is listed, but not in {PLAN}")
    there = {name: sidecar for name, sidecar in sidecars.items() if sidecar}
    for name, sidecar in there.items():
        if name in listed and sidecar.record() != listed[name]:
            yield Problem(f"shards/{Path(name).stem}.json", "disagrees", f"it and {INDEX} describe {name} differently")
        if name not in listed and sidecar.composites:
            yield Problem(INDEX, "disagrees", f"{name} is not listed, but its sidecar says that it is there")
    if len(there) == len(sidecars):
        if index.failures != [failure for sidecar in there.values() for failure in sidecar.failures]:
            yield Problem(INDEX, "disagrees", "its failures are not those of the sidecars")
        if index.bytes != sum(sidecar.bytes for sidecar in there.values()):
            yield Problem(INDEX, "disagrees", f"bytes is {index.bytes:,}, which is not the shards' sum")


def _verify_shards(documents: _Documents, jobs: int, on_progress: OnProgress | None) -> list[ShardResult]:
    if documents.index is None:
        return []
    shards = documents.index.shards
    tasks = _tasks(documents.index, documents)  # one by one: together, their cells would fill the memory
    results = []
    digests: list[NDArray[np.uint64]] = []  # of all keys, where no plan says which there are
    done, total = 0, sum(record.composites for record in shards)
    for record, result in zip(shards, run_in_processes(verify_shard, tasks, len(shards), jobs), strict=True):
        if documents.plan is None:
            digests.append(digest_keys(key.encode() for key in result.unplanned))
            result = replace(result, unplanned=[])
        results.append(result)
        done += record.composites
        if on_progress:
            on_progress(Progress("composites", done, total))
    return _with_shared_keys(documents.folder, results, digests) if digests else results


def _with_shared_keys(folder: Path, results: list[ShardResult], digests: list[NDArray[np.uint64]]) -> list[ShardResult]:
    """Read the keys again of shards that seem to have some in common; by digests, that is almost never by chance."""
    together = np.sort(np.concatenate(digests))
    shared = together[1:][together[1:] == together[:-1]]
    found = []
    for result, own in zip(results, digests, strict=True):
        if np.isin(own, shared).any():
            with copy_locally(folder / "shards" / result.file) as path, ShardReader(path) as reader:
                result = replace(result, unplanned=list(dict.fromkeys(row.key for row in reader.rows)))
        found.append(result)
    return found


def _tasks(index: Index, documents: _Documents) -> Iterator[VerifyTask]:
    plan = documents.plan
    planned = {shard.name: shard for shard in plan.plan.shards} if plan else {}
    for record in index.shards:
        path, sidecar = documents.folder / "shards" / record.file, documents.sidecars.get(record.file)
        stated = {
            INDEX: record.sha256,
            "its sidecar": sidecar.sha256 if sidecar else "",
            CHECKSUMS: (documents.sums or {}).get(f"shards/{record.file}", ""),
        }
        yield VerifyTask(
            path=path,
            record=record,
            stated={source: digest for source, digest in stated.items() if digest},
            plan_sha256=index.plan_sha256,
            settings=index.settings,
            cells=planned_cells(plan.plan, planned[record.file]) if plan and record.file in planned else None,
            sidecar=path.with_suffix(".json") if sidecar else None,
        )


def _check_coverage(documents: _Documents, results: list[ShardResult]) -> Iterator[Problem]:
    """Compare all that was found with all that was planned.

    Only what a shard has otherwise than planned is held, or without a plan in common with others, so that memory
    hardly grows with the dataset.
    """
    index, plan = documents.index, documents.plan
    failed = {failure.key for failure in index.failures} if index else set()
    strangers = {key for result in results for key in result.unplanned}
    places = _find_keys(plan, results, failed | strangers)
    for key, (first, *others) in places.items():
        for file in others:
            yield Problem(f"shards/{file}", "duplicate-key", f"it is in {first} too", key)
    if index is None or plan is None:
        return
    if both := failed & places.keys():
        yield Problem(INDEX, "disagrees", f"{list_briefly(sorted(both), NAMED)} are listed as failures, but are there")
    there = {result.file: result for result in results}
    for shard in plan.plan.shards:
        found = there.get(shard.name)
        if found is None or found.readable:  # else its own problem says that all of it is missing
            absent = planned_cells(plan.plan, shard).keys() if found is None else found.missing
            missing = set(absent) - places.keys() - failed
            if missing:
                which = list_briefly(sorted(missing), NAMED)
                detail = f"{len(missing):,} planned composites are neither there nor listed as failures: {which}"
                yield Problem(f"shards/{shard.name}", "missing-composite", detail)


def _find_keys(plan: PlanFile | None, results: list[ShardResult], keys: set[str]) -> dict[str, list[str]]:
    """Return which shards some keys are in, in the index's order."""
    planned = {shard.name: shard for shard in plan.plan.shards} if plan and keys else {}
    places: dict[str, list[str]] = {}
    for result in results:
        here = set(result.unplanned)
        if plan and result.readable and result.file in planned:
            here |= planned_cells(plan.plan, planned[result.file]).keys() & keys - set(result.missing)
        for key in here:
            places.setdefault(key, []).append(result.file)
    return places


def _notes(documents: _Documents) -> Iterator[str]:
    folder, index, plan = documents.folder, documents.index, documents.plan
    if documents.sums is None:
        yield f"no {CHECKSUMS}: what only one file says could not be checked; the same build again writes it"
    if index is None:
        yield f"without a sound {INDEX} composites were not decoded: run the same build again, then verify again"
    if index and index.failures:
        yield f"{len(index.failures):,} composites were never made; {INDEX} lists each with its cause"
    for library, versions in (index.made_with if index else {}).items():
        if "," in versions:
            yield f"its shards were made with several versions of {library}: {versions}; their bytes may differ"
    packing = index.settings.shards.packing if index else ""
    if packing and load_packing(packing).lossy:
        yield f"packing {packing} is lossy: composites were not compared with the blend of their parts"
    known = {INDEX, PLAN, CHECKSUMS, CONTACT_SHEET, CARD, LOCK, DAMAGED, "shards"}
    known |= {f"shards/{Path(name).stem}{end}" for name in _shard_names(index, plan) for end in (".h5", ".json")}
    found = {path.relative_to(folder).as_posix() for where in (folder, folder / "shards") for path in where.glob("*")}
    strangers = sorted(found - known)
    if strangers and (plan or index):
        yield f"{len(strangers):,} files are no part of the dataset: {list_briefly(strangers, NAMED)}"
