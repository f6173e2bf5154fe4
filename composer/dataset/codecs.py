"""Packing: how a picture becomes the tiles of a shard, and back. Pure arrays and bytes.

A picture is cut into tiles, each coded alone, so that a window costs only the tiles it touches. What one tile's
bytes mean is said by its codec; which codec stores what is said by the packing:

========  ==========================================================  ==============  ========
packing   composites and backgrounds                                  foregrounds     masks
========  ==========================================================  ==============  ========
delta     green-subtracted second differences, Zstandard 1            the same        Zstandard
solid     RGB, Zstandard −3 (any HDF5 viewer with the filter shows)   RGB, Zstandard  Zstandard
plain     RGB, no filter: for tools that know nothing of us           RGB             bytes
webp      a lossless WebP per tile: the smallest, slow to make        the same        the same
jpeg      a JPEG 4:4:4 per tile: lossy, for short disks               as delta        Zstandard
========  ==========================================================  ==============  ========

With ``delta``, ``solid`` and ``webp`` a composite's opaque pixels are stored as zeros: they are the foreground's, which
is stored once for all its composites.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Protocol

import cv2
import numpy as np
import zstandard
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.uint8]


ZSTANDARD = 32015  # registered HDF5 filter numbers


JPEG = 32019


WEBP = 511  # of the numbers for private use: nobody has registered a filter for WebP


FILTERS = (ZSTANDARD, JPEG, WEBP)


class Codec(Protocol):
    """Code a picture (H, W) or (H, W, 3) uint8 as tiles of a fixed size; tiles at the far edges are filled up.

    Attributes
    ----------
    channels : 3, or 1 for pictures without a third axis
    bare : tiles are stored as their pixels, row by row, so that some rows can be read alone
    """

    @property
    def channels(self) -> int:
        """A picture's."""

    @property
    def bare(self) -> bool:
        """Whether nothing is coded."""

    def dataset(self, height: int, width: int, tile: int) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
        """Return a picture's HDF5 shape, its chunk shape and the filter's ``create_dataset`` arguments."""

    def corner(self, y: int, x: int) -> tuple[int, ...]:
        """Return the chunk coordinates of the tile whose first pixel is (y, x)."""

    def tile_shape(self, chunk: tuple[int, ...]) -> tuple[int, int]:
        """Return a tile's (height, width) from a chunk's shape."""

    def encode(self, picture: Array, tile: tuple[int, int]) -> list[list[bytes]]:
        """Cut and code a picture."""

    def decode(self, data: bytes, tile: tuple[int, int]) -> Array:
        """Decode one tile to (h, w) or (h, w, 3)."""


@lru_cache(maxsize=8)
def _compressor(level: int, differences: bool = False) -> zstandard.ZstdCompressor:
    # Differences repeat themselves by chance only, and each plane's are spread in its own way. So: long matches and
    # the smallest table for them, and blocks of 32 KiB, each with its own Huffman table. A tenth quicker, and 3 %
    # smaller, than the level's own settings.
    special = {"min_match": 7, "hash_log": 6, "window_log": 15} if differences else {}
    # The checksum (XXH64 of the tile) makes a damaged tile an error when it is read, not a wrong pixel.
    parameters = zstandard.ZstdCompressionParameters.from_level(level, write_checksum=True, **special)
    return zstandard.ZstdCompressor(compression_params=parameters)


@lru_cache(maxsize=1)
def _decompressor() -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor()


def _decompress(data: bytes, size: int) -> bytes:
    """Decompress a tile; one that declares another size is damaged, and is not given the memory."""
    if zstandard.frame_content_size(data) != size:
        raise ValueError(f"a tile of {size} bytes was expected, {zstandard.frame_content_size(data)} are declared")
    return _decompressor().decompress(data)


class _Pixels:
    """What the codecs share that keep a tile's channels together; how one tile becomes bytes is the subclass's."""

    channels: int

    @property
    def bare(self) -> bool:
        """See `Codec`."""
        return False

    def dataset(self, height: int, width: int, tile: int) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
        """See `Codec`."""
        last = (self.channels,) if self.channels > 1 else ()
        chunk = (even_tile(height, tile), even_tile(width, tile), *last)
        return (height, width, *last), chunk, self._filter(chunk)

    def corner(self, y: int, x: int) -> tuple[int, ...]:
        """See `Codec`."""
        return (y, x, 0) if self.channels > 1 else (y, x)

    def tile_shape(self, chunk: tuple[int, ...]) -> tuple[int, int]:
        """See `Codec`."""
        return (chunk[-3], chunk[-2]) if self.channels > 1 else (chunk[-2], chunk[-1])

    def encode(self, picture: Array, tile: tuple[int, int]) -> list[list[bytes]]:
        """See `Codec`."""
        below, right = -picture.shape[0] % tile[0], -picture.shape[1] % tile[1]
        if below or right:  # edges are repeated, not blackened: a black border would ring into a JPEG
            picture = np.asarray(cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_REPLICATE), np.uint8)
        return [
            [self._pack(picture[y : y + tile[0], x : x + tile[1]]) for x in range(0, picture.shape[1], tile[1])]
            for y in range(0, picture.shape[0], tile[0])
        ]

    def decode(self, data: bytes, tile: tuple[int, int]) -> Array:
        """See `Codec`."""
        return self._unpack(data, (*tile, self.channels) if self.channels > 1 else tile)

    def _filter(self, chunk: tuple[int, ...]) -> dict[str, Any]:
        raise NotImplementedError

    def _pack(self, pixels: Array) -> bytes:
        raise NotImplementedError

    def _unpack(self, data: bytes, shape: tuple[int, ...]) -> Array:
        raise NotImplementedError


@dataclass(frozen=True)
class Interleaved(_Pixels):
    """Pixels as they are, row by row, in one Zstandard frame a tile; `level` None stores the bare bytes."""

    channels: int
    level: int | None

    @property
    def bare(self) -> bool:
        """See `Codec`."""
        return self.level is None

    def _filter(self, chunk: tuple[int, ...]) -> dict[str, Any]:
        return {} if self.level is None else _zstandard_filter(self.level)

    def _pack(self, pixels: Array) -> bytes:
        data = pixels.tobytes()
        return data if self.level is None else _compressor(self.level).compress(data)

    def _unpack(self, data: bytes, shape: tuple[int, ...]) -> Array:
        whole = data if self.level is None else _decompress(data, math.prod(shape))
        return np.frombuffer(whole, np.uint8).reshape(shape)


@dataclass(frozen=True)
class Delta:
    """Planes G, R−G and B−G, each as x − left − above + above-left (all modulo 256), in one Zstandard frame a tile.

    Photographs halve: colours go together, and so do neighbours. Sums over rows and columns undo it, which is what
    an integral image is.
    """

    level: int = 1
    channels: ClassVar[int] = 3
    bare: ClassVar[bool] = False

    def dataset(self, height: int, width: int, tile: int) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
        """See `Codec`."""
        return (3, height, width), (3, even_tile(height, tile), even_tile(width, tile)), _zstandard_filter(self.level)

    def corner(self, y: int, x: int) -> tuple[int, ...]:
        """See `Codec`."""
        return (0, y, x)

    def tile_shape(self, chunk: tuple[int, ...]) -> tuple[int, int]:
        """See `Codec`."""
        return chunk[-2], chunk[-1]

    def encode(self, picture: Array, tile: tuple[int, int]) -> list[list[bytes]]:
        """See `Codec`."""
        height, width = picture.shape[:2]
        planes = np.zeros((3, height + -height % tile[0], width + -width % tile[1]), np.uint8)
        red, green, blue = cv2.split(picture)
        down = np.empty_like(green)
        for plane, colour in zip(planes[:, :height, :width], (green, red - green, blue - green), strict=True):
            np.subtract(colour[1:], colour[:-1], out=down[1:])
            down[:: tile[0]] = colour[:: tile[0]]  # a tile begins anew
            np.subtract(down[:, 1:], down[:, :-1], out=plane[:, 1:])
            plane[:, :: tile[1]] = down[:, :: tile[1]]
        compress = _compressor(self.level, differences=True).compress
        return [[compress(part.tobytes()) for part in row] for row in _cut(planes, tile)]

    def decode(self, data: bytes, tile: tuple[int, int]) -> Array:
        """See `Codec`."""
        height, width = tile
        stored = np.frombuffer(_decompress(data, 3 * height * width), np.uint8).reshape(3, height, width)
        green, red, blue = (cv2.integral(plane)[1:, 1:].astype(np.uint8) for plane in stored)
        red += green
        blue += green
        return np.asarray(cv2.merge((red, green, blue)), np.uint8)


@dataclass(frozen=True)
class WebP(_Pixels):
    """A lossless WebP file per tile, and after it its CRC-32 (4 bytes, little-endian), since WebP has no checksum."""

    channels: int

    def _filter(self, chunk: tuple[int, ...]) -> dict[str, Any]:
        return {"compression": WEBP, "allow_unknown_filter": True}

    def _pack(self, pixels: Array) -> bytes:
        file = io.BytesIO()  # Pillow's encoder: OpenCV's has its slowest setting only
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "WEBP", lossless=True, method=2, quality=30)
        return file.getvalue() + zlib.crc32(file.getbuffer()).to_bytes(4, "little")

    def _unpack(self, data: bytes, shape: tuple[int, ...]) -> Array:
        # A lossless file begins RIFF····WEBPVP8L···· 0x2f, then 14 bits of width − 1 and 14 of height − 1: read before
        # the decoder is let loose, which would make room for whatever is declared.
        sides = int.from_bytes(data[21:25], "little")
        declared = (sides >> 14 & 0x3FFF) + 1, (sides & 0x3FFF) + 1
        whole = zlib.crc32(memoryview(data)[:-4]) == int.from_bytes(data[-4:], "little")
        if not whole or data[12:16] != b"VP8L" or declared != shape[:2]:
            raise ValueError("a WebP tile is damaged")
        pixels = _decode_picture(data[:-4], shape[:2])
        return pixels if self.channels > 1 else pixels[..., 0]


@dataclass(frozen=True)
class Jpeg(_Pixels):
    """A baseline JPEG without chroma subsampling per tile."""

    quality: int
    channels: int = 3

    def _filter(self, chunk: tuple[int, ...]) -> dict[str, Any]:
        options = (self.quality, chunk[1], chunk[0], 1)  # quality, columns, rows, colour
        return {"compression": JPEG, "compression_opts": options, "allow_unknown_filter": True}

    def _pack(self, pixels: Array) -> bytes:
        options = [
            cv2.IMWRITE_JPEG_QUALITY,
            self.quality,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
        ]
        done, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
        if not done:
            raise ValueError(f"a tile of {pixels.shape} could not be coded as JPEG")
        return bytes(data)

    def _unpack(self, data: bytes, shape: tuple[int, ...]) -> Array:
        return _decode_picture(data, shape[:2])


def _decode_picture(data: bytes, size: tuple[int, ...]) -> Array:
    """Decode a tile that is a picture file, to (H, W, 3)."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if pixels is None or pixels.shape != (*size, 3):
        raise ValueError("a tile's picture is damaged")
    return np.asarray(pixels, np.uint8)


@dataclass(frozen=True)
class Packing:
    """Which codec stores what.

    Attributes
    ----------
    image : composites and backgrounds
    foreground : foregrounds, once for all their composites
    mask : alphas and trimaps
    shares_opaque : composites hold zeros where alpha is 255, and a reader puts the foreground there
    """

    image: Codec
    foreground: Codec
    mask: Codec
    shares_opaque: bool


def packing(name: str, quality: int = 95) -> Packing:
    """Return the packing called `name`; `quality` is JPEG's. The table above says what each does."""
    masks, delta = Interleaved(1, level=1), Delta()
    packings = {
        "delta": Packing(delta, delta, masks, shares_opaque=True),
        "solid": Packing(Interleaved(3, level=-3), Interleaved(3, level=1), masks, shares_opaque=True),
        "plain": Packing(Interleaved(3, None), Interleaved(3, None), Interleaved(1, None), shares_opaque=False),
        "webp": Packing(WebP(3), WebP(3), WebP(1), shares_opaque=True),
        "jpeg": Packing(Jpeg(quality), delta, masks, shares_opaque=False),
    }
    return packings[name]


# Bytes per composite pixel, trimap included, of photographs with a quarter of opaque pixels: for estimates only.
TYPICAL_BYTES = {"delta": 0.75, "solid": 1.45, "plain": 4.0, "webp": 0.65, "jpeg": 0.55}


def _zstandard_filter(level: int) -> dict[str, Any]:
    # The number in the filter's options matters to writers only; any Zstandard frame is read by any level's reader.
    return {"compression": ZSTANDARD, "compression_opts": (max(level, 1),), "allow_unknown_filter": True}


def even_tile(side: int, tile: int) -> int:
    """Return the tile's side, at most `tile`, that cuts `side` px into equal parts with the least to fill up."""
    return -(-side // -(-side // tile))


def _cut(planes: Array, tile: tuple[int, int]) -> Iterator[Iterator[Array]]:
    """Cut (C, H, W) planes into tiles (C, h, w), row by row."""
    height, width = tile
    for y in range(0, planes.shape[1], height):
        yield (planes[:, y : y + height, x : x + width] for x in range(0, planes.shape[2], width))
