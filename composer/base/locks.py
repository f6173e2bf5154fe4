"""Locks: what of a folder one process holds alone, by locks that go with it, however it ends."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from filelock import BaseFileLock, FileLock

from .file_names import LOCK
from .system import fcntl


def lock_kind(folder: Path) -> type[BaseFileLock]:
    """Choose the locks that a folder's file system has; a mere file, which stays when its process is killed, is none.

    Raises
    ------
    OSError
        It has none, and how to mount it; or nothing can be written there.
    """
    if fcntl is None:  # Windows, whose files can always be locked
        return FileLock
    reason = ""
    for kind, lock in ((FileLock, fcntl.flock), (_RecordLock, fcntl.lockf)):
        try:
            with (folder / LOCK).open("a") as file:
                lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return kind  # another process has it
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
                raise
            reason = error.strerror or str(error)
        else:
            return kind
    raise OSError(
        errno.ENOLCK,
        f"this file system cannot lock files: {reason}, so that two jobs could not tell of each other."
        " Mount it with locks, Lustre by -o flock, NFS without nolock, or choose another folder",
        str(folder),
    )


class _RecordLock(BaseFileLock):
    """A lock by fcntl's records, for file systems that know no flock. It too goes with its process."""

    def _acquire(self) -> None:
        file = os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
        else:
            self._context.lock_file_fd = file

    def _release(self) -> None:
        file, self._context.lock_file_fd = self._context.lock_file_fd, None
        if file is not None:
            os.close(file)
