"""Export: a dataset, or a part of it, as what other programs read: trees of PNG files, WebDataset, or Parquet.

Each of the dataset's shards is exported by one task. What each file holds is recorded once it is on the disk, so
that an export that was stopped goes on by content: a file that holds something else is written again. Names come from
elsewhere: none can leave the folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from ..base.arrays import spread
from ..base.errors import DatasetError
from ..base.file_names import LOCK, file_name
from ..base.files import (
    atomic_write,
    disk_error,
    encode_picture,
    file_sha256,
    is_temporary,
    lock_exclusively,
    open_regular,
    read_json,
    write_json,
)
from ..base.packages import require_packages
from ..base.progress import OnProgress, Progress
from ..base.text import count_of, escape, fold_name
from ..base.workers import run_in_processes
from ..dataset.card import dataset_card, source_notes, write_card
from ..dataset.checksums import CHECKSUMS
from ..dataset.dataset import Dataset, Sample, open_dataset
from ..dataset.rows import Parts, Row, digest_keys
from .parquet import write_parquet
from .summary import Columns, read_columns

logger = logging.getLogger(__name__)


Form = Literal["png", "webdataset", "parquet"]


ENDINGS = {"webdataset": ".tar", "parquet": ".parquet"}  # of what has one file for each shard


RECORD = "export.json"


FORMAT = "matting-compose/export"


JOURNAL = f"{CHECKSUMS}.partial"  # of the files that are finished, while others are not


CHECKSUM = re.compile(r"([0-9a-f]{64})  (.+)")


FOLDERS = {"merged": "image", "alpha": "alpha", "trimap": "trimap", "fg": "foreground", "bg": "background"}


LAYERLESS = ("merged", "alpha", "trimap")  # the folders of a picture as it is


@dataclass(frozen=True)
class ExportResult:
    """What an export made.

    Attributes
    ----------
    out : str
        Its folder.
    to : str
        ``png``, ``webdataset`` or ``parquet``.
    composites : int
        In it, those of earlier runs included.
    written : int
        Composites of which this run wrote something.
    files : int
        Pictures, or files of a shard each.
    parts : tuple of str
        What each composite comes with.
    """

    out: str
    to: str
    composites: int
    written: int
    files: int
    parts: tuple[str, ...]


@dataclass(frozen=True)
class _Task:
    """One shard's part of an export; it travels to a worker by pickle.

    `known` maps the files that an earlier run finished to the SHA-256 of what they hold; `paths`, for PNG, has where
    each composite's pictures lie, by folder.
    """

    dataset: Path
    out: Path
    to: Form
    shard: int
    split: str
    numbers: NDArray[np.int64]
    known: Mapping[str, str]
    paths: Mapping[int, Mapping[str, str]]


class _Exported(NamedTuple):
    """What a task did: of how many composites it wrote something, of how many, and what each of its files holds."""

    written: int
    composites: int
    sums: dict[str, str]


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
    folder : str or Path
        The dataset's.
    out : str or Path
        A new folder, or one in which the same export was stopped.
    to : {"png", "webdataset", "parquet"}
        Trees of PNG files with lists, tar files with an index, or Parquet with columns of pictures and a card.
    split : str, optional
        Take this one only.
    foregrounds : sequence of str
        Take these only.
    count : int, optional
        Take so many, spread evenly over the rest.
    jobs : int
        Worker processes; -1 for one per core.
    on_progress : callable, optional
        Called as things are written.

    Raises
    ------
    MattingComposeError
        pyarrow is not installed, which Parquet needs.
    DatasetError
        The dataset is none or damaged, nothing in it is asked for, or `out` holds something else.
    BuildError
        `out` cannot be written, or another export runs there.

    Examples
    --------
    >>> from matting_compose.composer import build, load_recipe
    >>> small = ["foregrounds.count=2", "foregrounds.sides=[64,80]", "backgrounds.count=2", "variants=2"]
    >>> _ = build(load_recipe("demo", small), "dataset", jobs=1)
    >>> export("dataset", "pictures", "png", split="train", jobs=1).parts
    ('image', 'trimap', 'alpha', 'foreground')
    """
    if to == "parquet":
        require_packages("pyarrow", extra="parquet")
    out = Path(out)
    with closing(open_dataset(folder)) as dataset:
        if missing := dataset.missing_shards():
            raise DatasetError(f"{dataset.path}: {missing[0]} is missing or of another size; build again to restore it")
        columns = read_columns(dataset, ())
        chosen = _choose(dataset, columns, split, foregrounds, count)
        held = len(np.unique(columns.foreground[chosen]))
        looks = {row.group: row for _, row in dataset.read_rows(chosen)}.values()
        pictures = [_look_name(row) for row in looks if not row.composed]  # these have one file for all their trimaps
        _refuse_clashes(lambda: chain((row.key for _, row in dataset.read_rows(chosen)), pictures))
        _refuse_clashes(lambda: map(_look_name, looks))
        several = _several_looks(dataset) if to == "png" else set()
        stores_background = dataset.background == "full"
    selection = {"split": split, "foregrounds": sorted(foregrounds), "count": count}
    record = {
        "format": FORMAT,
        "to": to,
        "plan_sha256": dataset.plan_sha256,
        "dataset_sha256": dataset.sha256,
        "selection": selection,
    }
    notes = [{key: escape(text or "") for key, text in asdict(note).items()} for note in source_notes(dataset.recipe)]
    _refuse_others(out, record)  # before anything is written there, a lock included
    try:
        with lock_exclusively(out, "export"):
            _begin(out, record)
            known = _read_sums(out)
            tasks = partial(_make_tasks, dataset, out, to, several)
            files = sum(1 for _ in dataset.split_by_shard(chosen))
            written, sums = _run(tasks(chosen, known), files, out, known, jobs, len(chosen), on_progress)
            if written < len(chosen):
                logger.info("%s: already there: %s", out, count_of(len(chosen) - written, "composite"))
            if to == "png":
                files = len(sums)
                for name in dataset.splits:
                    _list_pngs(out, name, tasks(np.intersect1d(chosen, dataset.numbers(name), assume_unique=True)))
            elif to == "webdataset":
                _list_tars(out, list(tasks(chosen)))
            else:
                _write_card(dataset, held, out, list(tasks(chosen)))
            with _open_list(out / CHECKSUMS) as lines:
                lines.writelines(f"{sums[name].hex()}  {name}\n" for name in sorted(sums))
            write_json(out / RECORD, {**record, "complete": True, "composites": len(chosen), "sources": notes})
            (out / JOURNAL).unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(error, out) from None
    finally:
        dataset.close()
    parts = Parts._fields if stores_background else Parts._fields[:-1]
    return ExportResult(str(out), to, len(chosen), written, files, parts)


def _choose(
    dataset: Dataset, columns: Columns, split: str | None, foregrounds: Sequence[str], count: int | None
) -> NDArray[np.int64]:
    """Return the numbers of the composites that are asked for, ascending."""
    for name in foregrounds:
        if name not in columns.names:
            some = ", ".join(escape(other) for other in sorted(columns.names)[:5])
            raise DatasetError(f"no foreground is called '{escape(name)}'; there are {some} …")
    chosen = dataset.numbers(split)
    if foregrounds:
        chosen = chosen[np.isin(columns.foreground[chosen], [columns.names.index(name) for name in foregrounds])]
    if not chosen.size:
        raise DatasetError("nothing to export: no composite is of that split and of those foregrounds")
    return chosen if count is None else chosen[spread(range(len(chosen)), count)]


def _refuse_clashes(keys: Callable[[], Iterable[str]]) -> None:
    """Make sure that no two composites get one file where a file system does not tell case apart."""

    def names() -> Iterator[bytes]:
        return (fold_name(file_name(key)).encode() for key in keys())

    digests = np.sort(digest_keys(names()))
    shared = digests[1:][digests[1:] == digests[:-1]]
    if shared.size:
        twice = next(name for name in names() if digest_keys([name])[0] in shared)
        raise DatasetError(
            f"two composites would both be called '{escape(twice.decode())}' where case does not count;"
            " export one of their foregrounds after the other, with --foreground, into different folders"
        )


def _refuse_others(out: Path, record: dict[str, Any]) -> dict[str, Any] | None:
    """Make sure that nothing else lies in the folder; return the record of the same export, if it was begun there."""
    old = read_json(out / RECORD)
    if old is None:
        found = [path.name for path in out.iterdir()] if out.is_dir() else [out.name] if out.exists() else []
        if any(not name.startswith(LOCK) and not is_temporary(name) for name in found):
            raise DatasetError(f"{out}: is not empty, and holds no export to go on with; choose another folder")
        return None
    for key, value in record.items():
        if old.get(key) != value:
            raise DatasetError(f"{out}: holds another export ({key} is {old.get(key)!r}); choose another folder")
    return old


def _begin(out: Path, record: dict[str, Any]) -> None:
    if _refuse_others(out, record) is None:
        write_json(out / RECORD, {**record, "complete": False})


def _read_sums(out: Path) -> dict[str, str]:
    """Read what earlier runs say of the files that they finished; a line that was cut off says nothing."""
    sums: dict[str, str] = {}
    for name in (CHECKSUMS, JOURNAL):
        with contextlib.suppress(FileNotFoundError), open_regular(out / name) as file:
            lines = (line.decode(errors="replace").rstrip("\n") for line in file)
            sums |= {found[2]: found[1] for found in map(CHECKSUM.fullmatch, lines) if found}
    return sums


def _make_tasks(
    dataset: Dataset, out: Path, to: Form, several: Set[bytes], chosen: NDArray[np.int64],
    known: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[_Task]:  # fmt: skip
    """Yield a task for each shard, as it is asked for: together, the names of their files would fill the memory."""
    for shard, numbers in dataset.split_by_shard(chosen):
        paths = _png_paths(dataset, numbers, several) if to == "png" else {}
        task = _Task(dataset.path, out, to, shard, dataset.shards[shard].split, numbers, {}, paths)
        names = [_file_name(task)] if to in ENDINGS else [path for one in paths.values() for path in one.values()]
        yield replace(task, known={name: known[name] for name in names if name in known})


def _run(
    tasks: Iterator[_Task], count: int, out: Path, known: Mapping[str, str], jobs: int, total: int,
    on_progress: OnProgress | None,
) -> tuple[int, dict[str, bytes]]:  # fmt: skip
    """Do so many tasks, of `total` composites; return of how many something was written, and what each file holds."""
    written = done = 0
    sums: dict[str, bytes] = {}  # as bytes: there may be millions
    with (out / JOURNAL).open("a", encoding="utf-8") as journal:
        journal.write("\n")  # after a line that was cut off
        for exported in run_in_processes(_export_shard, tasks, count, jobs):
            written += exported.written
            done += exported.composites
            sums |= {name: bytes.fromhex(digest) for name, digest in exported.sums.items()}
            new = exported.sums.items() - known.items()
            journal.writelines(f"{digest}  {name}\n" for name, digest in new)
            journal.flush()
            if on_progress:
                on_progress(Progress("composites", done, total))
    return written, sums


def _export_shard(task: _Task) -> _Exported:
    """Export one shard, but for the files that are known and hold what they should."""
    sums = {name: digest for name, digest in task.known.items() if _holds(task.out / name, digest)}
    with closing(open_dataset(task.dataset)) as dataset:
        if task.to in ENDINGS:
            name = _file_name(task)
            if name in sums:
                return _Exported(0, len(task.numbers), sums)
            samples = (dataset[number] for number in task.numbers.tolist())
            if task.to == "webdataset":
                sums[name] = _write_tar(task.out / name, map(_tar_members, samples))
            else:
                sums[name] = write_parquet(task.out / name, task.split, samples, dataset.background == "full")
            return _Exported(len(task.numbers), len(task.numbers), sums)
        written = 0
        for number in task.numbers.tolist():
            missing = {folder: path for folder, path in task.paths[number].items() if path not in sums}
            if missing:
                sums |= _write_pngs(task.out, dataset[number], missing)
                written += 1
        return _Exported(written, len(task.numbers), sums)


def _holds(path: Path, digest: str) -> bool:
    try:
        return file_sha256(path) == digest
    except OSError:  # it is not there, or cannot be read: it is written again
        return False


def _several_looks(dataset: Dataset) -> set[bytes]:
    """Return the keys of the foregrounds that have several looks."""
    several: set[bytes] = set()
    for _, table in dataset.read_tables():
        if "look_number" in (table.dtype.names or ()):
            several.update(table["foreground"][table["look_number"] > 0].tolist())
    return several


def _png_paths(dataset: Dataset, chosen: NDArray[np.int64], several: Set[bytes]) -> dict[int, dict[str, str]]:
    """Say where composites' pictures lie, by folder.

    All of one look share its colours. All of a foreground share its alpha, under its name; where it has several looks,
    each composite has its own, under the composite's name: so names alone say which alpha is whose.
    """
    folders = [folder for folder in FOLDERS if dataset.background == "full" or folder != "bg"]
    paths = {}
    for number, row in dataset.read_rows(chosen):
        names = dict.fromkeys(folders if row.composed else LAYERLESS, file_name(row.key))
        if row.composed:
            names["fg"] = file_name(_look_name(row))
            if row.foreground.encode() not in several:
                names["alpha"] = file_name(row.foreground)
        else:
            names["alpha"] = names["merged"] = file_name(_look_name(row))
        paths[number] = {folder: f"{folder}/{name}.png" for folder, name in names.items()}
    return paths


def _look_name(row: Row) -> str:
    return f"{row.foreground}_look{row.look.number}" if row.look.number else row.foreground


def _write_pngs(out: Path, sample: Sample, paths: Mapping[str, str]) -> dict[str, str]:
    """Write a composite's pictures, by folder; return the SHA-256 of each file."""
    sums = {}
    for folder, path in paths.items():
        data = encode_picture(getattr(sample, FOLDERS[folder]), ".png")
        sums[path] = hashlib.sha256(data).hexdigest()
        if not _holds(out / path, sums[path]):  # what a run that was killed had not recorded may be there already
            with atomic_write(out / path) as temporary:
                temporary.write_bytes(data)
    return sums


def _file_name(task: _Task) -> str:
    return f"{task.split}-{task.shard:06d}{ENDINGS[task.to]}"


def _tar_members(sample: Sample) -> Iterator[tuple[str, bytes | memoryview]]:
    """Yield a composite's files in a tar. A key ends at its first full stop there, so it must hold none."""
    key = file_name(sample.row.key).replace(".", "%2E")
    for part in Parts._fields:
        if (picture := getattr(sample, part)) is not None:
            yield f"{key}.{part}.png", encode_picture(picture, ".png")
    yield f"{key}.json", json.dumps(asdict(sample.row)).encode()


def _write_tar(path: Path, samples: Iterator[Iterator[tuple[str, bytes | memoryview]]]) -> str:
    """Write a tar file whole or not at all; it holds no times and no owners. Return its SHA-256."""
    with atomic_write(path) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
            for members in samples:
                for name, data in members:
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        return file_sha256(temporary)


def _list_pngs(out: Path, split: str, tasks: Iterator[_Task]) -> None:
    """Write a split's lists: JSON as mmagic reads it, and text, a line a composite: merged, alpha, trimap."""
    entries = chain.from_iterable(task.paths.values() for task in tasks)
    if (first := next(entries, None)) is None:
        return
    with _open_list(out / f"{split}.json") as objects, _open_list(out / f"{split}.txt") as lines:
        before = "["
        for entry in chain([first], entries):
            text = json.dumps(entry, ensure_ascii=False, indent=1).replace("\n", "\n ")
            objects.write(f"{before}\n {text}")
            lines.write("\t".join(entry[folder] for folder in ("merged", "alpha", "trimap")) + "\n")
            before = ","
        objects.write("\n]\n")


@contextlib.contextmanager
def _open_list(path: Path) -> Iterator[TextIO]:
    """Open a text file to be written piece by piece, whole or not at all."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        yield file


def _write_card(dataset: Dataset, foregrounds: int, out: Path, tasks: list[_Task]) -> None:
    """Say what the Parquet files are, to people and to hubs."""
    splits = sorted({task.split for task in tasks})
    counts = {split: sum(len(task.numbers) for task in tasks if task.split == split) for split in splits}
    size = sum((out / _file_name(task)).stat().st_size for task in tasks)
    write_card(out, dataset_card(dataset.recipe, counts, foregrounds, size, "parquet", splits))


def _list_tars(out: Path, tasks: list[_Task]) -> None:
    """Write an index for each split in the form of WebDataset's own: file names and numbers of samples."""
    for split in sorted({task.split for task in tasks}):
        listed = [{"url": _file_name(t), "nsamples": len(t.numbers)} for t in tasks if t.split == split]
        write_json(out / f"{split}.json", {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": listed})
