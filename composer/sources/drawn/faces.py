"""Draw a head: skull, ears and a face, lit as a ball would be; glasses and beards."""

from __future__ import annotations

import math

import cv2
import numpy as np

from .canvas import Canvas, Field, Points, Rng, Size, ellipse, jittered, pixel_centres, random_colour, repeated
from .person import Person
from .strands import bristles

AMBIENT, DIFFUSE = 0.6, 0.5  # of the light on skin


def draw_head(size: Size, person: Person, rng: Rng) -> Field:
    """Draw a head as a layer (H, W, 4), without hair but for a beard."""
    canvas, skin = Canvas(size), person.skin
    for side in (-1, 1):
        out = side * (0.88 - 0.12 * abs(person.turn)) - 0.1 * person.turn
        canvas.fill(person.on_head(ellipse((out, 0.15), 0.17, 0.3)), skin * 0.88)
        canvas.fill(person.on_head(ellipse((out, 0.15), 0.08, 0.18)), skin * 0.72)
    oval = ellipse((0, 0), 0.88, 1.22)
    jaw = rng.uniform(0.06, 0.24)
    canvas.fill(person.on_head(oval * (1 - np.array([jaw, 0]) * np.clip(oval[:, 1:], 0, 1) ** 1.5)), skin)
    if not person.away:
        _features(canvas, person, rng)
        if person.beard:
            _beard(canvas, person, rng)
        if rng.random() < 0.18:
            _glasses(canvas, person, rng)
    layer = canvas.layer()
    soft = cv2.GaussianBlur(layer, (0, 0), max(0.3, 0.02 * person.r * min(size)))  # features, and not the outline
    layer[..., :3] = soft[..., :3] * repeated(layer[..., 3] / np.maximum(soft[..., 3], 1))
    return _lit(layer, size, person)


def _lit(layer: Field, size: Size, person: Person) -> Field:
    """Light a head as if it were an ellipsoid."""
    x, y = pixel_centres(size)
    u, v = (x - person.head[0]) / (person.r * 0.95), (y - person.head[1]) / (person.r * 1.3)
    towards_us = np.sqrt(np.maximum(1 - u * u - v * v, 0.02))
    lambert = np.maximum(u * person.light[0] + v * person.light[1] + towards_us * person.light[2], 0)
    light = np.minimum(AMBIENT + DIFFUSE * lambert, 1.08).astype(np.float32)
    colours = np.minimum(layer[..., :3] * repeated(light), repeated(layer[..., 3]))
    return np.dstack([colours, layer[..., 3]])


def _features(canvas: Canvas, person: Person, rng: Rng) -> None:
    skin, shift = person.skin, np.array([0.34 * person.turn, 0.0])
    iris = random_colour(rng, (0.05, 0.6), (0.3, 0.7), (0.2, 0.55))
    open_ = rng.uniform(0.05, 0.09)

    def fill(outline: Points, colour: Points) -> None:
        canvas.fill(person.on_head(outline + shift), colour)

    for side in (-1, 1):
        eye = np.array([side * 0.35 * (1 - 0.25 * max(0, side * person.turn)), 0.05])
        fill(ellipse(eye + np.array((0, 0.02)), 0.23, 0.17), skin * [0.86, 0.8, 0.78])
        fill(ellipse(eye, 0.16, open_), np.array((238, 234, 230)))
        gaze = eye + np.array((0.04 * person.turn, 0))
        fill(ellipse(gaze, open_ * 1.05, open_), iris)
        fill(ellipse(gaze, open_ * 0.5, open_ * 0.55), np.array((16, 14, 14)))
        arch: Points = np.array([[-0.18, 0], [-0.1, -open_], [0.1, -open_], [0.18, 0]])
        canvas.stroke(person.on_head(eye + arch + shift), person.r * 0.035, (34, 26, 24))
        raised = np.array((0, 0.17 + rng.uniform(0, 0.06)))
        canvas.stroke(
            person.on_head(eye + arch * [1.25, 0.7] - raised + shift),
            person.r * rng.uniform(0.05, 0.1),
            person.hair * 0.75,
        )
        fill(ellipse((side * 0.45, 0.5), 0.2, 0.16), skin * [1.0, 0.9, 0.88])
    nose = np.array(
        [[0.02 - 0.06 * person.turn, 0.1], [0.1 + 0.1 * person.turn, 0.42], [-0.06 + 0.1 * person.turn, 0.47]]
    )
    canvas.stroke(person.on_head(nose + shift * 1.2), person.r * 0.05, skin * 0.8)
    fill(ellipse((0.02 + 0.12 * person.turn, 0.36), 0.1, 0.08), np.minimum(skin * 1.06, 255))
    _mouth(canvas, person, shift, rng)


def _mouth(canvas: Canvas, person: Person, shift: Points, rng: Rng) -> None:
    wide, smile, gap = rng.uniform(0.2, 0.32), rng.uniform(-0.02, 0.09), float(rng.choice([0, 0, 0.05, 0.09]))
    t = np.linspace(-1, 1, 9)
    upper = np.stack([wide * t, 0.76 - 0.07 * (1 - t**2) - smile * t**2], 1)
    lower = np.stack([wide * t, 0.76 + (0.08 + gap) * (1 - t**2) - smile * t**2], 1)
    lips = person.skin * [0.84, rng.uniform(0.45, 0.72), 0.6]
    canvas.fill(person.on_head(np.concatenate([upper, lower[::-1]]) + shift), lips)
    if gap:
        inner = np.concatenate([upper * [0.8, 1] + (0, 0.05), (lower * [0.8, 1] - (0, 0.05))[::-1]])
        canvas.fill(person.on_head(inner + shift), (236, 232, 226))
    else:
        canvas.stroke(person.on_head((upper + lower) / 2 + shift), person.r * 0.03, lips * 0.6)


def _glasses(canvas: Canvas, person: Person, rng: Rng) -> None:
    frame = random_colour(rng, (0, 1), (0, 0.6), (0.05, 0.5))
    dark, wide = rng.random() < 0.35, rng.uniform(0.24, 0.32)
    middle = 0.34 * person.turn
    for side in (-1, 1):
        lens = ellipse((middle + side * 0.36, 0.07), wide, wide * rng.uniform(0.7, 0.9))
        if dark:
            canvas.fill(person.on_head(lens), frame * 0.5)
        canvas.stroke(person.on_head(lens), person.r * 0.05, frame)
        bow = np.array([(middle + side * (0.36 + wide), 0.02), (side * 0.9, 0.0)])
        canvas.stroke(person.on_head(bow), person.r * 0.05, frame)
    canvas.stroke(person.on_head(np.array([(middle - 0.1, 0.05), (middle + 0.1, 0.05)])), person.r * 0.05, frame)


def _beard(canvas: Canvas, person: Person, rng: Rng) -> None:
    """Cover cheeks, chin and upper lip with short strands, and leave the mouth free."""
    count = 1500
    around, reach = rng.uniform(-0.35, math.pi + 0.35, count), rng.uniform(0.55, 1, count)
    roots = np.stack([0.82 * np.cos(around) * reach, 0.1 + 1.08 * np.sin(around) * reach], 1)
    roots = roots[(roots[:, 1] > 0.2 + 0.35 * (1 - np.abs(roots[:, 0]) / 0.82))]
    mouth = ((roots[:, 0] - 0.3 * person.turn) / 0.3) ** 2 + ((roots[:, 1] - 0.78) / 0.1) ** 2 < 1
    roots = roots[~mouth]
    roots = roots[np.argsort(roots[:, 1])]
    angle = math.pi / 2 - 0.5 * roots[:, 0] + rng.normal(0, 0.3, len(roots))
    length = person.beard * rng.uniform(0.4, 1, len(roots)) * np.clip(roots[:, 1], 0.3, 1)
    paths = person.on_head(bristles(roots, angle, length, 0.5, rng))
    colours = jittered(person.hair * rng.uniform(0.8, 1.1), rng, len(roots), 0.18)
    canvas.ribbons(paths, person.r * rng.uniform(0.008, 0.03, len(roots)), colours)
