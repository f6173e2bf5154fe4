"""Shares: one build cut among several processes, on as many machines as see its folder; and who may write when.

Share i of n has every n-th shard of the plan, from the i-th on. Each process holds a lock of its own share while it
renders, and the folder's lock only for the moments in which it enters, writes what all share, and leaves.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from filelock import BaseFileLock, Timeout

from ..base.errors import BuildError
from ..base.file_names import LOCK
from ..base.files import disk_error
from ..base.locks import lock_kind

Item = TypeVar("Item")


FolderLock = Callable[[], AbstractContextManager[None]]


PATIENCE = 900.0  # seconds that one process waits for another to write the index


@dataclass(frozen=True)
class Share:
    """The `number`-th of `count` shares, from 1.

    Examples
    --------
    >>> Share.parse("3/64").of(range(130))
    range(2, 130, 64)
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Share:
        """Read ``i/n``.

        Raises
        ------
        ValueError
            It is not of that form, or i is not in 1 .. n.
        """
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        share = cls(int(found[1]), int(found[2])) if found else None
        if share is None or not 1 <= share.number <= share.count:
            raise ValueError(f"expected i/n with i from 1 to n, such as 3/64; found '{text}'")
        return share

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return what of `items` is this share's."""
        return items[self.number - 1 :: self.count]

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


WHOLE_BUILD = Share(1, 1)


@contextlib.contextmanager
def lock_share(folder: Path, share: Share) -> Iterator[FolderLock]:
    """Hold a share of a folder; give the lock under which no other process enters, writes what all share, or leaves.

    The locks go with their process, however that ends; a lock file that is left behind is in nobody's way.

    Raises
    ------
    BuildError
        Another process renders this share, or a share of another cut; the folder cannot be written or locked.
    """
    try:
        kind = lock_kind(folder)
    except OSError as error:
        raise disk_error(error, folder) from None
    lock = kind(folder / LOCK, timeout=PATIENCE)
    mine = kind(folder / f"{LOCK}.{share.number}-of-{share.count}", timeout=0)

    @contextlib.contextmanager
    def lock_folder() -> Iterator[None]:
        try:
            lock.acquire()
        except Timeout:
            raise BuildError(f"{folder}: another build has held {LOCK} for {PATIENCE:.0f} s; end it, or wait") from None
        except OSError as error:
            raise disk_error(error, folder) from None
        try:
            yield
        finally:
            lock.release()

    with lock_folder():
        _refuse_other_cuts(folder, share, kind)
        try:
            mine.acquire()
        except Timeout:
            raise _busy(folder, share) from None
    try:
        yield lock_folder
    finally:
        with lock_folder():  # who enters opens these files: now nobody does
            Path(mine.lock_file).unlink(missing_ok=True)
            mine.release()


def _refuse_other_cuts(folder: Path, share: Share, kind: type[BaseFileLock]) -> None:
    """Make sure that nobody renders a share of another cut, which may have shards of ours."""
    for path in sorted(folder.glob(f"{LOCK}.*-of-*")):
        found = re.fullmatch(r"([0-9]{1,9})-of-([0-9]{1,9})", path.name.removeprefix(f"{LOCK}."))
        if found is None or int(found[2]) == share.count:  # a synchroniser's copy, or one of ours
            continue
        other = Share(int(found[1]), int(found[2]))
        try:
            with kind(path, timeout=0):
                path.unlink()
        except Timeout:
            raise _busy(folder, other) from None


def _busy(folder: Path, share: Share) -> BuildError:
    of = "" if share == WHOLE_BUILD else f" of share {share}"
    return BuildError(f"{folder}: another build{of} is running here; wait for it, or choose another folder")
