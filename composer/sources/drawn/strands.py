"""Strands: the paths of hair, as they leave a head."""

from __future__ import annotations

import math

import numpy as np

from .canvas import Points, Rng, walk


def tresses(head: Points, r: float, reach: Points, length_wind: tuple[float, float], wave: Points, rng: Rng) -> Points:
    """Return strands that start at the parting, follow the skull at `reach` radii, then fall in the wind.

    Parameters
    ----------
    head : (2,) float64
        The skull's centre.
    r : float
        Its radius.
    reach : (N,) float64
        How far from the centre each strand runs, in radii.
    length_wind : (float, float)
        How far it falls; how strong the wind is, -1 from the right .. 1 from the left.
    wave : (N,) float64
        How much it ripples, in radians.
    rng : numpy.random.Generator
        The only source of randomness.

    Returns
    -------
    (N, 14, 2) float64
        Paths, as (x, y).
    """
    (length, wind), count, steps = length_wind, len(reach), 14
    side = np.where(rng.random((count, 1)) < 0.5, -1.0, 1.0)
    bow = (r * reach)[:, None]
    step = (length * rng.uniform(0.6, 1.1, (count, 1)) + bow * math.pi / 2) / steps
    along = np.arange(steps) * step
    turn = np.minimum(along / bow, math.pi / 2 + 0.1)
    loose = np.clip(along / bow - 1.3, 0, 2.5)
    lift = np.where(side * wind > 0, 0.5, 0.12)  # a full drift would blow the other side's hair across the face
    drift = (wind + rng.normal(0, 0.2, (count, 1))) * loose * lift
    ripple = np.sin(along * rng.uniform(24, 40) + rng.normal(0, 0.7, (count, 1))) * np.minimum(loose, 1)
    angle = np.where(side > 0, turn, math.pi - turn) - drift + wave[:, None] * ripple
    root = np.stack([rng.normal(0, 0.06, count), np.minimum(reach, rng.uniform(1.06, 1.16, count)) * -1.12], 1)
    return walk(head + r * root, angle, step)


def coils(head: Points, r: float, reach: Points, length: float, rng: Rng) -> Points:
    """Return coiled strands (N, 18, 2) that leave the scalp at `reach` (N,) radii in every direction but the neck's."""
    around = rng.uniform(-math.pi * 1.15, math.pi * 0.15, (len(reach), 1))
    coil = 1.5 * np.sin(np.arange(18) * rng.uniform(0.8, 1.4, around.shape) + rng.uniform(0, 6.3, around.shape))
    root = head + r * 0.95 * np.hstack([np.cos(around), np.sin(around) * 1.12]) * reach[:, None]
    return walk(root, around + coil, length * rng.uniform(0.5, 1.1, around.shape) / 13)


def bristles(roots: Points, angle: Points, length: Points, bend: float, rng: Rng) -> Points:
    """Return short strands (N, 7, 2) from roots (N, 2), in directions (N,), each of its length (N,), a little bent."""
    turns = rng.normal(0, bend, (len(roots), 1)) * np.linspace(0, 1, 7)
    return walk(roots, angle[:, None] + turns, (length / 7)[:, None])
