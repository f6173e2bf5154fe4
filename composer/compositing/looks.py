"""Looks: more from few. A look is a foreground mirrored, turned, scaled, tinted, or with another one behind it.

It has its own alpha and colours, which all of its composites share, so whatever is drawn here costs no exactness and
no room but its own. A look is drawn by the plan, and made once in a shard.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from ..base.arrays import UInt8Array
from ..base.settings import Chance, Fraction, Range, Table
from ..dataset.rows import UINT16_MAX, Look
from .resize import resize_foreground

TOUCHING = 5  # alpha above this is seen; JPEG's noise is below


SUPPORT = 2  # px that bicubic interpolation looks beyond a pixel: so near the edge nothing is known


STRAIGHT = 2  # px: an edge that was cut may be blurred, or not quite straight


STRAIGHT_SHARES = (0.1, 0.3)  # of a bounding box's side that were cut off there: at the frame's edge, and near it


NEAR = 0.08  # of the frame's side


MOST_LOST = 1 / 3  # of a side: a foreground that turning would cut shorter stays upright


PARTNER_SIZES = (0.7, 1.0)  # of the largest that fits in the frame


SMALLEST_SCALE, LARGEST_SCALE = 0.1, 2.0  # of a look: a mote, and as far as a recipe's `enlarge_to` goes


class Looks(Table):
    """What is drawn anew for each look of a foreground. A look has its own alpha and colours; its composites share
    them. The defaults leave a foreground as it is.
    """

    count: PositiveInt = Field(
        default=1, le=UINT16_MAX, description="looks of a foreground; its variants are shared evenly among them"
    )
    flip: Chance = Field(default=0.0, description="how often a look is mirrored, left to right")
    rotate: Annotated[float, Field(ge=0, le=45)] = Field(default=0.0, description="degrees, at most, to either side")
    scale: Range = Field(default=(1, 1), description="the foreground's size is multiplied by so much")
    jitter: Fraction = Field(
        default=0.0,
        description="colour: each channel's gain is drawn from 1 ± this, and an offset of ± 255·this/2 for all",
    )
    pair: Chance = Field(default=0.0, description="how often another foreground of the same split stands behind")

    @model_validator(mode="after")
    def _check(self) -> Looks:
        if not SMALLEST_SCALE <= self.scale[0] <= self.scale[1] <= LARGEST_SCALE:
            low, high = self.scale
            raise ValueError(f"scale lies between {SMALLEST_SCALE:g} and {LARGEST_SCALE:g}, found [{low:g}, {high:g}]")
        return self


def draw_look(settings: Looks, number: int, split: Sequence[str], own: int, rng: np.random.Generator) -> Look:
    """Draw a look.

    Parameters
    ----------
    settings : Looks
        The recipe's table.
    number : int
        Which of its foreground's looks it is, from 0.
    split : Sequence[str]
        Keys of its split's foregrounds, any of which but itself may stand behind.
    own : int
        Its own place among them.
    rng : numpy.random.Generator
        The look's own randomness; every look takes as much of it.
    """
    flip, scale, rotate, pair, who, partner_flip, size, y, x, *colour = (float(v) for v in rng.random(13))
    low, high = settings.scale
    look = Look(
        number=number,
        flip=flip < settings.flip,
        scale=low + scale * (high - low),
        rotate=settings.rotate * (2 * rotate - 1) if settings.rotate else 0.0,
    )
    if settings.jitter:
        red, green, blue, offset = (settings.jitter * (2 * v - 1) for v in colour)
        look = replace(look, red=1 + red, green=1 + green, blue=1 + blue, offset=offset * 255 / 2)
    if pair < settings.pair and len(split) > 1:
        place = int(who * (len(split) - 1))
        look = replace(
            look,
            partner=split[place + (place >= own)],
            partner_flip=partner_flip < settings.flip,
            partner_size=PARTNER_SIZES[0] + size * (PARTNER_SIZES[1] - PARTNER_SIZES[0]),
            partner_y=y,
            partner_x=x,
        )
    return look


def make_look(
    image: UInt8Array, alpha: UInt8Array, look: Look, partner: tuple[UInt8Array, UInt8Array] | None = None
) -> tuple[UInt8Array, UInt8Array, Look]:
    """Make a look of a foreground.

    Parameters
    ----------
    image : (H, W, 3) uint8
        The foreground, RGB.
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    look : Look
        What is done to it.
    partner : ((h, w, 3) uint8, (h, w) uint8), optional
        Colours and alpha of the foreground that stands behind, where the look has one.

    Returns
    -------
    image : (H', W', 3) uint8
        RGB.
    alpha : (H', W') uint8
        0 clear .. 255 opaque.
    look : Look
        What was done: one that turning would cut too short was left upright.

    Examples
    --------
    >>> image = np.arange(12, dtype=np.uint8).reshape(1, 4, 3)
    >>> mirrored, _, _ = make_look(image, np.full((1, 4), 255, np.uint8), Look(flip=True))
    >>> mirrored[0, 0]
    array([ 9, 10, 11], dtype=uint8)
    """
    image, alpha = mirror(image, alpha, look.flip)
    if look.scale != 1:
        height, width = (max(1, round(side * look.scale)) for side in alpha.shape)
        image, alpha = resize_foreground(image, alpha, (height, width))
    if look.rotate:
        upright = alpha
        image, alpha = turn(image, alpha, look.rotate)
        look = replace(look, rotate=0.0) if alpha is upright else look
    if partner is not None:
        behind = place_partner(*mirror(*partner, look.partner_flip), alpha.shape, look)
        image, alpha = combine(image, alpha, *behind)
    return _tint(image, look), alpha, look


def look_size(size: tuple[int, int], look: Look) -> tuple[int, int]:
    """Return (height, width) px of a look of a foreground of `size`, but for what turning cuts off."""
    return max(1, round(size[0] * look.scale)), max(1, round(size[1] * look.scale))


def turn(image: UInt8Array, alpha: UInt8Array, degrees: float) -> tuple[UInt8Array, UInt8Array]:
    """Turn a foreground about its middle, counter-clockwise.

    The frame stays, but where the foreground goes on beyond it, turning would show the straight edge at which it
    was cut; there the frame is cut further. One that would lose more than `MOST_LOST` of a side so is returned as
    it is.

    Parameters
    ----------
    image : (H, W, 3) uint8
        RGB.
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    degrees : float
        Positive turns to the left.
    """
    height, width = alpha.shape
    matrix = np.asarray(cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0), np.float64)
    top, bottom, left, right = _known_frame(alpha, matrix)
    if bottom - top < height * (1 - MOST_LOST) or right - left < width * (1 - MOST_LOST):
        return image, alpha
    matrix[:, 2] -= left, top
    size = (right - left, bottom - top)
    weight = alpha.astype(np.float32)
    matte = cv2.warpAffine(weight, matrix, size, flags=cv2.INTER_CUBIC)
    premultiplied = cv2.warpAffine(image * weight[..., None], matrix, size, flags=cv2.INTER_CUBIC)
    plain = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    true = premultiplied / np.maximum(matte, 1e-6)[..., None]
    colours = np.where(matte[..., None] >= 0.5, np.rint(true).clip(0, 255).astype(np.uint8), plain)
    return np.asarray(colours, np.uint8), np.rint(matte.clip(0, 255)).astype(np.uint8)


def _known_frame(alpha: UInt8Array, matrix: NDArray[np.float64]) -> tuple[int, int, int, int]:
    """Return top, bottom, left, right (ends excluded) of what of the frame is known after turning, px."""
    height, width = alpha.shape
    top, bottom, left, right = 0, height, 0, width
    for side, ends in cut_edges(alpha).items():
        x, y = (np.array([(x, y, 1) for x, y in ends]) @ matrix.T).T
        if side == "top":
            top = max(top, math.ceil(y.max()) + SUPPORT)
        elif side == "bottom":
            bottom = min(bottom, math.floor(y.min()) - SUPPORT + 1)
        elif side == "left":
            left = max(left, math.ceil(x.max()) + SUPPORT)
        else:
            right = min(right, math.floor(x.min()) - SUPPORT + 1)
    return top, bottom, left, right


def cut_edges(alpha: UInt8Array) -> dict[str, tuple[tuple[int, int], tuple[int, int]]]:
    """Say at which sides a foreground was cut off, and there from where to where, as (x, y) px.

    It was where enough of a side of its bounding box is straight and not clear. Less is enough at the frame's edge,
    but busts are often cut off somewhat above it; and a subject that just reaches the edge with its tip is whole.
    """
    x, y, width, height = cv2.boundingRect((alpha > TOUCHING).view(np.uint8))
    box = alpha[y : y + height, x : x + width]
    found: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {}
    for side, lines, margin in (
        ("top", box, y),
        ("bottom", box[::-1], alpha.shape[0] - y - height),
        ("left", box.T, x),
        ("right", box.T[::-1], alpha.shape[1] - x - width),
    ):
        least, share = (127, STRAIGHT_SHARES[1]) if margin else (TOUCHING, STRAIGHT_SHARES[0])
        straight = np.flatnonzero(lines[: STRAIGHT if margin else 1].max(axis=0, initial=0) > least)
        if margin > NEAR * alpha.shape[0 if side in ("top", "bottom") else 1]:
            continue
        if straight.size and len(straight) >= share * lines.shape[1]:
            across = {"top": y, "bottom": y + height - 1, "left": x, "right": x + width - 1}[side]
            first, last = int(straight[0]), int(straight[-1])
            flat = side in ("top", "bottom")
            found[side] = (
                ((x + first, across), (x + last, across)) if flat else ((across, y + first), (across, y + last))
            )
    return found


def place_partner(
    image: UInt8Array, alpha: UInt8Array, size: tuple[int, ...], look: Look
) -> tuple[UInt8Array, UInt8Array]:
    """Bring a partner into a frame of `size` (H, W) px, such that no edge at which it was cut shows within.

    What is visible of it is as large as fits, times the look's `partner_size`, and stays at the side at which it was
    cut; what was cut at two opposite sides reaches from side to side.
    """
    x, y, width, height = cv2.boundingRect((alpha > TOUCHING).view(np.uint8))
    if not width:
        return np.zeros((size[0], size[1], 3), np.uint8), np.zeros((size[0], size[1]), np.uint8)
    cut = [[side in cut_edges(alpha) for side in pair] for pair in (("top", "bottom"), ("left", "right"))]
    image, alpha = image[y : y + height, x : x + width], alpha[y : y + height, x : x + width]
    ratios = [wanted / there for wanted, there in zip(size, alpha.shape, strict=True)]
    scale = min(ratios) * look.partner_size
    scale = max(scale, *(ratio if all(sides) else 0.0 for sides, ratio in zip(cut, ratios, strict=True)))
    tall, wide = (max(1, math.ceil(side * scale - 1e-6)) for side in alpha.shape)
    image, alpha = resize_foreground(image, alpha, (tall, wide))
    place = []
    for (near, far), room, draw in zip(
        cut, (size[0] - tall, size[1] - wide), (look.partner_y, look.partner_x), strict=True
    ):
        place.append(round(room * (draw if near == far else float(far))))
    return _window(image, place, size), _window(alpha, place, size)


def _window(picture: UInt8Array, place: Sequence[int], size: tuple[int, ...]) -> UInt8Array:
    """Lay a picture into an empty frame with its top-left px at `place`, cut to what is within."""
    out = np.zeros((size[0], size[1], *picture.shape[2:]), np.uint8)
    (top, left), (height, width) = place, picture.shape[:2]
    rows, columns = (slice(max(0, -start), None) for start in (top, left))
    cut = picture[rows, columns][: size[0] - max(0, top), : size[1] - max(0, left)]
    if height and width:
        out[max(0, top) : max(0, top) + cut.shape[0], max(0, left) : max(0, left) + cut.shape[1]] = cut
    return out


def combine(
    image: UInt8Array, alpha: UInt8Array, behind: UInt8Array, behind_alpha: UInt8Array
) -> tuple[UInt8Array, UInt8Array]:
    """Put one foreground before another: α = 1 − (1−α₁)(1−α₂), F = (α₁F₁ + (1−α₁)α₂F₂) / α, each exactly rounded.

    Over any background that is what blending the second, then the first would give. Where both are clear, the
    first one's colours stay.

    Parameters
    ----------
    image, behind : (H, W, 3) uint8
        RGB.
    alpha, behind_alpha : (H, W) uint8
        0 clear .. 255 opaque.
    """
    front, back = alpha.astype(np.int32), behind_alpha.astype(np.int32)
    total = 255 * 255 - (255 - front) * (255 - back)  # α · 255²
    weights = [(255 * front)[..., None], ((255 - front) * back)[..., None]]
    mixed = weights[0] * image + weights[1] * behind
    divisor = np.maximum(total, 1)[..., None]
    colours = np.where(total[..., None] > 0, (2 * mixed + divisor) // (2 * divisor), image)
    return colours.astype(np.uint8), ((total + 127) // 255).astype(np.uint8)


def mirror(image: UInt8Array, alpha: UInt8Array, flip: bool) -> tuple[UInt8Array, UInt8Array]:
    """Mirror a foreground, left to right, or leave it."""
    if not flip:
        return image, alpha
    return np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(alpha[:, ::-1])


def _tint(image: UInt8Array, look: Look) -> UInt8Array:
    gains = np.array([look.red, look.green, look.blue])
    if (gains == 1).all() and look.offset == 0:
        return image
    table = np.clip(np.rint(np.arange(256)[:, None] * gains + look.offset), 0, 255).astype(np.uint8)[None]
    return np.asarray(cv2.LUT(image, table), np.uint8)
