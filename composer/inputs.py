"""Inputs: the files that a dataset's shards were made from, so that one which changes is noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from .errors import BuildError
from .plan import Plan


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
