"""What a long job shows, in pseudo-terminals of several widths, in colour and without, and off a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

DETAIL = "loss 0.4132  alpha_prediction 0.2051  laplacian 0.2082  rate 0.00083  10.2 crops/s  waiting 2.1%  0.7 GB"
SCRIPT = f"""
import time
from matting_compose.composer.base.progress import Progress
from matting_compose.composer.console.progress_bar import show_progress
with show_progress(line_every=0) as report:
    for step in range(3):
        report(Progress("step", 100 * step, 43100, detail={DETAIL!r}))
        time.sleep(0.15)  # the display is drawn ten times a second
"""


def show(columns: int, **environment: str) -> str:
    """Run the script in a pseudo-terminal so wide, and return all that it drew."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    plain = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stderr=follower, stdout=follower, env=plain | {"TERM": "xterm"} | environment
    ) as process:
        os.close(follower)
        parts = []
        while True:
            try:
                part = os.read(leader, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            parts.append(part)
    os.close(leader)
    assert process.returncode == 0
    return b"".join(parts).decode()


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_terminal_shows_a_bar_and_what_else_under_it(columns: int) -> None:
    """Bar, step, rate and time left stand in one row at every width; lines stay above, whole."""
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "\0", show(columns))
    rows = [row.replace("\0", "").rstrip() for row in re.split(r"\r\n|\r|\0(?=step)", text)]
    bars = [row for row in rows if "━" in row and "200/43,100" in row]
    assert bars
    assert all(re.fullmatch(r"step \S+ 200/43,100 \S+/s +\d:\d\d:\d\d +\d:\d\d:\d\d", row) for row in bars[-1:])
    assert max(len(row) for row in bars) <= columns
    lines = "".join(row if "━" not in row else "\n" for row in rows)
    assert f"step 0/43,100  {DETAIL}" in lines


def test_colour_is_left_out_where_it_is_not_wanted() -> None:
    """NO_COLOR is honoured; a dumb terminal gets no movement."""
    assert "\x1b[3" in show(80) or "\x1b[9" in show(80)
    assert not re.search(r"\x1b\[(3|9)\d", show(80, NO_COLOR="1"))


def test_off_a_terminal_there_are_lines_with_the_time() -> None:
    """One for each report, nothing to control a terminal."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  step \d+/43,100", line) and DETAIL in line for line in lines)
    assert "\x1b" not in done.stderr
