"""ColourNet: what it is told of nearby colours is true, it starts from their mixture, and other programs can run it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need the 'train' extra")

from matting_compose.trainer.inference.tiled import predict_alpha  # noqa: E402
from matting_compose.trainer.networks import colournet  # noqa: E402
from matting_compose.trainer.networks.colournet import LEVELS, SCALES, ColourNet  # noqa: E402
from matting_compose.trainer.networks.exports import export_network  # noqa: E402
from matting_compose.trainer.networks.fusion import Fusion  # noqa: E402

RED, BLUE = np.array([200, 40, 30], np.uint8), np.array([20, 60, 220], np.uint8)


def lively() -> ColourNet:
    """Make a slim network with normalisation statistics of its own."""
    torch.manual_seed(0)
    network = ColourNet(width=0.5)
    image, trimap, _ = blended()
    for _ in range(20):
        network(*network.inputs(image + torch.randint(0, 9, image.shape, dtype=torch.uint8), trimap))
    return network.eval()


def blended(side: int = 96) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Make a ramp from one colour to another, known at both ends: image, trimap, alpha."""
    alpha = np.clip((np.arange(side) - side / 4) / (side / 2), 0, 1)
    row = np.rint(alpha[:, None] * RED + (1 - alpha[:, None]) * BLUE).astype(np.uint8)
    image = np.broadcast_to(row.T[None, :, None], (1, 3, side, side))
    trimap = np.where(alpha == 0, 0, np.where(alpha == 1, 255, 128)).astype(np.uint8)
    return torch.tensor(image), torch.tensor(np.broadcast_to(trimap, (1, side, side))), alpha


def test_the_mixture_of_two_plain_colours_is_alpha() -> None:
    """Where foreground and background are plain, the hint is the answer, at every scale."""
    image, trimap, alpha = blended()
    planes, hints = ColourNet().inputs(image, trimap)
    assert planes.shape == (1, 9, 96, 96)
    assert hints.shape == (1, 4 * len(SCALES) + 3, 48, 48)
    assert np.abs(planes[0, 5].numpy() - alpha).max() < 0.02
    half = alpha.reshape(-1, 2).mean(axis=1)
    for scale in range(len(SCALES)):
        assert np.abs(hints[0, 4 * scale].numpy() - half).max() < 0.02


def test_the_largest_scale_averages_what_is_known() -> None:
    """A picture of one cell: the mean of its known pixels, and their spread."""
    rng = np.random.default_rng(0)
    side = 2**LEVELS
    image = rng.integers(0, 256, (1, 3, side, side), np.uint8)
    trimap = rng.choice(np.array([0, 128, 255], np.uint8), (1, side, side))
    _, hints = ColourNet().inputs(torch.tensor(image), torch.tensor(trimap))
    pixels = image[0].reshape(3, -1).T / 255
    means = [pixels[trimap.ravel() == level].mean(axis=0) for level in (0, 255)]
    apart = np.linalg.norm(means[1] - means[0])
    assert np.abs(hints[0, 4 * len(SCALES) - 1].numpy() - apart).max() < 2e-3


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_trimap_that_lacks_something_does_no_harm(level: int) -> None:
    """Nothing known, or only one of both: alpha is finite, within 0..1, and gradients are too."""
    network = lively()
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    trimap = torch.full((2, 64, 64), level, dtype=torch.uint8)
    alpha = network(*network.inputs(image, trimap))
    assert alpha.shape == (2, 1, 64, 64)
    assert bool(((alpha >= 0) & (alpha <= 1)).all())
    alpha.mean().backward()
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)


def test_onnx_gives_the_same_alpha(tmp_path: Path) -> None:
    """Hints included: the file takes bytes."""
    pytest.importorskip("onnxruntime")
    network = lively()
    assert export_network(network, tmp_path / "network.onnx").largest < 1e-4


def test_pictures_of_any_size_are_matted() -> None:
    """Sizes that are no multiples of the stride are padded; tiles know what the whole picture shows."""
    network = lively()
    across, _, _ = blended(96)
    image = np.tile(across[0].permute(2, 1, 0).numpy(), (1, 12, 1))[:90, :1100]
    cv2.add(image, np.random.default_rng(1).integers(0, 30, image.shape, np.uint8), image)
    trimap = np.full((90, 1100), 128, np.uint8)
    trimap[:24], trimap[72:] = 0, 255
    alpha = predict_alpha(network, image, trimap, tile=2048)
    assert alpha.shape == (90, 1100)
    assert (alpha[:24] == 0).all()
    assert (alpha[72:] == 1).all()
    assert np.abs(predict_alpha(network, image, trimap, tile=512) - alpha).max() < 1 / 255


def test_a_large_picture_is_looked_at_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of it all is the same, however high a strip is."""
    image, trimap, _ = blended(96)
    image = image + torch.randint(0, 30, image.shape, dtype=torch.uint8)
    whole = ColourNet().survey(image, trimap)
    monkeypatch.setattr(colournet, "STRIP", 32)
    for part, other in zip(ColourNet().survey(image, trimap), whole, strict=True):
        torch.testing.assert_close(part, other, rtol=0, atol=1e-5)


def test_blocks_are_the_whole_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part's matte, made block by block, is what the network says of it in one piece; known blocks are not made."""
    network, made = lively(), []
    image = torch.randint(0, 256, (1, 3, 320, 416), dtype=torch.uint8)
    trimap = torch.full((1, 320, 416), 255, dtype=torch.uint8)
    trimap[:, :, :10], trimap[:, 100:140, 20:300], trimap[:, 256:, 384:] = 0, 128, 128
    survey = network.survey(image, trimap)
    whole = network.fuse(network(*network._inputs(image, trimap, survey)), trimap)
    finish = network._finish
    monkeypatch.setattr(network, "_finish", lambda *parts: made.append(parts[2].shape[2:]) or finish(*parts))
    torch.testing.assert_close(network.matte_part(image, trimap, survey), whole, rtol=0, atol=1e-5)
    assert len(made) == 7  # of twelve: three at the top, three below these, and a corner
    assert max(made) == (128 + 2 * 4, 128 + 2 * 4)


@pytest.mark.parametrize("network", [ColourNet, Fusion])
@pytest.mark.parametrize("width", [0.0, -1.0, float("nan"), float("inf")])
def test_a_width_that_is_none_is_refused(network: type[ColourNet | Fusion], width: float) -> None:
    """By both that share the U-net."""
    with pytest.raises(ValueError, match="must be above 0"):
        network(width=width)
