"""Exports: the same alphas as torch's, in another program's hands."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="networks need the 'train' extra")

from matting_compose.composer.base import packages  # noqa: E402
from matting_compose.composer.base.errors import MattingComposeError, TrainingError  # noqa: E402
from matting_compose.trainer import commands  # noqa: E402
from matting_compose.trainer.inference.tiled import predict_alpha  # noqa: E402
from matting_compose.trainer.networks import exports  # noqa: E402
from matting_compose.trainer.networks.checkpoint import load_network  # noqa: E402
from matting_compose.trainer.networks.exports import SIZES, export_network  # noqa: E402
from matting_compose.trainer.networks.mnet import MNet  # noqa: E402
from matting_compose.trainer.networks.network import MattingNetwork  # noqa: E402
from small_networks import checkpoint, lively, picture  # noqa: E402

SWITCHES = list(itertools.product(("unpool", "resize"), ("batch", "group"), ("clamp", "sigmoid")))


def session(path: Path):
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("decoder", "norm", "output"), SWITCHES)
def test_onnx_equals_torch(decoder: str, norm: str, output: str, tmp_path: Path) -> None:
    """Every switch, at multiples of 16, odd sizes and one pixel, alone and in batches: to float32's rounding."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    network = lively(decoder=decoder, norm=norm, output=output)
    torch.nn.init.constant_(network.alpha.bias, 0.4)
    parity = export_network(network, tmp_path / "mnet.onnx")
    assert parity.pictures == sum(count for count, *_ in SIZES)
    assert parity.largest < 3e-5


def test_onnx_unpools_ties_as_torch(tmp_path: Path) -> None:
    """Flat pictures make all four pixels of a window equal; the first has the maximum's index."""
    pytest.importorskip("onnx")
    network = lively()
    export_network(network, tmp_path / "mnet.onnx")
    image, trimap = np.full((45, 64, 3), 90, np.uint8), np.full((45, 64), 128, np.uint8)
    image[20:, 30:] = 200
    given = {"image": image.transpose(2, 0, 1)[None], "trimap": trimap[None]}
    (alpha,) = session(tmp_path / "mnet.onnx").run(["alpha"], given)
    expected = predict_alpha(network, image, trimap)
    assert expected.std() > 1e-3
    np.testing.assert_allclose(alpha[0, 0], expected, atol=1e-5)


def test_half_is_half_the_size(tmp_path: Path) -> None:
    """Bytes in and float32 out all the same; weights of half the bytes, also where the network is built again."""
    pytest.importorskip("onnx")
    network = lively(decoder="resize")
    for name in ("n.onnx", "n.safetensors"):
        whole, half = (tmp_path / f"{part}-{name}" for part in ("whole", "half"))
        export_network(network, whole)
        assert 0 < export_network(network, half, half=True).largest < 0.02
        assert half.stat().st_size < 0.6 * whole.stat().st_size
    assert {str(part.type) for part in session(tmp_path / "half-n.onnx").get_outputs()} == {"tensor(float)"}
    loaded = load_network(tmp_path / "half-n.safetensors").state_dict().values()
    assert all(value.dtype != torch.float16 for value in loaded)
    with pytest.raises(TrainingError, match="differ from torch's by up to"):  # maxima that were apart are equal now
        export_network(lively(), tmp_path / "unpool.onnx", half=True)


def test_torchscript_equals_torch(tmp_path: Path) -> None:
    """Without this package, any size; torch's own unpooling cannot be traced, and that is said."""
    assert export_network(lively(decoder="resize"), tmp_path / "n.ts").largest < 1e-5
    with pytest.raises(TrainingError, match="MNet cannot be written as torchscript"):
        export_network(lively(), tmp_path / "unpool.ts")


def test_what_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph of another network's weights is found out."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    other = lively(2).onnx_model()
    monkeypatch.setattr(MNet, "onnx_model", lambda self: other)
    with pytest.raises(TrainingError, match="alphas differ from torch's by up to"):
        export_network(lively(1), tmp_path / "mnet.onnx")
    assert not list(tmp_path.iterdir())


class BySize(MattingNetwork):
    """Decides by the picture's size, which tracing does not see."""

    stride, context, any_size = 1, 1, True

    def forward(self, x):
        return x[:, :1].sigmoid() if x.shape[-1] > 20 else x[:, 1:2].sigmoid()


def test_what_tracing_misses_goes_to_the_other_exporter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is traced wrongly is not written; the slower exporter is asked next, and both reasons are said."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    network = BySize().eval()
    with pytest.raises(TrainingError, match="BySize cannot be written as torchscript"):
        export_network(network, tmp_path / "n.ts")
    asked = []
    monkeypatch.setattr(exports, "_programmed_onnx", lambda network: asked.append(network) or b"")
    with pytest.raises(TrainingError, match=r"BySize cannot be written as onnx \(its alphas differ.*; then: "):
        export_network(network, tmp_path / "n.onnx")
    assert asked == [network]


def test_safetensors_bring_the_network_back(tmp_path: Path) -> None:
    """Weights and configuration, in a file that cannot execute anything."""
    network, path = lively(decoder="resize", norm="group"), tmp_path / "mnet.safetensors"
    export_network(network, path)
    image, trimap = picture(33, 20)
    loaded = load_network(path)
    np.testing.assert_array_equal(predict_alpha(loaded, image, trimap), predict_alpha(network, image, trimap))
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], whole[: len(whole) // 2], b"\xff" * 200, whole.replace(b"resize", b"unpoll")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"mnet\.safetensors"):
            load_network(path)


def test_safetensors_that_differ_get_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another program wrote there before stays."""
    (tmp_path / "mnet.safetensors").write_bytes(b"mine")
    monkeypatch.setattr(exports, "load_safetensors", lambda path: lively(2))
    with pytest.raises(TrainingError, match="alphas differ from torch's by up to"):
        export_network(lively(1), tmp_path / "mnet.safetensors")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With what to install."""

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(packages, "import_module", missing)
    with pytest.raises(MattingComposeError, match=r"onnx.*pip install .*\[export\]'"):
        export_network(lively(), tmp_path / "mnet.onnx")


def test_the_command_exports_by_kind_or_ending(tmp_path: Path) -> None:
    """A run's folder or a file; beside it where no file is named; what cannot be is refused."""
    (tmp_path / "run").mkdir()
    best = checkpoint(tmp_path / "run" / "best.pt", lively(width=0.03, decoder="resize"))

    def export(*arguments: object):
        return CliRunner().invoke(commands.export, [str(argument) for argument in arguments])

    for arguments, written in (
        ([tmp_path / "run", "--to", "torchscript"], tmp_path / "run" / "best.ts"),
        ([best, "--to", "safetensors", "--half"], tmp_path / "run" / "best.safetensors"),
        ([best, "--to", "torchscript", "-o", tmp_path / "own.pt"], tmp_path / "own.pt"),
        ([best, "-o", tmp_path / "by-name.safetensors"], tmp_path / "by-name.safetensors"),
    ):
        done = export(*arguments)
        assert (done.exit_code, written.exists()) == (0, True), done.output
    half, before = tmp_path / "run" / "best.safetensors", best.read_bytes()
    for arguments in ([half, "--to", "safetensors"], [best.parent, "--to", "torchscript", "-o", best]):
        done = export(*arguments)
        assert (done.exit_code, "would replace its own input" in done.output) == (1, True)
    assert best.read_bytes() == before
    for arguments, said in (
        ([best], "give --to"),
        ([best, "-o", tmp_path / "n.bin"], "--out ends in"),
        ([best, "-o", tmp_path / "n.ts", "--half"], "--half is for"),
    ):
        done = export(*arguments)
        assert (done.exit_code, said in done.output) == (2, True)
