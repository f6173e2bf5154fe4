"""Processes of a training that meet, and what the others do where one does not come."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the 'train' extra")

from matting_compose.composer.base.errors import TrainingError
from matting_compose.trainer.training import meeting

SCRIPT = [sys.executable, str(Path(__file__).parents[1] / "meetings.py")]


def test_processes_that_stop_at_the_start_are_noticed() -> None:
    """Before one shows up, until all have, and while they connect: the other ends within the limits, and says why."""
    ran = subprocess.run(
        [*SCRIPT, "5", "2", "1:before", "0:before", "1:there", "0:there", "1:met", "0:met"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    told, seconds = zip(*map(json.loads, ran.stdout.splitlines()), strict=True)
    for rank, line in zip((1, 0), told[:2], strict=True):
        assert line.startswith(f"process {rank} of this training has not shown up for 5 s (processes.wait).")
    for rank, line in zip((1, 0), told[2:4], strict=True):
        assert line.startswith(f"process {rank} of this training has given no sign of life for 2 s")
    for line in told[4:]:
        assert "have met, but could not connect (within 2 s" in line
    assert max(seconds) < 20


def test_a_slow_start_is_waited_for() -> None:
    """Who comes later than `silence` is waited for; and once they have met, no exchange has to be that quick."""
    ran = subprocess.run([*SCRIPT, "60", "2", "1:late", "0:late"], capture_output=True, check=True, timeout=300)
    assert [json.loads(line)[0] for line in ran.stdout.splitlines()] == ["0.5", "0.5"]


@pytest.mark.skipif(sys.platform != "linux", reason="states of processes are read from /proc")
@pytest.mark.parametrize(("number", "told"), [(signal.SIGSTOP, "is stopped"), (signal.SIGKILL, "has ended")])
def test_who_is_of_this_machine_is_seen(monkeypatch: pytest.MonkeyPatch, number: int, told: str) -> None:
    """A process that is stopped or killed before it could show up is given up at once, not after 30 minutes."""
    given = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(random.randrange(20000, 30000)), "WORLD_SIZE": "2"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    idle = [sys.executable, "-c", "import time; time.sleep(300)"]  # as far as one that starts from a slow disk
    looks, real = [], meeting._local_states
    with subprocess.Popen(idle, env=os.environ | {"RANK": "1"}) as other:

        def look() -> dict[int, str]:
            looks.append(real())
            if 1 in looks[-1]:
                other.send_signal(number)
            return looks[-1]

        monkeypatch.setattr(meeting, "_local_states", look)
        with pytest.raises(TrainingError, match=f"process 1 of this training {told}. Nothing was trained yet"):
            meeting.meet(0, 2, wait=120, silence=120)
        other.kill()
    assert len(looks) < 100
