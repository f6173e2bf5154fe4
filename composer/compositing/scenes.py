"""Scenes: what is done to a background before a foreground is blended over it, so that the two belong together.

Nothing else of a composite changes, and what is blended is what is stored: I = αF + (1−α)B holds with this B.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from pydantic import Field, PositiveInt, model_validator

from ..base.arrays import UInt8Array
from ..base.settings import Chance, Chances, Range, Table
from ..dataset.rows import Scene
from .trimaps import subject_size

# Shadows, in shares of the subject's size: the light comes from above and not from far.
FARTHEST = 0.08  # that a shadow is moved, down and to either side


SOFTNESS = (0.01, 0.04)  # standard deviation of its blur


SMALL_SIGMA = 3.0  # px: a wider blur is made on a reduced shadow, where it is this


MOST_DISTRACTORS = 8


GAMMAS = (0.6, 1.6)  # of a background, towards the foreground's brightness


BILATERAL = (5, 18.0, 2.0)  # diameter px, levels, px: as much noise as a camera's at high sensitivity


class Scenes(Table):
    """What is drawn anew for each composite, and done to its background before blending. The defaults do nothing."""

    denoise: Chance = Field(default=0.0, description="how often the background's noise is smoothed, its edges kept")
    blur: Chance = Field(default=0.0, description="how often the background is blurred, as if out of focus")
    sigma: Range = Field(default=(0.5, 2.0), description="of that blur: standard deviation of a Gaussian, px")
    harmonise: Chances = Field(
        default=(0.0, 0.0),
        description="how far the background's brightness goes towards the foreground's, 1 being all the way",
    )
    shadow: Chance = Field(default=0.0, description="how often the foreground throws a soft shadow on the background")
    darkness: Chances = Field(default=(0.2, 0.6), description="of that shadow, 1 being black")
    distractors: Chance = Field(
        default=0.0, description="how often other foregrounds of the split stand behind; the alpha is not of them"
    )
    distractor_count: tuple[PositiveInt, PositiveInt] = Field(
        default=(1, 2), description="how many then, at most 8; both ends included"
    )
    distractor_size: Chances = Field(default=(0.3, 0.9), description="of each, 1 being as large as fits in the frame")

    @model_validator(mode="after")
    def _check(self) -> Scenes:
        low, high = self.distractor_count
        if not low <= high <= MOST_DISTRACTORS:
            raise ValueError(f"distractor_count lies between 1 and {MOST_DISTRACTORS}, found [{low}, {high}]")
        if not self.distractor_size[0]:
            raise ValueError("distractor_size begins above 0")
        return self


def draw_scene(settings: Scenes, rng: np.random.Generator) -> Scene:
    """Draw a composite's scene from its own randomness; every scene takes as much of it.

    Parameters
    ----------
    settings : Scenes
        The recipe's table.
    rng : numpy.random.Generator
        The composite's own.

    Returns
    -------
    Scene
        With gamma 1: what it will be depends on the background's pixels.
    """
    denoise, blur, sigma, harmonise, shadow, darkness, y, x, softness = (float(v) for v in rng.random(9))

    def within(limits: tuple[float, float], draw: float) -> float:
        return limits[0] + draw * (limits[1] - limits[0])

    scene = Scene(
        denoise=denoise < settings.denoise,
        blur=within(settings.sigma, sigma) if blur < settings.blur else 0.0,
        harmonise=within(settings.harmonise, harmonise),
    )
    if shadow >= settings.shadow:
        return scene
    return replace(
        scene,
        shadow=within(settings.darkness, darkness),
        shadow_y=FARTHEST * y,
        shadow_x=FARTHEST * (2 * x - 1),
        shadow_blur=within(SOFTNESS, softness),
    )


@dataclass(frozen=True)
class Distractor:
    """A foreground that stands behind the one that a composite's alpha is of.

    Attributes
    ----------
    key : str
        Its name.
    flip : bool
        Mirrored, left to right.
    size : float
        1 where it is as large as fits in the frame.
    y, x : float
        Where in the room that is left, 0 top or left .. 1 bottom or right.
    """

    key: str
    flip: bool
    size: float
    y: float
    x: float


def draw_distractors(settings: Scenes, keys: Sequence[str], own: str, rng: np.random.Generator) -> list[Distractor]:
    """Draw who else stands in a composite's scene, the farthest first.

    Parameters
    ----------
    settings : Scenes
        The recipe's table.
    keys : Sequence[str]
        Of the foregrounds of its split that may stand behind, sorted.
    own : str
        The key of its own foreground, which does not.
    rng : numpy.random.Generator
        The composite's own, for this alone.
    """
    chance, many = rng.random(2)
    place = bisect_left(keys, own)
    there = place < len(keys) and keys[place] == own
    others = len(keys) - there
    if chance >= settings.distractors or not others:
        return []
    (fewest, most), (small, large) = settings.distractor_count, settings.distractor_size
    found = []
    for who, flip, size, y, x in rng.random((fewest + int(many * (most - fewest + 1)), 5)).tolist():
        number = int(who * others)
        key = keys[number + (there and number >= place)]
        found.append(Distractor(key, flip < 0.5, *(round(v, 4) for v in (small + size * (large - small), y, x))))
    return found


def describe_distractors(found: Sequence[Distractor]) -> str:
    """Return what a row says of them; see `Scene`."""
    if not found:
        return ""
    return json.dumps([list(vars(one).values()) for one in found], ensure_ascii=False, separators=(",", ":"))


class SceneMaker:
    """Change backgrounds for one foreground of their size. What that takes of it is computed when it is needed.

    Parameters
    ----------
    foreground : (H, W, 3) uint8
        RGB.
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    """

    def __init__(self, foreground: UInt8Array, alpha: UInt8Array) -> None:
        self._foreground, self._alpha = foreground, alpha

    def __call__(self, background: UInt8Array, scene: Scene) -> tuple[UInt8Array, Scene]:
        """Make a scene.

        Parameters
        ----------
        background : (H, W, 3) uint8
            RGB.
        scene : Scene
            What is done to it.

        Returns
        -------
        background : (H, W, 3) uint8
            RGB, changed.
        scene : Scene
            The same with its gamma.
        """
        if scene.denoise:
            background = np.asarray(cv2.bilateralFilter(background, *BILATERAL), np.uint8)
        if scene.blur:
            background = np.asarray(cv2.GaussianBlur(background, (0, 0), scene.blur), np.uint8)
        if scene.harmonise:
            scene = replace(scene, gamma=self._gamma(background, scene.harmonise))
            table = np.rint(255 * (np.arange(256) / 255) ** scene.gamma).astype(np.uint8)
            background = np.asarray(cv2.LUT(background, table), np.uint8)
        if scene.shadow:
            light = cv2.cvtColor(self._light(scene), cv2.COLOR_GRAY2RGB)
            background = np.asarray(cv2.multiply(background, light, scale=1 / 255), np.uint8)
        return background, scene

    def _gamma(self, background: UInt8Array, share: float) -> float:
        there = float(cv2.mean(cv2.cvtColor(background, cv2.COLOR_RGB2GRAY))[0])
        levels = np.log(np.clip([there, self._brightness], 1, 254) / 255)
        return float(np.clip((levels[1] / levels[0]) ** share, *GAMMAS))

    @cached_property
    def _brightness(self) -> float:
        """The foreground's mean grey level, each pixel counted by its alpha."""
        grey = cv2.cvtColor(self._foreground, cv2.COLOR_RGB2GRAY)
        visible = int(self._alpha.sum(dtype=np.int64))
        return int(cv2.multiply(grey, self._alpha, dtype=cv2.CV_32S).sum(dtype=np.int64)) / max(visible, 1)

    @cached_property
    def _size(self) -> float:
        return subject_size(self._alpha)

    def _light(self, scene: Scene) -> UInt8Array:
        """Return what share of the light falls where, (H, W) uint8, 255 being all of it.

        A subject that is cut off at the frame's edge is taken to go on as it is there, and so does its shadow.
        """
        sigma = max(0.5, scene.shadow_blur * self._size)
        coarse = max(1, int(sigma / SMALL_SIGMA))
        height, width = self._alpha.shape
        sides = max(1, round(width / coarse)), max(1, round(height / coarse))
        small = cv2.resize(self._alpha, sides, interpolation=cv2.INTER_AREA) if coarse > 1 else self._alpha
        scale = sides[0] / width, sides[1] / height
        x, y = scene.shadow_x * self._size * scale[0], scene.shadow_y * self._size * scale[1]
        moved = np.array([[1, 0, x], [0, 1, y]])
        shade = cv2.warpAffine(small, moved, sides, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        shade = cv2.GaussianBlur(shade, (0, 0), sigma * scale[0], borderType=cv2.BORDER_REPLICATE)
        table = np.rint(255 - scene.shadow * np.arange(256)).astype(np.uint8)
        light = np.asarray(cv2.LUT(shade, table), np.uint8)
        return light if coarse == 1 else np.asarray(cv2.resize(light, (width, height), interpolation=cv2.INTER_LINEAR))
