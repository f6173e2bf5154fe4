"""The drawn pictures: exact alphas, true colours, one stream of randomness."""

from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest

from matting_compose.composer import build, load_recipe
from matting_compose.composer.base.errors import RecipeError
from matting_compose.composer.recipe import Kind, plain
from matting_compose.composer.sources.drawn.backgrounds import BACKGROUND_KINDS, draw_background
from matting_compose.composer.sources.drawn.foregrounds import FOREGROUND_KINDS, draw_foreground
from matting_compose.composer.sources.foregrounds import foreground_layout

SIZES = ((64, 64), (131, 97), (180, 256))
SEEDS = range(4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", FOREGROUND_KINDS)
def test_a_foreground_has_the_size_asked_for(kind: str, size: tuple[int, int]) -> None:
    """Every foreground is uint8 RGB with a uint8 alpha, at odd and oblong sizes too."""
    foreground, alpha = draw_foreground(kind, size, np.random.default_rng(0))
    assert (foreground.shape, foreground.dtype) == ((*size, 3), np.uint8)
    assert (alpha.shape, alpha.dtype) == (size, np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", BACKGROUND_KINDS)
def test_a_background_has_the_size_asked_for_and_is_never_plain(kind: str, size: tuple[int, int]) -> None:
    """Every background is uint8 RGB with some contrast, at odd and oblong sizes too."""
    background = draw_background(kind, size, np.random.default_rng(1))
    assert (background.shape, background.dtype) == ((*size, 3), np.uint8)
    assert background.std() > 5


@pytest.mark.parametrize("kind", FOREGROUND_KINDS)
def test_a_foreground_depends_on_its_generator_alone(kind: str) -> None:
    """Equal seeds draw equal bytes, another seed other bytes, whatever NumPy's global state."""
    first = draw_foreground(kind, (90, 80), np.random.default_rng(5))
    np.random.seed(3)  # noqa: NPY002 - the global state is what must not matter
    again = draw_foreground(kind, (90, 80), np.random.default_rng(5))
    other = draw_foreground(kind, (90, 80), np.random.default_rng(6))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("kind", BACKGROUND_KINDS)
def test_a_background_depends_on_its_generator_alone(kind: str) -> None:
    """Equal seeds draw equal bytes, another seed other bytes."""
    first, again, other = (draw_background(kind, (90, 80), np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("kind", FOREGROUND_KINDS)
def test_alphas_are_clear_opaque_and_fractional(kind: str) -> None:
    """Every alpha has clear pixels, a visible subject, soft pixels and, where the matter is solid, an opaque core."""
    for seed in SEEDS:
        _, alpha = draw_foreground(kind, (160, 160), np.random.default_rng(seed))
        assert (alpha == 0).mean() >= 0.15
        assert (alpha > 0).mean() >= (0.02 if kind == "portrait" else 0.12)  # people also stand far away
        assert ((alpha > 0) & (alpha < 255)).mean() > 0.005
        if kind not in ("glass", "smoke"):
            assert (alpha == 255).mean() >= 0.02


@pytest.mark.parametrize("kind", FOREGROUND_KINDS)
def test_colours_continue_where_the_alpha_is_clear(kind: str) -> None:
    """Under clear pixels the foreground keeps the subject's colours: their means agree, and are not black."""
    for seed in SEEDS:
        foreground, alpha = draw_foreground(kind, (160, 160), np.random.default_rng(seed))
        clear, subject = foreground[alpha == 0].mean(), foreground[alpha > 0].mean()
        assert clear > 8
        assert abs(clear - subject) < 90


def test_people_are_of_any_size_and_anywhere() -> None:
    """Portraits go from small figures to close-ups, left and right, and mostly reach the frame's bottom."""
    boxes = []
    for seed in range(24):
        _, alpha = draw_foreground("portrait", (128, 112), np.random.default_rng(seed))
        x, y, width, height = cv2.boundingRect((alpha > 127).view(np.uint8))
        boxes.append((height / 128, (x + width / 2) / 112, (y + height) / 128))
    tall, middle, bottom = np.array(boxes).T
    assert tall.min() < 0.5
    assert tall.max() > 0.9
    assert middle.min() < 0.4
    assert middle.max() > 0.6
    assert (bottom == 1).mean() > 0.8


def test_hair_is_soft() -> None:
    """Strands are finer than a pixel: in a head of long hair there are alphas of every level."""
    levels = np.zeros(256)
    for seed in range(12):
        _, alpha = draw_foreground("portrait", (256, 256), np.random.default_rng(seed))
        levels += np.bincount(alpha.ravel(), minlength=256)
    assert (levels > 0).all()
    assert levels[16:240].sum() / levels[1:].sum() > 0.03


def test_faint_pixels_keep_the_subject_s_colour() -> None:
    """Un-premultiplied colours stay close to the full ones where one colour covers all: smoke at its faintest."""
    foreground, alpha = draw_foreground("smoke", (160, 160), np.random.default_rng(2))
    faint, dense = foreground[(alpha > 0) & (alpha < 40)].mean(0), foreground[alpha > 200].mean(0)
    assert np.abs(faint / faint.sum() - dense / dense.sum()).max() < 0.05


@pytest.mark.parametrize("scale", [2, 4])
def test_strokes_scale_with_the_picture(scale: int) -> None:
    """The same seed covers the same share of a larger frame."""
    shares = [(draw_foreground("fur", (n, n), np.random.default_rng(4))[1] / 255).mean() for n in (96, 96 * scale)]
    assert shares[0] == pytest.approx(shares[1], abs=0.06)


def test_unknown_kinds_are_refused_with_the_known_ones() -> None:
    """A wrong kind raises a ValueError that names it and lists what there is."""
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"'feather'.*hair, fur, lace, leaves, glass, smoke, motion, solid"):
        draw_foreground("feather", (64, 64), rng)
    with pytest.raises(ValueError, match=rf"'hair'.*{', '.join(BACKGROUND_KINDS)}"):
        draw_background("hair", (64, 64), rng)


def test_a_recipe_chooses_what_is_drawn() -> None:
    """The kinds that a recipe names are drawn in turn; those of a recipe that names none are as ever."""
    recipe = load_recipe("demo", ['foregrounds.kinds=["portrait","smoke"]'])
    assert [entry.key for entry in foreground_layout(recipe).entries()][:3] == [
        "portrait-000",
        "smoke-001",
        "portrait-002",
    ]
    assert "kinds" not in plain(load_recipe("demo"))["foregrounds"]
    assert set(get_args(Kind)) == set(FOREGROUND_KINDS)
    with pytest.raises(RecipeError, match=r"foregrounds\.kinds"):
        load_recipe("demo", ['foregrounds.kinds=["feather"]'])


def test_the_portrait_recipe_builds(tmp_path: Path) -> None:
    """The shipped recipe of portraits draws people only, and composes them."""
    small = [f"foregrounds.{table}.{key}" for table in (0, 1) for key in ("count=3", "sides=[64,80]")]
    small += ["backgrounds.count=2", "backgrounds.sides=[64,80]"]
    result = build(load_recipe("portrait-demo", [*small, "variants=2"]), tmp_path / "d", jobs=1)
    assert (result.composites, result.failures) == (6, 0)
