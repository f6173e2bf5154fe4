"""Exports: the same alphas as torch's, in another program's hands."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need the 'train' extra")

from matting_compose.composer.base import packages  # noqa: E402
from matting_compose.composer.base.errors import MattingComposeError, TrainingError  # noqa: E402
from matting_compose.trainer.inference.tiled import predict_alpha  # noqa: E402
from matting_compose.trainer.networks.checkpoint import export_safetensors, load_network  # noqa: E402
from matting_compose.trainer.networks.onnx_export import SIZES, check_onnx, export_onnx  # noqa: E402
from small_networks import lively, picture  # noqa: E402

SWITCHES = list(itertools.product(("unpool", "resize"), ("batch", "group"), ("clamp", "sigmoid")))


@pytest.mark.parametrize(("decoder", "norm", "output"), SWITCHES)
def test_onnx_equals_torch(decoder: str, norm: str, output: str, tmp_path: Path) -> None:
    """Every switch, at multiples of 16, odd sizes and one pixel: to float32's rounding."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    network = lively(decoder=decoder, norm=norm, output=output)
    torch.nn.init.constant_(network.alpha.bias, 0.4)
    export_onnx(network, tmp_path / "mnet.onnx")
    parity = check_onnx(network, tmp_path / "mnet.onnx")
    assert parity.pictures == len(SIZES)
    assert parity.largest < 3e-5


def test_onnx_unpools_ties_as_torch(tmp_path: Path) -> None:
    """Flat pictures make all four pixels of a window equal; the first has the maximum's index."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    network = lively()
    export_onnx(network, tmp_path / "mnet.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(tmp_path / "mnet.onnx"), options, providers=["CPUExecutionProvider"])
    image, trimap = np.full((45, 64, 3), 90, np.uint8), np.full((45, 64), 128, np.uint8)
    image[20:, 30:] = 200
    (alpha,) = session.run(["alpha"], {"image": image.transpose(2, 0, 1)[None], "trimap": trimap[None]})
    expected = predict_alpha(network, image, trimap)
    assert expected.std() > 1e-3
    np.testing.assert_allclose(alpha[0, 0], expected, atol=1e-5)


def test_an_export_of_another_network_is_caught(tmp_path: Path) -> None:
    """The check can fail."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    export_onnx(lively(1), tmp_path / "mnet.onnx")
    with pytest.raises(TrainingError, match="differ from torch's by up to"):
        check_onnx(lively(2), tmp_path / "mnet.onnx")


def test_safetensors_bring_the_network_back(tmp_path: Path) -> None:
    """Weights and configuration, in a file that cannot execute anything."""
    network, path = lively(decoder="resize", norm="group"), tmp_path / "mnet.safetensors"
    export_safetensors(network, path)
    image, trimap = picture(33, 20)
    loaded = load_network(path)
    np.testing.assert_array_equal(predict_alpha(loaded, image, trimap), predict_alpha(network, image, trimap))
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], whole[: len(whole) // 2], b"\xff" * 200, whole.replace(b"resize", b"unpoll")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"mnet\.safetensors"):
            load_network(path)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With what to install."""
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MattingComposeError, match=r"onnx.*pip install .*\[export\]'"):
        export_onnx(lively(), tmp_path / "mnet.onnx")
