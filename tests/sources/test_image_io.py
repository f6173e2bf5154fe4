"""Sources: every common kind of picture file, and each kind of bad one by its own name."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

import picture_files as files
from matting_compose.composer.base.errors import SourceError
from matting_compose.composer.sources import decode
from matting_compose.composer.sources.image_io import (
    Foreground,
    limit_side,
    picture_size,
    read_cutout,
    read_pair,
    read_rgb,
)
from matting_compose.composer.sources.mattes import read_matte
from matting_compose.composer.sources.picture_bytes import safe_path
from matting_compose.composer.sources.probe import ENDINGS, quiet

LIMIT = 1_000_000
RNG = np.random.default_rng(7)
COLOUR = cv2.resize(RNG.integers(0, 256, (4, 5, 3), dtype=np.uint8), (50, 40), interpolation=cv2.INTER_CUBIC)
GREY = np.ascontiguousarray(COLOUR[..., 1])
RGBA = np.dstack([COLOUR, GREY])


def rgb(path: Path) -> np.ndarray:
    return read_rgb(path, path.name, LIMIT)[0]


@pytest.mark.parametrize("ending", ["png", "tif", "bmp", "webp", "sgi"])
def test_lossless_files_read_exactly(tmp_path: Path, ending: str) -> None:
    """8-bit colour comes as it is, whatever the container."""
    path = tmp_path / f"a.{ending}"
    Image.fromarray(COLOUR).save(path, **({"lossless": True} if ending == "webp" else {}))
    np.testing.assert_array_equal(rgb(path), COLOUR)
    assert picture_size(path, "a", LIMIT) == (40, 50)


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_are_rounded_to_8(tmp_path: Path, ending: str, channels: int) -> None:
    """65535 is 255, 0 is 0, and what lies between is rounded, not cut."""
    deep = RNG.integers(0, 65536, (30, 20, channels), dtype=np.uint16)
    deep[0, 0], deep[0, 1] = 65535, 0
    stored = (
        deep[..., 0]
        if channels == 1
        else cv2.cvtColor(deep, cv2.COLOR_RGB2BGR if channels == 3 else cv2.COLOR_RGBA2BGRA)
    )
    cv2.imwrite(str(tmp_path / f"a.{ending}"), stored)
    expected = np.rint(deep / 257).astype(np.uint8)
    path = tmp_path / f"a.{ending}"
    np.testing.assert_array_equal(rgb(path), np.repeat(expected, 3, axis=2) if channels == 1 else expected[..., :3])
    if channels != 3:
        np.testing.assert_array_equal(read_matte(path, "a", LIMIT)[0], expected[..., -1])


def test_plain_jpeg_is_what_pillow_reads(tmp_path: Path) -> None:
    """The quick decoder gives the same pixels as the careful one."""
    for subsampling in (0, 1, 2):
        path = tmp_path / f"{subsampling}.jpg"
        Image.fromarray(COLOUR).save(path, subsampling=subsampling, quality=90)
        np.testing.assert_array_equal(rgb(path), np.asarray(Image.open(path)))


def test_grey_cmyk_palette_and_one_bit(tmp_path: Path) -> None:
    """Everything becomes RGB."""
    Image.fromarray(GREY).save(tmp_path / "grey.jpg", quality=100)
    assert np.abs(rgb(tmp_path / "grey.jpg").astype(int) - GREY[..., None]).max() <= 3
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100, subsampling=0)
    assert np.abs(rgb(tmp_path / "cmyk.jpg").astype(int) - COLOUR).mean() < 3
    palette = Image.fromarray(COLOUR).quantize(32)
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(rgb(tmp_path / "palette.png"), np.asarray(palette.convert("RGB")))
    Image.fromarray(GREY > 128).save(tmp_path / "bit.png")
    np.testing.assert_array_equal(read_matte(tmp_path / "bit.png", "bit", LIMIT)[0], np.where(GREY > 128, 255, 0))


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    """Telephones' pictures stand upright, and their header's size says so."""
    for orientation, ending in ((6, "jpg"), (8, "jpg"), (3, "jpg"), (6, "png")):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.{ending}"
        Image.fromarray(COLOUR).save(path, exif=exif, **({"quality": 100, "subsampling": 0} if ending == "jpg" else {}))
        turned = np.rot90(COLOUR, {6: -1, 8: 1, 3: 2}[orientation])
        assert rgb(path).shape == turned.shape
        assert picture_size(path, "a", LIMIT) == turned.shape[:2]
        assert np.abs(rgb(path).astype(int) - turned).max() <= 6


def test_foreign_profiles_become_srgb(tmp_path: Path) -> None:
    """A picture in another colour space looks as it should; sRGB and broken profiles change nothing."""
    lab_like = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, profile in (("plain", None), ("srgb", srgb), ("broken", b"no profile"), ("foreign", lab_like)):
        Image.fromarray(COLOUR).save(tmp_path / f"{name}.jpg", quality=95, icc_profile=profile)
    for name in ("srgb", "broken"):
        np.testing.assert_array_equal(rgb(tmp_path / f"{name}.jpg"), rgb(tmp_path / "plain.jpg"))


def test_cutouts_keep_their_alpha(tmp_path: Path) -> None:
    """Colours under clear pixels are kept; palettes with transparency and grey with alpha are cut-outs too."""
    Image.fromarray(RGBA).save(tmp_path / "a.png")
    cutout = read_cutout(tmp_path / "a.png", "a", LIMIT)
    np.testing.assert_array_equal(cutout.image, COLOUR)
    np.testing.assert_array_equal(cutout.alpha, GREY)
    Image.fromarray(RGBA).convert("LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_cutout(tmp_path / "la.png", "la", LIMIT).alpha, GREY)
    palette = Image.fromarray(COLOUR).quantize(8)
    palette.save(tmp_path / "p.png", transparency=0)
    expected = np.where(np.asarray(palette) == 0, 0, 255)
    np.testing.assert_array_equal(read_cutout(tmp_path / "p.png", "p", LIMIT).alpha, expected)


def test_alphas_of_three_channels_are_read_by_the_first(tmp_path: Path) -> None:
    """Colour chunks must not touch an alpha: a gamma or a profile is for looking at, not for measuring."""
    three = np.dstack([GREY, np.zeros_like(GREY), GREY])
    info = PngInfo()
    info.add(b"gAMA", struct.pack(">I", 100_000))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    for name, options in (("plain", {}), ("gamma", {"pnginfo": info}), ("profile", {"icc_profile": profile})):
        Image.fromarray(three).save(tmp_path / f"{name}.png", **options)
        np.testing.assert_array_equal(read_matte(tmp_path / f"{name}.png", name, LIMIT)[0], GREY)


def bomb() -> bytes:
    """Make a tiny PNG whose header declares 60,000 × 60,000 px."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def encoded(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(COLOUR).save(file, kind, **options)
    return file.getvalue()


BAD = {
    "missing": (None, "cannot be read"),
    "empty": (b"", "no bytes"),
    "not-an-image": (b"<html>404</html>", "not a picture"),
    "too-large": (bomb(), "60000×60000"),
}


@pytest.mark.parametrize("cause", BAD)
def test_each_bad_file_has_its_own_error(tmp_path: Path, cause: str) -> None:
    """The error names the file and the cause, from the header where the header tells."""
    content, text = BAD[cause]
    path = tmp_path / "bad.png"
    if content is not None:
        path.write_bytes(content)
    for read in (rgb, lambda p: picture_size(p, p.name, LIMIT)):
        if cause == "empty" and read is not rgb:
            continue
        with pytest.raises(SourceError, match=text) as caught:
            read(path)
        assert (caught.value.cause, caught.value.source) == (cause, "bad.png")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("share", [0.4, 0.9])
def test_truncated_files_are_never_filled_up(tmp_path: Path, kind: str, share: float) -> None:
    """A file that breaks off is an error, not a picture with a grey bottom."""
    data = encoded(kind, **({"compression": "tiff_lzw"} if kind == "TIFF" else {}))
    path = tmp_path / "cut"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(SourceError) as caught:
        rgb(path)
    assert caught.value.cause in ("truncated", "not-an-image")


def test_truncated_16_bit_files_are_noticed(tmp_path: Path) -> None:
    """The decoder for deep colour does not notice by itself."""
    cv2.imwrite(str(tmp_path / "a.png"), RNG.integers(0, 65536, (60, 60, 3), dtype=np.uint16))
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError) as caught:
        rgb(tmp_path / "a.png")
    assert caught.value.cause == "truncated"


def noisy_jpeg(**options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 2}, {"restart_marker_rows": 2}], ids=str
)
@pytest.mark.parametrize("reading", ["seen", "stored"])
def test_jpeg_that_lost_data_is_damaged(tmp_path: Path, options: dict[str, object], reading: str) -> None:
    """Cut off before an end marker, or with a hole of zeros: libjpeg would make the rest grey, or of other blocks."""
    data, path = noisy_jpeg(**options), tmp_path / "a.jpg"
    third, half = len(data) // 3, len(data) // 2
    for hurt in (data[:half] + b"\xff\xd9", data[:third] + bytes(half) + data[third + half :]):
        path.write_bytes(hurt)
        with pytest.raises(SourceError, match="damaged") as caught:
            read_rgb(path, "a.jpg", LIMIT, reading)
        assert caught.value.cause == "truncated"


def test_jpeg_with_something_behind_it_or_without_its_end_is_whole(tmp_path: Path) -> None:
    """Telephones append films; some cameras leave out the end marker, or a few bytes before it."""
    data, path = noisy_jpeg(), tmp_path / "a.jpg"
    expected = np.asarray(Image.open(io.BytesIO(data)))
    for odd in (data + b"\0" * 9, data + noisy_jpeg(), data[:-2], data[:-2] + b"\0\0\0" + data[-2:]):
        path.write_bytes(odd)
        np.testing.assert_array_equal(rgb(path), expected)


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 1}, {"subsampling": 0}], ids=str)
def test_jpeg_as_stored_is_what_pillow_reads(tmp_path: Path, quality: int, options: dict[str, object]) -> None:
    """To the bit, colour, grey and CMYK, at sides that are no multiple of a block's."""
    for mode in ("RGB", "L", "CMYK"):
        picture = Image.fromarray(RNG.integers(0, 256, (37, 51, 3), dtype=np.uint8)).convert(mode)
        picture.save(tmp_path / "a.jpg", quality=quality, **options)
        expected = np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB"))
        np.testing.assert_array_equal(read_rgb(tmp_path / "a.jpg", "a", LIMIT, "stored")[0], expected)


UNSUPPORTED = {
    "float32 TIFF is not read; save 16 bits": files.tiff(np.ones((4, 5, 3), np.float32), kind=3),
    "float32 TIFF is not read; save 16": files.tiff(np.ones((4, 5, 1), np.float32), kind=3),
    "32-bit TIFF is not read; save 16 bits": files.tiff(np.ones((4, 5, 1), np.uint32)),
    "16-bit signed TIFF is not read": files.tiff(np.ones((4, 5, 1), np.uint16), kind=2),
    "channels lie one after the other is not read": files.tiff(np.ones((4, 5, 3), np.uint16), planar=True),
    "LAB colours are not read; save RGB": files.tiff(np.ones((4, 5, 3), np.uint8), photometric=8),
    "12-bit JPEG is not read; save 8 bits": encoded("JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),
}


@pytest.mark.parametrize("words", UNSUPPORTED)
def test_what_is_not_supported_is_not_called_damaged(tmp_path: Path, words: str) -> None:
    """It says what was found and what to save instead, whether the header is asked or the pixels."""
    path = tmp_path / "a"
    path.write_bytes(UNSUPPORTED[words])
    for read in (rgb, lambda path: picture_size(path, path.name, LIMIT)):
        with pytest.raises(SourceError, match=words) as caught:
            read(path)
        assert caught.value.cause == "unsupported"


def test_a_profile_is_judged_by_what_it_does_not_by_its_name(tmp_path: Path) -> None:
    """ "sRGB" in its name makes no linear profile one."""
    assert b"sRGB" in files.icc("linear sRGB")
    Image.fromarray(COLOUR).save(tmp_path / "a.png", icc_profile=files.icc("linear sRGB"))
    assert np.abs(rgb(tmp_path / "a.png").astype(int) - COLOUR).max() > 50


def test_endings_are_those_of_what_is_read() -> None:
    """JPEG by all its names, and what Pillow reads well."""
    assert {".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".tif", ".webp", ".gif", ".tga", ".bmp"} <= ENDINGS


def test_whatever_a_decoder_raises_is_this_pictures_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No exception of a library ends a run; lack of memory is not the picture's fault."""
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG"))
    for raised, expected in ((AssertionError("odd"), SourceError), (MemoryError(), MemoryError)):

        def fail(*_: object, error: BaseException = raised, **__: object) -> None:
            raise error

        monkeypatch.setattr(decode.simplejpeg, "decode_jpeg", fail)
        with pytest.raises(expected):
            rgb(tmp_path / "a.jpg")


def test_pixels_of_another_size_than_the_header_says_are_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoders of HEIC have given more pixels than were declared: memory is planned by the header."""
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG"))
    monkeypatch.setattr(decode.simplejpeg, "decode_jpeg", lambda *_, **__: np.zeros((7, 9, 3), np.uint8))
    with pytest.raises(SourceError, match="its pixels 9×7") as caught:
        rgb(tmp_path / "a.jpg")
    assert caught.value.cause == "truncated"


def test_tiff_tags_of_another_type_are_damage(tmp_path: Path) -> None:
    """A depth that is a text was an error of Python's."""
    good = files.tiff(np.ones((4, 5, 1), np.uint8))
    (tmp_path / "a.tif").write_bytes(good.replace(struct.pack("<HH", 258, 3), struct.pack("<HH", 258, 2)))
    with pytest.raises(SourceError, match="header cannot be read"):
        rgb(tmp_path / "a.tif")


def test_warnings_filters_come_back_whatever_threads_do() -> None:
    """Pillow's complaints of metadata are not shown, and the caller's filters are as they were."""
    before = list(warnings.filters)
    inside = threading.Barrier(4)

    def read() -> None:
        with quiet():
            inside.wait()

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before


def test_pairs_must_be_of_one_size(tmp_path: Path) -> None:
    """Both sizes are in the message."""
    Image.fromarray(COLOUR).save(tmp_path / "f.png")
    Image.fromarray(GREY[:, :-1]).save(tmp_path / "a.png")
    with pytest.raises(SourceError, match=r"50×40 px, its alpha a\.png is 49×40") as caught:
        read_pair(tmp_path / "f.png", tmp_path / "a.png", "f.png", LIMIT)
    assert caught.value.cause == "size-mismatch"


def test_pictures_without_alpha_are_no_cutouts(tmp_path: Path) -> None:
    """The message shows the way to the other layout."""
    Image.fromarray(COLOUR).save(tmp_path / "f.png")
    with pytest.raises(SourceError, match="layout pairs"):
        read_cutout(tmp_path / "f.png", "f.png", LIMIT)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../b.png", "", "a\0b"])
def test_names_stay_below_their_root(tmp_path: Path, name: str) -> None:
    """A list cannot reach outside its folder."""
    with pytest.raises(SourceError, match="below its root"):
        safe_path(tmp_path, name)


def test_reduction_keeps_composites_true(tmp_path: Path) -> None:
    """Composing reduced parts equals reducing the composite, black under clear pixels or not."""
    rng = np.random.default_rng(3)
    alpha = cv2.resize(rng.integers(0, 2, (8, 8)).astype(np.float32), (400, 400), interpolation=cv2.INTER_LINEAR)
    alpha = np.rint(alpha * 255).astype(np.uint8)
    image = cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (400, 400), interpolation=cv2.INTER_CUBIC)
    image[alpha == 0] = 0
    small = limit_side(Foreground(image, alpha, ""), 100)
    assert small.alpha.shape == (100, 100)
    weight = alpha[..., None] / 255.0
    whole = cv2.resize(weight * image + (1 - weight) * 90.0, (100, 100), interpolation=cv2.INTER_AREA)
    weight = small.alpha[..., None] / 255.0
    assert np.abs(weight * small.image + (1 - weight) * 90.0 - whole).max() < 1.5
    assert limit_side(small, 100) is small


def test_enlargement_keeps_composites_true() -> None:
    """Composing enlarged parts equals enlarging the composite, and nothing is more than doubled."""
    rng = np.random.default_rng(4)
    alpha = cv2.resize(rng.integers(0, 2, (6, 9)).astype(np.float32), (90, 60), interpolation=cv2.INTER_LINEAR)
    alpha = np.rint(alpha * 255).astype(np.uint8)
    image = cv2.resize(rng.integers(60, 196, (7, 7, 3), dtype=np.uint8), (90, 60), interpolation=cv2.INTER_LINEAR)
    image[alpha == 0] = 0
    large = limit_side(Foreground(image, alpha, ""), None, 150)
    assert large.alpha.shape == (100, 150)
    weight = alpha[..., None] / 255.0
    whole = cv2.resize(weight * image + (1 - weight) * 90.0, (150, 100), interpolation=cv2.INTER_CUBIC)
    weight = large.alpha[..., None] / 255.0
    difference = np.abs(weight * large.image + (1 - weight) * 90.0 - whole)
    assert difference.mean() < 0.5  # cubic overshoot is cut off where alpha leaves 0..255
    assert np.percentile(difference, 99) < 2.5
    assert limit_side(Foreground(image, alpha, ""), None, 999).alpha.shape == (120, 180)
    assert limit_side(large, None, 150) is large
