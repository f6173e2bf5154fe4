"""Colour: from the space that a picture's ICC profile describes to sRGB, 8 bits.

LittleCMS, by Pillow, converts pictures of 8 bits. It is given no others by Pillow: 16 bits go through the profile's own
curves and matrix, as the ICC's specification has them (ICC.1:2022, 10.6, 10.18 and annex F.3).
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from ..base.arrays import FloatArray, UInt8Array, UInt16Array

Space = Literal["grey", "rgb", "cmyk"]


STRIP: Final = 2**20  # samples converted at once


SRGB: Final = np.array(  # linear sRGB to XYZ, adapted to D50 (Bradford), as in the ICC's sRGB profile
    [[0.4360657, 0.3851515, 0.1430784], [0.2224932, 0.7168870, 0.0606169], [0.0139160, 0.0970764, 0.7140961]]
)


def to_srgb(colours: NDArray[Any], space: Space, profile: bytes | None) -> UInt8Array:
    """Bring colours to sRGB, 8 bits.

    A profile that cannot be read, or is for another kind of pixels, says nothing about these, and is ignored.

    Parameters
    ----------
    colours : (H, W, 1), (H, W, 3) or (H, W, 4), uint8 or uint16
        Grey, RGB or CMYK (uint8 only).
    space : {"grey", "rgb", "cmyk"}
        Which of these.
    profile : bytes or None
        ICC; None is sRGB.

    Returns
    -------
    (H, W, 1) or (H, W, 3) uint8
        Grey or RGB.
    """
    transform = _transform(profile, space) if profile else None
    if space == "cmyk":
        picture = Image.fromarray(colours, "CMYK")
        converted = ImageCms.applyTransform(picture, transform) if transform else picture.convert("RGB")
        return np.asarray(converted)
    if transform is None or profile is None:
        return to_8_bits(colours)
    deep = colours.dtype == np.uint16
    if (deep or transform.inputMode == "L") and (curves := _curves(profile)):  # LittleCMS is two levels off for grey
        return curves(np.asarray(colours if deep else colours * np.uint16(257), np.uint16))
    levels = to_8_bits(colours)
    if levels.shape[2] == 1 and transform.inputMode == "RGB":
        levels = np.repeat(levels, 3, axis=2)
    picture = Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)
    return np.asarray(ImageCms.applyTransform(picture, transform))


def to_8_bits(levels: NDArray[Any]) -> UInt8Array:
    """Round 16 bits to 8; 8 stay as they are."""
    if levels.dtype == np.uint8:
        return np.asarray(levels, np.uint8)
    flat, result = np.ascontiguousarray(levels).reshape(-1), np.empty(levels.size, np.uint8)
    for start in range(0, flat.size, STRIP):
        part = flat[start : start + STRIP]
        result[start : start + STRIP] = (part.astype(np.uint32) * 255 + 32_767) // 65_535
    return result.reshape(levels.shape)


@lru_cache(maxsize=16)
def _transform(profile: bytes, space: Space) -> Any:
    """Return LittleCMS's way from a profile to sRGB; None where that changes no level by more than one, or fails."""
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}[given.profile.xcolor_space.strip()]
        if mode not in {"grey": ("L", "RGB"), "rgb": ("RGB",), "cmyk": ("CMYK",)}[space]:
            return None
        transform = ImageCms.buildTransform(given, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (KeyError, OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return None
    return None if mode != "CMYK" and _is_identity(transform, mode) else transform


def _is_identity(transform: Any, mode: str) -> bool:
    steps = np.arange(0, 256, 15, dtype=np.uint8) if mode == "RGB" else np.arange(256, dtype=np.uint8)
    grid = np.stack(np.meshgrid(*[steps] * (3 if mode == "RGB" else 1), indexing="ij"), axis=-1).reshape(
        1, -1, len(mode)
    )
    picture = Image.fromarray(grid if mode == "RGB" else grid[..., 0])
    found = np.asarray(ImageCms.applyTransform(picture, transform)).astype(np.int16)
    return bool(np.abs(found - grid).max() <= 1)


@dataclass(frozen=True)
class _Curves:
    """A profile's curves, (n, 65536) float32 of 16-bit levels, and its way (3, 3) to linear sRGB."""

    tables: FloatArray
    matrix: FloatArray | None

    def __call__(self, colours: UInt16Array) -> UInt8Array:
        """Convert (H, W, 1) or (H, W, 3)."""
        channels = max(colours.shape[2], len(self.tables))
        result = np.empty((*colours.shape[:2], channels), np.uint8)
        rows = max(1, STRIP // max(1, colours.shape[1] * channels))
        for top in range(0, len(colours), rows):
            part = np.broadcast_to(colours[top : top + rows], result[top : top + rows].shape)
            tables = [self.tables[min(channel, len(self.tables) - 1)] for channel in range(channels)]
            linear = np.stack([table[part[..., channel]] for channel, table in enumerate(tables)], axis=-1)
            result[top : top + rows] = _encode(linear if self.matrix is None else linear @ self.matrix.T)
        return result


def _encode(linear: FloatArray) -> UInt8Array:
    """Apply sRGB's curve (IEC 61966-2-1) to light in 0..1."""
    light = linear.clip(0, 1)
    levels = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.power(light, np.float32(1 / 2.4)) - 0.055)
    return np.asarray(np.rint(levels * 255), np.uint8)


@lru_cache(maxsize=4)
def _curves(profile: bytes) -> _Curves | None:
    """Read a profile's curves and matrix; None where it has tables of another kind, or is malformed."""
    try:
        count = min(struct.unpack(">I", profile[128:132])[0], 200)
        tags = {
            key: profile[at : at + size]
            for key, at, size in struct.iter_unpack(">4sII", profile[132 : 132 + 12 * count])
        }
        if b"A2B0" in tags:
            return None
        if b"kTRC" in tags:
            return _Curves(_table(tags[b"kTRC"])[None], None)
        tables = np.stack([_table(tags[key]) for key in (b"rTRC", b"gTRC", b"bTRC")])
        primaries = [struct.unpack(">3i", tags[key][8:20]) for key in (b"rXYZ", b"gXYZ", b"bXYZ")]
    except (LookupError, struct.error, ValueError, ArithmeticError):
        return None
    matrix = np.linalg.inv(SRGB) @ (np.array(primaries).T / 65536)
    return _Curves(tables, matrix.astype(np.float32))


def _table(tag: bytes) -> FloatArray:
    """Return a curve's values (65536,) float32 at all 16-bit levels."""
    x: NDArray[np.float64] = np.arange(65536) / 65535
    if tag[:4] == b"para":
        (kind,) = struct.unpack(">H", tag[8:10])
        return np.asarray(_parametric(kind, tag[12:], x).clip(0, 1), np.float32)
    (count,) = struct.unpack(">I", tag[8:12])
    if tag[:4] != b"curv" or count > 65536:
        raise ValueError("no curve")
    if count == 0:
        return x.astype(np.float32)
    if count == 1:
        return np.asarray(np.power(x, struct.unpack(">H", tag[12:14])[0] / 256), np.float32)
    points = np.frombuffer(tag[12 : 12 + 2 * count], ">u2") / 65535
    return np.interp(x, np.linspace(0, 1, count), points).astype(np.float32)


def _parametric(kind: int, data: bytes, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluate ICC's parametric curves (table 68): gamma, and pieces of it above a linear foot."""
    count = (1, 3, 4, 5, 7)[kind]
    values = [value / 65536 for value in struct.unpack(f">{count}i", data[: 4 * count])]
    g, a, b, c, d, e, f = values + [0.0] * (7 - count)
    if kind == 0:
        a, b = 1.0, 0.0
    power = np.power(np.maximum(a * x + b, 0), g)
    foot = {0: 0.0 * x, 1: 0.0 * x, 2: 0.0 * x + c, 3: c * x, 4: c * x + f}[kind]
    lift = {2: c, 4: e}.get(kind, 0.0)
    start = d if kind >= 3 else -b / a
    return np.asarray(np.where(x >= start, power + lift, foot))
