"""The order: every composite once an epoch, few shards at a time, several datasets by their weights, from any place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matting_compose.composer import open_dataset
from matting_compose.trainer.data.order import Order, count_shares, epoch_order, round_order


@settings(max_examples=60)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(0, 99), st.integers(1, 40))
def test_an_epoch_has_every_sample_once(sizes: list[int], seed: int, open_shards: int) -> None:
    """The order is a permutation, another one in another epoch, and mixes no more shards than asked for."""
    order = epoch_order(tuple(sizes), seed, 3, open_shards)
    assert sorted(order.tolist()) == list(range(sum(sizes)))
    assert np.array_equal(order, epoch_order(tuple(sizes), seed, 3, open_shards))
    if sum(sizes) > 30:
        assert not np.array_equal(order, epoch_order(tuple(sizes), seed, 4, open_shards))


def test_few_shards_are_read_at_any_moment() -> None:
    """Between a shard's first and last sample lie `open_shards` shards' worth: on the circle, for every shard."""
    sizes, open_shards = (100,) * 50, 5
    shards = epoch_order(sizes, 1, 0, open_shards) // 100
    for shard in range(50):
        places = np.sort(np.flatnonzero(shards == shard))
        gaps = np.diff(np.append(places, places[0] + 5000))
        assert 5000 - gaps.max() < 100 * open_shards * 1.35  # the longest gap is where the shard is not open
    window = [len(set(shards[i : i + 100].tolist())) for i in range(0, 5000, 100)]
    assert max(window) <= open_shards + 2
    assert min(window) >= open_shards - 1


def test_neighbours_come_from_all_open_shards() -> None:
    """Wherever one looks, the open shards are mixed evenly: consecutive samples rarely share one."""
    shards = epoch_order((200,) * 40, 2, 0, 8) // 200
    assert np.mean(shards[1:] == shards[:-1]) == pytest.approx(1 / 8, abs=0.02)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 20), min_size=2, max_size=4), st.integers(0, 9))
def test_datasets_come_by_their_weights(shares: list[int], seed: int) -> None:
    """Of so many places in a row each dataset has its weight, and none of its turns is left out or given twice."""
    common = int(np.gcd.reduce(shares))
    whole = sum(shares) // common
    turns = [turn for number in range(3) for turn in round_order(count_shares(shares), seed, number)]
    for number in range(3):
        part = turns[number * whole : (number + 1) * whole]
        for dataset, share in enumerate(shares):
            assert [before for owner, before in part if owner == dataset] == list(range(share // common))


def test_weights_are_ratios() -> None:
    """Only their ratio counts, in thousandths; what cannot be told apart from nothing is refused."""
    assert count_shares([1, 0.3]) == count_shares([10, 3]) == (10, 3)
    assert count_shares([0.7]) == (1,)
    assert count_shares([1 / 3, 1]) == (333, 1000)
    for wrong in (0, -1, 0.0004, 1e9, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"within 0\.001 and 1000"):
            count_shares([1, wrong])


def test_a_mixed_order_is_epochs_of_each(finished: Path) -> None:
    """Each dataset's composites come once in each of its own epochs; the first one's order is as it is alone."""
    dataset = open_dataset(finished)
    order = Order([dataset, dataset], (2, 1), "train", 7, 4)
    alone = Order([dataset], (1,), "train", 7, 4)
    assert order.length == alone.length * 3 // 2
    places = [order[place] for place in range(3 * order.length)]
    own = [[place for place in places if place.dataset == number] for number in (0, 1)]
    assert [(p.epoch, p.sample) for p in own[0]] == [alone[n][1:] for n in range(3 * alone.length)]
    for epoch in (0, 1):  # the second has made one and a half
        wanted = dataset.numbers("train").tolist()
        found = [place.sample for place in own[1] if place.epoch == epoch]
        assert len(set(found)) == len(found)
        assert (sorted(found) == wanted) is (epoch == 0)
    assert [p.sample for p in own[0]][: alone.length] != [p.sample for p in own[1]][: alone.length]
    backwards = Order([dataset, dataset], (2, 1), "train", 7, 4)
    assert [backwards[place] for place in reversed(range(len(places)))] == places[::-1]
