"""The four errors against a slow reference written from their formulas, and against values worked out by hand."""

import doctest
import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage

from matting_compose.trainer import metrics
from matting_compose.trainer.metrics import connectivity_error, gradient_error, mse, sad

Picture = NDArray[np.uint8]
Metric = Callable[[Picture, Picture, Picture | None], float]
Family = Callable[[np.random.Generator, int, int], tuple[Picture, Picture]]

METRICS: list[Metric] = [sad, mse, gradient_error, connectivity_error]


# The reference: one formula after the other, nothing shared with the module.


def reference_sad(p: Picture, g: Picture, t: Picture | None) -> float:
    error = np.abs(p.astype(float) - g.astype(float)) / 255
    return float(error.mean() / 1e-3 if t is None else error[t == 128].sum() / 1000)


def reference_mse(p: Picture, g: Picture, t: Picture | None) -> float:
    error = ((p.astype(float) - g.astype(float)) / 255) ** 2
    return float(error.mean() / 1e-3 if t is None else error[t == 128].mean())


def reference_gradient(p: Picture, g: Picture, t: Picture | None) -> float:
    error = (amplitude(p) - amplitude(g)) ** 2
    return float(error.mean() / 1e-5 if t is None else error[t == 128].sum() / 1000)


def reference_connectivity(p: Picture, g: Picture, t: Picture | None) -> float:
    x, y = (picture.astype(np.float32) / np.float32(255) for picture in (p, g))
    taus = [np.float32(i / 10) for i in range(11)]
    connected = np.full(p.shape, -1, np.float32)
    for i in range(1, 11):
        omega = largest((x >= taus[i]) & (y >= taus[i]))
        connected[(connected == -1) & ~omega] = taus[i - 1]
    connected[connected == -1] = 1
    error = np.abs(phi(x - connected) - phi(y - connected)).astype(float)
    return float(error.mean() / 1e-5 if t is None else error[t == 128].sum() / 1000)


def amplitude(picture: Picture) -> NDArray[np.float64]:
    x = picture.astype(float)
    x = np.clip(x, 0, 1) if x.min() == x.max() else (x - x.min()) / (x.max() - x.min())
    kernel = np.array([[gauss(i) * -j * gauss(j) / 1.4**2 for j in range(-4, 5)] for i in range(-4, 5)])
    kernel /= math.sqrt((kernel**2).sum())
    gx, gy = (ndimage.convolve(x, k, mode="nearest") for k in (kernel, kernel.T))
    return np.asarray(np.sqrt(gx**2 + gy**2))


def gauss(x: int) -> float:
    return math.exp(-(x**2) / (2 * 1.4**2)) / (1.4 * math.sqrt(2 * math.pi))


def largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, _ = ndimage.label(mask)  # its default structure is the 4-connected cross
    sizes: dict[int, int] = {}
    for label in labels.T.flat:  # column after column, so that max() meets the first of equals first
        if label:
            sizes[label] = sizes.get(label, 0) + 1
    return np.asarray(labels == max(sizes, key=sizes.__getitem__)) if sizes else np.zeros_like(mask)


def phi(d: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.float32(1) - d * (d >= np.float32(0.15))


REFERENCES = [reference_sad, reference_mse, reference_gradient, reference_connectivity]


def assert_agrees(p: Picture, g: Picture, t: Picture | None) -> None:
    for metric, reference in zip(METRICS, REFERENCES, strict=True):
        # The absolute part is for gradients that are 0 but for float64's rounding.
        assert metric(p, g, t) == pytest.approx(reference(p, g, t), rel=1e-6, abs=1e-12), metric.__name__


# Pictures that have caught other implementations out.


def noise(rng: np.random.Generator, h: int, w: int) -> tuple[Picture, Picture]:
    return rng.integers(0, 256, (h, w), np.uint8), rng.integers(0, 256, (h, w), np.uint8)


def matte(rng: np.random.Generator, h: int, w: int) -> tuple[Picture, Picture]:
    rough = cv2.GaussianBlur(rng.normal(size=(h, w)), (0, 0), max(h, w) / 12).reshape(h, w)
    g = np.clip(128 + 200 * rough / (np.abs(rough).max() + 1e-9), 0, 255)
    p = np.clip(g + rng.normal(0, 12, (h, w)), 0, 255)
    return p.astype(np.uint8), g.astype(np.uint8)


def thresholds(rng: np.random.Generator, h: int, w: int) -> tuple[Picture, Picture]:
    near = np.array([v + e for v in (0, 25, 51, 76, 102, 127, 153, 178, 204, 229, 254) for e in (0, 1)], np.uint8)
    return rng.choice(near, (h, w)), rng.choice(near, (h, w))


def ties(rng: np.random.Generator, h: int, w: int) -> tuple[Picture, Picture]:
    specks = ((np.add.outer(np.arange(h), np.arange(w)) % 2) * rng.choice([90, 153, 255], (h, w))).astype(np.uint8)
    return specks, np.where(rng.random((h, w)) < 0.8, specks, 255).astype(np.uint8)


def transparent(rng: np.random.Generator, h: int, w: int) -> tuple[Picture, Picture]:
    return rng.integers(0, 26, (h, w), np.uint8), rng.integers(0, 120, (h, w), np.uint8)


def disjoint(rng: np.random.Generator, h: int, w: int) -> tuple[Picture, Picture]:
    g = (rng.random((h, w)) < 0.5).astype(np.uint8) * np.uint8(255)
    return 255 - g, g


def constant(rng: np.random.Generator, h: int, w: int) -> tuple[Picture, Picture]:
    p = np.full((h, w), rng.choice([0, 1, 153, 255]), np.uint8)
    return p, p.copy() if rng.random() < 0.3 else rng.integers(0, 256, (h, w), np.uint8)


def two_peaks(rng: np.random.Generator, h: int, w: int) -> tuple[Picture, Picture]:
    """A wide faint object, and a small firm one that is the largest once the first has gone."""
    g = rng.integers(30, 190, (h, w), np.uint8)
    g[:, w // 2] = 0
    g[:, w // 2 + 1 :] = rng.integers(210, 256, (h, w - w // 2 - 1), np.uint8)
    g[h // 3 + 1 :, w // 2 + 1 :] = 0
    return np.maximum(g, rng.integers(0, 60, (h, w), np.uint8)), g


FAMILIES: list[Family] = [noise, matte, thresholds, ties, transparent, disjoint, constant, two_peaks]
SHAPES = [(1, 1), (1, 2), (2, 2), (1, 19), (17, 1), (5, 8), (23, 31), (40, 52)]


def trimaps(rng: np.random.Generator, h: int, w: int) -> list[Picture | None]:
    one = np.where(rng.random((h, w)) < 0.5, 0, 255).astype(np.uint8)
    one[rng.integers(h), rng.integers(w)] = 128
    border = np.zeros((h, w), np.uint8)
    border[[0, -1], :] = border[:, [0, -1]] = 128
    mixed = rng.choice(np.array([0, 128, 255], np.uint8), (h, w))
    mixed[-1, 0] = 128
    return [None, np.full((h, w), 128, np.uint8), one, border, mixed]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_agrees_with_the_formulas(family: Family, shape: tuple[int, int]) -> None:
    """Each family, shape and sort of trimap scores as the formulas say: 960 cases of four errors."""
    rng = np.random.default_rng([FAMILIES.index(family), *shape])
    for _ in range(3):
        p, g = family(rng, *shape)
        for t in trimaps(rng, *shape):
            assert_agrees(p, g, t)


SMALL = st.tuples(st.integers(1, 7), st.integers(1, 7))
VALUES = st.sampled_from([0, 26, 102, 152, 153, 230, 254, 255])


@settings(max_examples=200)
@given(data=st.data(), shape=SMALL)
def test_agrees_on_whatever_hypothesis_draws(data: st.DataObject, shape: tuple[int, int]) -> None:
    """A few levels on a few pixels, where components tie and vanish most."""
    p = data.draw(arrays(np.uint8, shape, elements=VALUES))
    g = data.draw(arrays(np.uint8, shape, elements=VALUES))
    assert_agrees(p, g, data.draw(st.sampled_from([None, np.full(shape, 128, np.uint8)])))


# By hand.


def row(*values: int) -> Picture:
    return np.array([values], np.uint8)


def test_sad_and_mse_by_hand() -> None:
    """Differences of 1 and 0.2 on two unknown pixels; the third counts only for the whole picture."""
    p, g, t = row(255, 51, 255), row(0, 0, 0), row(128, 128, 255)
    assert sad(p, g, t) == pytest.approx(1.2 / 1000)
    assert mse(p, g, t) == pytest.approx(1.04 / 2)
    assert sad(p, g) == pytest.approx(2.2 / 3 * 1e3)
    assert mse(p, g) == pytest.approx(2.04 / 3 * 1e3)


def test_gradient_of_one_step_by_hand() -> None:
    """Both pixels of a step see the same half of the filter: Σ gauss / ‖gauss‖ · Σ_{x ≥ 1} x·gauss / ‖x·gauss‖."""
    weights = np.array([gauss(x) for x in range(-4, 5)])
    slopes = np.arange(-4, 5) * weights
    a = weights.sum() / np.linalg.norm(weights) * slopes[5:].sum() / np.linalg.norm(slopes)
    assert gradient_error(row(0, 0), row(0, 255), row(128, 128)) == pytest.approx(2 * a**2 / 1000)
    assert gradient_error(row(0, 0), row(0, 255)) == pytest.approx(a**2 * 1e5)


def test_gradient_stretches_each_picture_to_its_own_range() -> None:
    """A fainter copy of the truth has no gradient error, and one constant is like another."""
    g = np.tile(row(0, 0, 255, 0, 255), (5, 1))
    assert gradient_error(g // 255, g) == pytest.approx(0, abs=1e-12)
    assert gradient_error(np.full_like(g, 7), np.full_like(g, 255)) == 0
    assert gradient_error(np.full_like(g, 7), g) == gradient_error(np.zeros_like(g), g) > 0


def test_connectivity_follows_the_first_component_by_hand() -> None:
    """From τ = 0.6 on the middle is missing and the left pixel is Ω: l = 1, 0.5, 0.5, an error of 0.5 in the middle."""
    p, g, t = row(255, 128, 255), row(255, 255, 255), row(128, 128, 128)
    assert connectivity_error(p, g, t) == pytest.approx(0.5 / 1000)
    assert connectivity_error(p, g) == pytest.approx(0.5 / 3 * 1e5)


def test_connectivity_holds_level_153_at_six_tenths() -> None:
    """153/255 ≥ 0.6 in float32: l = 0.6 and an error of 0.4; a float64 comparison gives l = 0.5 and an error of 0.5."""
    assert connectivity_error(row(255, 153), row(255, 255), row(128, 128)) == pytest.approx(0.4 / 1000)


def test_connectivity_of_a_transparent_object_counts_the_empty_intersection() -> None:
    """Nothing reaches τ = 0.1 in both: l = 0, φ = 0 against φ = 1 on each pixel."""
    p, g = np.zeros((3, 4), np.uint8), np.full((3, 4), 255, np.uint8)
    assert connectivity_error(p, g, np.full((3, 4), 128, np.uint8)) == pytest.approx(12 / 1000)
    assert connectivity_error(p, g) == pytest.approx(1e5)


def test_connectivity_takes_the_first_of_equals_column_by_column() -> None:
    """Bottom left precedes top right, keeps l = 0.9 and no error; row by row it would have l = 0 and 5/255."""
    p, g = np.array([[0, 255], [255, 0]], np.uint8), np.array([[0, 255], [250, 0]], np.uint8)
    assert connectivity_error(p, g) == 0
    assert connectivity_error(p.T, g.T) == pytest.approx(5 / 255 / 4 * 1e5)  # now top right precedes


def test_connectivity_does_not_join_diagonals() -> None:
    """Two pixels that touch at a corner are two components, and the second is not connected."""
    p = np.array([[255, 0], [0, 255]], np.uint8)
    g = np.array([[255, 0], [0, 204]], np.uint8)
    assert connectivity_error(p, g) == pytest.approx((1 - 204 / 255) / 4 * 1e5)


# What callers rely on.


@pytest.mark.parametrize("metric", METRICS)
def test_scores_any_memory_layout_alike(metric: Metric) -> None:
    """A channel of a picture, Fortran order and read-only pages score as a plain copy does, and none is written to."""
    rng = np.random.default_rng(5)
    p, g = matte(rng, 21, 34)
    t = rng.choice(np.array([0, 128, 255], np.uint8), p.shape)
    expected = metric(p, g, t)
    assert metric(np.dstack([p, g, p])[..., 0], np.asfortranarray(g), np.asfortranarray(t)) == expected
    for picture in (p, g, t):
        picture.flags.writeable = False
    assert metric(p, g, t) == expected


@pytest.mark.parametrize("metric", METRICS)
def test_equal_pictures_have_no_error(metric: Metric) -> None:
    """0 exactly, not about 0."""
    p, _ = matte(np.random.default_rng(6), 33, 20)
    assert metric(p, p.copy(), None) == 0


def test_a_matte_with_a_solid_core_is_labelled_once_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other levels are flooded, with specks about and a strand firmer than the core: that is where the speed is."""
    calls = []
    label = metrics._largest_component

    def counted(mask: Picture) -> tuple[Picture, int]:
        calls.append(mask)
        found: tuple[Picture, int] = label(mask)
        return found

    monkeypatch.setattr(metrics, "_largest_component", counted)
    y, x = np.mgrid[:120, :160]
    g = np.clip(250 - 6 * np.maximum(np.hypot(y - 60, x - 80) - 30, 0), 0, 250).astype(np.uint8)
    g[:30, 80] = 255
    g[::9, ::9] = np.maximum(g[::9, ::9], 200)
    assert_agrees(np.where(g < 200, g + 50, g), g, None)
    assert len(calls) <= 1


OK = np.full((2, 3), 128, np.uint8)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((OK.astype(float), OK, None), r"prediction to be a \(H, W\) uint8 .* found \(2, 3\) float64"),
        ((OK, np.dstack([OK] * 3), None), r"truth to be a \(H, W\) uint8 .* found \(2, 3, 3\) uint8"),
        ((OK, [[1, 2]], None), "truth to be .* found list"),
        ((OK[:0], OK[:0], None), r"at least one pixel, found \(0, 3\)"),
        ((OK, OK.T, None), r"of one shape, found \(2, 3\) and \(3, 2\)"),
        ((OK, OK, OK == 128), "trimap to be .* found .* bool"),
        ((OK, OK, OK[:1]), r"trimap of the pictures' shape \(2, 3\), found \(1, 3\)"),
        ((OK, OK, OK + np.arange(3, dtype=np.uint8)), "0, 128 and 255 in the trimap, found 129, 130"),
        ((OK, OK, np.zeros_like(OK)), "an unknown pixel"),
    ],
)
def test_refuses_what_cannot_be_scored(
    metric: Metric, arguments: tuple[Picture, Picture, Picture | None], message: str
) -> None:
    """The message says what was expected and what was found."""
    with pytest.raises(ValueError, match=message):
        metric(*arguments)


def test_documented_example() -> None:
    """The docstrings' examples run."""
    result = doctest.testmod(metrics, extraglobs={"np": np})
    assert result.attempted
    assert not result.failed
