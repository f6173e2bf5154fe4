"""Folder: where one run lives: nobody else's while it trains, begun once, gone on with as it was begun."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..composer.dataset import Dataset
from ..composer.errors import TrainingError
from .checkpoint import load_checkpoint
from .config import Config, differences
from .meter import crops_a_step
from .place import Place

LAST, BEST, CONFIG, LOCK = "last.pt", "best.pt", "config.json", ".lock"


def check_folder(out: Path, resume: bool) -> None:
    """Refuse a folder that is not what `resume` takes it for; nothing is written.

    Raises
    ------
    TrainingError : with the way out
    """
    if resume and not (out / LAST).exists():
        raise TrainingError(f"{out}: holds no run to go on with ({LAST} is not there); begin one without --resume")
    if resume:
        return
    if (out / LAST).exists():
        raise TrainingError(f"{out}: already holds a run; go on with it by --resume, or take another --out")
    if out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise TrainingError(f"{out}: not empty, and no run is in it; take another --out, or empty it")


@contextmanager
def held(out: Path, place: Place) -> Iterator[None]:
    """Hold the folder for this training alone; the lock goes with its process, however that ends.

    Raises
    ------
    TrainingError : another training holds it, or it cannot be written
    """
    if not place.leads:
        yield
        return
    lock = FileLock(out / LOCK)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise TrainingError(f"{out}: another training is running here; wait for it, or take another --out") from None
    except OSError as error:
        raise TrainingError(f"{out}: cannot be written ({error.strerror or error}); take another --out") from None
    try:
        yield
    finally:
        lock.release()


def write_config(out: Path, config: Config) -> None:
    """Record what a run is begun with."""
    text = json.dumps(config.model_dump(mode="json"), indent=1)
    (out / CONFIG).write_text(text + "\n", encoding="utf-8")


def previous_state(out: Path, dataset: Dataset, config: Config, place: Place) -> Mapping[str, Any]:
    """Load the state of a run to go on with, and check that it is this dataset's and this configuration's.

    Raises
    ------
    TrainingError : it is not, or cannot be read
    """
    last = out / LAST
    state = load_checkpoint(last)
    if state["plan_sha256"] != dataset.document["plan_sha256"]:
        raise TrainingError(f"{last}: was trained on another dataset than {dataset.path}; go on with that one")
    changed = differences(state["config"], config.model_dump(mode="json"))
    if not changed and state["crops"] != crops_a_step(config, place):
        changed = [
            f"crops a step were {state['crops']}, are {crops_a_step(config, place)}: stream.batch is a process's"
        ]
    if changed:
        raise TrainingError(
            f"{out}: belongs to another configuration: {'; '.join(changed)}. Leave --config and --set out to go on"
            " as it was begun, or take another --out"
        )
    return state
