"""Draw foregrounds with exact alphas, and backgrounds, from noise and strokes: data without a download.

Geometry is given in units of the frame's short side, from its centre, x to the right and y down, so that every
drawing scales with the picture. A layer is a premultiplied picture, `(H, W, 4) float32`, all channels in 0..255.
"""

import colorsys
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.uint8]
Field = NDArray[Any]  # float32; OpenCV's stubs cannot tell the type
Points = NDArray[Any]  # float64 coordinates or colours
Size = tuple[int, int]
Rng = np.random.Generator

FOREGROUND_KINDS: tuple[str, ...] = ("hair", "fur", "lace", "leaves", "glass", "smoke", "motion", "solid")
BACKGROUND_KINDS: tuple[str, ...] = ("landscape", "bokeh", "bricks", "wood", "marble", "foliage")

_SHIFT = 5  # fixed-point bits of OpenCV's coordinates: 1/32 of a supersampled pixel
_HAIR = ((28, 22, 20), (66, 40, 26), (122, 68, 36), (206, 160, 92), (176, 74, 32), (176, 174, 176), (196, 84, 140))
_SKIN = ((244, 208, 180), (224, 176, 140), (186, 130, 92), (134, 88, 60), (92, 58, 42))
_COAT = ((70, 48, 36), (150, 96, 52), (214, 142, 70), (232, 214, 184), (128, 128, 134), (244, 242, 238), (44, 42, 46))


def draw_foreground(kind: str, size: Size, rng: Rng) -> tuple[Array, Array]:
    """Draw one foreground with its exact alpha.

    Args:
        kind: one of `FOREGROUND_KINDS`.
        size: (height, width) in px.
        rng: the only source of randomness; equal states draw equal pictures.

    Returns:
        The foreground `(H, W, 3) uint8 RGB`, true colours also where the alpha is 0, and the alpha
        `(H, W) uint8`, 0 (clear) to 255 (opaque).

    Raises:
        ValueError: the kind is unknown.
    """
    if kind not in _FOREGROUNDS:
        raise ValueError(f"unknown foreground kind {kind!r}: expected one of {', '.join(FOREGROUND_KINDS)}")
    return _split(_FOREGROUNDS[kind](size, rng))


def draw_background(kind: str, size: Size, rng: Rng) -> Array:
    """Draw one background.

    Args:
        kind: one of `BACKGROUND_KINDS`.
        size: (height, width) in px.
        rng: the only source of randomness; equal states draw equal pictures.

    Returns:
        The background `(H, W, 3) uint8 RGB`.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind not in _BACKGROUNDS:
        raise ValueError(f"unknown background kind {kind!r}: expected one of {', '.join(BACKGROUND_KINDS)}")
    return _BACKGROUNDS[kind](size, rng)


# --- foregrounds: each returns a layer


def _hair(size: Size, rng: Rng) -> Field:
    canvas, curly = _Canvas(size), rng.random() < 0.35
    head, radius = rng.uniform((-0.1, -0.16), (0.1, -0.08)), rng.uniform(0.17, 0.21)
    hair, skin = _jitter(_pick(_HAIR, rng), rng, 1, 0.1)[0], _pick(_SKIN, rng)
    wind, wave, length = rng.uniform(-1, 1), rng.uniform(0.05, 0.5), rng.uniform(0.3, 0.65)

    def locks(count: int, reach: tuple[float, float], long: float, width: float, light: float = 1) -> None:
        reaches, lock = rng.uniform(*reach, count), rng.integers(0, 24, count)
        if curly:
            paths = _coils(head, radius, reaches, long * 0.55, rng)
        else:
            waves = wave * rng.normal(1, 0.4, 24)[lock]
            paths = _tresses(head, radius, reaches, (long, wind), waves, rng)
        tints = _jitter(hair, rng, 24, 0.16)[lock] * rng.normal(light, 0.1, (count, 1))
        canvas.ribbons(paths, width * rng.uniform(0.4, 1, count), tints)

    locks(120, (0.9, 1.5), length * 1.2, 0.003, 1.1)
    locks(190, (0.75, 1.25), length, 0.019, 0.7)
    _bust(canvas, head, radius, skin, rng)
    _face(canvas, head, radius, skin, hair * 0.6, rng)
    locks(190, (0.88, 1.15), length * rng.uniform(0.5, 1), 0.011)
    locks(60, (0.88, 1.35), length * 1.1, 0.003, 1.35)
    return _shade(canvas.layer(), rng, 0.05, 0.25)


def _tresses(
    head: Points, r: float, reach: Points, length_wind: tuple[float, float], wave: Points, rng: Rng
) -> Points:
    """Strands that start at the parting, follow the skull at `reach` radii, then fall in the wind."""
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
    return _walk(head + r * root, angle, step)


def _coils(head: Points, r: float, reach: Points, length: float, rng: Rng) -> Points:
    """Coiled strands that leave the scalp in every direction but the neck's."""
    around = rng.uniform(-math.pi * 1.15, math.pi * 0.15, (len(reach), 1))
    coil = 1.5 * np.sin(np.arange(18) * rng.uniform(0.8, 1.4, around.shape) + rng.uniform(0, 6.3, around.shape))
    root = head + r * 0.95 * np.hstack([np.cos(around), np.sin(around) * 1.12]) * reach[:, None]
    return _walk(root, around + coil, length * rng.uniform(0.5, 1.1, around.shape) / 13)


def _bust(canvas: "_Canvas", head: Points, r: float, skin: Points, rng: Rng) -> None:
    wide, across = rng.uniform(1.9, 2.3), np.linspace(-1, 1, 41)
    shoulders = np.stack([wide * across, 2 + 0.75 * np.abs(across) ** 2.4], 1)
    cloth = _colour(rng, (0, 1), (0.3, 0.8), (0.3, 0.85))
    canvas.fill(head + r * np.concatenate([shoulders, [[wide * 1.1, 20], [-wide * 1.1, 20]]]), cloth)
    neck = np.array([[-0.42, 0.5], [-0.4, 1.5], [-0.85, 2.05], [0, 2.75], [0.85, 2.05], [0.4, 1.5], [0.42, 0.5]])
    canvas.fill(head + r * neck, skin * 0.84)


def _face(canvas: "_Canvas", head: Points, r: float, skin: Points, brow: Points, rng: Rng) -> None:
    turn, iris = rng.uniform(-0.12, 0.12), _colour(rng, (0.05, 0.6), (0.3, 0.7), (0.25, 0.6))
    oval = _ellipse((0, 0), 0.88, 1.22)
    canvas.fill(head + r * oval * (1 - np.array([0.16, 0]) * np.clip(oval[:, 1:], 0, 1) ** 1.5), skin)
    for side in (-1, 1):
        eye = np.array([turn + side * 0.36, 0.12])
        canvas.fill(head + r * _ellipse(eye + np.array((0, 0.32)), 0.2, 0.14), skin * [1, 0.9, 0.88])
        for a, b, colour in ((0.17, 0.085, (246, 244, 240)), (0.085, 0.085, iris), (0.045, 0.045, (16, 14, 14))):
            canvas.fill(head + r * _ellipse(eye, a, b), colour)
        arch: Points = np.array([[-0.19, 0], [-0.1, -0.085], [0.1, -0.085], [0.19, 0]])
        canvas.stroke(head + r * (eye + arch), r * 0.035, (30, 22, 20))
        canvas.stroke(head + r * (eye + arch * [1.1, 0.8] - np.array((0, 0.19))), r * 0.05, brow)
    nose = np.array([[0.03, 0.15], [0.09, 0.46], [-0.08, 0.5]])
    canvas.stroke(head + r * (nose + np.array((turn * 1.5, 0))), r * 0.035, skin * 0.8)
    lips = np.array([[-0.25, 0.69], [-0.08, 0.73], [0, 0.75], [0.08, 0.73], [0.25, 0.69], [0.11, 0.84], [-0.11, 0.84]])
    canvas.fill(head + r * (lips + np.array((turn, 0))), skin * [0.86, 0.56, 0.56])


def _fur(size: Size, rng: Rng) -> Field:
    canvas, coat = _Canvas(size), _jitter(_pick(_COAT, rng), rng, 1, 0.1)[0]
    pale = coat + (252 - coat) * rng.uniform(0.25, 0.8)
    head, r = rng.uniform((-0.14, -0.16), (0.14, -0.06)), rng.uniform(0.19, 0.23)
    body, tuft, kind = head * [0.6, 1] + [0, r * 1.75], r * rng.uniform(0.22, 0.42), int(rng.integers(3))
    tilt = _rotation(rng.uniform(0.1, 0.5)).T
    for side in (-1, 1):
        cat, bear = np.array([[0.98, -0.2], [0.86, -1.5], [0.18, -0.85]]), _ellipse((0.74, -0.78), 0.4, 0.4)
        rabbit = _ellipse((0, 0), 0.24, 0.72) @ tilt + [0.5, -1.25]
        ear = head + r * (cat, bear, rabbit)[kind] * [side, 1]
        canvas.fill(ear, coat * 0.85)
        _pelt(canvas, ear.mean(0), np.ptp(ear, 0) * 0.46, 130, tuft * 0.7, coat * 0.92, rng)
        canvas.fill(ear.mean(0) + (ear - ear.mean(0)) * 0.55 + [0, r * 0.06], (210, 146, 142))
    parts = (  # centre, offset, axes, tufts, length of a tuft, colour
        (body, (0, 0), (1.15, 1.2), 460, 1.2, coat * 0.9),
        (body, (0, 0.15), (0.6, 0.75), 200, 1, pale),
        (body, (-0.55, 1.05), (0.34, 0.24), 90, 0.6, pale),
        (body, (0.55, 1.05), (0.34, 0.24), 90, 0.6, pale),
        (head, (0, 0), (1.08, 0.95), 520, 1, coat),
        (head, (0, 0.4), (0.5, 0.34), 140, 0.6, pale),
    )
    for centre, aside, axes, count, long, colour in parts:
        _pelt(canvas, centre + r * np.array(aside), r * np.array(axes), count, tuft * long, colour, rng)
    _muzzle(canvas, head, r, rng)
    return _shade(canvas.layer(), rng, 0.12, 0.5)


def _pelt(canvas: "_Canvas", centre: Points, axes: Points, count: int, tuft: float, coat: Points, rng: Rng) -> None:
    """Cover an ellipse with tufts that point outwards and droop, the outermost first."""
    canvas.fill(_ellipse(centre, *(axes * 0.97)), coat * 0.78)
    reach = np.sqrt(np.sort(rng.random((count, 1)), 0)[::-1])
    around = rng.uniform(0, 2 * math.pi, (count, 1))
    normal = np.hstack([np.cos(around), np.sin(around)]) * reach
    angle = np.arctan2(normal[:, 1:] + 0.35, normal[:, :1]) + rng.normal(0, 0.3, (count, 1))
    angle = angle + rng.normal(0, 0.16, (count, 1)) * np.arange(5)
    paths = _walk(centre + normal * axes, angle, tuft * rng.uniform(0.5, 1.15, (count, 1)) / 5)
    light = 0.95 - 0.25 * (normal @ [[0.5], [0.85]]) + rng.normal(0, 0.09, (count, 1))
    canvas.ribbons(paths, tuft * 0.145 * rng.uniform(0.5, 1.1, count), _jitter(coat, rng, count, 0.06) * light)


def _muzzle(canvas: "_Canvas", head: Points, r: float, rng: Rng) -> None:
    iris, wide = _colour(rng, (0.05, 0.6), (0.5, 0.9), (0.5, 0.9)), rng.uniform(0.15, 0.2)
    for side in (-1, 1):
        eye = np.array([side * 0.42, -0.08])
        pupil, glint = (0, 0.68, 0.85, (10, 10, 12)), (-0.33, 0.28, 0.28, (255, 255, 255))
        for aside, a, b, colour in ((0, 1.12, 1.12, (24, 20, 20)), (0, 1, 1, iris), pupil, glint):
            canvas.fill(head + r * _ellipse(eye + aside * wide, wide * a, wide * b), colour)
        roots = head + r * np.array([side * 0.3, 0.45]) + rng.normal(0, r * 0.03, (5, 2))
        angle = side * (np.linspace(-0.35, 0.4, 5)[:, None] + np.linspace(0, 0.3, 12)) + (math.pi if side < 0 else 0)
        canvas.ribbons(_walk(roots, angle, np.full((5, 1), r * 0.1)), np.full(5, r * 0.022), np.full((5, 3), 240.0))
    nose = np.array([[-0.14, 0.21], [0.14, 0.21], [0.05, 0.34], [-0.05, 0.34]])
    canvas.fill(head + r * nose, (60, 34, 36))
    mouth = np.array([[-0.2, 0.47], [-0.1, 0.51], [0, 0.33], [0.1, 0.51], [0.2, 0.47]])
    canvas.stroke(head + r * mouth, r * 0.03, (50, 32, 32))


def _lace(size: Size, rng: Rng) -> Field:
    """A doily: rings of meshes, of opaque petals and of sheer ones, within a scalloped border."""
    canvas, fold = _Canvas(size), int(rng.integers(10, 19))
    pale = rng.random() < 0.7
    thread = _colour(rng, (0, 1), (0, 0.15) if pale else (0.4, 0.8), (0.88, 1) if pale else (0.1, 0.6))
    tilt = _rotation(rng.uniform(0, 6.3)) @ np.diag([1, rng.uniform(0.75, 1)]) @ _rotation(rng.uniform(0, 6.3))
    tilt, centre = tilt.T * rng.uniform(0.42, 0.48), rng.uniform(-0.03, 0.03, 2)

    def ring(radius: float, swing: float, order: float, width: float) -> None:
        theta = np.linspace(0, 2 * math.pi, int(60 + 10 * order))
        curve = (radius + swing * np.cos(theta * order))[:, None] * np.stack([np.cos(theta), np.sin(theta)], 1)
        canvas.stroke(curve @ tilt + centre, width, thread)

    edges = np.concatenate([[0.1], np.sort(rng.uniform(0.2, 0.85, 5)) * 0.5 + np.linspace(0.15, 0.4, 5), [0.88]])
    solid = int(rng.integers(6))
    canvas.fill(_ellipse((0, 0), 0.9, 0.9) @ tilt + centre, thread, rng.uniform(0, 0.35))
    for k, (low, high) in enumerate(pairwise(edges)):
        middle, half, weave = (low + high) / 2, (high - low) / 2, rng.random()
        ring(high, 0, 0, 0.008)
        if k not in (solid, 5) and weave < 0.6:
            order = fold * int(rng.integers(1, 4))
            ring(middle, half, order, 0.0045)
            ring(middle, -half, order, 0.0045)
            continue
        for turn in (np.arange(fold) + k % 2 / 2) * 2 * math.pi / fold:
            petal = _ellipse((middle, 0), half, 2.4 * middle / fold) @ _rotation(turn).T @ tilt + centre
            canvas.fill(petal, thread, 1 if k in (solid, 5) else weave)
            if k not in (solid, 5):
                canvas.stroke(petal, 0.0045, thread)
    for swing, order, width in ((0.05, fold, 0.012), (-0.05, fold, 0.006), (0.03, fold * 3, 0.004)):
        ring(0.93, swing, order, width)
    return _shade(canvas.layer(), rng, 0.004, 0.35)


def _leaves(size: Size, rng: Rng) -> Field:
    canvas, count = _Canvas(size), int(rng.integers(7, 14))
    autumn = rng.random() < 0.35
    green = _colour(rng, (0.0, 0.13) if autumn else (0.2, 0.36), (0.6, 0.9), (0.5, 0.8))
    heading = rng.uniform(-0.6, 0.6) - math.pi / 2 + np.linspace(-1, 1, 40)[None] * rng.uniform(-0.7, 0.7)
    stem = _walk(np.zeros((1, 2)), heading, np.full((1, 1), 0.76 / 40))[0]
    stem -= (stem.min(0) + stem.max(0)) / 2 - rng.uniform(-0.05, 0.05, 2)
    canvas.ribbons(stem[None], np.array([0.022]), np.array([[96, 70, 44.0]]))
    shape = (rng.uniform(0.18, 0.32), float(rng.integers(0, 22)), float(rng.choice([0, 0, 2.5])))
    for k, at in enumerate(np.linspace(4, 39, count).astype(int)):
        side = 0 if k == count - 1 else (-1) ** k
        angle = float(heading[0, at]) + side * rng.uniform(0.6, 1.2)
        long = rng.uniform(0.31, 0.42) * (1.1 - at / 90)
        _leaf(canvas, stem[at], (angle, long), shape, _jitter(green, rng, 1, 0.14)[0], rng)
    return _shade(canvas.layer(), rng, 0.02, 0.3)


def _leaf(
    canvas: "_Canvas",
    base: Points,
    pose: tuple[float, float],
    shape: tuple[float, float, float],
    green: Points,
    rng: Rng,
) -> None:
    """Paint a leaf of a pose (angle, length) and a shape (half-width to length, teeth, lobes) in two tones."""
    (angle, long), (slim, teeth, lobes) = pose, shape
    t = np.linspace(0, 1, 60)
    spine = _walk(base[None], angle + rng.normal(0, 0.5) * t[None], np.full((1, 1), long / 60))[0]
    across = np.stack([-np.gradient(spine[:, 1]), np.gradient(spine[:, 0])], 1) * 60
    blade = np.clip((t - 0.12) / 0.88, 0, 1)
    half = slim * np.sin(math.pi * blade**0.75) * (1 + 0.1 * ((blade * teeth) % 1))
    half = (half * (1 - 0.35 * np.abs(np.sin(lobes * math.pi * blade))))[:, None]
    ribs = np.arange(10, 50, 6)
    for side, light in ((-1, 0.86), (1, 1.08)):
        canvas.fill(np.concatenate([spine, (spine + side * across * half)[::-1]]), green * light)
        veins = np.stack([spine[ribs], spine[ribs + 8] + side * (across * half)[ribs + 4] * 0.8], 1)
        canvas.ribbons(veins, np.full(len(veins), long * 0.012), np.tile(green * 1.25 + 12, (len(veins), 1)))
    canvas.ribbons(spine[None], np.array([long * 0.035]), (green * 1.2 + 20)[None])


def _glass(size: Size, rng: Rng) -> Field:
    heights, widths = _profile(rng)
    mid, flat, level = rng.uniform(-0.1, 0.1), rng.uniform(0.1, 0.18), rng.uniform(-0.28, 0.0)
    silhouette, lines = _Canvas(size), _Canvas(size)
    arc = _ellipse((0, 0), 1, flat)
    right = np.stack([widths, heights], 1)
    caps = arc[:24] * widths[-1] + [0, heights[-1]], arc[24:] * widths[0] + [0, heights[0]]
    outline = np.concatenate([right, caps[0], (right * [-1, 1])[::-1], caps[1]])
    silhouette.fill(outline + np.array((mid, 0)), (255, 255, 255))
    mask = silhouette.layer()[..., 3] / 255
    brim = float(np.interp(level, heights, widths))
    for at, wide, thick in ((heights[0], widths[0], 0.009), (level, brim, 0.004), (heights[-1], widths[-1], 0.006)):
        lines.stroke(arc * wide * 0.985 + np.array((mid, at)), thick, (250, 250, 250))
    x, y = _axes(size)
    radius = np.maximum(np.interp(y, heights, widths), 1e-3).astype(np.float32)
    across = np.clip((x - mid) / radius, -1, 1)
    bulge = across * across
    wall = 0.12 + 0.26 * bulge * bulge + 0.5 * np.clip(1 - (1 - np.abs(across)) * radius / 0.02, 0, 1)
    body = _tinted(_colour(rng, (0, 1), (0.02, 0.35), (0.7, 1)), mask * wall)
    sag = np.sqrt(1 - bulge) * flat
    pool = (y > level + sag * brim) & (radius > 0.05) & (y < heights[-1] - 0.04 + sag * radius)
    wine = _tinted(_colour(rng, (0, 1), (0.75, 1), (0.3, 0.8)), mask * pool * (0.43 - 0.12 * bulge))
    shine = np.maximum(_gleams(across, y) * mask, lines.layer()[..., 3] * np.float32(0.8 / 255))
    return _over(_tinted((255, 255, 250), shine), _over(body, wine))


def _profile(rng: Rng) -> tuple[Points, Points]:
    """The half-widths of a vessel at heights from its brim down to its foot."""
    bowl, stem = ((-0.43, 0.22), (-0.28, 0.27), (-0.1, 0.26), (0.02, 0.14)), ((0.08, 0.03), (0.34, 0.025))
    goblet = (*bowl, *stem, (0.4, 0.09), (0.43, 0.22))
    vase = ((-0.43, 0.17), (-0.37, 0.12), (-0.2, 0.15), (0.1, 0.31), (0.28, 0.29), (0.42, 0.17))
    bottle = ((-0.45, 0.08), (-0.26, 0.075), (-0.12, 0.2), (0.05, 0.29), (0.3, 0.3), (0.43, 0.25))
    knots = np.array((goblet, vase, bottle, ((-0.42, 0.29), (0.0, 0.26), (0.4, 0.22)))[rng.integers(4)])
    heights = np.linspace(knots[0, 0], knots[-1, 0], 120)
    widths = np.interp(heights, knots[:, 0], knots[:, 1]) * rng.uniform(0.95, 1.2)
    smooth = np.hanning(25) / np.hanning(25).sum()
    return heights, np.convolve(np.pad(widths, 12, mode="reflect", reflect_type="odd"), smooth, "valid")


def _gleams(across: Field, y: Field) -> Field:
    """The reflection of a window on the left, and a streak of its light on the right."""
    left, down = np.abs(across + 0.52), np.abs(y + 0.2)
    pane = np.clip(np.minimum(0.17 - left, left - 0.012) * 25, 0, 1)
    pane *= np.clip(np.minimum(0.14 - down, down - 0.005) * 60, 0, 1)
    streak = np.clip(1.6 - np.abs(across - 0.74) * 18, 0, 0.7) * np.clip(4 - np.abs(y) * 12, 0, 1)
    shine: Field = np.maximum(pane, streak)
    return shine


def _smoke(size: Size, rng: Rng) -> Field:
    (h, w), unit = size, min(size)
    x, y = _axes(size)
    rise = np.clip(0.5 - y * unit / h, 0, 1)  # 0 at the bottom border, 1 at the top
    sway = rng.uniform(0.05, 0.16) * np.sin(rise * rng.uniform(3, 6) + rng.uniform(0, 6.3)) + rng.uniform(-0.12, 0.12)
    swirl = [_noise(size, rng, 3, 4) - np.float32(0.5) for _ in range(2)]
    grid = [swirl[0] * (0.35 * unit) + np.arange(w), swirl[1] * (0.35 * unit) + np.arange(h)[:, None]]
    columns, rows = (g.astype(np.float32) for g in grid)
    billow = _noise(size, rng, 4, 6, 0.6)
    billow = cv2.remap(billow, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    wide = 0.05 + rng.uniform(0.2, 0.32) * rise**0.8
    plume = np.exp(-(((x - sway + 0.3 * rise * swirl[0]) / wide) ** 2)) * np.clip(rise * 8, 0, 1)
    alpha = np.clip((billow + 0.55 * plume - 0.62) * 2.6, 0, 0.97) * np.clip(plume * 4 - 0.2, 0, 1)
    light = np.clip(0.78 + 0.6 * (billow - 0.5) + swirl[1], 0.3, 1)
    shades: Points = np.array([[0.1, 0.25], [0.9, 1], [0.9, 1]])  # soot or steam
    colour = _colour(rng, (0, 1), (0, rng.choice([0.06, 0.06, 0.7])), rng.choice(shades))
    return _tinted(colour, alpha, light)


def _motion(size: Size, rng: Rng) -> Field:
    canvas, (h, w) = _Canvas(size), size
    along, centre = rng.normal(rng.choice([0, math.pi]), 0.4), rng.uniform(-0.06, 0.06, 2)
    spin = float(rng.choice([0, 0, rng.uniform(14, 36)]))
    sweep = rng.uniform(0.12, 0.24) * np.array([math.cos(along), math.sin(along)]) * (0.3 if spin else 1)
    _object(canvas, centre - sweep / 2, rng.uniform(0.29, 0.36), rng)
    layer = _shade(canvas.layer(), rng, 0.1, 0.7)
    pivot = centre * min(size) + np.array([w, h]) / 2 - 0.5
    for k in range(1, 7):  # averaging with copies moved by 1/2, 1/4, … of the way is a box of 64 taps
        turn = cv2.getRotationMatrix2D((float(pivot[0]), float(pivot[1])), spin / 2**k, 1)
        turn[:, 2] += sweep * min(size) / 2**k
        layer = cv2.addWeighted(layer, 0.5, cv2.warpAffine(layer, turn, (w, h)), 0.5, 0)
    return layer


def _solid(size: Size, rng: Rng) -> Field:
    canvas, centre = _Canvas(size), rng.uniform(-0.08, 0.08, 2)
    for aside in rng.uniform(0, 2 * math.pi, int(rng.integers(0, 3))):
        _object(canvas, centre + 0.36 * np.array([math.cos(aside), math.sin(aside)]), rng.uniform(0.09, 0.15), rng)
    _object(canvas, centre, rng.uniform(0.31, 0.38), rng)
    return _shade(canvas.layer(), rng, 0.1, 0.7)


def _object(canvas: "_Canvas", centre: Points, radius: float, rng: Rng) -> None:
    """Paint a duck, a beach ball, or a star, gear, polygon or flower with an inlay."""
    paint, second = _colour(rng, (0, 1), (0.55, 0.95), (0.6, 0.95)), _colour(rng, (0, 1), (0.1, 0.9), (0.5, 1))
    n, pose = int(rng.integers(5, 10)), _rotation(rng.uniform(0, 6.3)).T * radius
    theta, sector = np.linspace(0, 2 * math.pi, 241), 2 * math.pi / n
    kind, polar = (
        ("duck", theta),
        ("ball", np.ones(241)),
        ("star", 0.55 + 0.45 * np.abs((theta * n / math.pi) % 2 - 1)),
        ("gear", 0.9 + 0.1 * np.clip(np.cos(theta * 2 * n) * 4, -1, 1)),
        ("polygon", math.cos(sector / 2) / np.cos(theta % sector - sector / 2)),
        ("flower", 0.62 + 0.38 * np.abs(np.cos(theta * n / 2))),
    )[rng.integers(6)]
    if kind == "duck":
        return _duck(canvas, centre, radius, rng)
    outline = polar[:, None] * np.stack([np.cos(theta), np.sin(theta)], 1)
    canvas.fill(outline @ pose + centre, paint)
    if kind != "ball":
        canvas.fill(outline @ pose * 0.68 + centre, second)
    for k in range(n):
        inlay, colour = _ellipse((0.42, 0), 0.07, 0.07), paint * 0.8
        if kind == "ball":
            inlay, colour = np.concatenate([[[0, 0]], outline[: 120 // n + 1]]), np.array((250, 248, 240))
        canvas.fill(inlay @ _rotation(sector * k).T @ pose + centre, colour)
    canvas.fill(_ellipse((0, 0), 0.2, 0.2) @ pose + centre, paint, 0 if kind == "gear" else 1)
    return None


def _duck(canvas: "_Canvas", centre: Points, radius: float, rng: Rng) -> None:
    look = np.array([rng.choice([-1.0, 1.0]), 1.0]) * radius
    coat = _colour(rng, rng.choice([(0.1, 0.16), (0, 1)]), (0.5, 0.9), (0.85, 1))
    parts: tuple[tuple[Points, ArrayLike], ...] = (
        (np.array([[-0.6, 0.2], [-1.05, -0.12], [-0.7, 0.7], [0.0, 0.9], [0.5, 0.5]]), coat),
        (_ellipse((-0.02, 0.42), 0.9, 0.5), coat),
        (_ellipse((0.36, -0.36), 0.5, 0.48), coat),
        (_ellipse((-0.2, 0.36), 0.42, 0.24), coat * 0.86),
        (np.array([[0.78, -0.42], [1.2, -0.3], [0.78, -0.12]]), (236, 110, 30)),
        (_ellipse((0.52, -0.5), 0.085, 0.11), (20, 18, 18)),
        (_ellipse((0.54, -0.54), 0.03, 0.03), (255, 255, 255)),
    )
    for outline, colour in parts:
        canvas.fill(outline * look + centre, colour)


# --- backgrounds


def _landscape(size: Size, rng: Rng) -> Array:
    h, w = size
    horizon, dusk = rng.uniform(0.4, 0.62), rng.random() < 0.5
    high = _colour(rng, (0.6, 0.95) if dusk else (0.55, 0.62), (0.4, 0.75), (0.35, 0.8))
    low = _colour(rng, (0.0, 0.12) if dusk else (0.5, 0.6), (0.5, 0.75) if dusk else (0.05, 0.3), (0.9, 1))
    sky = _ramp(size, high, low, np.clip(np.arange(h) / (h * horizon), 0, 1))
    cloud = np.clip((_noise(size, rng, 3, 6, 0.55, (3, 1)) - 0.5) * 3, 0, 0.8)
    lining = (low * 0.35 + 165).astype(np.float32)
    picture = _to_bytes(sky + (lining - sky) * _repeated(cloud))
    x, y, r = rng.uniform((0.1, 0.2 * horizon, 0.03), (0.9, 0.9 * horizon, 0.07)) * [w * 8, h * 8, min(size) * 8]
    cv2.fillPoly(picture, [_ellipse((x, y), r, r).astype(np.int32)], (255, 246, 214), cv2.LINE_AA, 3)
    ground = _colour(rng, (0.18, 0.36), (0.3, 0.65), (0.2, 0.45))
    for near in np.linspace(0.15, 1, int(rng.integers(3, 6))):
        top = h * (horizon + 0.36 * near**2 - (0.25 - 0.12 * near) * _noise((2, w), rng, 0.02, 7, 0.42)[0])
        if near > 0.7:  # the nearest ridges carry trees
            top -= h * 0.02 * rng.random(w) * (rng.random(w) < 0.5)
        hill = np.concatenate([np.stack([np.arange(w), top], 1), [[w, h * 1.1], [0, h * 1.1]]])
        colour = _scalar(low * (1 - near) * 0.8 + ground * (near + 0.1))
        cv2.fillPoly(picture, [np.rint(hill * 8).astype(np.int32)], colour, cv2.LINE_AA, 3)
    return _finish(picture, rng, 0.9, 0.12)


def _bokeh(size: Size, rng: Rng) -> Array:
    h, w = size
    largest, hue, spread = int(min(size) * 0.11) + 3, rng.uniform(0, 1), rng.uniform(0.05, 0.5)
    first, last = (_colour(rng, (0, 1), (0.4, 0.9), (0.08, 0.4)) for _ in range(2))
    picture = _to_bytes(_ramp(size, first, last, np.linspace(0, 1, h)) * _repeated(0.5 + _noise(size, rng, 2, 3)))
    lights: Field = cv2.copyMakeBorder(picture, largest, largest, largest, largest, cv2.BORDER_REPLICATE)
    for _ in range(int(rng.integers(30, 70))):
        r = int(largest * rng.uniform(0.25, 0.95))
        side = 2 * r + 3
        disc = np.zeros((side, side, 3), np.uint8)
        colour = _colour(rng, (hue, hue + spread), (0.2, 0.9), (0.8, 1)) * rng.uniform(0.15, 0.7)
        cv2.circle(disc, (r + 1, r + 1), r, _scalar(colour), -1, cv2.LINE_AA)
        cv2.circle(disc, (r + 1, r + 1), int(r * 0.9), _scalar(colour * 0.75), -1, cv2.LINE_AA)
        y, x = rng.integers(0, (h + 2 * largest - side, w + 2 * largest - side))
        view = lights[y : y + side, x : x + side]
        view[:] = cv2.add(view, disc)
    return _finish(lights[largest:-largest, largest:-largest], rng, 0.3, 0.1, rng.uniform(0.002, 0.006))


def _bricks(size: Size, rng: Rng) -> Array:
    h, w = size
    tall = min(size) * rng.uniform(0.055, 0.1)
    long, joint = tall * rng.uniform(2, 2.8), np.float32(tall * rng.uniform(0.06, 0.11))
    row = (np.arange(h) / tall).astype(np.int64)
    along = (np.arange(w) + np.array([[0], [long / 2]]) + rng.uniform(0, long)) / long  # in even rows and in odd ones
    tints = _jitter(_colour(rng, (0.0, 0.09), (0.15, 0.7), (0.45, 0.85)), rng, 997, 0.14).astype(np.float32)
    picture = np.take(tints, ((row * 61)[:, None] + along.astype(np.int64)[row % 2]) % 997, 0)
    across = (long / 2 - np.abs(along % 1 - 0.5) * long).astype(np.float32)[row % 2]
    down = (tall / 2 - np.abs(np.arange(h) % tall - tall / 2)).astype(np.float32)[:, None]
    grit = _noise(size, rng, 24, 4, 0.8)
    mortar = np.clip(joint - np.minimum(across, down) + (grit - np.float32(0.5)) * joint * 2 + 1, 0, 1)
    relief = cv2.Sobel(mortar, -1, 0, 1, scale=-0.1)
    picture += (np.float32(rng.uniform(90, 200)) - picture) * _repeated(mortar)
    picture *= _repeated(0.62 + 0.76 * grit + relief)
    return _finish(picture, rng, 0.8, 0.15, rng.choice([0, 0.003, 0.008]))


def _wood(size: Size, rng: Rng) -> Array:
    upright = rng.random() < 0.5
    h, w = size[::-1] if upright else size
    planks, timber = int(rng.integers(3, 8)), _colour(rng, (0.04, 0.1), (0.4, 0.75), (0.3, 0.85))
    down = np.arange(h)[:, None] / h * planks
    which = down.astype(np.int64)
    rings = _noise((h, w), rng, 1.5, 3, 0.5, (3, 1)) * np.float32(rng.uniform(5, 14))
    rings += (down / planks * rng.uniform(3, 12) + rng.uniform(0, 9, planks)[which]).astype(np.float32)
    fibre = _noise((h, w), rng, 50, 3, 0.7, (16, 1))
    light = 0.5 + 0.28 * np.abs(rings % 1 * 2 - 1) + 0.5 * fibre
    seam = np.abs(down % 1 - 0.5) > 0.5 - max(0.004 * planks, planks / h)
    light *= (rng.uniform(0.75, 1.2, planks)[which] * np.where(seam, 0.4, 1)).astype(np.float32)
    light = np.ascontiguousarray(light.T) if upright else light
    picture = cv2.cvtColor(_tinted(timber, light), cv2.COLOR_RGBA2RGB) + np.float32(16)
    return _finish(picture, rng, 0.7, 0.1, rng.choice([0, 0.003]))


def _marble(size: Size, rng: Rng) -> Array:
    stone, vein = _colour(rng, (0, 1), (0.02, 0.3), (0.75, 0.98)), _colour(rng, (0, 1), (0.05, 0.5), (0.2, 0.5))
    if rng.random() < 0.25:
        stone, vein = _colour(rng, (0, 1), (0.2, 0.7), (0.1, 0.35)), _colour(rng, (0, 0.15), (0.05, 0.5), (0.8, 1))
    cloud = _noise(size, rng, 2.5, 6, 0.6)
    veins = np.minimum(np.abs(_noise(size, rng, 1.5, 6) - 0.5), np.abs(_noise(size, rng, 4, 4) - 0.5))
    picture = _tinted(stone, 0.8 + 0.35 * cloud)
    picture += (_tinted(vein, np.ones_like(cloud)) - picture) * _repeated(np.clip(1 - 18 * veins, 0, 1) * cloud, 4)
    return _finish(cv2.cvtColor(picture, cv2.COLOR_RGBA2RGB), rng, 0.5, 0.08)


def _foliage(size: Size, rng: Rng) -> Array:
    h, w = size
    green = _colour(rng, (0.16, 0.4), (0.35, 0.8), (0.4, 0.9))
    picture = _to_bytes(_ramp(size, green * 0.6, green * 0.2, np.linspace(0, 1, h)))
    t = np.linspace(0, 1, 9)
    half = 0.28 * np.sin(math.pi * t**0.8)
    leaf = np.concatenate([np.stack([t, half], 1), np.stack([t, -half], 1)[::-1]]) * min(size) * 8
    for light, blur in ((0.45, 0.02), (0.7, 0.008), (1.0, rng.choice([0, 0.003, 0.01]))):
        for tint in _jitter(green * light, rng, 48, 0.2):
            blade = leaf * rng.uniform(0.1, 0.25) @ _rotation(rng.uniform(0, 6.3)).T
            fixed = np.rint(blade + rng.uniform(-0.05, 1.05, 2) * [w * 8, h * 8]).astype(np.int32)
            cv2.fillPoly(picture, [fixed], _scalar(tint), cv2.LINE_AA, 3)
            cv2.fillPoly(picture, [fixed[:9]], _scalar(tint * 1.18), cv2.LINE_AA, 3)
        picture = _blurred(picture, blur * min(size))
    return _finish(picture, rng, 0.9, 0.15)


# --- shared tools


class _Canvas:
    """A supersampled premultiplied drawing: colour and opacity are painted as one, so they antialias as one."""

    def __init__(self, size: Size) -> None:
        h, w = size
        self.size, self.scale = size, 4 if max(size) <= 256 else 2
        self.unit = float(min(size) * self.scale)
        self.centre = np.array([w, h]) * self.scale / 2 - 0.5
        self.pixels: Array = np.zeros((h * self.scale, w * self.scale, 4), np.uint8)

    def fill(self, outline: Points, colour: ArrayLike, opacity: float = 1) -> None:
        """Paint the inside of `outline` `(N, 2)`; an opacity below 1 replaces what is there, it does not veil it."""
        value = _scalar(np.append(np.clip(colour, 0, 255), 255) * opacity)
        cv2.fillPoly(self.pixels, [self._fixed(outline)], value, cv2.LINE_AA, _SHIFT)

    def stroke(self, path: Points, width: float, colour: ArrayLike) -> None:
        """Paint the line `path` `(N, 2)` at a constant width."""
        self._bands(path[None], np.full((1, len(path)), width), np.asarray(colour, np.float64)[None])

    def ribbons(self, paths: Points, widths: Points, colours: Points) -> None:
        """Paint `paths` `(N, M, 2)` in turn, each tapering from its width `(N,)` to a point, in its colour `(N, 3)`."""
        self._bands(paths, widths[:, None] * (1 - np.linspace(0, 1, paths.shape[1]) ** 2), colours)

    def _bands(self, paths: Points, widths: Points, colours: Points) -> None:
        along = np.gradient(paths, axis=1)
        across = np.stack([-along[..., 1], along[..., 0]], -1) / np.linalg.norm(along, axis=-1, keepdims=True)
        across *= widths[..., None] / 2
        outlines = self._fixed(np.concatenate([paths + across, (paths - across)[:, ::-1]], 1))
        middles, values = self._fixed(paths), np.clip(np.pad(colours, ((0, 0), (0, 1)), constant_values=255), 0, 255)
        for outline, middle, width, value in zip(outlines, middles, widths[:, 0], values.tolist(), strict=True):
            if width * self.unit < 3:  # a plain line looks the same there, at a third of the time
                cv2.polylines(self.pixels, [middle], False, value, 1, cv2.LINE_AA, _SHIFT)
            else:
                cv2.fillPoly(self.pixels, [outline], value, cv2.LINE_AA, _SHIFT)

    def layer(self) -> Field:
        """Return the drawing as a layer."""
        small = cv2.resize(self.pixels, self.size[::-1], interpolation=cv2.INTER_AREA)
        return small.astype(np.float32)

    def _fixed(self, points: Points) -> NDArray[np.int32]:
        fixed: NDArray[np.int32] = np.rint((points * self.unit + self.centre) * 2**_SHIFT).astype(np.int32)
        return fixed


def _split(layer: Field) -> tuple[Array, Array]:
    """Un-premultiply, and let the colours flow out to where the alpha is too low to tell them."""
    h, w = layer.shape[:2]
    small = cv2.resize(layer, (max(w // 16, 1), max(h // 16, 1)), interpolation=cv2.INTER_AREA)
    spread = cv2.GaussianBlur(small, (0, 0), 1.5) + 0.02 * small.mean((0, 1)) + np.float32(1e-4)
    flow = cv2.resize(spread / spread[..., 3:], (w, h), interpolation=cv2.INTER_LINEAR)
    alpha = layer[..., 3]
    doubt = np.float32(3) - alpha * np.float32(3 / 255)
    colour = (layer + flow * _repeated(doubt, 4)) * _repeated(255 / (alpha + doubt), 4)
    return _to_bytes(cv2.cvtColor(colour, cv2.COLOR_RGBA2RGB)), _to_bytes(alpha)


def _over(top: Field, under: Field) -> Field:
    both: Field = top + under * _repeated(1 - top[..., 3] / 255, 4)
    return both


def _tinted(colour: ArrayLike, alpha: Field, light: Field | float = 1) -> Field:
    """A layer of one colour, under the alpha `(H, W)` and the light, both in 0..1."""
    tint, shade = np.asarray(colour, np.float32), alpha * light
    return cv2.merge([shade * tint[0], shade * tint[1], shade * tint[2], alpha * np.float32(255)])


def _repeated(plane: Field, channels: int = 3) -> Field:
    return cv2.merge([plane] * channels)  # numpy would broadcast over the channels, at a fifth of the speed


def _shade(layer: Field, rng: Rng, radius: float, depth: float) -> Field:
    """Light a layer from above as if its edges were rounded over `radius`, with a low-frequency unevenness."""
    h, w = layer.shape[:2]
    step = max(1, int(radius * min(h, w) / 3))
    sigma = max(radius * min(h, w) / step, 0.6)
    small = max(w // step, 1), max(h // step, 1)
    height: Field = cv2.GaussianBlur(cv2.resize(layer[..., 3], small, interpolation=cv2.INTER_AREA), (0, 0), sigma)
    height *= np.float32(0.3 * depth * sigma / 255)
    aslant = float(rng.uniform(0.3, 0.8) * rng.choice([-1, 1]))
    light = aslant * cv2.Sobel(height, -1, 1, 0) + 0.8 * cv2.Sobel(height, -1, 0, 1)
    light += 0.82 + 0.36 * _noise((small[1], small[0]), rng, 2.5, 3)
    lit = layer * _repeated(cv2.resize(light, (w, h), interpolation=cv2.INTER_LINEAR), 4)
    lit[..., 3] = layer[..., 3]
    return lit


def _noise(
    size: Size, rng: Rng, cells: float, octaves: int, gain: float = 0.5, stretch: tuple[float, float] = (1, 1)
) -> Field:
    """Sum `octaves` of value noise, the first with `cells` in the short side: `(H, W) float32` in 0..1."""
    h, w = size
    total: Field = np.zeros((1, 1), np.float32)
    for k in range(octaves):
        pitch = cells * 2**k / min(size)
        grid = min(h, math.ceil(h * pitch / stretch[1]) + 1), min(w, math.ceil(w * pitch / stretch[0]) + 1)
        total = cv2.resize(total, grid[::-1], interpolation=cv2.INTER_CUBIC)
        total = total + np.float32(gain**k) * rng.random(grid, dtype=np.float32)
    if total.size * 64 < h * w:  # OpenCV's cubic resizing is slow from a very small picture
        total = cv2.resize(total, (w // 4, h // 4), interpolation=cv2.INTER_CUBIC)
    total = cv2.resize(total, (w, h), interpolation=cv2.INTER_CUBIC)
    return cv2.normalize(total, total, 0, 1, cv2.NORM_MINMAX)


def _axes(size: Size) -> tuple[Field, Field]:
    """The coordinates of the pixels' centres, `(1, W)` and `(H, 1)`."""
    h, w = size
    x = (np.arange(w, dtype=np.float32)[None] + 0.5 - w / 2) / min(size)
    return x, (np.arange(h, dtype=np.float32)[:, None] + 0.5 - h / 2) / min(size)


def _walk(root: Points, angle: Points, step: Points) -> Points:
    """Paths `(N, M, 2)` from the roots `(N, 2)`, by steps `(N, 1)` in the directions `(N, M)`."""
    moves: Points = np.stack([np.cos(angle), np.sin(angle)], -1) * step[..., None]
    paths: Points = root[:, None] + np.cumsum(moves, 1) - moves[:, :1]
    return paths


def _ellipse(centre: ArrayLike, a: float, b: float) -> Points:
    theta = np.linspace(0, 2 * math.pi, 48)
    return np.asarray(centre) + np.stack([a * np.cos(theta), b * np.sin(theta)], 1)


def _rotation(angle: float) -> Points:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _pick(table: Sequence[tuple[int, int, int]], rng: Rng) -> Points:
    return np.array(table[int(rng.integers(len(table)))], np.float64)


def _colour(rng: Rng, hue: tuple[float, float], saturation: tuple[float, float], value: tuple[float, float]) -> Points:
    rgb = colorsys.hsv_to_rgb(rng.uniform(*hue) % 1, rng.uniform(*saturation), rng.uniform(*value))
    return np.array(rgb) * 255


def _jitter(colour: Points, rng: Rng, count: int, amount: float) -> Points:
    """Variants `(N, 3)` of a colour: mostly lighter and darker, a little in hue."""
    return colour * np.exp(rng.normal(0, amount, (count, 1)) + rng.normal(0, amount / 3, (count, 3)))


def _scalar(colour: Points) -> tuple[float, ...]:
    return tuple(float(c) for c in np.clip(colour, 0, 255))


def _ramp(size: Size, first: Points, last: Points, along: Points) -> Field:
    """A picture that goes from one colour to the other by the rows' values `along`, 0..1."""
    rows = first + (last - first) * along[:, None]
    return np.repeat(rows[:, None].astype(np.float32), size[1], 1)


def _blurred(picture: Field, sigma: float) -> Field:
    if sigma < 0.3:
        return picture
    h, w = picture.shape[:2]
    step = max(1, int(sigma / 2))  # a wide blur is as good, and quicker, on a smaller picture
    small = cv2.resize(picture, (max(w // step, 1), max(h // step, 1)), interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma / step), (w, h), interpolation=cv2.INTER_LINEAR)


def _finish(picture: Field, rng: Rng, rough: float, grain: float, blur: float = 0) -> Array:
    """Add the lens' blur, an uneven light, texture and the sensor's noise."""
    size = picture.shape[0], picture.shape[1]
    light = _noise(size, rng, 1.5, 2) * np.float32(0.5) + _noise(size, rng, 12, 5, 0.8) * np.float32(rough * 0.2)
    light += rng.random(size, dtype=np.float32) * np.float32(grain * 0.2) + np.float32(0.72 - 0.1 * (rough + grain))
    return _to_bytes(_blurred(picture, blur * min(size)).astype(np.float32) * _repeated(light))


def _to_bytes(picture: Field) -> Array:
    return np.asarray(cv2.convertScaleAbs(np.maximum(picture, 0)), np.uint8)  # rounds and saturates


_FOREGROUNDS = dict(zip(FOREGROUND_KINDS, (_hair, _fur, _lace, _leaves, _glass, _smoke, _motion, _solid), strict=True))
_BACKGROUNDS = dict(zip(BACKGROUND_KINDS, (_landscape, _bokeh, _bricks, _wood, _marble, _foliage), strict=True))
