"""Small networks whose alphas are neither 0 nor 1 nor all alike, and checkpoints of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="networks need the 'train' extra")

from matting_compose.trainer.networks.mnet import MNet  # noqa: E402 (only once torch is known to be there)

torch.set_num_threads(1)


def lively(seed: int = 0, **switches: Any) -> MNet:
    """Make a slim network with normalisation statistics of its own, so that its features are neither flat nor huge."""
    torch.manual_seed(seed)
    network = MNet(**{"width": 0.125, "output": "sigmoid", **switches})
    network.train()
    with torch.no_grad():
        for _ in range(30):
            network(torch.randn(2, 6, 48, 48))
    return network.eval()


def checkpoint(path: Path, network: MNet, /, **changes: Any) -> Path:
    """Write what training writes."""
    document = {
        "format": "matting-compose/checkpoint", "version": 1, "network": dict(network.config),
        "model": network.state_dict(), "ema": None, "step": 7,
    }  # fmt: skip
    torch.save(document | changes, path)
    return path


def picture(height: int, width: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Make an image (H, W, 3) of noise and a trimap (H, W), mostly unknown."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return image, rng.choice(np.array([0, 128, 128, 128, 255], np.uint8), (height, width))
