"""Trainings of several processes without what starting them costs: forked from one that has imported all they need.

    python tests/ranks.py DATASET OUT SILENCE [RANK:SIGNAL:STEP ...]

For each further argument two processes train into ``OUT/number``; the one of this rank gets the signal when it has
taken that many steps. Prints a line for each: what the other one said, and the seconds until then.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from matting_compose.composer.base.errors import MattingComposeError
from matting_compose.trainer.training import loop
from matting_compose.trainer.training.learner import Learner, StepResult
from matting_compose.trainer.training.runtime import open_runtime
from runs import tiny


def run_rank(dataset: Path, out: Path, silence: str, rank: int, deed: tuple[int, int, int]) -> str:
    """Train as one of two; return what came of it."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    who, number, step = deed
    real = Learner.step

    def take(self: Learner, taken: int, batches: object) -> StepResult:
        if rank == who and taken == step:
            (out.parent / f"{out.name}.met").write_text(str(time.time()))
            os.kill(os.getpid(), number)
        return real(self, taken, batches)  # type: ignore[arg-type]

    Learner.step = take  # type: ignore[method-assign]
    config = tiny("steps=1000", "validation.every=9999", "stream.batch=1", f"processes.silence={silence}")
    try:
        with open_runtime("cpu") as runtime:
            loop.train(dataset, out, config, runtime)
    except MattingComposeError as error:
        return str(error)
    return "finished"


def main() -> None:
    """Do to each pair of processes what is asked, one after the other."""
    dataset, out, silence, *deeds = sys.argv[1:]
    for i, deed in enumerate(deeds):
        who, name, step = deed.split(":")
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20000 + os.getpid() % 12000 + i)}
        folder, pids = Path(out) / str(i), []
        for rank in (0, 1):
            if not (pid := os.fork()):
                told = run_rank(Path(dataset), folder, silence, rank, (int(who), signal.Signals[name], int(step)))
                (Path(out) / f"{i}-{rank}.txt").write_text(told)
                os._exit(0)
            pids.append(pid)
        os.waitpid(pids[1 - int(who)], 0)
        met = float((Path(out) / f"{i}.met").read_text())
        told = (Path(out) / f"{i}-{1 - int(who)}.txt").read_text()
        os.kill(pids[int(who)], signal.SIGKILL)
        os.waitpid(pids[int(who)], 0)
        print(json.dumps([told, time.time() - met]), flush=True)


if __name__ == "__main__":
    main()
