"""Draw hair and hats: what falls behind a head, what lies upon it, and single strands that come loose.

Strands are computed for an upright head and then tilted with it. Those that come loose are a veil of their own, so that
they are as faint as hair that is finer than a pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, Field, Points, Rng, Size, ellipse, jittered, random_colour, shaded
from .person import Person, rounded
from .strands import bristles, coils, tresses

TUNED = 0.19  # the skull's radius for which `tresses` ripple as they should


LONG = {"bob": (0.5, 1.6), "long": (2.2, 4.6), "wavy": (1.8, 4.2)}  # how far hair falls, in head units


MASS = 0.8  # radii: what grows within is upon the scalp, before the head


@dataclass(frozen=True)
class HairLayers:
    """Hair as layers (H, W, 4): behind the body, before the head, and loose."""

    behind: Field
    before: Field
    loose: Field


def draw_hair(size: Size, person: Person, rng: Rng) -> HairLayers:
    """Draw a person's hair, in the style that they have."""
    behind, before, loose = Canvas(size), Canvas(size), Canvas(size)
    if person.style != "bald" and person.hat != "scarf":
        _Hair(person, rng).draw(behind, before, loose)
    veil = loose.layer() * np.float32(rng.uniform(0.35, 0.8))
    depth = 0.25 * person.r
    return HairLayers(shaded(behind.layer(), rng, depth, 0.25), shaded(before.layer(), rng, depth, 0.3), veil)


class _Hair:
    """Paints strands in a person's hair colour."""

    def __init__(self, person: Person, rng: Rng) -> None:
        self.person, self.rng = person, rng
        self.length = rng.uniform(*LONG.get(person.style, (0.5, 1.0)))
        self.wind, self.wave = (
            rng.normal(0, 0.35),
            rng.uniform(0.3, 0.7) if person.style == "wavy" else rng.uniform(0, 0.2),
        )

    def draw(self, behind: Canvas, before: Canvas, loose: Canvas) -> None:
        style, hat = self.person.style, self.person.hat
        if style in LONG:
            self._tressed(behind, 200, (0.8, 1.2), self.length, 0.1, 0.75)
            self._tressed(behind, 260, (0.85, 1.3), self.length * 1.1, 0.022, 1.0)
            self._tressed(before, 0 if hat else 240, (0.92, 1.14), self.length * self.rng.uniform(0.4, 1), 0.045)
            self._tressed(loose, 140, (0.95, 1.45), self.length * 1.1, 0.01, 1.1)
            if self.person.away:
                self._tressed(before, 260, (0.05, 1.1), self.length, 0.08)
        elif style in ("curly", "afro"):
            reach = (0.85, 1.2) if style == "curly" else (0.9, 1.5)
            long = 1.1 if style == "curly" else 0.8
            mass = ellipse((0, -0.12), reach[1], reach[1] * 1.12)
            behind.fill(self.person.on_head(mass[mass[:, 1] < 0.55]), self.person.hair * 0.65)
            self._coiled(behind, 420, reach, long, 0.05, 0.8)
            self._coiled(behind, 420, reach, long * 1.15, 0.02, 1.0)
            if not hat:
                self._coiled(before, 700, (0.6, 1.1), long * 0.6, 0.04)
            self._coiled(loose, 160, (1.0, reach[1] + 0.1), long, 0.01, 1.1)
        if not hat:
            self._short(before, loose)
        if style in ("bun", "tail"):
            self._tied(behind, loose)
        if self.person.fringe and not hat and not self.person.away:
            self._fringe(before)

    def _paint(self, canvas: Canvas, paths: Points, width: float, light: float) -> None:
        count = len(paths)
        tints = jittered(self.person.hair, self.rng, 24, 0.14)[self.rng.integers(0, 24, count)]
        paths = rounded(paths.swapaxes(0, 1), 1, closed=False).swapaxes(0, 1)
        widths = self.person.r * width * self.rng.uniform(0.4, 1, count)
        canvas.ribbons(self.person.on_head(paths), widths, tints * self.rng.normal(light, 0.1, (count, 1)))

    def _tressed(
        self, canvas: Canvas, count: int, reach: tuple[float, float], long: float, width: float, light: float = 1
    ) -> None:
        if not count:
            return
        waves = self.wave * self.rng.normal(1, 0.4, 24)[self.rng.integers(0, 24, count)]
        reaches = self.rng.uniform(*reach, count)
        paths = tresses(np.zeros(2), TUNED, reaches, (long * TUNED, self.wind), waves, self.rng) / TUNED
        self._paint(canvas, paths, width, light)

    def _coiled(
        self, canvas: Canvas, count: int, reach: tuple[float, float], long: float, width: float, light: float = 1
    ) -> None:
        paths = coils(np.zeros(2), 1, self.rng.uniform(*reach, count), long, self.rng)
        if reach[0] < MASS:  # none of these grows out of the face
            paths = paths[paths[:, 0, 1] < _hairline(paths[:, 0, 0], self.person.away)]
        self._paint(canvas, paths, width, light)

    def _short(self, before: Canvas, loose: Canvas) -> None:
        """Cover the scalp, then with strands that stand off or lie to one side."""
        rng, style = self.rng, self.person.style
        before.fill(self.person.on_head(_scalp(self.person.away)), self.person.hair * 0.7)
        if style in LONG or style in ("curly", "afro"):
            return
        long = {"cropped": (0.08, 0.32), "swept": (0.4, 0.75)}.get(style, (0.25, 0.6))
        roots = _scalp_points(1100, self.person.away, rng)
        sweep, up = (
            float(rng.choice([-1, 1])) * (1.2 if style == "swept" else rng.uniform(0, 0.8)),
            rng.uniform(0.1, 0.9),
        )
        heading = roots * (1.0, 0.8) + np.array([sweep, -up])
        if style in ("bun", "tail"):
            heading = np.array([0, -1.4 if style == "bun" else -0.7]) - roots  # drawn to where they are tied
        angle = np.arctan2(heading[:, 1], heading[:, 0]) + rng.normal(0, 0.25, len(roots))
        order = np.argsort(-np.hypot(*roots.T))
        lengths = rng.uniform(*long, len(roots))
        paths = bristles(roots, angle, lengths, 0.6, rng)[order]
        self._paint(before, paths, 0.035, 1)
        self._paint(before, paths[rng.integers(0, len(paths), 300)] + rng.normal(0, 0.03, (300, 1, 2)), 0.012, 1.2)
        far = np.hypot(*(roots * (1, 0.8)).T) > 0.85
        wisps = bristles(roots[far], angle[far], lengths[far] * 1.25, 0.9, rng)
        self._paint(loose, wisps[:200], 0.01, 1.05)

    def _tied(self, behind: Canvas, loose: Canvas) -> None:
        rng = self.rng
        if self.person.style == "bun":
            at, wide = np.array([rng.uniform(-0.2, 0.2), -1.55]), rng.uniform(0.35, 0.55)
            behind.fill(self.person.on_head(ellipse(at, wide, wide * 0.9)), self.person.hair * 0.8)
            self._paint(behind, coils(at, wide, rng.uniform(0.7, 1.05, 120), wide * 1.2, rng), 0.06, 0.95)
            self._paint(loose, coils(at, wide, rng.uniform(0.9, 1.2, 25), wide * 1.2, rng), 0.012, 1.1)
            return
        side, long = float(rng.choice([-1, 1])), rng.uniform(1.8, 3.6)
        roots = np.array([side * 0.75, -0.7]) + rng.normal(0, 0.12, (130, 2))
        angle = np.linspace(-0.5 if side > 0 else math.pi + 0.5, math.pi / 2 - side * rng.uniform(-0.2, 0.5), 7)
        paths = bristles(roots, np.zeros(130), long * rng.uniform(0.7, 1.1, 130), 0.2, rng)
        step = np.linalg.norm(np.diff(paths, axis=1), axis=2, keepdims=True)
        bends = angle[None, :6] + rng.normal(0, 0.12, (130, 1))
        moves = np.stack([np.cos(bends), np.sin(bends)], -1) * step
        tail = roots[:, None] + np.concatenate([np.zeros((130, 1, 2)), np.cumsum(moves, 1)], 1)
        self._paint(behind, tail, 0.08, 0.9)
        self._paint(loose, tail[:90] + rng.normal(0, 0.12, (90, 1, 2)), 0.01, 1.1)

    def _fringe(self, before: Canvas) -> None:
        rng, count = self.rng, 260
        roots = np.stack([rng.uniform(-0.72, 0.72, count), rng.uniform(-1.08, -0.82, count)], 1)
        angle = math.pi / 2 - rng.normal(0, 0.1, count) + rng.uniform(-0.5, 0.5) - 0.35 * roots[:, 0]
        paths = bristles(roots, angle, rng.uniform(0.35, rng.uniform(0.5, 0.85), count), 0.25, rng)
        self._paint(before, paths, 0.035, 1)
        self._paint(before, paths[:60] + rng.normal(0, 0.02, (60, 1, 2)), 0.012, 1.2)


def _hairline(x: Points, away: bool) -> Points:
    """Return where on the forehead hair begins, at a place across; on the nape of somebody who is seen from behind."""
    return np.asarray(1.0 - 0.3 * np.abs(x) if away else -0.8 + 0.75 * (np.abs(x) / 0.9) ** 3)


def _scalp(away: bool) -> Points:
    """Return the outline of what hair covers."""
    around = np.linspace(math.pi + 0.05, 2 * math.pi - 0.05, 24)
    across = np.linspace(0.86, -0.86, 15)
    outer = np.stack([0.97 * np.cos(around), 1.32 * np.sin(around)], 1)
    return np.concatenate([outer, np.stack([across, _hairline(across, away)], 1)])


def _scalp_points(count: int, away: bool, rng: Rng) -> Points:
    """Draw points (N, 2) of the scalp."""
    around, reach = rng.uniform(-math.pi, math.pi, 3 * count), np.sqrt(rng.uniform(0.0 if away else 0.1, 1, 3 * count))
    points = np.stack([0.95 * np.cos(around), 1.3 * np.sin(around)], 1) * reach[:, None]
    return points[points[:, 1] < _hairline(points[:, 0], away)][:count]


# ---- hats
def draw_hat(size: Size, person: Person, rng: Rng) -> Field:
    """Draw a person's hat as a layer (H, W, 4)."""
    canvas = Canvas(size)
    colour = random_colour(rng, (0, 1), (0.1, 0.85), (0.15, 0.9))
    draw = {"cap": _cap, "beanie": _beanie, "brim": _brimmed, "scarf": _scarf}[person.hat]
    draw(canvas, person, colour, rng)
    return shaded(canvas.layer(), rng, 0.25 * person.r, 0.6)


def _dome(wide: float, top: float, bottom: float) -> Points:
    around = np.linspace(math.pi, 2 * math.pi, 24)
    return np.stack([wide * np.cos(around), bottom + (top - bottom) * -np.sin(around)], 1)


def _cap(canvas: Canvas, person: Person, colour: Points, rng: Rng) -> None:
    canvas.fill(person.on_head(_dome(1.02, -1.45, -0.5)), colour)
    canvas.stroke(
        person.on_head(np.array([(0.3 * person.turn, -1.42), (0.45 * person.turn, -0.55)])),
        person.r * 0.03,
        colour * 0.75,
    )
    peak = ellipse((0.5 * person.turn, -0.5), 0.95, rng.uniform(0.2, 0.34))
    canvas.fill(person.on_head(peak), colour * rng.uniform(0.5, 0.95))
    if rng.random() < 0.5:
        canvas.fill(person.on_head(ellipse((0.4 * person.turn, -0.98), 0.25, 0.18)), 255 - colour)


def _beanie(canvas: Canvas, person: Person, colour: Points, rng: Rng) -> None:
    top = rng.uniform(-1.85, -1.5)
    canvas.fill(person.on_head(_dome(1.04, top, -0.55)), colour)
    for x in np.linspace(-0.9, 0.9, 12):
        rib = np.array([(x * 0.4, top + 0.1), (x * 0.85, top * 0.7), (x, -0.6)])
        canvas.stroke(person.on_head(rib), person.r * 0.025, colour * 0.82)
    band = np.array([(-1.08, -0.85), (1.08, -0.85), (1.06, -0.4), (-1.06, -0.4)])
    canvas.fill(person.on_head(rounded(band, 2)), colour * 0.85)
    edge = _dome(1.04, top, -0.55)[rng.integers(0, 24, 90)]
    roots, angle = edge, np.arctan2(edge[:, 1], edge[:, 0])
    if rng.random() < 0.5:
        roots = np.concatenate([edge, np.tile((0, top - 0.15), (220, 1))])
        angle = np.concatenate([angle, rng.uniform(-math.pi, math.pi, 220)])
    long = np.where(np.arange(len(roots)) < 90, 0.06, 0.36) * rng.uniform(0.5, 1, len(roots))
    paths = person.on_head(bristles(roots, angle, long, 0.5, rng))
    canvas.ribbons(paths, np.full(len(paths), person.r * 0.03), jittered(colour, rng, len(paths), 0.1))


def _brimmed(canvas: Canvas, person: Person, colour: Points, rng: Rng) -> None:
    wide, top = rng.uniform(1.6, 2.3), rng.uniform(-1.95, -1.6)
    canvas.fill(person.on_head(ellipse((0, -0.72), wide, rng.uniform(0.25, 0.42))), colour * 0.8)
    crown = np.array([(-0.98, -0.75), (-0.86, top), (-0.3, top - 0.08), (0.3, top - 0.02), (0.86, top), (0.98, -0.75)])
    canvas.fill(person.on_head(rounded(crown, 2)), colour)
    band = np.array([(-0.97, -0.95), (0.97, -0.95), (0.98, -0.75), (-0.98, -0.75)])
    canvas.fill(person.on_head(band), random_colour(rng, (0, 1), (0.1, 0.8), (0.1, 0.6)))


def _scarf(canvas: Canvas, person: Person, colour: Points, rng: Rng) -> None:
    outer = [(0, -1.42), (0.75, -1.2), (1.08, -0.4), (1.1, 0.8), (1.5, 1.9), (1.9, 2.6), (0, 3.1)]
    outline = np.array([*outer, *((-x, y) for x, y in reversed(outer))])
    face = ellipse((0.1 * person.turn, 0.1), 0.74, 0.98)
    canvas.fill(person.on_head(rounded(outline, 2)), colour)
    for _ in range(6):
        fold = rng.uniform((-1.2, 1.2), (1.2, 2.4), (2, 2))
        canvas.stroke(person.on_head(fold), person.r * 0.05, colour * 0.78)
    if not person.away:
        canvas.fill(person.on_head(face), (0, 0, 0), 0)
