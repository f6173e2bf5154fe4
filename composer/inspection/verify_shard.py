"""Verify a shard: one shard against what the documents and the plan say of it. What a worker process does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ..base.arrays import UInt8Array
from ..base.files import file_sha256
from ..base.storage import copy_locally
from ..building.plan import PLAN, Plan, ShardPlan
from ..compositing.blending import METHODS
from ..dataset.documents import INDEX, Settings, ShardRecord, load_sidecar
from ..dataset.packings import load_packing
from ..dataset.reader import ShardReader
from ..dataset.rows import BACKGROUND, FOREGROUND, UNKNOWN, Look, Row, Scene

NOT_OPENED = "not-opened"  # a shard whose bytes are right: nothing that a new one would mend


@dataclass(frozen=True)
class Problem:
    """Something wrong.

    Attributes
    ----------
    file : str
        Relative to the dataset's folder.
    cause : str
        A short, countable word: ``missing``, ``changed``, ``unreadable``, ``foreign``, ``disagrees``,
        ``missing-composite``, ``unplanned-composite``, ``duplicate-key``, ``damaged-composite``, ``wrong-pixels``.
    detail : str
        What was expected and what was found.
    composite : str or None
        Its key, where the problem is one composite's.
    """

    file: str
    cause: str
    detail: str
    composite: str | None = None


class PlannedCell(NamedTuple):
    """What the plan says of a composite."""

    group: int
    position: int
    background: str
    look: Look
    scene: Scene


def planned_cells(plan: Plan, shard: ShardPlan) -> dict[str, PlannedCell]:
    """Map a shard's keys to what the plan says of them."""
    cells: dict[str, PlannedCell] = {}
    for strip in shard.strips:
        key, look = plan.foregrounds[strip.foreground].key, plan.look(strip.group)
        for position, variant in enumerate(strip.variants):
            cell = plan.cell(strip.foreground, variant)
            cells[f"{key}_{variant}"] = PlannedCell(cell.group, position, cell.background, look, cell.scene)
    return cells


@dataclass(frozen=True)
class VerifyTask:
    """One shard to verify, and what is stated of it; it travels to a worker by pickle.

    Attributes
    ----------
    path : Path
        The file.
    record : ShardRecord
        The index's record of it.
    stated : dict of str to str
        Its SHA-256, by what states one.
    plan_sha256 : str
        Of the index.
    settings : Settings
        Of the index.
    cells : dict of str to PlannedCell, or None
        What the plan says of its composites, by key; None where no plan can be read.
    sidecar : Path or None
        The file that says what it was made from; None where that is not to be believed.
    """

    path: Path
    record: ShardRecord
    stated: dict[str, str]
    plan_sha256: str
    settings: Settings
    cells: dict[str, PlannedCell] | None
    sidecar: Path | None


@dataclass(frozen=True)
class ShardResult:
    """What was found in a shard.

    Attributes
    ----------
    file : str
        Its name.
    problems : list of Problem
    composites : int
        In its table.
    unplanned, missing : list of str
        Keys in its table that the plan does not have here, and the other way round: all others need not be remembered.
        Where there is no plan all keys are unplanned.
    bytes : int
        Its size.
    readable : bool
        It could be opened.
    """

    file: str
    problems: list[Problem]
    composites: int
    unplanned: list[str]
    missing: list[str]
    bytes: int
    readable: bool


def verify_shard(task: VerifyTask) -> ShardResult:
    """Check every byte and every composite of one shard."""
    name = f"shards/{task.record.file}"
    try:
        with copy_locally(task.path) as path:
            return _verify_file(replace(task, path=path), name)
    except (FileNotFoundError, IsADirectoryError):
        return ShardResult(task.record.file, [Problem(name, "missing", f"{INDEX} lists it")], 0, [], [], 0, False)


def _verify_file(task: VerifyTask, name: str) -> ShardResult:
    problems = list(_hash_problems(task, name))
    size = task.path.stat().st_size
    try:
        reader = ShardReader(task.path)
    except Exception as error:  # whatever a damaged file makes HDF5 raise is a finding
        if task.stated and not problems:
            problems.append(Problem(name, NOT_OPENED, f"its SHA-256 is right, but: {error}; see what hinders reading"))
        else:
            problems.append(Problem(name, "unreadable", str(error)))
        return ShardResult(task.record.file, problems, 0, [], [], size, False)
    problems += _header_problems(task, reader, name)
    problems += _table_problems(task, reader.rows, name)
    problems += (
        Problem(name, cause, detail, row.key) for row, cause, detail in _composite_problems(reader, task.settings)
    )
    reader.close()
    if len(problems) == 1 and problems[0].cause == "changed":
        problems = [replace(problems[0], detail=f"{problems[0].detail}; every composite still decodes")]
    keys = dict.fromkeys(row.key for row in reader.rows)
    unplanned = [key for key in keys if key not in (task.cells or ())]
    missing = [key for key in task.cells or () if key not in keys]
    return ShardResult(task.record.file, problems, len(reader.rows), unplanned, missing, size, True)


def _hash_problems(task: VerifyTask, name: str) -> Iterator[Problem]:
    """Compare the digests that are stated. Where most of them agree with the file, those that do not are wrong."""
    digest = file_sha256(task.path)
    against = [source for source, stated in task.stated.items() if stated != digest]
    if not against:
        return
    if 2 * len(against) > len(task.stated) or (INDEX in against and 2 * len(against) == len(task.stated)):
        yield Problem(name, "changed", f"its SHA-256 is {digest}, not what {' and '.join(against)} say")
    else:
        for source in against:
            file = name.replace(".h5", ".json") if source == "its sidecar" else source
            yield Problem(file, "disagrees", f"it states a SHA-256 of {task.record.file} that others do not")


def _header_problems(task: VerifyTask, reader: ShardReader, name: str) -> Iterator[Problem]:
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


def _table_problems(task: VerifyTask, rows: list[Row], name: str) -> Iterator[Problem]:
    """Compare a shard's table with the plan, the index and the sidecar."""
    if len(rows) != task.record.composites:
        yield Problem(name, "disagrees", f"{len(rows):,} composites, but {INDEX} says {task.record.composites:,}")
    inputs = load_sidecar(task.sidecar).inputs if task.sidecar else {}
    seen: set[str] = set()
    for row in rows:
        if row.key in seen:
            yield Problem(name, "duplicate-key", "it is there twice", row.key)
        seen.add(row.key)
        used = inputs.get(f"background {row.background}")
        if used is not None and used.sha256 != row.background_sha256:
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
        elif (cell.look, cell.scene) != _as_drawn(row, cell):
            found, wanted = f"{row.look}, {row.scene}", f"{cell.look}, {cell.scene}"
            yield Problem(name, "disagrees", f"it has {found}; planned were {wanted}", row.key)


def _as_drawn(row: Row, planned: PlannedCell) -> tuple[Look, Scene]:
    """Return a row's look and scene as they were drawn: what pixels decided later is as it was planned."""
    rotate = planned.look.rotate if row.look.rotate == 0 else row.look.rotate
    return replace(row.look, rotate=rotate), replace(row.scene, gamma=planned.scene.gamma)


def _composite_problems(reader: ShardReader, settings: Settings) -> Iterator[tuple[Row, str, str]]:
    """Decode all composites and judge them; yield cause and detail of the first thing that is wrong with one."""
    group = -1
    for row in reader.rows:
        try:
            if row.group != group:
                alpha = reader.read_stored(row, "alpha")
                colours = reader.read_stored(row, "foreground" if row.composed else "image")
                group, judge = row.group, Judge(alpha, colours if row.composed else None, settings)
            trimap = reader.read_stored(row, "trimap")
            where = judge.compared(trimap)
            image, background = (
                reader.read_stored(row, name, where) if row.composed and name in reader.arrays(row.group) else None
                for name in ("image", "background")
            )
        except Exception as error:  # whatever a damaged tile makes a decoder raise is a finding
            yield row, "damaged-composite", str(error)
            continue
        if found := judge.find_fault(image, trimap, background, where):
            yield row, "wrong-pixels", found


class Judge:
    """Judge a group's composites; what they share is prepared once for all of them.

    Parameters
    ----------
    alpha : (H, W) uint8
    foreground : (H, W, 3) uint8 RGB, or None
        None of pictures as they are.
    settings : Settings
        The recipe's, by which they were made.
    """

    def __init__(self, alpha: UInt8Array, foreground: UInt8Array | None, settings: Settings) -> None:
        packing, stored = load_packing(settings.shards.packing), settings.shards.background
        comparable = foreground is not None and not packing.lossy
        self._foreground = foreground
        self._blend = None
        if foreground is not None and comparable and stored != "none":
            self._blend = METHODS[settings.fit.method].blender(foreground, alpha)
        self._opaque = np.asarray(cv2.inRange(alpha, 255, 255), np.uint8)
        self._own = np.full_like(alpha, 255 if comparable else 0)  # where an image holds pixels that can be compared
        if packing.shares_opaque:
            self._own[self._opaque != 0] = 0
        self._always = self._own if stored == "full" else self._own & self._opaque
        self._in_unknown = stored == "unknown"
        self._forbidden = [
            (BACKGROUND, cv2.inRange(alpha, settings.trimap.clear + 1, 255), "clear"),
            (FOREGROUND, cv2.inRange(alpha, 0, settings.trimap.opaque - 1), "opaque"),
        ]
        if settings.trimap.strategy == "supplied":
            self._forbidden = []  # it is used as it is

    def compared(self, trimap: UInt8Array) -> UInt8Array:
        """Return where a composite's image is compared: a mask (H, W) uint8, 0 elsewhere.

        That is where the background is stored, and where alpha is 255, but not where the packing shares opaque pixels:
        nothing is stored there. A lossy packing is excused.
        """
        if not self._in_unknown:
            return self._always
        return self._always | self._own & _equal(trimap, UNKNOWN)

    def find_fault(
        self, image: UInt8Array | None, trimap: UInt8Array, background: UInt8Array | None, where: UInt8Array
    ) -> str:
        """Say what does not agree within one composite, as it is stored; empty where all does.

        By the recipe's thresholds the trimap is 0 only where alpha is clear and 255 only where it is opaque, unless it
        was supplied. `where` it is `compared`, the image is the blend, by the recipe's method, or where no background
        is stored the foreground. None stands for an image without a foreground, and for a background that is not
        stored.
        """
        found = {value: _equal(trimap, value) for value in (BACKGROUND, UNKNOWN, FOREGROUND)}
        if sum(map(cv2.countNonZero, found.values())) != trimap.size:
            levels = np.unique(trimap).tolist()
            return f"its trimap holds {levels}, not only {BACKGROUND}, {UNKNOWN} and {FOREGROUND}"
        if not cv2.hasNonZero(found[UNKNOWN]):
            return "its trimap has no unknown region"
        for value, forbidden, word in self._forbidden:
            if count := cv2.countNonZero(cv2.bitwise_and(forbidden, found[value])):
                return f"its trimap is {value} at {count:,} px where alpha is not {word}"
        if image is None or self._foreground is None or not cv2.hasNonZero(where):
            return ""
        if background is None or self._blend is None:
            count = _count_differing(image, self._foreground, where & self._opaque)
        else:
            count = _count_differing(image, self._blend(background), where)
        return f"its image is not the blend of its parts at {count:,} px" if count else ""


def _equal(mask: UInt8Array, value: int) -> UInt8Array:
    """Return where a mask has a value: 1, elsewhere 0. In half of the time of OpenCV's `inRange`."""
    return np.equal(mask, value).view(np.uint8)


def _count_differing(one: UInt8Array, other: UInt8Array, where: UInt8Array) -> int:
    """Count the pixels of two pictures that differ in any channel, where a mask is not 0."""
    if not cv2.norm(one, other, cv2.NORM_INF, where):
        return 0
    differs = cv2.bitwise_not(cv2.inRange(cv2.absdiff(one, other), (0, 0, 0), (0, 0, 0)))
    return cv2.countNonZero(cv2.bitwise_and(differs, where))
