"""Codecs: how a picture becomes the tiles of a shard, and back. Pure arrays and bytes.

A picture is cut into tiles, each encoded alone, so that a window costs only the tiles it touches. What one tile's bytes
mean is its codec's business; which codec stores what is the packing's.
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

from ..base.arrays import UInt8Array
from .differences import take_differences, undo_differences

ZSTANDARD = 32015  # registered HDF5 filter numbers


JPEG = 32019


WEBP = 511  # of the numbers for private use: nobody has registered a filter for WebP


Bytes = bytes | memoryview


Hdf5Layout = tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]  # shape, chunk shape, filter for `create_dataset`


class Codec(Protocol):
    """Encode pictures, (H, W) or (H, W, 3) uint8, as tiles of a fixed size; tiles at the far edges are filled up.

    `TileCodec` does all of it but for one tile's bytes.

    Attributes
    ----------
    channels : int
        3, or 1 for pictures without a third axis.
    bare : bool
        Tiles are stored as their pixels, row by row, so that some rows can be read alone.
    """

    @property
    def channels(self) -> int:
        """See the class."""

    @property
    def bare(self) -> bool:
        """See the class."""

    def dataset(self, height: int, width: int, tile: int) -> Hdf5Layout:
        """Return how a picture of `height` × `width` px lies in HDF5, in tiles of at most `tile` px."""

    def corner(self, y: int, x: int) -> tuple[int, ...]:
        """Return the chunk coordinates of the tile whose first pixel is (y, x)."""

    def tile_shape(self, chunk: tuple[int, ...]) -> tuple[int, int]:
        """Return a tile's (height, width) from a chunk's shape."""

    def encode(self, picture: UInt8Array, tile: tuple[int, int]) -> list[list[bytes]]:
        """Cut and encode a picture: the bytes of its tiles, by row and column."""

    def decode(self, data: Bytes, tile: tuple[int, int]) -> UInt8Array:
        """Decode one tile to (h, w) or (h, w, 3) uint8; raise ValueError or ZstdError where it is damaged."""

    def decode_part(self, data: Bytes, tile: tuple[int, int], corner: tuple[int, int], out: UInt8Array) -> None:
        """Decode into `out` the part of a tile that begins at `corner`, (y, x) px, and is as large as `out`.

        Into an `out` without pixels a tile is decoded only as far as it takes to see whether it is damaged.
        """


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


def _decompress(data: Bytes, size: int) -> bytes:
    """Decompress a tile; one that declares another size is damaged, and is not given the memory."""
    if zstandard.frame_content_size(data) != size:
        raise ValueError(f"a tile of {size} bytes was expected, {zstandard.frame_content_size(data)} are declared")
    return _decompressor().decompress(data)


class TileCodec:
    """What codecs share that keep a tile's channels together.

    A subclass has `channels`, and says what one tile's bytes are: `encode_tile`, `decode_tile`, and `hdf5_filter`, by
    which other programs decode them.
    """

    channels: int

    @property
    def bare(self) -> bool:
        """See `Codec`."""
        return False

    def dataset(self, height: int, width: int, tile: int) -> Hdf5Layout:
        """See `Codec`."""
        last = (self.channels,) if self.channels > 1 else ()
        chunk = (even_tile(height, tile), even_tile(width, tile), *last)
        return (height, width, *last), chunk, self.hdf5_filter(chunk)

    def corner(self, y: int, x: int) -> tuple[int, ...]:
        """See `Codec`."""
        return (y, x, 0) if self.channels > 1 else (y, x)

    def tile_shape(self, chunk: tuple[int, ...]) -> tuple[int, int]:
        """See `Codec`."""
        return (chunk[-3], chunk[-2]) if self.channels > 1 else (chunk[-2], chunk[-1])

    def encode(self, picture: UInt8Array, tile: tuple[int, int]) -> list[list[bytes]]:
        """See `Codec`."""
        below, right = -picture.shape[0] % tile[0], -picture.shape[1] % tile[1]
        if below or right:  # edges are repeated, not blackened: a black border would ring into a JPEG
            picture = np.asarray(cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_REPLICATE), np.uint8)
        return [
            [self.encode_tile(picture[y : y + tile[0], x : x + tile[1]]) for x in range(0, picture.shape[1], tile[1])]
            for y in range(0, picture.shape[0], tile[0])
        ]

    def decode(self, data: Bytes, tile: tuple[int, int]) -> UInt8Array:
        """See `Codec`."""
        return self.decode_tile(bytes(data), (*tile, self.channels) if self.channels > 1 else tile)

    def decode_part(self, data: Bytes, tile: tuple[int, int], corner: tuple[int, int], out: UInt8Array) -> None:
        """See `Codec`."""
        (y, x), (height, width) = corner, out.shape[:2]
        out[...] = self.decode(data, tile)[y : y + height, x : x + width]

    def hdf5_filter(self, chunk: tuple[int, ...]) -> dict[str, Any]:
        """Return the filter's arguments of `create_dataset`, for a chunk of this shape; {} for no filter."""
        raise NotImplementedError

    def encode_tile(self, pixels: UInt8Array) -> bytes:
        """Encode a tile, (h, w) or (h, w, 3) uint8."""
        raise NotImplementedError

    def decode_tile(self, data: bytes, shape: tuple[int, ...]) -> UInt8Array:
        """Decode a tile to this shape; raise ValueError where it is damaged, or no tile of this codec."""
        raise NotImplementedError


@dataclass(frozen=True)
class Interleaved(TileCodec):
    """Pixels as they are, row by row, in one Zstandard frame a tile; `level` None stores the bare bytes."""

    channels: int
    level: int | None

    @property
    def bare(self) -> bool:
        """See `Codec`."""
        return self.level is None

    def hdf5_filter(self, chunk: tuple[int, ...]) -> dict[str, Any]:
        """See `TileCodec`."""
        return {} if self.level is None else _zstandard_filter(self.level)

    def encode_tile(self, pixels: UInt8Array) -> bytes:
        """See `TileCodec`."""
        data = pixels.tobytes()
        return data if self.level is None else _compressor(self.level).compress(data)

    def decode_tile(self, data: Bytes, shape: tuple[int, ...]) -> UInt8Array:
        """See `TileCodec`."""
        whole = data if self.level is None else _decompress(data, math.prod(shape))
        return np.frombuffer(whole, np.uint8).reshape(shape)

    def decode(self, data: Bytes, tile: tuple[int, int]) -> UInt8Array:
        """See `Codec`."""
        return self.decode_tile(data, (*tile, self.channels) if self.channels > 1 else tile)  # as it is: not copied


@dataclass(frozen=True)
class Delta:
    """Planes G, R−G and B−G, each as x − left − above + above-left (all modulo 256), in one Zstandard frame a tile.

    Photographs halve: colours go together, and so do neighbours. Sums over rows and columns undo it, which is what
    an integral image is.
    """

    level: int = 1
    channels: ClassVar[int] = 3
    bare: ClassVar[bool] = False

    def dataset(self, height: int, width: int, tile: int) -> Hdf5Layout:
        """See `Codec`."""
        return (3, height, width), (3, even_tile(height, tile), even_tile(width, tile)), _zstandard_filter(self.level)

    def corner(self, y: int, x: int) -> tuple[int, ...]:
        """See `Codec`."""
        return (0, y, x)

    def tile_shape(self, chunk: tuple[int, ...]) -> tuple[int, int]:
        """See `Codec`."""
        return chunk[-2], chunk[-1]

    def encode(self, picture: UInt8Array, tile: tuple[int, int]) -> list[list[bytes]]:
        """See `Codec`."""
        compress = _compressor(self.level, differences=True).compress
        return [[compress(part.tobytes()) for part in row] for row in _cut(take_differences(picture, tile), tile)]

    def decode(self, data: Bytes, tile: tuple[int, int]) -> UInt8Array:
        """See `Codec`."""
        pixels = np.empty((*tile, 3), np.uint8)
        self.decode_part(data, tile, (0, 0), pixels)
        return pixels

    def decode_part(self, data: Bytes, tile: tuple[int, int], corner: tuple[int, int], out: UInt8Array) -> None:
        """See `Codec`."""
        stored = _decompress(data, 3 * tile[0] * tile[1])
        if out.size:
            undo_differences(stored, tile, corner, out)


@dataclass(frozen=True)
class WebP(TileCodec):
    """A lossless WebP file per tile, and after it its CRC-32 (4 bytes, little-endian), since WebP has no checksum."""

    channels: int

    def hdf5_filter(self, chunk: tuple[int, ...]) -> dict[str, Any]:
        """See `TileCodec`."""
        return {"compression": WEBP, "allow_unknown_filter": True}

    def encode_tile(self, pixels: UInt8Array) -> bytes:
        """See `TileCodec`."""
        from PIL import Image  # its encoder: OpenCV's has its slowest setting only; readers need neither

        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "WEBP", lossless=True, method=2, quality=30)
        return file.getvalue() + zlib.crc32(file.getbuffer()).to_bytes(4, "little")

    def decode_tile(self, data: bytes, shape: tuple[int, ...]) -> UInt8Array:
        """See `TileCodec`."""
        # A lossless file begins RIFF····WEBPVP8L···· 0x2f, then 14 bits of width − 1 and 14 of height − 1: read before
        # the decoder is let loose, which would make room for whatever is declared, in whatever format.
        sides = int.from_bytes(data[21:25], "little")
        declared = (sides >> 14 & 0x3FFF) + 1, (sides & 0x3FFF) + 1
        whole = zlib.crc32(memoryview(data)[:-4]) == int.from_bytes(data[-4:], "little")
        if not whole or data[:4] + data[8:16] != b"RIFFWEBPVP8L" or declared != shape[:2]:
            raise ValueError("a WebP tile is damaged")
        pixels = _decode_picture(data[:-4], shape[:2])
        return pixels if self.channels > 1 else pixels[..., 0]


@dataclass(frozen=True)
class Jpeg(TileCodec):
    """A baseline JPEG without chroma subsampling per tile."""

    quality: int
    channels: int = 3

    def hdf5_filter(self, chunk: tuple[int, ...]) -> dict[str, Any]:
        """See `TileCodec`."""
        options = (self.quality, chunk[1], chunk[0], 1)  # quality, columns, rows, colour
        return {"compression": JPEG, "compression_opts": options, "allow_unknown_filter": True}

    def encode_tile(self, pixels: UInt8Array) -> bytes:
        """See `TileCodec`."""
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

    def decode_tile(self, data: bytes, shape: tuple[int, ...]) -> UInt8Array:
        """See `TileCodec`."""
        _check_jpeg(data, shape[:2])
        return _decode_picture(data, shape[:2])


def _check_jpeg(data: bytes, size: tuple[int, ...]) -> None:
    """Raise ValueError unless the decoder will find a baseline JPEG of this size, RGB in one scan, and nothing else.

    OpenCV decodes whatever format it recognises, makes room for whatever that declares, and a progressive file may have
    thousands of scans. Markers and their fields: ITU-T T.81, annex B.
    """
    at, frame = 2, b""
    while data[:3] == b"\xff\xd8\xff" and at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xC0 and not frame:  # start of frame, baseline: precision, height, width, components
            frame = data[at + 4 : at + 10]
        elif marker == 0xDA:  # start of scan: components in it
            if frame == bytes((8, *size[0].to_bytes(2, "big"), *size[1].to_bytes(2, "big"), 3)) and data[at + 4] == 3:
                return
            break
        elif marker not in (0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0)):  # tables, restart interval, applications' own
            break
        at += 2 + length
    raise ValueError("a JPEG tile is damaged, or no baseline JPEG of its size")


def _decode_picture(data: bytes, size: tuple[int, ...]) -> UInt8Array:
    """Decode a tile that is a picture file, to (H, W, 3)."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if pixels is None or pixels.shape != (*size, 3):
        raise ValueError("a tile's picture is damaged")
    return np.asarray(pixels, np.uint8)


def _zstandard_filter(level: int) -> dict[str, Any]:
    # The number in the filter's options matters to writers only; any Zstandard frame is read by any level's reader.
    return {"compression": ZSTANDARD, "compression_opts": (max(level, 1),), "allow_unknown_filter": True}


def even_tile(side: int, tile: int) -> int:
    """Return the tile's side, at most `tile`, that cuts `side` px into equal parts with the least to fill up."""
    return -(-side // -(-side // tile))


def _cut(planes: UInt8Array, tile: tuple[int, int]) -> Iterator[Iterator[UInt8Array]]:
    """Cut (C, H, W) planes into tiles (C, h, w), row by row."""
    height, width = tile
    for y in range(0, planes.shape[1], height):
        yield (planes[:, y : y + height, x : x + width] for x in range(0, planes.shape[2], width))
