"""Processes of a training that meet, and what the others do where one does not come."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the 'train' extra")

from matting_compose.composer.base.errors import TrainingError
from matting_compose.trainer.training import meeting, runtime

SCRIPT = [sys.executable, str(Path(__file__).parents[1] / "meetings.py")]


def meet_in_pairs(wait: int, silence: int, *pairs: str) -> list[str]:
    """Run the script; return what the other process of each pair said."""
    command = [*SCRIPT, str(wait), str(silence), *pairs]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_processes_that_stop_at_the_start_are_noticed() -> None:
    """Before one shows up, until all have, and while they connect: the other ends by the limit for it, and says why."""
    for rank, told in zip((1, 0), meet_in_pairs(5, 2, "1:before", "0:before"), strict=True):
        assert told.startswith(f"process {rank} of this training has not shown up for 5 s (processes.wait).")
    there, met = ("1:there", "0:there"), ("1:met", "0:met")
    lines = meet_in_pairs(3600, 2, *there, *met)
    for rank, told in zip((1, 0), lines[:2], strict=True):
        assert told.startswith(f"process {rank} of this training has given no sign of life for 2 s")
    for told in lines[2:]:
        assert "have met, but could not connect (within 2 s" in told


def test_a_slow_start_is_waited_for() -> None:
    """Who comes later than `silence` is waited for; and once they have met, no exchange has to be that quick."""
    assert meet_in_pairs(3600, 2, "1:late", "0:late") == ["0.5", "0.5"]


def test_a_process_that_connects_to_itself_has_met_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """TCP lets a socket connect to its own port: nobody else listens there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert meeting._listens(server.getsockname())
    with socket.socket() as itself:
        itself.bind(("127.0.0.1", 0))
        itself.connect(itself.getsockname())
        monkeypatch.setattr(socket, "create_connection", lambda *_, **__: itself)
        assert not meeting._listens(itself.getsockname())


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
        try:
            with pytest.raises(TrainingError, match=f"process 1 of this training {told}. Nothing was trained yet"):
                meeting.meet(0, 2, wait=120, silence=120)
        finally:
            other.kill()
    assert len(looks) < 100


@pytest.mark.skipif(sys.platform != "linux", reason="states of processes are read from /proc")
def test_who_stops_while_all_connect_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also then PyTorch waits for ever: one of this machine is given up at once, not when connecting takes too long."""
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(runtime, "meet", lambda *_: None)
    monkeypatch.setattr(runtime, "CONNECTING", 10)
    monkeypatch.setattr(runtime.dist, "init_process_group", lambda *_, **__: threading.Event().wait())
    idle = [sys.executable, "-c", "import time; time.sleep(300)"]
    with subprocess.Popen(idle, env=os.environ | {"RANK": "1"}) as other:
        other.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(TrainingError, match=r"process 1 of this training is stopped\. Nothing was trained yet"):
                runtime._connect(runtime.torch.device("cpu"), 0, 2, 10, 10)
        finally:
            other.kill()
