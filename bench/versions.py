"""Compare two versions of the program: processor time of a build and of crops, in turn, round after round.

    git worktree add ../before COMMIT && mkdir -p ../before/src && ln -s .. ../before/src/matting_compose
    python bench/versions.py ../before . --rounds 7

Each version builds of the same pictures in one process, and reads crops of a dataset that the first one has built.
What importing takes is left out. Prints medians, least and most, and the ratio of the medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

BUILD = """
import sys, time, torch, cv2
torch.set_num_threads(1); cv2.setNumThreads(1)
from matting_compose.cli import compose
def build(out, variants):
    try:
        compose(["build", "--foregrounds", sys.argv[2] + "/cutouts", "--backgrounds", sys.argv[2] + "/photographs",
            "--variants", variants, "--set", "split.validation=0", "--out", out, "-j", "1"])
    except SystemExit as ended:
        assert not ended.code
build(sys.argv[1] + "-first", "1")
start = time.process_time()
build(sys.argv[1], "12")
print(time.process_time() - start)
"""
CROPS = """
import sys, time, itertools
try:
    from matting_compose.trainer.data.stream import open_stream
except ModuleNotFoundError:  # as early versions had it
    from matting_compose.trainer.stream import open_stream
stream = open_stream(sys.argv[1], batch=8, crop=160, sizes=(160, 240))
batches = iter(stream)
for _ in itertools.islice(batches, 10): pass
start = time.process_time()
for _ in itertools.islice(batches, 150): pass
print(time.process_time() - start)
"""


def write_pictures(folder: Path) -> None:
    """Write cut-outs and backgrounds of smooth noise."""
    rng = np.random.default_rng(7)
    for kind, count in (("cutouts", 12), ("photographs", 24)):
        (folder / kind).mkdir(parents=True)
        for i in range(count):
            picture = cv2.resize(rng.integers(0, 256, (40, 40, 3), np.uint8), (480, 400), interpolation=cv2.INTER_CUBIC)
            if kind == "cutouts":
                alpha = cv2.ellipse(np.zeros((400, 480), np.uint8), (240, 200), (150, 120), i * 15, 0, 360, 255, -1)
                picture = np.dstack([picture, cv2.GaussianBlur(alpha, (0, 0), 6)])
            cv2.imwrite(str(folder / kind / f"{i}.png"), picture)


def measure(version: Path, code: str, folder: Path, pictures: Path) -> float:
    """Run some code on a version, which prints its seconds."""
    environment = os.environ | {"PYTHONPATH": str(version.absolute() / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(folder), str(pictures)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{version}: {done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "versions", type=Path, nargs=2, metavar="VERSION", help="a checkout; the one before comes first"
    )
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    seconds: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        dataset, pictures = Path(place) / "dataset", Path(place) / "pictures"
        write_pictures(pictures)
        measure(options.versions[0], BUILD, dataset, pictures)
        for number in range(options.rounds):
            for i in (0, 1) if number % 2 else (1, 0):  # neither is always the first
                out = Path(place) / f"{number}-{i}"
                seconds.setdefault(("build", i), []).append(measure(options.versions[i], BUILD, out, pictures))
                seconds.setdefault(("crops", i), []).append(measure(options.versions[i], CROPS, dataset, pictures))
    print("| | before, s | after, s | ratio |\n|---|---|---|---|")
    for what in ("build", "crops"):
        told = [f"{statistics.median(v):.2f} ({min(v):.2f}–{max(v):.2f})" for v in (seconds[what, 0], seconds[what, 1])]
        ratio = statistics.median(seconds[what, 1]) / statistics.median(seconds[what, 0])
        print(f"| {what} | {told[0]} | {told[1]} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
