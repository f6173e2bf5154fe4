"""What commands take: wall and processor time, and the memory of the largest process, in turn, round after round.

    python bench/commands.py --rounds 10
    python bench/commands.py --rounds 3 "matting-compose inspect dataset" "matting-compose inspect dataset --verify"
    python bench/commands.py --rounds 1 --imports 5

Without commands: the help of every one there is. A command is a line as a shell has it, without the shell; its output
is thrown away, and one that fails ends the measurement. Memory below this program's own 22 MB is not seen.
`--imports N` adds a round in which Python counts what it imports, and names the N packages that take longest, those
that they import left out. Needs Linux or macOS.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from matting_compose.cli import compose

UNIT = 1 if sys.platform == "darwin" else 1024  # bytes, of getrusage's largest size


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds of wall and processor time, and the bytes of its largest process."""

    wall: float
    cpu: float
    peak: int


def cost(command: Sequence[str], folder: Path | None = None) -> Cost:
    """Run a command, and those that it starts and waits for.

    Raises
    ------
    RuntimeError
        It failed.
    """
    start = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        output = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{shlex.join(command)}: exit code {process.returncode}\n{output.decode(errors='replace')}")
    return Cost(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss * UNIT)


def helps() -> list[str]:
    """Return a line for the help of every command."""
    names = [point.name for point in distribution("matting-compose").entry_points]
    return [f"{name} --help" for name in names] + [f"matting-compose {name} --help" for name in compose.commands]


def split(line: str) -> list[str]:
    """Take a line apart; this environment's programs come before others of the same name."""
    name, *arguments = shlex.split(line)
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise SystemExit(f"{name}: no such program")
    return [found, *arguments]


def longest_imports(command: Sequence[str], most: int) -> str:
    """Say which packages a Python program spends longest importing, each by itself, ms."""
    program = command[1:] if Path(command[0]).name.startswith("python") else command
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *program], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True
    )
    rows = [line.removeprefix("import time:").split("|") for line in done.stderr.decode().splitlines()[1:]]
    by_package: dict[str, float] = {}
    for row in rows:
        if len(row) == 3 and row[0].strip().isdigit():
            package = row[2].strip().partition(".")[0]
            by_package[package] = by_package.get(package, 0) + int(row[0]) / 1e3
    found = sorted(by_package.items(), key=lambda item: -item[1])[:most]
    return f"{sum(by_package.values()):.0f} in all; " + ", ".join(f"{name} {ms:.0f}" for name, ms in found)


def spread(values: Sequence[float], digits: int) -> str:
    """Say a median and a range."""
    middle, low, high = (f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low}–{high})"


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--imports", type=int, default=0, metavar="N")
    options = parser.parse_args()
    lines = {line: split(line) for line in options.commands or helps()}
    runs: dict[str, list[Cost]] = {line: [] for line in lines}
    for _ in range(options.rounds):
        for line, command in lines.items():
            runs[line].append(cost(command))
    print("| | wall, s | processor, s | MB |")
    print("|---|---|---|---|")
    for line, costs in runs.items():
        times = spread([c.wall for c in costs], 3), spread([c.cpu for c in costs], 3)
        print(f"| `{line}` | {times[0]} | {times[1]} | {max(c.peak for c in costs) / 1e6:.0f} |")
    if options.imports:
        for line, command in lines.items():
            print(f"{line}: {longest_imports(command, options.imports)}")


if __name__ == "__main__":
    main()
