"""Whole scenes: windows of most of a composite, turned, with trimaps of their own alphas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import soft_disc

pytest.importorskip("torch", reason="streams need the 'train' extra")

from matting_compose.trainer.data.stream import open_stream
from matting_compose.trainer.data.whole_scenes import WholeScenes, mirrored, place_beside, true_trimap, turn


def test_crops_show_scenes_and_their_own_trimaps(finished: Path) -> None:
    """Each trimap is that of the crop's alpha, composites stay composites, and two streams give the same."""
    scenes = WholeScenes(share=(0.9, 1.0), rotate=30)
    one, other = (
        next(iter(open_stream(finished, batch=6, crop=48, sizes=(32,), colours=True, scenes=scenes))) for _ in range(2)
    )
    assert np.array_equal(one.image, other.image)
    for image, trimap, alpha, foreground, background in zip(
        one.image, one.trimap, one.alpha, one.foreground, one.background, strict=True
    ):
        a = alpha[0].numpy()
        radius = {tuple(true_trimap(a, scenes, draw).ravel()) for draw in np.linspace(0, 1, 50, endpoint=False)}
        assert tuple(trimap.numpy().ravel()) in radius
        again = (alpha * foreground.int() + (255 - alpha.int()) * background.int()) / 255
        assert np.abs(again.numpy() - image.numpy()).max() < 16  # resampled each by itself
        assert a[:, [0, -1]].min() < 255


def test_the_unknown_region_grows_with_the_subject() -> None:
    """Radii are thousandths of the subject's size; nothing there is all background."""
    settings = WholeScenes(radius=(50, 50))
    shares = []
    for side in (60, 240):
        alpha = soft_disc(side, side, 1)[1]
        alpha = np.where(alpha >= 128, 255, 0).astype(np.uint8)
        shares.append((true_trimap(alpha, settings) == 128).mean())
    assert shares[0] == pytest.approx(shares[1], rel=0.25)
    assert not true_trimap(np.zeros((20, 20), np.uint8), settings).any()


def test_turning_turns_all_alike() -> None:
    """By a right angle it is NumPy's own, for pictures and for masks."""
    rng = np.random.default_rng(0)
    picture, mask = rng.integers(0, 256, (9, 9, 3), np.uint8), rng.integers(0, 256, (9, 9), np.uint8)
    expected = np.rot90(picture).copy(), np.rot90(mask).copy()
    turn([picture, mask], 90)
    np.testing.assert_array_equal(picture, expected[0])
    np.testing.assert_array_equal(mask, expected[1])


def test_crops_beside_the_subject_show_nobody(finished: Path) -> None:
    """Where a composite has room, such a crop's alpha and trimap are background; where it has none, it is a scene."""
    scenes = WholeScenes(share=(0.9, 1.0), rotate=0, nobody=1.0)
    shown = next(iter(open_stream(finished, batch=12, crop=24, sizes=(32,), scenes=scenes)))
    empty = [not alpha.any() for alpha in shown.alpha]
    assert any(empty)
    assert all(not trimap.any() for trimap, nobody in zip(shown.trimap, empty, strict=True) if nobody)
    without = next(iter(open_stream(finished, batch=12, crop=24, sizes=(32,), scenes=WholeScenes(share=(0.9, 1.0)))))
    assert all(alpha.any() for alpha in without.alpha)


@pytest.mark.parametrize(
    ("subject", "largest"), [((0, 30, 60, 60), 39), ((20, 0, 60, 100), 19), ((0, 0, 60, 93), 0), ((0, 0, 60, 100), 0)]
)
def test_a_square_beside_a_subject(subject: tuple[int, int, int, int], largest: int) -> None:
    """Wherever there is room, of nearly the largest (odd) side; none where that is too little."""
    top, left, bottom, right = subject
    alpha = np.zeros((60, 100), np.uint8)
    alpha[top:bottom, left:right] = 1
    for seed in range(9):
        found = place_beside(alpha, 50, np.random.default_rng(seed))
        if not largest:
            assert found is None
            continue
        assert found is not None
        side, (y, x) = found
        assert 0.7 * largest <= side <= largest
        window = alpha[y : y + side, x : x + side]
        assert window.shape == (side, side)
        assert not window.any()


def test_a_square_is_mirrored_to_a_scene() -> None:
    """As often as it takes, without a seam."""
    square = np.arange(9, dtype=np.uint8).reshape(3, 3)
    order = [0, 1, 2, 2, 1, 0, 0, 1]
    np.testing.assert_array_equal(mirrored(square, 8), square[np.ix_(order, order)])
