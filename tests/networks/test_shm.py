"""SHM whole: T-Net's classes into M-Net's masks, fused; and patches that carry the gradient back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need the 'train' extra")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from matting_compose.trainer import SHM, MNet, TNet  # noqa: E402
from matting_compose.trainer.networks import shm as module  # noqa: E402
from matting_compose.trainer.networks.exports import export_network  # noqa: E402
from matting_compose.trainer.networks.network import MASKS, normalised, trimap_masks  # noqa: E402
from matting_compose.trainer.networks.registry import describe_network, rebuild_network  # noqa: E402
from small_networks import lively  # noqa: E402


class Known(nn.Module):
    """Logits that are a trimap's masks, strongly."""

    def __init__(self, trimap: torch.Tensor) -> None:
        super().__init__()
        self.logits = trimap_masks(trimap).float() * 20

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits


def small() -> SHM:
    torch.manual_seed(0)
    mnet = MNet(width=0.125, decoder="resize", output="sigmoid", norm="group")
    return SHM(TNet(encoder="lite0"), mnet, patch=32, patches=[32, 48])


def test_a_sure_tnet_is_a_trimap() -> None:
    """Where T-Net is sure, the whole is what M-Net and the fusion make of that trimap: one order of masks."""
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (1, 3, 40, 56), dtype=np.uint8))
    trimap = torch.from_numpy(rng.choice(np.array([0, 128, 255], np.uint8), (1, 40, 56)))
    network = small().eval()
    expected = network.mnet.matte(image, trimap)
    network.tnet = Known(trimap)  # type: ignore[assignment]
    torch.testing.assert_close(network.matte(image), expected)
    torch.testing.assert_close(network.matte(image, trimap), expected)
    assert MASKS == ("background", "foreground", "unknown")


def test_fusion_and_temperature_are_the_papers() -> None:
    """α_p = F_s + U_s·α_r of a softmax of logits over 0.1, written down once more."""
    network = small().eval()
    x = normalised(torch.randint(0, 256, (2, 3, 48, 40), dtype=torch.uint8))
    with torch.no_grad():
        logits = network.tnet(x)
        e = (logits * 10 - (logits * 10).max(dim=1, keepdim=True).values).exp()
        b, f, u = (e / e.sum(dim=1, keepdim=True)).unbind(dim=1)
        alpha = network.mnet(torch.cat((x, torch.stack((b, f, u), dim=1)), dim=1))[:, 0]
        torch.testing.assert_close(network(x)[:, 0], f + u * alpha)


def test_the_gradient_reaches_tnet() -> None:
    """A loss of the patches' alpha alone moves every part of T-Net but its auxiliary head."""
    network = small().train()
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    trimap = torch.full((2, 64, 64), 128, dtype=torch.uint8)
    inputs = network.training_inputs(image, trimap)
    found = network(*inputs)
    assert found["alpha"].shape == (2, 1, 32, 32)
    assert found["trimap"].shape == (2, 3, 64, 64)
    found["alpha"].square().mean().backward()
    for name, parameter in network.tnet.named_parameters():
        moved = parameter.grad is not None and bool(parameter.grad.any())
        assert moved != name.startswith("auxiliary"), name


def test_patches_lie_around_unknown_pixels() -> None:
    """Wholly inside, of a drawn side, with an unknown pixel in them, the same for the same state of the generator."""
    trimap = torch.zeros(4, 90, 70, dtype=torch.uint8)
    trimap[:, 80, 5] = 128
    trimap[3] = 255
    torch.manual_seed(3)
    windows = module.draw_windows(trimap, (20, 40, 200))
    for (y, x, side), one in zip(windows.tolist(), trimap, strict=True):
        assert side in (20, 40, 70)
        assert 0 <= y <= 90 - side
        assert 0 <= x <= 70 - side
        assert (one[y : y + side, x : x + side] == 128).any() or not (one == 128).any()
    torch.manual_seed(3)
    assert torch.equal(module.draw_windows(trimap, (20, 40, 200)), windows)


def test_what_is_compared_is_what_was_cut() -> None:
    """The truth goes through the same windows as the picture; a mask keeps all that it touches."""
    network = small()
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    inputs = (normalised(image), torch.tensor([[3, 5, 48], [0, 32, 32]]))
    patch = network.covered(image.float(), inputs)
    whole = F.interpolate(image[:1, :, 3:51, 5:53].float(), (32, 32), mode="bilinear", antialias=True)
    torch.testing.assert_close(patch[:1], whole)
    assert torch.equal(patch[1], image[1, :, :32, 32:].float())
    mask = torch.zeros(2, 1, 64, 64, dtype=torch.bool)
    mask[0, 0, 20, 20] = True
    covered = network.covered(mask, inputs)
    assert covered.dtype == torch.bool
    assert covered[0].any()
    assert not covered[1].any()


def test_a_checkpoint_builds_both_halves_again() -> None:
    """From plain types, the patches' sides too."""
    network = small()
    again = rebuild_network(describe_network(network), network.state_dict())
    assert isinstance(again, SHM)
    assert again.config == {**network.config, "patches": [32, 48]}
    image = torch.randint(0, 256, (1, 3, 40, 40), dtype=torch.uint8)
    assert torch.equal(again.matte(image), network.eval().matte(image))


def test_large_pictures_are_reduced_for_tnet_alone() -> None:
    """Beyond its sight T-Net sees a smaller picture, and its logits have the picture's size all the same."""
    tnet = TNet(encoder="lite0", sight=40).eval()
    seen = []
    tnet.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[-2:]))
    assert tnet(torch.zeros(1, 3, 80, 80)).shape == (1, 3, 80, 80)
    assert tnet(torch.zeros(1, 3, 40, 38)).shape == (1, 3, 40, 38)
    assert seen == [(40, 40), (40, 38)]


@pytest.mark.parametrize("decoder", ["unpool", "resize"])
def test_one_onnx_graph_is_torchs_whole(decoder: str, tmp_path: Path) -> None:
    """From a picture's bytes alone, at sizes odd and even, below and above T-Net's sight."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    torch.manual_seed(0)
    network = SHM(TNet(encoder="lite0", sight=40), lively(decoder=decoder)).eval()
    assert export_network(network, tmp_path / "shm.onnx").largest < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "shm.onnx", providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == ["image"]
    image = np.random.default_rng(1).integers(0, 256, (1, 3, 61, 90), dtype=np.uint8)
    with torch.no_grad():
        np.testing.assert_allclose(
            session.run(None, {"image": image})[0], network.matte(torch.from_numpy(image)), atol=1e-4
        )
