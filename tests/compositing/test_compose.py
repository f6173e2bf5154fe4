"""Compose: one composite out of arrays, the same as a build's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from matting_compose.composer import Fit, Trimap, build, compose, load_recipe, open_dataset
from matting_compose.composer.base.errors import RecipeError, SourceError
from matting_compose.composer.building.make_plan import make_plan
from matting_compose.composer.compositing.compose import Draws, PreparedForeground
from matting_compose.composer.compositing.trimaps import STRATEGIES, DrawnTrimap
from matting_compose.composer.dataset.rows import UNCHANGED_SCENE

RNG = np.random.default_rng(5)
FOREGROUND = RNG.integers(0, 256, (40, 60, 3), np.uint8)
ALPHA = np.tile(np.linspace(0, 255, 60).astype(np.uint8), (40, 1))
BACKGROUND = RNG.integers(0, 256, (90, 70, 3), np.uint8)


def test_image_is_the_blend_of_its_parts() -> None:
    """I = αF + (1−α)B, rounded to nearest, with the background that is returned; it is cut where placement says."""
    made = compose(FOREGROUND, ALPHA, BACKGROUND, seed=3)
    place = made.placement
    cut = BACKGROUND[place.y : place.y + place.height, place.x : place.x + place.width]
    np.testing.assert_array_equal(made.background, cut)
    alpha = ALPHA[..., None].astype(np.int64)
    expected = (2 * (alpha * FOREGROUND + (255 - alpha) * cut) + 255) // 510
    np.testing.assert_array_equal(made.image, expected)


def test_seed_decides() -> None:
    """The same seed gives the same composite; others cut elsewhere and draw other radii."""
    made = [compose(FOREGROUND, ALPHA, BACKGROUND, seed=seed) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(made[0].image, made[1].image)
    np.testing.assert_array_equal(made[0].trimap, made[1].trimap)
    assert made[0].placement != made[2].placement


def test_composing_makes_what_a_build_makes(tmp_path: Path) -> None:
    """A cell of a plan, composed from its pictures, is the composite that the build stores."""
    settings = ["foregrounds.count=2", "backgrounds.count=2", "scenes.shadow=1", "shards.background=full"]
    recipe = load_recipe("demo", ["variants=2", *settings])
    build(recipe, tmp_path / "out", jobs=1)
    plan = make_plan(recipe)
    for sample in open_dataset(tmp_path / "out"):
        number = next(n for n, entry in enumerate(plan.foregrounds) if entry.key == sample.row.foreground)
        cell, source = plan.cell(number, sample.row.variant), plan.foreground_layout.load(plan.foregrounds[number])
        picture = plan.background_layout.load(cell.background).image
        made = PreparedForeground(source.image, source.alpha, recipe.fit, recipe.trimap).compose(picture, cell)
        for name in ("image", "trimap", "alpha", "background"):
            np.testing.assert_array_equal(getattr(made, name), getattr(sample, name))
        assert (made.erode, made.dilate, made.scene) == (sample.row.erode, sample.row.dilate, sample.row.scene)


def test_supplied_trimaps_are_used_as_they_are() -> None:
    """A trimap that is given is not drawn; its radii are unknown, 0."""
    trimap = np.full(ALPHA.shape, 128, np.uint8)
    made = PreparedForeground(FOREGROUND, ALPHA).compose(BACKGROUND, Draws(0, 0, 0, 0, UNCHANGED_SCENE), trimap)
    assert made.trimap is trimap
    assert (made.erode, made.dilate) == (0, 0)


@pytest.mark.parametrize(
    ("alpha", "background", "fit", "cause"),
    [
        (np.full((40, 60), 255, np.uint8), BACKGROUND, Fit(), "no-unknown"),
        (ALPHA, np.zeros((1, 6_000_000, 3), np.uint8), Fit(method="adobe"), "too-large"),
    ],
)
def test_what_cannot_be_composed_is_refused(
    alpha: NDArray[np.uint8], background: NDArray[np.uint8], fit: Fit, cause: str
) -> None:
    """No unknown region, and a background that would need too much memory: each is a cause of its own."""
    with pytest.raises(SourceError) as caught:
        compose(FOREGROUND, alpha, background, fit=fit, trimap=Trimap(erode=(0, 0), dilate=(0, 0)))
    assert caught.value.cause == cause


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((FOREGROUND[..., 0], ALPHA, BACKGROUND), "foreground: expected"),
        ((FOREGROUND, ALPHA[1:], BACKGROUND), r"alpha: expected \(40, 60\) uint8, found \(39, 60\)"),
        ((FOREGROUND, ALPHA / 255, BACKGROUND), "alpha: .* float64"),
        ((FOREGROUND, ALPHA, BACKGROUND[:0]), "background: expected"),
    ],
)
def test_wrong_arrays_are_refused(parts: tuple[NDArray[np.uint8], ...], words: str) -> None:
    """Arrays of another shape or type are told with what was expected."""
    with pytest.raises(ValueError, match=words):
        compose(*parts)


def test_trimap_strategies_are_added_by_name() -> None:
    """A strategy that is registered is one that a recipe may name; one that is not is told with what is near."""
    with pytest.raises(RecipeError, match="no trimap strategy is called 'distanse'; did you mean 'distance'"):
        load_recipe("demo", ["trimap.strategy=distanse"])
    STRATEGIES.register("everything", lambda alpha, _: lambda _erode, _dilate: DrawnTrimap(alpha * 0 + 128, 7, 8))
    try:
        made = compose(FOREGROUND, ALPHA, BACKGROUND, trimap=load_recipe("demo", ["trimap.strategy=everything"]).trimap)
        assert (made.trimap == 128).all()
        assert (made.erode, made.dilate) == (7, 8)
    finally:
        del STRATEGIES._entries["everything"]
