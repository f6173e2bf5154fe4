"""Image I/O: picture files in, colours, foregrounds and sizes out; pictures written. Files are untrusted.

A header answers through `probe`, pixels through `decode`, which asks `probe` too; mattes are read by `mattes`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..base.arrays import UInt8Array, UInt16Array
from ..base.errors import FileError, SourceError
from ..base.files import encode_picture, write_file
from ..compositing.resize import resize_foreground, resize_picture
from ..dataset.documents import InputRecord, record_input
from ..recipe import Reading
from .decode import decode_colours, decode_stored
from .mattes import own_alpha, read_matte
from .picture_bytes import open_picture, read_bytes
from .probe import MAX_PIXELS, probe

__all__ = ["read_image", "read_image_alpha", "write_picture"]


@dataclass(frozen=True)
class Foreground:
    """A foreground as composition needs it.

    Attributes
    ----------
    image : (H, W, 3) uint8 RGB
        True colours, also where alpha is fractional.
    alpha : (H, W) uint8
        0 clear .. 255 opaque.
    sha256 : str
        In hex, over the bytes of the files it came from.
    files : tuple[InputRecord, ...]
        These files, each of the one read that was used; none where it was drawn.
    """

    image: UInt8Array
    alpha: UInt8Array
    sha256: str
    files: tuple[InputRecord, ...] = ()


def pair_sha256(image: str, alpha: str) -> str:
    """Return the one digest of a foreground in two files, from the SHA-256 of each."""
    return hashlib.sha256((image + alpha).encode()).hexdigest()


def picture_size(path: Path, name: str, max_pixels: int, reading: Reading = "seen") -> tuple[int, int]:
    """Read (height, width) px from a picture's header, upright where `reading` is ``seen``; nothing is decoded.

    Raises
    ------
    SourceError
        As `read_rgb`.
    """
    with open_picture(path, name) as file:
        header = probe(file, name, max_pixels)
        return header.size if reading == "seen" else header.stored_size


def read_rgb(path: Path, name: str, max_pixels: int, reading: Reading = "seen") -> tuple[UInt8Array, InputRecord]:
    """Read a picture's colours, without its alpha.

    Parameters
    ----------
    path : Path
        Where it lies.
    name : str
        What to call it in errors.
    max_pixels : int
        Refuse more than this, from the header.
    reading : {"seen", "stored"}
        Upright and in sRGB, or as stored.

    Returns
    -------
    (H, W, 3) uint8 RGB
        The colours.
    InputRecord
        The file's size and digest, of the one read that the colours came from.

    Raises
    ------
    SourceError
        Causes ``missing``, ``empty``, ``not-an-image``, ``truncated``, ``too-large``, ``unsupported``.
    """
    data = read_bytes(path, name)
    decode = decode_stored if reading == "stored" else decode_colours
    pixels = decode(data, name, max_pixels)
    return _rgb(pixels), record_input(data)


def read_pair(image: Path, alpha: Path, name: str, max_pixels: int, reading: Reading = "seen") -> Foreground:
    """Read a foreground and its alpha from two files.

    Raises
    ------
    SourceError
        As `read_rgb` and `mattes.read_matte`, and ``size-mismatch``.
    """
    rgb, image_file = read_rgb(image, name, max_pixels, reading)
    matte, alpha_file = read_matte(alpha, f"{name} (alpha {alpha.name})", max_pixels, reading)
    if rgb.shape[:2] != matte.shape:
        raise SourceError(
            name,
            "size-mismatch",
            f"the foreground is {rgb.shape[1]}×{rgb.shape[0]} px, its alpha {alpha.name} is"
            f" {matte.shape[1]}×{matte.shape[0]}; they must be of one size",
        )
    digest = pair_sha256(image_file.sha256, alpha_file.sha256)
    files = tuple(InputRecord(bytes=file.bytes, sha256=digest) for file in (image_file, alpha_file))
    return Foreground(rgb, matte, digest, files)


def read_cutout(path: Path, name: str, max_pixels: int, reading: Reading = "seen") -> Foreground:
    """Read a cut-out: a picture with its own alpha.

    Raises
    ------
    SourceError
        As `read_rgb`, and ``no-alpha``.
    """
    data = read_bytes(path, name)
    decode = decode_stored if reading == "stored" else decode_colours
    pixels = decode(data, name, max_pixels)
    if pixels.ndim == 2 or pixels.shape[2] not in (2, 4):
        raise SourceError(
            name, "no-alpha", "this picture has no alpha channel; for pictures with alphas beside them use layout pairs"
        )
    matte = np.asarray(cv2.extractChannel(pixels, pixels.shape[2] - 1), np.uint8)
    if reading == "seen":
        matte = own_alpha(matte, path, name)
    file = record_input(data)
    return Foreground(_rgb(pixels), matte, file.sha256, (file,))


def _rgb(pixels: UInt8Array) -> UInt8Array:
    """Return the colours (H, W, 3) of (H, W) or (H, W, 1..4)."""
    if pixels.ndim == 2 or pixels.shape[2] < 3:
        grey = pixels if pixels.ndim == 2 else pixels[..., 0]
        return np.repeat(grey[..., None], 3, axis=2)
    if pixels.shape[2] == 3:
        return np.ascontiguousarray(pixels)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB), np.uint8)  # several times as quick as NumPy's copy


def limit_side(
    foreground: Foreground, max_side: int | None, enlarge_to: int | None = None, *, composed: bool = True
) -> Foreground:
    """Reduce a foreground whose longer side exceeds `max_side` px; enlarge one whose longer side is below `enlarge_to`.

    See `resize_foreground`, and `resize_picture` for one that will not be `composed`.
    """
    size = composed_size(foreground.alpha.shape, max_side, enlarge_to)
    if size == foreground.alpha.shape:
        return foreground
    resize = resize_foreground if composed else resize_picture
    return Foreground(*resize(foreground.image, foreground.alpha, size), foreground.sha256, foreground.files)


def limit_picture(image: UInt8Array, max_side: int | None) -> UInt8Array:
    """Reduce (H, W[, C]) whose longer side exceeds `max_side` px, by area averaging."""
    height, width = composed_size(image.shape[:2], max_side)
    if (height, width) == image.shape[:2]:
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def composed_size(size: tuple[int, ...], max_side: int | None, enlarge_to: int | None = None) -> tuple[int, int]:
    """Return (height, width) px as composed; the same where neither limit is crossed, and never more than double."""
    height, width = size
    scale = 1.0
    if max_side is not None:
        scale = min(scale, max_side / max(size))
    if enlarge_to is not None:
        scale = max(scale, min(2.0, enlarge_to / max(size)))
    return max(1, round(height * scale)), max(1, round(width * scale))


def read_image(path: Path) -> UInt8Array:
    """Read (H, W, 3) uint8 RGB, upright, in sRGB. Raise SourceError where it cannot be."""
    return read_rgb(path, path.name, MAX_PIXELS)[0]


def read_image_alpha(path: Path) -> Foreground:
    """Read a picture with its own alpha. Raise SourceError where it cannot be, or has none."""
    return read_cutout(path, path.name, MAX_PIXELS)


def write_picture(path: Path, picture: UInt8Array | UInt16Array) -> None:
    """Write (H, W[, 3 or 4]) RGB(A), 8 or 16 bits, in the format that the name says: whole, or not at all.

    Raises
    ------
    FileError
        Its format is not among those that are written.
    BuildError
        It cannot be written.
    """
    try:
        write_file(path, encode_picture(picture, path.suffix.lower()))
    except cv2.error:
        raise FileError(f"{path}: pictures are not written as '{path.suffix}'; use .png or .jpg") from None
