"""The stream with the extension in C and without, in turn, in one process: crops for each second of CPU time.

    HATCH_BUILD_HOOKS_ENABLE=1 pip install --editable .
    python bench/extension.py dataset --rounds 5

Out of the page cache, windows of 320 px, the same crops for both. The dataset is of packing `delta`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import cv2
import torch

from matting_compose.composer.dataset import differences
from matting_compose.trainer.data.stream import open_stream


def crops_per_second(batches: Iterator[Any], count: int, batch: int) -> float:
    """Take some batches."""
    start = time.process_time()
    for _ in range(count):
        next(batches)
    return count * batch / (time.process_time() - start)


def main() -> None:
    """Print two medians with their ranges, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=40, help="of each measurement")
    parser.add_argument("--batch", type=int, default=10)
    options = parser.parse_args()
    kernel = differences.sum_tile
    if kernel is None:
        sys.exit("the extension was not built here; see above")
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    ways, found = {"NumPy": None, "extension": kernel}, {"NumPy": [], "extension": []}  # type: ignore[var-annotated]
    streams = {name: open_stream(options.dataset, batch=options.batch, sizes=(320,)) for name in ways}
    with closing(streams["NumPy"]), closing(streams["extension"]):
        for number in range(options.rounds + 1):
            for name, way in ways.items():
                differences.sum_tile = way  # type: ignore[assignment]
                rate = crops_per_second(iter(streams[name]), options.batches, options.batch)
                if number:  # the first warms up
                    found[name].append(rate)
    for name, rates in found.items():
        print(f"{name:9} {statistics.median(rates):.0f} crops/s ({min(rates):.0f}–{max(rates):.0f})")
    ratios = [new / old for old, new in zip(found["NumPy"], found["extension"], strict=True)]
    print(f"ratio     {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})")


if __name__ == "__main__":
    main()
