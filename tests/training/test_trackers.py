"""Trackers: TensorBoard, Weights & Biases and MLflow are told what metrics.jsonl has, by their own packages."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs the 'train' extra")

from matting_compose.composer.base.errors import TrainingError, UnknownNameError  # noqa: E402
from matting_compose.trainer.training.config import load_config  # noqa: E402
from matting_compose.trainer.training.records import read_records  # noqa: E402
from matting_compose.trainer.training.trackers import TRACKERS, Trackers, find_trackers  # noqa: E402
from runs import asked_at, command, tiny, train_in_process  # noqa: E402


class Recorder:
    """Keep what a tracker is told."""

    told: list[tuple[Any, ...]]

    def __init__(self, folder: Path, step: int, config: Any) -> None:
        type(self).told = [("open", folder.name, step, config["steps"])]

    def log_numbers(self, step: int, numbers: Any) -> None:
        self.told.append((step, dict(numbers)))

    def log_picture(self, step: int, name: str, picture: Any) -> None:
        self.told.append((step, name, picture.shape[2]))

    def close(self) -> None:
        self.told.append(("close",))


def test_a_tracker_is_told_all(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each number of metrics.jsonl by its path, single losses and guesses too, panels, where it begins and ends."""
    monkeypatch.setitem(TRACKERS._entries, "recorder", Recorder)
    config = tiny("steps=2", "validation.every=2", "losses.laplacian=1", 'trackers=["recorder"]')
    train_in_process(finished, tmp_path / "run", config)
    told = Recorder.told
    assert told[0] == ("open", "run", 0, 2)
    assert told[-1] == ("close",)
    assert (2, "panel", 3) in told
    numbers = {(t[0], name): value for t in told if isinstance(t[-1], dict) for name, value in t[-1].items()}
    for record in read_records(tmp_path / "run"):
        step = record["step"]
        if record["kind"] == "train":
            assert numbers[step, "train/loss"] == record["loss"]
            assert numbers[step, "train/losses/laplacian"] == record["losses"]["laplacian"]
        else:
            what = record["what"].replace(" = ", "-").replace(" ", "-")
            assert numbers[step, f"validation/dataset/{what}/sad"] == record["sad"]


def test_one_that_fails_costs_no_training(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is warned of once, and told nothing more; the others are. One that cannot be opened stops the start."""

    class Broken(Recorder):
        def log_numbers(self, step: int, numbers: Any) -> None:
            raise ConnectionError("no route")

    class Closed(Recorder):
        def __init__(self, folder: Path, step: int, config: Any) -> None:
            raise ConnectionError("no account")

    for kind in (Recorder, Broken, Closed):
        monkeypatch.setitem(TRACKERS._entries, kind.__name__, kind)
    with caplog.at_level(logging.WARNING):
        trackers = Trackers(["Broken", "Recorder"], Path("run"), 0, {"steps": 1})
        for step in range(2):
            trackers.log_numbers(step, {"loss": 1.0})
        trackers.close()
    assert caplog.messages == ["tracker 'Broken' is told no more (ConnectionError: no route); the training goes on"]
    assert Recorder.told[-3:] == [(0, {"loss": 1.0}), (1, {"loss": 1.0}), ("close",)]
    with pytest.raises(TrainingError, match="'Closed' cannot be opened: ConnectionError: no account"):
        Trackers(["Closed"], Path("run"), 0, {"steps": 1})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tensorbord", "did you mean 'tensorboard'"),
        ("os:system", "os holds no trackers"),
        ("nothing.there:Tracker", "is the package installed"),
        ("tiny_unet:TinyUNet", "expected a class with log_numbers"),
    ],
)
def test_what_is_none_is_told_before_a_folder_is_begun(name: str, said: str, finished: Path, tmp_path: Path) -> None:
    """In the dry run and at the start; nothing is executed that is no tracker."""
    with pytest.raises(UnknownNameError, match=said):
        find_trackers([name])
    for more in ([], ["--dry-run"]):
        done = command(str(finished), "--out", str(tmp_path / "run"), f'--set=trackers=["{name}"]', *more)
        assert (done.code, said in done.err) == (1, True)
    assert not (tmp_path / "run").exists()


def test_a_missing_package_is_told_by_the_dry_run(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to install."""
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    done = command(str(finished), "--out", str(tmp_path / "run"), "--set=tensorboard=true", "--dry-run")
    assert (done.code, "[tensorboard]'" in done.err) == (1, True)


def test_a_run_of_before_goes_on() -> None:
    """``tensorboard = true`` is the tracker of that name."""
    assert load_config(None, ["tensorboard=true"]).trackers == ["tensorboard"]
    assert load_config(None, ["tensorboard=false"]).trackers == []


def stopped_and_resumed(dataset: Path, out: Path, tracker: str) -> None:
    config = tiny("steps=4", f'trackers=["{tracker}"]')
    assert train_in_process(dataset, out, config, on_progress=asked_at(1)).stopped
    assert not train_in_process(dataset, out, config, resume=True).stopped


def test_tensorboard_is_told(finished: Path, tmp_path: Path) -> None:
    """Scalars by steps, and a panel, as its own reader finds them."""
    pytest.importorskip("tensorboard", reason="the extra of that name")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stopped_and_resumed(finished, tmp_path / "run", "tensorboard")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    losses = {r["step"]: r["losses"] for r in read_records(tmp_path / "run") if r["kind"] == "train"}
    found = {event.step: event.value for event in events.Scalars("train/losses/alpha_prediction")}
    assert found == {step: pytest.approx(value["alpha_prediction"]) for step, value in losses.items()}
    assert {event.step for event in events.Scalars("validation/dataset/trimap-alone/sad")} == {0}
    assert [event.step for event in events.Images("panel")] == [4]


def wandb_records(path: Path) -> Iterator[Any]:
    """Read a run's file: LevelDB's log, blocks of 32 KiB in which each part has a checksum, its size and its kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = path.read_bytes(), 7, b""
    while at < len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        size, last = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6] in (1, 4)
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if last:
            yield Record.FromString(parts)
            parts = b""


def test_weights_and_biases_are_told(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, in the run's folder, one run before and after a stop."""
    wandb = pytest.importorskip("wandb", reason="the extra 'trackers'")
    for key, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_CONSOLE": "off"}.items():
        monkeypatch.setenv(key, value)
    stopped_and_resumed(finished, tmp_path / "run", "wandb_tracker:WandbTracker")
    wandb.teardown()  # its own process, which may still be writing what was finished, has ended then
    told: dict[int, set[str]] = {}
    files = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    for record in (record for file in files for record in wandb_records(file)):
        keys = {"/".join(item.nested_key) or item.key for item in record.history.item}
        told.setdefault(record.history.step.num, set()).update(keys)
    assert len({file.name for file in files}) == 1
    assert all("train/losses/alpha_prediction" in told[step] for step in (1, 2, 3, 4))
    assert {"validation/dataset/network/sad", "panel/path"} <= told[4]


def test_mlflow_is_told(finished: Path, tmp_path: Path) -> None:
    """A store in the run's folder, one run before and after a stop."""
    mlflow = pytest.importorskip("mlflow", reason="the extra 'trackers'")
    stopped_and_resumed(finished, tmp_path / "run", "mlflow_tracker:MLflowTracker")
    client = mlflow.MlflowClient((tmp_path / "run" / "mlflow").as_uri())
    (run,) = client.search_runs(["0"])
    steps = [found.step for found in client.get_metric_history(run.info.run_id, "train/losses/alpha_prediction")]
    assert (run.info.status, steps) == ("FINISHED", [1, 2, 3, 4])
    assert "validation/dataset/unknown-0.5/sad" in run.data.metrics
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"config.json", "panel-0000004.png"}
