"""The training loop, on a tiny dataset: what a run leaves, and what a stop, a resume and a second process do to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import cv2
import pytest

torch = pytest.importorskip("torch", reason="training needs the 'train' extra")

from matting_compose.composer import open_dataset  # noqa: E402 (only once torch is known to be there)
from matting_compose.composer.base.progress import Progress  # noqa: E402
from matting_compose.trainer.data.mix import open_mix  # noqa: E402
from matting_compose.trainer.networks.checkpoint import load_network  # noqa: E402
from matting_compose.trainer.training import judges, loop, validate  # noqa: E402
from matting_compose.trainer.training.config import load_config  # noqa: E402
from matting_compose.trainer.training.records import read_records  # noqa: E402
from matting_compose.trainer.training.runtime import Runtime  # noqa: E402
from runs import MODULE, arguments, asked_at, command, same, state, steps_of, tiny, together, train_in_process  # noqa: E402


def test_a_run_leaves_what_it_promises(whole: Path, finished: Path) -> None:
    """Checkpoints that others can read, a line a step, validations of foregrounds never trained on, a page."""
    assert {path.name for path in whole.iterdir()} == {
        ".lock", "README.md", "best.pt", "config.json", "datasets.json", "index.html", "last.pt", "metrics.jsonl",
        "panels", "previous.pt",
    }  # fmt: skip
    assert steps_of(whole, "train") == [1, 2, 3, 4, 5, 6, 7]
    assert steps_of(whole, "validation") == [0, 0, 4, 7]
    records = [record for record in read_records(whole) if record["kind"] == "validation"]
    scores = {record["step"]: record["sad"] for record in records if record["what"] == "network"}
    best = state(whole / "best.pt")
    assert best["best"] == min((sad, step) for step, sad in scores.items())[::-1]
    assert best["step"] == best["best"][0]
    assert load_config(whole / "config.json") == tiny()
    (noted,) = json.loads((whole / "datasets.json").read_text())["datasets"]
    assert noted["sha256"] == state(whole / "last.pt")["datasets"][0]["sha256"] == open_dataset(finished).sha256
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
        (one,) = validate.open_validation_sets(open_mix(dataset), tiny(f"validation.limit={limit}"))
        numbers = one.numbers
        assert len(set(numbers)) == min(limit, 4)
        assert {dataset.row(number).foreground for number in numbers} == {"disc 1"}


@pytest.mark.parametrize(("step", "before", "after"), [(2, 0, 1), (4, 0, 0), (7, 0, 0)])
def test_a_stop_changes_nothing(
    finished: Path, whole: Path, tmp_path: Path, step: int, before: int, after: int
) -> None:
    """Stopped in mid-epoch, where a validation was due, or at the end, gone on with by other workers: the same."""
    out = tmp_path / "run"
    outcome = train_in_process(finished, out, tiny(f"stream.workers={before}"), on_progress=asked_at(step))
    assert outcome.stopped
    assert outcome.step in (step, step + 1)
    assert "Stopped." in (out / "index.html").read_text()
    again = train_in_process(finished, out, tiny(f"stream.workers={after}"), resume=True)
    assert (again.step, again.stopped) == (7, False)
    for name in ("last.pt", "best.pt"):
        assert same(state(out / name), state(whole / name))
    assert steps_of(out, "train") == steps_of(whole, "train")
    assert sorted(steps_of(out, "validation")) == [0, 0, 4, 7]
    losses = [[r["loss"] for r in read_records(folder) if r["kind"] == "train"] for folder in (out, whole)]
    assert losses[0] == losses[1]
    done = train_in_process(finished, out, tiny(), resume=True)  # nothing is left to do
    assert (done.step, done.loss, done.best_score) == (7, None, again.best_score)
    assert same(state(out / "last.pt"), state(whole / "last.pt"))


def test_a_kill_costs_the_steps_since_the_last_checkpoint(finished: Path, whole: Path, tmp_path: Path) -> None:
    """After a death without a word, lines that are made again are not doubled, and half a line is dropped."""
    out = tmp_path / "run"

    def die(progress: Progress) -> None:
        if progress.done == 6:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train_in_process(finished, out, tiny("save_every=3"), on_progress=die)
    assert state(out / "last.pt")["step"] == 3
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    assert not train_in_process(finished, out, tiny(), resume=True).stopped
    assert same(state(out / "last.pt"), state(whole / "last.pt"))
    assert steps_of(out, "train") == [1, 2, 3, 4, 5, 6, 7]
    assert steps_of(out, "validation") == [0, 0, 4, 7]


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 1), (signal.SIGINT, 0), (signal.SIGHUP, 0)])
def test_a_signal_stops_the_command(finished: Path, tmp_path: Path, number: signal.Signals, workers: int) -> None:
    """A signal to every process, as a terminal or a batch system sends it: saved, exit 130; --resume alone goes on."""
    out = tmp_path / "run"
    more = ("--set=steps=100000", "--set=validation.every=100000", f"--set=stream.workers={workers}")
    with subprocess.Popen(
        [*MODULE, *arguments(finished, out, *more)], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "step 3/" in line:  # after the time
                # Of a lost terminal Python's own helper of shared memory complains, to nobody: not in this test.
                (os.kill if number == signal.SIGHUP else os.killpg)(process.pid, number)
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

    real = judges.predict_whole
    monkeypatch.setattr(judges, "predict_whole", predict)
    outcome = train_in_process(finished, tmp_path / "run", tiny())
    assert (outcome.step, outcome.stopped, seen) == (4, True, 1)
    monkeypatch.setattr(judges, "predict_whole", real)
    train_in_process(finished, tmp_path / "run", tiny(), resume=True)
    assert same(state(tmp_path / "run" / "best.pt"), state(whole / "best.pt"))
    assert same(state(tmp_path / "run" / "last.pt"), state(whole / "last.pt"))


def test_two_processes_are_one_with_twice_the_batch(finished: Path, whole: Path, tmp_path: Path) -> None:
    """With normalisation that does not look beyond a sample: the same weights and scores, but for summation's order."""
    out = tmp_path / "run"
    done = together(str(finished), "--out", str(out), "--config", str(whole / "config.json"), "--set=stream.batch=1")
    assert done.code == 0, done.err
    one, two = state(whole / "last.pt"), state(out / "last.pt")
    for key, value in one["model"].items():
        torch.testing.assert_close(two["model"][key], value, rtol=1e-3, atol=2e-4)
    assert steps_of(out, "train") == steps_of(whole, "train")
    for mine, theirs in zip(read_records(whole), read_records(out), strict=True):
        for name in {"loss", "gradient", "sad", "mse"} & mine.keys():
            assert theirs[name] == pytest.approx(mine[name], rel=1e-2)


def test_a_published_configuration_runs(finished: Path, tmp_path: Path) -> None:
    """Unpooling, batch normalisation, losses that compose, fusion, bf16, and checkpoints that stay."""
    config = load_config("shm-mnet", (
        "steps=3", "network.encoder=random", "network.width=0.03", "precision=bf16", "stream.batch=2", "stream.crop=64",
        "stream.workers=0", "keep_every=2", "validation.limit=1"))  # fmt: skip
    outcome = train_in_process(finished, tmp_path / "run", config)
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
    assert (found["validated"], found["steps"], found["warnings"]) == ({"dataset": 2}, 7, [])
    assert found["datasets"] == [{"path": str(finished), "composites": 16, "share": 1.0, "epochs": 14 / 16}]
    assert not out.exists()


def test_a_network_learns(finished: Path, tmp_path: Path) -> None:
    """Some steps beat a guess on composites of a foreground that training never saw.

    Of the better guess, from the trimap, so few pictures give 0.6 to 1.1, by chance; of this one, 0.3 to 0.8.
    """
    config = tiny("steps=90", "log_every=30", "stream.batch=4", "stream.crop=48", "network.norm=batch",
                  "optimiser.rate=1e-2", "validation.every=90", "validation.limit=4")  # fmt: skip
    train_in_process(finished, tmp_path / "run", config)
    records = read_records(tmp_path / "run")
    scores = {r["what"]: r["sad"] for r in records if r["kind"] == "validation"}
    assert scores["network"] < 0.9 * scores["unknown = 0.5"]


def test_panels_show_whole_composites(whole: Path) -> None:
    """Five pictures a row, each in a square, so that columns are of one width."""
    panel = cv2.imread(str(whole / "panels" / "step-0000004.png"))
    assert panel is not None
    assert panel.shape == (256, 5 * 256, 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: says nothing about the CUDA path without")
@pytest.mark.parametrize("more", [(), ("precision=bf16",), ("compile=true",)])
def test_a_gpu_trains(finished: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    """Losses on a GPU are near those on a CPU, and a run goes on there."""
    out = tmp_path / "run"
    gpu = Runtime(torch.device("cuda:0"))
    config = tiny("stream.workers=1", *more)
    loop.train(finished, out, config, gpu, asked_at(3))
    assert not loop.train(finished, out, config, gpu, resume=True).stopped
    assert not any(key.startswith("_orig_mod") for key in state(out / "last.pt")["model"])
    assert json.loads((out / "config.json").read_text())["compile"] == ("compile=true" in more)
