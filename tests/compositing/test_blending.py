"""Composition: exact to the last bit, and covering."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from matting_compose.composer.compositing.blending import Blender, blend, fit_background, place_background

SIDE = st.integers(1, 400)


def test_blend_is_exactly_rounded_for_every_input() -> None:
    """I = (αF + (255−α)B) / 255, rounded to nearest, for all 256³ triples."""
    foreground, background = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    as_rgb = [np.repeat(v[..., None].astype(np.uint8), 3, axis=2) for v in (foreground, background)]
    for alpha in range(256):
        exact = alpha * foreground + (255 - alpha) * background  # over 255
        expected = (2 * exact + 255) // 510  # ties cannot occur: 255 is odd
        image = blend(as_rgb[0], np.full((256, 256), alpha, np.uint8), as_rgb[1])
        np.testing.assert_array_equal(image, np.repeat(expected[..., None], 3, axis=2))


def test_a_blender_serves_many_backgrounds() -> None:
    """What is premultiplied once is not spent by use, and views are read as they lie."""
    rng = np.random.default_rng(0)
    foreground, alpha = rng.integers(0, 256, (50, 41, 3), np.uint8), rng.integers(0, 256, (50, 41), np.uint8)
    wide = rng.integers(0, 256, (90, 99, 3), np.uint8)
    blender = Blender(foreground, alpha)
    for y, x in ((0, 0), (40, 58), (3, 7)):
        cut = wide[y : y + 50, x : x + 41]
        np.testing.assert_array_equal(blender(cut), blend(foreground, alpha, cut.copy()))


@given(SIDE, SIDE, SIDE, SIDE, st.floats(0, 1, exclude_max=True), st.sampled_from(["needed", "always"]))
def test_every_background_covers(bh: int, bw: int, h: int, w: int, offset: float, enlarge: str) -> None:
    """The cut lies inside the background, has the composite's shape up to rounding, and fits its size."""
    place = place_background((bh, bw), (h, w), enlarge=enlarge, offset=(offset, offset))  # type: ignore[arg-type]
    assert place.y >= 0
    assert place.y + place.height <= bh
    assert place.x >= 0
    assert place.x + place.width <= bw
    assert abs(place.height * place.scale - h) <= max(place.scale, 1)
    assert abs(place.width * place.scale - w) <= max(place.scale, 1)
    if enlarge == "needed":
        assert place.scale >= 1
    else:
        assert place.height == bh or place.width == bw
    picture = np.zeros((bh, bw, 3), np.uint8)
    assert fit_background(picture, (h, w), place).shape == (h, w, 3)


def test_large_enough_backgrounds_are_only_cut() -> None:
    """Where nothing must be enlarged, the pixels are the photograph's own."""
    picture = np.random.default_rng(1).integers(0, 256, (300, 200, 3), np.uint8)
    place = place_background((300, 200), (100, 90), offset=(0.5, 0.25))
    np.testing.assert_array_equal(fit_background(picture, (100, 90), place), picture[100:200, 27:117])


def test_top_left_and_centre() -> None:
    """An offset of 0 is the top left corner, 0.5 the middle."""
    corner = place_background((101, 81), (51, 41), offset=(0, 0))
    middle = place_background((101, 81), (51, 41), offset=(0.5, 0.5))
    assert (corner.y, corner.x, middle.y, middle.x) == (0, 0, 25, 20)
