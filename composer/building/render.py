"""Render: one shard, from pictures to a committed file. What a worker process does.

A shard is rendered under a temporary name, read back, made durable and renamed; then its sidecar, written the same
way, commits it. Nothing that is half made has a final name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base.arrays import UInt8Array
from ..base.errors import BuildError, DatasetError, SourceError
from ..base.files import REFUSED, disk_error, read_json, temporary_name, write_json
from ..base.storage import cache_locally, put, staging_folder
from ..compositing.blending import Fit
from ..compositing.compose import Composite, PreparedForeground
from ..compositing.trimaps import Trimap
from ..dataset.reader import ShardReader
from ..dataset.rows import Header, Look, Row
from ..dataset.writer import ShardWriter
from ..sources.backgrounds import BackgroundLayout
from ..sources.foregrounds import Entry, ForegroundLayout
from ..sources.trimap_files import SuppliedTrimaps
from .look_reader import read_look
from .plan import Cell, ShardPlan, Strip

BATCH_PIXELS = 16_000_000  # of foregrounds prepared at once, at some 13 bytes each (17 with fit.method adobe)


Inputs = dict[str, dict[str, Any]]  # by name, as sidecars list them: a file's bytes and sha256


@dataclass(frozen=True)
class Failure:
    """A composite that could not be made: whose fault, and why."""

    key: str
    source: str
    cause: str
    detail: str


@dataclass(frozen=True)
class ShardTask:
    """Everything a worker needs to render one shard; it travels by pickle and holds no pixels.

    Attributes
    ----------
    folder : of the shards
    progress : a file of (shards, 3) int64: composites, failures, bytes; written by workers, read by the display
    entries : by number; looks : by group; partners : by key
    parent : the process whose end is the worker's; None where workers belong to a cluster
    retry : whether an earlier version of the shard lacks composites
    """

    folder: Path
    progress: Path
    shard: ShardPlan
    header: Header
    entries: dict[int, Entry]
    looks: dict[int, Look]
    partners: dict[str, Entry]
    cells: list[Cell]
    foreground_layout: ForegroundLayout
    background_layout: BackgroundLayout
    fit: Fit
    trimap: Trimap
    supplied: SuppliedTrimaps | None
    parent: int | None
    retry: bool


def render_shard(task: ShardTask) -> tuple[dict[str, Any], int, int]:
    """Render one shard and commit it.

    Returns
    -------
    the sidecar, the number of composites rendered by this call, and the process's peak memory in bytes
    """
    if task.parent not in (None, os.getpid()):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent acts
        _die_with_parent(task.parent)
    final = task.folder / task.shard.name
    previous = _previous(task, final)
    if previous is not None and not _mended(task, previous[0]):
        return previous[0], 0, _peak_memory()
    if previous is not None and previous[1].sha256() != previous[0]["sha256"]:
        previous[1].close()
        previous = None  # what changed on the disk is rendered afresh: copied, it would be signed anew
    try:
        with staging_folder(task.folder) as folder:
            return *_commit(task, final, temporary_name(folder / final.name), previous), _peak_memory()
    except OSError as error:
        raise disk_error(error, task.folder) from None
    finally:
        if previous is not None:
            previous[1].close()


def _commit(
    task: ShardTask, final: Path, temporary: Path, previous: tuple[dict[str, Any], ShardReader] | None
) -> tuple[dict[str, Any], int]:
    """Render a shard under a temporary name and give it its final one. Return its sidecar, and how much is fresh."""
    try:
        with ShardWriter(temporary, task.header) as writer:
            made = _render(task, writer, *(previous or (None, None)))
            digest = writer.finish(made.rows)
        sidecar = _sidecar(task, made, digest, temporary.stat().st_size)
        final.with_suffix(".json").unlink(missing_ok=True)  # until the new one is there, nothing is committed
        put(temporary, final, digest)
        write_json(final.with_suffix(".json"), sidecar)
    except (RuntimeError, ValueError) as error:  # HDF5 has several ways to say that a disk takes no more
        if REFUSED.search(str(error)):
            raise disk_error(error, task.folder) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return sidecar, made.fresh


@dataclass(frozen=True)
class _Made:
    """A shard's rows and failures, in the plan's order, how many rows are fresh, and the files that were read."""

    rows: list[Row]
    failures: list[Failure]
    fresh: int
    inputs: Inputs


def _render(
    task: ShardTask, writer: ShardWriter, sidecar: dict[str, Any] | None, previous: ShardReader | None
) -> _Made:
    """Render a shard's composites, copying what an earlier version of it has.

    Foregrounds are prepared in batches that fit in memory, and a batch's composites are made background by
    background, so that one which many composites share is decoded once for all of them.
    """
    rows: dict[str, Row] = {}
    failures: dict[str, Failure] = {}
    inputs: Inputs = dict(sidecar["inputs"]) if sidecar else {}
    kept = {row.key: row for row in previous.rows} if previous else {}
    counters = _Counters(task)
    for groups in _batches(task, writer, previous, kept, failures):
        for group in groups.values():
            inputs |= group.inputs
        cells = sorted((cell for cell in task.cells if cell.group in groups), key=lambda cell: cell.background)
        for background, sharing in groupby(cells, key=lambda cell: cell.background):
            picture = _Once(task.background_layout, background)
            for cell in sharing:
                key = _key(task, cell)
                try:
                    rows[key] = groups[cell.group].place(cell, picture)
                except SourceError as error:
                    failures[key] = Failure(key, error.source, error.cause, error.detail)
            inputs |= picture.inputs
            counters.show(len(rows), len(failures), writer.bytes_written)
    keys = [_key(task, cell) for cell in task.cells]
    return _Made(
        [rows[key] for key in keys if key in rows],
        [failures[key] for key in keys if key in failures],
        len(rows.keys() - kept.keys()),
        inputs,
    )


def _batches(
    task: ShardTask,
    writer: ShardWriter,
    previous: ShardReader | None,
    kept: dict[str, Row],
    failures: dict[str, Failure],
) -> Iterator[dict[int, _Group]]:
    """Prepare foregrounds, a batch at a time; note those that cannot be used in `failures`."""
    batch: dict[int, _Group] = {}
    pixels = 0
    for strip in task.shard.strips:
        keys = [f"{task.entries[strip.foreground].key}_{variant}" for variant in strip.variants]
        try:
            batch[strip.group] = group = _Group(task, strip, writer, [kept.get(key) for key in keys], previous)
            pixels += group.size[0] * group.size[1]
        except SourceError as error:
            failures |= {key: Failure(key, error.source, error.cause, error.detail) for key in keys}
            continue
        if pixels >= BATCH_PIXELS:
            yield batch
            batch, pixels = {}, 0
    yield batch


class _Once:
    """A background that is read when it is first needed; one that cannot be read fails every time."""

    def __init__(self, layout: BackgroundLayout, name: str) -> None:
        self._layout, self._name = layout, name
        self.inputs: Inputs = {}
        self._loaded: tuple[UInt8Array, str] | SourceError | None = None

    def load(self) -> tuple[UInt8Array, str]:
        """Return the picture, (H, W, 3) uint8 RGB, and its file's SHA-256."""
        if self._loaded is None:
            try:
                sizes = _sizes(self._layout.files(self._name))
                self._loaded = self._layout.load(self._name)
                self.inputs = {f"background {self._name}": {"bytes": n, "sha256": self._loaded[1]} for n in sizes}
            except SourceError as error:
                self._loaded = error
        if isinstance(self._loaded, SourceError):
            raise self._loaded
        return self._loaded


class _Group:
    """One look's composites in a shard. What the foreground costs is paid once, and only if needed."""

    def __init__(
        self, task: ShardTask, strip: Strip, writer: ShardWriter, kept: list[Row | None], previous: ShardReader | None
    ) -> None:
        self._task, self._previous, self._strip, self._kept = task, previous, strip, kept
        number, look, entry = strip.group, task.looks[strip.group], task.entries[strip.foreground]
        self.inputs: Inputs = {}
        if previous is not None and all(kept):
            first = next(row for row in kept if row)
            self.size, digests = (first.height, first.width), previous.group_sha256(number)
            self._writer = writer.group(number, entry.key, digests[0], self.size, len(kept), digests[1])
            self._writer.copy_foreground(previous, number)
            return
        entries = [entry, *([task.partners[look.partner]] if look.partner else [])]
        sizes = [_sizes(task.foreground_layout.files(one)) for one in entries]
        pictures = read_look(task.foreground_layout, entry, look, task.partners)
        digests = pictures.sha256, pictures.partner_sha256
        for one, lengths, digest in zip(entries, sizes, digests, strict=False):
            for name, size in zip((one.image, one.alpha), lengths, strict=False):  # a pair has one digest
                self.inputs[f"foreground {name}"] = {"bytes": size, "sha256": digest}
        if previous is not None and any(kept):
            self._refuse_change(previous.group_sha256(number), digests)
        self._foreground = PreparedForeground(pictures.image, pictures.alpha, task.fit, task.trimap, name=entry.image)
        self.size, self._look = self._foreground.size, pictures.look
        self._writer = writer.group(number, entry.key, digests[0], self.size, len(kept), digests[1])
        self._writer.write_foreground(pictures.image, pictures.alpha)

    def _refuse_change(self, before: tuple[str, str], now: tuple[str, str]) -> None:
        task, strip = self._task, self._strip
        entries = task.entries[strip.foreground], task.partners.get(task.looks[strip.group].partner)
        for entry, old, new in zip(entries, before, now, strict=True):
            if entry is not None and old != new:
                raise BuildError(
                    f"foreground {entry.image} has changed since {task.shard.name} was rendered;"
                    " restore it, or build into another --out"
                )

    def place(self, cell: Cell, background: _Once) -> Row:
        """Copy a composite, or render it."""
        position = cell.variant - self._strip.variants.start
        row = self._kept[position]
        if row is not None and self._previous is not None:
            self._writer.copy_composite(self._previous, cell.group, position)
            return row
        return self._render(cell, position, *background.load())

    def _render(self, cell: Cell, position: int, picture: UInt8Array, digest: str) -> Row:
        made = _compose(self._task, self._foreground, cell, picture)
        self._writer.write_composite(position, made.image, made.trimap, made.background)
        return Row(
            key=_key(self._task, cell),
            foreground=self._task.entries[cell.foreground].key,
            variant=cell.variant,
            background=cell.background,
            background_sha256=digest,
            height=self.size[0],
            width=self.size[1],
            scale=made.placement.scale,
            offset_y=made.placement.y,
            offset_x=made.placement.x,
            erode=made.erode,
            dilate=made.dilate,
            group=cell.group,
            position=position,
            look=self._look,
            scene=made.scene,
        )


def _compose(task: ShardTask, foreground: PreparedForeground, cell: Cell, background: UInt8Array) -> Composite:
    key = task.entries[cell.foreground].key
    trimap = task.supplied.load(key, cell.variant, foreground.size) if task.supplied else None
    return foreground.compose(background, cell, trimap, name=cell.background)


def _key(task: ShardTask, cell: Cell) -> str:
    return f"{task.entries[cell.foreground].key}_{cell.variant}"


def _previous(task: ShardTask, final: Path) -> tuple[dict[str, Any], ShardReader] | None:
    """Return the sidecar and the file of an earlier version of this shard that lacks composites."""
    if not task.retry:
        return None
    sidecar = read_json(final.with_suffix(".json"))
    try:
        return (sidecar, ShardReader(cache_locally(final, sidecar["bytes"], sidecar["sha256"]))) if sidecar else None
    except DatasetError:
        return None  # rendered afresh


def _mended(task: ShardTask, sidecar: dict[str, Any]) -> bool:
    """Tell whether any composite that failed can be made now."""
    failed = {failure["key"] for failure in sidecar["failures"]}
    cells = sorted((cell for cell in task.cells if _key(task, cell) in failed), key=lambda cell: cell.background)
    foregrounds: dict[int, PreparedForeground | None] = {}
    for background, sharing in groupby(cells, key=lambda cell: cell.background):
        picture = _Once(task.background_layout, background)
        for cell in sharing:
            with contextlib.suppress(SourceError):  # it still fails: it stays in the list of failures
                if cell.group not in foregrounds:
                    foregrounds[cell.group] = None
                    entry = task.entries[cell.foreground]
                    read = read_look(task.foreground_layout, entry, task.looks[cell.group], task.partners)
                    foregrounds[cell.group] = PreparedForeground(read.image, read.alpha, task.fit, task.trimap)
                if foreground := foregrounds[cell.group]:
                    _compose(task, foreground, cell, picture.load()[0])
                    return True
    return False


def _sidecar(task: ShardTask, made: _Made, digest: str, size: int) -> dict[str, Any]:
    """Describe a shard; all of it follows from the plan and the pictures, so it is the same whenever it is made."""
    return {
        "file": task.shard.name,
        "plan_sha256": task.header.plan_sha256,
        "index": task.shard.index,
        "split": task.shard.split,
        "composites": len(made.rows),
        "bytes": size,
        "sha256": digest,
        "inputs": _inputs(task, made),
        "failures": [asdict(failure) for failure in made.failures],
    }


def _inputs(task: ShardTask, made: _Made) -> Inputs:
    """Map each file that the shard's rows show to its size and digest as it was read, so that a change is noticed."""
    keys = {key for row in made.rows for key in (row.foreground, row.look.partner)}
    by_key = task.partners | {entry.key: entry for entry in task.entries.values()}
    entries = [entry for key, entry in by_key.items() if key in keys]
    names = [f"foreground {name}" for entry in entries for name in (entry.image, entry.alpha)]
    names += [f"background {name}" for name in sorted({row.background for row in made.rows})]
    used = {name: made.inputs[name] for name in names if name in made.inputs}
    if trimaps := task.supplied:
        for row in made.rows:
            name = f"trimap {trimaps.name(row.foreground, row.variant)}"
            try:
                data = trimaps.path(row.foreground, row.variant).read_bytes()
            except OSError as error:
                reason = error.strerror or error
                raise BuildError(f"{name} cannot be read any more ({reason}); restore it, and build again") from None
            used[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return used


def _sizes(paths: list[Path]) -> list[int]:
    """Return files' sizes, to be asked for before they are read; what is missing, reading it tells better."""
    return [path.stat().st_size if path.is_file() else 0 for path in paths]


class _Counters:
    """This shard's counters in the file that the display reads."""

    def __init__(self, task: ShardTask) -> None:
        self._slot: NDArray[np.int64] | None = None
        with contextlib.suppress(OSError, ValueError):  # on another machine there is none: whole shards are counted
            self._slot = np.memmap(task.progress, np.int64, "r+").reshape(-1, 3)[task.shard.index]

    def show(self, composites: int, failures: int, size: int) -> None:
        """Say how far this shard is."""
        if self._slot is not None:
            self._slot[:] = composites, failures, size


@lru_cache(maxsize=1)
def _die_with_parent(parent: int) -> None:
    """End this process when its parent is gone, however that went: nobody waits for it any more, and a new build may
    be rendering the same shard. What it leaves under a temporary name, the next build removes.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _peak_memory() -> int:
    """Return this process's largest resident size, bytes; 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
