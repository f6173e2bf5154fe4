"""Decode: a picture file's bytes to levels, whole or not at all.

Probe, decode, turn, divide colours by an associated alpha, bring them to sRGB, round to 8 bits: one pipeline for all
formats. JPEG comes from libjpeg-turbo by simplejpeg, which, unlike other ways to it, says what libjpeg complains of: a
file that lost data is half grey otherwise. Everything else comes from Pillow.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from ..base.arrays import UInt8Array, UInt16Array
from ..base.errors import SourceError
from .colour import STRIP, to_8_bits, to_srgb
from .probe import Header, first_line, probe, quiet, too_large

Levels = NDArray[Any]  # uint8 or uint16


Finish = Callable[[Levels, Header], Levels]  # what is done to decoded rows


MOST_SCANS: Final = 100  # of a progressive JPEG, which has some ten; each is a pass over the whole picture


END_OF_IMAGE: Final = b"\xff\xd9"


MARKER: Final = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")  # of a segment: others (0, 1, restarts) stand alone


STRAY_BYTES: Final = 16  # between a JPEG's last block and its end; some cameras leave a few


LOSSES: Final = re.compile(r"premature end|bad Huffman|bad arithmetic|instead of RST|(\d+) extraneous bytes", re.I)


UNUSUAL: Final = "subsampling level"  # of chroma, which TurboJPEG does not know, but Pillow reads; losses are not seen


TURNS: Final[dict[int, Callable[[Any], Any]]] = {  # EXIF's orientations
    2: lambda levels: cv2.flip(levels, 1),
    3: lambda levels: cv2.rotate(levels, cv2.ROTATE_180),
    4: lambda levels: cv2.flip(levels, 0),
    5: cv2.transpose,
    6: lambda levels: cv2.rotate(levels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda levels: cv2.rotate(cv2.transpose(levels), cv2.ROTATE_180),
    8: lambda levels: cv2.rotate(levels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def decode_colours(data: bytes, name: str, max_pixels: int) -> UInt8Array:
    """Decode what is looked at: upright, in sRGB, alpha straight.

    Parameters
    ----------
    data : bytes
        The file.
    name : str
        What to call it in errors.
    max_pixels : int
        Refuse more than this, from the header.

    Returns
    -------
    (H, W, 1..4) uint8
        Grey, grey and alpha, RGB, or RGB and alpha.

    Raises
    ------
    SourceError
        Causes ``not-an-image``, ``too-large``, ``unsupported``, ``truncated``.
    """
    header = probe(io.BytesIO(data), name, max_pixels)
    levels = _fenced(partial(_decode, finish=_to_colours), header, data, name)
    return turn(levels, header.orientation)


def decode_levels(data: bytes, name: str, max_pixels: int) -> tuple[Header, Levels]:
    """Decode what is measured: the stored levels, upright, alpha straight, as they are in whatever colour space.

    Returns
    -------
    Header
        What the file says of itself.
    (H, W, 1..4) uint8 or uint16
        Grey, RGB or CMYK, and alpha where the header has any.

    Raises
    ------
    SourceError
        As `decode_colours`.
    """
    header = probe(io.BytesIO(data), name, max_pixels)
    levels = _fenced(partial(_decode, finish=_to_straight), header, data, name)
    return header, turn(levels, header.orientation)


def decode_stored(data: bytes, name: str, max_pixels: int) -> UInt8Array:
    """Decode as those who used Pillow alone have it: not turned, no colour space.

    Returns
    -------
    (H, W), (H, W, 3) or (H, W, 4) uint8
        Grey, RGB or RGBA.

    Raises
    ------
    SourceError
        As `decode_colours`.
    """
    header = probe(io.BytesIO(data), name, max_pixels)
    if header.picture.mode.startswith("I"):
        raise SourceError(
            name, "unsupported", f"pixels of mode {header.picture.mode} cannot be taken as stored; save it with 8 bits"
        )
    return _fenced(_decode_stored, header, data, name)


def decode_indices(header: Header) -> UInt8Array:
    """Return a palette picture's indices (H, W), upright, once it is decoded."""
    return turn(np.asarray(header.picture)[..., None], header.orientation)[..., 0]


def turn(levels: Levels, orientation: int) -> Levels:
    """Turn (H, W, C) upright, by EXIF's orientation."""
    return TURNS[orientation](levels).reshape(*_turned_size(levels, orientation), -1) if orientation > 1 else levels


def _turned_size(levels: Levels, orientation: int) -> tuple[int, int]:
    height, width = levels.shape[:2]
    return (width, height) if orientation >= 5 else (height, width)


def _fenced(decode: Callable[[Header, bytes, str], Levels], header: Header, data: bytes, name: str) -> Levels:
    """Decode, and make whatever the decoder raises an error of this picture; lack of memory is not its fault."""
    size = header.stored_size  # decoders may change it
    try:
        with quiet():
            levels = decode(header, data, name)
        if levels.shape[:2] != size:
            raise ValueError(f"its header says {size[1]}×{size[0]} px, its pixels {levels.shape[1]}×{levels.shape[0]}")
        return levels
    except (SourceError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise too_large(name, str(error)) from None
    except Exception as error:
        if isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem:
            raise MemoryError(str(error)) from None
        reason = f"the file breaks off or is damaged ({first_line(error)}); fetch it again"
        raise SourceError(name, "truncated", reason) from None


def _decode(header: Header, data: bytes, name: str, finish: Finish) -> Levels:
    """Decode, and finish what is decoded; large pictures of 16 bits in strips."""
    picture = header.picture
    if header.format == "JPEG":
        return finish(_decode_jpeg(header, data, name), header)
    if header.bits == 16 and picture.mode in ("RGB", "RGBA"):
        return _decode_16_bit_colour(header, data, name, finish)
    if header.bits == 16:
        levels: Levels = _decode_16_bit_grey(header, name)
    elif picture.mode in ("P", "PA"):
        levels = _array(picture.convert("RGB" if header.alpha == "none" else "RGBA"))
    else:
        if header.alpha == "associated" and picture.mode == "RGBA":  # divided below, and rounded
            _set_rawmodes(picture, lambda rawmode: rawmode.replace("a", "A"))
        wanted = {"1": "L", "RGBX": "RGB", "YCbCr": "RGB"}.get(picture.mode, picture.mode)
        levels = _array(picture if wanted == picture.mode else picture.convert(wanted))
    return finish(levels if levels.ndim == 3 else levels[..., None], header)


def _to_colours(levels: Levels, header: Header) -> UInt8Array:
    """Bring decoded rows to sRGB, 8 bits."""
    levels = _to_straight(levels, header)
    if header.profile is None and header.space != "cmyk":
        return to_8_bits(levels)
    if header.alpha == "none":
        return to_srgb(levels, header.space, header.profile)
    colours = to_srgb(np.ascontiguousarray(levels[..., :-1]), header.space, header.profile)
    return np.concatenate([colours, to_8_bits(levels[..., -1:])], axis=2)


def _to_straight(levels: Levels, header: Header) -> Levels:
    """Make of decoded rows' transparency, whatever its kind, a straight alpha channel."""
    if header.alpha == "key":
        unit = {"1": 255, "L;2": 85, "L;4": 17}.get(header.rawmode, 1)
        key = np.multiply(header.picture.info["transparency"], unit)
        most = np.iinfo(levels.dtype).max
        opaque = np.where((levels == key).all(axis=2, keepdims=True), 0, most).astype(levels.dtype)
        return np.concatenate([levels, opaque], axis=2)
    if header.alpha == "associated":
        alpha = levels[..., -1:]
        most = np.iinfo(levels.dtype).max
        straight = (levels[..., :-1].astype(np.uint64) * most + alpha // 2) // np.maximum(alpha, 1)
        return np.concatenate([straight.clip(0, most).astype(levels.dtype), alpha], axis=2)
    return levels


# ---- JPEG ----
def _decode_jpeg(header: Header, data: bytes, name: str) -> UInt8Array:
    if _scans(data) > MOST_SCANS:
        reason = f"a JPEG of more than {MOST_SCANS} scans takes too long; save it again"
        raise SourceError(name, "unsupported", reason)
    try:
        if header.space != "cmyk":
            return _libjpeg(data, colorspace="GRAY" if header.space == "grey" else "RGB")
        _libjpeg(data, colorspace="CMYK", min_height=1, min_width=1, min_factor=8)  # whether it is whole
    except ValueError as error:
        if UNUSUAL not in str(error):
            raise
    return np.asarray(_array(header.picture), np.uint8)


def _libjpeg(data: bytes, **options: Any) -> UInt8Array:
    """Decode a JPEG; raise ValueError where data are lost, by libjpeg's own words."""
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, **options))
    except ValueError as error:
        found = LOSSES.search(str(error))
        if "JPEG file" in str(error):  # without its end, all else may be there
            return np.asarray(simplejpeg.decode_jpeg(data + END_OF_IMAGE, **options))
        if found is not None and int(found[1] or STRAY_BYTES + 1) > STRAY_BYTES:
            raise
    return np.asarray(simplejpeg.decode_jpeg(data, strict=False, **options))


def _scans(data: bytes) -> int:
    """Count a JPEG's scans."""
    if data.count(b"\xff\xda") <= MOST_SCANS:  # thumbnails' among them
        return 1
    at, scans = 2, 0
    while (found := MARKER.search(data, at)) and found[0] != END_OF_IMAGE and scans <= MOST_SCANS:
        scans += found[0] == b"\xff\xda"
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return scans


# ---- 16 bits ----
def _decode_16_bit_grey(header: Header, name: str) -> UInt16Array:
    picture = header.picture
    levels = _array(picture)
    if levels.dtype != np.uint16:
        if levels.min(initial=0) < 0 or levels.max(initial=0) > 65_535:
            raise SourceError(name, "unsupported", "grey levels outside 0..65535 are not read; save 16 bits, unsigned")
        levels = levels.astype(np.uint16)
    if header.format == "TIFF":
        if picture.tag_v2.get(258) == (12,):
            levels = (levels.astype(np.uint32) * 65_535 // 4_095).astype(np.uint16)
        if picture.tag_v2.get(262) == 0:  # white is zero
            levels = 65_535 - levels
    return np.asarray(levels, np.uint16)


def _decode_16_bit_colour(header: Header, data: bytes, name: str, finish: Finish) -> Levels:
    """Decode twice: Pillow has no such pictures, but unpacks either byte of each sample."""
    if header.rawmode.startswith("LA"):
        _set_rawmodes(header.picture, lambda _: "RGBA")  # the four bytes of its two samples
        pairs = _array(header.picture)
        return _joined(pairs[..., 0::2], pairs[..., 1::2], finish, header)
    rawmode = header.rawmode.replace("a", "A")
    order = {"N": "L" if sys.byteorder == "little" else "B"}.get(rawmode[-1], rawmode[-1])
    high = _unpack(data, name, rawmode[:-1] + order)
    low = _unpack(data, name, rawmode[:-1] + ("B" if order == "L" else "L"))
    return _joined(high, low, finish, header)


def _unpack(data: bytes, name: str, rawmode: str) -> UInt8Array:
    picture = probe(io.BytesIO(data), name, sys.maxsize).picture
    _set_rawmodes(picture, lambda _: rawmode)
    return _array(picture)


def _joined(high: UInt8Array, low: UInt8Array, finish: Finish, header: Header) -> Levels:
    """Join the bytes of samples, (H, W, C) each, and finish them strip by strip."""
    rows = max(1, STRIP // max(1, high[0].size))
    result: Levels | None = None
    for top in range(0, len(high), rows):
        part = finish(high[top : top + rows].astype(np.uint16) << 8 | low[top : top + rows], header)
        if result is None:
            result = np.empty((len(high), *part.shape[1:]), part.dtype)
        result[top : top + rows] = part
    if result is None:
        raise ValueError("no rows")
    return result


def _set_rawmodes(picture: Any, rename: Callable[[str], str]) -> None:
    """Have Pillow unpack samples in another way."""
    tiles = []
    for tile in picture.tile:
        *fields, args = tile
        fields.append((rename(args[0]), *args[1:]) if isinstance(args, tuple) else rename(args))
        tiles.append(tile._make(fields) if hasattr(tile, "_make") else tuple(fields))  # plain ones before Pillow 11
    picture.tile = tiles


def _array(picture: Any) -> Levels:
    """Return a picture's levels: loaded first, as NumPy takes a picture that cannot be for an object, and in strips.

    Pillow hands pixels on by way of two copies.
    """
    picture.load()
    width, height = picture.size
    rows = max(1, STRIP // max(1, width))
    if rows >= height:
        return np.asarray(picture)
    first = np.asarray(picture.crop((0, 0, width, rows)))
    levels = np.empty((height, *first.shape[1:]), first.dtype)
    for top in range(0, height, rows):
        strip = picture.crop((0, top, width, min(top + rows, height)))
        levels[top : top + rows] = np.asarray(strip)
    return levels


def _decode_stored(header: Header, data: bytes, name: str) -> UInt8Array:
    picture = header.picture
    if header.format == "JPEG":
        levels = _decode_jpeg(header, data, name)
        if header.space != "cmyk":
            return levels[..., 0] if header.space == "grey" else levels
    has_alpha = picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
    if picture.mode in ("1", "L") and not has_alpha:
        return _array(picture.convert("L"))
    return _array(picture.convert("RGBA" if has_alpha else "RGB"))
