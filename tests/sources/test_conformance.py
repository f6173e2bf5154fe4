"""Every kind of picture file against what it means, by arithmetic and LittleCMS; docs/pictures.md shows the list."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, features

import picture_files as files
from matting_compose.composer.base.errors import SourceError
from matting_compose.composer.sources.image_io import picture_size, read_cutout, read_rgb
from matting_compose.composer.sources.mattes import read_matte

LIMIT = 1_000_000
PAGE = Path(__file__).parent.parent.parent / "docs" / "pictures.md"
RNG = np.random.default_rng(5)
COLOUR = cv2.resize(RNG.integers(0, 65536, (4, 5, 3), dtype=np.uint16), (21, 14), interpolation=cv2.INTER_LINEAR)
ALPHA = np.tile(np.linspace(0, 65535, 21).astype(np.uint16), (14, 1))
TURNED = tuple(range(1, 9))
COLOUR_PROFILES = (None, "Display P3", "Adobe RGB", "linear sRGB")


@dataclass(frozen=True)
class Case:
    """A kind of file."""

    format: str
    channels: str  # grey, RGB, CMYK, palette
    bits: int
    alpha: str = "none"
    profile: str | None = None
    orientation: int = 1
    storage: str = "plain"

    def __str__(self) -> str:
        return "-".join(str(part) for part in vars(self).values() if part is not None).replace(" ", "_")


def cases() -> Iterator[Case]:
    for bits, alpha, storage in product((8, 16), ("none", "channel", "one colour"), ("plain", "interlaced")):
        for channels, profiles in (("RGB", COLOUR_PROFILES), ("grey", (None, "grey", "linear sRGB"))):
            for profile in profiles:
                turns = TURNED if storage == "plain" and profile in (None, "Display P3") else (1, 6)
                for orientation in turns:
                    yield Case("PNG", channels, bits, alpha, profile, orientation, storage)
    yield from (Case("PNG", "RGB", bits, "channel", None, 6, "EXIF last") for bits in (8, 16))
    for bits, alpha in product((1, 2, 4), ("none", "one colour")):
        yield from (Case("PNG", "grey", bits, alpha, storage=storage) for storage in ("plain", "interlaced"))
    for bits, alpha, profile in product((1, 2, 4, 8), ("none", "palette"), (None, "Display P3")):
        yield Case("PNG", "palette", bits, alpha, profile, 6)
    for channels, profile, storage in product(("RGB", "grey"), (None, "Display P3"), ("plain", "progressive")):
        turns = TURNED if storage == "plain" else (1, 6)
        yield from (Case("JPEG", channels, 8, "none", profile, orientation, storage) for orientation in turns)
    yield from (Case("JPEG", "CMYK", 8, orientation=orientation) for orientation in (1, 6))
    for bits, alpha, profile in product((8, 16), ("none", "channel", "associated", "unnamed"), COLOUR_PROFILES):
        turns = TURNED if profile is None else (1, 6)
        yield from (Case("TIFF", "RGB", bits, alpha, profile, orientation) for orientation in turns)
    yield from (Case("TIFF", "RGB", 8, alpha, storage="planes") for alpha in ("none", "channel", "associated"))
    for bits, storage in product((8, 16), ("plain", "white is zero")):
        yield from (Case("TIFF", "grey", bits, profile=profile, storage=storage) for profile in (None, "grey"))
    for alpha, profile, orientation in product(("none", "channel"), (None, "Display P3"), TURNED):
        yield Case("WebP", "RGB", 8, alpha, profile, orientation, "lossless")
    yield from (Case(format, "RGB", 8, "none") for format in ("BMP", "SGI", "TGA", "PPM", "JPEG 2000", "AVIF", "HEIF"))
    yield from (Case(format, "RGB", 8, "channel") for format in ("SGI", "TGA", "JPEG 2000", "AVIF", "HEIF"))
    yield from (Case("AVIF", "RGB", 8, "none", profile, turned) for profile in COLOUR_PROFILES[:2] for turned in TURNED)
    yield from (Case("GIF", "palette", 8, alpha) for alpha in ("none", "one colour"))


CASES = list(dict.fromkeys(cases()))
PILLOW = {
    "JPEG": "JPEG",
    "WebP": "WEBP",
    "BMP": "BMP",
    "SGI": "SGI",
    "TGA": "TGA",
    "PPM": "PPM",
    "JPEG 2000": "JPEG2000",
}
PILLOW |= {"AVIF": "AVIF", "HEIF": "HEIF", "GIF": "GIF"}
ENDINGS = {"JPEG": "jpg", "TIFF": "tif", "JPEG 2000": "jp2", "HEIF": "heic"}


@dataclass(frozen=True)
class File:
    """A file of a kind, and the levels that it holds as stored: colours (H, W, 1 or 3), alpha (H, W) or None."""

    data: bytes
    colours: np.ndarray
    alpha: np.ndarray | None


def stored_levels(case: Case) -> np.ndarray:
    """Make (H, W, C) levels as the file is to hold them."""
    scale = 65535 // (2**case.bits - 1)
    levels = [COLOUR[..., :1] if case.channels == "grey" else COLOUR]
    if case.alpha in ("channel", "associated", "unnamed"):
        levels.append(ALPHA[..., None])
    return (np.concatenate(levels, axis=2) // scale).astype(np.uint16 if case.bits == 16 else np.uint8)


def write_png(case: Case) -> File:
    levels, most = stored_levels(case), 2**case.bits - 1
    options = {"profile": case.profile and files.icc(case.profile), "orientation": case.orientation}
    options |= {"interlaced": case.storage == "interlaced", "late": case.storage == "EXIF last"}
    if case.channels == "palette":
        indices = levels[..., :1]
        palette = RNG.integers(0, 256, (most + 1, 3), dtype=np.uint8)
        clear = tuple((np.arange(most + 1) * 37 % 256).tolist()) if case.alpha == "palette" else None
        data = files.png(indices, case.bits, palette=palette, key=clear, **options)
        return File(data, palette[indices[..., 0]], None if clear is None else np.uint8(clear)[indices[..., 0]])
    key = tuple(levels[3, 4].tolist()) if case.alpha == "one colour" else None
    data = files.png(levels, case.bits, key=key, **options)
    whole = (levels * (255 // most)).astype(np.uint8) if case.bits < 8 else levels
    if case.alpha == "channel":
        return File(data, whole[..., :-1], whole[..., -1])
    clear = None if key is None else np.where((levels == np.array(key)).all(axis=2), 0, 255).astype(np.uint8)
    return File(data, whole, clear)


def write_tiff(case: Case) -> File:
    levels = stored_levels(case)
    extra = {"channel": 2, "associated": 1, "unnamed": 0}.get(case.alpha)
    kept, most = levels, np.iinfo(levels.dtype).max
    if case.alpha == "associated":
        light = np.rint(levels[..., :3].astype(float) * levels[..., 3:] / most)
        kept = np.dstack([light, levels[..., 3]]).astype(levels.dtype)
        straight = np.floor(light * most / np.maximum(levels[..., 3:], 1) + 0.5).clip(0, most)
        levels = np.dstack([straight, levels[..., 3]]).astype(levels.dtype)
    if case.storage == "white is zero":
        kept = most - levels
    photometric = 0 if case.storage == "white is zero" else None
    data = files.tiff(
        kept,
        profile=case.profile and files.icc(case.profile),
        orientation=case.orientation,
        extra=extra,
        photometric=photometric,
        planar=case.storage == "planes",
    )
    if case.alpha in ("none", "unnamed"):
        return File(data, levels[..., :3], None)
    return File(data, levels[..., :-1], levels[..., -1])


def write_by_pillow(case: Case) -> File:
    """Have Pillow write the file, and take from Pillow what lossy compression made of the levels."""
    format = PILLOW[case.format]
    levels = stored_levels(case)
    picture = Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)
    options: dict[str, object] = {"WEBP": {"lossless": True, "exact": True}, "JPEG": {"quality": 90}}.get(format, {})
    options |= {"progressive": True} if case.storage == "progressive" else {}
    if case.profile:
        options["icc_profile"] = files.icc(case.profile)
    if case.orientation != 1:
        options["exif"] = (b"Exif\0\0" if format == "JPEG" else b"") + files.exif(case.orientation)
    if case.channels == "CMYK":
        picture = picture.convert("CMYK")
    if case.channels == "palette":
        picture = picture.quantize(16)
        options |= {"transparency": 3} if case.alpha == "one colour" else {}
    file = io.BytesIO()
    picture.save(file, format, **options)
    stored = Image.open(io.BytesIO(file.getvalue()))
    if case.alpha == "none":
        colours = np.asarray(stored.convert("L" if case.channels == "grey" else "RGB"))
        return File(file.getvalue(), colours[..., None] if colours.ndim == 2 else colours, None)
    whole = np.asarray(stored.convert("RGBA"))
    return File(file.getvalue(), whole[..., :3], whole[..., 3])


WRITERS: dict[str, Callable[[Case], File]] = {"PNG": write_png, "TIFF": write_tiff}


def require(case: Case) -> None:
    if case.format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    if case.format == "HEIF":
        if find_spec("pillow_heif") is None:
            pytest.skip("pillow-heif is not installed")
        import pillow_heif

        pillow_heif.register_heif_opener()


def expected_colours(file: File, case: Case) -> np.ndarray:
    """Return (H, W, 3) in 0..255: by LittleCMS where there are 8 bits of RGB, else by the profile's formulas."""
    if case.profile and file.colours.dtype == np.uint8 and file.colours.shape[2] == 3:
        given = ImageCms.ImageCmsProfile(io.BytesIO(files.icc(case.profile)))
        srgb = ImageCms.createProfile("sRGB")
        return np.asarray(ImageCms.profileToProfile(Image.fromarray(file.colours), given, srgb)).astype(float)
    return np.broadcast_to(files.to_srgb(file.colours, case.profile), (*file.colours.shape[:2], 3))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_files_are_read_as_what_they_mean(case: Case, tmp_path: Path) -> None:
    """Colours within a level of the reference, alpha rounded, both upright; the header says the same of the size."""
    require(case)
    file = WRITERS.get(case.format, write_by_pillow)(case)
    path = tmp_path / f"a.{ENDINGS.get(case.format, case.format.lower())}"
    path.write_bytes(file.data)
    colours = files.turn(expected_colours(file, case), case.orientation)
    found, _ = read_rgb(path, path.name, LIMIT)
    assert picture_size(path, path.name, LIMIT) == found.shape[:2] == colours.shape[:2]
    off = np.abs(found - colours)
    if file.alpha is None:
        assert off.max() <= 1.01
        with pytest.raises(SourceError, match="no alpha channel"):
            read_cutout(path, path.name, LIMIT)
        return
    alpha = files.turn(np.rint(file.alpha * (255 / np.iinfo(file.alpha.dtype).max)), case.orientation)
    assert off.max() <= 1.01
    cutout = read_cutout(path, path.name, LIMIT)
    np.testing.assert_array_equal(cutout.alpha, alpha)
    np.testing.assert_array_equal(cutout.image, found)


GREYS = [replace(case, profile=None) for case in CASES if case.channels == "grey" and case.alpha == "none"]


@pytest.mark.parametrize("profile", [None, "linear sRGB"])
@pytest.mark.parametrize("case", list(dict.fromkeys(GREYS)), ids=str)
def test_mattes_are_levels_whatever_their_profile(case: Case, profile: str | None, tmp_path: Path) -> None:
    """A profile is for looking at, not for measuring; depth, turning and white is zero count."""
    case = replace(case, profile=profile)
    file = WRITERS.get(case.format, write_by_pillow)(case)
    path = tmp_path / f"a.{ENDINGS.get(case.format, case.format.lower())}"
    path.write_bytes(file.data)
    levels = file.colours[..., 0] * (255 / np.iinfo(file.colours.dtype).max)
    assert np.abs(read_matte(path, path.name, LIMIT)[0] - files.turn(levels, case.orientation)).max() <= (
        5 if case.format == "JPEG" else 0.5
    )


def table() -> list[str]:
    """Return the lines of the page's table: for each format and kind of channels, what it is tried with."""
    lines = []
    for format, channels in dict.fromkeys((case.format, case.channels) for case in CASES):
        kin = [case for case in CASES if (case.format, case.channels) == (format, channels)]
        bits = sorted({case.bits for case in kin})
        alphas, profiles, storages = (
            list(dict.fromkeys(str(getattr(case, name) or "none") for case in kin))
            for name in ("alpha", "profile", "storage")
        )
        turns = (
            "1–8"
            if {case.orientation for case in kin} == set(TURNED)
            else ", ".join(str(turn) for turn in sorted({case.orientation for case in kin}))
        )
        cells = [", ".join(map(str, bits)), *(", ".join(names) for names in (alphas, profiles)), turns]
        lines.append(f"| {format} {channels} | {' | '.join(cells)} | {', '.join(storages)} |")
    return lines


def test_the_page_shows_what_is_tried() -> None:
    """The table in the docs is this list."""
    page = PAGE.read_text(encoding="utf-8")
    assert "\n".join(table()) in page, "\n".join(table())
