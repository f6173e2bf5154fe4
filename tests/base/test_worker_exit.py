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

LEFT = """
from matting_compose.composer.base.workers import run_in_processes

results = run_in_processes(eval, ["1", "__import__('time').sleep(300)"], 4, 4)  # two never get a task
print(next(results), flush=True)
next(results)
"""


def test_a_process_ends_although_its_workers_were_not_told() -> None:
    """Within the limit that a hang would exceed; loky alone waits for workers that wait for a message."""
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[1, 2, 3, 4]\n"


def test_workers_end_with_their_process() -> None:
    """A worker whose process was killed would go on with what nobody waits for, beside the same command's next run."""
    process = subprocess.Popen([sys.executable, "-c", LEFT], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    process.kill()
    process.communicate(timeout=60)  # everybody who could write there has ended
