"""Export: a dataset, or a part of it, as what other programs read: trees of PNG files, or WebDataset tar files.

Each of the dataset's shards is exported by one task, and each file is written under a temporary name first, so an
export that was stopped goes on where it stopped. Names come from elsewhere: none can leave the folder.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..base.errors import DatasetError
from ..base.file_names import file_name
from ..base.files import atomic_write, disk_error, encode_picture, read_json, write_json, write_text
from ..base.progress import OnProgress, Progress
from ..base.text import escape, fold_name
from ..base.workers import run_in_processes
from ..dataset.dataset import Sample, open_dataset
from ..dataset.rows import Parts, Row
from .summary import source_notes

Array = NDArray[np.uint8]


Form = Literal["png", "webdataset"]


RECORD = "export.json"


FORMAT = "matting-compose/export"


FOLDERS = {"merged": "image", "alpha": "alpha", "trimap": "trimap", "fg": "foreground", "bg": "background"}


@dataclass(frozen=True)
class ExportResult:
    """What an export made.

    Attributes
    ----------
    out, to : where, and as what
    composites : in it, those of earlier runs included
    written : composites of which this run wrote something
    files : pictures, or tar files
    parts : what each composite comes with
    """

    out: str
    to: str
    composites: int
    written: int
    files: int
    parts: tuple[str, ...]


@dataclass(frozen=True)
class _Task:
    """One shard's share of an export; it travels to a worker by pickle."""

    dataset: Path
    out: Path
    to: Form
    shard: int
    split: str
    numbers: tuple[int, ...]


def export(
    folder: str | Path,
    out: str | Path,
    to: Form,
    *,
    split: str | None = None,
    foregrounds: Sequence[str] = (),
    count: int | None = None,
    jobs: int = -1,
    on_progress: OnProgress | None = None,
) -> ExportResult:
    """Export a dataset.

    Parameters
    ----------
    folder : the dataset's
    out : a new folder, or one in which the same export was stopped
    to : ``png`` or ``webdataset``
    split, foregrounds, count : what to take: of one split, of these foregrounds, so many spread evenly over the rest
    jobs : worker processes; -1 for one per core

    Raises
    ------
    DatasetError : the dataset is none or damaged, nothing in it is asked for, or `out` holds something else
    BuildError : `out` cannot be written
    """
    out = Path(out)
    with closing(open_dataset(folder)) as dataset:
        if missing := dataset.missing_shards():
            raise DatasetError(f"{dataset.path}: {missing[0]} is missing or of another size; build again to restore it")
        rows = dataset.read_rows()
        splits = {number: dataset.shard_of(number).split for number in rows}
        chosen = _choose(rows, splits, split, foregrounds, count)
        _refuse_clashes(rows[number].key for number in chosen)
        _refuse_clashes({rows[number].group: _look_name(rows[number]) for number in chosen}.values())
        by_shard: dict[int, list[int]] = {}
        for number in chosen:
            by_shard.setdefault(dataset.locate(number)[0], []).append(number)
        tasks = [
            _Task(dataset.path, out, to, shard, dataset.shards[shard].split, tuple(numbers))
            for shard, numbers in by_shard.items()
        ]
    stores_background = dataset.background == "full"
    selection = {"split": split, "foregrounds": sorted(foregrounds), "count": count}
    record = {"format": FORMAT, "to": to, "plan_sha256": dataset.plan_sha256, "selection": selection}
    notes = [{key: escape(text or "") for key, text in asdict(note).items()} for note in source_notes(dataset.recipe)]
    try:
        _begin(out, record)
        written = _run(tasks, jobs, len(chosen), on_progress)
        files = _list_pngs(out, tasks, rows, stores_background) if to == "png" else _list_tars(out, tasks)
        write_json(out / RECORD, {**record, "complete": True, "composites": len(chosen), "sources": notes})
    except OSError as error:
        raise disk_error(error, out) from None
    parts = Parts._fields if stores_background else Parts._fields[:-1]
    return ExportResult(str(out), to, len(chosen), written, files, parts)


def _choose(
    rows: dict[int, Row],
    splits: Mapping[int, str],
    split: str | None,
    foregrounds: Sequence[str],
    count: int | None,
) -> list[int]:
    """Return the numbers of the composites that are asked for, ascending."""
    known = {row.foreground for row in rows.values()}
    for name in foregrounds:
        if name not in known:
            some = ", ".join(escape(other) for other in sorted(known)[:5])
            raise DatasetError(f"no foreground is called '{escape(name)}'; there are {some} …")
    wanted = set(foregrounds) or known
    chosen = [n for n, row in rows.items() if row.foreground in wanted and split in (None, splits[n])]
    if not chosen:
        raise DatasetError("nothing to export: no composite is of that split and of those foregrounds")
    if count is not None and count < len(chosen):
        chosen = [chosen[int((i + 0.5) * len(chosen) / count)] for i in range(count)]
    return chosen


def _refuse_clashes(keys: Iterable[str]) -> None:
    """Make sure that no two composites get one file where a file system does not tell case apart."""
    names = Counter(fold_name(file_name(key)) for key in keys)
    if twice := [name for name, count in names.items() if count > 1]:
        raise DatasetError(
            f"two composites would both be called '{escape(twice[0])}' where case does not count;"
            " export one of their foregrounds after the other, with --foreground, into different folders"
        )


def _begin(out: Path, record: dict[str, Any]) -> None:
    """Claim the folder, or make sure that it is the same export that goes on."""
    old = read_json(out / RECORD)
    if old is None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DatasetError(f"{out}: is not empty, and holds no export to go on with; choose another folder")
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / RECORD, {**record, "complete": False})
        return
    for key, value in record.items():
        if old.get(key) != value:
            raise DatasetError(f"{out}: holds another export ({key} is {old.get(key)!r}); choose another folder")


def _run(tasks: list[_Task], jobs: int, total: int, on_progress: OnProgress | None) -> int:
    written = done = 0
    for fresh, count in run_in_processes(_export_shard, tasks, len(tasks), jobs):
        written += fresh
        done += count
        if on_progress:
            on_progress(Progress("composites", done, total))
    return written


def _export_shard(task: _Task) -> tuple[int, int]:
    """Export one shard; return how many composites were written, and how many there are."""
    with closing(open_dataset(task.dataset)) as dataset:
        chosen = [(number, dataset.row(number)) for number in task.numbers]
        if task.to == "webdataset":
            tar = task.out / _tar_name(task)
            if tar.is_file():
                return 0, len(chosen)
            _write_tar(tar, (_tar_members(dataset[number]) for number, _ in chosen))
            return len(chosen), len(chosen)
        full = dataset.background == "full"
        written = 0
        for number, row in chosen:
            missing = [path for path in _png_paths(row, full).values() if not (task.out / path).is_file()]
            if missing:
                _write_pngs(task.out, dataset[number], missing, full)
                written += 1
        return written, len(chosen)


def _png_paths(row: Row, background: bool) -> dict[str, str]:
    """Say where a composite's pictures lie, by folder; all of one look share its colours and its alpha."""
    key, look = file_name(row.key), file_name(_look_name(row))
    folders = [folder for folder in FOLDERS if background or folder != "bg"]
    return {folder: f"{folder}/{look if folder in ('alpha', 'fg') else key}.png" for folder in folders}


def _look_name(row: Row) -> str:
    return f"{row.foreground}_look{row.look.number}" if row.look.number else row.foreground


def _write_pngs(out: Path, sample: Sample, missing: list[str], background: bool) -> None:
    for folder, path in _png_paths(sample.row, background).items():
        if path in missing:
            with atomic_write(out / path) as temporary:
                temporary.write_bytes(encode_picture(getattr(sample, FOLDERS[folder]), ".png"))


def _tar_name(task: _Task) -> str:
    return f"{task.split}-{task.shard:06d}.tar"


def _tar_members(sample: Sample) -> Iterator[tuple[str, bytes | memoryview]]:
    """Yield a composite's files in a tar. A key ends at its first full stop there, so it must hold none."""
    key = file_name(sample.row.key).replace(".", "%2E")
    for part in Parts._fields:
        if (picture := getattr(sample, part)) is not None:
            yield f"{key}.{part}.png", encode_picture(picture, ".png")
    yield f"{key}.json", json.dumps(asdict(sample.row)).encode()


def _write_tar(path: Path, samples: Iterator[Iterator[tuple[str, bytes | memoryview]]]) -> None:
    """Write a tar file whole or not at all; it holds no times and no owners."""
    with atomic_write(path) as temporary, tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
        for members in samples:
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def _list_pngs(out: Path, tasks: list[_Task], rows: dict[int, Row], background: bool) -> int:
    """Write the lists, for each split: JSON as mmagic reads it, and text, a line each: merged, alpha, trimap."""
    paths: set[str] = set()
    for split in sorted({task.split for task in tasks}):
        numbers = [number for task in tasks if task.split == split for number in task.numbers]
        listed = [_png_paths(rows[number], background) for number in numbers]
        write_text(out / f"{split}.json", json.dumps(listed, ensure_ascii=False, indent=1) + "\n")
        lines = ("\t".join(entry[folder] for folder in ("merged", "alpha", "trimap")) for entry in listed)
        write_text(out / f"{split}.txt", "".join(f"{line}\n" for line in lines))
        paths.update(path for entry in listed for path in entry.values())
    return len(paths)


def _list_tars(out: Path, tasks: list[_Task]) -> int:
    """Write an index for each split in the form of WebDataset's own: file names and numbers of samples."""
    for split in sorted({task.split for task in tasks}):
        listed = [{"url": _tar_name(t), "nsamples": len(t.numbers)} for t in tasks if t.split == split]
        write_json(out / f"{split}.json", {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": listed})
    return len(tasks)
