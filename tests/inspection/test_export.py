"""Exports: others read the same pixels, an interrupted one goes on, and no name leaves the folder."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from conftest import Pictures, call
from matting_compose.composer import open_dataset
from matting_compose.composer.base.errors import BuildError, DatasetError
from matting_compose.composer.base.file_names import file_name
from matting_compose.composer.base.files import lock_exclusively, temporary_name
from matting_compose.composer.inspection import export as exporting
from matting_compose.composer.inspection.export import _refuse_clashes, export


def pixels(source: Path | io.BytesIO) -> np.ndarray:
    with Image.open(source) as picture:
        return np.asarray(picture)


def test_png_folders_hold_the_same_pixels(finished: Path, tmp_path: Path) -> None:
    """Read back with Pillow through the JSON lists: every part of every composite, each split in its own list."""
    done = call("export", str(finished), str(tmp_path / "out"), "--to", "png", "-j", "2", "--json")
    assert done.code == 0, done.err
    assert (done.json["composites"], done.json["written"]) == (20, 20)
    samples = {sample.row.key: sample for sample in open_dataset(finished)}
    names = {"merged": "image", "alpha": "alpha", "trimap": "trimap", "fg": "foreground", "bg": "background"}
    for split, expected in (("train", 16), ("validation", 4)):
        entries = json.loads((tmp_path / "out" / f"{split}.json").read_text(encoding="utf-8"))
        assert len(entries) == expected
        for entry in entries:
            sample = samples.pop(Path(entry["merged"]).stem)
            assert entry.keys() == names.keys()
            for folder, part in names.items():
                np.testing.assert_array_equal(pixels(tmp_path / "out" / entry[folder]), getattr(sample, part))
        lines = (tmp_path / "out" / f"{split}.txt").read_text(encoding="utf-8").splitlines()
        assert [line.split("\t") for line in lines] == [[e["merged"], e["alpha"], e["trimap"]] for e in entries]
    assert not samples
    assert done.json["files"] == len(list((tmp_path / "out").rglob("*.png"))) == 20 * 3 + 5 * 2


def test_names_say_which_alpha_is_whose(pictures: Pictures, tmp_path: Path) -> None:
    """Of a foreground with several looks each composite has its own: looks may be of one size, and differ."""
    made = call(*pictures.arguments(tmp_path / "d", "--set", "looks.count=2", "--set", "looks.flip=1", "-j", "1"))
    assert made.code == 0, made.err
    done = call("convert", str(tmp_path / "d"), "-o", str(tmp_path / "out"), "--to", "png", "-j", "1")
    assert done.code == 0, done.err
    for sample in open_dataset(tmp_path / "d"):
        path = tmp_path / "out" / "alpha" / f"{sample.row.key}.png"
        np.testing.assert_array_equal(pixels(path), sample.alpha)


def test_names_are_made_a_shard_at_a_time(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of millions of composites would fill the memory; the lists have all of them, in the dataset's order."""
    made: list[int] = []
    name = exporting._png_paths
    monkeypatch.setattr(exporting, "_png_paths", lambda *given: made.append(len(given[1])) or name(*given))

    def one_by_one(work: Callable[[Any], Any], tasks: Iterable[Any], *_: object) -> Iterator[Any]:
        for number, task in enumerate(tasks, 1):
            assert len(made) == number
            yield work(task)

    monkeypatch.setattr(exporting, "run_in_processes", one_by_one)
    export(finished, tmp_path / "out", "png", jobs=1)
    shards = open_dataset(finished).shards
    assert made[: len(shards)] == [shard.composites for shard in shards]
    lists = (json.loads((tmp_path / "out" / f"{split}.json").read_text()) for split in ("train", "validation"))
    listed = [Path(entry["merged"]).stem for entries in lists for entry in entries]
    assert listed == [row.key for row in open_dataset(finished).rows()]


def test_tars_hold_the_same_pixels(finished: Path, tmp_path: Path) -> None:
    """Files of one key stand together, split from it at the first full stop, as WebDataset wants it."""
    done = call("export", str(finished), str(tmp_path / "out"), "--to", "webdataset", "-j", "1")
    assert done.code == 0, done.err
    samples = {sample.row.key: sample for sample in open_dataset(finished)}
    index = json.loads((tmp_path / "out" / "train.json").read_text())
    assert index["wids_version"] == 1
    assert sum(shard["nsamples"] for shard in index["shardlist"]) == 16
    for path in sorted((tmp_path / "out").glob("*.tar")):
        with tarfile.open(path) as tar:
            seen: list[str] = []
            for member in tar:
                key, _, ending = member.name.partition(".")
                if not seen or seen[-1] != key:
                    seen.append(key)
                data = tar.extractfile(member)
                assert data is not None
                content = io.BytesIO(data.read())
                if ending == "json":
                    assert json.load(content)["key"] == key
                else:
                    expected = getattr(samples[key], ending.removesuffix(".png"))
                    np.testing.assert_array_equal(pixels(content), expected)
                assert (member.mtime, member.uid, member.uname) == (0, 0, "")
            assert len(set(seen)) == len(seen)
            for key in seen:
                del samples[key]
    assert not samples


def test_webdataset_reads_it(finished: Path, tmp_path: Path) -> None:
    """The library itself, where it is installed."""
    if find_spec("webdataset") is None:
        pytest.skip("webdataset is not installed: the tar files are read with tarfile only")
    export(finished, tmp_path / "out", "webdataset", split="validation", jobs=1)
    code = (  # in its own process: it leaves its files open
        "import glob, sys, webdataset as w\n"
        "for s in w.WebDataset(sorted(glob.glob(sys.argv[1])), shardshuffle=False).decode('rgb8'):\n"
        "    print(s['__key__'], *s['image.png'].shape, s['image.png'].sum(), s['json']['erode'])"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "out" / "*.tar")]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    validation = [sample for sample in open_dataset(finished) if sample.row.foreground == "disc 1"]
    assert sorted(found) == sorted(
        " ".join(map(str, (s.row.key, *s.image.shape, s.image.sum(), s.row.erode))) for s in validation
    )


def test_a_part_can_be_exported(finished: Path, tmp_path: Path) -> None:
    """By split, by foreground, by number; and nothing is an error."""
    assert export(finished, tmp_path / "a", "png", split="validation", jobs=1).composites == 4
    assert export(finished, tmp_path / "b", "png", foregrounds=["disc 0", "disc 4"], count=3, jobs=1).composites == 3
    listed = json.loads((tmp_path / "b" / "train.json").read_text())
    assert {entry["fg"] for entry in listed} == {"fg/disc 0.png", "fg/disc 4.png"}
    with pytest.raises(DatasetError, match="no foreground is called 'disc 9'"):
        export(finished, tmp_path / "c", "png", foregrounds=["disc 9"], jobs=1)
    with pytest.raises(DatasetError, match="nothing to export"):
        export(finished, tmp_path / "c", "png", foregrounds=["disc 0"], split="validation", jobs=1)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("to", ["png", "webdataset"])
def test_an_export_that_was_stopped_goes_on(finished: Path, tmp_path: Path, to: str) -> None:
    """Only what is missing is written, and the bytes are those of an export in peace."""
    out = tmp_path / "out"
    arguments = ("export", str(finished), str(out), "--to", to, "-j", "1", "--json")
    assert call(*arguments).code == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    gone = next(path for path in before if path.suffix == (".tar" if to == "webdataset" else ".png"))
    gone.unlink()
    (out / "train.json").unlink()
    again = call(*arguments)
    assert again.code == 0
    assert 1 <= again.json["written"] < 20
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("to", ["png", "webdataset"])
@pytest.mark.parametrize("damage", ["emptied", "changed", "unrecorded"])
def test_what_is_there_is_compared_by_content(finished: Path, tmp_path: Path, to: str, damage: str) -> None:
    """A file that lost its bytes, that changed at equal size, or that no record vouches for, is written again."""
    out = tmp_path / "out"
    arguments = ("export", str(finished), str(out), "--to", to, "-j", "1", "--json")
    assert call(*arguments).code == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    path = next(path for path in before if path.suffix in (".tar", ".png"))
    if damage == "unrecorded":
        name = path.relative_to(out).as_posix()
        lines = (out / "SHA256SUMS").read_text(encoding="utf-8").splitlines(keepends=True)
        (out / "SHA256SUMS").write_text("".join(line for line in lines if name not in line), encoding="utf-8")
    path.write_bytes(b"" if damage == "emptied" else bytes([before[path][0] ^ 1]) + before[path][1:])
    again = call(*arguments)
    assert (again.code, again.json["written"] > 0) == (0, True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert call(*arguments).json["written"] == 0


def test_its_checksums_are_those_of_sha256sum(finished: Path, tmp_path: Path) -> None:
    """The record that it leaves can be checked by others."""
    for to in ("png", "webdataset"):
        export(finished, tmp_path / to, to, jobs=1)  # type: ignore[arg-type]
        subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / to, check=True)


def test_leftovers_of_a_killed_export_are_tidied(finished: Path, tmp_path: Path) -> None:
    """The next export removes temporary files, and starts over what was not finished; one at a time."""
    out = tmp_path / "out"
    out.mkdir()
    left = temporary_name(out / "train-000000.tar")
    left.write_bytes(bytes(1000))
    export(finished, out, "webdataset", jobs=1)
    assert not left.exists()
    left.write_bytes(bytes(1000))
    with lock_exclusively(out, "export"), pytest.raises(BuildError, match="another export is running"):
        export(finished, out, "webdataset", jobs=1)
    export(finished, out, "webdataset", jobs=1)
    assert not left.exists()


def test_a_dataset_of_other_pixels_is_another(finished: Path, copied: Path, tmp_path: Path) -> None:
    """The same plan with one shard changed does not go on an export of what it was."""
    export(finished, tmp_path / "out", "png", split="validation", jobs=1)
    document = json.loads((copied / "dataset.json").read_text())
    document["shards"][0]["sha256"] = "0" * 64
    (copied / "dataset.json").write_text(json.dumps(document))
    with pytest.raises(DatasetError, match=r"another export \(dataset_sha256 is"):
        export(copied, tmp_path / "out", "png", split="validation", jobs=1)
    assert json.loads((tmp_path / "out" / "export.json").read_text())["dataset_sha256"] == open_dataset(finished).sha256
    document["shards"][0]["sha256"] = open_dataset(finished).shards[0].sha256
    document["made_with"]["numpy"] = "0.1"
    (copied / "dataset.json").write_text(json.dumps(document))
    assert open_dataset(copied).sha256 != open_dataset(finished).sha256


def test_other_folders_are_left_alone(finished: Path, tmp_path: Path) -> None:
    """A folder with something else in it, or with another export, is refused."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(DatasetError, match="is not empty"):
        export(finished, tmp_path / "mine", "png", jobs=1)
    export(finished, tmp_path / "out", "png", count=1, jobs=1)
    with pytest.raises(DatasetError, match="another export"):
        export(finished, tmp_path / "out", "png", count=2, jobs=1)


def test_hostile_names_stay_in_the_folder(tmp_path: Path) -> None:
    """Full stops, spaces, quotes, folders, letters of all sorts: as files below the output, all of them."""
    pictures = Pictures.make(tmp_path / "pictures")
    names = ["dots..", "a, \"b\" 'c'", "sub/ü 漢字", "x.y.z", "100%"]
    cutouts = sorted(pictures.cutouts.iterdir())
    for i, name in enumerate(names):
        target = pictures.cutouts / f"{name}.png"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(cutouts[i % 5].read_bytes())
    dataset = tmp_path / "d"
    assert call(*pictures.arguments(dataset, "-j", "1", "--variants", "1")).code == 0
    with h5py.File(min((dataset / "shards").glob("*.h5")), "r+") as shard:  # what no build writes, and a stranger may
        table = shard["samples"][...]
        table["key"][0] = b"../../../elsewhere"[: table.dtype["key"].itemsize]
        shard["samples"][...] = table
    before = set(tmp_path.rglob("*"))
    for to in ("png", "webdataset"):
        export(dataset, tmp_path / "out" / to, to, jobs=1)  # type: ignore[arg-type]
    new = set(tmp_path.rglob("*")) - before
    assert all((tmp_path / "out") in (path, *path.parents) for path in new)
    assert len(list((tmp_path / "out" / "png" / "merged").rglob("*.png"))) == 10
    keys = set()
    for path in (tmp_path / "out" / "webdataset").glob("*.tar"):
        with tarfile.open(path) as tar:
            keys |= {name.partition(".")[0] for name in tar.getnames()}
            assert not any(part in ("", "..") for name in tar.getnames() for part in name.split("/"))
    assert len(keys) == 10


def test_names_that_differ_by_case_are_refused() -> None:
    """They would be one file on some file systems; the names are told."""
    _refuse_clashes(lambda: ["disc_0", "disc_1", "dis/c_0"])
    with pytest.raises(DatasetError, match="both be called 'disc_1'"):
        _refuse_clashes(lambda: ["disc_0", "disc_1", "Disc_1"])


@given(st.text(min_size=1), st.text(min_size=1))
def test_file_names_are_safe_and_unmistakable(one: str, other: str) -> None:
    """No part is empty, hidden, a parent or too long; different names stay different."""
    for part in file_name(one).split("/"):
        assert part
        assert part[0] not in ". "
        assert part[-1] not in ". "
        assert len(part.encode()) < 200
        assert "\\" not in part
        assert "\0" not in part
    assert (file_name(one) == file_name(other)) == (one == other)


def test_parents_are_coded_and_long_names_cut() -> None:
    """A file system allows 255 bytes; a name that asks for a parent folder gets a file of that name."""
    assert file_name("../../etc/passwd") == "%2E%2E/%2E%2E/etc/passwd"
    long, longer = "漢" * 200, "漢" * 201
    assert len(file_name(long).encode()) <= 180
    assert file_name(long) != file_name(longer)
