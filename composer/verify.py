"""Verify: prove that a dataset is what its plan says, to the bit; and move aside what is not.

Three witnesses are heard on every shard: the index, its sidecar, and `SHA256SUMS`, which speaks of all other files
too. Then what the hashes cannot tell: that every planned composite is there, decodes, and makes sense.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from .checksums import CHECKSUMS, file_sha256, read_checksums
from .composite import METHODS
from .dataset import INDEX
from .documents import Index, PlanFile, Settings, ShardRecord, Sidecar, load_index, load_plan, load_sidecar
from .errors import DatasetError
from .files import LOCK
from .layouts import CONTACT_SHEET
from .looks import Look
from .plan import PLAN, Plan, ShardPlan
from .scenes import Scene
from .shard import Parts, Row, ShardReader
from .shares import WHOLE, held
from .store import borrowed, is_remote, located
from .terminal import OnProgress
from .trimap import BACKGROUND, FOREGROUND, UNKNOWN
from .workers import in_processes

Array = NDArray[np.uint8]

DAMAGED = "damaged"  # the folder that bad shards are moved to
NAMED = 5  # keys that one problem names


@dataclass(frozen=True)
class Problem:
    """Something wrong.

    Attributes
    ----------
    file : relative to the dataset's folder
    cause : a short, countable word: ``missing``, ``changed``, ``unreadable``, ``foreign``, ``disagrees``,
        ``missing-composite``, ``unplanned-composite``, ``duplicate-key``, ``damaged-composite``, ``wrong-pixels``
    detail : what was expected and what was found
    composite : its key, where the problem is one composite's
    """

    file: str
    cause: str
    detail: str
    composite: str | None = None


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
    folder = located(folder)
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
    looks = _look_at_shards(folder, index, plan, sidecars, sums or {}, jobs, on_progress)
    for found in looks:
        problems += found.problems
    problems += _cells(index, plan, looks)
    return Verdict(
        path=str(folder),
        problems=tuple(dict.fromkeys(problems)),
        notes=tuple(_notes(folder, index, plan, sums)),
        shards=len(looks),
        composites=sum(len(found.keys) for found in looks),
        bytes=sum(found.bytes for found in looks),
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
    """Read the sidecars of all planned shards, or of all that the index lists; None for those that cannot be used."""
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
            sidecars[name] = sidecar
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


@dataclass(frozen=True)
class _Task:
    """One shard to look at, and what its witnesses say; it travels to a worker by pickle."""

    path: Path
    record: ShardRecord
    stated: dict[str, str]
    plan_sha256: str
    settings: Settings
    cells: dict[str, _Planned] | None
    inputs: dict[str, str]


@dataclass(frozen=True)
class _Look:
    """What a worker found in a shard; `keys` are of the composites in it."""

    file: str
    problems: list[Problem]
    keys: list[str]
    bytes: int
    readable: bool


def _look_at_shards(
    folder: Path,
    index: Index | None,
    plan: PlanFile | None,
    sidecars: dict[str, Sidecar | None],
    sums: Mapping[str, str],
    jobs: int,
    on_progress: OnProgress | None,
) -> list[_Look]:
    if index is None:
        return []
    planned = {shard.name: shard for shard in plan.plan.shards} if plan else {}
    tasks = []
    for record in index.shards:
        sidecar = sidecars.get(record.file)
        stated = {INDEX: record.sha256, "its sidecar": sidecar.sha256 if sidecar else "", CHECKSUMS: ""}
        stated[CHECKSUMS] = sums.get(f"shards/{record.file}", "")
        tasks.append(
            _Task(
                path=folder / "shards" / record.file,
                record=record,
                stated={witness: digest for witness, digest in stated.items() if digest},
                plan_sha256=index.plan_sha256,
                settings=index.settings,
                cells=_cells_of(plan.plan, planned[record.file]) if plan and record.file in planned else None,
                inputs={name: used.sha256 for name, used in sidecar.inputs.items()} if sidecar else {},
            )
        )
    looks = []
    done = 0
    total = sum(record.composites for record in index.shards)
    for found in in_processes(_look_at, tasks, len(tasks), jobs):
        looks.append(found)
        done += next(record.composites for record in index.shards if record.file == found.file)
        if on_progress:
            on_progress("composites", done, total)
    return looks


_Planned = tuple[int, int, str, Look, Scene]  # group, position, background, look, scene


def _cells_of(plan: Plan, shard: ShardPlan) -> dict[str, _Planned]:
    """Map a shard's keys to what the plan says of them."""
    cells: dict[str, _Planned] = {}
    for strip in shard.strips:
        key, look = plan.foregrounds[strip.foreground].key, plan.look(strip.group)
        for position, variant in enumerate(strip.variants):
            cell = plan.cell(strip.foreground, variant)
            cells[f"{key}_{variant}"] = cell.group, position, cell.background, look, cell.scene
    return cells


def _look_at(task: _Task) -> _Look:
    """Check one shard."""
    cv2.setNumThreads(1)  # the processes are the parallelism
    name = f"shards/{task.record.file}"
    try:
        with borrowed(task.path) as path:
            return _look_inside(replace(task, path=path), name)
    except (FileNotFoundError, IsADirectoryError):
        return _Look(task.record.file, [Problem(name, "missing", f"{INDEX} lists it")], [], 0, False)


def _look_inside(task: _Task, name: str) -> _Look:
    problems = list(_hash_problems(task, name))
    size = task.path.stat().st_size
    try:
        reader = ShardReader(task.path)
    except Exception as error:  # whatever a damaged file makes HDF5 raise is a finding
        problems.append(Problem(name, "unreadable", str(error)))
        return _Look(task.record.file, problems, [], size, False)
    problems += _header_problems(task, reader, name)
    problems += _table_problems(task, reader.rows, name)
    for row in reader.rows:
        if found := _composite_problem(reader, row, task.settings):
            problems.append(Problem(name, *found, row.key))
    reader.close()
    if len(problems) == 1 and problems[0].cause == "changed":
        problems = [replace(problems[0], detail=f"{problems[0].detail}; every composite still decodes")]
    return _Look(task.record.file, problems, [row.key for row in reader.rows], size, True)


def _hash_problems(task: _Task, name: str) -> Iterator[Problem]:
    """Hear the witnesses. Where most of them speak for the file, those that do not are wrong."""
    digest = file_sha256(task.path)
    against = [witness for witness, stated in task.stated.items() if stated != digest]
    if not against:
        return
    if 2 * len(against) > len(task.stated) or (INDEX in against and 2 * len(against) == len(task.stated)):
        yield Problem(name, "changed", f"its SHA-256 is {digest}, not what {' and '.join(against)} say")
    else:
        for witness in against:
            file = name.replace(".h5", ".json") if witness == "its sidecar" else witness
            yield Problem(file, "disagrees", f"it states a SHA-256 of {task.record.file} that others do not")


def _header_problems(task: _Task, reader: ShardReader, name: str) -> Iterator[Problem]:
    header, record, settings = reader.header, task.record, task.settings
    if header.plan_sha256 != task.plan_sha256:
        yield Problem(name, "foreign", f"it belongs to another dataset, of plan {header.plan_sha256}")
    pairs = (
        ("index", header.index, record.index),
        ("split", header.split, record.split),
        ("packing", header.packing, settings.shards.packing),
        ("background", header.background, settings.shards.background),
    )
    for field, found, expected in pairs:
        if found != expected:
            yield Problem(name, "disagrees", f"its {field} is {found}, but {INDEX} says {expected}")


def _table_problems(task: _Task, rows: list[Row], name: str) -> Iterator[Problem]:
    """Compare a shard's table with the plan, the index and the sidecar."""
    if len(rows) != task.record.composites:
        yield Problem(name, "disagrees", f"{len(rows):,} composites, but {INDEX} says {task.record.composites:,}")
    seen: set[str] = set()
    for row in rows:
        if row.key in seen:
            yield Problem(name, "duplicate-key", "it is there twice", row.key)
        seen.add(row.key)
        digest = task.inputs.get(f"background {row.background}")
        if digest is not None and digest != row.background_sha256:
            yield Problem(name, "disagrees", "its sidecar saw another version of the background", row.key)
        if task.cells is None:
            continue
        cell = task.cells.get(row.key)
        if cell is None:
            yield Problem(name, "unplanned-composite", f"{PLAN} has no such composite in this shard", row.key)
        elif cell[:3] != (row.group, row.position, row.background):
            found = f"group {row.group}, position {row.position}, background {row.background}"
            wanted = "group {}, position {}, background {}".format(*cell)
            yield Problem(name, "disagrees", f"it has {found}; planned were {wanted}", row.key)
        elif cell[3:] != _drawn(row, cell):
            found, wanted = f"{row.look}, {row.scene}", f"{cell[3]}, {cell[4]}"
            yield Problem(name, "disagrees", f"it has {found}; planned were {wanted}", row.key)


def _drawn(row: Row, planned: _Planned) -> tuple[Look, Scene]:
    """Return a row's look and scene as they were drawn: what pixels decided later is as it was planned."""
    rotate = planned[3].rotate if row.look.rotate == 0 else row.look.rotate
    return replace(row.look, rotate=rotate), replace(row.scene, gamma=planned[4].gamma)


def _composite_problem(reader: ShardReader, row: Row, settings: Settings) -> tuple[str, str] | None:
    """Decode a composite and judge it; return cause and detail of the first thing that is wrong."""
    try:
        parts = reader.read(row)
    except Exception as error:  # whatever a damaged tile makes a decoder raise is a finding
        return "damaged-composite", str(error)
    found = wrong_pixels(parts, settings)
    return ("wrong-pixels", found) if found else None


def wrong_pixels(parts: Parts, settings: Settings) -> str:
    """Say what does not agree within one composite; empty where all does.

    By the recipe's thresholds the trimap is 0 only where alpha is clear and 255 only where it is opaque, unless it was
    supplied. The image is the foreground where alpha is 255, and the blend, by the recipe's method, wherever the
    background is stored; a lossy packing is excused.
    """
    image, trimap, alpha, foreground, background = parts
    counts = cv2.calcHist([trimap], [0], None, [256], [0, 256])
    levels = np.flatnonzero(counts).tolist()
    if not set(levels) <= {BACKGROUND, UNKNOWN, FOREGROUND}:
        return f"its trimap holds {levels}, not only {BACKGROUND}, {UNKNOWN} and {FOREGROUND}"
    if UNKNOWN not in levels:
        return "its trimap has no unknown region"
    for value, low, high, word in (
        (BACKGROUND, settings.trimap.clear + 1, 255, "clear"),
        (FOREGROUND, 0, settings.trimap.opaque - 1, "opaque"),
    ):
        if settings.trimap.strategy == "supplied":
            continue  # it is used as it is
        wrong = cv2.bitwise_and(cv2.inRange(alpha, low, high), cv2.inRange(trimap, value, value))
        if count := cv2.countNonZero(wrong):
            return f"its trimap is {value} at {count:,} px where alpha is not {word}"
    if settings.shards.packing == "jpeg":
        return ""
    count = _unlike(image, foreground, alpha, 255)
    if background is not None:
        blended = METHODS[settings.fit.method].blender(foreground, alpha)(background)
        stored = None if settings.shards.background == "full" else UNKNOWN
        count = max(count, _unlike(image, blended, trimap, stored))
    return f"its image is not the blend of its parts at {count:,} px" if count else ""


def _unlike(one: Array, other: Array, mask: Array, value: int | None) -> int:
    """Count the pixels of two pictures that differ in any channel, where a mask has a value; None for everywhere."""
    differs = cv2.bitwise_not(cv2.inRange(cv2.absdiff(one, other), (0, 0, 0), (0, 0, 0)))
    if value is not None:
        differs = cv2.bitwise_and(differs, cv2.inRange(mask, value, value))
    return cv2.countNonZero(differs)


def _cells(index: Index | None, plan: PlanFile | None, looks: list[_Look]) -> Iterator[Problem]:
    """Compare all that was found with all that was planned."""
    seen: dict[str, str] = {}
    for look in looks:
        for key in dict.fromkeys(look.keys):
            if key in seen:
                yield Problem(f"shards/{look.file}", "duplicate-key", f"it is in {seen[key]} too", key)
            seen[key] = look.file
    if index is None or plan is None:
        return
    failed = {failure.key for failure in index.failures}
    if both := failed & seen.keys():
        yield Problem(INDEX, "disagrees", f"{_some(both)} are listed as failures, but are there")
    unreadable = {look.file for look in looks if not look.readable}
    for shard in plan.plan.shards:
        if shard.name not in unreadable:  # whose own problem says that all of it is missing
            missing = _cells_of(plan.plan, shard).keys() - seen.keys() - failed
            if missing:
                detail = (
                    f"{len(missing):,} planned composites are neither there nor listed as failures: {_some(missing)}"
                )
                yield Problem(f"shards/{shard.name}", "missing-composite", detail)


def _some(keys: set[str]) -> str:
    shown = ", ".join(sorted(keys)[:NAMED])
    return shown if len(keys) <= NAMED else f"{shown} and {len(keys) - NAMED:,} more"


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
        shown = ", ".join(strangers[:NAMED])
        yield f"{len(strangers):,} files are no part of the dataset: {shown}{' …' if len(strangers) > NAMED else ''}"
