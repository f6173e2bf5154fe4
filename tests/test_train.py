"""The training loop, on a tiny dataset: what a stop, a resume, a second process and bad input do to it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from filelock import FileLock

torch = pytest.importorskip("torch", reason="training needs the 'train' extra")

from conftest import Ran, call  # noqa: E402 (only once torch is known to be there)
from matting_compose.composer import open_dataset  # noqa: E402
from matting_compose.trainer import cli, journal, learner, loop  # noqa: E402
from matting_compose.trainer.checkpoint import load_network  # noqa: E402
from matting_compose.trainer.config import Config, load_config  # noqa: E402
from matting_compose.trainer.journal import Line, read_records  # noqa: E402
from matting_compose.trainer.learner import Learner, learning_rate  # noqa: E402
from matting_compose.trainer.place import Place  # noqa: E402
from matting_compose.trainer.stream import open_stream  # noqa: E402

torch.set_num_threads(1)
CPU = Place(torch.device("cpu"))
MODULE = [sys.executable, "-m", "matting_compose.trainer.cli"]
TINY = (
    "steps=7", "log_every=1", "save_every=100", "network.width=0.03", "network.decoder=resize",
    "network.output=sigmoid", "network.norm=group", "stream.batch=2", "stream.crop=32", "stream.sizes=[32,48]",
    "stream.workers=0", "optimiser.rate=1e-3", "optimiser.ema=0.9", "validation.every=4", "validation.limit=2",
    "validation.panel=1",
)  # fmt: skip


def tiny(*more: str) -> Config:
    """Configure seven steps of two crops of 32 px."""
    return load_config(None, (*TINY, *more))


class Watching:
    """A display that does something when a step's line is shown."""

    def __init__(self, act: Callable[[int], None] = lambda step: None) -> None:
        self.said: list[str] = []
        self._act = act

    def line(self, line: Line) -> None:
        self._act(line.step)

    def say(self, text: str) -> None:
        self.said.append(text)


def taught(dataset: Path, out: Path, config: Config, resume: bool = False, **how: Any) -> loop.Outcome:
    """Train in this process."""
    return loop.train(dataset, out, config, CPU, Watching(**how), resume)


def asked_at(step: int) -> Callable[[int], None]:
    """Send this process SIGTERM when a step's line is shown."""
    return lambda now: signal.raise_signal(signal.SIGTERM) if now == step else None


def arguments(dataset: Path, out: Path, *more: str) -> list[str]:
    """Return the command's arguments for `tiny`."""
    return [str(dataset), "--out", str(out), "--device", "cpu", *(f"--set={item}" for item in TINY), *more]


def command(*arguments: str) -> Ran:
    """Run `matting-train` in this process."""
    done = CliRunner().invoke(cli.train, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Ran(done.exit_code, done.stdout, done.stderr)


def state(path: Path) -> dict[str, Any]:
    """Read a checkpoint without the clock's part in it."""
    found: dict[str, Any] = torch.load(path, weights_only=True)
    return {key: value for key, value in found.items() if key not in ("seconds", "config")}


def same(one: Any, other: Any) -> bool:
    """Compare two nested states, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def steps_of(out: Path, kind: str) -> list[int]:
    """Return the steps of a run's lines."""
    return [record["step"] for record in read_records(out) if record["kind"] == kind]


@pytest.fixture(scope="module")
def whole(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train in one go; to be read only."""
    out = tmp_path_factory.mktemp("whole") / "run"
    outcome = taught(finished, out, tiny())
    assert (outcome.step, outcome.stopped) == (7, False)
    return out


@pytest.fixture(autouse=True)
def _quick(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no curves but once: they take longer than the steps."""
    monkeypatch.setattr(journal, "_draw_curves", lambda *_: None)


def test_a_run_leaves_what_it_promises(whole: Path, finished: Path) -> None:
    """Checkpoints that others can read, a line a step, validations of foregrounds never trained on, a page."""
    assert {path.name for path in whole.iterdir()} == {
        ".lock", "best.pt", "config.json", "curves.png", "index.html", "last.pt", "metrics.jsonl", "panels",
    }  # fmt: skip
    assert steps_of(whole, "train") == [1, 2, 3, 4, 5, 6, 7]
    assert steps_of(whole, "validation") == [0, 0, 4, 7]
    records = [record for record in read_records(whole) if record["kind"] == "validation"]
    scores = {record["step"]: record["sad"] for record in records if record["what"] == "network"}
    best = state(whole / "best.pt")
    assert best["best"] == min((sad, step) for step, sad in scores.items())[::-1]
    assert best["step"] == best["best"][0]
    assert load_config(whole / "config.json") == tiny()
    page = (whole / "index.html").read_text()
    assert "Finished." in page
    assert "step-0000007.png" in page
    kept, now = load_network(whole / "last.pt").state_dict(), state(whole / "last.pt")
    assert all(torch.equal(kept[key], value) for key, value in now["ema"].items())
    assert not same(now["ema"], now["model"])


def test_validation_is_of_the_validation_split(finished: Path) -> None:
    """Only composites of its foregrounds are scored and shown, spread over them."""
    dataset = open_dataset(finished)
    for limit in (1, 3, 100):
        numbers = loop.validation_samples(dataset, limit)
        assert len(set(numbers)) == min(limit, 4)
        assert {dataset.row(number).foreground for number in numbers} == {"disc 1"}


@pytest.mark.parametrize(("step", "before", "after"), [(2, 0, 1), (4, 0, 0), (7, 0, 0)])
def test_a_stop_changes_nothing(
    finished: Path, whole: Path, tmp_path: Path, step: int, before: int, after: int
) -> None:
    """Stopped in mid-epoch, where a validation was due, or at the end, gone on with by other workers: the same."""
    out = tmp_path / "run"
    outcome = taught(finished, out, tiny(f"stream.workers={before}"), act=asked_at(step))
    assert outcome.stopped
    assert outcome.step in (step, step + 1)
    assert "Stopped." in (out / "index.html").read_text()
    again = taught(finished, out, tiny(f"stream.workers={after}"), resume=True)
    assert (again.step, again.stopped) == (7, False)
    for name in ("last.pt", "best.pt"):
        assert same(state(out / name), state(whole / name))
    assert steps_of(out, "train") == steps_of(whole, "train")
    assert sorted(steps_of(out, "validation")) == [0, 0, 4, 7]
    losses = [[r["loss"] for r in read_records(folder) if r["kind"] == "train"] for folder in (out, whole)]
    assert losses[0] == losses[1]
    done = taught(finished, out, tiny(), resume=True)  # nothing is left to do
    assert (done.step, done.loss, done.best_sad) == (7, None, again.best_sad)
    assert same(state(out / "last.pt"), state(whole / "last.pt"))


def test_a_kill_costs_the_steps_since_the_last_checkpoint(finished: Path, whole: Path, tmp_path: Path) -> None:
    """After a death without a word, lines that are made again are not doubled, and half a line is dropped."""
    out = tmp_path / "run"

    def die(step: int) -> None:
        if step == 6:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        taught(finished, out, tiny("save_every=3"), act=die)
    assert state(out / "last.pt")["step"] == 3
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    assert not taught(finished, out, tiny(), resume=True).stopped
    assert same(state(out / "last.pt"), state(whole / "last.pt"))
    assert steps_of(out, "train") == [1, 2, 3, 4, 5, 6, 7]
    assert steps_of(out, "validation") == [0, 0, 4, 7]


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 1), (signal.SIGINT, 0)])
def test_a_signal_stops_the_command(finished: Path, tmp_path: Path, number: signal.Signals, workers: int) -> None:
    """A signal to every process, as a terminal or a batch system sends it: saved, exit 130; --resume alone goes on."""
    out = tmp_path / "run"
    more = ("--set=steps=100000", "--set=validation.every=100000", f"--set=stream.workers={workers}")
    with subprocess.Popen(
        [*MODULE, *arguments(finished, out, *more)], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("step 3/"):
                os.killpg(process.pid, number)
                break
        rest = process.stderr.read()
        assert process.wait() == 130, rest
    assert "go on with --resume" in rest
    assert "Traceback" not in rest
    step = state(out / "last.pt")["step"]
    assert steps_of(out, "train") == list(range(1, step + 1))
    more = ("--steps", str(step + 2), "--set=stream.workers=0")
    done = command(str(finished), "--out", str(out), "--resume", "--device=cpu", "--json", *more)
    assert (done.code, done.json["step"]) == (0, step + 2), done.err
    assert steps_of(out, "train") == list(range(1, step + 3))


def failing(act: Callable[[], None]) -> Any:
    """Make a stream that gives three batches and then does something else."""
    real = loop.open_stream

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
        patched.setattr(loop, "open_stream", failing(stall))
        outcome = taught(finished, tmp_path / "run", tiny())
    assert (outcome.step, outcome.stopped) == (3, True)
    taught(finished, tmp_path / "run", tiny(), resume=True)
    assert same(state(tmp_path / "run" / "last.pt"), state(whole / "last.pt"))


def test_a_reading_process_that_dies_is_told(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was trained before is saved, and the message says what may help."""

    def die() -> None:
        raise RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")  # torch's words

    monkeypatch.setattr(loop, "open_stream", failing(die))
    with pytest.raises(loop.TrainingError, match=r"fewer stream.workers.*Saved at step 3"):
        taught(finished, tmp_path / "run", tiny())
    assert state(tmp_path / "run" / "last.pt")["step"] == 3


def test_a_stop_need_not_wait_for_a_validation(
    finished: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wish in the midst of one ends it after the picture at hand; it is made when the run goes on."""
    seen = 0

    def predict(*given: Any) -> Any:
        nonlocal seen
        seen += 1
        signal.raise_signal(signal.SIGTERM)
        return real(*given)

    real = loop.predict_whole
    monkeypatch.setattr(loop, "predict_whole", predict)
    outcome = taught(finished, tmp_path / "run", tiny())
    assert (outcome.step, outcome.stopped, seen) == (4, True, 1)
    monkeypatch.setattr(loop, "predict_whole", real)
    taught(finished, tmp_path / "run", tiny(), resume=True)
    assert same(state(tmp_path / "run" / "best.pt"), state(whole / "best.pt"))
    assert same(state(tmp_path / "run" / "last.pt"), state(whole / "last.pt"))


def test_two_processes_are_one_with_twice_the_batch(finished: Path, whole: Path, tmp_path: Path) -> None:
    """With normalisation that does not look beyond a sample: the same weights and scores, but for summation's order."""
    together = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    out = tmp_path / "run"
    done = subprocess.run(
        [*together, "--nproc-per-node=2", "-m", MODULE[-1], str(finished), "--out", str(out), "--device=cpu",
         "--config", str(whole / "config.json"), "--set=stream.batch=1"],
        env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = state(whole / "last.pt"), state(out / "last.pt")
    for key, value in one["model"].items():
        torch.testing.assert_close(two["model"][key], value, rtol=1e-3, atol=2e-4)
    assert steps_of(out, "train") == steps_of(whole, "train")
    for mine, theirs in zip(read_records(whole), read_records(out), strict=True):
        for name in {"loss", "gradient", "sad", "mse"} & mine.keys():
            assert theirs[name] == pytest.approx(mine[name], rel=1e-2)


def test_accumulating_is_a_larger_batch(finished: Path) -> None:
    """Two batches of four to a step move the weights as one batch of eight does, whatever their unknown regions."""
    losses = ("losses.laplacian=1", "losses.gradient=0.5", "losses.compositional=1")
    one, two = tiny("stream.batch=8", *losses), tiny("stream.batch=4", "optimiser.accumulate=2", *losses)
    learners = []
    for config in (one, two):
        taught_one = Learner(config, CPU)
        stream = iter(open_stream(finished, batch=config.stream.batch, crop=32, sizes=(32, 48), colours=True))
        numbers = []
        for step in range(2):
            batches = [next(stream) for _ in range(config.optimiser.accumulate)]
            numbers.append(taught_one.step(step, batches).numbers)
        learners.append((taught_one, torch.stack(numbers)))
    torch.testing.assert_close(learners[0][1], learners[1][1], rtol=1e-3, atol=1e-4)
    for a, b in zip(*(one.network.parameters() for one, _ in learners), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-4)


def test_clip_and_average_do_what_they_say(finished: Path) -> None:
    """A clipped step of plain size; the average moves towards the weights by its decay, early ones faster."""
    batch = next(iter(open_stream(finished, batch=2, crop=32, sizes=(32,))))
    seen: list[float] = []

    class Measuring(torch.optim.Adam):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            grads = [p.grad for group in self.param_groups for p in group["params"]]
            seen.append(float(torch.linalg.vector_norm(torch.cat([g.flatten() for g in grads]))))
            super().step(closure)

    for clip, wanted in ((0.0, None), (0.01, 0.01)):
        trained = Learner(tiny(f"optimiser.clip={clip}"), CPU)
        trained._optimiser.__class__ = Measuring
        assert trained.ema is not None
        before = [p.clone() for p in trained.ema.parameters()]
        numbers = trained.step(0, [batch]).numbers
        assert seen[-1] == pytest.approx(wanted or float(numbers[1]), rel=1e-3)
        for old, kept, now in zip(before, trained.ema.parameters(), trained.network.parameters(), strict=True):
            torch.testing.assert_close(kept, old * 0.1 + now * 0.9)  # decay (1 + 0) / (10 + 0)


def test_the_rate_follows_its_schedule() -> None:
    """It rises in a line and falls by half a cosine, to nothing at the end; a constant one stays."""
    settings = tiny("optimiser.schedule=cosine", "optimiser.warmup=4", "optimiser.rate=1").optimiser
    rates = [learning_rate(settings, step, 24) for step in range(25)]
    np.testing.assert_allclose(rates[:5], [0.2, 0.4, 0.6, 0.8, 1])
    assert rates[14] == pytest.approx(0.5)
    assert rates[24] == pytest.approx(0, abs=1e-9)
    assert all(a > b for a, b in pairwise(rates[4:]))
    constant = tiny("optimiser.rate=1").optimiser
    assert {learning_rate(constant, step, 24) for step in range(30)} == {1.0}


def test_a_published_configuration_runs(finished: Path, tmp_path: Path) -> None:
    """Unpooling, batch normalisation, losses that compose, fusion, bf16, and checkpoints that stay."""
    config = load_config("shm", (
        "steps=3", "network.encoder=random", "network.width=0.03", "precision=bf16", "stream.batch=2", "stream.crop=64",
        "stream.workers=0", "keep_every=2", "validation.limit=1"))  # fmt: skip
    outcome = taught(finished, tmp_path / "run", config)
    assert not outcome.stopped
    assert sorted(path.name for path in (tmp_path / "run").glob("step-*.pt")) == [
        "step-0000002.pt", "step-0000003.pt"]  # fmt: skip


def test_a_dry_run_writes_nothing(finished: Path, tmp_path: Path) -> None:
    """It says what would be trained, for people and for scripts."""
    out = tmp_path / "run"
    told = command(*arguments(finished, out, "--dry-run"))
    assert told.code == 0
    assert "7 steps of 2 crops: 0.9 epochs of 16 composites" in told.out
    found = command(*arguments(finished, out, "--dry-run", "--json")).json
    assert (found["composites"], found["validated"], found["steps"], found["warnings"]) == (16, 2, 7, [])
    assert not out.exists()


def test_events_for_tensorboard(finished: Path, tmp_path: Path) -> None:
    """They are written beside the run's own page where they are asked for, and where TensorBoard is there."""
    out = tmp_path / "run"
    done = command(*arguments(finished, out, "--steps=1", "--set=tensorboard=true"))
    if done.code:
        assert "pip install" in done.err
        pytest.skip("TensorBoard is not installed")
    assert list((out / "tensorboard").iterdir())


WRONG = [
    (["--set=steps=0"], 2, "steps"),
    (["--steps=-3"], 2, "steps"),
    (["--set=colour=red"], 2, "colour: unknown key"),
    (["--set=losses.colour=1"], 2, "unknown loss 'colour'"),
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
    other = command(*arguments(finished, whole, "--resume", "--set=optimiser.rate=1e-5"))
    assert (other.code, "optimiser.rate was 0.001, is 1e-05" in other.err) == (1, True)
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
    cases: list[tuple[str, Callable[[Path], Any]]] = [
        ("damaged", lambda path: path.write_bytes((whole / "last.pt").read_bytes()[:-900])),
        ("damaged", lambda path: path.write_bytes(b"")),
        ("damaged", lambda path: path.write_bytes(pickle.dumps({"format": Bomb()}))),
        ("more than plain data", lambda path: torch.save(good | {"ema": Bomb()}, path)),
        ("no checkpoint of matting-compose", lambda path: torch.save({"model": {}}, path)),
        ("version 99", lambda path: torch.save(good | {"version": 99}, path)),
        ("a network without its training", lambda path: torch.save(good | {"optimiser": None}, path)),
        ("another dataset", lambda path: torch.save(good | {"plan_sha256": "0"}, path)),
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

    def spoil(step: int) -> None:
        if step == 2:
            path.write_bytes(content[:400] + bytes(len(content) - 400))

    with pytest.raises(loop.TrainingError, match="Saved at step"):
        taught(copied, out, tiny("stream.workers=1", "stream.prefetch=1"), act=spoil)
    assert 2 <= state(out / "last.pt")["step"] < 7
    path.write_bytes(content)
    taught(copied, out, tiny(), resume=True)
    assert same(state(out / "last.pt"), state(whole / "last.pt"))


def test_a_step_that_is_not_finite_stops(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its composites are named, the checkpoint before it stays, and nothing of it is saved."""
    real = learner.LOSSES["alpha_prediction"]
    calls = 0

    def poisoned(prediction: Any) -> Any:
        nonlocal calls
        calls += 1
        return real(prediction) * (float("nan") if calls == 6 else 1)

    monkeypatch.setitem(learner.LOSSES, "alpha_prediction", poisoned)
    with pytest.raises(loop.TrainingError, match=r"step 6: not finite.*disc.*lower optimiser.rate"):
        taught(finished, tmp_path / "run", tiny("log_every=100", "save_every=3", "validation.every=100"))
    saved = state(tmp_path / "run" / "last.pt")
    assert saved["step"] == 3
    assert all(value.isfinite().all() for value in saved["model"].values())


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


def test_a_full_disk_keeps_what_was_saved(finished: Path, whole: Path, tmp_path: Path) -> None:
    """No room for a checkpoint: told, the one before it is whole; with room again the run goes on."""
    size = (whole / "last.pt").stat().st_size
    with small_disk(tmp_path / "disk", f"{size * 5 // 2 // 1024}k") as disk:
        out = disk / "run"
        filler = disk / "filler"

        def fill(step: int) -> None:
            if step == 2:
                filler.write_bytes(bytes(shutil.disk_usage(disk).free - size // 2))

        with pytest.raises(loop.TrainingError, match="cannot be written"):
            taught(finished, out, tiny("save_every=3"), act=fill)
        assert state(out / "last.pt")["step"] == 0
        assert not list(out.glob(".*.tmp"))
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        taught(finished, out, tiny(), resume=True)
        assert same(state(out / "last.pt"), state(whole / "last.pt"))


def test_a_network_learns(finished: Path, tmp_path: Path) -> None:
    """A few dozen steps beat both guesses on composites of a foreground that training never saw."""
    config = tiny("steps=90", "log_every=30", "stream.batch=4", "stream.crop=48", "network.norm=batch",
                  "optimiser.rate=1e-2", "validation.every=90", "validation.limit=4")  # fmt: skip
    taught(finished, tmp_path / "run", config)
    scores = {r["what"]: r["sad"] for r in read_records(tmp_path / "run") if r["kind"] == "validation"}
    assert scores["network"] < 0.9 * min(scores["unknown = 0.5"], scores["trimap alone"])


def test_panels_show_whole_composites(whole: Path) -> None:
    """Five pictures a row, at one height."""
    panel = cv2.imread(str(whole / "panels" / "step-0000004.png"))
    assert panel is not None
    assert panel.shape[0] == 256 + 6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: says nothing about the CUDA path without")
@pytest.mark.parametrize("more", [(), ("precision=bf16",), ("compile=true",)])
def test_a_gpu_trains(finished: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    """Losses on a GPU are near those on a CPU, and a run goes on there."""
    out = tmp_path / "run"
    gpu = Place(torch.device("cuda:0"))
    config = tiny("stream.workers=1", *more)
    loop.train(finished, out, config, gpu, Watching(asked_at(3)), resume=False)
    assert not loop.train(finished, out, config, gpu, Watching(), resume=True).stopped
    assert not any(key.startswith("_orig_mod") for key in state(out / "last.pt")["model"])
    assert json.loads((out / "config.json").read_text())["compile"] == ("compile=true" in more)
