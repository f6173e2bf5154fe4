"""Probe: what a picture's header says. Whoever asks for its size or its pixels asks here first.

Pillow's plug-ins read the headers. Its own guard against large pictures, `PIL.Image.MAX_IMAGE_PIXELS`, belongs to the
process and is left alone: the plug-ins are called without it, and the limit is the caller's.
"""

from __future__ import annotations

import re
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import IO, Any, Final, Literal

from PIL import Image, TiffImagePlugin, features

from ..base.errors import SourceError

PLUGINS: Final = {  # format: the module that reads it, the endings of its files
    "JPEG": ("PIL.JpegImagePlugin", (".jpg", ".jpeg", ".jfif", ".jpe")),
    "PNG": ("PIL.PngImagePlugin", (".png",)),
    "WEBP": ("PIL.WebPImagePlugin", (".webp",)),
    "TIFF": ("PIL.TiffImagePlugin", (".tif", ".tiff")),
    "AVIF": ("PIL.AvifImagePlugin", (".avif",)),
    "BMP": ("PIL.BmpImagePlugin", (".bmp",)),
    "GIF": ("PIL.GifImagePlugin", (".gif",)),
    "JPEG2000": ("PIL.Jpeg2KImagePlugin", (".jp2", ".j2k")),
    "PPM": ("PIL.PpmImagePlugin", (".ppm", ".pgm", ".pbm")),
    "SGI": ("PIL.SgiImagePlugin", (".sgi",)),
    "HEIF": ("pillow_heif", (".heic", ".heif")),
    "TGA": ("PIL.TgaImagePlugin", (".tga",)),  # it has no mark of its own, so it is tried last
}


OPTIONAL: Final = {"AVIF": "a Pillow with AVIF", "HEIF": "pip install pillow-heif"}


def _is_there(format: str) -> bool:
    if format == "HEIF":
        return find_spec("pillow_heif") is not None
    return format != "AVIF" or bool(features.check("avif"))


ENDINGS: Final = frozenset(ending for name, (_, endings) in PLUGINS.items() if _is_there(name) for ending in endings)


MAX_PIXELS: Final = 250_000_000  # refuse more from the header: a file of a kilobyte can declare a terabyte


ORIENTATION: Final = 0x0112  # EXIF tag; 1 is upright


LOSSY: Final = ("JPEG", "WEBP", "AVIF", "HEIF", "JPEG2000")


BRANDS: Final = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIF", b"heix": "HEIF", b"mif1": "HEIF", b"hevc": "HEIF"}


PLANAR, FLOAT, UNSIGNED, ASSOCIATED = 2, 3, 1, 1  # values of TIFF's tags


@dataclass(frozen=True)
class Header:
    """What is known of a picture before it is decoded.

    Attributes
    ----------
    picture : PIL.ImageFile.ImageFile
        Open, and not decoded.
    format : str
        As Pillow calls it.
    space : {"grey", "rgb", "cmyk"}
        What the colour channels are.
    bits : {8, 16}
        A sample's.
    alpha : {"none", "straight", "associated", "key"}
        Whether there is transparency: a channel; one that the colours are multiplied by; one level or colour.
    orientation : int
        EXIF's, 1 upright .. 8: what is still to be done to what is decoded.
    profile : bytes or None
        The ICC profile.
    is_lossy : bool
        Whether levels may be off by what compression does to them.
    rawmode : str
        How Pillow unpacks the samples, such as ``RGB;16B``; empty where its decoder does that by itself.
    """

    picture: Any
    format: str
    space: Literal["grey", "rgb", "cmyk"]
    bits: int
    alpha: Literal["none", "straight", "associated", "key"]
    orientation: int
    profile: bytes | None
    is_lossy: bool
    rawmode: str

    @property
    def stored_size(self) -> tuple[int, int]:
        """(height, width) px as the file stores it."""
        width, height = self.picture.size
        return height, width

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) px upright."""
        height, width = self.stored_size
        return (width, height) if self.orientation >= 5 else (height, width)


def probe(file: IO[bytes], name: str, max_pixels: int) -> Header:
    """Read a picture's header.

    Parameters
    ----------
    file : binary file
        Open at any place.
    name : str
        What to call it in errors; .tga is read by its ending.
    max_pixels : int
        Refuse more than this.

    Raises
    ------
    SourceError
        Causes ``not-an-image``, ``too-large``, ``unsupported``.
    """
    with quiet():
        picture = _open(file, name)
        width, height = picture.size
        if width * height > max_pixels:
            raise too_large(name, f"its header declares {width}×{height} px, over the limit of {max_pixels:,} px")
        _refuse_unsupported(picture, name)
        try:
            return _header(picture)
        except Exception as error:
            raise _unreadable(name, error) from None


def too_large(name: str, reason: str) -> SourceError:
    """Return the error of a picture that is over a limit."""
    return SourceError(name, "too-large", f"{reason}; reduce it (or, for a build, raise max_pixels in the recipe)")


_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_filters: warnings.catch_warnings[None] | None = None


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore what decoders warn of: malformed metadata; the pixels are judged. The caller's filters come back.

    Threads share a process's filters: the first that comes puts them away, the last that goes puts them back.
    """
    global _quiet_depth, _quiet_filters
    with _quiet_lock:
        _quiet_depth += 1
        if _quiet_depth == 1:
            _quiet_filters = warnings.catch_warnings()
            _quiet_filters.__enter__()
            warnings.simplefilter("ignore")
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0 and _quiet_filters is not None:
                _quiet_filters.__exit__(None, None, None)


def _open(file: IO[bytes], name: str) -> Any:
    file.seek(0)
    prefix = file.read(16)
    for format in PLUGINS:
        if format == "TGA" and not name.lower().endswith(".tga"):
            continue
        plugin = _plugin(format)
        if plugin is None or not (plugin[1] is None or plugin[1](prefix) is True):
            continue
        if format == "TIFF":
            _refuse_unsupported_tiff(file, name)
        file.seek(0)
        try:
            return plugin[0](file, "")
        except Image.DecompressionBombError as error:
            raise too_large(name, str(error)) from None
        except Exception as error:
            raise _unreadable(name, error) from None
    raise _unknown(prefix, name)


@cache
def _plugin(format: str) -> tuple[Callable[..., Any], Callable[[bytes], bool | str] | None] | None:
    """Return a format's opener and the test of a file's first bytes; None where its module is not installed."""
    if not _is_there(format):
        return None
    module = import_module(PLUGINS[format][0])
    if format == "HEIF":  # its opener, without registering it for the whole process
        return module.HeifImageFile, lambda prefix: BRANDS.get(prefix[8:12]) == "HEIF" and prefix[4:8] == b"ftyp"
    return Image.OPEN[format]


def _unknown(prefix: bytes, name: str) -> SourceError:
    format = BRANDS.get(prefix[8:12], "") if prefix[4:8] == b"ftyp" else ""
    if format in OPTIONAL:
        return SourceError(name, "unsupported", f"{format} is not read here: it needs {OPTIONAL[format]}")
    expected = ", ".join(format for format in PLUGINS if _is_there(format))
    return SourceError(name, "not-an-image", f"not a picture; expected {expected}")


def _unreadable(name: str, error: Exception) -> SourceError:
    if found := re.search(r"cannot handle (\d+)-bit", str(error)):
        return SourceError(name, "unsupported", f"{found[1]}-bit JPEG is not read; save 8 bits, or a 16-bit PNG")
    return SourceError(name, "not-an-image", f"its header cannot be read: {first_line(error)}")


def first_line(error: Exception) -> str:
    """Return what a library says, or what its error is called."""
    return (str(error) or type(error).__name__).strip().splitlines()[0]


def _refuse_unsupported_tiff(file: IO[bytes], name: str) -> None:
    """Say what a TIFF has that is not read; Pillow would call it damaged, or read it wrong."""
    file.seek(0)
    try:
        start = file.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(start + (file.read(8) if start[2] == 43 else b""))
        file.seek(tags.next)
        tags.load(file)
        bits, kinds = tuple(map(int, tags.get(258, (1,)))), tuple(map(int, tags.get(339, (UNSIGNED,))))
        planar = tags.get(284, 1)
    except Exception as error:
        raise _unreadable(name, error) from None
    reason = None
    if FLOAT in kinds:
        reason = f"float{max(bits)} TIFF is not read; save 16 bits"
    elif max(bits) > 16 or set(kinds) - {UNSIGNED, 4}:
        reason = f"{max(bits)}-bit{' signed' if 2 in kinds else ''} TIFF is not read; save 16 bits, unsigned"
    elif planar == PLANAR and max(bits) > 8 and len(bits) > 1:
        reason = "TIFF of 16 bits whose channels lie one after the other is not read; save them interleaved"
    if reason:
        raise SourceError(name, "unsupported", reason)


def _refuse_unsupported(picture: Any, name: str) -> None:
    mode = picture.mode
    if mode == "F":
        raise SourceError(name, "unsupported", f"float32 {picture.format} is not read; save 16 bits")
    if mode in ("LAB", "HSV"):
        raise SourceError(name, "unsupported", f"{mode} colours are not read; save RGB")


def _header(picture: Any) -> Header:
    format = "JPEG" if picture.format == "MPO" else str(picture.format)
    mode, rawmode = picture.mode, _rawmode(picture)
    has_channel = mode in ("RGBA", "LA", "PA", "La", "RGBa")
    grey = mode in ("1", "L", "LA", "La", "I") or mode.startswith("I;16") or rawmode.startswith("LA;16")
    deep = format in ("PNG", "TIFF") and ";16" in rawmode and mode != "CMYK"
    alpha: Literal["none", "straight", "associated", "key"] = "none"
    if has_channel:
        extra = picture.tag_v2.get(338, ()) if format == "TIFF" else ()
        alpha = "associated" if mode in ("La", "RGBa") or ASSOCIATED in extra else "straight"
    elif picture.info.get("transparency") is not None:
        alpha = "straight" if mode == "P" else "key"
    return Header(
        picture=picture,
        format=format,
        space="cmyk" if mode == "CMYK" else "grey" if grey else "rgb",
        bits=16 if deep or mode.startswith("I") else 8,
        alpha=alpha,
        orientation=_orientation(picture),
        profile=picture.info.get("icc_profile") or None,
        is_lossy=format in LOSSY and not (format == "WEBP" and _is_lossless_webp(picture.fp)),
        rawmode=rawmode,
    )


def _rawmode(picture: Any) -> str:
    if not picture.tile:
        return ""
    found = picture.tile[0][3]
    found = found[0] if isinstance(found, tuple) and found else found
    return found if isinstance(found, str) else ""


def _orientation(picture: Any) -> int:
    """Return what is to be done to what is decoded; 1 where nothing is, or what EXIF says of it is malformed."""
    if picture.format in ("TIFF", "HEIF"):
        return 1  # their decoders turn the picture, and their size is that of the turned one
    if picture.format == "PNG" and "exif" not in picture.info and (late := _late_exif(picture.fp)):
        picture.info["exif"] = late
    try:
        found = Image.Image.getexif(picture).get(ORIENTATION, 1)  # PNG's own would decode the picture
    except Exception:
        return 1
    return found if found in range(1, 9) else 1


def _is_lossless_webp(file: IO[bytes]) -> bool:
    at = 12
    while True:
        file.seek(at)
        start = file.read(8)
        if len(start) < 8 or start[:4] in (b"VP8 ", b"VP8L", b"ANMF"):
            return start[:4] == b"VP8L"
        length = int.from_bytes(start[4:], "little")
        at += 8 + length + length % 2


def _late_exif(file: IO[bytes]) -> bytes | None:
    """Look for EXIF behind a PNG's pixels, where it may lie, too."""
    at, here = 8, file.tell()
    try:
        while True:
            file.seek(at)
            start = file.read(8)
            if len(start) < 8:
                return None
            length, kind = struct.unpack(">I4s", start)
            if kind == b"eXIf":
                return b"Exif\0\0" + file.read(min(length, 2**16))
            at += 12 + length
    finally:
        file.seek(here)
