"""Faults: whatever happens to a build or a run, a clear message, nothing half made under a final name, and no loss."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import os
import random
import resource
import shutil
import subprocess
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from conftest import COMMAND, Pictures, call, photograph, save, soft_disc
from matting_compose.composer import open_dataset
from matting_compose.composer.base.errors import DatasetError
from matting_compose.composer.building import background_reader, resume
from matting_compose.composer.inspection.verify import verify
from matting_compose.composer.sources import backgrounds, picture_bytes
from matting_compose.composer.sources import decode as decoding
from targets import RUN


def files(out: Path) -> dict[str, bytes]:
    """Read every file of a dataset but its locks."""
    paths = [path for path in out.rglob("*") if path.is_file() and not path.name.startswith(".lock")]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


@dataclass(frozen=True)
class Peace:
    """A dataset that was built in peace: its pictures, where it lies, its files."""

    pictures: Pictures
    out: Path
    files: dict[str, bytes]

    def arguments(self, out: Path, *more: str) -> list[str]:
        """Return the arguments of the same build into another folder."""
        return self.pictures.arguments(out, "-j", "1", *more)

    def assert_nothing_half_made(self, out: Path) -> None:
        """All that is there is what is there in peace."""
        found = files(out)
        assert {name for name, data in found.items() if self.files.get(name) != data} == set()


@pytest.fixture(scope="module")
def peace(tmp_path_factory: pytest.TempPathFactory) -> Peace:
    """Build in peace."""
    pictures = Pictures.make(tmp_path_factory.mktemp("peace") / "pictures")
    out = pictures.root / "dataset"
    assert call(*pictures.arguments(out, "-j", "1")).code == 0
    return Peace(pictures, out, files(out))


@pytest.fixture
def own(peace: Peace, tmp_path: Path) -> Peace:
    """Copy the pictures and the dataset, to be harmed."""
    root = Path(shutil.copytree(peace.pictures.root, tmp_path / "pictures"))
    return Peace(Pictures(root), root / "dataset", peace.files)


def full_after(count: int) -> Callable[[int], None]:
    """Return a disk that is full when the `count`-th file is to be made durable."""
    real, left = os.fsync, count

    def fsync(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    return fsync


@contextlib.contextmanager
def full_disk(count: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full_after(count))
        yield


# The disk


def test_a_disk_that_is_full_again_and_again(peace: Peace, tmp_path: Path) -> None:
    """Every file of a dataset in turn is the one for which there is no room: the build says so, and goes on."""
    out = tmp_path / "d"
    for attempt in range(60):
        with full_disk(2 + attempt % 9):  # a file is made durable, then its name in the folder
            done = call(*peace.arguments(out))
        peace.assert_nothing_half_made(out)
        if done.code == 0:
            break
        assert (done.code, "the disk is full" in done.err) == (1, True), done.err
    assert attempt > 4
    assert files(out) == peace.files


def test_what_a_build_names_is_on_the_disk(peace: Peace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of shards, too: whatever is renamed was synced before, and its folder is what is synced next."""
    events: list[tuple[str, int]] = []
    fsync, replace = os.fsync, Path.replace

    def record_fsync(descriptor: int) -> None:
        fsync(descriptor)
        events.append(("synced", os.fstat(descriptor).st_ino))

    def record_replace(path: Path, target: Path) -> Path:
        assert ("synced", path.stat().st_ino) in events, target
        events.append((target.name, target.parent.stat().st_ino))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_replace)
    assert call(*peace.arguments(tmp_path / "d")).code == 0
    named = {name: (folder, after) for (name, folder), after in itertools.pairwise(events) if name != "synced"}
    assert named.keys() == {Path(name).name for name in peace.files}
    assert all(after == ("synced", folder) for folder, after in named.values()), named


@pytest.mark.parametrize("size", [4_000, 60_000, 200_000])
def test_files_that_may_not_grow(peace: Peace, tmp_path: Path, size: int) -> None:
    """A limit of the system stops the writing itself: in a shard, or in the contact sheet."""
    out = tmp_path / "d"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    command = [str(COMMAND), *peace.arguments(out)]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    peace.assert_nothing_half_made(out)
    assert call(*peace.arguments(out)).code == 0
    assert files(out) == peace.files


def test_what_is_looked_at_is_written_whole_or_not_at_all(own: Peace, tmp_path: Path) -> None:
    """Reports, panels and exports on a full disk: a message, no file; what was there before is still there."""
    report, panel = tmp_path / "report.html", tmp_path / "panel.png"
    report.write_text("before")
    for more in (("--report", str(report)), ("--show", "0", "-o", str(panel))):
        with full_disk(1):
            done = call("inspect", str(own.out), *more)
        assert (done.code, "the disk is full" in done.err) == (1, True), done.err
    assert report.read_text() == "before"
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "pictures"}
    for form in ("png", "webdataset"):
        for attempt in range(60):
            with full_disk(1 + attempt % 9):  # a file is made durable, then its name in the folder
                done = call("export", str(own.out), str(tmp_path / form), "--to", form, "-j", "1")
            assert not list((tmp_path / form).rglob(".*.tmp"))
            if done.code == 0:
                break
            assert (done.code, "the disk is full" in done.err) == (1, True), done.err
        assert (done.code, attempt > 4) == (0, True)
        assert call("export", str(own.out), str(tmp_path / form), "--to", form, "-j", "1").code == 0


def test_checkpoints_on_a_full_disk(tmp_path: Path) -> None:
    """The one before is still there, whole, and nothing is left over."""
    torch = pytest.importorskip("torch")
    from matting_compose.composer.base.errors import TrainingError
    from matting_compose.trainer.networks.checkpoint import load_checkpoint, save_checkpoint

    save_checkpoint(tmp_path / "last.pt", {**RUN, "step": 1, "model": {"a": torch.zeros(3)}})
    with full_disk(1), pytest.raises(TrainingError, match=r"No space left on device.*make room"):
        save_checkpoint(tmp_path / "last.pt", {"step": 2, "model": {"a": torch.zeros(3)}})
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_a_folder_that_may_not_be_written(own: Peace, tmp_path: Path) -> None:
    """Building says so; looking and proving need no more than reading."""
    if os.geteuid() == 0:
        bind = ["mount", "--bind", "-o", "ro", str(own.out), str(own.out)]
        if subprocess.run(bind, capture_output=True, check=False).returncode:
            pytest.skip("root may write anywhere, and a mount is not allowed here")
    else:
        for path in (own.out, own.out / "shards"):
            path.chmod(0o555)
    try:
        (own.out / "dataset.json").read_text()
        refused = call(*own.arguments(own.out))
        assert (refused.code, "cannot be written" in refused.err) == (1, True), refused.err
        assert verify(own.out, jobs=1).problems == ()
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", str(own.out)], check=True)
        else:
            for path in (own.out, own.out / "shards"):
                path.chmod(0o755)


# Memory


@pytest.mark.parametrize("error", ["opencv", "python"])
def test_no_memory_is_not_a_bad_picture(
    peace: Peace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    """A decoder without memory stops the build with a message: the picture is not to blame, and not listed."""
    starved = cv2.error("Failed to allocate 1234 bytes")
    starved.code = cv2.Error.StsNoMem

    def decode(*_: object, **__: object) -> Any:
        raise starved if error == "opencv" else MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(decoding.simplejpeg, "decode_jpeg", decode)
        done = call(*peace.arguments(tmp_path / "d"))
    assert (done.code, "no memory left for a worker (fewer --jobs" in done.err) == (1, True), done.err
    assert call(*peace.arguments(tmp_path / "d")).code == 0
    assert files(tmp_path / "d") == peace.files


# Inputs


def test_a_picture_that_vanishes_in_mid_build(own: Peace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made of it before is kept and counts; the rest is listed, and made when it is back."""
    photo = own.pictures.photos / "COCO_000000000003.jpg"
    whole = photo.read_bytes()
    real = backgrounds.read_rgb

    def read_and_lose(path: Path, *rest: Any) -> Any:
        result = real(path, *rest)
        if path == photo:
            path.unlink()
        return result

    with monkeypatch.context() as patch:
        patch.setattr(background_reader, "MOST_BYTES", 0)  # else this process keeps it for its other shards
        patch.setattr(backgrounds, "read_rgb", read_and_lose)
        done = call(*own.arguments(tmp_path / "d", "--json"))
    assert done.code == 3, done.err
    assert 0 < done.json["failures"] < 20
    assert "missing: COCO_000000000003.jpg" in done.err
    photo.write_bytes(whole)
    assert call(*own.arguments(tmp_path / "d")).code == 0
    assert files(tmp_path / "d") == own.files


def test_a_picture_that_changes_between_plan_and_render(
    own: Peace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read is what counts: it is rendered and recorded as it was then, and a way back is refused."""
    cutout = own.pictures.cutouts / "disc 2.png"
    whole, real = cutout.read_bytes(), resume.make_plan

    def plan_and_change(*arguments: Any, **more: Any) -> Any:
        plan = real(*arguments, **more)
        save(cutout, np.dstack(soft_disc(100, 105, 9)))
        return plan

    out = tmp_path / "d"
    with monkeypatch.context() as patch:
        patch.setattr(resume, "make_plan", plan_and_change)
        assert call(*own.arguments(out)).code == 0
    assert verify(out, jobs=1).problems == ()
    sidecars = [json.loads(path.read_text()) for path in (out / "shards").glob("*.json")]
    recorded = {
        s["inputs"]["foreground disc 2.png"]["bytes"] for s in sidecars if "foreground disc 2.png" in s["inputs"]
    }
    assert recorded == {cutout.stat().st_size}
    cutout.write_bytes(whole)
    assert "foreground disc 2.png has changed since" in call(*own.arguments(out)).err


class Late(io.BufferedReader):
    """A file whose bytes come late."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, a while later."""
        time.sleep(0.01)
        return super().read(size)


def test_a_slow_disk_changes_nothing(own: Peace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that come late, as over a network, are the same pictures."""
    real, opened = picture_bytes.open_regular, set()

    def open_late(path: Path) -> Late:
        opened.add(path.name)
        return Late(real(path).detach())

    monkeypatch.setattr(picture_bytes, "open_regular", open_late)
    assert call(*own.arguments(tmp_path / "d")).code == 0
    assert files(tmp_path / "d") == own.files
    assert {path.name for path in own.pictures.cutouts.iterdir()} <= opened


# Clocks and names


def test_times_of_files_mean_nothing(own: Peace) -> None:
    """Files from 1970 and from 2100: a finished build stays finished, and a lost shard comes back."""
    rng = random.Random(1)
    for plan in (0, 4e9):
        for path in (*own.out.rglob("*"), *own.pictures.photos.iterdir(), *own.pictures.cutouts.iterdir()):
            os.utime(path, (plan if path.name == "plan.json" else rng.choice((0, 4e9)),) * 2)
        assert call(*own.arguments(own.out, "--json")).json["rendered"] == 0
    (own.out / "shards" / "shard-00001.h5").unlink()
    assert call(*own.arguments(own.out)).code == 0
    assert files(own.out) == own.files


def test_names_that_differ_by_case_only(tmp_path: Path) -> None:
    """A dry run warns; the dataset has both; an export into one folder is refused, and says how else."""
    for number, name in enumerate(("Foo", "foo")):
        save(tmp_path / "cutouts" / f"{name}.png", np.dstack(soft_disc(50, 60, number)))
    if len(list((tmp_path / "cutouts").iterdir())) == 1:
        pytest.skip("this file system does not tell case apart")
    save(tmp_path / "photos" / "a.jpg", photograph(80, 90, 1))
    folders = ["--foregrounds", str(tmp_path / "cutouts"), "--backgrounds", str(tmp_path / "photos")]
    arguments = ["build", *folders, "--variants", "1", "--out", str(tmp_path / "d"), "-j", "1"]
    assert "differ by case only" in call(*arguments, "--dry-run").out
    assert call(*arguments).code == 0
    export = ["export", str(tmp_path / "d"), str(tmp_path / "pngs"), "--to", "png", "-j", "1"]
    refused = call(*export)
    assert (refused.code, "--foreground" in refused.err) == (1, True)
    assert call(*export, "--foreground", "foo").code == 0


# Damaged files


@pytest.mark.parametrize("damage", ["emptied", "cut", "no object", "lacks a key", "of another", "flipped", "nested"])
def test_damaged_sidecars_are_not_believed(own: Peace, damage: str) -> None:
    """The shard is made again, and with it the sidecar; nothing of the damage gets into the index."""
    path = own.out / "shards" / "shard-00003.json"
    if damage != "flipped":  # the rest is seen in a build that was interrupted, too
        (own.out / "SHA256SUMS").unlink()
    whole = path.read_text()
    document = json.loads(whole)
    size, first = document["bytes"], next(iter(document["inputs"].values()))["sha256"]
    path.write_text(
        {
            "emptied": "",
            "cut": whole[: len(whole) // 2],
            "no object": "[1]",
            "lacks a key": json.dumps({k: v for k, v in document.items() if k != "inputs"}),
            "of another": json.dumps(json.loads(path.with_name("shard-00004.json").read_text()) | {"bytes": size}),
            "flipped": whole.replace(first, first[:9] + ("0" if first[9] != "0" else "1") + first[10:]),
            "nested": "[" * 100_000,
        }[damage]
    )
    assert call(*own.arguments(own.out)).code == 0
    assert files(own.out) == own.files


@pytest.mark.parametrize("name", ["plan.json", "dataset.json", "SHA256SUMS", "contact-sheet.jpg", ".lock"])
def test_other_damaged_files_are_written_anew_or_named(own: Peace, name: str) -> None:
    """Emptied: the same build writes it again; only a plan cannot be told from another one's."""
    (own.out / name).write_bytes(b"")
    done = call(*own.arguments(own.out))
    if name == "plan.json":
        assert (done.code, "plan.json: damaged" in done.err) == (1, True)
    else:
        assert done.code == 0
        assert files(own.out) == own.files


def test_every_flipped_bit_of_a_checkpoint_is_found(tmp_path: Path) -> None:
    """torch does not look at the checksums that it writes: we do. What is let through changes nothing."""
    torch = pytest.importorskip("torch")
    from matting_compose.composer.base.errors import TrainingError
    from matting_compose.trainer.networks.checkpoint import load_checkpoint, save_checkpoint

    path = tmp_path / "last.pt"
    state = {**RUN, "step": 7, "model": {f"w{i}": torch.arange(300.0) + i for i in range(6)}}
    save_checkpoint(path, state)
    whole, rng, found = path.read_bytes(), random.Random(3), 0
    for _ in range(300):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            loaded = load_checkpoint(path)
        except TrainingError:
            found += 1
            continue
        assert loaded["step"] == 7
        assert all(torch.equal(loaded["model"][name], value) for name, value in state["model"].items())
    assert found > 200
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(TrainingError):
            load_checkpoint(path)


def test_a_damaged_line_of_metrics_costs_that_line_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The lines after it are kept, the file as it was too, and it is said; a line that a stop has cut is no damage."""
    pytest.importorskip("torch")
    from matting_compose.composer.base.progress import ignore_progress
    from matting_compose.trainer.training.records import METRICS_FILE, read_records
    from matting_compose.trainer.training.run_log import RunLog

    numbers = {"loss": 0.5, "rate": 0.1, "crops_per_second": 1.0, "waiting": 0.0, "losses": {}}
    lines = [json.dumps({"kind": "train", "step": n, **numbers}) for n in range(5)]
    path = tmp_path / METRICS_FILE
    path.write_text("\n".join(lines) + '\n{"kind": "tr')
    RunLog(tmp_path, 9, 9, ignore_progress).close()
    assert ([record["step"] for record in read_records(tmp_path)], caplog.messages) == ([0, 1, 2, 3, 4], [])
    path.write_bytes("\n".join(lines).replace('"step": 2', '"step": \xff').encode("latin-1") + b"\n")
    RunLog(tmp_path, 9, 9, ignore_progress).close()
    assert [record["step"] for record in read_records(tmp_path)] == [0, 1, 3, 4]
    assert "1 damaged line left out" in caplog.messages[0]
    first = (tmp_path / "metrics.damaged.jsonl").read_bytes()
    path.write_bytes(b"\xff\n" + path.read_bytes())
    RunLog(tmp_path, 9, 9, ignore_progress).close()
    assert (tmp_path / "metrics.damaged.jsonl").read_bytes() == first
    assert (tmp_path / "metrics.damaged.jsonl.1").exists()


def test_a_line_of_metrics_that_would_fill_memory_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its values are counted before they are parsed, as those of any document."""
    pytest.importorskip("torch")
    from matting_compose.trainer.training.records import METRICS_FILE, read_lines

    monkeypatch.setattr("matting_compose.composer.base.files.MOST_VALUES", 100_000)
    (tmp_path / METRICS_FILE).write_text('{"kind": "train", "step": 1, "losses": [' + "[]," * 150_000 + "0]}\n")
    tracemalloc.start()
    assert read_lines(tmp_path) == [None]
    assert tracemalloc.get_traced_memory()[1] < 3_000_000  # parsed: 11
    tracemalloc.stop()


def test_a_full_disk_costs_lines_of_metrics_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is warned of once; when there is room again, lines are whole again."""
    pytest.importorskip("torch")
    from matting_compose.composer.base.progress import ignore_progress
    from matting_compose.trainer.training.records import read_records
    from matting_compose.trainer.training.run_log import RunLog

    class Disk:
        room = 10**6

        def write(self, data: bytes) -> int:
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = min(len(data), self.room)
            self.room -= written
            return int(file.write(data[:written]))

        def close(self) -> None:
            file.close()

    log = RunLog(tmp_path, 0, 0, ignore_progress)
    file, disk = log._file, Disk()
    log._file = disk  # type: ignore[assignment]
    scores = {"d": {"sad": 1.0, "mse": 1.0, "gradient": 1.0, "connectivity": 1.0}}
    for step, room in enumerate([10**6, 20, 0, 0, 10**6, 10**6]):
        disk.room = room
        log.validation(step, scores)
    log.close()
    assert [record["step"] for record in read_records(tmp_path)] == [0, 4, 5]
    assert [message.partition(": ")[0].partition("jsonl ")[2] for message in caplog.messages] == [
        "cannot be written (No space left on device); the training goes on"
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [("version", None), ("plan_sha256", None), ("shards", {}), ("recipe", {"shards": 1}), ("shards.composites", 99),
     ("shards.composites", -1), ("shards.file", "../shard-00000.h5"), ("shards.index", "0")],
)  # fmt: skip
def test_a_damaged_index_is_no_dataset(own: Peace, key: str, value: object) -> None:
    """Whatever is wrong with it, who reads the dataset gets a message that names a file."""
    path = own.out / "dataset.json"
    document = json.loads(path.read_text())
    table, _, inner = key.partition(".")
    if inner:
        document[table][0][inner] = value
    else:
        document[table] = value
    path.write_text(json.dumps(document))
    with pytest.raises(DatasetError, match=r"dataset\.json|shard-00000\.h5"):
        open_dataset(own.out)[0]
