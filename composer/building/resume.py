"""Resume: what an earlier build left in the folder, and whether its inputs are still the same."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..base.errors import BuildError, DatasetError
from ..base.files import LOCK, TEMPORARY, file_sha256, write_json
from ..base.storage import list_sizes
from ..dataset.checksums import read_checksums
from ..dataset.documents import load_sidecar
from ..recipe import Recipe
from .plan import PLAN, Plan, ShardPlan, make_plan
from .shares import Alone


def resume_plan(recipe: Recipe, out: Path, *, write: bool = True, alone: Alone = contextlib.nullcontext) -> Plan:
    """Plan afresh in a new folder; in an old one make sure that it is the same plan.

    Parameters
    ----------
    write : keep the plan in the folder
    alone : under which no other process writes there; planning, which may take long, is done outside

    Raises
    ------
    BuildError : the folder holds another plan (the first difference is named), or things that are no dataset
    """
    path = out / PLAN
    begun = path.exists()
    if not begun and out.is_dir() and any(_is_foreign(item.name) for item in out.iterdir()):
        raise BuildError(f"{out}: the folder is not empty, and holds no dataset; choose another --out")
    plan = make_plan(recipe, shape=_begun_shape(path) if begun else None)
    with alone():
        if not path.exists():  # nor has another share's process written it meanwhile
            if write:
                write_json(path, {"plan_sha256": plan.sha256, **plan.document()})
            return plan
        old = _read_begun(path)
    if old.pop("plan_sha256", None) != plan.sha256:
        difference = _first_difference(old, plan.document()) or "the hash of an unchanged plan"
        raise BuildError(
            f"{out} was begun with another plan: {difference}.\n"
            "Build with what it was begun with, or choose another --out"
        )
    return plan


def _is_foreign(name: str) -> bool:
    """Tell whether a name is none that a build gives before its plan is there."""
    return not (name == "shards" or name.startswith(LOCK) or (name.startswith(".") and name.endswith(TEMPORARY)))


def _read_begun(path: Path) -> dict[str, Any]:
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        height, width = (int(side) for side in old["shape"])
        if min(height, width) < 1:
            raise ValueError(f"shape is {old['shape']}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BuildError(f"{path}: damaged ({error}); move the folder aside, or restore the file") from None
    return dict(old)


def _begun_shape(path: Path) -> tuple[int, int]:
    height, width = _read_begun(path)["shape"]
    return int(height), int(width)


def committed_sidecars(inputs: Inputs, plan: Plan, out: Path, shards: Sequence[ShardPlan]) -> dict[int, dict[str, Any]]:
    """Return the sidecars of those shards that are finished, by index; their inputs go to `inputs`.

    One that is damaged, or is not what a finished build's checksums say, counts as absent: its shard is made again.
    """
    try:
        sums = read_checksums(out) or {}
    except DatasetError:
        sums = {}
    done: dict[int, dict[str, Any]] = {}
    there = list_sizes(out / "shards")
    for shard in shards:
        path = out / "shards" / shard.name
        beside = path.with_suffix(".json")
        if there.get(shard.name) is None:
            continue
        try:
            sidecar = load_sidecar(beside)
        except DatasetError:
            continue
        expected = sums.get(f"shards/{beside.name}")
        whole = expected is None or expected == file_sha256(beside)
        mine = (sidecar.plan_sha256, sidecar.file, sidecar.index) == (plan.sha256, shard.name, shard.index)
        if whole and mine and there[shard.name] == sidecar.bytes:
            done[shard.index] = inputs.take(sidecar.model_dump())
    inputs.refuse_changed()
    inputs.refuse_mixed()
    return done


def _first_difference(old: Any, new: Any, place: str = "") -> str:
    """Say where two plans part, in a recipe's own words; empty where they do not."""
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [(str(key), old.get(key), new.get(key)) for key in [*old, *(key for key in new if key not in old)]]
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return f"{place} had {len(old):,} entries, now {len(new):,}"
        pairs = [(f"[{i}]", *both) for i, both in enumerate(zip(old, new, strict=True))]
    else:
        return "" if old == new else f"{place} was {json.dumps(old)}, now it is {json.dumps(new)}"
    for key, before, after in pairs:
        inner = f"{place}{key}" if key.startswith("[") else f"{place}.{key}".lstrip(".")
        if difference := _first_difference(before, after, inner):
            return difference
    return ""


class _Used(NamedTuple):
    """A file as the first shard that shows it saw it."""

    shard: str
    bytes: int
    sha256: str


class Inputs:
    """What the sidecars of a build say of the plan's pictures, each picture once, however many shards show it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._used: dict[str, _Used] = {}
        self._mixed: tuple[str, str, str] | None = None

    def take(self, sidecar: dict[str, Any]) -> dict[str, Any]:
        """Note a sidecar's inputs; return the sidecar without them: together, they would fill the memory."""
        for name, used in sidecar["inputs"].items():
            first = self._used.get(name)
            if first is None:
                self._used[name] = _Used(sidecar["file"], used["bytes"], used["sha256"])
            elif first.sha256 != used["sha256"]:
                self._mixed = self._mixed or (name, first.shard, sidecar["file"])
        return {key: value for key, value in sidecar.items() if key != "inputs"}

    def refuse_mixed(self) -> None:
        """Make sure that no picture was changed between two shards that show it.

        Raises
        ------
        BuildError : naming the picture and the shards
        """
        if self._mixed:
            name, one, other = self._mixed
            raise BuildError(
                f"{name} was changed while the dataset was built: {one} and {other} show different"
                f" versions. Delete the one with the wrong version, and run the same command again"
            )

    def refuse_changed(self) -> None:
        """Make sure that what was used has the size that it had. Files that are gone, or failed, may come back.

        Raises
        ------
        BuildError : naming the picture and a shard
        """
        paths = self._paths() if self._used else {}
        for name, used in self._used.items():
            path = paths.get(name)
            size = path.stat().st_size if path and path.is_file() else used.bytes
            if size != used.bytes:
                raise BuildError(
                    f"{name} has changed since {used.shard} was rendered: it had {used.bytes:,} bytes,"
                    f" now it has {size:,}. Restore it, or build into another --out"
                )

    def _paths(self) -> dict[str, Path]:
        plan = self._plan
        foregrounds, backgrounds = plan.foreground_layout, plan.background_layout
        paths = {f"background {name}": path for name in plan.backgrounds for path in backgrounds.files(name)}
        for entry, count in zip(plan.foregrounds, plan.counts, strict=True):
            for name, path in zip((entry.image, entry.alpha), foregrounds.files(entry), strict=False):
                paths[f"foreground {name}"] = path
            if trimaps := plan.supplied_trimaps:
                for variant in range(count):
                    paths[f"trimap {trimaps.name(entry.key, variant)}"] = trimaps.path(entry.key, variant)
        return paths
