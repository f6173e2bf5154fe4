"""What composing crops anew costs: CPU milliseconds a crop, for each of its terms alone and all together.

    python bench/remix.py open431 --crop 320 --rounds 9

One process reads; the terms alternate, so that all see the same machine. Medians of the rounds, and their middle half.
"""

from __future__ import annotations

import argparse
import time
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from matting_compose.composer.console.terminal import handle_errors
from matting_compose.trainer.data.remix import Remix
from matting_compose.trainer.data.stream import open_stream

TERMS: Final = {
    "read only": {},
    "another background": {"chance": 1.0},
    "+ combine": {"chance": 1.0, "combine": 1.0},
    "+ combine, fade": {"chance": 1.0, "combine": 1.0, "fade": 1.0},
    "+ pierce": {"chance": 1.0, "pierce": 1.0},
    "+ mesh": {"chance": 1.0, "mesh": 1.0},
    "+ repaint": {"chance": 1.0, "repaint": 1.0},
    "+ tint": {"chance": 1.0, "tint": 0.2},
    "+ stretch": {"chance": 1.0, "stretch": 1.0},
    "+ defocus": {"chance": 1.0, "defocus": 1.0},
    "+ warp": {"chance": 1.0, "warp": 1.0},
    "+ soften": {"chance": 1.0, "soften": 1.0},
    "+ retrim": {"chance": 1.0, "retrim": 1.0},
    "all": dict.fromkeys(set(Remix.model_fields) - {"radii"}, 1.0),
}


def seconds(dataset: Path, crop: int, terms: dict[str, float], crops: int, start: int) -> float:
    """Return CPU seconds of this process a crop."""
    batch = 8
    stream = open_stream(dataset, batch=batch, crop=crop, sizes=(crop,), start=start, remix=Remix(**terms))
    steps = iter(stream)
    next(steps)
    began = time.process_time()
    for _ in islice(steps, crops // batch):
        pass
    spent = time.process_time() - began
    stream.close()
    return spent / (crops // batch * batch)


def main() -> None:
    """Print a line for each term."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--crop", type=int, default=320, help="px")
    parser.add_argument("--crops", type=int, default=64, help="of each term in each round")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in TERMS}
    for number in range(options.rounds):
        for name, terms in TERMS.items():
            spent = seconds(options.dataset, options.crop, terms, options.crops, number * options.crops)
            found[name].append(1000 * spent)
    for name, times in found.items():
        low, middle, high = np.quantile(times, (0.25, 0.5, 0.75))
        print(f"{name:20} {middle:6.2f} ms a crop ({low:.2f}-{high:.2f})")


if __name__ == "__main__":
    with handle_errors():
        main()
