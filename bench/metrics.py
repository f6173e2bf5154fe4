"""Time the four errors on a large matte, beside a plain port of the MATLAB code to SciPy, and compare their values.

    python bench/metrics.py --megapixels 2 --rounds 5

The port does what the published Python ports do, one formula after the other, in float64 but for the connectivity
error's comparisons; it is the reference of the tests, without their slow loop over labels.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from matting_compose.trainer.metrics import connectivity_error, gradient_error, mse, sad

Picture = NDArray[np.uint8]
Metric = Callable[[Picture, Picture, Picture], float]


def make_matte(pixels: int) -> tuple[Picture, Picture, Picture]:
    """A matte with a soft, hairy rim, a prediction that errs, and the trimap."""
    rng = np.random.default_rng(0)
    side = math.isqrt(pixels)
    rough = cv2.GaussianBlur(rng.normal(size=(side, side)), (0, 0), side / 20)
    fine = cv2.GaussianBlur(rng.normal(size=(side, side)), (0, 0), 1.5)
    field = rough / np.abs(rough).max() + 0.1 * fine / np.abs(fine).max()
    truth = np.clip(127 + 2000 * field, 0, 255).astype(np.uint8)
    prediction = np.clip(cv2.GaussianBlur(truth, (0, 0), 2) + rng.normal(0, 8, truth.shape), 0, 255).astype(np.uint8)
    soft = ((truth > 0) & (truth < 255)).astype(np.uint8)
    unknown = cv2.dilate(soft, np.ones((15, 15), np.uint8)) > 0
    return prediction, truth, np.where(unknown, 128, truth).astype(np.uint8)


def port_sad(p: Picture, g: Picture, t: Picture) -> float:
    return float(np.abs(p / 255 - g / 255)[t == 128].sum() / 1000)


def port_mse(p: Picture, g: Picture, t: Picture) -> float:
    return float((((p / 255 - g / 255) ** 2) * (t == 128)).sum() / (t == 128).sum())


def port_gradient(p: Picture, g: Picture, t: Picture) -> float:
    gauss = np.array([math.exp(-(x**2) / (2 * 1.4**2)) / (1.4 * math.sqrt(2 * math.pi)) for x in range(-4, 5)])
    kernel = np.outer(gauss, -np.arange(-4, 5) * gauss / 1.4**2)
    kernel /= np.sqrt((kernel**2).sum())
    amplitudes = []
    for x in (p, g):
        x = (x.astype(float) - x.min()) / (int(x.max()) - int(x.min()))
        gx, gy = (ndimage.convolve(x, k, mode="nearest") for k in (kernel, kernel.T))
        amplitudes.append(np.sqrt(gx**2 + gy**2))
    return float(((amplitudes[0] - amplitudes[1]) ** 2)[t == 128].sum() / 1000)


def port_connectivity(p: Picture, g: Picture, t: Picture) -> float:
    x, y = (picture.astype(np.float32) / np.float32(255) for picture in (p, g))
    connected = np.full(p.shape, -1, np.float32)
    for i in range(1, 11):
        labels, count = ndimage.label((x >= np.float32(i / 10)) & (y >= np.float32(i / 10)))
        omega = labels == 1 + np.bincount(labels.ravel())[1:].argmax() if count else np.zeros(p.shape, bool)
        connected[(connected == -1) & ~omega] = np.float32((i - 1) / 10)
    connected[connected == -1] = 1
    phi = [1 - (v - connected) * (v - connected >= np.float32(0.15)) for v in (x, y)]
    return float(np.abs(phi[0] - phi[1])[t == 128].astype(float).sum() / 1000)


PAIRS: list[tuple[Metric, Metric]] = [
    (sad, port_sad), (mse, port_mse), (gradient_error, port_gradient), (connectivity_error, port_connectivity),
]  # fmt: skip


def timed(metric: Metric, pictures: tuple[Picture, Picture, Picture], rounds: int) -> tuple[float, float]:
    """The metric's value, and the median of its CPU times in ms."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        value = metric(*pictures)
        times.append((time.process_time() - start) * 1000)
    return value, float(np.median(times))


def main() -> None:
    """Print a line per metric."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megapixels", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    pictures = make_matte(int(options.megapixels * 1e6))
    total = [0.0, 0.0]
    for own, port in PAIRS:
        (value, ours), (reference, theirs) = (timed(metric, pictures, options.rounds) for metric in (own, port))
        difference = abs(value - reference) / reference
        print(f"{own.__name__:20} {value:10.4f}  differs by {difference:.0e}  {ours:7.1f} ms  port {theirs:8.1f} ms")
        total = [total[0] + ours, total[1] + theirs]
    print(f"{'all':20} {total[0]:.1f} ms, port {total[1]:.1f} ms: {total[1] / total[0]:.1f} times")


if __name__ == "__main__":
    main()
