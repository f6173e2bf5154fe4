"""Trainings that meet wrong usage, bad data, full disks and each other: told, and nothing that was saved is lost."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from filelock import FileLock

torch = pytest.importorskip("torch", reason="training needs the 'train' extra")

from conftest import call  # noqa: E402 (only once torch is known to be there)
from matting_compose.composer import open_dataset  # noqa: E402
from matting_compose.composer.base.progress import Progress  # noqa: E402
from matting_compose.trainer.data.stream import open_stream  # noqa: E402
from matting_compose.trainer.networks.losses import Loss  # noqa: E402
from matting_compose.trainer.training import batches, learner, loop, run_folder, validate  # noqa: E402
from matting_compose.trainer.training.config import load_config  # noqa: E402
from matting_compose.trainer.training.learner import Learner  # noqa: E402
from runs import MODULE, TINY, arguments, command, same, state, steps_of, tiny, together, train_in_process  # noqa: E402


def failing(act: Callable[[], None]) -> Any:
    """Make a stream that gives three batches and then does something else."""
    real = batches.open_stream

    class Failing:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self._stream = real(*arguments, **options)

        def __iter__(self) -> Iterator[Any]:
            yield from islice(self._stream, 3)
            act()

        def close(self) -> None:
            self._stream.close()

    return Failing


def stall() -> None:
    """Wait for ever, and be asked to stop meanwhile."""
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        signal.alarm(1)
        signal.pause()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_stop_need_not_wait_for_data(
    finished: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that never answers keeps nobody from saving."""
    with monkeypatch.context() as patched:
        patched.setattr(batches, "open_stream", failing(stall))
        outcome = train_in_process(finished, tmp_path / "run", tiny())
    assert (outcome.step, outcome.stopped) == (3, True)
    train_in_process(finished, tmp_path / "run", tiny(), resume=True)
    assert same(state(tmp_path / "run" / "last.pt"), state(whole / "last.pt"))


def test_a_reading_process_that_dies_is_told(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was trained before is saved, and the message says what may help."""

    def die() -> None:
        raise RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")  # torch's words

    monkeypatch.setattr(batches, "open_stream", failing(die))
    with pytest.raises(loop.TrainingError, match=r"fewer stream.workers.*Saved at step 3"):
        train_in_process(finished, tmp_path / "run", tiny())
    assert state(tmp_path / "run" / "last.pt")["step"] == 3


WRONG = [
    (["--set=steps=0"], 2, "steps"),
    (["--steps=-3"], 2, "steps"),
    (["--set=colour=red"], 2, "colour: unknown key"),
    (["--set=losses.colour=1"], 2, "no loss is called 'colour'"),
    (["--set=optimiser.rate=-1"], 2, "optimiser.rate"),
    (["--config=nonesuch"], 2, "no configuration is called 'nonesuch'"),
    (["--config=missing.toml"], 2, "no such configuration file"),
    (["--resume"], 1, "holds no run to go on with"),
    (["--set=stream.crop=512"], 1, "take --set stream.crop="),
    (["--device=cuda:77"], 1, "sees no GPU" if not torch.cuda.is_available() else "there are"),
    (["--set=network.encoder=nowhere.pth"], 1, "nowhere.pth"),
]


@pytest.mark.parametrize(("more", "code", "text"), WRONG, ids=[more[0] for more, _, _ in WRONG])
def test_wrong_usage_is_explained(finished: Path, tmp_path: Path, more: list[str], code: int, text: str) -> None:
    """A message, an exit code, and nothing left behind."""
    settings = [] if "--resume" in more else [f"--set={item}" for item in TINY]
    done = command(str(finished), "--out", str(tmp_path / "run"), "--device=cpu", *settings, *more)
    assert done.code == code
    assert text in done.err
    assert not (tmp_path / "run").exists()


def test_datasets_that_cannot_train_are_refused(finished: Path, copied: Path, tmp_path: Path) -> None:
    """None, half of one, and one without backgrounds for a loss that composes."""
    out = tmp_path / "run"
    nothing = command(*arguments(tmp_path / "nowhere", out))
    assert (nothing.code, "expected a dataset's folder" in nothing.err) == (1, True)
    (copied / "dataset.json").unlink()
    half = command(*arguments(copied, out))
    assert (half.code, "run the same build again to finish it" in half.err) == (1, True)
    assert call("build", "demo", "--out", str(tmp_path / "d"), "--set", "foregrounds.count=1", "--set", "variants=1",
                "--set", "backgrounds.count=1", "--set", "split.validation=0").code == 0  # fmt: skip
    bare = command(*arguments(tmp_path / "d", out, "--set=losses.compositional=1"))
    assert (bare.code, "shards.background=unknown" in bare.err) == (1, True)
    unscored = command(*arguments(tmp_path / "d", out, "--steps=1"))
    assert (unscored.code, "no validation split" in unscored.err) == (0, True)
    assert not (out / "best.pt").exists()
    assert "no validation split" in (out / "index.html").read_text()


def test_folders_are_not_mixed(finished: Path, whole: Path, tmp_path: Path) -> None:
    """A run is begun where nothing is, and gone on with as it was begun, by one training at a time."""
    before = (whole / "last.pt").read_bytes()
    twice = command(*arguments(finished, whole))
    assert (twice.code, "go on with it by --resume" in twice.err) == (1, True)
    other = command(*arguments(finished, whole, "--resume", "--set=optimiser.decay=0.5"))
    assert (other.code, "optimiser.decay was 0.0, is 0.5" in other.err) == (1, True)
    with FileLock(whole / ".lock"):
        second = command(*arguments(finished, whole, "--resume"))
    assert (second.code, "another training is running here" in second.err) == (1, True)
    assert (whole / "last.pt").read_bytes() == before
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("precious")
    foreign = command(*arguments(finished, tmp_path / "run"))
    assert (foreign.code, "not empty" in foreign.err) == (1, True)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]
    nowhere = command(*arguments(finished, tmp_path / "run" / "thesis.txt" / "run"))
    assert (nowhere.code, "cannot be written" in nowhere.err) == (1, True)


class Bomb:
    """What a hostile pickle does when it is read carelessly."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("exploded",)


def test_checkpoints_that_are_none_are_refused(
    finished: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Truncated, hostile, foreign, of another dataset, or a network alone: told, and nothing in them is executed."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.json").write_bytes((whole / "config.json").read_bytes())
    good = torch.load(whole / "last.pt", weights_only=True)
    (trained,) = good["datasets"]
    cases: list[tuple[str, Callable[[Path], Any]]] = [
        ("damaged", lambda path: path.write_bytes((whole / "last.pt").read_bytes()[:-900])),
        ("found an empty file", lambda path: path.write_bytes(b"")),
        ("found a bare pickle", lambda path: path.write_bytes(pickle.dumps({"format": Bomb()}))),
        ("more than plain data", lambda path: torch.save(good | {"ema": Bomb()}, path)),
        ("no checkpoint of matting-compose", lambda path: torch.save({"model": {}}, path)),
        ("version 99", lambda path: torch.save(good | {"version": 99}, path)),
        ("a network without its training", lambda path: torch.save(good | {"optimiser": None}, path)),
        ("another dataset", lambda path: torch.save(good | {"datasets": [dict(trained, plan_sha256="0")]}, path)),
        ("on 0 datasets, not 1", lambda path: torch.save(good | {"datasets": []}, path)),
        ("cannot be made out", lambda path: torch.save(good | {"datasets": [{"plan_sha256": 1}]}, path)),
        ("does not fit", lambda path: torch.save(good | {"model": {}}, path)),
    ]
    for text, spoil in cases:
        spoil(out / "last.pt")
        done = command(str(finished), "--out", str(out), "--resume", "--device=cpu")
        assert (done.code, text in done.err) == (1, True), done.err
        assert not (tmp_path / "exploded").exists()


def test_a_shard_that_turns_bad_costs_nothing(copied: Path, whole: Path, finished: Path, tmp_path: Path) -> None:
    """What was trained before is saved; with the shard mended, the run goes on as if nothing had been."""
    out = tmp_path / "run"
    shard = next(s for s in open_dataset(copied).shards if s.split == "train")
    path = copied / "shards" / shard.file
    content = path.read_bytes()

    def spoil(progress: Progress) -> None:
        if progress.done == 2:
            path.write_bytes(content[:400] + bytes(len(content) - 400))

    with pytest.raises(loop.TrainingError, match="Saved at step"):
        train_in_process(copied, out, tiny("stream.workers=1", "stream.prefetch=1"), on_progress=spoil)
    assert 2 <= state(out / "last.pt")["step"] < 7
    path.write_bytes(content)
    train_in_process(copied, out, tiny(), resume=True)
    assert same(state(out / "last.pt"), state(whole / "last.pt"))


def damage(dataset: Path, number: int) -> Path:
    """Spoil the picture of one composite; return its shard."""
    opened = open_dataset(dataset)
    row, path = opened.row(number), dataset / "shards" / opened.shards[opened.locate(number)[0]].file
    opened.close()
    with h5py.File(path) as file:
        found: list[Any] = []
        file[f"groups/{row.group:05d}/image"].id.chunk_iter(found.append)
    with path.open("rb+") as raw:
        for chunk in found:
            if chunk.chunk_offset[0] == row.position:
                raw.seek(chunk.byte_offset)
                raw.write(bytes(chunk.size))
    return path


def test_a_validation_that_meets_bad_data_costs_nothing(copied: Path, whole: Path, tmp_path: Path) -> None:
    """What was trained before it is saved; with the shard mended, the run goes on as if nothing had been."""
    out, before = tmp_path / "run", shutil.copytree(copied / "shards", tmp_path / "before")
    number = validate.spread(open_dataset(copied).numbers("validation").tolist(), 2)[1]

    def spoil(progress: Progress) -> None:
        if progress.done == 2:
            damage(copied, number)

    with pytest.raises(loop.TrainingError, match=r"composite disc 1.*Saved at step 4"):
        train_in_process(copied, out, tiny(), on_progress=spoil)
    assert state(out / "last.pt")["step"] == 4
    shutil.copytree(before, copied / "shards", dirs_exist_ok=True)
    train_in_process(copied, out, tiny(), resume=True)
    for name in ("last.pt", "best.pt"):
        assert same(state(out / name), state(whole / name))
    assert steps_of(out, "validation") == [0, 0, 4, 7]


def test_one_process_of_two_meets_bad_data(copied: Path, tmp_path: Path) -> None:
    """Both stop before the step that lacks a batch, with what they have trained saved, and say which shard it is."""
    stream = iter(open_stream(copied, batch=2, crop=32, sizes=(32, 48)))
    number = [next(stream) for _ in range(4)][3].samples[1]  # the second process's, in the fourth step
    shard, out = damage(copied, int(number)).name, tmp_path / "run"
    done = together(*arguments(copied, out, "--set=stream.batch=1", "--set=validation.limit=1"))
    assert done.code == 1
    assert done.err.count(f"Error: {shard}: composite") == 2, done.err
    assert done.err.count("Saved at step 3: once it is mended, go on with --resume") == 2
    assert state(out / "last.pt")["step"] == 3
    assert steps_of(out, "train") == [1, 2, 3]


def test_a_step_that_is_not_finite_stops(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its composites are named, the checkpoint before it stays, and nothing of it is saved."""
    real = learner.LOSSES["alpha_prediction"]
    calls = 0

    def poisoned(prediction: Any) -> Any:
        nonlocal calls
        calls += 1
        return real(prediction) * (float("nan") if calls == 6 else 1)

    monkeypatch.setitem(learner.LOSSES._entries, "alpha_prediction", Loss(poisoned))
    out = tmp_path / "run"
    with pytest.raises(loop.TrainingError, match=r"step 6: not finite.*disc.*stream.skip=\[6\].*lower optimiser.rate"):
        train_in_process(finished, out, tiny("log_every=100", "save_every=3", "validation.every=100"))
    saved = state(out / "last.pt")
    assert saved["step"] == 3
    assert all(value.isfinite().all() for value in saved["model"].values())
    found = json.loads((out / "not-finite-0000006.json").read_text())
    assert (found["step"], found["values"]["alpha_prediction"], len(found["crops"])) == (6, "nan", 2)
    dataset = open_dataset(finished)
    (sixth,) = islice(open_stream(dataset, batch=2, crop=32, sizes=(32, 48), start=5), 1)
    for i, crop in enumerate(found["crops"]):
        assert (crop["dataset"], crop["key"]) == (str(finished), dataset.row(sixth.samples[i]).key)
        side = crop["side"]
        alpha = dataset.window(int(sixth.samples[i]), crop["top"], crop["left"], side, side).alpha
        alpha = cv2.resize(alpha, (32, 32), interpolation=cv2.INTER_AREA)
        assert np.array_equal(cv2.flip(alpha, 1) if crop["mirrored"] else alpha, sixth.alpha[i, 0].numpy())


def test_what_was_not_finite_can_be_left_out(
    finished: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A run goes on without a step's composites, keeps a record of it, and never sees them again."""
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    small: Any = {"crop": 32, "sizes": (32, 48)}
    left_out = {crop.key for crop in open_stream(finished, **small).origins(range(10, 12))}
    (out / "last.pt").rename(out / "spoiled.pt")  # back to the checkpoint before
    resume = (str(finished), "--out", str(out), "--resume", "--device=cpu", "--set=stream.skip=[6]", "--set=steps=20")
    opened: list[Any] = []
    with monkeypatch.context() as patched:
        patched.setattr(batches, "open_stream", lambda *a, **o: opened.append(o["skip"]) or open_stream(*a, **o))
        done = command(*resume)
    assert (done.code, opened) == (0, [[10, 11]]), done.err
    assert "going on from previous.pt" in caplog.text
    assert state(out / "last.pt")["retuned"] == ["from step 0: stream.skip was [], is [6]"]
    seen = {crop.key for crop in open_stream(finished, **small, skip=range(10, 12)).origins(range(64))}
    everything = {row.key for row in open_dataset(finished).rows() if row.foreground != "disc 1"}
    assert seen == everything - left_out
    with pytest.raises(ValueError, match="no composite is left"):
        open_stream(finished, **small, skip=range(16))


def test_too_little_memory_is_explained(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that is too small is told with what to change, not as a traceback."""

    def full(*_: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB\nand more")

    monkeypatch.setattr(Learner, "step", full)
    done = command(*arguments(finished, tmp_path / "run"))
    assert (done.code, "Halve stream.batch" in done.err, "Traceback" in done.err) == (1, True, False)


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """Mount a small disk, or skip."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_keeps_what_was_saved(
    finished: Path, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No room for a checkpoint: told, the training goes on, the one before is whole; with room again a run goes on."""
    size = (whole / "last.pt").stat().st_size
    with small_disk(tmp_path / "disk", f"{size * 11 // 4 // 1024}k") as disk:
        out, filler = disk / "run", disk / "filler"

        def fill(progress: Progress) -> None:
            if progress.done == 5:
                (out / "previous.pt").unlink()  # what a checkpoint's room is otherwise taken from
                filler.write_bytes(bytes(shutil.disk_usage(disk).free - size // 2))

        with pytest.raises(loop.TrainingError, match=r"last.pt: cannot be written .* make room"):
            train_in_process(finished, out, tiny("save_every=3"), on_progress=fill)
        assert "last.pt: cannot be written" in caplog.text
        assert "The training goes on" in caplog.text
        assert steps_of(out, "train")[-1] == 7
        assert state(out / "last.pt")["step"] == 3
        assert not list(out.glob(".*.tmp"))
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        train_in_process(finished, out, tiny(), resume=True)
        assert same(state(out / "last.pt"), state(whole / "last.pt"))


def test_a_full_disk_is_saved_on_at_once(finished: Path, tmp_path: Path, whole: Path) -> None:
    """Where a line finds no room, a checkpoint does: that of the generation before last is kept for it."""
    size = (whole / "last.pt").stat().st_size
    saved: list[int] = []
    with small_disk(tmp_path / "disk", f"{size * 4 // 1024}k") as disk:
        out = disk / "run"

        def fill(progress: Progress) -> None:
            saved.append(state(out / "last.pt")["step"])
            if progress.done == 2:
                with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
                    while file.write(bytes(512)):
                        pass

        train_in_process(finished, out, tiny("steps=20", "validation.every=100"), on_progress=fill)
        assert (saved[2], saved[-1] > 2, state(out / "last.pt")["step"]) == (0, True, 20)


def test_processes_do_not_wait_for_ever(finished: Path, whole: Path, tmp_path: Path) -> None:
    """Where one of two is killed or stands still, the other saves within seconds; one alone goes on in their order."""
    deeds = ["1:SIGKILL:4", "1:SIGSTOP:3", "0:SIGSTOP:5", "0:SIGKILL:2"]
    script = [sys.executable, str(Path(__file__).parents[1] / "ranks.py"), str(finished), str(tmp_path), "4", *deeds]
    ran = subprocess.run(script, capture_output=True, text=True, check=True, timeout=300)
    for i, (deed, line) in enumerate(zip(deeds, ran.stdout.splitlines(), strict=True)):
        told, seconds = json.loads(line)
        saved = int(deed[-1])
        assert ("no sign of life for 4 s" if "STOP" in deed else "has ended") in told
        assert f"Saved at step {saved}: go on with --resume" in told
        assert state(tmp_path / str(i) / "last.pt")["step"] == saved
        assert seconds < 60
    resume = (str(finished), "--out", str(tmp_path / "1"), "--resume", "--device=cpu", "--steps=7")
    assert "crops a step were 2, are 1" in command(*resume).err
    done = command(*resume, "--set=stream.batch=2")  # one process takes what two have taken
    assert done.code == 0, done.err
    ended = state(tmp_path / "1" / "last.pt")
    assert ended["retuned"] == ["from step 3: stream.batch was 1, is 2"]
    for key, value in state(whole / "last.pt")["model"].items():
        torch.testing.assert_close(ended["model"][key], value, rtol=1e-3, atol=2e-4)


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    finished: Path, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told, and the run ends as it did; neither config.json nor the records are needed for that."""
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    assert state(out / "previous.pt")["step"] < 7
    (out / "last.pt").write_bytes((whole / "last.pt").read_bytes()[:-900])
    (out / "config.json").unlink()
    (out / "metrics.jsonl").unlink()
    (out / "metrics.jsonl").mkdir()
    done = command(str(finished), "--out", str(out), "--resume", "--device=cpu")
    assert done.code == 0, done.err
    assert "going on from previous.pt, of step 0" in caplog.text
    assert "the training goes on without" in caplog.text
    assert same(state(out / "last.pt"), state(whole / "last.pt"))
    assert load_config(out / "config.json") == tiny()


def test_a_damaged_checkpoint_takes_no_whole_ones_place(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one before is kept until another one is written: a run that goes on, and cannot save, can be gone on with."""
    out = tmp_path / "run"
    train_in_process(finished, out, tiny("save_every=3"))
    assert [state(out / name)["step"] for name in ("previous.pt", "last.pt")] == [6, 7]
    damaged = (out / "last.pt").read_bytes()[:-900]
    (out / "last.pt").write_bytes(damaged)

    def refuse(path: Path, _: dict[str, Any]) -> None:
        raise loop.TrainingError(f"{path}: cannot be written")

    with monkeypatch.context() as patched:
        patched.setattr(run_folder, "save_checkpoint", refuse)
        with pytest.raises(loop.TrainingError, match="cannot be written"):
            train_in_process(finished, out, tiny("save_every=3"), resume=True)
    assert state(out / "previous.pt")["step"] == 6
    assert (out / "damaged.pt").read_bytes() == damaged
    assert train_in_process(finished, out, tiny("save_every=3"), resume=True).step == 7
    assert [state(out / name)["step"] for name in ("previous.pt", "last.pt")] == [6, 7]


def test_a_damaged_checkpoint_is_kept_where_the_one_before_is_the_first(finished: Path, tmp_path: Path) -> None:
    """A run that ended before it saved twice begins anew, and what it had may be of use to somebody."""
    out = tmp_path / "run"
    train_in_process(finished, out, tiny("save_every=100"))
    assert state(out / "previous.pt")["step"] == 0
    (out / "last.pt").write_bytes(b"damaged")
    assert train_in_process(finished, out, tiny("save_every=100"), resume=True).step == 7
    assert (out / "damaged.pt").read_bytes() == b"damaged"


def test_other_pixels_under_the_same_names_are_refused(
    copied: Path, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A run goes on with the shards that it was begun with; those that lacked composites may have been mended: told."""
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    index = (copied / "dataset.json").read_text()
    first = open_dataset(copied).shards[0]
    (copied / "dataset.json").write_text(index.replace(first.sha256, "0" * 64))
    done = command(str(copied), "--out", str(out), "--resume", "--device=cpu")
    assert (done.code, "other pixels" in done.err, first.file in done.err) == (1, True, True)
    (copied / "dataset.json").write_text(index)
    saved = torch.load(out / "last.pt", weights_only=True)
    (trained,) = saved["datasets"]
    lacking = {
        "sha256": "1" * 64,
        "composites": trained["composites"] - 1,
        "shards": trained["shards"] | {first.file: ["1" * 64, first.composites - 1]},
    }
    torch.save(saved | {"datasets": [trained | lacking]}, out / "last.pt")
    done = command(str(copied), "--out", str(out), "--resume", "--device=cpu")
    assert (done.code, "a dataset was mended since the last step" in caplog.text) == (0, True), done.err


def test_a_run_that_was_not_finite_goes_on_otherwise(finished: Path, tmp_path: Path) -> None:
    """A lower rate is taken from the last checkpoint on, told, and kept in all that follow."""
    much = ("--set=optimiser.rate=1e19", "--set=optimiser.clip=0", "--set=optimiser.warmup=0")
    failed = command(*arguments(finished, tmp_path / "run", *much))
    assert (failed.code, "not finite" in failed.err) == (1, True)
    resume = (str(finished), "--out", str(tmp_path / "run"), "--resume", "--device=cpu", "--set=optimiser.rate=1e-4")
    assert command(*resume).code == 0
    assert state(tmp_path / "run" / "last.pt")["retuned"] == ["from step 0: optimiser.rate was 1e+19, is 0.0001"]
    assert load_config(tmp_path / "run" / "config.json").optimiser.rate == 1e-4


def test_a_killed_training_leaves_nobody_behind(finished: Path, tmp_path: Path) -> None:
    """Its reading processes, and the server that started them, end with it."""
    more = ("--set=steps=100000", "--set=validation.every=99999", "--set=stream.workers=2")
    with subprocess.Popen([*MODULE, *arguments(finished, tmp_path / "run", *more)], start_new_session=True) as training:
        wait_until(lambda: steps_of(tmp_path / "run", "train"))
        training.kill()
    wait_until(lambda: not living(training.pid))


def wait_until(met: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end
        time.sleep(0.1)


def living(group: int) -> list[str]:
    """List the processes of a group that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            command, _, rest = path.read_text().rpartition(")")
            state, _, its_group = rest.split()[:3]
            if int(its_group) == group and state not in "ZX":
                found.append(command)
    return found
