"""Draw people, from close-ups to whole figures: where they stand, how they hold themselves, what they wear.

A person is drawn in head units: 1 is the skull's radius, from the head's centre, x to the right and y down. Hair is in
`hairstyles`, faces are in `faces`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

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
    repeated,
    shaded,
)
from .faces import draw_head
from .hairstyles import LONG, draw_hair, draw_hat
from .person import Person, rounded

SKIN = ((250, 222, 200), (240, 200, 170), (224, 176, 140), (186, 130, 92), (134, 88, 60), (84, 54, 40))


HAIR = ((24, 20, 20), (46, 32, 26), (72, 46, 30), (112, 70, 42), (176, 132, 78), (222, 184, 120), (168, 78, 38),
        (150, 148, 148), (214, 212, 208))  # fmt: skip


BEARDS = (0.55, 0.2, 0.17, 0.08)  # how often there is none, stubble, a short and a long one


DYED = 0.05  # how often hair is of any colour


@dataclass(frozen=True)
class _Build:
    """A body's measures, in head units: half the shoulders' and the waist's width."""

    shoulders: float
    waist: float


def draw_portrait(size: Size, rng: Rng) -> Field:
    """Draw a person as a layer (H, W, 4), somewhere in the frame: their hair behind, body, head, hair before."""
    person = _person(size, rng)
    build = _Build(rng.uniform(1.7, 2.3), rng.uniform(1.25, 1.9))
    hair = draw_hair(size, person, rng)
    layer = over(_body(size, person, build, rng), hair.behind)
    layer = over(draw_head(size, person, rng), layer)
    layer = over(hair.before, layer)
    if person.hat:
        layer = over(draw_hat(size, person, rng), layer)
    layer = over(hair.loose, layer)
    return _photographed(layer, rng)


def _person(size: Size, rng: Rng) -> Person:
    """Draw who it is and where: a head of any size, whose body goes on to the frame's bottom or stands within."""
    across, down = np.array(size[::-1]) / min(size) / 2  # the frame's half sides
    r = math.exp(rng.uniform(math.log(0.06), math.log(0.27)))
    below = math.exp(rng.uniform(math.log(3.2), math.log(15))) * r  # from the head down to the frame's bottom
    lowest, highest = down - 2.4 * r, -down + rng.uniform(1.2, 2.2) * r
    x = float(np.clip(rng.normal(0, 0.4), -1, 1)) * max(across - 0.8 * r, 0)
    y = float(np.clip(down - below, min(highest, lowest), lowest))
    skin, tone = np.array(SKIN, np.float64), rng.uniform(0, len(SKIN) - 1)
    colours = [np.interp(tone, range(len(SKIN)), skin[:, channel]) for channel in range(3)]
    hair = np.array(HAIR[int(rng.integers(len(HAIR)))], np.float64)
    if rng.random() < DYED:
        hair = random_colour(rng, (0, 1), (0.4, 0.9), (0.4, 0.9))
    styles = ("cropped", "swept", "bob", "long", "wavy", "curly", "afro", "bun", "tail", "bald")
    style = str(rng.choice(styles, p=(0.2, 0.12, 0.12, 0.14, 0.12, 0.08, 0.05, 0.06, 0.06, 0.05)))
    hats = ("", "cap", "beanie", "brim", "scarf")
    return Person(
        head=np.array([x, y]),
        r=r,
        tilt=rng.normal(0, 0.12),
        lean=rng.normal(0, 0.05),
        turn=float(np.clip(rng.normal(0, 0.4), -0.9, 0.9)),
        away=bool(rng.random() < 0.06),
        light=_towards_light(rng),
        skin=jittered(np.array(colours), rng, 1, 0.04)[0],
        hair=jittered(hair, rng, 1, 0.12)[0],
        style=style,
        hat=str(rng.choice(hats, p=(0.76, 0.09, 0.06, 0.05, 0.04))),
        fringe=bool(rng.random() < 0.3),
        beard=float(rng.choice([0, 0.12, 0.3, 0.7], p=(0.9, 0.04, 0.04, 0.02) if style in LONG else BEARDS)),
    )


def _towards_light(rng: Rng) -> Points:
    towards = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.7, -0.1), 0.8])
    return np.asarray(towards / np.linalg.norm(towards))


# ---- the body
def _body(size: Size, person: Person, build: _Build, rng: Rng) -> Field:
    """Draw legs, torso, arms and neck, as far down as the frame goes."""
    s, w = build.shoulders, build.waist
    legs, clothes, skin = Canvas(size), Canvas(size), Canvas(size)
    cloth = random_colour(rng, (0, 1), (0.05, 0.8), (0.12, 0.95))
    trousers = random_colour(rng, (0.5, 0.75), (0.0, 0.6), (0.1, 0.5))
    for side in (-1, 1):
        path = np.array([[side * 0.75, 7.6], [side * rng.uniform(0.7, 1.3), 12], [side * rng.uniform(0.6, 1.3), 16.4]])
        _limb(legs, person, path, np.array((1.75, 1.25, 0.9)), trousers * (0.92 if side > 0 else 1))
        shoe = ellipse(path[-1] + np.array((side * 0.25, 0.25)), 0.75, 0.35)
        legs.fill(person.on_body(shoe), trousers * 0.4)
    half = [(0.62, 1.55), (s * 0.7, 1.95), (s, 2.5), (s * 0.96, 3.4), (w * 1.08, 5), (w, 6), (w * 1.12, 8.1)]
    torso = np.array([*half, *((-x, y) for x, y in reversed(half))])
    clothes.fill(person.on_body(rounded(torso)), cloth)
    bare = float(rng.choice([0.15, 0.55, 1.0], p=(0.25, 0.3, 0.45)))  # how far down the arm sleeves go
    for side in (-1, 1):
        _arm(clothes, skin, person, side, (s, bare), cloth, rng)
    _folds(clothes, person, s, cloth, rng)
    _neck(clothes, skin, person, cloth, rng)
    dressed = _patterned(clothes.layer(), size, person, rng)
    body = over(skin.layer(), over(dressed, legs.layer()))
    return shaded(body, rng, max(0.25 * person.r, 0.004), 0.55)


def _arm(
    clothes: Canvas, skin: Canvas, person: Person, side: int, measures: tuple[float, float], cloth: Points, rng: Rng
) -> None:
    """Draw an arm: a sleeve, what is bare of it, and the hand."""
    s, sleeve = measures
    poses = (
        ((s + 0.35, 4.7), (s + 0.25, 7.1)),  # hanging
        ((s + 0.15, 4.6), (s - 0.3, 7.0)),
        ((s + 1.5, 4.5), (1.5, 6.4)),  # on the hip
        ((s + 0.3, 4.6), (-0.7, 4.3)),  # folded
        ((s + 1.5, 3.1), (s + 1.7, 0.7)),  # raised
        ((s + 0.2, 4.5), (0.6, 1.9)),  # at the chin
    )
    elbow, wrist = poses[int(rng.choice(6, p=(0.4, 0.27, 0.1, 0.12, 0.06, 0.05)))]
    joints = np.array([(s - 0.42, 2.85), elbow, wrist]) + rng.normal(0, 0.12, (3, 2))
    joints[:, 0] *= side
    knots = np.linspace(0, 1, 13)
    path = rounded(np.stack([np.interp(knots, (0, 0.5, 1), joints[:, axis]) for axis in (0, 1)], 1), closed=False)
    widths = np.interp(np.linspace(0, 1, len(path)), (0, 0.45, 1), (0.95, 0.72, 0.5))
    hand = joints[2] + (joints[2] - joints[1]) * 0.12
    _limb(skin, person, path, widths * 0.85, person.skin * 0.95)
    skin.fill(person.on_body(ellipse(hand, 0.36, 0.42)), person.skin)
    _fingers(skin, person, hand, joints[2] - joints[1], rng)
    end = max(3, int(sleeve * len(path)))
    _limb(skin, person, path[:end], widths[:end] * 1.12, person.skin, 0)  # what is under the sleeve
    _limb(clothes, person, path[:end], widths[:end] * 1.12, cloth * rng.uniform(0.9, 1.0))


def _fingers(skin: Canvas, person: Person, hand: Points, along: Points, rng: Rng) -> None:
    heading = math.atan2(along[1], along[0])
    for spread in np.linspace(-0.5, 0.5, 4) + rng.normal(0, 0.04, 4):
        tip = np.array([math.cos(heading + spread), math.sin(heading + spread)])
        skin.stroke(person.on_body(np.stack([hand + tip * 0.2, hand + tip * 0.72])), person.r * 0.17, person.skin)


def _folds(clothes: Canvas, person: Person, s: float, cloth: Points, rng: Rng) -> None:
    """Draw folds and a seam, darker than the cloth."""
    count = int(rng.integers(4, 9))
    start = rng.uniform((-s * 0.45, 3), (s * 0.45, 6.5), (count, 2))
    end = start + rng.normal(0, 0.3, (count, 2)) + np.array([0, 0.9])
    for a, b in zip(start, end, strict=True):
        clothes.stroke(
            person.on_body(np.stack([a, (a + b) / 2 + rng.normal(0, 0.1, 2), b])), person.r * 0.05, cloth * 0.8
        )


def _neck(clothes: Canvas, skin: Canvas, person: Person, cloth: Points, rng: Rng) -> None:
    """Draw the neck, and a neckline: round, pointed, a collar, or a jacket over a shirt."""
    wide = rng.uniform(0.48, 0.62)
    neck = np.array([(-wide, 0.4), (wide, 0.4), (wide, 1.6), (wide + 0.35, 2.0), (-wide - 0.35, 2.0), (-wide, 1.6)])
    skin.fill(person.on_body(rounded(neck)), person.skin * 0.78)
    kind, deep = int(rng.integers(4)), rng.uniform(2.2, 3.2)
    second = random_colour(rng, (0, 1), (0, 0.5), (0.6, 1))
    if kind == 0:
        skin.fill(person.on_body(ellipse((0, 1.9), 0.85, 0.34)), person.skin * 0.86)
    elif kind == 1:
        skin.fill(person.on_body(np.array([(-0.85, 1.75), (0.85, 1.75), (0, deep)])), person.skin * 0.9)
    elif kind == 2:
        for side in (-1, 1):
            flap = np.array([(side * 0.2, 2.45), (side * 0.62, 1.5), (side * 1.05, 2.05), (side * 0.75, 2.6)])
            skin.fill(person.on_body(flap), second)
        skin.stroke(person.on_body(np.array([(0, 2.3), (0.02, 8)])), person.r * 0.05, cloth * 0.75)
    else:
        clothes.fill(person.on_body(np.array([(-0.8, 1.7), (0.8, 1.7), (0.05, 5)])), second)
        if rng.random() < 0.5:
            tie = np.array([(-0.16, 2.0), (0.16, 2.0), (0.26, 4.2), (0, 4.6), (-0.26, 4.2)])
            clothes.fill(person.on_body(tie), random_colour(rng, (0, 1), (0.4, 0.9), (0.2, 0.7)))
        for side in (-1, 1):
            lapel = np.array([(side * 0.8, 1.7), (side * 1.25, 2.5), (side * 0.75, 3.0), (side * 0.1, 5)])
            clothes.fill(person.on_body(lapel), cloth * 0.82)


def _limb(canvas: Canvas, person: Person, path: Points, widths: Points, colour: Points, opacity: float = 1) -> None:
    """Paint a limb with round joints along a path (M, 2), of widths (M,)."""
    along = np.gradient(path, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], 1) / np.linalg.norm(along, axis=1, keepdims=True)
    across = across * widths[:, None] / 2
    for k, (place, width) in enumerate(zip(path, widths, strict=True)):  # piece by piece: bent, its outline cuts itself
        canvas.fill(person.on_body(ellipse(place, width / 2, width / 2)), colour, opacity)
        if k:
            sides = [path[k - 1] - across[k - 1], path[k - 1] + across[k - 1], place + across[k], place - across[k]]
            canvas.fill(person.on_body(np.array(sides)), colour, opacity)
    if opacity:
        canvas.stroke(person.on_body((path + 0.85 * across)[len(path) // 3 :]), person.r * 0.05, colour * 0.75)


def _patterned(layer: Field, size: Size, person: Person, rng: Rng) -> Field:
    """Print stripes, checks, dots or flowers on cloth, and weave it."""
    x, y = pixel_centres(size)
    turn = rng.uniform(-0.15, 0.15) + float(rng.choice([0, 0, math.pi / 2]))
    pitch = rng.uniform(2, 9) / person.r
    u, v = (x * math.cos(turn) + y * math.sin(turn)) * pitch, (y * math.cos(turn) - x * math.sin(turn)) * pitch
    kind = int(rng.choice(5, p=(0.5, 0.16, 0.1, 0.1, 0.14)))
    bars, crossed = np.sin(u * math.pi), np.sin(v * math.pi)
    print_ = (None, bars, np.maximum(bars, crossed), bars * crossed - 0.45, None)[kind]
    if kind == 4:
        print_ = noise(size, rng, min(1.5 / person.r, 40), 2) - np.float32(0.5)
    if print_ is not None:
        second = random_colour(rng, (0, 1), (0.1, 0.9), (0.2, 1)).astype(np.float32)
        share = np.clip(print_ * 6 + 0.5, 0, 1).astype(np.float32)
        printed = repeated(layer[..., 3] / np.float32(255)) * second
        layer = layer.copy()
        layer[..., :3] += (printed - layer[..., :3]) * repeated(share)
    weave = np.float32(0.9) + np.float32(0.2) * noise(size, rng, 30, 4, 0.8)
    return np.dstack([layer[..., :3] * repeated(weave), layer[..., 3]])


def _photographed(layer: Field, rng: Rng) -> Field:
    """Give it a lens' softness, and a tint to its light."""
    tint = np.append(np.exp(rng.normal(0, 0.05, 3)) * rng.uniform(0.75, 1.12), 1).astype(np.float32)
    layer = np.minimum(layer * tint, repeated(layer[..., 3], 4))
    soft = float(rng.choice([0, 0.45, 0.7, 1.1], p=(0.3, 0.4, 0.2, 0.1)))
    return cv2.GaussianBlur(layer, (0, 0), soft) if soft else layer
