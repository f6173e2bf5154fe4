"""Order: which composite of which dataset comes at which place of a stream, a pure function of the seed.

Places are counted from 0, without end. Of as many as the weights add up to, in their smallest whole numbers, each
dataset gets its weight, in an order drawn anew; what it gets are its own epochs, one after the other. So where a place
leads is found without looking at those before it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...composer.dataset.dataset import Dataset

__all__ = ["Order", "Place", "count_shares", "epoch_order"]

FINEST: Final = 1000  # weights are told apart in thousandths


class Place(NamedTuple):
    """What comes at a place: which dataset, in which of its own epochs, and the number of its composite."""

    dataset: int
    epoch: int
    sample: int


class Order:
    """The places of a stream.

    Parameters
    ----------
    datasets : Sequence of Dataset
        Each has composites in the split.
    shares : Sequence of int
        How many of ``sum(shares)`` places in a row are each dataset's; see `count_shares`.
    split : str
    seed : int
    open_shards : int
        Shards of each dataset that are mixed at any moment, see `epoch_order`.
    skip : Collection of int
        Places whose composites are left out: another of their dataset, the next in number, comes wherever they would.

    Raises
    ------
    ValueError
        No composite of a dataset is left.

    Attributes
    ----------
    length : int
        Places in an epoch: the first dataset's composites come once each, and the others' as their shares say.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        shares: Sequence[int],
        split: str,
        seed: int,
        open_shards: int,
        skip: Collection[int] = (),
    ) -> None:
        self._shares = tuple(shares)
        self._numbers = [dataset.numbers(split) for dataset in datasets]
        self._sizes = [tuple(map(len, dataset.ranges(split))) for dataset in datasets]
        # The first one's order and crops are those that it would have alone.
        others = (np.random.SeedSequence(seed, spawn_key=(number,)) for number in range(1, len(datasets)))
        self._seeds = [seed, *(int(sequence.generate_state(1)[0]) for sequence in others)]
        self._open_shards = open_shards
        self._round = sum(shares)
        self.length = math.ceil(len(self._numbers[0]) / shares[0]) * self._round
        self._epochs: dict[tuple[int, int], NDArray[np.int64]] = {}
        self._leave_out([self[place] for place in skip])

    def _leave_out(self, skipped: Sequence[Place]) -> None:
        for dataset, numbers in enumerate(self._numbers):
            out = np.isin(numbers, [place.sample for place in skipped if place.dataset == dataset])
            if out.all():
                raise ValueError("no composite is left of a dataset: those of all are left out")
            if out.any():
                at = np.arange(len(numbers))
                kept = at[~out]
                at[out] = kept[np.searchsorted(kept, at[out]) % len(kept)]
                self._numbers[dataset] = numbers[at]

    def __getitem__(self, place: int) -> Place:
        """Find what comes at a place, in no time that grows with it."""
        dataset = 0
        if self._round > 1:
            number, offset = divmod(place, self._round)
            dataset, before = round_order(self._shares, self._seeds[0], number)[offset]
            place = number * self._shares[dataset] + before
        epoch, offset = divmod(place, len(self._numbers[dataset]))
        order = self._epochs.get((dataset, epoch))
        if order is None:
            order = self._shuffle(dataset, epoch)
        return Place(dataset, epoch, int(self._numbers[dataset][order[offset]]))

    def rng(self, place: Place) -> np.random.Generator:
        """Return a place's own randomness: that of (seed, epoch, sample)."""
        return np.random.default_rng((self._seeds[place.dataset], place.epoch, place.sample))

    def _shuffle(self, dataset: int, epoch: int) -> NDArray[np.int64]:
        """Shuffle an epoch, and keep it and those beside it: a batch may lie in two."""
        self._epochs = {
            key: kept for key, kept in self._epochs.items() if key[0] != dataset or abs(key[1] - epoch) == 1
        }
        order = epoch_order(self._sizes[dataset], self._seeds[dataset], epoch, self._open_shards)
        self._epochs[dataset, epoch] = order
        return order


def count_shares(weights: Sequence[float]) -> tuple[int, ...]:
    """Bring weights to the smallest whole numbers in their ratio, in thousandths.

    Raises
    ------
    ValueError
        One is less than a thousandth, or not a number.

    Examples
    --------
    >>> count_shares([1, 0.3]), count_shares([0.5, 0.5])
    ((10, 3), (1, 1))
    """
    if not all(1 / FINEST <= weight <= FINEST for weight in weights):  # NaN is not, either
        raise ValueError(f"weights lie within 0.001 and 1000: {', '.join(map(str, weights))}")
    fine = [round(weight * FINEST) for weight in weights]
    common = math.gcd(*fine)
    return tuple(share // common for share in fine)


@lru_cache(maxsize=4)
def round_order(shares: tuple[int, ...], seed: int, number: int) -> list[tuple[int, int]]:
    """Shuffle a round: for each of its places whose it is, and how many of that one's come before it in the round."""
    owners = np.random.default_rng((seed, number, len(shares))).permutation(np.repeat(np.arange(len(shares)), shares))
    before = np.zeros(len(owners), np.int64)
    for dataset, share in enumerate(shares):
        before[owners == dataset] = np.arange(share)
    return list(zip(owners.tolist(), before.tolist(), strict=True))


def epoch_order(sizes: tuple[int, ...], seed: int, epoch: int, open_shards: int) -> NDArray[np.int64]:
    """Shuffle an epoch so that at any moment few shards are being read.

    Shards stand in random order on a circle, one unit apart. Each sample gets a random place within `open_shards`
    units from its shard on, and the circle is walked from a random point, so wherever one is, samples of exactly
    that many shards are mixed evenly, at the epoch's ends too. With as many as there are shards it is a plain shuffle.

    Parameters
    ----------
    sizes : tuple of int
        Samples per shard.
    seed, epoch : int
    open_shards : int
        Shards to mix, at least 1.

    Returns
    -------
    (sum of sizes,) int64
        The samples' numbers, counted through the shards.

    Examples
    --------
    >>> epoch_order((2, 3), seed=1, epoch=0, open_shards=2).tolist()
    [2, 3, 1, 0, 4]
    """
    count = len(sizes)
    rng = np.random.default_rng((seed, epoch))
    spread = min(open_shards, count)
    seats = rng.permutation(count).astype(np.float64) + rng.random()
    places = (np.repeat(seats, sizes) + spread * rng.random(sum(sizes))) % count
    order = np.argsort(places, kind="stable")
    order.setflags(write=False)
    return order
