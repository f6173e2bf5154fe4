"""Compose: a foreground, its trimaps, a background and a cell's draws in, a composite out. Pure: nothing is read.

What a foreground costs is paid once (`PreparedForeground`), however many backgrounds it meets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from ..base.arrays import UInt8Array
from ..base.errors import SourceError
from ..dataset.rows import UNKNOWN, Look, Scene
from .blending import METHODS, Fit, Placement, place_background
from .looks import mirror, place_partner
from .scenes import Distractor, SceneMaker, Scenes, draw_scene
from .trimaps import DrawnTrimap, DrawTrimap, Trimap, trimap_strategy


@dataclass(frozen=True)
class Draws:
    """What chance decides of one composite. What the numbers choose is its recipe's.

    Attributes
    ----------
    erode, dilate : float
        In [0, 1): the trimap's radii within their ranges.
    offset_y, offset_x : float
        In [0, 1): where the background is cut, 0 top or left.
    scene : Scene
        What is done to the background.
    distractors : tuple of Distractor
        The foregrounds that stand behind, the farthest first.
    """

    erode: float
    dilate: float
    offset_y: float
    offset_x: float
    scene: Scene
    distractors: tuple[Distractor, ...] = ()


def draw(fit: Fit, scenes: Scenes, rng: np.random.Generator) -> Draws:
    """Draw what chance decides of a composite, from its own randomness.

    Parameters
    ----------
    fit, scenes : Fit, Scenes
        The recipe's tables.
    rng : numpy.random.Generator
        The composite's own.
    """
    erode, dilate, offset_y, offset_x = (float(number) for number in rng.random(4))
    if fit.offset != "random":
        offset_y = offset_x = 0.5 if fit.offset == "centre" else 0.0
    return Draws(erode, dilate, offset_y, offset_x, draw_scene(scenes, rng))


@dataclass(frozen=True)
class Composite:
    """A composite and its parts: image = α·foreground + (1 − α)·background.

    Attributes
    ----------
    image : (H, W, 3) uint8
        RGB.
    trimap : (H, W) uint8
        0 background, 128 unknown, 255 foreground.
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    background : (H, W, 3) uint8
        RGB, as it was blended: cut, scaled, and as the scene wants it.
    placement : Placement
        Where the background was cut.
    scene : Scene
        What was done to it.
    erode, dilate : int
        See `DrawnTrimap`.
    """

    image: UInt8Array
    trimap: UInt8Array
    alpha: UInt8Array
    background: UInt8Array
    placement: Placement
    scene: Scene
    erode: int
    dilate: int


class PreparedPicture:
    """A picture and its alpha made ready for its trimaps.

    Parameters
    ----------
    image : (H, W, 3) uint8
        RGB.
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    trimap : Trimap
        The recipe's table.
    name : str
        What to call it in errors.
    """

    def __init__(
        self, image: UInt8Array, alpha: UInt8Array, trimap: Trimap | None = None, *, name: str = "picture"
    ) -> None:
        self.image, self.alpha, self.name = image, alpha, name
        self._trimap = trimap or Trimap()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) px, of its composites too."""
        return self.alpha.shape[0], self.alpha.shape[1]

    @cached_property
    def _strategy(self) -> DrawTrimap:
        return trimap_strategy(self.alpha, self._trimap)

    def draw_trimap(self, draws: Draws, supplied: UInt8Array | None = None) -> DrawnTrimap:
        """Draw a trimap, or take the one that is supplied.

        Raises
        ------
        SourceError
            Cause ``no-unknown``: it has no unknown region.
        """
        drawn = DrawnTrimap(supplied, 0, 0) if supplied is not None else self._strategy(draws.erode, draws.dilate)
        if not cv2.inRange(drawn.trimap, UNKNOWN, UNKNOWN).any():
            radii = f"erode {drawn.erode}, dilate {drawn.dilate}"
            raise SourceError(
                self.name, "no-unknown", f"its trimap has no unknown region ({radii}); is the alpha empty or full?"
            )
        return drawn


class PreparedForeground(PreparedPicture):
    """A foreground made ready to be composed over many backgrounds.

    Parameters
    ----------
    image : (H, W, 3) uint8
        RGB, not premultiplied.
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    fit, trimap : Fit, Trimap
        The recipe's tables.
    name : str
        What to call it in errors.
    """

    def __init__(
        self,
        image: UInt8Array,
        alpha: UInt8Array,
        fit: Fit | None = None,
        trimap: Trimap | None = None,
        *,
        name: str = "foreground",
    ) -> None:
        super().__init__(image, alpha, trimap, name=name)
        self._fit = fit or Fit()
        self._method = METHODS[self._fit.method]
        self._blend = self._method.blender(image, alpha)
        self._make_scene = SceneMaker(image, alpha)

    def compose(
        self,
        background: UInt8Array,
        draws: Draws,
        trimap: UInt8Array | None = None,
        *,
        name: str = "background",
        others: Sequence[tuple[UInt8Array, UInt8Array]] = (),
    ) -> Composite:
        """Compose it over a background.

        Parameters
        ----------
        background : (h, w, 3) uint8
            RGB, of any size.
        draws : Draws
            What chance decided.
        trimap : (H, W) uint8, optional
            0, 128 and 255, used as it is; drawn where it is left out.
        name : str
            What to call the background in errors.
        others : sequence of ((h, w, 3) uint8, (h, w) uint8)
            Colours, RGB, and alpha of each of the distractors, in their order.

        Raises
        ------
        SourceError
            Causes ``too-large`` (the background would need too much memory) and ``no-unknown`` (the trimap has no
            unknown region).
        """
        placement = place_background(
            background.shape[:2], self.size, enlarge=self._fit.enlarge, offset=(draws.offset_y, draws.offset_x)
        )
        try:
            fitted = self._method.fit(background, self.size, placement)
        except ValueError as error:
            raise SourceError(name, "too-large", str(error)) from None
        drawn = self.draw_trimap(draws, trimap)
        for distractor, (colours, alpha) in zip(draws.distractors, others, strict=True):
            fitted = self._method.blender(*place_distractor(colours, alpha, self.size, distractor))(fitted)
        changed, scene = self._make_scene(fitted, draws.scene)
        image = self._blend(changed)
        return Composite(image, drawn.trimap, self.alpha, changed, placement, scene, drawn.erode, drawn.dilate)


def place_distractor(
    image: UInt8Array, alpha: UInt8Array, size: tuple[int, int], distractor: Distractor
) -> tuple[UInt8Array, UInt8Array]:
    """Bring a distractor's colours (h, w, 3) and alpha (h, w) into a frame of `size` (H, W) px; see `place_partner`."""
    look = Look(partner_size=distractor.size, partner_y=distractor.y, partner_x=distractor.x)
    return place_partner(*mirror(image, alpha, distractor.flip), size, look)


def compose(
    foreground: UInt8Array,
    alpha: UInt8Array,
    background: UInt8Array,
    *,
    fit: Fit | None = None,
    trimap: Trimap | None = None,
    scenes: Scenes | None = None,
    seed: int = 0,
) -> Composite:
    """Compose a foreground over a background, and draw its trimap.

    For many backgrounds, prepare the foreground once: `PreparedForeground`.

    Parameters
    ----------
    foreground : (H, W, 3) uint8
        RGB, not premultiplied.
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    background : (h, w, 3) uint8
        RGB, of any size.
    fit, trimap, scenes : Fit, Trimap, Scenes, optional
        A recipe's tables, which say how; their defaults where left out.
    seed : int
        Decides the draws: the same seed gives the same composite.

    Returns
    -------
    Composite
        Of the foreground's size.

    Raises
    ------
    ValueError
        An array has another shape or type.
    SourceError
        As `PreparedForeground.compose`.

    Examples
    --------
    >>> import numpy as np
    >>> from matting_compose.composer import Trimap, compose
    >>> foreground = np.full((64, 64, 3), 200, np.uint8)
    >>> alpha = np.tile(np.linspace(-255, 510, 64).clip(0, 255).astype(np.uint8), (64, 1))
    >>> background = np.zeros((48, 100, 3), np.uint8)
    >>> composite = compose(foreground, alpha, background, trimap=Trimap(erode=(1, 5), dilate=(1, 5)), seed=7)
    >>> composite.image.shape, np.unique(composite.trimap).tolist()
    ((64, 64, 3), [0, 128, 255])
    """
    for name, array in (("foreground", foreground), ("background", background)):
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
            raise ValueError(f"{name}: expected (H, W, 3) uint8 RGB, found {array.shape} {array.dtype}")
    if alpha.dtype != np.uint8 or alpha.shape != foreground.shape[:2]:
        raise ValueError(f"alpha: expected {foreground.shape[:2]} uint8, found {alpha.shape} {alpha.dtype}")
    draws = draw(fit or Fit(), scenes or Scenes(), np.random.default_rng(seed))
    return PreparedForeground(foreground, alpha, fit, trimap).compose(background, draws)
