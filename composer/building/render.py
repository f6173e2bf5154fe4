"""Render: one shard, from pictures to a committed file. What a worker process does.

A shard is rendered under a temporary name, read back, made durable and renamed; then its sidecar, written the same
way, commits it. Nothing that is half made has a final name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from ..base.errors import BuildError, DatasetError, SourceError
from ..base.files import REFUSED, disk_error, temporary_name
from ..base.storage import cache_locally, put, staging_folder
from ..base.system import peak_memory
from ..compositing.compose import Composite, PreparedForeground, PreparedPicture
from ..compositing.trimaps import DrawnTrimap
from ..dataset.documents import FailureRecord, InputRecord, Sidecar, load_sidecar, write_document
from ..dataset.reader import ShardReader
from ..dataset.rows import UINT16_MAX, Look, Row
from ..dataset.writer import GroupWriter, ShardWriter
from ..sources.backgrounds import Background
from .counters import ShardCounters
from .distractor_reader import DistractorReader
from .inputs import Ledger
from .library_versions import join_versions, library_versions
from .look_reader import foreground_files
from .plan import Cell, Strip
from .shard_task import ShardTask

BATCH_PIXELS = 16_000_000  # of foregrounds prepared at once, at some 13 bytes each (17 with fit.method adobe)


@dataclass(frozen=True)
class RenderedShard:
    """What rendering a shard gives.

    Attributes
    ----------
    sidecar : Sidecar
        What lies beside the shard.
    rendered : int
        Composites made by this call.
    peak_bytes : int
        The process's largest memory.
    """

    sidecar: Sidecar
    rendered: int
    peak_bytes: int


@dataclass(frozen=True)
class _Earlier:
    """An earlier version of a shard, which lacks composites: its sidecar, and the file."""

    sidecar: Sidecar
    reader: ShardReader


def render_shard(task: ShardTask) -> RenderedShard:
    """Render one shard and commit it.

    Raises
    ------
    BuildError
        The disk takes no more, or a picture was changed meanwhile.
    """
    final = task.folder / task.shard.name
    earlier = _open_earlier(task, final)
    if earlier is not None and not _can_mend(task, earlier.sidecar):
        earlier.reader.close()
        return RenderedShard(earlier.sidecar, 0, peak_memory())
    if earlier is not None and earlier.reader.sha256() != earlier.sidecar.sha256:
        earlier.reader.close()
        earlier = None  # what changed on the disk is rendered afresh: copied, it would be signed anew
    try:
        with staging_folder(task.folder) as folder:
            sidecar, rendered = _commit(task, final, temporary_name(folder / final.name), earlier)
            return RenderedShard(sidecar, rendered, peak_memory())
    except OSError as error:
        raise disk_error(error, task.folder) from None
    finally:
        if earlier is not None:
            earlier.reader.close()


def _open_earlier(task: ShardTask, final: Path) -> _Earlier | None:
    """Open an earlier version of this shard that lacks composites; None where there is none to read."""
    if not task.retry:
        return None
    try:
        sidecar = load_sidecar(final.with_suffix(".json"))
        file = cache_locally(final, sidecar.bytes, sidecar.sha256)
        return _Earlier(sidecar, ShardReader(file))
    except (DatasetError, OSError):
        return None  # rendered afresh


def _can_mend(task: ShardTask, sidecar: Sidecar) -> bool:
    """Tell whether any composite that failed can be made now."""
    failed = {failure.key for failure in sidecar.failures}
    cells = sorted((cell for cell in task.cells if task.key(cell) in failed), key=lambda cell: cell.background)
    foregrounds: dict[int, PreparedPicture | None] = {}
    distractors = DistractorReader(task.foreground_layout, task.partners)
    for name, sharing in groupby(cells, key=lambda cell: cell.background):
        background = _LazyBackground(task, name)
        for cell in sharing:
            with contextlib.suppress(SourceError):  # it still fails: it stays in the list of failures
                if cell.group not in foregrounds:
                    foregrounds[cell.group] = None
                    pictures = task.read_look(cell.foreground, cell.group)
                    foregrounds[cell.group] = task.prepare(cell.foreground, pictures)
                if foreground := foregrounds[cell.group]:
                    _render(task, foreground, cell, background, distractors)
                    return True
    return False


def _commit(task: ShardTask, final: Path, temporary: Path, earlier: _Earlier | None) -> tuple[Sidecar, int]:
    """Render a shard under a temporary name and give it its final one. Return its sidecar, and how much is fresh."""
    try:
        with ShardWriter(temporary, task.header) as writer:
            shard = _Shard(task, writer, earlier)
            rows = shard.render()
            digest = writer.finish(rows)
        sidecar = shard.describe(rows, digest, temporary.stat().st_size)
        final.with_suffix(".json").unlink(missing_ok=True)  # until the new one is there, nothing is committed
        put(temporary, final, digest)
        write_document(final.with_suffix(".json"), sidecar)
    except (RuntimeError, ValueError) as error:  # HDF5 has several ways to say that a disk takes no more
        if REFUSED.search(str(error)):
            raise disk_error(error, task.folder) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return sidecar, len({row.key for row in rows} - shard.kept.keys())


class _Shard:
    """A shard while it is rendered."""

    def __init__(self, task: ShardTask, writer: ShardWriter, earlier: _Earlier | None) -> None:
        self.task, self.writer, self.earlier = task, writer, earlier
        self.kept = {row.key: row for row in earlier.reader.rows} if earlier else {}
        self.ledger = Ledger(task.shard.name, earlier.sidecar.inputs if earlier else {})
        self.distractors = DistractorReader(task.foreground_layout, task.partners)
        self._failures: dict[str, FailureRecord] = {}

    def render(self) -> list[Row]:
        """Render all composites, copying what an earlier version has; return their rows, in the plan's order.

        Foregrounds are prepared in batches that fit in memory, and a batch's composites are made background by
        background, so that one which many composites share is decoded once for all of them.
        """
        task, rows = self.task, {}
        counters = ShardCounters(task.counters, task.shard.index)
        for groups in self._batches():
            cells = sorted((cell for cell in task.cells if cell.group in groups), key=lambda cell: cell.background)
            for name, sharing in groupby(cells, key=lambda cell: cell.background):
                background = _LazyBackground(task, name)
                for cell in sharing:
                    try:
                        rows[task.key(cell)] = groups[cell.group].place(cell, background)
                    except SourceError as error:
                        self._fail([task.key(cell)], error)
                self.ledger.add(background.files)
                counters.write(len(rows), len(self._failures), self.writer.bytes_written)
        return [rows[key] for key in map(task.key, task.cells) if key in rows]

    def _batches(self) -> Iterator[dict[int, _Group]]:
        """Prepare foregrounds, a batch at a time; note those that cannot be used."""
        batch: dict[int, _Group] = {}
        pixels = 0
        for strip in self.task.shard.strips:
            try:
                batch[strip.group] = group = self._start_group(strip)
            except SourceError as error:
                self._fail(self.task.keys(strip), error)
                continue
            pixels += group.size[0] * group.size[1]
            if pixels >= BATCH_PIXELS:
                yield batch
                batch, pixels = {}, 0
        yield batch

    def _start_group(self, strip: Strip) -> _Group:
        kept = [self.kept.get(key) for key in self.task.keys(strip)]
        if self.earlier is not None and all(kept):
            return self._copy_group(strip, kept, self.earlier.reader)
        pictures = self.task.read_look(strip.foreground, strip.group)
        if self.earlier is not None and any(kept):
            self._refuse_change(strip, self.earlier.reader.group_sha256(strip.group), pictures.digests)
        self.ledger.add(pictures.files)
        foreground = self.task.prepare(strip.foreground, pictures)
        writer = self._write_group(strip, foreground.size, pictures.digests)
        composed = self.task.entries[strip.foreground].composed
        (writer.write_foreground if composed else writer.write_picture)(pictures.image, pictures.alpha)
        return _Group(self, strip, kept, writer, foreground.size, foreground, pictures.look)

    def _copy_group(self, strip: Strip, kept: list[Row | None], source: ShardReader) -> _Group:
        """Start a group whose composites are all there already: its pictures need not be."""
        first = next(row for row in kept if row)
        writer = self._write_group(strip, (first.height, first.width), source.group_sha256(strip.group))
        writer.copy_shared(source, strip.group)
        return _Group(self, strip, kept, writer, (first.height, first.width), None, first.look)

    def _write_group(self, strip: Strip, size: tuple[int, int], digests: tuple[str, str]) -> GroupWriter:
        entry, (digest, partner), count = self.task.entries[strip.foreground], digests, len(strip.variants)
        return self.writer.group(strip.group, entry.key, digest, size, count, partner, composed=entry.composed)

    def _refuse_change(self, strip: Strip, before: tuple[str, str], now: tuple[str, str]) -> None:
        """Make sure that a group's pictures are those of its composites that are kept; they may be drawn ones."""
        task = self.task
        entries = task.entries[strip.foreground], task.partners.get(task.looks[strip.group].partner)
        for entry, old, new in zip(entries, before, now, strict=True):
            if entry is not None and old != new:
                raise BuildError(
                    f"foreground {entry.image} has changed since {task.shard.name} was rendered;"
                    " restore it, or build into another --out"
                )

    def _fail(self, keys: list[str], error: SourceError) -> None:
        for key in keys:
            self._failures[key] = FailureRecord(key=key, source=error.source, cause=error.cause, detail=error.detail)

    def describe(self, rows: list[Row], digest: str, size: int) -> Sidecar:
        """Describe the shard: all follows from the plan and the pictures, so it is the same whenever it is made."""
        task = self.task
        return Sidecar(
            file=task.shard.name,
            plan_sha256=task.header.plan_sha256,
            index=task.shard.index,
            split=task.shard.split,
            composites=len(rows),
            bytes=size,
            sha256=digest,
            inputs=self.ledger.select(self._input_names(rows)),
            failures=[self._failures[key] for key in map(task.key, task.cells) if key in self._failures],
            made_with=join_versions([library_versions(), self.earlier.sidecar.made_with if self.earlier else {}]),
        )

    def _input_names(self, rows: list[Row]) -> list[str]:
        """Name the files that the rows show."""
        task = self.task
        cells = {task.key(cell): cell for cell in task.cells}
        keys = {key for row in rows for key in (row.foreground, row.look.partner)}
        keys |= {one.key for row in rows for one in cells[row.key].distractors}
        by_key = task.partners | {entry.key: entry for entry in task.entries.values()}
        names = [name for key, entry in by_key.items() if key in keys for name in foreground_files(entry)]
        names += [f"background {name}" for name in sorted({row.background for row in rows if row.composed})]
        if trimaps := task.supplied:
            names += [f"trimap {trimaps.name(row.foreground, row.variant)}" for row in rows]
        return names


class _LazyBackground:
    """A background that is read when it is first needed; one that cannot be read fails every time."""

    def __init__(self, task: ShardTask, name: str) -> None:
        self._task, self._name = task, name
        self.files: dict[str, InputRecord] = {}
        self._loaded: Background | SourceError | None = None

    def load(self) -> Background:
        if self._loaded is None:
            try:
                self._loaded = self._task.load_background(self._name)
                self.files = {f"background {self._name}": file for file in self._loaded.files}
            except SourceError as error:
                self._loaded = error
        if isinstance(self._loaded, SourceError):
            raise self._loaded
        return self._loaded


@dataclass(frozen=True)
class _Group:
    """One look's composites in a shard.

    Attributes
    ----------
    kept : list[Row | None]
        What an earlier version of the shard has of them.
    foreground : PreparedPicture or None
        None where all are kept.
    """

    shard: _Shard
    strip: Strip
    kept: list[Row | None]
    writer: GroupWriter
    size: tuple[int, int]
    foreground: PreparedPicture | None
    look: Look

    def place(self, cell: Cell, background: _LazyBackground) -> Row:
        """Copy a composite, or render it."""
        position = cell.variant - self.strip.variants.start
        row, earlier = self.kept[position], self.shard.earlier
        if row is not None and earlier is not None:
            self.writer.copy_composite(earlier.reader, cell.group, position)
            return row
        assert self.foreground is not None  # only where nothing is left to render
        made, files = _render(self.shard.task, self.foreground, cell, background, self.shard.distractors)
        self.shard.ledger.add(files)
        row = self._row(cell, position, made)
        if isinstance(made, DrawnTrimap):
            self.writer.write_trimap(position, made.trimap)
            return row
        self.writer.write_composite(position, made.image, made.trimap, made.background)
        place, digest = made.placement, background.load().sha256
        return replace(
            row, background_sha256=digest, scale=place.scale, offset_y=place.y, offset_x=place.x, scene=made.scene
        )

    def _row(self, cell: Cell, position: int, made: Composite | DrawnTrimap) -> Row:
        """Return the row of a picture as it is; what a composite's says beside that is yet to come."""
        task = self.shard.task
        return Row(
            key=task.key(cell),
            foreground=task.entries[cell.foreground].key,
            variant=cell.variant,
            background=cell.background,
            background_sha256="",
            height=self.size[0],
            width=self.size[1],
            scale=1.0,
            offset_y=0,
            offset_x=0,
            erode=made.erode,
            dilate=made.dilate,
            group=cell.group,
            position=position,
            look=self.look,
        )


def _render(
    task: ShardTask,
    foreground: PreparedPicture,
    cell: Cell,
    background: _LazyBackground,
    distractors: DistractorReader,
) -> tuple[Composite | DrawnTrimap, dict[str, InputRecord]]:
    """Make a composite, or a trimap of a picture as it is; return it, and the files that were read for it alone."""
    loaded = background.load() if isinstance(foreground, PreparedForeground) else None
    trimap, (behind, files) = None, distractors.read(cell.distractors)
    if task.supplied:
        key = task.entries[cell.foreground].key
        trimap, file = task.supplied.load(key, cell.variant, foreground.size)
        files[f"trimap {task.supplied.name(key, cell.variant)}"] = file
    made: Composite | DrawnTrimap
    if isinstance(foreground, PreparedForeground) and loaded is not None:
        others = [(other.image, other.alpha) for other in behind]
        made = foreground.compose(loaded.image, cell, trimap, name=cell.background, others=others)
    else:
        made = foreground.draw_trimap(cell, trimap)
    if max(made.erode, made.dilate) > UINT16_MAX:
        raise SourceError(
            foreground.name,
            "too-large",
            f"its trimap's radii (erode {made.erode}, dilate {made.dilate}) are over {UINT16_MAX:,} px, the most that"
            " a shard can tell; lower them, or reduce the picture (max_side)",
        )
    return made, files
