"""Render: one shard, from pictures to a committed file. What a worker process does.

A shard is rendered under a temporary name, read back, made durable and renamed; then its sidecar, written the same
way, commits it. Nothing that is half made has a final name.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .composite import Blender, fit_background, place_background
from .errors import BuildError, DatasetError, SourceError
from .layouts import BackgroundLayout, Entry, ForegroundLayout
from .plan import Cell, ShardPlan
from .recipe import Fit, Trimap
from .shard import Header, Row, ShardReader, ShardWriter
from .trimap import UNKNOWN, trimap_strategy

TEMPORARY = ".tmp"
PROGRESS = ".progress"  # (shards, 3) int64: composites, failures, bytes; written by workers, read by the display


@dataclass(frozen=True)
class Failure:
    """A composite that could not be made: whose fault, and why."""

    key: str
    source: str
    cause: str
    detail: str


@dataclass(frozen=True)
class ShardTask:
    """Everything a worker needs to render one shard; it travels by pickle and holds no pixels."""

    folder: Path
    shard: ShardPlan
    header: Header
    entries: dict[int, Entry]
    cells: list[Cell]
    foreground_layout: ForegroundLayout
    background_layout: BackgroundLayout
    fit: Fit
    trimap: Trimap
    parent: int
    retry: bool


def render_shard(task: ShardTask) -> tuple[dict[str, Any], int, int]:
    """Render one shard and commit it.

    Returns
    -------
    the sidecar, the number of composites rendered by this call, and the process's peak memory in bytes
    """
    cv2.setNumThreads(1)  # the processes are the parallelism
    if os.getpid() != task.parent:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent acts
    final = task.folder / task.shard.name
    previous = _previous(task, final)
    if previous is not None and not _mended(task, previous[0]):
        return previous[0], 0, _peak_memory()
    temporary = final.with_name(f".{final.name}.{os.getpid()}{TEMPORARY}")
    try:
        with ShardWriter(temporary, task.header) as writer:
            rows, failures, rendered = _render(task, writer, previous[1] if previous else None)
            digest = writer.finish(rows)
        sidecar = _sidecar(task, rows, failures, digest, temporary.stat().st_size)
        final.with_suffix(".json").unlink(missing_ok=True)  # until the new one is there, nothing is committed
        temporary.replace(final)
        write_json(final.with_suffix(".json"), sidecar)
    except OSError as error:
        raise disk_error(error, task.folder) from None
    finally:
        temporary.unlink(missing_ok=True)
    return sidecar, rendered, _peak_memory()


def _render(
    task: ShardTask, writer: ShardWriter, previous: ShardReader | None
) -> tuple[list[Row], list[Failure], int]:
    """Render a shard's composites group by group, copying what an earlier version of it has."""
    rows: list[Row] = []
    failures: list[Failure] = []
    rendered = 0
    kept = {row.key: row for row in previous.rows} if previous else {}
    for number in task.shard.foregrounds:
        cells = [cell for cell in task.cells if cell.foreground == number]
        try:
            group = _Group(task, number, writer, [kept.get(_key(task, cell)) for cell in cells], previous)
        except SourceError as error:
            failures += [Failure(_key(task, cell), error.source, error.cause, error.detail) for cell in cells]
            _report(task, len(rows), len(failures), writer.bytes_coded)
            continue
        for position, cell in enumerate(cells):
            try:
                row, fresh = group.place(position, cell)
                rows.append(row)
                rendered += fresh
            except SourceError as error:
                failures.append(Failure(_key(task, cell), error.source, error.cause, error.detail))
            _report(task, len(rows), len(failures), writer.bytes_coded)
            _stop_if_orphaned(task)
    return rows, failures, rendered


class _Group:
    """One foreground's composites in a shard. What the foreground costs is paid once, and only if needed."""

    def __init__(
        self, task: ShardTask, number: int, writer: ShardWriter, kept: list[Row | None], previous: ShardReader | None
    ) -> None:
        self._task, self._writer, self._previous, self._kept = task, writer, previous, kept
        self._number = number
        if previous is not None and all(kept):
            first = next(row for row in kept if row)
            size = (first.height, first.width)
            writer.open_group(number, first.foreground, previous.group_sha256(number), size, len(kept))
            writer.copy_foreground(previous, number)
            return
        entry = task.entries[number]
        foreground = task.foreground_layout.load(entry)
        if previous is not None and any(kept) and previous.group_sha256(number) != foreground.sha256:
            raise BuildError(
                f"foreground {entry.image} has changed since {task.shard.name} was rendered;"
                " restore it, or build into another --out"
            )
        self._size = foreground.alpha.shape
        self._draw = trimap_strategy(foreground.alpha, task.trimap)
        self._blend = Blender(foreground.image, foreground.alpha)
        writer.open_group(number, entry.key, foreground.sha256, self._size, len(kept))
        writer.write_foreground(foreground.image, foreground.alpha)

    def place(self, position: int, cell: Cell) -> tuple[Row, bool]:
        """Copy a composite, or render it; say which."""
        row = self._kept[position]
        if row is not None and self._previous is not None:
            self._writer.copy_composite(self._previous, self._number, position)
            return row, False
        task, size = self._task, self._size
        picture, digest = task.background_layout.load(cell.background)
        placement = place_background(
            picture.shape[:2], size, enlarge=task.fit.enlarge, offset=(cell.offset_y, cell.offset_x)
        )
        background = fit_background(picture, size, placement)
        drawn = self._draw(cell.erode, cell.dilate)
        if not (drawn.trimap == UNKNOWN).any():
            raise SourceError(
                task.entries[self._number].image,
                "no-unknown",
                f"its trimap has no unknown region (erode {drawn.erode}, dilate {drawn.dilate});"
                " is the alpha empty or full?",
            )
        self._writer.write_composite(position, self._blend(background), drawn.trimap, background)
        row = Row(
            key=_key(task, cell),
            foreground=task.entries[self._number].key,
            variant=cell.variant,
            background=cell.background,
            background_sha256=digest,
            height=size[0],
            width=size[1],
            scale=placement.scale,
            offset_y=placement.y,
            offset_x=placement.x,
            erode=drawn.erode,
            dilate=drawn.dilate,
            group=self._number,
            position=position,
        )
        return row, True


def _key(task: ShardTask, cell: Cell) -> str:
    return f"{task.entries[cell.foreground].key}_{cell.variant}"


def _previous(task: ShardTask, final: Path) -> tuple[dict[str, Any], ShardReader] | None:
    """Return the sidecar and the file of an earlier version of this shard that lacks composites."""
    if not task.retry:
        return None
    sidecar = read_json(final.with_suffix(".json"))
    try:
        return (sidecar, ShardReader(final)) if sidecar else None
    except DatasetError:
        return None  # rendered afresh


def _mended(task: ShardTask, sidecar: dict[str, Any]) -> bool:
    """Tell whether any picture that failed can be read now."""
    sources = {failure["source"] for failure in sidecar["failures"]}
    for cell in task.cells:
        if cell.background in sources:
            with contextlib.suppress(SourceError):  # it still fails: it stays in the list of failures
                task.background_layout.load(cell.background)
                return True
    for entry in task.entries.values():
        if entry.image in sources:
            with contextlib.suppress(SourceError):
                trimap_strategy(task.foreground_layout.load(entry).alpha, task.trimap)
                return True
    return False


def _sidecar(
    task: ShardTask, rows: Sequence[Row], failures: Sequence[Failure], digest: str, size: int
) -> dict[str, Any]:
    """Describe a shard; all of it follows from the plan and the pictures, so it is the same whenever it is made."""
    return {
        "file": task.shard.name,
        "plan_sha256": task.header.plan_sha256,
        "index": task.shard.index,
        "split": task.shard.split,
        "composites": len(rows),
        "bytes": size,
        "sha256": digest,
        "inputs": _inputs(task, rows),
        "failures": [asdict(failure) for failure in failures],
    }


def _inputs(task: ShardTask, rows: Sequence[Row]) -> dict[str, int]:
    """Map each file that was used to its size, so that a changed one is noticed when the build goes on."""
    sizes: dict[str, int] = {}
    for number in sorted({row.group for row in rows}):
        entry = task.entries[number]
        paths = task.foreground_layout.files(entry)
        sizes |= {f"foreground {name}": p.stat().st_size for name, p in zip((entry.image, entry.alpha), paths, strict=False)}
    for name in sorted({row.background for row in rows}):
        for path in task.background_layout.files(name):
            sizes[f"background {name}"] = path.stat().st_size
    return sizes


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None where it is missing or damaged, which means: make it again."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object whole or not at all, and durably."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def disk_error(error: OSError, folder: Path) -> BuildError:
    """Say what an operating system's refusal means for a build, and what to do."""
    text = str(error)
    if error.errno == errno.ENOSPC or "No space left" in text or "errno = 28" in text:
        return BuildError(f"{folder}: the disk is full. Nothing finished is lost: make room and run the same command")
    return BuildError(f"{folder}: cannot be written ({text.splitlines()[0]}); then run the same command again")


@lru_cache(maxsize=1)
def _progress_slots(path: Path) -> NDArray[np.int64] | None:
    try:
        return np.memmap(path, np.int64, "r+").reshape(-1, 3)
    except (OSError, ValueError):
        return None  # on another machine: the display counts whole shards


def _report(task: ShardTask, composites: int, failures: int, size: int) -> None:
    slots = _progress_slots(task.folder / PROGRESS)
    if slots is not None:
        slots[task.shard.index] = composites, failures, size


def _stop_if_orphaned(task: ShardTask) -> None:
    """Leave when the parent is gone: nobody waits for this shard, and a new build may be rendering it."""
    if task.parent not in (os.getpid(), os.getppid()):
        raise BuildError("the build's main process is gone")


def _peak_memory() -> int:
    """Return this process's largest resident size, bytes; 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
