"""Crops: a square out of a composite, around a pixel that matting has to decide, as the network will see it.

Deep Image Matting's procedure (Xu et al., 2017, section 4.2): a window of one of several sizes, centred on a drawn
unknown pixel, reduced to one size, flipped. What spoils real pictures (blur, noise, JPEG) can be done to the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...composer.base.settings import Chance, Range, Table
from ...composer.dataset.dataset import Dataset
from ...composer.dataset.reader import ShardReader
from ...composer.dataset.rows import BACKGROUND, FOREGROUND, UNKNOWN, Row
from .remix import Layers, Mixer
from .whole_scenes import WholeScenes, mirrored, place_beside, place_window, true_trimap, turn

__all__ = ["Augment", "CropBuffers", "Transform", "cut_crop", "draw_window", "unknown_pixel"]

Array = NDArray[np.uint8]


PROBES = 64  # pixels tried before a whole trimap is searched


class Augment(Table):
    """What is done to a crop. All of it is drawn from (seed, epoch, sample) alone."""

    flip: Chance = Field(default=0.5, description="how often a crop is mirrored, left to right")
    jitter: Chance = Field(
        default=0.0,
        description="colour: each channel's gain is drawn from 1 ± this, and an offset of ± 255·this/2 for all three",
    )
    chance: Chance = Field(
        default=0.0, description="how often each of blur, noise and jpeg is applied, one drawn without the others"
    )
    blur: Range = Field(default=(0.3, 1.5), description="standard deviation of a Gaussian, px")
    noise: Range = Field(default=(1, 8), description="standard deviation of Gaussian noise, levels of 255")
    jpeg: Range = Field(default=(40, 95), description="quality")


@dataclass(frozen=True)
class CropBuffers:
    """Where a crop goes: views into a batch, S being its side.

    Attributes
    ----------
    image : (S, S, 3) uint8 RGB
    trimap : (S, S) uint8
    alpha : (S, S) uint8
    foreground, background : (S, S, 3) uint8 RGB or None
    """

    image: Array
    trimap: Array
    alpha: Array
    foreground: Array | None
    background: Array | None


# Changes a crop, drawing from the sample's own generator: in place, or by returning arrays of the same shapes.
Transform: TypeAlias = Callable[[CropBuffers, np.random.Generator], CropBuffers | None]


def cut_crop(
    dataset: Dataset,
    index: int,
    sizes: tuple[int, ...],
    augment: Augment,
    rng: np.random.Generator,
    out: CropBuffers,
    transform: Transform | None = None,
    mixer: Mixer | None = None,
    scenes: WholeScenes | None = None,
) -> None:
    """Draw a crop of composite `index` and write it into `out`.

    Parameters
    ----------
    dataset : Dataset
    index : int
        The composite's number.
    sizes : tuple of int
        The window's sides, px, one of which is drawn. A composite with a shorter side gives a window of that side.
        Any window that is not S px wide is resampled: reduced by area averaging, enlarged bilinearly; a pixel of the
        reduced trimap is known only if all that it covers is.
    augment : Augment
    rng : np.random.Generator
        The sample's own randomness.
    out : CropBuffers
    transform : Transform, optional
        Called with the crop and `rng`, after everything else.
    mixer : Mixer, optional
        Composes it anew, before `augment` changes it.
    scenes : WholeScenes, optional
        Show whole scenes, not a place in them: `sizes` do not count, and the trimap is drawn from the crop's alpha.

    Raises
    ------
    DatasetError
        The shard cannot be read.
    """
    shard, position = dataset.locate(index)
    reader = dataset.reader(shard)
    row = reader.rows[position]
    side, shown, corner = draw_window(reader, row, sizes, scenes, rng)
    flip = bool(rng.random() < augment.flip)
    remixes = mixer is not None and rng.random() < mixer.settings.chance and row.composed  # else it has no layers
    foreground = np.empty_like(out.image) if remixes and out.foreground is None else out.foreground
    read = out if foreground is out.foreground else replace(out, foreground=foreground)
    _read_window(reader, row, side, shown, corner, flip, read)
    if mixer is not None:
        if remixes and foreground is not None:
            _put(out, *mixer.compose(Layers(foreground, out.alpha, out.trimap), rng))
        np.copyto(out.trimap, mixer.redraw(out.alpha, out.trimap, rng))
    if scenes is not None:
        parts = (out.image, out.trimap, out.alpha, out.foreground, out.background)
        turn([part for part in parts if part is not None], rng.uniform(-scenes.rotate, scenes.rotate))
        np.copyto(out.trimap, true_trimap(out.alpha, scenes, rng.random()))
    _spoil(augment, rng, out)
    if transform is not None and (changed := transform(out, rng)) is not None:
        for field in fields(out):
            part, new = getattr(out, field.name), getattr(changed, field.name)
            if part is not None and new is not part:
                np.copyto(part, new)


def _read_window(
    reader: ShardReader,
    row: Row,
    side: int,
    shown: int,
    corner: tuple[int, int],
    flip: bool,
    out: CropBuffers,
) -> None:
    """Read a window of a composite as a crop; of shown² px, and continued to side²."""
    parts = (out.image, out.trimap, out.alpha, out.foreground, out.background)
    if shown == len(out.trimap) and not flip:
        reader.read_into(row, corner, *parts)
        return
    window = [None if part is None else np.empty((shown, shown, *part.shape[2:]), np.uint8) for part in parts]
    reader.read_into(row, corner, *window)  # type: ignore[arg-type]
    for source, part in zip(window, parts, strict=True):
        if source is not None and part is not None:
            _fit(source if shown == side else mirrored(source, side), part, flip)
    if side != len(out.trimap):
        out.trimap[(out.trimap != BACKGROUND) & (out.trimap != FOREGROUND)] = UNKNOWN


def _put(out: CropBuffers, layers: Layers, image: Array, background: Array) -> None:
    """Write what a crop was composed of into its buffers."""
    for part, new in (
        (out.image, image),
        (out.trimap, layers.trimap),
        (out.alpha, layers.alpha),
        (out.foreground, layers.foreground),
        (out.background, background),
    ):
        if part is not None:
            np.copyto(part, new)


def draw_window(
    reader: ShardReader, row: Row, sizes: tuple[int, ...], scenes: WholeScenes | None, rng: np.random.Generator
) -> tuple[int, int, tuple[int, int]]:
    """Draw a window, around an unknown pixel or of a whole scene: the scene's side, its own, its corner (y, x)."""
    if scenes is not None:
        return _scene_window(reader, row, scenes, rng)
    side = min(sizes[int(rng.integers(len(sizes)))], row.height, row.width)
    y, x = unknown_pixel(reader, row, rng)
    return side, side, (min(max(y - side // 2, 0), row.height - side), min(max(x - side // 2, 0), row.width - side))


def _scene_window(
    reader: ShardReader, row: Row, scenes: WholeScenes, rng: np.random.Generator
) -> tuple[int, int, tuple[int, int]]:
    """Draw a window of most of a composite, or of what is beside its subject: the scene's side, its own, its corner."""
    side, corner = place_window(row, scenes, rng)
    if scenes.nobody and rng.random() < scenes.nobody:
        beside = place_beside(reader.read_mask(row, "alpha"), side, rng)
        if beside:
            return side, *beside
    return side, side, corner


def unknown_pixel(reader: ShardReader, row: Row, rng: np.random.Generator) -> tuple[int, int]:
    """Draw one of a composite's unknown pixels, each equally likely, as (y, x).

    Pixels are tried at random, which decodes but a tile or two; only where the unknown region is so small that all
    tries miss it, the whole trimap is searched. Every composite has such a pixel: a build refuses others.
    """
    ys, xs = (rng.random((2, PROBES)) * ((row.height,), (row.width,))).astype(int).tolist()  # `integers` is slow
    hit = reader.find_pixel(row, UNKNOWN, ys, xs)
    if hit:
        return hit
    found = np.flatnonzero(reader.read(row).trimap == UNKNOWN)
    return divmod(int(found[rng.integers(len(found))]), row.width)


def _fit(part: Array, out: Array, flip: bool) -> None:
    """Resample a part to the size of `out`, mirrored or not."""
    method = cv2.INTER_AREA if len(part) > len(out) else cv2.INTER_LINEAR
    size = out.shape[1], out.shape[0]
    if not flip:
        cv2.resize(part, size, out, interpolation=method)
        return
    if part.shape != out.shape:
        part = np.asarray(cv2.resize(part, size, interpolation=method), np.uint8)
    cv2.flip(part, 1, out)


def _spoil(augment: Augment, rng: np.random.Generator, out: CropBuffers) -> None:
    """Change colours, then do to the picture what cameras and files do to real ones, in their order."""
    if augment.jitter:
        gains = 1 + augment.jitter * rng.uniform(-1, 1, 3)
        offset = 255 / 2 * augment.jitter * rng.uniform(-1, 1)
        table = np.clip(np.arange(256)[:, None] * gains + offset + 0.5, 0, 255).astype(np.uint8)[None]  # (1, 256, 3)
        for picture in (out.image, out.foreground, out.background):  # linear, so that I = αF + (1−α)B stays true
            if picture is not None:
                cv2.LUT(picture, table, picture)
    blur, noise, jpeg = rng.random(3) < augment.chance
    if blur:
        cv2.GaussianBlur(out.image, (0, 0), rng.uniform(*augment.blur), out.image)
    if noise:
        grain = rng.standard_normal(out.image.shape, np.float32) * np.float32(rng.uniform(*augment.noise))
        np.copyto(out.image, cv2.add(out.image, grain, dtype=cv2.CV_8U))  # rounds, and saturates at 0 and 255
    if jpeg:
        quality = int(rng.uniform(*augment.jpeg))
        _, data = cv2.imencode(".jpg", out.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        np.copyto(out.image, np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8))
