"""Sources: picture files in, foreground, alpha and background arrays out. Files are untrusted.

Two decoders share the work. OpenCV decodes plain JPEG twice as fast as Pillow to the same pixels, and 16-bit colour,
which Pillow cuts to 8 bits; but it shows a truncated file as if it were whole, and reads CMYK, palettes and ICC
profiles in ways of its own. So Pillow reads every header, and everything that is not plain JPEG or 16-bit colour.
"""

from __future__ import annotations

import hashlib
import io
import stat
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from ..base.errors import FileError, SourceError
from ..base.files import encode_picture, write_file
from ..recipe import Reading

__all__ = ["read_grey", "read_image", "read_image_alpha", "write_picture"]

Array = NDArray[np.uint8]


ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".sgi"})


FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "SGI")


MAX_BYTES = 2**30  # no picture file of a gigabyte is a picture


ORIENTATION = 0x0112  # EXIF tag; 1 is upright


# What malformed pictures make the decoders raise.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, AttributeError, ArithmeticError,
          RuntimeError, struct.error, cv2.error)  # fmt: skip


# Pillow's own guard is replaced by `max_pixels`, which is checked on the header, before anything is decoded.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Foreground:
    """A foreground as composition needs it.

    Attributes
    ----------
    image : (H, W, 3) uint8 RGB, true colours also where alpha is fractional
    alpha : (H, W) uint8, 0 clear .. 255 opaque
    sha256 : hex digest over the bytes of the files it came from
    """

    image: Array
    alpha: Array
    sha256: str


def safe_path(root: Path, name: str) -> Path:
    """Join a name from a list or a manifest to its root.

    Raises
    ------
    SourceError : cause ``unsupported``, where the name is absolute or would leave the root
    """
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\0" in name or not pure.parts:
        raise SourceError(name, "unsupported", "a name must stay below its root: no '..', no absolute path")
    return root / pure


def picture_size(path: Path, name: str, max_pixels: int, reading: Reading = "seen") -> tuple[int, int]:
    """Read (height, width) px from a picture's header, upright where `reading` is ``seen``; nothing is decoded.

    Raises
    ------
    SourceError : as `read_rgb`
    """
    try:
        _refuse_special(path, name)
        with path.open("rb") as file:
            picture = _open(file, name, max_pixels)
            width, height = picture.size
            turned = reading == "seen" and "exif" in picture.info and _is_turned(picture)
    except OSError as error:
        raise _missing(name, error) from None
    return (width, height) if turned else (height, width)


def read_rgb(path: Path, name: str, max_pixels: int, reading: Reading = "seen") -> tuple[Array, str]:
    """Read a picture's colours, without its alpha.

    Parameters
    ----------
    path : where it lies
    name : what to call it in errors
    max_pixels : refuse more than this, from the header
    reading : upright and in sRGB, or as stored

    Returns
    -------
    (H, W, 3) uint8 RGB, and the SHA-256 of the file

    Raises
    ------
    SourceError : causes ``missing``, ``empty``, ``not-an-image``, ``truncated``, ``too-large``, ``unsupported``
    """
    data = _read_bytes(path, name)
    pixels = _decode(data, name, max_pixels, reading, colour_managed=True)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return np.ascontiguousarray(pixels[..., :3]), hashlib.sha256(data).hexdigest()


def read_alpha(path: Path, name: str, max_pixels: int, reading: Reading = "seen") -> tuple[Array, str]:
    """Read an alpha: channel 0 of whatever channels there are, untouched by gamma and ICC chunks.

    Returns
    -------
    (H, W) uint8, and the SHA-256 of the file

    Raises
    ------
    SourceError : as `read_rgb`
    """
    data = _read_bytes(path, name)
    pixels = _decode(data, name, max_pixels, reading, colour_managed=False)
    return np.ascontiguousarray(pixels if pixels.ndim == 2 else pixels[..., 0]), hashlib.sha256(data).hexdigest()


def read_pair(image: Path, alpha: Path, name: str, max_pixels: int, reading: Reading = "seen") -> Foreground:
    """Read a foreground and its alpha from two files.

    Raises
    ------
    SourceError : as `read_rgb`, and ``size-mismatch``
    """
    rgb, image_sha = read_rgb(image, name, max_pixels, reading)
    matte, alpha_sha = read_alpha(alpha, f"{name} (alpha {alpha.name})", max_pixels, reading)
    if rgb.shape[:2] != matte.shape:
        raise SourceError(
            name,
            "size-mismatch",
            f"the foreground is {rgb.shape[1]}×{rgb.shape[0]} px, its alpha {alpha.name} is"
            f" {matte.shape[1]}×{matte.shape[0]}; they must be of one size",
        )
    return Foreground(rgb, matte, hashlib.sha256((image_sha + alpha_sha).encode()).hexdigest())


def read_cutout(path: Path, name: str, max_pixels: int, reading: Reading = "seen") -> Foreground:
    """Read a cut-out: a picture with straight alpha.

    Raises
    ------
    SourceError : as `read_rgb`, and ``no-alpha``
    """
    data = _read_bytes(path, name)
    pixels = _decode(data, name, max_pixels, reading, colour_managed=True)
    if pixels.ndim == 2 or pixels.shape[2] != 4:
        raise SourceError(
            name, "no-alpha", "this picture has no alpha channel; for pictures with alphas beside them use layout pairs"
        )
    rgb, matte = np.ascontiguousarray(pixels[..., :3]), np.ascontiguousarray(pixels[..., 3])
    return Foreground(rgb, matte, hashlib.sha256(data).hexdigest())


def limit_side(foreground: Foreground, max_side: int | None, enlarge_to: int | None = None) -> Foreground:
    """Reduce a foreground whose longer side exceeds `max_side` px; enlarge one whose longer side is below `enlarge_to`.

    Colours are averaged premultiplied, so that I = αF + (1−α)B of the scaled parts is the scaled composite.
    Where alpha is clear, colours are averaged as they are.
    """
    size = composed_size(foreground.alpha.shape, max_side, enlarge_to)
    if size == foreground.alpha.shape:
        return foreground
    return Foreground(*resized(foreground.image, foreground.alpha, size), foreground.sha256)


def resized(image: Array, alpha: Array, size: tuple[int, int]) -> tuple[Array, Array]:
    """Scale colours (H, W, 3) and alpha (H, W), both uint8, to `size` (height, width) px, as `limit_side` does."""
    sides = size[::-1]
    way = cv2.INTER_AREA if max(sides) < max(alpha.shape) else cv2.INTER_CUBIC
    weight = alpha.astype(np.float32)[..., None]
    premultiplied = cv2.resize(image * weight, sides, interpolation=way)
    matte = cv2.resize(alpha.astype(np.float32), sides, interpolation=way).clip(0, 255)
    plain = cv2.resize(image, sides, interpolation=way)
    true = premultiplied / np.maximum(matte, 1e-6)[..., None]
    scaled = np.where(matte[..., None] >= 0.5, np.clip(np.rint(true), 0, 255).astype(np.uint8), plain)
    return scaled, np.rint(matte).astype(np.uint8)


def composed_size(size: tuple[int, ...], max_side: int | None, enlarge_to: int | None = None) -> tuple[int, int]:
    """Return (height, width) px as composed; the same where neither limit is crossed, and never more than double."""
    height, width = size
    scale = 1.0
    if max_side is not None:
        scale = min(scale, max_side / max(size))
    if enlarge_to is not None:
        scale = max(scale, min(2.0, enlarge_to / max(size)))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _read_bytes(path: Path, name: str) -> bytes:
    try:
        size = _refuse_special(path, name)
        if size > MAX_BYTES:
            raise SourceError(name, "too-large", f"the file has {size:,} bytes; a picture has less")
        data = path.read_bytes()
    except OSError as error:
        raise _missing(name, error) from None
    if not data:
        raise SourceError(name, "empty", "the file has no bytes; fetch it again")
    return data


def _refuse_special(path: Path, name: str) -> int:
    """Return a file's size; refuse devices and pipes, which end never or do not begin."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise SourceError(name, "not-an-image", "expected a file, found a folder, a device or a pipe")
    return found.st_size


def _is_turned(picture: Image.Image) -> bool:
    """Tell whether a picture lies on its side, by what EXIF says; it says nothing where it is malformed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return picture.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
        except DAMAGE:
            return False


def _missing(name: str, error: OSError) -> SourceError:
    return SourceError(name, "missing", f"cannot be read: {error.strerror or error}")


def _open(file: IO[bytes], name: str, max_pixels: int) -> Image.Image:
    """Open a picture's header, and refuse what is no picture or too large a one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of malformed metadata; the pixels are judged below
            picture = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise SourceError(name, "not-an-image", f"not a picture; expected {', '.join(FORMATS)}") from None
    except (*DAMAGE, Image.DecompressionBombError) as error:
        raise SourceError(name, "not-an-image", f"its header cannot be read: {error}") from None
    width, height = picture.size
    if width * height > max_pixels:
        raise SourceError(
            name,
            "too-large",
            f"its header declares {width}×{height} px, over the limit of {max_pixels:,} px; reduce it"
            " (or, for a build, raise max_pixels in the recipe)",
        )
    return picture


def _decode(data: bytes, name: str, max_pixels: int, reading: Reading, *, colour_managed: bool) -> Array:
    """Decode to (H, W), (H, W, 3) RGB or (H, W, 4) RGBA uint8."""
    picture = _open(io.BytesIO(data), name, max_pixels)
    pixels: MatLike | None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of malformed metadata, as above
            if reading == "stored":
                pixels = _decode_stored(picture)
            elif _is_plain_jpeg(picture, data, colour_managed):
                pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
            elif _is_deep_colour(picture, data):
                pixels = _decode_deep(picture, data)
            else:
                pixels = _decode_any(picture, colour_managed)
    except DAMAGE as error:
        if isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem:
            raise MemoryError(str(error)) from None  # the picture is not to blame
        reason = f"the file breaks off or is damaged ({_first_line(error)}); fetch it again"
        raise SourceError(name, "truncated", reason) from None
    if pixels is None:
        raise SourceError(name, "truncated", "the file is damaged: no pixels could be decoded; fetch it again")
    return np.asarray(pixels, np.uint8)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]


def _is_plain_jpeg(picture: Image.Image, data: bytes, colour_managed: bool) -> bool:
    """Tell a JPEG that OpenCV reads as Pillow does: 8-bit colour, whole, sRGB."""
    return (
        picture.format in ("JPEG", "MPO")
        and picture.mode == "RGB"
        and data.endswith(b"\xff\xd9")  # OpenCV fills up what a truncated file lacks, and says nothing
        and not (colour_managed and _profile(picture))
    )


def _is_deep_colour(picture: Image.Image, data: bytes) -> bool:
    if picture.format == "PNG":
        return picture.mode in ("RGB", "RGBA") and data[24] == 16  # IHDR's bit depth
    if picture.format == "TIFF":
        bits = picture.tag_v2.get(258, ())  # type: ignore[attr-defined]  # BitsPerSample
        return picture.mode in ("RGB", "RGBA") and 16 in (bits if isinstance(bits, tuple) else (bits,))
    return False


def _decode_deep(picture: Image.Image, data: bytes) -> Array:
    picture.load()  # raises where the file is truncated
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise ValueError("16-bit colour was declared but not found")
    order = cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return _to_8_bit(np.asarray(cv2.cvtColor(pixels, order), np.uint16))


def _to_8_bit(pixels: NDArray[np.uint16]) -> Array:
    return ((pixels.astype(np.uint32) * 255 + 32_767) // 65_535).astype(np.uint8)


def _decode_any(picture: Image.Image, colour_managed: bool) -> Array:
    if picture.mode in ("I;16", "I;16L", "I;16B", "I"):
        deep = np.asarray(ImageOps.exif_transpose(picture)).astype(np.int64)
        if deep.min(initial=0) < 0 or deep.max(initial=0) > 65_535:
            raise ValueError("grey values outside 0..65535")
        return _to_8_bit(deep.astype(np.uint16))
    if picture.mode in ("F", "LAB", "HSV"):
        raise ValueError(f"pixels of mode {picture.mode} are not supported; save it as 8- or 16-bit PNG")
    upright = ImageOps.exif_transpose(picture)
    has_alpha = upright.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in upright.info
    profile = _profile(picture) if colour_managed else None
    if profile is not None and not has_alpha:
        upright = _to_srgb(upright, profile)
    if upright.mode in ("1", "L"):
        return np.asarray(upright.convert("L"))
    return np.asarray(upright.convert("RGBA" if has_alpha else "RGB"))


def _decode_stored(picture: Image.Image) -> Array:
    """Decode with Pillow alone, whose pixels those who used Pillow have; other decoders need not agree to the bit."""
    if picture.mode.startswith("I") or picture.mode in ("F", "LAB", "HSV"):
        raise ValueError(f"pixels of mode {picture.mode} cannot be taken as stored; save it with 8 bits")
    has_alpha = picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
    if picture.mode in ("1", "L") and not has_alpha:
        return np.asarray(picture.convert("L"))
    return np.asarray(picture.convert("RGBA" if has_alpha else "RGB"))


def _profile(picture: Image.Image) -> ImageCms.ImageCmsProfile | None:
    """Return a picture's colour profile, or None where it has none, a broken one, or sRGB."""
    data = picture.info.get("icc_profile")
    if not data:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        return None if "sRGB" in ImageCms.getProfileDescription(profile) else profile
    except (OSError, ImageCms.PyCMSError):
        return None


def _to_srgb(picture: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    try:
        converted = ImageCms.profileToProfile(picture, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, ValueError):
        return picture  # a profile for another kind of pixels than these says nothing about them
    return converted if converted is not None else picture


MAX_PIXELS: Final = 250_000_000  # refuse more from the header: a file of a kilobyte can declare a terabyte


def read_image(path: Path) -> Array:
    """Read (H, W, 3) uint8 RGB, upright, in sRGB. Raise SourceError where it cannot be."""
    return read_rgb(path, path.name, MAX_PIXELS)[0]


def read_image_alpha(path: Path) -> Foreground:
    """Read a picture with its own alpha. Raise SourceError where it cannot be, or has none."""
    return read_cutout(path, path.name, MAX_PIXELS)


def read_grey(path: Path) -> Array:
    """Read an alpha, trimap or mask, (H, W) uint8: its first channel. Raise SourceError where it cannot be."""
    return read_alpha(path, path.name, MAX_PIXELS)[0]


def write_picture(path: Path, picture: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """Write (H, W[, 3 or 4]) RGB(A), 8 or 16 bits, in the format that the name says: whole, or not at all.

    Raises
    ------
    FileError : its format is not among those that are written
    BuildError : it cannot be written
    """
    try:
        write_file(path, encode_picture(picture, path.suffix.lower()))
    except cv2.error:
        raise FileError(f"{path}: pictures are not written as '{path.suffix}'; use .png or .jpg") from None
