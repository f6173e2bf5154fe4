"""A network from outside the package is trained, validated, resumed, used for prediction, evaluated and exported."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import cv2
import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="training needs the 'train' extra")

from matting_compose.trainer import commands  # noqa: E402 (only once torch is known to be there)
from matting_compose.trainer.inference.tiled import predict_alpha, smallest_tile  # noqa: E402
from matting_compose.trainer.networks.checkpoint import load_network  # noqa: E402
from matting_compose.trainer.training.config import Config, load_config  # noqa: E402
from runs import TINY, asked_at, same, state, steps_of, train_in_process  # noqa: E402
from small_networks import picture  # noqa: E402

EXAMPLES = Path(__file__).parents[2] / "examples"
NAME = "tiny_unet:TinyUNet"


def tiny_config() -> Config:
    own = [item for item in TINY if not item.startswith("network.")]
    return load_config(None, (*own, f"network.name={NAME}", "network.arguments={channels=4}"))


@pytest.fixture(scope="module")
def trained(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train it in one go. To be read only."""
    out = tmp_path_factory.mktemp("own") / "run"
    assert not train_in_process(finished, out, tiny_config()).stopped
    return out


def invoke(command: click.Command, *arguments: object) -> str:
    done = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_it_trains_and_resumes(trained: Path, finished: Path, tmp_path: Path) -> None:
    """Stopped and resumed it is the run that never stopped; its checkpoint names it."""
    out = tmp_path / "stopped"
    assert train_in_process(finished, out, tiny_config(), on_progress=asked_at(3)).stopped
    assert not train_in_process(finished, out, tiny_config(), resume=True).stopped
    assert same(state(out / "last.pt"), state(trained / "last.pt"))
    assert steps_of(trained, "validation") == [0, 0, 4, 7]
    assert state(out / "last.pt")["network"] == {"name": NAME, "arguments": {"channels": 4}}


def test_it_is_used_as_any_network(trained: Path, finished: Path, tmp_path: Path) -> None:
    """Commands that predict, evaluate and export know it from its checkpoint."""
    image, trimap = picture(37, 50)
    cv2.imwrite(str(tmp_path / "image.png"), image)
    cv2.imwrite(str(tmp_path / "trimap.png"), trimap)
    best = trained / "best.pt"
    invoke(
        commands.predict, best, tmp_path / "image.png", "--trimap", tmp_path / "trimap.png", "-o", tmp_path / "a.png"
    )
    expected = predict_alpha(load_network(best), image[..., ::-1].copy(), trimap)
    found = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_allclose(found / 255, expected, atol=0.51 / 255)
    assert "network" in invoke(commands.evaluate, "--checkpoint", best, "--dataset", finished, "-j", 1, "--limit", 2)
    invoke(commands.export, best, "-o", tmp_path / "network.safetensors")
    again = predict_alpha(load_network(tmp_path / "network.safetensors"), image[..., ::-1].copy(), trimap)
    np.testing.assert_allclose(again, expected, atol=1e-6)


def test_it_is_exported_by_torch(trained: Path, tmp_path: Path) -> None:
    """ONNX of any size and batch, equal to torch's alphas."""
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    assert "differ from torch's by at most" in invoke(commands.export, trained / "best.pt", "-o", tmp_path / "n.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "n.onnx"), providers=["CPUExecutionProvider"])
    image, trimap = (np.stack([part, part[::-1]]) for part in picture(24, 44))
    (alpha,) = session.run(["alpha"], {"image": image.transpose(0, 3, 1, 2), "trimap": trimap})
    network = load_network(trained / "best.pt")
    for i in range(2):
        np.testing.assert_allclose(alpha[i, 0], predict_alpha(network, image[i], trimap[i]), atol=1e-5)


def test_its_tiles_are_the_whole_picture(trained: Path) -> None:
    """Group normalisation apart, tiles agree: its stride and context are what it says."""
    network = load_network(trained / "best.pt")
    for module in network.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = lambda x: x
    image, trimap = picture(20, 900)
    whole, tiled = (predict_alpha(network, image, trimap, tile=tile) for tile in (1024, smallest_tile(network)))
    np.testing.assert_allclose(tiled, whole, atol=1e-5)
    assert whole[trimap == 128].std() > 1e-4


def test_a_checkpoint_elsewhere_says_what_is_missing(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the class cannot be imported, the message says how it could be."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if Path(path) != EXAMPLES])
    monkeypatch.delitem(sys.modules, "tiny_unet")
    with pytest.raises(ValueError, match=r"tiny_unet:TinyUNet.*PYTHONPATH"):
        load_network(trained / "best.pt")
