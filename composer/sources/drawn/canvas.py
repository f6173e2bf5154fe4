"""A canvas, and the tools to draw with: strokes and outlines, noise, light, colours, layers.

Geometry is given in units of the frame's short side, from its centre, x to the right and y down, so that every
drawing scales with the picture. A layer is a premultiplied RGBA picture, (H, W, 4) float32, all channels in 0..255;
a colour is (3,) RGB in 0..255, and points are (N, 2) as (x, y).
"""

from __future__ import annotations

import colorsys
import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...base.arrays import UInt8Array

Field = NDArray[Any]  # float32; OpenCV's stubs cannot tell the type


Points = NDArray[Any]  # float64 coordinates or colours


Size = tuple[int, int]


Rng = np.random.Generator


_SHIFT = 5  # fixed-point bits of OpenCV's coordinates: 1/32 of a supersampled pixel


class Canvas:
    """A supersampled premultiplied drawing: colour and opacity are painted as one, so they antialias as one.

    Parameters
    ----------
    size : (H, W)
        Of the layer that it becomes, px.
    """

    def __init__(self, size: Size) -> None:
        h, w = size
        self.size, self.scale = size, 4 if max(size) <= 256 else 2
        self.unit = float(min(size) * self.scale)
        self.centre = np.array([w, h]) * self.scale / 2 - 0.5
        self.pixels: UInt8Array = np.zeros((h * self.scale, w * self.scale, 4), np.uint8)

    def fill(self, outline: Points, colour: ArrayLike, opacity: float = 1) -> None:
        """Paint the inside of an outline (N, 2); an opacity in 0..1 replaces what is there, it does not veil it."""
        value = scalar(np.append(np.clip(colour, 0, 255), 255) * opacity)
        cv2.fillPoly(self.pixels, [self._fixed(outline)], value, cv2.LINE_AA, _SHIFT)

    def stroke(self, path: Points, width: float, colour: ArrayLike) -> None:
        """Paint a path (N, 2) at a constant width."""
        self._bands(path[None], np.full((1, len(path)), width), np.asarray(colour, np.float64)[None])

    def ribbons(self, paths: Points, widths: Points, colours: Points) -> None:
        """Paint paths (N, M, 2) in turn, each tapering from its width (N,) to a point, in its colour (N, 3)."""
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
        """Return the drawing as a layer (H, W, 4) float32."""
        small = cv2.resize(self.pixels, self.size[::-1], interpolation=cv2.INTER_AREA)
        return small.astype(np.float32)

    def _fixed(self, points: Points) -> NDArray[np.int32]:
        fixed: NDArray[np.int32] = np.rint((points * self.unit + self.centre) * 2**_SHIFT).astype(np.int32)
        return fixed


def unpremultiplied(layer: Field) -> tuple[UInt8Array, UInt8Array]:
    """Un-premultiply, and let the colours flow out to where the alpha is too low to tell them.

    Parameters
    ----------
    layer : (H, W, 4) float32
        RGBA in 0..255, premultiplied.

    Returns
    -------
    (H, W, 3) uint8
        RGB, not premultiplied.
    (H, W) uint8
        Alpha, 0 clear .. 255 opaque.
    """
    h, w = layer.shape[:2]
    small = cv2.resize(layer, (max(w // 16, 1), max(h // 16, 1)), interpolation=cv2.INTER_AREA)
    spread = cv2.GaussianBlur(small, (0, 0), 1.5) + 0.02 * small.mean((0, 1)) + np.float32(1e-4)
    flow = cv2.resize(spread / spread[..., 3:], (w, h), interpolation=cv2.INTER_LINEAR)
    alpha = layer[..., 3]
    doubt = np.float32(3) - alpha * np.float32(3 / 255)
    colour = (layer + flow * repeated(doubt, 4)) * repeated(255 / (alpha + doubt), 4)
    return to_bytes(cv2.cvtColor(colour, cv2.COLOR_RGBA2RGB)), to_bytes(alpha)


def over(top: Field, under: Field) -> Field:
    """Lay one layer (H, W, 4) upon another."""
    both: Field = top + under * repeated(1 - top[..., 3] / 255, 4)
    return both


def tinted(colour: ArrayLike, alpha: Field, light: Field | float = 1) -> Field:
    """Return a layer of one colour, under an alpha (H, W) and a light, (H, W) or a number, both in 0..1."""
    tint, shade = np.asarray(colour, np.float32), alpha * light
    return cv2.merge([shade * tint[0], shade * tint[1], shade * tint[2], alpha * np.float32(255)])


def repeated(plane: Field, channels: int = 3) -> Field:
    """Return a plane (H, W) as a picture (H, W, channels) of equal channels."""
    return cv2.merge([plane] * channels)  # numpy would broadcast over the channels, at a fifth of the speed


def shaded(layer: Field, rng: Rng, radius: float, depth: float) -> Field:
    """Light a layer (H, W, 4) from above as if its edges were rounded over `radius`, and a little unevenly."""
    h, w = layer.shape[:2]
    step = max(1, int(radius * min(h, w) / 3))
    sigma = max(radius * min(h, w) / step, 0.6)
    small = max(w // step, 1), max(h // step, 1)
    height: Field = cv2.GaussianBlur(cv2.resize(layer[..., 3], small, interpolation=cv2.INTER_AREA), (0, 0), sigma)
    height *= np.float32(0.3 * depth * sigma / 255)
    aslant = float(rng.uniform(0.3, 0.8) * rng.choice([-1, 1]))
    light = aslant * cv2.Sobel(height, -1, 1, 0) + 0.8 * cv2.Sobel(height, -1, 0, 1)
    light += 0.82 + 0.36 * noise((small[1], small[0]), rng, 2.5, 3)
    lit = layer * repeated(cv2.resize(light, (w, h), interpolation=cv2.INTER_LINEAR), 4)
    lit[..., 3] = layer[..., 3]
    return lit


def noise(
    size: Size, rng: Rng, cells: float, octaves: int, gain: float = 0.5, stretch: tuple[float, float] = (1, 1)
) -> Field:
    """Sum `octaves` of value noise, the first with `cells` in the short side: (H, W) float32 in 0..1."""
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


def pixel_centres(size: Size) -> tuple[Field, Field]:
    """Return the coordinates of the pixels' centres: x, (1, W) float32, and y, (H, 1) float32."""
    h, w = size
    x = (np.arange(w, dtype=np.float32)[None] + 0.5 - w / 2) / min(size)
    return x, (np.arange(h, dtype=np.float32)[:, None] + 0.5 - h / 2) / min(size)


def walk(root: Points, angle: Points, step: Points) -> Points:
    """Return paths (N, M, 2) from roots (N, 2), by steps (N, 1) in directions (N, M), in radians from x towards y."""
    moves: Points = np.stack([np.cos(angle), np.sin(angle)], -1) * step[..., None]
    paths: Points = root[:, None] + np.cumsum(moves, 1) - moves[:, :1]
    return paths


def ellipse(centre: ArrayLike, a: float, b: float) -> Points:
    """Return the outline (48, 2) of an ellipse of the half-axes `a` across and `b` down."""
    theta = np.linspace(0, 2 * math.pi, 48)
    return np.asarray(centre) + np.stack([a * np.cos(theta), b * np.sin(theta)], 1)


def rotation(angle: float) -> Points:
    """Return the (2, 2) matrix that turns column vectors from x towards y, by an angle in radians."""
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def random_colour(
    rng: Rng, hue: tuple[float, float], saturation: tuple[float, float], value: tuple[float, float]
) -> Points:
    """Draw an RGB colour, (3,) in 0..255, of a hue, a saturation and a value from their ranges in 0..1."""
    rgb = colorsys.hsv_to_rgb(rng.uniform(*hue) % 1, rng.uniform(*saturation), rng.uniform(*value))
    return np.array(rgb) * 255


def jittered(colour: Points, rng: Rng, count: int, amount: float) -> Points:
    """Draw `count` variants (N, 3) of a colour: mostly lighter and darker, a little in hue."""
    return colour * np.exp(rng.normal(0, amount, (count, 1)) + rng.normal(0, amount / 3, (count, 3)))


def scalar(colour: Points) -> tuple[float, ...]:
    """Return a colour as OpenCV takes it, cut to 0..255."""
    return tuple(float(c) for c in np.clip(colour, 0, 255))


def to_bytes(picture: Field) -> UInt8Array:
    """Return a picture or plane in uint8 of the same shape, rounded and saturated to 0..255."""
    return np.asarray(cv2.convertScaleAbs(np.maximum(picture, 0)), np.uint8)


# Streams of randomness for drawn pictures, apart from each other and from the plan's cells.
DRAWN_FOREGROUNDS, DRAWN_BACKGROUNDS = 1, 2


def drawn_names(kinds: tuple[str, ...], count: int) -> list[str]:
    """Return the names of drawn pictures: their kinds in turn, numbered."""
    return [f"{kinds[i % len(kinds)]}-{i:03d}" for i in range(count)]


def drawn_rng(seed: int, stream: int, name: str) -> np.random.Generator:
    """Return the generator that a drawn picture is made with."""
    # Three words set these apart from the plan's cells, which use two.
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream, int(name.rpartition("-")[2]), 0)))


def drawn_size(sides: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """Draw (height, width) px."""
    height, width = rng.integers(min(sides), max(sides) + 1, size=2)
    return int(height), int(width)
