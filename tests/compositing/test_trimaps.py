"""Trimaps: equal, pixel for pixel, to slow code written from each strategy's definition."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import ndimage

from conftest import soft_disc
from matting_compose.composer.compositing.trimaps import Trimap, subject_size, trimap_strategy

CORNERS = [(0.0, 0.0), (0.999, 0.999), (0.0, 0.999), (0.4, 0.7)]


def alphas() -> list[np.ndarray]:
    """A soft disc, noise, a hard square at the border, all clear but one pixel, all opaque but one."""
    rng = np.random.default_rng(5)
    noise = rng.choice(np.array([0, 0, 0, 128, 255, 255, 255], np.uint8), (40, 57))
    square = np.zeros((64, 50), np.uint8)
    square[:30, 10:40] = 255
    dot = np.zeros((33, 33), np.uint8)
    dot[16, 16] = 255
    return [soft_disc(90, 110, 3)[1], noise, square, dot, 255 - dot]


def disk(radius: int) -> np.ndarray:
    """All offsets at a Euclidean distance of at most `radius`."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return y * y + x * x <= radius * radius


def slow(opaque: np.ndarray, visible: np.ndarray, inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
    """Erode and dilate by SciPy; what lies beyond the border does not count."""
    trimap = np.full(opaque.shape, 128, np.uint8)
    trimap[ndimage.binary_erosion(opaque, inner, border_value=1)] = 255
    trimap[~ndimage.binary_dilation(visible, outer)] = 0
    return trimap


@pytest.mark.parametrize("radius", range(1, 21))
def test_distance_equals_disks(radius: int) -> None:
    """Distance ≤ r is erosion and dilation by a disk of radius r, for r = 1..20."""
    settings = Trimap(erode=(radius, radius), dilate=(21 - radius, 21 - radius))
    for alpha in alphas():
        drawn = trimap_strategy(alpha, settings)(0.3, 0.3)
        expected = slow(alpha == 255, alpha > 0, disk(radius), disk(21 - radius))
        np.testing.assert_array_equal(drawn.trimap, expected)
        assert (drawn.erode, drawn.dilate) == (radius, 21 - radius)


@pytest.mark.parametrize("radius", [126, 127, 128, 200])
def test_large_radii_are_as_exact(radius: int) -> None:
    """Where levels no longer fit a byte, the wider map gives the same."""
    alpha = soft_disc(460, 300, 1)[1]
    drawn = trimap_strategy(alpha, Trimap(erode=(1, radius), dilate=(1, radius)))(0.0, 0.9999)
    near = ndimage.distance_transform_edt(alpha == 0) <= radius
    np.testing.assert_array_equal(drawn.trimap == 0, ~near)


def test_radii_cover_their_range_evenly() -> None:
    """Both ends of a range are drawn, and all between alike."""
    draw = trimap_strategy(alphas()[0], Trimap(erode=(2, 5), dilate=(0, 0)))
    assert [draw(u, 0.5).erode for u in np.arange(8) / 8] == [2, 2, 3, 3, 4, 4, 5, 5]
    assert draw(0.0, 0.5).dilate == 0


def test_radii_can_follow_the_subject() -> None:
    """With unit = subject the radius is in thousandths of the subject's size, so it scales with the picture."""
    small, large = soft_disc(100, 100, 2)[1], soft_disc(400, 400, 2)[1]
    settings = Trimap(erode=(10, 50), dilate=(10, 50), unit="subject")
    radii = [trimap_strategy(alpha, settings)(0.5, 0.5).dilate for alpha in (small, large)]
    assert radii == [round(0.03 * subject_size(alpha)) for alpha in (small, large)]
    assert radii[1] >= 3 * radii[0]


def test_thresholds_keep_jpeg_noise_out() -> None:
    """254 and 1 in solid areas swell the unknown region, unless they count as opaque and clear."""
    alpha = soft_disc(80, 80, 0)[1]
    noisy = alpha.copy()
    noisy[alpha == 255] -= np.random.default_rng(0).integers(0, 5, (alpha == 255).sum(), np.uint8)
    noisy[alpha == 0] += np.random.default_rng(0).integers(0, 5, (alpha == 0).sum(), np.uint8)
    tight = trimap_strategy(noisy, Trimap(erode=(2, 2), dilate=(2, 2), opaque=250, clear=5))(0, 0).trimap
    loose = trimap_strategy(noisy, Trimap(erode=(2, 2), dilate=(2, 2)))(0, 0).trimap
    true = trimap_strategy(alpha, Trimap(erode=(2, 2), dilate=(2, 2), opaque=250, clear=5))(0, 0).trimap
    np.testing.assert_array_equal(tight, true)
    assert (loose == 128).mean() > 3 * (true == 128).mean()


@pytest.mark.parametrize("draws", CORNERS)
@pytest.mark.parametrize("name", ["mmagic", "gca"])
def test_mmagic_is_elliptical_kernels(name: str, draws: tuple[float, float]) -> None:
    """Independent ellipses of 1..29 px."""
    sides = [min(29, 1 + int(u * 29)) for u in draws]
    kernels = [cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)) for side in sides]
    for alpha in alphas():
        expected = np.full(alpha.shape, 128, np.uint8)
        expected[cv2.erode(alpha, kernels[0]) >= 255] = 255
        expected[cv2.dilate(alpha, kernels[1]) <= 0] = 0
        drawn = trimap_strategy(alpha, Trimap(strategy=name))(*draws)
        np.testing.assert_array_equal(drawn.trimap, expected)


@pytest.mark.parametrize("draws", CORNERS)
def test_indexnet_is_distance_to_fractional_pixels(draws: tuple[float, float]) -> None:
    """Every pixel within r of a fractional one; a matte without fractional pixels has no unknown region."""
    radius = min(19, 1 + int(draws[0] * 19))
    for alpha in alphas():
        unknown = (alpha > 0) & (alpha < 255)
        expected = np.where(alpha == 255, 255, 0).astype(np.uint8)
        if unknown.any():
            expected[ndimage.distance_transform_edt(~unknown) <= radius] = 128
        np.testing.assert_array_equal(trimap_strategy(alpha, Trimap(strategy="indexnet"))(*draws).trimap, expected)


@pytest.mark.parametrize("draws", CORNERS)
def test_huochaitiantang_iterates(draws: tuple[float, float]) -> None:
    """All the iterations run: passed as OpenCV's third positional argument, one would."""
    side, times = min(4, 2 + int(draws[0] * 3)), min(14, 5 + int(draws[1] * 10))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    for alpha in alphas():
        eroded, dilated = alpha, alpha
        for _ in range(times):
            eroded, dilated = cv2.erode(eroded, kernel), cv2.dilate(dilated, kernel)
        expected = np.full(alpha.shape, 128, np.uint8)
        expected[eroded >= 255] = 255
        expected[dilated <= 0] = 0
        drawn = trimap_strategy(alpha, Trimap(strategy="huochaitiantang"))(*draws)
        np.testing.assert_array_equal(drawn.trimap, expected)


@pytest.mark.parametrize("draws", CORNERS)
def test_tsing90_is_squares_that_follow_the_picture(draws: tuple[float, float]) -> None:
    """Squares of 0.6 % to 2.2 % of (h + w)/2, the upper end excluded, as their code draws."""
    alpha = soft_disc(900, 700, 4)[1]
    low, high = max(1, round(800 * 0.006)), max(10, round(800 * 0.022))
    sides = [min(high - 1, low + int(u * (high - low))) for u in draws]
    expected = np.where(cv2.dilate(alpha, np.ones((sides[1],) * 2)) > 0, 255, 0).astype(np.uint8)
    expected[(expected == 255) & (cv2.erode(alpha, np.ones((sides[0],) * 2)) < 255)] = 128
    np.testing.assert_array_equal(trimap_strategy(alpha, Trimap(strategy="tsing90"))(*draws).trimap, expected)
