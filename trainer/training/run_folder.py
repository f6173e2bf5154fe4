"""Run folder: where one run lives: begun once, gone on with as it was begun.

The last two checkpoints are kept, so that one that is damaged costs the steps between them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout

from ...composer.base.errors import TrainingError
from ...composer.base.file_names import LOCK
from ...composer.base.files import write_json
from ...composer.base.locks import lock_kind
from ...composer.base.text import count_of
from ..data.mix import Mix
from ..networks.checkpoint import load_checkpoint, save_checkpoint
from .config import RETUNABLE, SPLITTING, Config, amend_config, crops_per_step, differences, parse_config
from .run_page import warn_only
from .runtime import Runtime

__all__ = [
    "BEST",
    "LAST",
    "begun_config",
    "check_folder",
    "describe_datasets",
    "previous_state",
    "rescue_last",
    "save_first",
    "save_last",
    "set_last_aside",
    "write_notes",
]

LAST, PREVIOUS, DAMAGED, BEST = "last.pt", "previous.pt", "damaged.pt", "best.pt"
CONFIG, DATASETS = "config.json", "datasets.json"


RESCUE = 5.0  # seconds that a process gives the leading one to save


logger = logging.getLogger(__name__)


def check_folder(out: Path, resume: bool) -> None:
    """Refuse a folder that is not what `resume` takes it for; nothing is written.

    Raises
    ------
    TrainingError
        With the way out.
    """
    there = any((out / name).exists() for name in (LAST, PREVIOUS))
    if resume and not there:
        raise TrainingError(f"{out}: holds no run to go on with ({LAST} is not there); begin one without --resume")
    if resume:
        return
    if there:
        raise TrainingError(f"{out}: already holds a run; go on with it by --resume, or take another --out")
    if out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise TrainingError(f"{out}: not empty, and no run is in it; take another --out, or empty it")


def save_first(out: Path, state: dict[str, Any], room: int) -> None:
    """Write the first checkpoint, twice: on a disk that is full later the next ones take their places.

    Parameters
    ----------
    out : Path
        The run's folder.
    state : dict
        What checkpoints hold.
    room : int
        Bytes by which later ones are larger.

    Raises
    ------
    TrainingError
        It cannot be written.
    """
    for name in (PREVIOUS, LAST):
        save_checkpoint(out / name, state | {"room": torch.zeros(room, dtype=torch.uint8)})


def save_last(out: Path, state: dict[str, Any]) -> None:
    """Write the last checkpoint; the one before becomes the previous one, and at no moment is there none.

    Raises
    ------
    TrainingError
        It cannot be written; those that are there stay.
    """
    last, aside = out / LAST, out / f".{PREVIOUS}"
    with suppress(OSError):  # a disk without links: there is one generation then
        aside.unlink(missing_ok=True)
        os.link(last, aside)
        aside.replace(out / PREVIOUS)
    save_checkpoint(last, state)


def rescue_last(out: Path, state: dict[str, Any], runtime: Runtime) -> None:
    """Write the last checkpoint in the place of other processes, unless one of them has, or does within seconds.

    Raises
    ------
    TrainingError
        It cannot be written; those that are there stay.
    """
    lock = lock_kind(out)(out / LOCK)  # which the leading process holds while it lives
    with suppress(Timeout, OSError):
        lock.acquire(timeout=0 if runtime.leads else RESCUE)
    try:
        with suppress(TrainingError):
            if load_checkpoint(out / LAST)["step"] >= state["step"]:
                return
        save_last(out, state)
    finally:
        lock.release()


def _load_last(out: Path) -> tuple[str, Mapping[str, Any]]:
    """Load the last checkpoint; where it is damaged or gone, the previous one, and say so. Its name comes first."""
    try:
        return LAST, load_checkpoint(out / LAST)
    except TrainingError as error:
        if not (out / PREVIOUS).exists():
            raise
        state = load_checkpoint(out / PREVIOUS)
        logger.warning("%s; going on from %s, of step %s", error, PREVIOUS, f"{state['step']:,}")
        return PREVIOUS, state


def set_last_aside(out: Path) -> None:
    """Keep a last checkpoint that cannot be read as `damaged.pt`: a save would let it replace the previous one."""
    with suppress(FileNotFoundError):
        (out / LAST).replace(out / DAMAGED)


def begun_config(out: Path, overrides: Sequence[str] = ()) -> Config:
    """Return what a run was begun with, as its last checkpoint says: config.json is for people.

    Raises
    ------
    TrainingError
        There is no checkpoint that can be read.
    RecipeError
        An override cannot be used.
    """
    return amend_config(dict(_load_last(out)[1]["config"]), overrides, str(out / LAST))


def write_notes(out: Path, config: Config, mix: Mix) -> None:
    """Write down for people how a run goes on, and on what; what cannot be written ends nothing."""
    told = [{"path": str(dataset.path), "sha256": dataset.sha256, "share": share}
            for dataset, share in zip(mix.datasets, mix.shares, strict=True)]  # fmt: skip
    with warn_only():
        write_json(out / CONFIG, config.model_dump(mode="json"))
        write_json(out / DATASETS, {"datasets": told})


def describe_datasets(mix: Mix) -> list[dict[str, Any]]:
    """Say what is trained on, as checkpoints keep it: each dataset's content, plan, size, shards and share."""
    return [
        {
            "plan_sha256": dataset.plan_sha256,
            "sha256": dataset.sha256,
            "composites": len(dataset.numbers("train")),
            "share": share,
            "shards": {shard.file: [shard.sha256, shard.composites] for shard in dataset.shards},
        }
        for dataset, share in zip(mix.datasets, mix.shares, strict=True)
    ]


def previous_state(out: Path, mix: Mix, config: Config, runtime: Runtime) -> Mapping[str, Any]:
    """Load the state of a run to go on with, and check that it is these datasets' and this configuration's.

    Its ``file`` is the name of the checkpoint that it comes from.

    Raises
    ------
    TrainingError
        It is not, or cannot be read.
    """
    last = out / LAST
    name, found = _load_last(out)
    state = {**found, "file": name}
    _check_datasets(state["datasets"], mix, last)
    before = parse_config(state["config"], str(last))  # one of an older version may say the same otherwise
    other = differences(before.model_dump(mode="json"), config.model_dump(mode="json"))
    changed = [text for key, text in other.items() if key not in RETUNABLE + SPLITTING]
    if not changed and state["crops"] != crops_per_step(config, runtime):
        changed = [
            f"crops a step were {state['crops']}, are {crops_per_step(config, runtime)}: stream.batch is a process's;"
            " other numbers of processes go on with the same in all (--set stream.batch, optimiser.accumulate)"
        ]
    if changed:
        raise TrainingError(
            f"{out}: belongs to another configuration: {'; '.join(changed)}. Leave --config and --set out to go on"
            " as it was begun, or take another --out"
        )
    state["retuned"] = [*state.get("retuned", []), *(f"from step {state['step']}: {text}" for text in other.values())]
    return state


def _check_datasets(before: Sequence[Mapping[str, Any]], mix: Mix, last: Path) -> None:
    now = describe_datasets(mix)
    if len(before) != len(now):
        raise TrainingError(
            f"{last}: was trained on {count_of(len(before), 'dataset')}, not {len(now)}; go on with those"
        )
    for old, new, dataset in zip(before, now, mix.datasets, strict=True):
        if old["plan_sha256"] != new["plan_sha256"]:
            raise TrainingError(f"{last}: was trained on another dataset than {dataset.path}; go on with that one")
        if old.get("sha256") != new["sha256"]:  # mended, made by other versions, or not what it was
            _check_shards(old.get("shards", {}), new["shards"], dataset.path, last)
    shares = [":".join(str(one["share"]) for one in several) for several in (before, now)]
    if shares[0] != shares[1]:
        raise TrainingError(f"{last}: the datasets' weights were as {shares[0]}, are {shares[1]}; go on with those")


def _check_shards(
    before: Mapping[str, Sequence[Any]], now: Mapping[str, Sequence[Any]], dataset: Path, last: Path
) -> None:
    """Compare what is in the shards: those that lacked composites may have been mended, others stay as they are."""
    for file, (digest, composites) in before.items():
        found = now.get(file, ("", composites))
        if found[0] != digest and found[1] <= composites:
            raise TrainingError(
                f"{last}: was trained on other pixels than those of {dataset / 'shards' / file} (SHA-256"
                f" {digest[:12]}…, now {found[0][:12] or 'missing'}…). Restore the dataset that it was trained on; or"
                f" train anew on this one, from the weights that are there: --init {last}"
            )
