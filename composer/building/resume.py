"""Resume: what an earlier build left in the folder, and whether it is of the same plan."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..base.errors import BuildError, DatasetError
from ..base.file_names import LOCK
from ..base.files import TEMPORARY, file_sha256, parse_json, read_document, write_json
from ..base.storage import is_remote, list_sizes
from ..dataset.checksums import read_checksums
from ..dataset.documents import Sidecar, load_sidecar
from ..recipe import Recipe, Split, rooted
from .inputs import BuildInputs
from .make_plan import make_plan
from .plan import PLAN, VERSION, Plan, ShardPlan


def plan_build(recipe: Recipe, out: Path) -> Plan:
    """Plan a build; where the folder holds a dataset, make sure that it is of the same plan. Nothing is written.

    Parameters
    ----------
    recipe : Recipe
        What to build; its relative paths are relative to the working directory.
    out : Path
        The dataset's folder, as `resolve_path` gives it; need not exist.

    Raises
    ------
    PlanError
        The recipe and its pictures do not add up.
    BuildError
        The folder holds another plan (the first difference is named), or things that are no dataset.
    """
    path = out / PLAN
    begun = path.exists()
    if not begun:
        _refuse_foreign(out)
    recipe, shape = rooted(recipe), None
    if begun:
        old = _read_begun(path)
        shape = tuple(old["shape"])
        if recipe.split.validation == "auto":
            recipe = recipe.model_copy(update={"split": _begun_split(old, path)})
    plan = make_plan(recipe, shape)
    if begun:
        _refuse_other_plan(plan, out)
    return plan


def keep_plan(plan: Plan, out: Path) -> float:
    """Write a plan into its folder, unless it is there; make sure that no other is. Nobody else writes meanwhile.

    Returns
    -------
    float
        When the build was begun, in seconds since 1970; 0 where the storage does not say.

    Raises
    ------
    BuildError
        The folder holds another plan.
    """
    path = out / PLAN
    if path.exists():  # another share's process may have written it since it was planned
        _refuse_other_plan(plan, out)
    else:
        _refuse_foreign(out)
        write_json(path, {"plan_sha256": plan.sha256, **plan.document()})
    return 0.0 if is_remote(path) else path.stat().st_mtime


def _refuse_foreign(out: Path) -> None:
    if out.is_dir() and any(_is_foreign(item.name) for item in out.iterdir()):
        raise BuildError(f"{out}: the folder is not empty, and holds no dataset; choose another --out")


def _is_foreign(name: str) -> bool:
    """Tell whether a name is none that a build gives before its plan is there."""
    return not (name == "shards" or name.startswith(LOCK) or (name.startswith(".") and name.endswith(TEMPORARY)))


def _refuse_other_plan(plan: Plan, out: Path) -> None:
    old = _read_begun(out / PLAN)
    refuse_other_rules(old.get("plan_version"), out)
    if old.pop("plan_sha256", None) != plan.sha256:
        difference = _first_difference(old, plan.document()) or "the hash of an unchanged plan"
        raise BuildError(
            f"{out} was begun with another plan: {difference}.\n"
            "Build with what it was begun with, or choose another --out"
        )


def refuse_other_rules(version: object, out: Path) -> None:
    """Make sure that shards made from now on would follow the rules of those that are there.

    Raises
    ------
    BuildError
        With both versions, and the way out.
    """
    if version != VERSION:
        raise BuildError(
            f"{out}: its shards follow version {version} of the rules by which pixels are made, this program version"
            f" {VERSION}: it would mix them. As it is, the dataset can be opened, verified, exported and trained from."
            " To finish or mend it take the version of matting-compose that began it; or build into another --out"
        )


def _read_begun(path: Path) -> dict[str, Any]:
    try:
        old = parse_json(read_document(path))
        height, width = (int(side) for side in old["shape"])
        if min(height, width) < 1:
            raise ValueError(f"shape is {old['shape']}")
        old["shape"] = [height, width]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BuildError(f"{path}: damaged ({error}); move the folder aside, or restore the file") from None
    return dict(old)


def _begun_split(old: dict[str, Any], path: Path) -> Split:
    """Return what a build kept for validation when it was begun: other defaults since are no other plan."""
    try:
        return Split.model_validate(old["recipe"]["split"])
    except (KeyError, TypeError, ValidationError) as error:
        raise BuildError(f"{path}: damaged ({error}); move the folder aside, or restore the file") from None


def committed_sidecars(
    inputs: BuildInputs, plan: Plan, out: Path, shards: Sequence[ShardPlan], since: float = 0.0
) -> dict[int, Sidecar]:
    """Return the sidecars of those shards that are finished, by index; their inputs go to `inputs`.

    One that is damaged, or is not what a finished build's checksums say, counts as absent: its shard is made again.

    Parameters
    ----------
    since : float
        See `BuildInputs.refuse_changed`.

    Raises
    ------
    BuildError
        A picture has changed since a shard was made from it, or between two.
    """
    try:
        sums = read_checksums(out) or {}
    except DatasetError:
        sums = {}
    done: dict[int, Sidecar] = {}
    there = list_sizes(out / "shards")
    for shard in shards:
        beside = (out / "shards" / shard.name).with_suffix(".json")
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
            done[shard.index] = inputs.take(sidecar)
    inputs.refuse_changed(since)
    inputs.refuse_mixed()
    return done


def _first_difference(old: Any, new: Any, key: str = "") -> str:
    """Say where two plans part, in a recipe's own words; empty where they do not."""
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [(str(name), old.get(name), new.get(name)) for name in dict.fromkeys([*old, *new])]
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return f"{key} had {len(old):,} entries, now {len(new):,}"
        pairs = [(f"[{i}]", *both) for i, both in enumerate(zip(old, new, strict=True))]
    else:
        return "" if old == new else f"{key} was {json.dumps(old)}, now it is {json.dumps(new)}"
    for name, before, after in pairs:
        inner = f"{key}{name}" if name.startswith("[") else f"{key}.{name}".lstrip(".")
        if difference := _first_difference(before, after, inner):
            return difference
    return ""
