"""Features of a trimap, against SciPy's distances."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

torch = pytest.importorskip("torch", reason="networks need the 'train' extra")

from matting_compose.trainer.networks.features import distance_features  # noqa: E402 (only once torch is there)


def test_distances_are_euclidean() -> None:
    """exp(−d² / 2(kL)²) for both known regions at three scales; each picture of a batch by itself."""
    rng = np.random.default_rng(0)
    trimaps = rng.choice(np.array([0, 128, 255], np.uint8), (2, 40, 57), p=[0.01, 0.98, 0.01])
    found = distance_features(torch.from_numpy(trimaps)).numpy()
    assert found.dtype == np.float32
    for i, trimap in enumerate(trimaps):
        for j, level in enumerate((0, 255)):
            distance = distance_transform_edt(trimap != level)
            for k, scale in enumerate((0.02, 0.08, 0.16)):
                expected = np.exp(-(distance**2) / (2 * (scale * 320) ** 2))
                np.testing.assert_allclose(found[i, 3 * j + k], expected, atol=1e-5)


def test_nothing_known_is_nothing_felt() -> None:
    """Where a region is empty its planes are 0, everywhere."""
    found = distance_features(torch.full((1, 5, 6), 255, dtype=torch.uint8))
    assert found[0, :3].eq(0).all()
    assert found[0, 3:].eq(1).all()
