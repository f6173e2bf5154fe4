"""The targets that read pictures and mattes: tiny files of every format, depth, alpha, profile and orientation."""

from __future__ import annotations

import io
import itertools
import struct
import sys
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms, features
from PIL.PngImagePlugin import PngInfo

from matting_compose.composer.recipe import Reading
from matting_compose.composer.sources import image_io, mattes
from matting_compose.composer.sources.probe import ORIENTATION
from target import Target, file_of

sys.path.append(str(Path(__file__).parent.parent / "tests"))
import picture_files

MAX_PIXELS = 10_000  # inputs are quick, and what they may take is in proportion
NAME = "picture.tga"  # TGA alone is known by its ending


def read_picture(data: bytes) -> None:
    """Read a picture's colours, and its size, which must agree; or its cut-out. One in four is taken as stored."""
    path = file_of(data, NAME)
    if len(data) % 4 == 1:
        image_io.read_cutout(path, NAME, MAX_PIXELS)
        return
    reading: Reading = "seen" if len(data) % 4 else "stored"
    image, _ = image_io.read_rgb(path, NAME, MAX_PIXELS, reading)
    size = image_io.picture_size(path, NAME, MAX_PIXELS, reading)
    if image.shape != (*size, 3):
        raise AssertionError(f"the header says {size}, the pixels {image.shape}")


def read_matte(data: bytes) -> None:
    """Read a matte as what its length says, and make a trimap of it."""
    path = file_of(data, NAME)
    role = mattes.ROLES[len(data) % len(mattes.ROLES)]
    matte, _ = mattes.read_matte(path, NAME, MAX_PIXELS, role=role)
    mattes.mend_trimap(matte, NAME, matte.shape)


def pictures() -> Iterator[bytes]:
    """Code a small picture in every format, 8 and 16 bits, with metadata, with several frames."""
    rng = np.random.default_rng(1)
    colour = cv2.resize(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8), (10, 8), interpolation=cv2.INTER_CUBIC)
    rgba = Image.fromarray(np.dstack([colour, colour[..., :1]]))
    rgb, grey = Image.fromarray(np.asarray(colour, np.uint8)), Image.fromarray(np.asarray(colour[..., 0], np.uint8))
    exif, text = Image.Exif(), PngInfo()
    exif[ORIENTATION] = 6
    text.add_itxt("Comment", "long " * 50, zip=True)
    linear = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    for picture, kind, options in (
        (rgba, "PNG", {"pnginfo": text, "exif": exif, "icc_profile": matrix_profile()}),
        (rgb, "PNG", {"save_all": True, "append_images": [rgb]}),
        (rgb.quantize(7), "PNG", {"transparency": 0}),
        (grey, "PNG", {"transparency": 9}),
        (Image.fromarray(np.asarray(colour[..., 0] > 99, np.uint16)), "PNG", {}),
        (rgb, "JPEG", {"exif": exif, "icc_profile": linear}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (grey, "JPEG", {"progressive": True}),
        (rgba, "TIFF", {"compression": "tiff_lzw"}),
        (rgb, "TIFF", {"save_all": True, "append_images": [rgb], "icc_profile": matrix_profile()}),
        (grey.convert("I;16"), "TIFF", {}),
        (rgba, "WEBP", {"lossless": True, "exif": exif}),
        (rgb, "WEBP", {"save_all": True, "append_images": [rgb]}),
        (rgb, "BMP", {}),
        (rgb, "SGI", {}),
        (rgba, "TGA", {"compression": "tga_rle"}),
        (rgb, "PPM", {}),
        (rgba, "JPEG2000", {}),
        (rgb.quantize(5), "GIF", {"transparency": 1}),
        *([(rgba, "AVIF", {"exif": exif})] if features.check("avif") else []),
    ):
        file = io.BytesIO()
        picture.save(file, kind, **options)
        yield file.getvalue()
    if find_spec("pillow_heif"):
        from pillow_heif import from_pillow

        file = io.BytesIO()
        from_pillow(rgb).save(file)
        yield file.getvalue()
    yield from written()


def written() -> Iterator[bytes]:
    """Write PNG and TIFF of every depth, number of channels, kind of alpha, orientation and order of samples."""
    rng = np.random.default_rng(2)
    for bits, channels in itertools.product((8, 16), (1, 2, 3, 4)):
        levels = rng.integers(0, 2**bits, (5, 7, channels), dtype=np.uint16).astype(f"u{bits // 8}")
        profile = picture_files.icc("grey" if channels < 3 else "Display P3")
        for turned in (1, 3, 5, 6, 8):
            yield picture_files.png(levels, bits, orientation=turned, interlaced=turned == 3, late=turned == 6)
            yield picture_files.tiff(levels, orientation=turned, extra=turned % 3, photometric=None, planar=turned == 5)
        yield picture_files.png(levels, bits, profile=profile)
        yield picture_files.tiff(levels, profile=profile)
        yield picture_files.tiff(levels, photometric=0)
        if channels in (1, 3):
            yield picture_files.png(levels, bits, key=tuple(levels[1, 1].tolist()))
    for bits in (1, 2, 4, 8):
        indices = rng.integers(0, 2**bits, (5, 7, 1), dtype=np.uint8)
        yield picture_files.png(indices, bits)
        yield picture_files.png(indices * (indices < 2), bits, palette=rng.integers(0, 256, (2**bits, 3)), key=(0, 9))


def matrix_profile() -> bytes:
    """Write an ICC profile of curves and a matrix."""
    tags = {b"rXYZ": (0.6, 0.3, 0.02), b"gXYZ": (0.2, 0.6, 0.07), b"bXYZ": (0.15, 0.07, 0.7)}
    parts = {key: b"XYZ \0\0\0\0" + struct.pack(">3i", *(int(v * 65536) for v in value)) for key, value in tags.items()}
    para = b"para\0\0\0\0" + struct.pack(">HH5i", 3, 0, 157286, 62119, 3417, 5072, 2651)
    parts |= {b"rTRC": b"curv\0\0\0\0" + struct.pack(">IHH", 1, 563, 0), b"gTRC": para}
    parts |= {b"bTRC": b"curv\0\0\0\0" + struct.pack(">I4H", 4, 0, 9000, 30000, 65535)}
    table, body, at = struct.pack(">I", len(parts)), b"", 132 + 12 * len(parts)
    for key, value in parts.items():
        table += key + struct.pack(">II", at + len(body), len(value))
        body += value
    head = b"lcms" + struct.pack(">I", 0x02100000) + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    return struct.pack(">I", 132 + len(table) + len(body) - 4) + head + table + body


def repair_png(data: bytes) -> bytes:
    """Make the checksums of a PNG's chunks fit, so that what they protect is looked at."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        length = min(int.from_bytes(data[at : at + 4], "big"), len(data) - at - 12)
        body = data[at + 4 : at + 8 + length]
        out += struct.pack(">I", length) + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return bytes(out)


TARGETS: dict[str, Target] = {
    "picture": Target(read_picture, pictures, repair_png),
    "matte": Target(read_matte, pictures, repair_png),
}
