"""Packing: how a picture becomes the tiles of a shard, and back. Pure arrays and bytes.

A picture is cut into tiles, each coded alone, so that a window costs only the tiles it touches. What one tile's
bytes mean is said by its codec; which codec stores what is said by the packing:

========  ==========================================================  ==============  ========
packing   composites and backgrounds                                  foregrounds     masks
========  ==========================================================  ==============  ========
delta     green-subtracted vertical differences, Zstandard 1          the same        Zstandard
solid     RGB, Zstandard −3 (any HDF5 viewer with the filter shows)   RGB, Zstandard  Zstandard
plain     RGB, no filter: for tools that know nothing of us           RGB             bytes
jpeg      a JPEG 4:4:4 per tile: lossy, for short disks               as delta        Zstandard
========  ==========================================================  ==============  ========

With ``delta`` and ``solid`` a composite's opaque pixels are stored as zeros: they are the foreground's, which is
stored once for all its composites.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import cv2
import numpy as np
import zstandard
from numpy.typing import NDArray

Array = NDArray[np.uint8]
Grid = Sequence[Sequence[bytes]]  # tiles, row by row

ZSTANDARD = 32015  # registered HDF5 filter numbers
JPEG = 32019


class Codec(Protocol):
    """Code a picture (H, W) or (H, W, 3) uint8 as tiles of a fixed size; tiles at the far edges are filled up."""

    def dataset(self, height: int, width: int, tile: int) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
        """Return a picture's HDF5 shape, its chunk shape and the filter's ``create_dataset`` arguments."""

    def corner(self, y: int, x: int) -> tuple[int, ...]:
        """Return the chunk coordinates of the tile whose first pixel is (y, x)."""

    def tile_shape(self, chunk: tuple[int, ...]) -> tuple[int, int]:
        """Return a tile's (height, width) from a chunk's shape."""

    def encode(self, picture: Array, tile: tuple[int, int]) -> list[list[bytes]]:
        """Cut and code a picture."""

    def decode(self, grid: Grid, tile: tuple[int, int]) -> Array:
        """Decode a rectangle of tiles to one picture, as large as the tiles."""


@lru_cache(maxsize=8)
def _compressor(level: int) -> zstandard.ZstdCompressor:
    # The checksum (XXH64 of the tile) makes a damaged tile an error when it is read, not a wrong pixel.
    return zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)


@lru_cache(maxsize=1)
def _decompressor() -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor()


@dataclass(frozen=True)
class Interleaved:
    """Pixels as they are, row by row, in one Zstandard frame a tile; `level` None stores the bare bytes."""

    channels: int
    level: int | None

    def dataset(self, height: int, width: int, tile: int) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
        """See `Codec`."""
        last = (self.channels,) if self.channels > 1 else ()
        filters = {} if self.level is None else _zstandard_filter(self.level)
        return (height, width, *last), (min(tile, height), min(tile, width), *last), filters

    def corner(self, y: int, x: int) -> tuple[int, ...]:
        """See `Codec`."""
        return (y, x, 0) if self.channels > 1 else (y, x)

    def tile_shape(self, chunk: tuple[int, ...]) -> tuple[int, int]:
        """See `Codec`."""
        return (chunk[-3], chunk[-2]) if self.channels > 1 else (chunk[-2], chunk[-1])

    def encode(self, picture: Array, tile: tuple[int, int]) -> list[list[bytes]]:
        """See `Codec`."""
        return [
            [self._pack(slab[:, x : x + tile[1]].tobytes()) for x in range(0, slab.shape[1], tile[1])]
            for slab in _slabs(picture, tile)
        ]

    def decode(self, grid: Grid, tile: tuple[int, int]) -> Array:
        """See `Codec`."""
        height, width = tile
        last = (self.channels,) if self.channels > 1 else ()
        picture = np.empty((len(grid) * height, len(grid[0]) * width, *last), np.uint8)
        for i, row in enumerate(grid):
            for j, data in enumerate(row):
                pixels = np.frombuffer(self._unpack(data), np.uint8).reshape(height, width, *last)
                picture[i * height : (i + 1) * height, j * width : (j + 1) * width] = pixels
        return picture

    def _pack(self, data: bytes) -> bytes:
        return data if self.level is None else _compressor(self.level).compress(data)

    def _unpack(self, data: bytes) -> bytes:
        return data if self.level is None else _decompressor().decompress(data)


@dataclass(frozen=True)
class Delta:
    """Planes G, R−G, B−G, each row minus the row above (all modulo 256, a tile's first row as it is), Zstandard.

    Photographs halve: colours go together, and so do neighbouring rows. Differences along rows too would save
    another 7 % of the bytes, but undoing them is a running sum over every pixel, half as dear again as the whole
    rest; down the columns a row is added to the next at once.
    """

    level: int = 1

    def dataset(self, height: int, width: int, tile: int) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
        """See `Codec`."""
        return (3, height, width), (3, min(tile, height), min(tile, width)), _zstandard_filter(self.level)

    def corner(self, y: int, x: int) -> tuple[int, ...]:
        """See `Codec`."""
        return (0, y, x)

    def tile_shape(self, chunk: tuple[int, ...]) -> tuple[int, int]:
        """See `Codec`."""
        return chunk[-2], chunk[-1]

    def encode(self, picture: Array, tile: tuple[int, int]) -> list[list[bytes]]:
        """See `Codec`."""
        compress = _compressor(self.level).compress
        rows = []
        for slab in _slabs(picture, tile):
            red, green, blue = cv2.split(slab)
            planes = np.stack((green, red - green, blue - green))  # (3, h, W), modulo 256
            planes[:, 1:] -= planes[:, :-1].copy()
            width = tile[1]
            rows.append([compress(planes[:, :, x : x + width].tobytes()) for x in range(0, slab.shape[1], width)])
        return rows

    def decode(self, grid: Grid, tile: tuple[int, int]) -> Array:
        """See `Codec`."""
        height, width = tile
        decompress = _decompressor().decompress
        planes = np.empty((len(grid), 3, height, len(grid[0]) * width), np.uint8)
        for i, row in enumerate(grid):
            for j, data in enumerate(row):
                pixels = np.frombuffer(decompress(data), np.uint8).reshape(3, height, width)
                planes[i, :, :, j * width : (j + 1) * width] = pixels
        for y in range(1, height):
            planes[:, :, y] += planes[:, :, y - 1]
        planes[:, 1:] += planes[:, :1]
        picture = np.empty((len(grid) * height, planes.shape[-1], 3), np.uint8)
        for i, (green, red, blue) in enumerate(planes):
            cv2.merge((red, green, blue), dst=picture[i * height : (i + 1) * height])
        return picture


@dataclass(frozen=True)
class Jpeg:
    """A baseline JPEG without chroma subsampling per tile."""

    quality: int

    def dataset(self, height: int, width: int, tile: int) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
        """See `Codec`."""
        chunk = (min(tile, height), min(tile, width), 3)
        options = (self.quality, chunk[1], chunk[0], 1)  # quality, columns, rows, colour
        filters = {"compression": JPEG, "compression_opts": options, "allow_unknown_filter": True}
        return (height, width, 3), chunk, filters

    def corner(self, y: int, x: int) -> tuple[int, ...]:
        """See `Codec`."""
        return (y, x, 0)

    def tile_shape(self, chunk: tuple[int, ...]) -> tuple[int, int]:
        """See `Codec`."""
        return chunk[-3], chunk[-2]

    def encode(self, picture: Array, tile: tuple[int, int]) -> list[list[bytes]]:
        """See `Codec`."""
        # Edges are repeated, not blackened: a black border would ring into the picture.
        return [
            [self._encode_tile(slab[:, x : x + tile[1]]) for x in range(0, slab.shape[1], tile[1])]
            for slab in _slabs(picture, tile, cv2.BORDER_REPLICATE)
        ]

    def _encode_tile(self, pixels: Array) -> bytes:
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

    def decode(self, grid: Grid, tile: tuple[int, int]) -> Array:
        """See `Codec`."""
        rows = [[cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) for data in row] for row in grid]
        if any(pixels is None or pixels.shape[:2] != tile for row in rows for pixels in row):
            raise ValueError("a JPEG tile is damaged")
        return np.concatenate([np.concatenate(row, axis=1) for row in rows])


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
        "jpeg": Packing(Jpeg(quality), delta, masks, shares_opaque=False),
    }
    return packings[name]


# Bytes per composite pixel, trimap included, of photographs with a quarter of opaque pixels: for estimates only.
TYPICAL_BYTES = {"delta": 0.75, "solid": 1.45, "plain": 4.0, "jpeg": 0.55}


def _zstandard_filter(level: int) -> dict[str, Any]:
    # The number in the filter's options matters to writers only; any Zstandard frame is read by any level's reader.
    return {"compression": ZSTANDARD, "compression_opts": (max(level, 1),), "allow_unknown_filter": True}


def _slabs(picture: Array, tile: tuple[int, int], border: int = cv2.BORDER_CONSTANT) -> Iterator[Array]:
    """Cut a picture into rows of tiles, filled up to whole tiles."""
    height, width = picture.shape[:2]
    right = -width % tile[1]
    for top in range(0, height, tile[0]):
        slab = picture[top : top + tile[0]]
        below = tile[0] - len(slab)
        if right or below:
            slab = np.asarray(cv2.copyMakeBorder(slab, 0, below, 0, right, border, value=(0, 0, 0, 0)), np.uint8)
        yield slab
