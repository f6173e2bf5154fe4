"""Draw foregrounds with exact alphas, from noise and strokes: data without a download."""

from __future__ import annotations

import math
from itertools import pairwise

import cv2
import numpy as np

from ...base.arrays import UInt8Array
from .canvas import (
    Canvas,
    Field,
    Points,
    Rng,
    Size,
    ellipse,
    jittered,
    noise,
    over,
    pixel_centres,
    random_colour,
    rotation,
    shaded,
    tinted,
    unpremultiplied,
    walk,
)
from .portraits import draw_portrait
from .strands import coils, tresses

FOREGROUND_KINDS: tuple[str, ...] = ("hair", "fur", "lace", "leaves", "glass", "smoke", "motion", "solid", "portrait")


_HAIR = ((28, 22, 20), (66, 40, 26), (122, 68, 36), (206, 160, 92), (176, 74, 32), (176, 174, 176), (196, 84, 140))


_SKIN = ((244, 208, 180), (224, 176, 140), (186, 130, 92), (134, 88, 60), (92, 58, 42))


_COAT = ((70, 48, 36), (150, 96, 52), (214, 142, 70), (232, 214, 184), (128, 128, 134), (244, 242, 238), (44, 42, 46))


def draw_foreground(kind: str, size: Size, rng: Rng) -> tuple[UInt8Array, UInt8Array]:
    """Draw one foreground with its exact alpha.

    Parameters
    ----------
    kind : str
        One of `FOREGROUND_KINDS`.
    size : (H, W)
        px.
    rng : numpy.random.Generator
        The only source of randomness; equal states draw equal pictures.

    Returns
    -------
    (H, W, 3) uint8
        The foreground, RGB, not premultiplied; true colours also where the alpha is 0.
    (H, W) uint8
        The alpha, 0 clear .. 255 opaque.

    Raises
    ------
    ValueError
        The kind is unknown.
    """
    if kind not in _FOREGROUNDS:
        raise ValueError(f"unknown foreground kind {kind!r}: expected one of {', '.join(FOREGROUND_KINDS)}")
    return unpremultiplied(_FOREGROUNDS[kind](size, rng))


def _hair(size: Size, rng: Rng) -> Field:
    canvas, curly = Canvas(size), rng.random() < 0.35
    head, radius = rng.uniform((-0.1, -0.16), (0.1, -0.08)), rng.uniform(0.17, 0.21)
    hair, skin = jittered(_pick(_HAIR, rng), rng, 1, 0.1)[0], _pick(_SKIN, rng)
    wind, wave, length = rng.uniform(-1, 1), rng.uniform(0.05, 0.5), rng.uniform(0.3, 0.65)

    def locks(count: int, reach: tuple[float, float], long: float, width: float, light: float = 1) -> None:
        reaches, lock = rng.uniform(*reach, count), rng.integers(0, 24, count)
        if curly:
            paths = coils(head, radius, reaches, long * 0.55, rng)
        else:
            waves = wave * rng.normal(1, 0.4, 24)[lock]
            paths = tresses(head, radius, reaches, (long, wind), waves, rng)
        tints = jittered(hair, rng, 24, 0.16)[lock] * rng.normal(light, 0.1, (count, 1))
        canvas.ribbons(paths, width * rng.uniform(0.4, 1, count), tints)

    locks(120, (0.9, 1.5), length * 1.2, 0.003, 1.1)
    locks(190, (0.75, 1.25), length, 0.019, 0.7)
    _bust(canvas, head, radius, skin, rng)
    _face(canvas, head, radius, skin, hair * 0.6, rng)
    locks(190, (0.88, 1.15), length * rng.uniform(0.5, 1), 0.011)
    locks(60, (0.88, 1.35), length * 1.1, 0.003, 1.35)
    return shaded(canvas.layer(), rng, 0.05, 0.25)


def _bust(canvas: Canvas, head: Points, r: float, skin: Points, rng: Rng) -> None:
    wide, across = rng.uniform(1.9, 2.3), np.linspace(-1, 1, 41)
    shoulders = np.stack([wide * across, 2 + 0.75 * np.abs(across) ** 2.4], 1)
    cloth = random_colour(rng, (0, 1), (0.3, 0.8), (0.3, 0.85))
    canvas.fill(head + r * np.concatenate([shoulders, [[wide * 1.1, 20], [-wide * 1.1, 20]]]), cloth)
    neck = np.array([[-0.42, 0.5], [-0.4, 1.5], [-0.85, 2.05], [0, 2.75], [0.85, 2.05], [0.4, 1.5], [0.42, 0.5]])
    canvas.fill(head + r * neck, skin * 0.84)


def _face(canvas: Canvas, head: Points, r: float, skin: Points, brow: Points, rng: Rng) -> None:
    turn, iris = rng.uniform(-0.12, 0.12), random_colour(rng, (0.05, 0.6), (0.3, 0.7), (0.25, 0.6))
    oval = ellipse((0, 0), 0.88, 1.22)
    canvas.fill(head + r * oval * (1 - np.array([0.16, 0]) * np.clip(oval[:, 1:], 0, 1) ** 1.5), skin)
    for side in (-1, 1):
        eye = np.array([turn + side * 0.36, 0.12])
        canvas.fill(head + r * ellipse(eye + np.array((0, 0.32)), 0.2, 0.14), skin * [1, 0.9, 0.88])
        for a, b, colour in ((0.17, 0.085, (246, 244, 240)), (0.085, 0.085, iris), (0.045, 0.045, (16, 14, 14))):
            canvas.fill(head + r * ellipse(eye, a, b), colour)
        arch: Points = np.array([[-0.19, 0], [-0.1, -0.085], [0.1, -0.085], [0.19, 0]])
        canvas.stroke(head + r * (eye + arch), r * 0.035, (30, 22, 20))
        canvas.stroke(head + r * (eye + arch * [1.1, 0.8] - np.array((0, 0.19))), r * 0.05, brow)
    nose = np.array([[0.03, 0.15], [0.09, 0.46], [-0.08, 0.5]])
    canvas.stroke(head + r * (nose + np.array((turn * 1.5, 0))), r * 0.035, skin * 0.8)
    lips = np.array([[-0.25, 0.69], [-0.08, 0.73], [0, 0.75], [0.08, 0.73], [0.25, 0.69], [0.11, 0.84], [-0.11, 0.84]])
    canvas.fill(head + r * (lips + np.array((turn, 0))), skin * [0.86, 0.56, 0.56])


def _fur(size: Size, rng: Rng) -> Field:
    canvas, coat = Canvas(size), jittered(_pick(_COAT, rng), rng, 1, 0.1)[0]
    pale = coat + (252 - coat) * rng.uniform(0.25, 0.8)
    head, r = rng.uniform((-0.14, -0.16), (0.14, -0.06)), rng.uniform(0.19, 0.23)
    body, tuft, kind = head * [0.6, 1] + [0, r * 1.75], r * rng.uniform(0.22, 0.42), int(rng.integers(3))
    tilt = rotation(rng.uniform(0.1, 0.5)).T
    for side in (-1, 1):
        cat, bear = np.array([[0.98, -0.2], [0.86, -1.5], [0.18, -0.85]]), ellipse((0.74, -0.78), 0.4, 0.4)
        rabbit = ellipse((0, 0), 0.24, 0.72) @ tilt + [0.5, -1.25]
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
    return shaded(canvas.layer(), rng, 0.12, 0.5)


def _pelt(canvas: Canvas, centre: Points, axes: Points, count: int, tuft: float, coat: Points, rng: Rng) -> None:
    """Cover an ellipse with tufts that point outwards and droop, the outermost first."""
    canvas.fill(ellipse(centre, *(axes * 0.97)), coat * 0.78)
    reach = np.sqrt(np.sort(rng.random((count, 1)), 0)[::-1])
    around = rng.uniform(0, 2 * math.pi, (count, 1))
    normal = np.hstack([np.cos(around), np.sin(around)]) * reach
    angle = np.arctan2(normal[:, 1:] + 0.35, normal[:, :1]) + rng.normal(0, 0.3, (count, 1))
    angle = angle + rng.normal(0, 0.16, (count, 1)) * np.arange(5)
    paths = walk(centre + normal * axes, angle, tuft * rng.uniform(0.5, 1.15, (count, 1)) / 5)
    light = 0.95 - 0.25 * (normal @ [[0.5], [0.85]]) + rng.normal(0, 0.09, (count, 1))
    canvas.ribbons(paths, tuft * 0.145 * rng.uniform(0.5, 1.1, count), jittered(coat, rng, count, 0.06) * light)


def _muzzle(canvas: Canvas, head: Points, r: float, rng: Rng) -> None:
    iris, wide = random_colour(rng, (0.05, 0.6), (0.5, 0.9), (0.5, 0.9)), rng.uniform(0.15, 0.2)
    for side in (-1, 1):
        eye = np.array([side * 0.42, -0.08])
        pupil, glint = (0, 0.68, 0.85, (10, 10, 12)), (-0.33, 0.28, 0.28, (255, 255, 255))
        for aside, a, b, colour in ((0, 1.12, 1.12, (24, 20, 20)), (0, 1, 1, iris), pupil, glint):
            canvas.fill(head + r * ellipse(eye + aside * wide, wide * a, wide * b), colour)
        roots = head + r * np.array([side * 0.3, 0.45]) + rng.normal(0, r * 0.03, (5, 2))
        angle = side * (np.linspace(-0.35, 0.4, 5)[:, None] + np.linspace(0, 0.3, 12)) + (math.pi if side < 0 else 0)
        canvas.ribbons(walk(roots, angle, np.full((5, 1), r * 0.1)), np.full(5, r * 0.022), np.full((5, 3), 240.0))
    nose = np.array([[-0.14, 0.21], [0.14, 0.21], [0.05, 0.34], [-0.05, 0.34]])
    canvas.fill(head + r * nose, (60, 34, 36))
    mouth = np.array([[-0.2, 0.47], [-0.1, 0.51], [0, 0.33], [0.1, 0.51], [0.2, 0.47]])
    canvas.stroke(head + r * mouth, r * 0.03, (50, 32, 32))


def _lace(size: Size, rng: Rng) -> Field:
    """A doily: rings of meshes, of opaque petals and of sheer ones, within a scalloped border."""
    canvas, fold, pale = Canvas(size), int(rng.integers(10, 19)), rng.random() < 0.7
    thread = random_colour(rng, (0, 1), (0, 0.15) if pale else (0.4, 0.8), (0.88, 1) if pale else (0.1, 0.6))
    tilt = rotation(rng.uniform(0, 6.3)) @ np.diag([1, rng.uniform(0.75, 1)]) @ rotation(rng.uniform(0, 6.3))
    tilt, centre = tilt.T * rng.uniform(0.42, 0.48), rng.uniform(-0.03, 0.03, 2)

    def ring(radius: float, swing: float, order: float, width: float) -> None:
        theta = np.linspace(0, 2 * math.pi, int(60 + 10 * order))
        curve = (radius + swing * np.cos(theta * order))[:, None] * np.stack([np.cos(theta), np.sin(theta)], 1)
        canvas.stroke(curve @ tilt + centre, width, thread)

    edges = np.concatenate([[0.1], np.sort(rng.uniform(0.2, 0.85, 5)) * 0.5 + np.linspace(0.15, 0.4, 5), [0.88]])
    solid = int(rng.integers(6))
    canvas.fill(ellipse((0, 0), 0.9, 0.9) @ tilt + centre, thread, rng.uniform(0, 0.35))
    for k, (low, high) in enumerate(pairwise(edges)):
        middle, half, weave = (low + high) / 2, (high - low) / 2, rng.random()
        opaque = k in (solid, 5)
        ring(high, 0, 0, 0.008)
        if not opaque and weave < 0.6:
            order = fold * int(rng.integers(1, 4))
            ring(middle, half, order, 0.0045)
            ring(middle, -half, order, 0.0045)
            continue
        for turn in (np.arange(fold) + k % 2 / 2) * 2 * math.pi / fold:
            petal = ellipse((middle, 0), half, 2.4 * middle / fold) @ rotation(turn).T @ tilt + centre
            canvas.fill(petal, thread, 1 if opaque else weave)
            if not opaque:
                canvas.stroke(petal, 0.0045, thread)
    for swing, order, width in ((0.05, fold, 0.012), (-0.05, fold, 0.006), (0.03, fold * 3, 0.004)):
        ring(0.93, swing, order, width)
    return shaded(canvas.layer(), rng, 0.004, 0.35)


def _leaves(size: Size, rng: Rng) -> Field:
    canvas, count, autumn = Canvas(size), int(rng.integers(7, 14)), rng.random() < 0.35
    green = random_colour(rng, (0.0, 0.13) if autumn else (0.2, 0.36), (0.6, 0.9), (0.5, 0.8))
    heading = rng.uniform(-0.6, 0.6) - math.pi / 2 + np.linspace(-1, 1, 40)[None] * rng.uniform(-0.7, 0.7)
    stem = walk(np.zeros((1, 2)), heading, np.full((1, 1), 0.76 / 40))[0]
    stem -= (stem.min(0) + stem.max(0)) / 2 - rng.uniform(-0.05, 0.05, 2)
    canvas.ribbons(stem[None], np.array([0.022]), np.array([[96, 70, 44.0]]))
    shape = (rng.uniform(0.18, 0.32), float(rng.integers(0, 22)), float(rng.choice([0, 0, 2.5])))
    for k, at in enumerate(np.linspace(4, 39, count).astype(int)):
        side = 0 if k == count - 1 else (-1) ** k
        angle = float(heading[0, at]) + side * rng.uniform(0.6, 1.2)
        long = rng.uniform(0.31, 0.42) * (1.1 - at / 90)
        tint = jittered(green, rng, 1, 0.14)[0]
        bend = angle + rng.normal(0, 0.5) * np.linspace(0, 1, 60)[None]
        _leaf(canvas, walk(stem[at][None], bend, np.full((1, 1), long / 60))[0], long, shape, tint)
    return shaded(canvas.layer(), rng, 0.02, 0.3)


def _leaf(canvas: Canvas, spine: Points, long: float, shape: tuple[float, float, float], green: Points) -> None:
    """Paint a leaf of a length and a shape (half-width to length, teeth, lobes) along its spine, in two tones."""
    slim, teeth, lobes = shape
    across = np.stack([-np.gradient(spine[:, 1]), np.gradient(spine[:, 0])], 1) * 60
    blade = np.clip((np.linspace(0, 1, 60) - 0.12) / 0.88, 0, 1)
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
    silhouette, lines = Canvas(size), Canvas(size)
    arc = ellipse((0, 0), 1, flat)
    right = np.stack([widths, heights], 1)
    caps = arc[:24] * widths[-1] + [0, heights[-1]], arc[24:] * widths[0] + [0, heights[0]]
    outline = np.concatenate([right, caps[0], (right * [-1, 1])[::-1], caps[1]])
    silhouette.fill(outline + np.array((mid, 0)), (255, 255, 255))
    mask = silhouette.layer()[..., 3] / 255
    brim = float(np.interp(level, heights, widths))
    for at, wide, thick in ((heights[0], widths[0], 0.009), (level, brim, 0.004), (heights[-1], widths[-1], 0.006)):
        lines.stroke(arc * wide * 0.985 + np.array((mid, at)), thick, (250, 250, 250))
    x, y = pixel_centres(size)
    radius = np.maximum(np.interp(y, heights, widths), 1e-3).astype(np.float32)
    across = np.clip((x - mid) / radius, -1, 1)
    bulge = across * across
    wall = 0.12 + 0.26 * bulge * bulge + 0.5 * np.clip(1 - (1 - np.abs(across)) * radius / 0.02, 0, 1)
    body = tinted(random_colour(rng, (0, 1), (0.02, 0.35), (0.7, 1)), mask * wall)
    sag = np.sqrt(1 - bulge) * flat
    pool = (y > level + sag * brim) & (radius > 0.05) & (y < heights[-1] - 0.04 + sag * radius)
    wine = tinted(random_colour(rng, (0, 1), (0.75, 1), (0.3, 0.8)), mask * pool * (0.43 - 0.12 * bulge))
    shine = np.maximum(_gleams(across, y) * mask, lines.layer()[..., 3] * np.float32(0.8 / 255))
    return over(tinted((255, 255, 250), shine), over(body, wine))


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
    x, y = pixel_centres(size)
    rise = np.clip(0.5 - y * unit / h, 0, 1)  # 0 at the bottom border, 1 at the top
    sway = rng.uniform(0.05, 0.16) * np.sin(rise * rng.uniform(3, 6) + rng.uniform(0, 6.3)) + rng.uniform(-0.12, 0.12)
    swirl = [noise(size, rng, 3, 4) - np.float32(0.5) for _ in range(2)]
    grid = [swirl[0] * (0.35 * unit) + np.arange(w), swirl[1] * (0.35 * unit) + np.arange(h)[:, None]]
    columns, rows = (g.astype(np.float32) for g in grid)
    billow = cv2.remap(noise(size, rng, 4, 6, 0.6), columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    wide = 0.05 + rng.uniform(0.2, 0.32) * rise**0.8
    plume = np.exp(-(((x - sway + 0.3 * rise * swirl[0]) / wide) ** 2)) * np.clip(rise * 8, 0, 1)
    alpha = np.clip((billow + 0.55 * plume - 0.62) * 2.6, 0, 0.97) * np.clip(plume * 4 - 0.2, 0, 1)
    light = np.clip(0.78 + 0.6 * (billow - 0.5) + swirl[1], 0.3, 1)
    shades: Points = np.array([[0.1, 0.25], [0.9, 1], [0.9, 1]])  # soot or steam
    colour = random_colour(rng, (0, 1), (0, rng.choice([0.06, 0.06, 0.7])), rng.choice(shades))
    return tinted(colour, alpha, light)


def _motion(size: Size, rng: Rng) -> Field:
    canvas, (h, w) = Canvas(size), size
    along, centre = rng.normal(rng.choice([0, math.pi]), 0.4), rng.uniform(-0.06, 0.06, 2)
    spin = float(rng.choice([0, 0, rng.uniform(14, 36)]))
    sweep = rng.uniform(0.12, 0.24) * np.array([math.cos(along), math.sin(along)]) * (0.3 if spin else 1)
    _object(canvas, centre - sweep / 2, rng.uniform(0.29, 0.36), rng)
    layer = shaded(canvas.layer(), rng, 0.1, 0.7)
    pivot = centre * min(size) + np.array([w, h]) / 2 - 0.5
    for k in range(1, 7):  # averaging with copies moved by 1/2, 1/4, … of the way is a box of 64 taps
        turn = cv2.getRotationMatrix2D((float(pivot[0]), float(pivot[1])), spin / 2**k, 1)
        turn[:, 2] += sweep * min(size) / 2**k
        layer = cv2.addWeighted(layer, 0.5, cv2.warpAffine(layer, turn, (w, h)), 0.5, 0)
    return layer


def _solid(size: Size, rng: Rng) -> Field:
    canvas, centre = Canvas(size), rng.uniform(-0.08, 0.08, 2)
    for aside in rng.uniform(0, 2 * math.pi, int(rng.integers(0, 3))):
        _object(canvas, centre + 0.36 * np.array([math.cos(aside), math.sin(aside)]), rng.uniform(0.09, 0.15), rng)
    _object(canvas, centre, rng.uniform(0.31, 0.38), rng)
    return shaded(canvas.layer(), rng, 0.1, 0.7)


def _object(canvas: Canvas, centre: Points, radius: float, rng: Rng) -> None:
    """Paint a duck, a beach ball, or a star, gear, polygon or flower with an inlay."""
    paint = random_colour(rng, (0, 1), (0.55, 0.95), (0.6, 0.95))
    second = random_colour(rng, (0, 1), (0.1, 0.9), (0.5, 1))
    n, pose = int(rng.integers(5, 10)), rotation(rng.uniform(0, 6.3)).T * radius
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
        _duck(canvas, centre, radius, rng)
        return
    outline = polar[:, None] * np.stack([np.cos(theta), np.sin(theta)], 1)
    canvas.fill(outline @ pose + centre, paint)
    if kind == "ball":
        inlay, colour = np.concatenate([[[0, 0]], outline[: 120 // n + 1]]), np.array((250, 248, 240))
    else:
        canvas.fill(outline @ pose * 0.68 + centre, second)
        inlay, colour = ellipse((0.42, 0), 0.07, 0.07), paint * 0.8
    for k in range(n):
        canvas.fill(inlay @ rotation(sector * k).T @ pose + centre, colour)
    canvas.fill(ellipse((0, 0), 0.2, 0.2) @ pose + centre, paint, 0 if kind == "gear" else 1)


def _duck(canvas: Canvas, centre: Points, radius: float, rng: Rng) -> None:
    look = np.array([rng.choice([-1.0, 1.0]), 1.0]) * radius
    coat = random_colour(rng, rng.choice([(0.1, 0.16), (0, 1)]), (0.5, 0.9), (0.85, 1))
    parts = (
        (np.array([[-0.6, 0.2], [-1.05, -0.12], [-0.7, 0.7], [0.0, 0.9], [0.5, 0.5]]), coat),
        (ellipse((-0.02, 0.42), 0.9, 0.5), coat),
        (ellipse((0.36, -0.36), 0.5, 0.48), coat),
        (ellipse((-0.2, 0.36), 0.42, 0.24), coat * 0.86),
        (np.array([[0.78, -0.42], [1.2, -0.3], [0.78, -0.12]]), (236, 110, 30)),
        (ellipse((0.52, -0.5), 0.085, 0.11), (20, 18, 18)),
        (ellipse((0.54, -0.54), 0.03, 0.03), (255, 255, 255)),
    )
    for outline, colour in parts:
        canvas.fill(outline * look + centre, colour)


def _pick(table: tuple[tuple[int, int, int], ...], rng: Rng) -> Points:
    return np.array(table[int(rng.integers(len(table)))], np.float64)


_LAYERS = (_hair, _fur, _lace, _leaves, _glass, _smoke, _motion, _solid, draw_portrait)


_FOREGROUNDS = dict(zip(FOREGROUND_KINDS, _LAYERS, strict=True))
