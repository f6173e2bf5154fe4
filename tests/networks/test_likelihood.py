"""Likelihood: known colours are counted as they are, however many; what is far away or unknown says nothing."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="networks need the 'train' extra")

from matting_compose.trainer.networks.likelihood import CELL, REACH, STEP, count_colours, look_up  # noqa: E402

BLACK, GREY, WHITE = 0, 128, 255


def chequered(side: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    """Make a foreground of black and white squares on the right, grey on the left, and both within the unknown."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    squares = ((x // 8 + y // 8) % 2 * WHITE).to(torch.uint8)
    image = torch.where(x < side // 2, torch.full_like(squares, GREY), squares).expand(1, 3, -1, -1)
    trimap = torch.where(x < side // 3, 0, torch.where(x < 2 * side // 3, 128, 255)).to(torch.uint8)[None]
    return image, trimap


def test_a_foreground_may_be_black_and_white() -> None:
    """Its mean is the background's grey; its colours are not."""
    image, trimap = chequered()
    found = look_up(count_colours(image, trimap), image)
    assert found.shape == (1, 2, 96, 96)
    unknown = trimap[0] == 128
    grey = image[0, 0] == GREY
    assert (found[0, 0][unknown & grey] < 0.05).all()
    assert (found[0, 0][unknown & ~grey] > 0.95).all()
    assert (found[0, 1] > 0.3).all()


def test_a_colour_that_nobody_has_says_nothing() -> None:
    """Neither does any, where nothing is known."""
    image, trimap = chequered()
    red = torch.tensor([255, 0, 0], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 8, 8)
    torch.testing.assert_close(look_up(count_colours(image, trimap), red)[0, 0], torch.full((8, 8), 0.5))
    assert look_up(count_colours(image, trimap), red)[0, 1].max() == 0
    nothing = count_colours(image, torch.full_like(trimap, 128))
    torch.testing.assert_close(look_up(nothing, image)[:, 0], torch.full((1, 96, 96), 0.5))


def test_what_is_far_from_the_unknown_does_not_count() -> None:
    """A picture is larger than what it is about."""
    reach = STEP * CELL * (REACH + 2)
    trimap = torch.zeros(1, 32, 32 + 2 * reach, dtype=torch.uint8)
    trimap[:, :, :16], trimap[:, :, 16:32] = 255, 128
    image = torch.full((1, 3, *trimap.shape[1:]), GREY, dtype=torch.uint8)
    image[..., :32] = WHITE
    before = count_colours(image, trimap)
    image[..., 32 + reach :] = WHITE
    torch.testing.assert_close(count_colours(image, trimap), before)


def test_batches_are_counted_each_for_itself() -> None:
    """The other pictures of a batch change nothing."""
    image, trimap = chequered()
    both = count_colours(torch.cat((image, 255 - image)), torch.cat((trimap, trimap.flip(2))))
    torch.testing.assert_close(both[:1], count_colours(image, trimap))
    torch.testing.assert_close(both[1:], count_colours(255 - image, trimap.flip(2)))
