"""Run folder: where one run lives: begun once, gone on with as it was begun."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...composer.base.errors import TrainingError
from ...composer.base.files import write_json
from ...composer.base.text import count_of
from ..data.mix import Mix
from ..networks.checkpoint import load_checkpoint
from .config import Config, crops_per_step, differences, parse_config
from .runtime import Runtime

__all__ = ["BEST", "CONFIG", "LAST", "check_folder", "describe_datasets", "previous_state", "write_config"]

LAST, BEST, CONFIG = "last.pt", "best.pt", "config.json"


def check_folder(out: Path, resume: bool) -> None:
    """Refuse a folder that is not what `resume` takes it for; nothing is written.

    Raises
    ------
    TrainingError
        With the way out.
    """
    if resume and not (out / LAST).exists():
        raise TrainingError(f"{out}: holds no run to go on with ({LAST} is not there); begin one without --resume")
    if resume:
        return
    if (out / LAST).exists():
        raise TrainingError(f"{out}: already holds a run; go on with it by --resume, or take another --out")
    if out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise TrainingError(f"{out}: not empty, and no run is in it; take another --out, or empty it")


def write_config(out: Path, config: Config) -> None:
    """Record what a run is begun with."""
    write_json(out / CONFIG, config.model_dump(mode="json"))


def describe_datasets(mix: Mix) -> list[dict[str, Any]]:
    """Say what is trained on, as checkpoints keep it: each dataset's plan, composites, and share of the crops."""
    return [
        {"plan_sha256": dataset.plan_sha256, "composites": len(dataset.numbers("train")), "share": share}
        for dataset, share in zip(mix.datasets, mix.shares, strict=True)
    ]


def previous_state(out: Path, mix: Mix, config: Config, runtime: Runtime) -> Mapping[str, Any]:
    """Load the state of a run to go on with, and check that it is these datasets' and this configuration's.

    Raises
    ------
    TrainingError
        It is not, or cannot be read.
    """
    last = out / LAST
    state = load_checkpoint(last)
    _check_datasets(state["datasets"], mix, last)
    before = parse_config(state["config"], str(last))  # one of an older version may say the same otherwise
    changed = differences(before.model_dump(mode="json"), config.model_dump(mode="json"))
    if not changed and state["crops"] != crops_per_step(config, runtime):
        changed = [
            f"crops a step were {state['crops']}, are {crops_per_step(config, runtime)}: stream.batch is a process's"
        ]
    if changed:
        raise TrainingError(
            f"{out}: belongs to another configuration: {'; '.join(changed)}. Leave --config and --set out to go on"
            " as it was begun, or take another --out"
        )
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
    shares = [":".join(str(one["share"]) for one in several) for several in (before, now)]
    if shares[0] != shares[1]:
        raise TrainingError(f"{last}: the datasets' weights were as {shares[0]}, are {shares[1]}; go on with those")
