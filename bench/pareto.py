"""Bytes, writing time and reading time of many ways to code a dataset's tiles without loss, on its own pixels.

    python bench/pareto.py open431 --composites 60 --rounds 3 --plot docs/pareto.svg

Composites are drawn from all shards, with what they share left out, and cut into the shards' tiles. Bytes are those of
colours and trimap, as a share of both as PNG files by Pillow's defaults, the composite whole. Writing is CPU time for a
composite's tiles; reading is that of the tiles that a window of 320 px touches, decoded whole, to RGB. All ways in
turn, round by round; medians. *Bounds* are entropies: what a coder would reach that knew those statistics of each tile.
Brotli, LZ4, JPEG XL, JPEG-LS and QOI come from `imagecodecs`, and are left out where that is not installed.
"""

from __future__ import annotations

import argparse
import io
import lzma
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import zstandard
from numpy.typing import NDArray
from PIL import Image

from matting_compose.composer.dataset.codecs import Delta, Interleaved, WebP, even_tile
from matting_compose.composer.dataset.dataset import open_dataset
from matting_compose.composer.dataset.differences import take_differences, undo_differences

Array = NDArray[np.uint8]
WINDOW = 320  # px
DICTIONARY = 112_640  # bytes, Zstandard's own default; learnt from a hundred times as many
CLASSES = (0, 2, 4, 8, 14, 24, 40)  # of the differences around a pixel, in sum: eight contexts


@dataclass
class Way:
    """A way to code a tile, (h, w, 3) RGB, and what was measured of it."""

    name: str
    encode: Callable[[Array], bytes]
    decode: Callable[[bytes, tuple[int, ...]], Array]
    size: int = 0
    writing: list[float] = field(default_factory=list)
    reading: list[float] = field(default_factory=list)


def differences(tile: Array) -> Array:
    """Take a tile's differences, as packing delta does: planes (3, h, w)."""
    return take_differences(tile, (tile.shape[0], tile.shape[1]))


def undone(data: bytes, shape: tuple[int, ...]) -> Array:
    """Sum them up."""
    out = np.empty(shape, np.uint8)
    undo_differences(data, (shape[0], shape[1]), (0, 0), out)
    return out


def coded(name: str, pack: Callable[[bytes], bytes], unpack: Callable[[bytes], bytes]) -> Way:
    """Code the differences by a codec of bytes."""
    return Way(name, lambda tile: pack(differences(tile).tobytes()), lambda data, shape: undone(unpack(data), shape))


def zstd(name: str, dictionary: zstandard.ZstdCompressionDict | None = None, **parameters: int) -> Way:
    """Code the differences by Zstandard with some of its parameters."""
    given = zstandard.ZstdCompressionParameters.from_level(parameters.pop("level"), **parameters)
    known = {"dict_data": dictionary} if dictionary else {}
    pack = zstandard.ZstdCompressor(compression_params=given, **known)  # type: ignore[arg-type]
    return coded(name, pack.compress, zstandard.ZstdDecompressor(**known).decompress)  # type: ignore[arg-type]


def of_ours(name: str, codec: Any) -> Way:
    """Take one of the package's codecs."""

    def encode(tile: Array) -> bytes:
        ((data,),) = codec.encode(tile, tile.shape[:2])
        return bytes(data)

    return Way(name, encode, lambda data, shape: codec.decode(data, shape[:2]))


PREDICTORS: tuple[tuple[int, ...], ...] = ((1,), (2,), (1, 2))  # the axes along which differences are taken


def colours(tile: Array, which: int) -> Array:
    """Turn RGB into planes: as it is, less green, or Y, Co, Cg by lifting modulo 256."""
    red, green, blue = cv2.split(tile)
    if which == 0:
        return np.stack([green, red, blue])
    if which == 1:
        return np.stack([green, red - green, blue - green])
    orange = red - blue
    rest = blue + (orange.view(np.int8) >> 1).view(np.uint8)
    cyan = green - rest
    return np.stack([rest + (cyan.view(np.int8) >> 1).view(np.uint8), orange, cyan])


def entropy(values: Array) -> float:
    """Return the bits of an array of bytes by its histogram."""
    counts = np.bincount(values.reshape(-1), minlength=256)
    if not (counts := counts[counts > 0]).size:
        return 0.0
    return float(counts.sum() * math.log2(counts.sum()) - (counts * np.log2(counts)).sum())


def chosen(tile: Array) -> bytes:
    """Code a tile by the predictor and colours whose entropy is least, those of each tile its own."""
    best, least = b"", math.inf
    for which in range(3):
        planes = colours(tile, which)
        for axes in PREDICTORS:
            found = planes
            for axis in axes:
                found = np.diff(found, axis=axis, prepend=np.uint8(0))
            if (bits := sum(map(entropy, found))) < least:
                best, least = bytes([which, PREDICTORS.index(axes)]) + found.tobytes(), bits
    return best[:2] + CHOSEN.compress(best[2:])


def unchosen(data: bytes, shape: tuple[int, ...]) -> Array:
    """Undo `chosen`."""
    planes = np.frombuffer(zstandard.ZstdDecompressor().decompress(data[2:]), np.uint8).reshape(3, *shape[:2])
    for axis in PREDICTORS[data[1]]:
        planes = planes.cumsum(axis, np.uint8)
    first, second, third = planes
    if data[0] == 0:
        return np.dstack([second, first, third])
    if data[0] == 1:
        return np.dstack([second + first, first, third + first])
    rest = first - (third.view(np.int8) >> 1).view(np.uint8)
    blue = rest - (second.view(np.int8) >> 1).view(np.uint8)
    return np.dstack([blue + second, third + rest, blue])


CHOSEN = zstandard.ZstdCompressor(
    compression_params=zstandard.ZstdCompressionParameters.from_level(1, min_match=7, hash_log=6, window_log=15)
)


def png(tile: Array) -> bytes:
    """Code as Pillow does by default."""
    file = io.BytesIO()
    Image.fromarray(tile).save(file, "PNG")
    return file.getvalue()


def opened(data: bytes, _: tuple[int, ...]) -> Array:
    """Decode a PNG by OpenCV."""
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert found is not None
    return np.asarray(found[..., ::-1] if found.ndim == 3 else found, np.uint8)


def ways(training: list[bytes]) -> Iterator[Way]:
    """Say what is tried; the bytes are what a dictionary learns from."""
    long = {"min_match": 7, "hash_log": 6, "window_log": 15}
    yield of_ours("delta", Delta())
    yield of_ours("solid", Interleaved(3, -3))
    yield of_ours("plain", Interleaved(3, None))
    yield of_ours("webp", WebP(3))
    yield zstd("differences, Zstandard 1 as it is", level=1)
    yield zstd("differences, Zstandard 9", level=9)
    yield zstd("differences, Zstandard 19", level=19)
    if sum(map(len, training)) > 100 * DICTIONARY:
        learnt = zstandard.train_dictionary(DICTIONARY, training)
        yield zstd("differences, Zstandard 1, dictionary", learnt, level=1, **long)
    yield Way("predictor and colours of each tile, Zstandard 1", chosen, unchosen)
    yield coded("differences, LZMA", partial(lzma.compress, preset=1), lzma.decompress)
    yield Way("PNG, by tile", png, opened)
    if find_spec("imagecodecs"):
        yield from of_imagecodecs()


def of_imagecodecs() -> Iterator[Way]:
    """Say what that package adds."""
    import imagecodecs as found

    def picture(name: str, **options: Any) -> Way:
        encode, decode = getattr(found, f"{name}_encode"), getattr(found, f"{name}_decode")
        return Way("", lambda tile: encode(tile, **options), lambda data, _: decode(data))

    lz4, unlz4 = partial(found.lz4_encode, header=True), partial(found.lz4_decode, header=True)
    yield coded("differences, Brotli 1", partial(found.brotli_encode, level=1), found.brotli_decode)
    yield coded("differences, Brotli 5", partial(found.brotli_encode, level=5), found.brotli_decode)
    yield coded("differences, LZ4", lz4, unlz4)
    yield coded(
        "differences, bits shuffled, LZ4",
        lambda data: lz4(found.bitshuffle_encode(data, itemsize=1)),
        lambda data: found.bitshuffle_decode(unlz4(data), itemsize=1),
    )
    for effort in (1, 2, 3):
        way = picture("jpegxl", lossless=True, effort=effort, numthreads=1)
        yield Way(f"JPEG XL, effort {effort}", way.encode, way.decode)
    way = picture("jpegxl", lossless=True, effort=3, decodingspeed=4, numthreads=1)
    yield Way("JPEG XL, effort 3, for quick decoding", way.encode, way.decode)
    for name, title in (("jpegls", "JPEG-LS by tile"), ("qoi", "QOI by tile")):
        way = picture(name)
        yield Way(title, way.encode, way.decode)


@dataclass(frozen=True)
class Picture:
    """A composite's tiles as they are stored, and which of them some window touches; trimap's bytes, PNG's of both."""

    tiles: list[Array]
    touched: list[int]
    trimap: int
    png: int


def pictures(options: argparse.Namespace) -> Iterator[Picture]:
    """Draw composites, and cut them."""
    rng = np.random.default_rng(0)
    with closing(open_dataset(options.dataset)) as dataset:
        for number in rng.permutation(len(dataset))[: options.composites].tolist():
            sample = dataset[number]
            shard, _ = dataset.locate(number)
            height, width = (even_tile(side, dataset.reader(shard).header.tile) for side in sample.alpha.shape)
            stored = sample.image * (sample.alpha < 255)[..., None]
            below, right = -stored.shape[0] % height, -stored.shape[1] % width
            stored = np.asarray(cv2.copyMakeBorder(stored, 0, below, 0, right, cv2.BORDER_REPLICATE), np.uint8)
            corners = [(y, x) for y in range(0, len(stored), height) for x in range(0, stored.shape[1], width)]
            top, left = (int(rng.integers(max(1, side - WINDOW + 1))) for side in sample.alpha.shape)
            masks = Interleaved(1, 1).encode(sample.trimap, (2 * height, 2 * width))
            yield Picture(
                [np.ascontiguousarray(stored[y : y + height, x : x + width]) for y, x in corners],
                [
                    i
                    for i, (y, x) in enumerate(corners)
                    if y < top + WINDOW and y + height > top and x < left + WINDOW and x + width > left
                ],
                sum(len(data) for row in masks for data in row),
                len(png(sample.image)) + len(png(sample.trimap)),
            )


def bounds(drawn: list[Picture]) -> dict[str, float]:
    """Return the bytes of all pictures by entropies of each tile's planes."""
    found = {"differences, each plane": 0.0, "LOCO-I's predictor, each plane": 0.0, "LOCO-I's, eight contexts": 0.0}
    for tile in (tile for picture in drawn for tile in picture.tiles):
        found["differences, each plane"] += sum(map(entropy, differences(tile))) / 8
        for plane in colours(tile, 1):
            padded = np.pad(plane, ((1, 0), (1, 1)), mode="edge").astype(np.int16)
            above, left, corner, beyond = padded[:-1, 1:-1], padded[1:, :-2], padded[:-1, :-2], padded[:-1, 2:]
            low, high = np.minimum(above, left), np.maximum(above, left)
            guess = np.where(corner >= high, low, np.where(corner <= low, high, above + left - corner))
            rest = (plane - guess).astype(np.uint8)
            found["LOCO-I's predictor, each plane"] += entropy(rest) / 8
            around = np.abs(left - corner) + np.abs(corner - above) + np.abs(above - beyond)
            context = np.digitize(around, CLASSES)
            found["LOCO-I's, eight contexts"] += sum(entropy(rest[context == c]) for c in range(8)) / 8
    return found


def measure(way: Way, drawn: list[Picture], number: int) -> None:
    """Write and read all pictures once; the first time, compare and count bytes."""
    writing = reading = 0.0
    for picture in drawn:
        start = time.process_time()
        data = [way.encode(tile) for tile in picture.tiles]
        writing += time.process_time() - start
        start = time.process_time()
        read = [way.decode(data[i], picture.tiles[i].shape) for i in picture.touched]
        reading += time.process_time() - start
        if not number:
            way.size += sum(map(len, data))
            for i, tile in zip(picture.touched, read, strict=True):
                np.testing.assert_array_equal(tile, picture.tiles[i], way.name)
    way.writing.append(writing / len(drawn) * 1e3)
    way.reading.append(reading / len(drawn) * 1e3)


def show(tried: list[Way], drawn: list[Picture]) -> None:
    """Print the table, the smallest first; a star where nothing is both smaller and quicker to read."""
    trimaps, base = sum(p.trimap for p in drawn), sum(p.png for p in drawn)
    print(f"| | of PNG | writing, ms a composite | reading, ms a crop |\n{'|---' * 4}|")
    best = math.inf
    for way in sorted(tried, key=lambda way: way.size):
        quick = statistics.median(way.reading)
        star = " *" if quick < best else ""
        best = min(best, quick)
        times = (f"{statistics.median(v):.3g} ({min(v):.3g}–{max(v):.3g})" for v in (way.writing, way.reading))
        print(f"| {way.name}{star} | {(way.size + trimaps) / base:.3f} | {' | '.join(times)} |")
    for name, size in bounds(drawn).items():
        print(f"| *bound: {name}* | {(size + trimaps) / base:.3f} | | |")


def plot(tried: list[Way], drawn: list[Picture], file: Path) -> None:
    """Draw bytes against reading, writing by size."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    mpl.rcParams |= {"svg.hashsalt": "pareto", "svg.fonttype": "none", "font.size": 8}
    trimaps, base = sum(p.trimap for p in drawn), sum(p.png for p in drawn)
    axes = Figure(figsize=(9, 5), layout="constrained").subplots()
    near = 0  # points from a circle to its number: below and above in turn
    for number, way in enumerate(sorted(tried, key=lambda way: way.size), 1):
        x, y = (way.size + trimaps) / base, statistics.median(way.reading)
        colour = "C0" if " " in way.name else "C1"
        area = 8 * statistics.median(way.writing) ** 0.8 + 4
        axes.scatter(x, y, area, alpha=0.5, color=colour, label=f"{number}  {way.name}")
        near = -16 if near > 0 else 6
        axes.annotate(str(number), (x, y), (0, near), textcoords="offset points", ha="center")
    axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False, markerscale=0)
    axes.set(xlabel="bytes, of PNG's", ylabel="reading, ms a crop of 320 px", xscale="log", yscale="log")
    axes.set_title("Less is better; larger circles take longer to write; in orange what there is")
    for axis, ticks in ((axes.xaxis, (0.5, 0.6, 0.7, 0.8, 1, 1.5, 2)), (axes.yaxis, (0.01, 0.03, 0.1, 0.3, 1, 3, 10))):
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3)
    axes.figure.savefig(file, metadata={"Date": None})


def main() -> None:
    """Print a table, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--composites", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plot", type=Path, help="an SVG file")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    drawn = list(pictures(options))
    training = [differences(tile).tobytes() for picture in drawn[::2] for tile in picture.tiles]
    tried = list(ways(training))
    for number in range(options.rounds):
        for way in tried:
            measure(way, drawn, number)
    show(tried, drawn)
    if options.plot:
        plot(tried, drawn, options.plot)


if __name__ == "__main__":
    main()
