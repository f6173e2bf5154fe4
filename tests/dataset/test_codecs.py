"""Packings: lossless round trips at any size, and damage that is noticed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import photograph
from matting_compose.composer.dataset.codecs import Codec, Delta, Interleaved, Jpeg, WebP, even_tile
from matting_compose.composer.dataset.packings import load_packing

LOSSLESS: list[Codec] = [Delta(), Interleaved(3, 1), Interleaved(3, -3), Interleaved(3, None), WebP(3)]


def round_trip(codec: Codec, picture: np.ndarray, tile: int) -> np.ndarray:
    """Encode and decode a whole picture."""
    _, chunk, _ = codec.dataset(*picture.shape[:2], tile)
    shape = codec.tile_shape(chunk)
    rows = [np.hstack([codec.decode(data, shape) for data in row]) for row in codec.encode(picture, shape)]
    return np.vstack(rows)[: picture.shape[0], : picture.shape[1]]


@settings(max_examples=60)
@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([16, 32, 64]), st.integers(0, 9), st.booleans())
def test_lossless_packings_are(height: int, width: int, tile: int, seed: int, smooth: bool) -> None:
    """Whatever the picture's size and content, every byte comes back."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    picture = photograph(height, width, seed) if smooth else noise
    for codec in LOSSLESS:
        np.testing.assert_array_equal(round_trip(codec, picture, tile), picture)
    mask = np.ascontiguousarray(picture[..., 0])
    for codec in (Interleaved(1, 1), WebP(1)):
        np.testing.assert_array_equal(round_trip(codec, mask, tile), mask)


def test_jpeg_is_close() -> None:
    """The lossy packing is within what its quality promises, at the edges of odd sizes too."""
    picture = photograph(201, 163, 4)
    error = cv2.absdiff(round_trip(Jpeg(95), picture, 64), picture).astype(np.float64)
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 40
    assert error[-3:].mean() < 2 * error.mean() + 1


@given(st.integers(1, 5000), st.integers(16, 512))
def test_tiles_are_even(side: int, tile: int) -> None:
    """No more tiles than needed, none larger than asked for, and little to fill up."""
    even, count = even_tile(side, tile), -(-side // tile)
    assert even <= tile
    assert even * count >= side
    assert even * count - side < count


@pytest.mark.parametrize("codec", [Delta(), Interleaved(3, 1), Interleaved(3, -3), WebP(3)])
def test_a_flipped_bit_is_noticed(codec: Codec) -> None:
    """A tile carries its own checksum: damage is an error when it is read, never a wrong pixel."""
    picture = photograph(64, 64, 0)
    (whole,) = (tile for row in codec.encode(picture, (64, 64)) for tile in row)
    rng = np.random.default_rng(0)
    for bit in rng.integers(0, len(whole) * 8, 200):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << (bit % 8)
        try:
            decoded = codec.decode(bytes(broken), (64, 64))
        except (zstandard.ZstdError, ValueError):
            continue
        np.testing.assert_array_equal(decoded, picture)  # a bit that means nothing, such as an unused flag


def test_delta_beats_png() -> None:
    """The default packing is smaller than the same picture as PNG."""
    picture = photograph(256, 256, 1)
    size = sum(len(tile) for row in load_packing("delta").image.encode(picture, (128, 128)) for tile in row)
    assert size < 0.9 * len(cv2.imencode(".png", picture)[1])
