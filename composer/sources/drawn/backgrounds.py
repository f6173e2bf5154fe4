"""Draw backgrounds from noise and strokes: data without a download."""

from __future__ import annotations

import math

import cv2
import numpy as np

from ...base.arrays import UInt8Array
from .canvas import (
    Field,
    Points,
    Rng,
    Size,
    ellipse,
    jittered,
    noise,
    random_colour,
    repeated,
    rotation,
    scalar,
    tinted,
    to_bytes,
)

BACKGROUND_KINDS: tuple[str, ...] = ("landscape", "bokeh", "bricks", "wood", "marble", "foliage")


def draw_background(kind: str, size: Size, rng: Rng) -> UInt8Array:
    """Draw one background.

    Parameters
    ----------
    kind : str
        One of `BACKGROUND_KINDS`.
    size : (H, W)
        px.
    rng : numpy.random.Generator
        The only source of randomness; equal states draw equal pictures.

    Returns
    -------
    (H, W, 3) uint8
        RGB.

    Raises
    ------
    ValueError
        The kind is unknown.
    """
    if kind not in _BACKGROUNDS:
        raise ValueError(f"unknown background kind {kind!r}: expected one of {', '.join(BACKGROUND_KINDS)}")
    return _BACKGROUNDS[kind](size, rng)


def _landscape(size: Size, rng: Rng) -> UInt8Array:
    h, w = size
    horizon, dusk = rng.uniform(0.4, 0.62), rng.random() < 0.5
    high = random_colour(rng, (0.6, 0.95) if dusk else (0.55, 0.62), (0.4, 0.75), (0.35, 0.8))
    low = random_colour(rng, (0.0, 0.12) if dusk else (0.5, 0.6), (0.5, 0.75) if dusk else (0.05, 0.3), (0.9, 1))
    sky = _ramp(size, high, low, np.clip(np.arange(h) / (h * horizon), 0, 1))
    cloud = np.clip((noise(size, rng, 3, 6, 0.55, (3, 1)) - 0.5) * 3, 0, 0.8)
    lining = (low * 0.35 + 165).astype(np.float32)
    picture = to_bytes(sky + (lining - sky) * repeated(cloud))
    x, y, r = rng.uniform((0.1, 0.2 * horizon, 0.03), (0.9, 0.9 * horizon, 0.07)) * [w * 8, h * 8, min(size) * 8]
    cv2.fillPoly(picture, [ellipse((x, y), r, r).astype(np.int32)], (255, 246, 214), cv2.LINE_AA, 3)
    ground = random_colour(rng, (0.18, 0.36), (0.3, 0.65), (0.2, 0.45))
    for near in np.linspace(0.15, 1, int(rng.integers(3, 6))):
        top = h * (horizon + 0.36 * near**2 - (0.25 - 0.12 * near) * noise((2, w), rng, 0.02, 7, 0.42)[0])
        if near > 0.7:  # the nearest ridges carry trees
            top -= h * 0.02 * rng.random(w) * (rng.random(w) < 0.5)
        hill = np.concatenate([np.stack([np.arange(w), top], 1), [[w, h * 1.1], [0, h * 1.1]]])
        colour = scalar(low * (1 - near) * 0.8 + ground * (near + 0.1))
        cv2.fillPoly(picture, [np.rint(hill * 8).astype(np.int32)], colour, cv2.LINE_AA, 3)
    return _finish(picture, rng, 0.9, 0.12)


def _bokeh(size: Size, rng: Rng) -> UInt8Array:
    h, w = size
    largest, hue, spread = int(min(size) * 0.11) + 3, rng.uniform(0, 1), rng.uniform(0.05, 0.5)
    first, last = (random_colour(rng, (0, 1), (0.4, 0.9), (0.08, 0.4)) for _ in range(2))
    picture = to_bytes(_ramp(size, first, last, np.linspace(0, 1, h)) * repeated(0.5 + noise(size, rng, 2, 3)))
    lights: Field = cv2.copyMakeBorder(picture, largest, largest, largest, largest, cv2.BORDER_REPLICATE)
    for _ in range(int(rng.integers(30, 70))):
        r = int(largest * rng.uniform(0.25, 0.95))
        side = 2 * r + 3
        disc = np.zeros((side, side, 3), np.uint8)
        colour = random_colour(rng, (hue, hue + spread), (0.2, 0.9), (0.8, 1)) * rng.uniform(0.15, 0.7)
        cv2.circle(disc, (r + 1, r + 1), r, scalar(colour), -1, cv2.LINE_AA)
        cv2.circle(disc, (r + 1, r + 1), int(r * 0.9), scalar(colour * 0.75), -1, cv2.LINE_AA)
        y, x = rng.integers(0, (h + 2 * largest - side, w + 2 * largest - side))
        view = lights[y : y + side, x : x + side]
        view[:] = cv2.add(view, disc)
    return _finish(lights[largest:-largest, largest:-largest], rng, 0.3, 0.1, rng.uniform(0.002, 0.006))


def _bricks(size: Size, rng: Rng) -> UInt8Array:
    h, w = size
    tall = min(size) * rng.uniform(0.055, 0.1)
    long, joint = tall * rng.uniform(2, 2.8), np.float32(tall * rng.uniform(0.06, 0.11))
    row = (np.arange(h) / tall).astype(np.int64)
    along = (np.arange(w) + np.array([[0], [long / 2]]) + rng.uniform(0, long)) / long  # in even rows and in odd ones
    tints = jittered(random_colour(rng, (0.0, 0.09), (0.15, 0.7), (0.45, 0.85)), rng, 997, 0.14).astype(np.float32)
    picture = np.take(tints, ((row * 61)[:, None] + along.astype(np.int64)[row % 2]) % 997, 0)
    across = (long / 2 - np.abs(along % 1 - 0.5) * long).astype(np.float32)[row % 2]
    down = (tall / 2 - np.abs(np.arange(h) % tall - tall / 2)).astype(np.float32)[:, None]
    grit = noise(size, rng, 24, 4, 0.8)
    mortar = np.clip(joint - np.minimum(across, down) + (grit - np.float32(0.5)) * joint * 2 + 1, 0, 1)
    relief = cv2.Sobel(mortar, -1, 0, 1, scale=-0.1)
    picture += (np.float32(rng.uniform(90, 200)) - picture) * repeated(mortar)
    picture *= repeated(0.62 + 0.76 * grit + relief)
    return _finish(picture, rng, 0.8, 0.15, rng.choice([0, 0.003, 0.008]))


def _wood(size: Size, rng: Rng) -> UInt8Array:
    upright = rng.random() < 0.5
    h, w = size[::-1] if upright else size
    planks, timber = int(rng.integers(3, 8)), random_colour(rng, (0.04, 0.1), (0.4, 0.75), (0.3, 0.85))
    down = np.arange(h)[:, None] / h * planks
    which = down.astype(np.int64)
    rings = noise((h, w), rng, 1.5, 3, 0.5, (3, 1)) * np.float32(rng.uniform(5, 14))
    rings += (down / planks * rng.uniform(3, 12) + rng.uniform(0, 9, planks)[which]).astype(np.float32)
    fibre = noise((h, w), rng, 50, 3, 0.7, (16, 1))
    light = 0.5 + 0.28 * np.abs(rings % 1 * 2 - 1) + 0.5 * fibre
    seam = np.abs(down % 1 - 0.5) > 0.5 - max(0.004 * planks, planks / h)
    light *= (rng.uniform(0.75, 1.2, planks)[which] * np.where(seam, 0.4, 1)).astype(np.float32)
    light = np.ascontiguousarray(light.T) if upright else light
    picture = cv2.cvtColor(tinted(timber, light), cv2.COLOR_RGBA2RGB) + np.float32(16)
    return _finish(picture, rng, 0.7, 0.1, rng.choice([0, 0.003]))


def _marble(size: Size, rng: Rng) -> UInt8Array:
    stone = random_colour(rng, (0, 1), (0.02, 0.3), (0.75, 0.98))
    vein = random_colour(rng, (0, 1), (0.05, 0.5), (0.2, 0.5))
    if rng.random() < 0.25:
        stone = random_colour(rng, (0, 1), (0.2, 0.7), (0.1, 0.35))
        vein = random_colour(rng, (0, 0.15), (0.05, 0.5), (0.8, 1))
    cloud = noise(size, rng, 2.5, 6, 0.6)
    veins = np.minimum(np.abs(noise(size, rng, 1.5, 6) - 0.5), np.abs(noise(size, rng, 4, 4) - 0.5))
    picture = tinted(stone, 0.8 + 0.35 * cloud)
    picture += (tinted(vein, np.ones_like(cloud)) - picture) * repeated(np.clip(1 - 18 * veins, 0, 1) * cloud, 4)
    return _finish(cv2.cvtColor(picture, cv2.COLOR_RGBA2RGB), rng, 0.5, 0.08)


def _foliage(size: Size, rng: Rng) -> UInt8Array:
    h, w = size
    green = random_colour(rng, (0.16, 0.4), (0.35, 0.8), (0.4, 0.9))
    picture = to_bytes(_ramp(size, green * 0.6, green * 0.2, np.linspace(0, 1, h)))
    t = np.linspace(0, 1, 9)
    half = 0.28 * np.sin(math.pi * t**0.8)
    leaf = np.concatenate([np.stack([t, half], 1), np.stack([t, -half], 1)[::-1]]) * min(size) * 8
    for light, blur in ((0.45, 0.02), (0.7, 0.008), (1.0, rng.choice([0, 0.003, 0.01]))):
        for tint in jittered(green * light, rng, 48, 0.2):
            blade = leaf * rng.uniform(0.1, 0.25) @ rotation(rng.uniform(0, 6.3)).T
            fixed = np.rint(blade + rng.uniform(-0.05, 1.05, 2) * [w * 8, h * 8]).astype(np.int32)
            cv2.fillPoly(picture, [fixed], scalar(tint), cv2.LINE_AA, 3)
            cv2.fillPoly(picture, [fixed[:9]], scalar(tint * 1.18), cv2.LINE_AA, 3)
        picture = _blurred(picture, blur * min(size))
    return _finish(picture, rng, 0.9, 0.15)


def _ramp(size: Size, first: Points, last: Points, along: Points) -> Field:
    """Return a picture that goes from one colour to the other by the rows' values `along`, 0..1."""
    rows = first + (last - first) * along[:, None]
    return np.repeat(rows[:, None].astype(np.float32), size[1], 1)


def _blurred(picture: Field, sigma: float) -> Field:
    if sigma < 0.3:
        return picture
    h, w = picture.shape[:2]
    step = max(1, int(sigma / 2))  # a wide blur is as good, and quicker, on a smaller picture
    small = cv2.resize(picture, (max(w // step, 1), max(h // step, 1)), interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma / step), (w, h), interpolation=cv2.INTER_LINEAR)


def _finish(picture: Field, rng: Rng, rough: float, grain: float, blur: float = 0) -> UInt8Array:
    """Add the lens' blur, an uneven light, texture and the sensor's noise."""
    size = picture.shape[0], picture.shape[1]
    light = noise(size, rng, 1.5, 2) * np.float32(0.5) + noise(size, rng, 12, 5, 0.8) * np.float32(rough * 0.2)
    light += rng.random(size, dtype=np.float32) * np.float32(grain * 0.2) + np.float32(0.72 - 0.1 * (rough + grain))
    return to_bytes(_blurred(picture, blur * min(size)).astype(np.float32) * repeated(light))


_BACKGROUNDS = dict(zip(BACKGROUND_KINDS, (_landscape, _bokeh, _bricks, _wood, _marble, _foliage), strict=True))
