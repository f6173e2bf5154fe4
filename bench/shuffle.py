"""How fair the stream's shuffle is: how near in an epoch samples of one foreground, or one shard, come together.

    python bench/shuffle.py --foregrounds 50000 --variants 100 --rows 16 --columns 50 --open-shards 8 64

Beside a perfect shuffle of the same samples. Nothing is read: the order is a function of the shards' sizes alone.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from numpy.typing import NDArray

from matting_compose.trainer.data.order import epoch_order

Numbers = NDArray[np.int64]


def gaps(owners: Numbers) -> Numbers:
    """Return, for each sample that has a successor of the same owner, how many samples further on that is."""
    order = np.argsort(owners, kind="stable")
    same = owners[order][1:] == owners[order][:-1]
    return np.asarray(np.diff(order)[same])


def repeats(owners: Numbers, batch: int) -> float:
    """Return how many samples of a batch, on average, have another of the same owner before them in it."""
    whole = owners[: len(owners) // batch * batch].reshape(-1, batch)
    ordered = np.sort(whole, axis=1)
    return float((ordered[:, 1:] == ordered[:, :-1]).sum(axis=1).mean())


def describe(name: str, order: Numbers, foregrounds: Numbers, shards: Numbers, batch: int) -> str:
    """Put an order's figures into a row of a table."""
    figures = []
    for owners in (foregrounds[order], shards[order]):
        found = gaps(owners)
        low, middle, high = np.percentile(found, (5, 50, 95)) if len(found) else (0, 0, 0)
        figures.append(f"{middle:,.0f} ({low:,.0f}–{high:,.0f})")
    return f"| {name} | {figures[0]} | {figures[1]} | {repeats(foregrounds[order], batch):.3f} |"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--foregrounds", type=int, default=50_000)
    parser.add_argument("--variants", type=int, default=100)
    parser.add_argument("--rows", type=int, default=16, help="foregrounds in a shard")
    parser.add_argument("--columns", type=int, default=50, help="variants in a shard")
    parser.add_argument("--open-shards", type=int, nargs="+", default=[8])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=431)
    options = parser.parse_args()
    rectangles = [
        (np.arange(top, min(top + options.rows, options.foregrounds)), min(options.columns, options.variants - left))
        for top in range(0, options.foregrounds, options.rows)
        for left in range(0, options.variants, options.columns)
    ]
    foregrounds = np.concatenate([np.repeat(rows, width) for rows, width in rectangles])
    sizes = tuple(len(rows) * width for rows, width in rectangles)
    shards = np.repeat(np.arange(len(sizes)), sizes)
    print(f"{len(foregrounds):,} samples of {options.foregrounds:,} foregrounds in {len(sizes):,} shards")
    print(f"| order | to the next of the foreground | of the shard | repeats in a batch of {options.batch} |")
    print("|---|---|---|---|")
    for count in options.open_shards:
        start = time.monotonic()
        order = epoch_order(sizes, options.seed, 0, count)
        seconds = time.monotonic() - start
        print(describe(f"{count} open shards, made in {seconds:.1f} s", order, foregrounds, shards, options.batch))
    perfect = np.random.default_rng(options.seed).permutation(len(foregrounds))
    print(describe("perfect", perfect, foregrounds, shards, options.batch))


if __name__ == "__main__":
    main()
