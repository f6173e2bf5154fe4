"""Remix: a crop composed anew, over another composite's crop: alpha and foreground are known, so it stays exact.

A shard holds what a composite is made of, so no photograph is decoded and nothing is lost: any crop of the datasets is
a background for any foreground of them, and I = αF + (1−α)B is blended as a build does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...composer.base.settings import Chance, Range, Table
from ...composer.compositing.blending import blend
from ...composer.dataset.dataset import Dataset
from ...composer.dataset.rows import BACKGROUND, FOREGROUND, UNKNOWN

__all__ = ["Layers", "Mixer", "Remix"]

Array = NDArray[np.uint8]


BLUR: Final = (0.5, 12.0)  # px, standard deviations, every doubling equally likely


TURN: Final = 20.0  # degrees to either side


SHEAR: Final = 0.2  # to either side


ENLARGE: Final = (0.8, 2.0)  # every doubling equally likely


FADE: Final = (1 / 255, 0.5)  # of 1, how far from opaque, every doubling equally likely


PERIOD: Final = (4.0, 32.0)  # px, from thread to thread of a mesh, every doubling equally likely


THREAD: Final = (0.2, 0.7)  # of that, how wide a thread is


STRETCH: Final = (1.0, 3.0)  # of height and width, each for itself, likewise


INTERPOLATIONS: Final = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC)


class Remix(Table):
    """How crops are composed anew, each of it drawn from (seed, epoch, sample) alone; by default none is."""

    chance: Chance = Field(default=0.0, description="how often a crop gets another composite's crop as its background")
    combine: Chance = Field(default=0.0, description="of those, how often another composite's foreground stands behind")
    fade: Chance = Field(
        default=0.0,
        description="how often that other foreground is nowhere opaque, so that all of it is unknown, and stands before"
        " this one half of these times",
    )
    pierce: Chance = Field(
        default=0.0, description="of those, how often another composite's foreground is a hole in this one"
    )
    mesh: Chance = Field(
        default=0.0,
        description="of those, how often the part of the foreground where another composite's foreground lies becomes a"
        " mesh, as wire, cloth and fences are; all of that part is unknown",
    )
    repaint: Chance = Field(
        default=0.0, description="how often the foreground of those takes its colours from another composite's picture"
    )
    tint: Chance = Field(
        default=0.0,
        description="colours of foreground and background of those, each for itself: gains of the channels from"
        " 1 ± this, contrast and gamma by factors of up to 1 + this, an offset of ± 255·this/4",
    )
    defocus: Chance = Field(
        default=0.0, description="how often the background of those is out of focus, by a Gaussian of 0.5 to 12 px"
    )
    stretch: Chance = Field(
        default=0.0, description="how often a part of that background is enlarged, by up to 3 in either direction"
    )
    warp: Chance = Field(
        default=0.0,
        description="how often the foreground of those is turned by up to 20°, sheared by up to 0.2 and scaled by 0.8"
        " to 2, mirrored beyond the crop; nearest, linear or cubic interpolation",
    )
    soften: Chance = Field(
        default=0.0,
        description="how often the foreground of those is blurred likewise, half of these times with all else",
    )
    retrim: Chance = Field(default=0.0, description="how often a trimap is drawn anew, from the crop's alpha")
    radii: Range = Field(default=(1, 30), description="px, how far it is unknown on either side of an edge")


@dataclass(frozen=True)
class Layers:
    """A crop's layers, S being its side.

    Attributes
    ----------
    foreground : (S, S, 3) uint8 RGB
    alpha : (S, S) uint8
    trimap : (S, S) uint8 {0, 128, 255}
    """

    foreground: Array
    alpha: Array
    trimap: Array


class Mixer:
    """Compose crops anew, from the crops of the datasets that are read.

    Parameters
    ----------
    settings : Remix
    datasets : Sequence of Dataset
    split : str
        Whose composites are taken.
    """

    def __init__(self, settings: Remix, datasets: Sequence[Dataset], split: str) -> None:
        self.settings, self._datasets = settings, datasets
        self._numbers = [dataset.numbers(split) for dataset in datasets]
        self._ends = np.cumsum([len(numbers) for numbers in self._numbers])

    def compose(self, layers: Layers, rng: np.random.Generator) -> tuple[Layers, Array, Array]:
        """Put layers before another composite, drawn from all.

        Returns
        -------
        layers : Layers
            With their colours changed, and with what else of a foreground stands there now.
        image, background : (S, S, 3) uint8 RGB
            ``image`` is `blend` of the other three.
        """
        settings = self.settings
        if _happens(settings.repaint, rng):
            layers = replace(layers, foreground=self._cut(len(layers.alpha), rng)[0])
        if _happens(settings.warp, rng):
            layers = _warp(layers, rng)
        if _happens(settings.mesh, rng) and (part := self._cut(len(layers.alpha), rng)[1]):
            layers = _mesh(layers, part.alpha, rng)
        if rng.random() < settings.combine and (other := self._cut(len(layers.alpha), rng)[1]):
            pair = (layers, other)
            if _happens(settings.fade, rng):
                other = _fade(other, 1 - _log_uniform(FADE, rng))
                pair = (layers, other) if rng.random() < 0.5 else (other, layers)
            layers = _combine(*pair)
        if _happens(settings.pierce, rng):
            hole = self._cut(len(layers.alpha), rng)[1]
            layers = layers if hole is None else _pierce(layers, hole)
        background, _ = self._cut(len(layers.alpha), rng)
        if _happens(settings.stretch, rng):
            background = _stretch(background, rng)
        foreground = _tint(layers.foreground, settings.tint, rng)
        background = _tint(background, settings.tint, rng)
        if rng.random() < settings.defocus:
            background = _blur(background, _log_uniform(BLUR, rng))
        layers = replace(layers, foreground=foreground)
        if _happens(settings.soften, rng):
            spread = _log_uniform(BLUR, rng)
            layers = _soften(layers, spread)
            background = _blur(background, spread) if rng.random() < 0.5 else background
        return layers, blend(layers.foreground, layers.alpha, background), background

    def redraw(self, alpha: Array, trimap: Array, rng: np.random.Generator) -> Array:
        """Draw a crop's trimap anew, as often as is asked for; the old one stays where nothing would be unknown.

        The radii inside and outside are independent, and drawn so that every doubling is equally likely: mostly small,
        at times large.
        """
        if rng.random() >= self.settings.retrim:
            return trimap
        low, high = (math.log(max(radius, 0.5)) for radius in self.settings.radii)
        inner, outer = np.exp(rng.uniform(low, high, 2))
        drawn = np.full_like(trimap, UNKNOWN)
        for level, inside, radius in ((FOREGROUND, alpha == 255, inner), (BACKGROUND, alpha == 0, outer)):
            # Beyond the crop nothing changes: distances are to what the crop shows.
            drawn[cv2.distanceTransform(inside.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) > radius] = level
        return drawn if (drawn == UNKNOWN).any() else trimap

    def _cut(self, side: int, rng: np.random.Generator) -> tuple[Array, Layers | None]:
        """Draw a composite, and a window of it as large as fits: its picture and its layers, `side` px wide.

        A picture as it is has no layers.
        """
        number = int(rng.integers(self._ends[-1]))
        which = int(np.searchsorted(self._ends, number, side="right"))
        dataset = self._datasets[which]
        shard, position = dataset.locate(int(self._numbers[which][number - self._ends[which]]))
        reader = dataset.reader(shard)
        row = reader.rows[position]
        window = min(side, row.height, row.width)
        corner = int(rng.integers(row.height - window + 1)), int(rng.integers(row.width - window + 1))
        image, foreground = (np.empty((window, window, 3), np.uint8) for _ in range(2))
        trimap, alpha = (np.empty((window, window), np.uint8) for _ in range(2))
        reader.read_into(row, corner, image, trimap, alpha, foreground if row.composed else None, None)
        parts = [image, foreground, alpha, trimap]
        if window != side:
            parts = [
                np.asarray(cv2.resize(part, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8) for part in parts
            ]
            parts[3][(parts[3] != BACKGROUND) & (parts[3] != FOREGROUND)] = UNKNOWN
        if rng.random() < 0.5:
            parts = [np.ascontiguousarray(part[:, ::-1]) for part in parts]
        return parts[0], Layers(*parts[1:]) if row.composed else None


def _combine(front: Layers, behind: Layers) -> Layers:
    """Put one foreground before another: α = 1 − (1−α₁)(1−α₂), F = (α₁F₁ + (1−α₁)α₂F₂)/α."""
    first, second = front.alpha / np.float32(255), behind.alpha / np.float32(255)
    rest = (1 - first) * second
    alpha = first + rest
    weights = np.divide(first, alpha, out=np.ones_like(first), where=alpha > 0)[..., None]
    foreground = weights * front.foreground + (1 - weights) * behind.foreground
    trimap = np.maximum(front.trimap, behind.trimap)  # known foreground where one is, background where both are
    return Layers(np.rint(foreground).astype(np.uint8), np.rint(255 * alpha).astype(np.uint8), trimap)


def _fade(layers: Layers, opacity: float) -> Layers:
    """Make a foreground let some of the background through everywhere: nothing of it is known."""
    alpha = np.rint(opacity * layers.alpha).astype(np.uint8)
    return replace(layers, alpha=alpha, trimap=_still_known(layers.trimap, alpha))


def _pierce(front: Layers, hole: Layers) -> Layers:
    """Cut one foreground out of another: α = α₁(1−α₂); all of it would leave nothing, so that is not done."""
    alpha = np.rint(front.alpha * (1 - hole.alpha / np.float32(255))).astype(np.uint8)
    if not alpha.any():
        return front
    trimap = np.minimum(front.trimap, 255 - hole.trimap)  # 127 where the hole's edge is
    trimap[(trimap != BACKGROUND) & (trimap != FOREGROUND)] = UNKNOWN
    return replace(front, alpha=alpha, trimap=trimap)


def _mesh(layers: Layers, part: Array, rng: np.random.Generator) -> Layers:
    """Leave threads of a foreground where a part lies, (S, S) uint8; nothing there is known."""
    side = len(part)
    y, x = np.indices((side, side), np.float32) - np.float32(side / 2)
    period, share = _log_uniform(PERIOD, rng), rng.uniform(*THREAD)
    slack, waves = rng.uniform(0, period), 2 * math.pi / rng.uniform(side / 4, side)
    y, x = y + slack * np.sin(waves * x), x + slack * np.sin(waves * y)
    first = rng.uniform(0, math.pi)
    threads = np.zeros_like(x)
    for turn in (first, first + rng.uniform(math.pi / 4, math.pi / 2)):
        across = np.mod(math.cos(turn) * x + math.sin(turn) * y, period) - period / 2  # px from a thread's middle
        threads = np.maximum(threads, np.clip(share * period / 2 - np.abs(across) + 0.5, 0, 1))
    alpha = np.rint(layers.alpha * (1 - part / np.float32(255) * (1 - threads))).astype(np.uint8)
    if not alpha.any():
        return layers
    return replace(layers, alpha=alpha, trimap=_still_known(np.where(part, np.uint8(UNKNOWN), layers.trimap), alpha))


def _warp(layers: Layers, rng: np.random.Generator) -> Layers:
    """Turn, shear and scale layers about their middle; beyond them they are mirrored."""
    side = len(layers.alpha)
    turn, scale = math.radians(rng.uniform(-TURN, TURN)), _log_uniform(ENLARGE, rng)
    shear = rng.uniform(-SHEAR, SHEAR)
    matrix = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    matrix = matrix @ ((1, shear), (0, 1)) / scale  # from where each pixel comes
    middle = np.full(2, (side - 1) / 2)
    matrix = np.column_stack((matrix, middle - matrix @ middle))
    method = INTERPOLATIONS[int(rng.integers(len(INTERPOLATIONS)))]
    foreground, alpha, trimap = (
        np.asarray(
            cv2.warpAffine(
                part, matrix, (side, side), flags=flag | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
            ),
            np.uint8,
        )
        for part, flag in ((layers.foreground, method), (layers.alpha, method), (layers.trimap, cv2.INTER_LINEAR))
    )
    return Layers(foreground, alpha, _still_known(trimap, alpha))


def _stretch(background: Array, rng: np.random.Generator) -> Array:
    """Enlarge a part of a picture to the whole."""
    side = len(background)
    height, width = (max(1, round(side / _log_uniform(STRETCH, rng))) for _ in range(2))
    y, x = (int(rng.integers(side - length + 1)) for length in (height, width))
    part = background[y : y + height, x : x + width]
    return np.asarray(cv2.resize(part, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)


def _soften(layers: Layers, spread: float) -> Layers:
    """Blur a foreground as a lens does: what blurs is α and αF."""
    alpha = layers.alpha / np.float32(255)
    premultiplied = _blur(alpha[..., None] * layers.foreground, spread)
    soft = _blur(alpha, spread)
    foreground = np.divide(premultiplied, soft[..., None], out=layers.foreground.astype(np.float32),
                           where=soft[..., None] > 1 / 510)  # fmt: skip
    rounded = np.rint(255 * soft).astype(np.uint8)
    return Layers(np.rint(np.minimum(foreground, 255)).astype(np.uint8), rounded, _still_known(layers.trimap, rounded))


def _still_known(trimap: Array, alpha: Array) -> Array:
    """Return a trimap that claims only what alpha, as it has become, confirms."""
    sure = ((trimap == BACKGROUND) & (alpha == 0)) | ((trimap == FOREGROUND) & (alpha == 255))
    return np.where(sure, trimap, np.uint8(UNKNOWN))


def _blur(picture: Any, spread: float) -> Any:
    return cv2.GaussianBlur(picture, (0, 0), spread)


def _happens(chance: float, rng: np.random.Generator) -> bool:
    """Draw whether; where it never does nothing is drawn, so that crops are what they were without the choice."""
    return bool(chance) and bool(rng.random() < chance)


def _log_uniform(limits: tuple[float, float], rng: np.random.Generator) -> float:
    """Draw a number so that every doubling is equally likely."""
    return float(np.exp(rng.uniform(*np.log(limits))))


def _tint(picture: Array, strength: float, rng: np.random.Generator) -> Array:
    """Change a layer's colours: gains, contrast, gamma and brightness, by one table a channel."""
    if not strength:
        return picture
    gains = 1 + strength * rng.uniform(-1, 1, 3)
    gamma, contrast = (1 + strength) ** rng.uniform(-1, 1, 2)
    levels = (np.arange(256)[:, None] / 255) ** gamma * gains
    levels = (levels - 0.5) * contrast + 0.5 + strength / 4 * rng.uniform(-1, 1)
    table = np.clip(255 * levels + 0.5, 0, 255).astype(np.uint8)[None]  # (1, 256, 3)
    return np.asarray(cv2.LUT(picture, table), np.uint8)
