"""Workers at the end of their process: nothing waits for them forever."""

from __future__ import annotations

import subprocess
import sys

LOST = """
from joblib.externals.loky.process_executor import _ExecutorManagerThread

from matting_compose.composer.base.workers import run_in_processes

_ExecutorManagerThread.shutdown_workers = lambda self: None  # the message that asks them to leave is lost
print(sorted(run_in_processes(abs, [-1, 2, -3, 4], 4, 2)))
"""


def test_a_process_ends_although_its_workers_were_not_told() -> None:
    """Within the limit that a hang would exceed; loky alone waits for workers that wait for a message."""
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[1, 2, 3, 4]\n"
