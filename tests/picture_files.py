"""Picture files written here, byte by byte, so that no decoder's own encoder vouches for it; and ICC profiles."""

from __future__ import annotations

import struct
import zlib

import numpy as np

SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))  # XYZ of r, g, b in D50
P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
PROFILES = {  # name in the profile, primaries (none: grey), gamma
    "Display P3": (P3, 2.2),
    "Adobe RGB": (ADOBE, 563 / 256),
    "linear sRGB": (SRGB, 1.0),
    "grey": (None, 1.75),
}


def icc(name: str) -> bytes:
    """Write a profile of three curves and a matrix, or of one curve."""
    primaries, gamma = PROFILES[name]

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    white = (0.9642, 1, 0.8249)
    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(gamma * 256), 0)
    described = b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name.encode() + b"\0" * 79
    tags = [(b"desc", described), (b"cprt", b"text\0\0\0\0none\0"), (b"wtpt", xyz(white))]
    if primaries is None:
        tags.append((b"kTRC", curve))
    else:
        tags += [(key, xyz(value)) for key, value in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)]
        tags += [(key, curve) for key in (b"rTRC", b"gTRC", b"bTRC")]
    offset, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for key, value in tags:
        padded = value + b"\0" * (-len(value) % 4)
        table += key + struct.pack(">II", offset + len(body), len(padded))
        body += padded
    space = b"GRAY" if primaries is None else b"RGB "
    head = struct.pack(">I", 128 + len(table) + len(body)) + b"lcms" + struct.pack(">I", 0x02100000)
    head += b"mntr" + space + b"XYZ " + struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    return head + b"".join(map(fixed, white)) + b"lcms" + b"\0" * 44 + table + body


def xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def to_srgb(levels: np.ndarray, name: str | None) -> np.ndarray:
    """Convert (H, W, 1 or 3) of 8 or 16 bits to sRGB in 0..255, not rounded, by the formulas alone."""
    light = levels / np.iinfo(levels.dtype).max
    if name is None:
        return light * 255
    primaries, gamma = PROFILES[name]
    light = light ** (round(gamma * 256) / 256)
    if primaries is not None:
        if light.shape[2] == 1:
            light = np.repeat(light, 3, axis=2)
        light = light @ (np.linalg.inv(np.array(SRGB).T) @ np.array(primaries).T).T
    light = light.clip(0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def exif(orientation: int) -> bytes:
    """Write EXIF with an orientation alone, as a TIFF's first directory."""
    return b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation]) + b"\0" * 7


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    levels: np.ndarray,
    bits: int,
    *,
    profile: bytes | None = None,
    orientation: int = 1,
    key: tuple[int, ...] | None = None,
    palette: np.ndarray | None = None,
    interlaced: bool = False,
    late: bool = False,
) -> bytes:
    """Write (H, W, 1..4) levels of `bits`: grey, grey and alpha, RGB, RGBA, or a palette's indices."""
    height, width, channels = levels.shape
    colour = 3 if palette is not None else {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    before = chunk(b"iCCP", b"p\0\0" + zlib.compress(profile)) if profile else b""
    if palette is not None:
        before += chunk(b"PLTE", palette.astype(np.uint8).tobytes())
    if key is not None:
        before += chunk(b"tRNS", bytes(key) if palette is not None else struct.pack(f">{len(key)}H", *key))
    turned = chunk(b"eXIf", exif(orientation)) if orientation != 1 else b""
    passes = ADAM7 if interlaced else [(0, 0, 1, 1)]
    rows = b"".join(png_rows(levels[top::down, left::right], bits) for left, top, right, down in passes)
    body = (b"" if late else turned) + chunk(b"IDAT", zlib.compress(rows)) + (turned if late else b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + body + chunk(b"IEND", b"")


ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def png_rows(levels: np.ndarray, bits: int) -> bytes:
    if not levels.size:
        return b""
    if bits >= 8:
        return b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in levels)
    singles = (levels[..., 0, None] >> np.arange(bits - 1, -1, -1)) & 1
    return b"".join(b"\0" + np.packbits(row.reshape(-1)).tobytes() for row in singles.astype(np.uint8))


def tiff(
    levels: np.ndarray,
    *,
    profile: bytes | None = None,
    orientation: int = 1,
    extra: int | None = None,
    photometric: int | None = None,
    planar: bool = False,
    kind: int = 1,
) -> bytes:
    """Write (H, W, 1..4) levels of 8, 16 or 32 bits, without compression."""
    height, width, channels = levels.shape
    per = levels.dtype.itemsize
    data = (np.moveaxis(levels, 2, 0) if planar else levels).astype(levels.dtype.newbyteorder("<")).tobytes()
    strips = channels if planar else 1
    shorts = {258: [8 * per] * channels, 259: [1], 277: [channels], 274: [orientation], 339: [kind] * channels}
    shorts |= {262: [(2 if channels >= 3 else 1) if photometric is None else photometric], 284: [1 + planar]}
    if extra is not None:
        shorts[338] = [extra]
    longs = {256: [width], 257: [height], 278: [height], 279: [len(data) // strips] * strips, 273: [0] * strips}
    entries = sorted([(tag, 3, values) for tag, values in shorts.items()] + [(tag, 4, v) for tag, v in longs.items()])
    count = len(entries) + bool(profile)
    after = 8 + 2 + 12 * count + 4
    blob, table, start = b"", [], 0
    for second in (False, True):  # once to learn where the pixels lie
        longs[273][:] = [start + index * len(data) // strips for index in range(strips)] if second else [0] * strips
        blob, table = b"", []
        for tag, size, values in entries:
            packed = struct.pack(f"<{len(values)}{'H' if size == 3 else 'I'}", *values)
            if len(packed) > 4:
                packed, blob = struct.pack("<I", after + len(blob)), blob + packed + b"\0" * (len(packed) % 2)
            table.append(struct.pack("<HHI", tag, size, len(values)) + packed.ljust(4, b"\0"))
        if profile:
            table.append(struct.pack("<HHII", 34675, 7, len(profile), after + len(blob)))
            blob += profile + b"\0" * (len(profile) % 2)
        start = after + len(blob)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", count) + b"".join(table) + b"\0\0\0\0" + blob + data


def turn(levels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn a stored picture upright, as EXIF 2.32 (table 6) tells where its row 0 and column 0 lie."""
    if orientation >= 5:
        levels = levels.swapaxes(0, 1)
    bottom, right = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return levels[:: -1 if bottom else 1, :: -1 if right else 1]
