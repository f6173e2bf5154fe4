"""Inputs: the picture files that a dataset is made from, each as it was read. Two versions of one are never taken."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ..base.errors import BuildError
from ..base.files import file_sha256
from ..dataset.documents import InputRecord, Sidecar
from ..sources.image_io import pair_sha256
from .look_reader import foreground_files
from .plan import Plan

CLOCKS = 60.0  # seconds by which the clocks of two disks may differ


class Ledger:
    """The files that one shard is made from, and what was read of each.

    Parameters
    ----------
    shard : str
        The shard's file name.
    before : Mapping[str, InputRecord]
        What an earlier version of the shard was made from, whose composites are kept.
    """

    def __init__(self, shard: str, before: Mapping[str, InputRecord]) -> None:
        self._shard, self._before, self._files = shard, before, dict(before)

    def add(self, files: Mapping[str, InputRecord]) -> None:
        """Note what was read.

        Raises
        ------
        BuildError
            Another version of a file was read before.
        """
        for name, file in files.items():
            if self._files.setdefault(name, file) == file:
                continue
            if name in self._before:
                raise BuildError(
                    f"{name} has changed since {self._shard} was rendered; restore it, or build into another --out"
                )
            raise BuildError(
                f"{name} was changed while {self._shard} was rendered: two versions of it were read."
                " Run the same command again when nothing changes it"
            )

    def select(self, names: list[str]) -> dict[str, InputRecord]:
        """Return what was read of these files, in their order; without those that were drawn."""
        return {name: self._files[name] for name in names if name in self._files}


class _Use(NamedTuple):
    """A file as the first shard that shows it saw it."""

    shard: str
    bytes: int
    sha256: str


class BuildInputs:
    """What the sidecars of a build say of the plan's pictures, each picture once, however many shards show it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._used: dict[str, _Use] = {}
        self._mixed: tuple[str, str, str] | None = None

    def take(self, sidecar: Sidecar) -> Sidecar:
        """Note a sidecar's inputs; return the sidecar without them: together, they would fill the memory."""
        for name, file in sidecar.inputs.items():
            first = self._used.get(name)
            if first is None:
                self._used[name] = _Use(sidecar.file, file.bytes, file.sha256)
            elif first.sha256 != file.sha256:
                self._mixed = self._mixed or (name, first.shard, sidecar.file)
        return sidecar.model_copy(update={"inputs": {}})

    def refuse_mixed(self) -> None:
        """Make sure that no picture was changed between two shards that show it.

        Raises
        ------
        BuildError
            With the picture and the shards.
        """
        if self._mixed:
            name, one, other = self._mixed
            raise BuildError(
                f"{name} was changed while the dataset was built: {one} and {other} show different"
                f" versions. Delete the one with the wrong version, and run the same command again"
            )

    def refuse_changed(self, since: float = 0.0) -> None:
        """Make sure that what was used is what lies there. Files that are gone, or failed, may come back.

        Parameters
        ----------
        since : float
            When the build was begun, in seconds since 1970: what was written after that is read again and compared
            by its digest, the rest by its size.

        Raises
        ------
        BuildError
            With the picture and a shard.
        """
        paths = self._paths() if self._used else {}
        for name, use in self._used.items():
            own, together = paths.get(name, (None, ()))
            if own is None or not all(path.is_file() for path in together):
                continue
            size = own.stat().st_size
            way_out = "Restore it, or build into another --out"
            if size != use.bytes:
                raise BuildError(
                    f"{name} has changed since {use.shard} was rendered: it had {use.bytes:,} bytes,"
                    f" now it has {size:,}. {way_out}"
                )
            if _changed_since(together, since) and _digest(together) != use.sha256:
                raise BuildError(
                    f"{name} was changed while the dataset was built, or since: {use.shard} shows another version of"
                    f" the same size. {way_out}"
                )

    def _paths(self) -> dict[str, tuple[Path, tuple[Path, ...]]]:
        """Map each input to its file, and to the files that its digest is of."""
        plan = self._plan
        foregrounds, backgrounds = plan.foreground_layout, plan.background_layout
        paths: dict[str, tuple[Path, tuple[Path, ...]]] = {
            f"background {name}": (path, (path,)) for name in plan.backgrounds for path in backgrounds.files(name)
        }
        for entry, count in zip(plan.foregrounds, plan.counts, strict=True):
            files = tuple(foregrounds.files(entry))
            for name, path in zip(foreground_files(entry), files, strict=False):
                paths[name] = (path, files)
            if trimaps := plan.supplied_trimaps:
                for variant in range(count):
                    path = trimaps.path(entry.key, variant)
                    paths[f"trimap {trimaps.name(entry.key, variant)}"] = (path, (path,))
        return paths


def _changed_since(paths: tuple[Path, ...], since: float) -> bool:
    """Tell whether any was written after that; the time of its change of state cannot be set back."""
    found = [os.stat(path) for path in paths]  # noqa: PTH116
    return any(max(file.st_mtime, file.st_ctime) >= since - CLOCKS for file in found)


def _digest(paths: tuple[Path, ...]) -> str:
    digests = [file_sha256(path) for path in paths]
    return digests[0] if len(digests) == 1 else pair_sha256(*digests)
