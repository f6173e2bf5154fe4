"""Meeting: the processes of a training wait for each other at its start, but not for one that ended or stands still."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

import torch.distributed as dist

from ...composer.base.errors import TrainingError
from ...composer.base.files import open_regular

__all__ = ["BEAT", "Neighbours", "meet"]

BEAT: Final = 1.0  # seconds between two looks at the others


SIGN: Final = 0.1  # seconds between two signs of life


JOB: Final = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")


MEETINGS = itertools.count()  # one process may train several times, and meet at one store


def meet(rank: int, world: int, wait: float, silence: float) -> object:
    """Wait until all processes have shown up at the place that torchrun, or who starts them, has named.

    Each gives signs of life there. Time is counted in looks: a job that was suspended as a whole lost nobody.

    Parameters
    ----------
    rank, world : int
        Which of how many processes this is.
    wait : float
        Seconds until all must have shown up.
    silence : float
        Seconds without a sign of life, after which one that had shown up is given up. One of this machine that was
        started with these variables of the environment is given up at once where it is stopped, or has ended.

    Returns
    -------
    object
        What holds the place open, to be kept until the processes are connected.

    Raises
    ------
    TrainingError
        One is given up, by its number; or there is no such place.
    """
    signs = _Signs(rank, world)
    try:
        _await_all(signs, rank, wait, silence)
    finally:
        signs.over.set()
    return signs


def _await_all(signs: _Signs, rank: int, wait: float, silence: float) -> None:
    """Look at the others each second, until all have shown up or one is given up."""
    world, neighbours = len(signs.heard), Neighbours(rank)
    quiet, heard = [0.0] * world, [0] * world
    for _ in range(max(1, round(wait / BEAT))):
        signs.over.wait(BEAT)
        now = list(signs.heard)
        if all(now):
            return
        if signs.failure:
            raise TrainingError(f"the processes of this training cannot meet: {signs.failure}")
        neighbours.look()
        for other in (other for other in range(world) if other != rank):
            quiet[other] = quiet[other] + BEAT if now[other] == heard[other] else 0.0
            if now[other] and quiet[other] >= silence:
                raise _lost(other, f"has given no sign of life for {silence:g} s: stopped, or cut off")
        heard = now
    missing = next(other for other in range(world) if not heard[other])
    raise _lost(missing, f"has not shown up for {wait:g} s (processes.wait)")


def _lost(rank: int, why: str) -> TrainingError:
    return TrainingError(f"process {rank} of this training {why}. Nothing was trained yet: start all of them again")


class Neighbours:
    """The other processes of this machine that were started for this job."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._still = Counter[int]()  # looks in a row, by rank
        self._here = set[int]()

    def look(self) -> None:
        """Give up one that was gone or stopped at two looks in a row. Raise TrainingError, with its number."""
        states = _local_states()
        for other in sorted({*self._here, *states} - {self._rank}):
            gone = other not in states
            self._still[other] = self._still[other] + 1 if gone or "T" in states[other] else 0
            if self._still[other] > 1:
                raise _lost(other, "has ended" if gone else "is stopped")
        self._here |= states.keys()


class _Signs:
    """The thread that gives signs of life and counts those of the others: where their keeper stands still, it hangs.

    Attributes
    ----------
    heard : list of int
        By rank: how many signs were counted. The keeper's is the first that can be.
    over : threading.Event
        Set once all have shown up, or nobody waits for them any more.
    failure : str
        Why there is no place to meet, or no longer.
    """

    def __init__(self, rank: int, world: int) -> None:
        self.heard = [0] * world
        self.over = threading.Event()
        self.failure = ""
        self._rank = rank
        self._attempt = f"meeting/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{next(MEETINGS)}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._join()
            while not self.over.is_set():
                for other in range(len(self.heard)):
                    count = self._store.add(f"{self._attempt}/{other}", int(other == self._rank))
                    self.heard[other] = max(count, self.heard[other])  # the keeper was seen before its first sign
                if all(self.heard):
                    self.over.set()
                self.over.wait(SIGN)
        except RuntimeError as error:  # PyTorch's, of the network
            self.failure = str(error).partition("\n")[0]
            self.over.set()

    def _join(self) -> None:
        """Open the place, or come to it once it is open."""
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        keeps = self._rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        while not keeps and not _listens(address):
            time.sleep(BEAT)
        if not keeps:
            self.heard[0] = 1  # it listens; whether it also answers is seen from here on
        self._store = dist.TCPStore(  # type: ignore[attr-defined]  # documented, though not in __all__
            *address, is_master=keeps, timeout=timedelta(days=1), wait_for_workers=False, multi_tenant=True
        )


def _listens(address: tuple[str, int]) -> bool:
    """Tell whether there is somebody at an address: PyTorch would not say so while it tries."""
    with suppress(OSError), socket.create_connection(address, timeout=BEAT) as probe:
        return bool(probe.getsockname() != probe.getpeername())  # else it has connected to itself
    return False


def _local_states() -> dict[int, str]:
    """Return the states (R, S, T, ...) of the processes of this machine that were started for this job, by rank."""
    states: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, KeyError):  # ended, another user's, or started otherwise
            with open_regular(folder / "environ") as environment, open_regular(folder / "stat") as status:
                given = dict(item.partition("=")[::2] for item in environment.read().decode().split("\0"))
                state = status.read().decode().rpartition(") ")[2][0]
            if all(given.get(name) == os.environ.get(name) for name in JOB):
                states[int(given["RANK"])] = states.get(int(given["RANK"]), "") + state
    return states
