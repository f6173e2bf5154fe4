"""Matte one large picture with a slim network of random weights; print time and the process's peak memory.

python bench/predict.py --megapixels 24 --width 0.25
"""

from __future__ import annotations

import argparse
import math
import resource
import time

import cv2
import numpy as np
import torch

from matting_compose.trainer.inference.tiled import predict_alpha
from matting_compose.trainer.networks.mnet import MNet


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megapixels", type=float, default=24)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--tile", type=int, default=1024)
    options = parser.parse_args()
    height = math.isqrt(int(options.megapixels * 1e6 * 2 / 3))
    size = (height, height * 3 // 2)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    trimap = np.zeros(size, np.uint8)
    centre, axes = (size[1] // 2, size[0] // 2), (size[1] // 3, size[0] // 3)
    cv2.ellipse(trimap, centre, axes, 0, 0, 360, 255, -1)
    cv2.ellipse(trimap, centre, axes, 0, 0, 360, 128, size[0] // 20)
    torch.manual_seed(0)
    network = MNet(width=options.width).eval()
    start, cpu = time.monotonic(), time.process_time()
    predict_alpha(network, image, trimap, tile=options.tile)
    seconds, cpu = time.monotonic() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"{image.shape[1]}×{image.shape[0]} px, {(trimap == 128).mean():.0%} unknown, width {options.width:g},"
        f" tile {options.tile}: {seconds:.0f} s ({cpu:.0f} s CPU), peak {peak / 2**30:.2f} GiB"
    )


if __name__ == "__main__":
    main()
