"""Watch: whether the other processes of a training still live, asked in a thread, so that nobody waits for the dead."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import torch
import torch.distributed as dist

from ...composer.base.errors import TrainingError
from .runtime import AGAIN, Runtime, StopRequest

__all__ = ["LostProcessError", "watch_processes"]

BEAT: Final = 1.0  # seconds between two signs of life


LOOK: Final = 0.1  # seconds between two looks for the others'


ASKING: Final = {signal.SIGTERM, signal.SIGINT}


class LostProcessError(TrainingError):
    """Another process of the training is gone, or stands still."""


@contextmanager
def watch_processes(runtime: Runtime, silence: float, stop: StopRequest) -> Iterator[None]:
    """End the waiting of this process for others that are gone or stand still; where it is alone do nothing.

    All processes give each other a sign of life each second, over a group of their own, from a thread. A process that
    is stopped gives none. As soon as one has failed to for `silence` seconds, the connections of this one are closed,
    which ends every wait of PyTorch with an error. So they are where a request to stop is not heard for as long, since
    Python hears none while PyTorch waits, and at once where a second one comes.

    Raises
    ------
    LostProcessError
        From the body, in place of what PyTorch has raised.
    """
    if runtime.group is None:
        yield
        return
    watch = _Watch(runtime, silence, stop)
    try:
        with _hear_signals(watch):
            yield
    except RuntimeError as error:
        if not watch.lost and "gloo" not in str(error) and not isinstance(error, dist.DistError):
            raise
        raise LostProcessError(watch.lost or "another process of this training has ended") from error
    finally:
        watch.end()


class _Watch:
    """The thread. Time is counted in its own looks: a machine, or a job, that was suspended as a whole lost nobody.

    Attributes
    ----------
    lost : str
        Why this process no longer waits for others; empty while it does.
    """

    def __init__(self, runtime: Runtime, silence: float, stop: StopRequest) -> None:
        self.lost = ""
        self._runtime, self._silence, self._stop = runtime, silence, stop
        self._asked: list[float] = []  # when
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Tell the others that this process is about to go, and watch no more."""
        self._over.set()
        self._thread.join(self._silence)

    def ask(self) -> None:
        """Note a request to stop."""
        self._asked.append(time.monotonic())

    def _run(self) -> None:
        try:
            while not self._exchange():
                self._over.wait(BEAT)
        except RuntimeError:
            self._lose("another process of this training has ended")

    def _exchange(self) -> bool:
        """Give a sign of life and wait for those of the others; tell whether the watch is over."""
        leaving = torch.tensor(float(self._over.is_set()))
        given = dist.all_reduce(leaving, dist.ReduceOp.MAX, self._runtime.group, async_op=True)
        assert given is not None
        looks = 0
        while not given.is_completed() and not self.lost:
            time.sleep(LOOK)
            looks += 1
            if looks * LOOK >= self._silence:
                self._lose(f"another process has given no sign of life for {self._silence:g} s: stopped, or cut off")
            else:
                self._heed()
        if not self.lost:
            given.wait()
            self._heed()
        return bool(self.lost) or float(leaving) > 0

    def _heed(self) -> None:
        """Give up where somebody has waited long enough for this process to stop."""
        if not self._asked:
            return
        unheard = not self._stop.asked and time.monotonic() - self._asked[0] > self._silence
        if unheard or self._asked[-1] - self._asked[0] >= AGAIN:
            self._lose("asked to stop while others could not")

    def _lose(self, reason: str) -> None:
        self.lost = reason
        for number in self._runtime.sockets:
            with suppress(OSError), socket.socket(fileno=os.dup(number)) as connection:
                if not connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def _hear_signals(watch: _Watch) -> Iterator[None]:
    """Tell a watch of requests to stop as they come, also where this thread waits outside of Python."""
    here, there = socket.socketpair()
    there.setblocking(False)
    before = signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)

    def listen() -> None:
        while got := here.recv(1):
            if got[0] in ASKING:
                watch.ask()

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        there.close()  # which ends the thread
