"""Person: who is drawn, and where in the frame; what draws them shares it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canvas import Points, rotation

BASE = np.array([0.0, 1.6])  # of the neck, about which the head is tilted


@dataclass(frozen=True)
class Person:
    """A person to be drawn.

    Attributes
    ----------
    head : (2,) float64
        The head's centre in the frame.
    r : float
        The skull's radius, in the frame's short sides; 1 in head units.
    tilt, lean : float
        Of the head and of the body, radians.
    turn : float
        How far the face is turned, -1 to the left .. 1 to the right.
    away : bool
        Seen from behind.
    light : (3,) float64
        Where it comes from, of length 1: x, y and towards us.
    skin, hair : (3,) float64
        RGB in 0..255.
    style, hat : str
        See `hairstyles`; no hat is empty.
    fringe : bool
        Hair falls into the forehead.
    beard : float
        Its length, in head units; 0 for none.
    """

    head: Points
    r: float
    tilt: float
    lean: float
    turn: float
    away: bool
    light: Points
    skin: Points
    hair: Points
    style: str
    hat: str
    fringe: bool
    beard: float

    def on_head(self, points: Points) -> Points:
        """Bring points of the head (..., 2), in head units, into the frame."""
        placed: Points = self.head + self.r * ((points - BASE) @ rotation(self.tilt).T + BASE)
        return placed

    def on_body(self, points: Points) -> Points:
        """Bring points of the body (..., 2), in head units, into the frame."""
        narrow = np.array([1 - 0.25 * abs(self.turn), 1])  # who turns their face mostly turns their shoulders, too
        placed: Points = self.head + self.r * ((points * narrow - BASE) @ rotation(self.lean).T + BASE)
        return placed


def rounded(outline: Points, times: int = 3, *, closed: bool = True) -> Points:
    """Cut the corners of an outline or a path (N, 2), or of several (N, K, 2), as Chaikin (1974) does."""
    for _ in range(times):
        following = np.roll(outline, -1, 0) if closed else outline[1:]
        start = outline if closed else outline[:-1]
        pairs = np.stack([0.75 * start + 0.25 * following, 0.25 * start + 0.75 * following], 1)
        cut = pairs.reshape(-1, *outline.shape[1:])
        outline = cut if closed else np.concatenate([outline[:1], cut, outline[-1:]])
    return outline
