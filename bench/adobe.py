"""Compare `fit.method = adobe` bit for bit with the official script's steps, pixel by pixel; time it.

    python bench/adobe.py --foregrounds cutouts/ --backgrounds photos/

Builds a dataset from cut-outs, so that reading, fitting, blending, storing and reading back are all in it, and composes
each picture again in plain Python, a pixel at a time. Beside them a rewrite with OpenCV as it is widely used: the same
steps, but cv2.imread, cv2.resize and float32.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from matting_compose.composer import open_dataset
from matting_compose.composer.building.build import build
from matting_compose.composer.compositing.blending import METHODS
from matting_compose.composer.recipe import load_recipe

Array = NDArray[np.uint8]


def by_the_script(foreground: Image.Image, alpha: Image.Image, background: Image.Image) -> Array:
    """Compose as the official script does, pixel by pixel.

    Parameters
    ----------
    foreground, background : any mode; converted to RGB by Pillow
    alpha : channel 0 counts

    Returns
    -------
    (H, W, 3) uint8 RGB
    """
    above, matte, ground = foreground.convert("RGB"), alpha.split()[0], background.convert("RGB")
    (width, height), (bw, bh) = above.size, ground.size
    ratio = max(width / bw, height / bh)
    if ratio > 1:
        ground = ground.resize((math.ceil(bw * ratio), math.ceil(bh * ratio)), Image.Resampling.BICUBIC)
    ground = ground.crop((0, 0, width, height))
    f, a, b = above.load(), matte.load(), ground.load()
    for x in range(width):
        for y in range(height):
            share = a[x, y] / 255
            if share >= 1:
                b[x, y] = f[x, y]
            elif share > 0:
                b[x, y] = tuple(int(share * f[x, y][c] + (1 - share) * b[x, y][c]) for c in range(3))
    return np.asarray(ground)


def by_opencv(cutout: Array, background: Path) -> Array:
    """Compose with the usual calls of OpenCV; `cutout` (H, W, 4) uint8 RGBA."""
    height, width = cutout.shape[:2]
    ground = cv2.imread(str(background), cv2.IMREAD_COLOR_RGB)
    ratio = max(width / ground.shape[1], height / ground.shape[0])
    if ratio > 1:
        size = math.ceil(ground.shape[1] * ratio), math.ceil(ground.shape[0] * ratio)
        ground = cv2.resize(ground, size, interpolation=cv2.INTER_CUBIC)
    weight = cutout[..., 3:].astype(np.float32) / 255
    return (weight * cutout[..., :3] + (1 - weight) * ground[:height, :width]).astype(np.uint8)


def compare(foregrounds: Path, backgrounds: Path, count: int, scratch: Path) -> None:
    """Build, compose again, and print how many pixels differ."""
    (scratch / "taken").mkdir()
    names = sorted(path for path in foregrounds.iterdir() if path.suffix == ".png")
    for path in names[:: max(1, len(names) // count)][:count]:
        (scratch / "taken" / path.name).symlink_to(path.resolve())
    overrides = ["variants=1", "fit.method=adobe", "shards.variants=1"]
    recipe = load_recipe(None, overrides, foregrounds=scratch / "taken", backgrounds=backgrounds)
    build(recipe, scratch / "out", jobs=1)
    composites, pixels, differing, enlarged, opencv = 0, 0, 0, 0, 0
    for sample in open_dataset(scratch / "out"):
        cutout = Image.open(scratch / "taken" / f"{sample.row.foreground}.png").convert("RGBA")
        background = backgrounds / sample.row.background
        expected = by_the_script(cutout, cutout.getchannel("A"), Image.open(background))
        composites, pixels, enlarged = composites + 1, pixels + sample.alpha.size, enlarged + (sample.row.scale > 1)
        differing += int((sample.image != expected).any(axis=2).sum())
        rewritten = by_opencv(np.asarray(cutout), background)
        opencv += int((rewritten != expected).any(axis=2).sum()) if rewritten.shape == expected.shape else expected.size
    print(f"{composites} composites, {pixels:,} pixels, {enlarged} backgrounds enlarged: {differing:,} pixels differ")
    print(f"a rewrite with OpenCV: {opencv:,} pixels differ ({opencv / pixels:.1%})")


def milliseconds(work: Callable[[], object], rounds: int = 15) -> float:
    """Return the quickest of some runs."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def measure() -> None:
    """Print what blending costs, with half of the pixels fractional."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    foreground, background = (rng.integers(0, 256, (1000, 1000, 3), np.uint8) for _ in range(2))
    alpha = rng.choice(np.array([0, 255, *range(1, 255)], np.uint8), (1000, 1000), p=[0.25, 0.25, *[0.5 / 254] * 254])

    def plainly() -> Array:
        share = alpha[..., None] / 255
        return (share * foreground + (1 - share) * background).astype(np.uint8)

    for name, method in METHODS.items():
        blend = method.blender(foreground, alpha)
        print(f"blend, {name:6} {milliseconds(lambda blend=blend: blend(background)):6.1f} ms/MP")
    print(f"blend, float64 {milliseconds(plainly, 5):5.1f} ms/MP")


def main() -> None:
    """Compare, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--foregrounds", type=Path, required=True, help="cut-outs, PNG")
    parser.add_argument("--backgrounds", type=Path, required=True)
    parser.add_argument("--count", type=int, default=24, help="composites to compare")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        compare(options.foregrounds.resolve(), options.backgrounds.resolve(), options.count, Path(name))
    measure()


if __name__ == "__main__":
    main()
