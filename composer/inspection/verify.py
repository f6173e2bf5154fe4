"""Verify: prove that a dataset is what its plan says, to the bit; and move aside what is not.

Three witnesses are heard on every shard: the index, its sidecar, and `SHA256SUMS`, which speaks of all other files
too. Then what the hashes cannot tell: that every planned composite is there, decodes, and makes sense.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..base.errors import DatasetError
from ..base.files import LOCK, file_sha256
from ..base.progress import OnProgress
from ..base.storage import is_remote, resolve_path
from ..base.text import list_briefly
from ..base.workers import run_in_processes
from ..building.plan import PLAN
from ..building.plan_file import PlanFile, load_plan
from ..building.shares import WHOLE, held
from ..dataset.checksums import CHECKSUMS, read_checksums
from ..dataset.documents import INDEX, Index, Sidecar, load_index, load_sidecar
from ..sources.listings import CONTACT_SHEET
from .verify_shard import Problem, Proof, Testimony, planned_cells, prove

DAMAGED = "damaged"  # the folder that bad shards are moved to


NAMED = 5  # keys that one problem names


@dataclass(frozen=True)
class Verdict:
    """What `verify` found.

    Attributes
    ----------
    path : the dataset's folder
    problems : empty where all is well
    notes : what could not be proved, or lies about
    shards, composites, bytes : how much was looked at
    seconds : how long it took
    moved : shards that were moved aside
    """

    path: str
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    shards: int
    composites: int
    bytes: int
    seconds: float
    moved: tuple[str, ...] = ()


def verify(folder: str | Path, *, jobs: int = -1, on_progress: OnProgress | None = None) -> Verdict:
    """Check a dataset: every byte, every composite, every planned cell.

    Parameters
    ----------
    folder : the dataset's
    jobs : worker processes; -1 for one per core
    on_progress : called with what is checked, how much is done, and of how much

    Raises
    ------
    DatasetError : the folder holds no dataset, an unfinished one, or one of a newer version
    """
    start = time.monotonic()
    folder = resolve_path(folder)
    problems: list[Problem] = []
    sums = _sums(folder, problems)
    problems += _against_sums(folder, sums or {}, shards=False)
    # An index that is known to have changed is not believed: it would put the blame on good shards.
    index = None if any(problem.file == INDEX for problem in problems) else load_index(folder)
    if index is None:
        problems += _against_sums(folder, sums or {}, shards=True)
    plan = _plan(folder, index, problems)
    sidecars = _sidecars(folder, index, plan, problems)
    if index:
        problems += _index_against(index, plan, sidecars)
    proofs = _prove_shards(folder, index, plan, sidecars, sums or {}, jobs, on_progress)
    for proof in proofs:
        problems += proof.problems
    problems += _cells(index, plan, proofs)
    return Verdict(
        path=str(folder),
        problems=tuple(dict.fromkeys(problems)),
        notes=tuple(_notes(folder, index, plan, sums)),
        shards=len(proofs),
        composites=sum(len(proof.keys) for proof in proofs),
        bytes=sum(proof.bytes for proof in proofs),
        seconds=round(time.monotonic() - start, 3),
    )


def move_aside(folder: Path, verdict: Verdict) -> Verdict:
    """Move the shards that have problems, with their sidecars, so that a build renders them again.

    Everything else that can be damaged but the plan, a build writes anew anyway.

    Raises
    ------
    BuildError : a build is running in the folder
    DatasetError : it cannot be written
    """
    if is_remote(folder):
        raise DatasetError(f"{folder}: nothing is moved aside in object storage; delete the bad shards' .json there")
    shards = folder / "shards"
    bad = sorted({Path(p.file).stem for p in verdict.problems if p.file.startswith("shards/")})
    aside = folder / DAMAGED
    try:
        with held(folder, WHOLE):
            if bad and aside.is_symlink():
                raise DatasetError(f"{aside}: is a link; nothing is moved out of the dataset's folder")
            for stem in bad:
                aside.mkdir(exist_ok=True)
                for path in (shards / f"{stem}.json", shards / f"{stem}.h5"):  # without a sidecar, it counts as absent
                    if path.exists() or path.is_symlink():
                        path.replace(_free_name(aside / path.name))
    except OSError as error:
        raise DatasetError(f"{folder}: shards cannot be moved aside ({error})") from None
    return replace(verdict, moved=tuple(f"{stem}.h5" for stem in bad))


def _free_name(path: Path) -> Path:
    numbers = (path.with_name(f"{path.name}.{n}") for n in range(1, 1_000_000))
    return path if not path.exists() else next(other for other in numbers if not other.exists())


def _sums(folder: Path, problems: list[Problem]) -> dict[str, str] | None:
    try:
        return read_checksums(folder)
    except DatasetError as error:
        problems.append(Problem(CHECKSUMS, "unreadable", f"{error}; the same build again writes it anew"))
        return {}


def _against_sums(folder: Path, sums: Mapping[str, str], *, shards: bool) -> Iterator[Problem]:
    """Compare the shards, or all other files, with the checksums."""
    for name, stated in sums.items():
        path = folder / name
        if name.endswith(".h5") != shards:
            continue
        if not path.is_file():
            yield Problem(name, "missing", f"{CHECKSUMS} lists it")
        elif file_sha256(path) != stated:
            yield Problem(name, "changed", f"its SHA-256 is not what {CHECKSUMS} says: it, or that line, has changed")


def _plan(folder: Path, index: Index | None, problems: list[Problem]) -> PlanFile | None:
    try:
        plan = load_plan(folder)
    except DatasetError as error:
        problems.append(Problem(PLAN, "unreadable", f"{error}"))
        return None
    if plan.computed != plan.declared:
        problems.append(Problem(PLAN, "changed", f"its content hashes to {plan.computed}, it says {plan.declared}"))
        return None
    if index and plan.declared != index.plan_sha256:
        problems.append(
            Problem(PLAN, "foreign", f"{INDEX} speaks of plan {index.plan_sha256}, this is {plan.declared}")
        )
        return None
    return plan


def _sidecars(
    folder: Path, index: Index | None, plan: PlanFile | None, problems: list[Problem]
) -> dict[str, Sidecar | None]:
    """Read the sidecars of all planned shards, or of all that the index lists; None for those that cannot be used.

    They come without their inputs, which together would fill the memory: see `proof`.
    """
    hashes = {*([plan.declared] if plan else []), *([index.plan_sha256] if index else [])}
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
        if sidecar.plan_sha256 not in hashes:
            problems.append(Problem(file, "foreign", f"it belongs to plan {sidecar.plan_sha256}"))
        elif sidecar.file != name:
            problems.append(Problem(file, "foreign", f"it speaks of {sidecar.file}"))
        else:
            sidecars[name] = sidecar.model_copy(update={"inputs": {}})
    return sidecars


def _shard_names(index: Index | None, plan: PlanFile | None) -> list[str]:
    """Name the shards that there should be, sidecars at least: the plan knows, else the index."""
    if plan:
        return [shard.name for shard in plan.plan.shards]
    return [shard.file for shard in index.shards] if index else []


def _index_against(index: Index, plan: PlanFile | None, sidecars: dict[str, Sidecar | None]) -> Iterator[Problem]:
    """Compare the index with the plan, with the sidecars, and with itself."""
    sums = {
        "composites": sum(shard.composites for shard in index.shards),
        "planned": len(plan.plan) if plan else index.planned,
        "foregrounds": len(plan.plan.foregrounds) if plan else index.foregrounds,
        "backgrounds": len(plan.plan.backgrounds) if plan else index.backgrounds,
    }
    for name, expected in sums.items():
        if getattr(index, name) != expected:
            yield Problem(INDEX, "disagrees", f"{name} is {getattr(index, name):,}, but it should be {expected:,}")
    if plan and index.recipe != plan.recipe:
        yield Problem(INDEX, "disagrees", f"its recipe is not {PLAN}'s")
    listed = {shard.file: shard for shard in index.shards}
    failures = []
    for name, sidecar in sidecars.items():
        if sidecar is None:
            continue
        failures += sidecar.failures
        if name in listed and sidecar.record() != listed[name]:
            yield Problem(f"shards/{Path(name).stem}.json", "disagrees", f"it and {INDEX} describe {name} differently")
        if name not in listed and sidecar.composites:
            yield Problem(INDEX, "disagrees", f"{name} is not listed, but its sidecar says that it is there")
    for name in listed.keys() - sidecars.keys():
        yield Problem(INDEX, "disagrees", f"{name} is listed, but not in {PLAN}")
    if None not in sidecars.values():
        if index.failures != failures:
            yield Problem(INDEX, "disagrees", "its failures are not those of the sidecars")
        if index.bytes != sum(sidecar.bytes for sidecar in sidecars.values() if sidecar):
            yield Problem(INDEX, "disagrees", f"bytes is {index.bytes:,}, which is not the shards' sum")


def _prove_shards(
    folder: Path,
    index: Index | None,
    plan: PlanFile | None,
    sidecars: dict[str, Sidecar | None],
    sums: Mapping[str, str],
    jobs: int,
    on_progress: OnProgress | None,
) -> list[Proof]:
    if index is None:
        return []
    tasks = _testimonies(folder, index, plan, sidecars, sums)  # one by one: together, their cells would fill the memory
    proofs = []
    done, total = 0, sum(record.composites for record in index.shards)
    for record, proof in zip(index.shards, run_in_processes(prove, tasks, len(index.shards), jobs), strict=True):
        proofs.append(proof)
        done += record.composites
        if on_progress:
            on_progress("composites", done, total)
    return proofs


def _testimonies(
    folder: Path,
    index: Index,
    plan: PlanFile | None,
    sidecars: dict[str, Sidecar | None],
    sums: Mapping[str, str],
) -> Iterator[Testimony]:
    planned = {shard.name: shard for shard in plan.plan.shards} if plan else {}
    for record in index.shards:
        path, sidecar = folder / "shards" / record.file, sidecars.get(record.file)
        stated = {
            INDEX: record.sha256,
            "its sidecar": sidecar.sha256 if sidecar else "",
            CHECKSUMS: sums.get(f"shards/{record.file}", ""),
        }
        yield Testimony(
            path=path,
            record=record,
            stated={witness: digest for witness, digest in stated.items() if digest},
            plan_sha256=index.plan_sha256,
            settings=index.settings,
            cells=planned_cells(plan.plan, planned[record.file]) if plan and record.file in planned else None,
            sidecar=path.with_suffix(".json") if sidecar else None,
        )


def _cells(index: Index | None, plan: PlanFile | None, proofs: list[Proof]) -> Iterator[Problem]:
    """Compare all that was found with all that was planned."""
    seen: dict[str, str] = {}
    for proof in proofs:
        for key in dict.fromkeys(proof.keys):
            if key in seen:
                yield Problem(f"shards/{proof.file}", "duplicate-key", f"it is in {seen[key]} too", key)
            seen[key] = proof.file
    if index is None or plan is None:
        return
    failed = {failure.key for failure in index.failures}
    if both := failed & seen.keys():
        yield Problem(INDEX, "disagrees", f"{list_briefly(sorted(both), NAMED)} are listed as failures, but are there")
    unreadable = {proof.file for proof in proofs if not proof.readable}
    for shard in plan.plan.shards:
        if shard.name not in unreadable:  # whose own problem says that all of it is missing
            missing = planned_cells(plan.plan, shard).keys() - seen.keys() - failed
            if missing:
                which = list_briefly(sorted(missing), NAMED)
                detail = f"{len(missing):,} planned composites are neither there nor listed as failures: {which}"
                yield Problem(f"shards/{shard.name}", "missing-composite", detail)


def _notes(folder: Path, index: Index | None, plan: PlanFile | None, sums: Mapping[str, str] | None) -> Iterator[str]:
    if sums is None:
        yield f"no {CHECKSUMS}: what only one file says could not be checked; the same build again writes it"
    if index is None:
        yield f"without a sound {INDEX} composites were not decoded: run the same build again, then verify again"
    if index and index.failures:
        yield f"{len(index.failures):,} composites were never made; {INDEX} lists each with its cause"
    if index and index.settings.shards.packing == "jpeg":
        yield "packing jpeg is lossy: composites were not compared with the blend of their parts"
    known = {INDEX, PLAN, CHECKSUMS, CONTACT_SHEET, LOCK, DAMAGED, "shards"}
    known |= {f"shards/{Path(name).stem}{end}" for name in _shard_names(index, plan) for end in (".h5", ".json")}
    found = {p.relative_to(folder).as_posix() for place in (folder, folder / "shards") for p in place.glob("*")}
    strangers = sorted(found - known)
    if strangers and (plan or index):
        yield f"{len(strangers):,} files are no part of the dataset: {list_briefly(strangers, NAMED)}"
