"""Matte one large picture by each method in turn; print CPU seconds, and the peak of memory.

    OMP_NUM_THREADS=1 python bench/predict.py default closed-form --megapixels 4 --rounds 5
    OMP_NUM_THREADS=1 python bench/predict.py mnet --megapixels 24 --width 0.25

``mnet`` is a slim one of random weights; the others are those of ``matting-predict --method``. The picture: one drawn
texture before another, with a soft edge. The first of several rounds does not count.
"""

from __future__ import annotations

import argparse
import math
import resource
import time
from concurrent.futures import ProcessPoolExecutor

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from matting_compose.composer.compositing.blending import blend
from matting_compose.trainer.inference.methods import METHODS, MatteOptions, make_matte, prepare
from matting_compose.trainer.inference.tiled import predict_alpha
from matting_compose.trainer.networks.mnet import MNet

OPTIONS = MatteOptions(device="cpu")


def draw_picture(megapixels: float, unknown: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw a picture, (H, W, 3) RGB, 3:2, and its trimap, (H, W), with a share of it unknown."""
    height = math.isqrt(int(megapixels * 1e6 * 2 / 3))
    width = height * 3 // 2
    rng = np.random.default_rng(0)
    textures = []
    for middle in (70, 180):
        texture = np.full((height, width, 3), middle, np.float32)
        for octave in range(1, int(math.log2(height))):  # as much at every scale, as photographs have it
            size = (max(2, height >> octave), max(2, width >> octave), 3)
            coarse = rng.normal(0, 12, size).astype(np.float32)
            texture += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        textures.append(np.clip(texture, 0, 255).astype(np.uint8))
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    radius = np.hypot(x, y)  # 0.6 at the edge, whose band has an area of π · 0.6 · half of its width, of all
    half = unknown / (0.6 * math.pi)
    trimap = np.where(np.abs(radius - 0.6) < half, 128, np.where(radius < 0.6, 255, 0)).astype(np.uint8)
    alpha = np.rint(255 * np.clip((0.6 + half / 3 - radius) * 1.5 / half, 0, 1)).astype(np.uint8)
    return blend(textures[1], alpha, textures[0]), trimap


def main() -> None:
    """Print a line for each method."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("methods", nargs="+", choices=["mnet", *METHODS])
    parser.add_argument("--megapixels", type=float, default=24)
    parser.add_argument("--unknown", type=float, default=0.13, help="share of the picture")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--width", type=float, default=0.25, help="of mnet")
    options = parser.parse_args()
    if not (options.megapixels >= 1e-4 and options.unknown > 0 and options.rounds >= 1 and options.width > 0):
        parser.error("--megapixels is 0.0001 at least, --rounds 1; --width is more than 0, --unknown too")
    with ProcessPoolExecutor(1) as pool:  # what drawing takes is not the methods' memory
        image, trimap = pool.submit(draw_picture, options.megapixels, options.unknown).result()
    torch.manual_seed(0)
    mnet = MNet(width=options.width).eval()
    for method in set(options.methods) - {"mnet"}:
        prepare(method, OPTIONS)
    spent: dict[str, list[float]] = {method: [] for method in options.methods}
    for _ in range(options.rounds + (options.rounds > 1)):
        for method, times in spent.items():
            start = time.process_time()
            if method == "mnet":
                predict_alpha(mnet, image, trimap)
            else:
                make_matte(method, image, trimap, OPTIONS)
            times.append(time.process_time() - start)
    height, width = trimap.shape
    print(f"{width}×{height} px, {(trimap == 128).mean():.1%} unknown, {torch.get_num_threads()} thread(s)")
    for method, times in spent.items():
        counted = times[len(times) > 1 :]
        print(f"{method:16} {np.median(counted):6.2f} s CPU ({min(counted):.2f}-{max(counted):.2f})")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"peak of all {peak / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
