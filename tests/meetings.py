"""Two processes that are to meet, where one of them does not: forked, without what starting them costs.

    python tests/meetings.py WAIT SILENCE [RANK:PLACE ...]

For each further argument the process of this rank stops (SIGSTOP) at a place: ``before`` it shows up, once both are
``there`` and a third is not, or once both have ``met``. ``1:late`` comes a second later than SILENCE, and both meet.
Prints a line for each: what the other one said.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time

import torch
import torch.distributed as dist

from matting_compose.composer.base.errors import TrainingError
from matting_compose.trainer.training import meeting, runtime


def come(rank: int, place: str, wait: float, silence: float) -> str:
    """Meet the other one, and exchange something after more seconds than connecting may take."""

    def stop(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGSTOP)  # this thread at once, the others soon

    if place == "before":
        stop()

    def stop_once_heard(signs: meeting._Signs, *_: object) -> None:
        while not signs.heard[rank]:
            time.sleep(0.05)
        heard = signs.heard[1 - rank]  # who has given two signs from now on has heard this one
        while signs.heard[1 - rank] < heard + 2:
            time.sleep(0.05)
        stop()

    if place == "late":
        time.sleep(silence + 1)
    if place == "there":
        meeting._await_all = stop_once_heard
    if place == "met":
        dist.init_process_group = stop  # type: ignore[assignment]
    try:
        with runtime.open_runtime("cpu", wait, silence) as opened:
            time.sleep(rank * (silence + 1))
            return f"{float(opened.mean(torch.tensor(float(rank))))}"
    except (TrainingError, RuntimeError) as error:  # PyTorch's of an exchange, too: who says nothing is waited for
        return str(error)


def main() -> None:
    """Let each pair meet, one after the other."""
    wait, silence, *pairs = sys.argv[1:]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    for pair in pairs:
        who, place = int(pair[0]), pair[2:]
        os.environ["WORLD_SIZE"] = "3" if place == "there" else "2"  # a third never comes: the two wait on
        os.environ["MASTER_PORT"] = str(random.randrange(20000, 30000))
        end, other_end = os.pipe()
        pids = []
        for rank in (0, 1):
            if not (pid := os.fork()):
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                if place == "met":
                    runtime.CONNECTING = 0  # SILENCE is the limit then
                told = come(rank, place if rank == who else "", float(wait), float(silence))
                if rank != who:
                    os.write(other_end, told.encode())
                os._exit(0)
            pids.append(pid)
        print(json.dumps(os.read(end, 10_000).decode()), flush=True)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
