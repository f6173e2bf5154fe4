"""Fusion: it starts as the mean of its mattes, stays near them whatever its weights, and does without any one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need the 'train' extra")

from matting_compose.trainer.inference.refine import refine_alpha  # noqa: E402
from matting_compose.trainer.networks import fusion  # noqa: E402
from matting_compose.trainer.networks.checkpoint import export_safetensors, load_network  # noqa: E402
from matting_compose.trainer.networks.fusion import MATTES, Fusion  # noqa: E402


def given(side: int = 48) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Draw a picture, a trimap that knows little, and mattes."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (side, side + 5, 3), np.uint8)
    trimap = rng.choice(np.array([0, 128, 128, 128, 255], np.uint8), image.shape[:2])
    return image, trimap, [rng.integers(0, 256, image.shape[:2]).astype(np.float32) / 255 for _ in MATTES]


def wild() -> Fusion:
    """Make a network whose every weight is large."""
    torch.manual_seed(0)
    network = Fusion()
    for parameter in network.weights.parameters():
        torch.nn.init.normal_(parameter, std=3)
    return network.eval()


def test_untrained_it_is_their_mean() -> None:
    """To the rounding of bytes; what the trimap knows stays."""
    image, trimap, mattes = given()
    found = refine_alpha(Fusion().eval(), image, trimap, mattes)
    expected = np.where(trimap == 128, np.mean(mattes, axis=0), trimap / 255)
    np.testing.assert_allclose(found, expected, atol=1 / 255)


def test_whatever_its_weights_it_stays_near_them() -> None:
    """No alpha is further than a quarter from the span of the mattes, and some are outside it."""
    image, trimap, mattes = given()
    found = refine_alpha(wild(), image, trimap, mattes)
    low, high = np.min(mattes, axis=0), np.max(mattes, axis=0)
    beyond = np.maximum(low - found, found - high)[trimap == 128]
    assert 0.05 < beyond.max() <= 0.25 + 1e-3


def test_one_that_is_not_there_is_the_mean_of_the_others() -> None:
    """So nothing of a matte that failed is in the result."""
    image, trimap, mattes = given()
    filled = [mattes[0], mattes[1], (mattes[0] + mattes[1]) / 2]
    network = wild()
    found = refine_alpha(network, image, trimap, [mattes[0], mattes[1], None])
    np.testing.assert_array_equal(found, refine_alpha(network, image, trimap, filled))


def test_training_drops_mattes_and_keeps_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crop's planes are its mattes, or the mean of those that were kept; the same draws, the same planes."""
    monkeypatch.setattr(fusion, "DROPPED", (0.5, 0.5, 0.5))
    image = torch.zeros(64, 3 + len(MATTES), 16, 16, dtype=torch.uint8)
    levels = torch.tensor([10, 40, 160], dtype=torch.uint8)
    image[:, 3:] = levels[:, None, None]
    trimap = torch.full((64, 16, 16), 128, dtype=torch.uint8)
    torch.manual_seed(1)
    (planes,) = Fusion().training_inputs(image, trimap)
    torch.manual_seed(1)
    assert torch.equal(planes, Fusion().training_inputs(image, trimap)[0])
    seen = {tuple(row) for row in (planes[:, 5:-1, 0, 0] * 255).round().int().tolist()}
    kept = [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1) if a + b + c]
    expected = set()
    for flags in kept:
        rest = round(sum(f * v for f, v in zip(flags, (10, 40, 160), strict=True)) / sum(flags))
        expected.add(tuple(v if f else rest for f, v in zip(flags, (10, 40, 160), strict=True)))
    assert seen == expected


def test_a_picture_alone_is_refused() -> None:
    """It needs the mattes beside it."""
    image, trimap = torch.zeros(1, 3, 16, 16, dtype=torch.uint8), torch.zeros(1, 16, 16, dtype=torch.uint8)
    with pytest.raises(ValueError, match="takes a picture and 3 mattes, found 3 planes"):
        Fusion().matte(image, trimap)


def test_it_is_read_again_from_its_file(tmp_path: Path) -> None:
    """By the path of its class: it has no name that training could be given."""
    export_safetensors(wild(), tmp_path / "fusion.safetensors")
    image, trimap, mattes = given()
    again = load_network(tmp_path / "fusion.safetensors")
    np.testing.assert_array_equal(
        refine_alpha(again, image, trimap, mattes), refine_alpha(wild(), image, trimap, mattes)
    )
