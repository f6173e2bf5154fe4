"""TNet: its published shape, weights of others in its encoders, and logits in the order of the masks."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="networks need the 'train' extra")

from matting_compose.composer.base.errors import TrainingError  # noqa: E402
from matting_compose.trainer import TNet  # noqa: E402
from matting_compose.trainer.networks import lite0  # noqa: E402
from matting_compose.trainer.networks.weights import load_encoder  # noqa: E402


def resnet50_shapes() -> dict[str, tuple[int, ...]]:
    """Write down what torchvision's resnet50 file holds, from the paper's table, without the classifier."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7)}

    def norm(name: str, channels: int) -> None:
        for key in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{key}"] = (channels,)

    norm("bn1", 64)
    channels = 64
    for layer, blocks, width in ((1, 3, 64), (2, 4, 128), (3, 6, 256), (4, 3, 512)):
        for block in range(blocks):
            name = f"layer{layer}.{block}"
            for i, shape in enumerate([(width, channels, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)], 1):
                shapes[f"{name}.conv{i}.weight"] = shape
                norm(f"{name}.bn{i}", shape[0])
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (4 * width, channels, 1, 1)
                norm(f"{name}.downsample.1", 4 * width)
            channels = 4 * width
    return shapes


def test_the_published_network_has_its_parameters() -> None:
    """PSPNet-50: ResNet-50 without its classifier, pyramid, head and auxiliary head, added up by hand."""
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in part.parameters()) for name, part in TNet().named_children()}
    assert counts == {
        "encoder": 25_557_032 - (2048 * 1000 + 1000),
        "pyramid": 4 * (2048 * 512 + 2 * 512),
        "head": 4096 * 512 * 9 + 2 * 512 + 512 * 3 + 3,
        "auxiliary": 1024 * 3 + 3,
    }
    assert sum(counts.values()) == 46_586_438
    assert sum(p.numel() for p in TNet(encoder="lite0").parameters()) == 3_903_782


@pytest.mark.parametrize(("stride", "encoder"), [(8, "resnet50"), (16, "resnet50"), (8, "lite0"), (16, "lite0")])
def test_features_stand_at_the_output_stride(stride: int, encoder: str) -> None:
    """Both stages that are looked at are a picture of 1/8, or the last one of 1/16."""
    with torch.device("meta"):
        network = TNet(encoder=encoder, output_stride=stride)
        middle, deep = network.encoder(torch.empty(1, 3, 96, 64))
        assert middle.shape[2:] == deep.shape[2:] == (96 // stride, 64 // stride)
        assert network.eval()(torch.empty(1, 3, 61, 83)).shape == (1, 3, 61, 83)


def test_every_layer_of_resnet50_has_torchvisions_name_and_shape(tmp_path: Path) -> None:
    """A file in torchvision's form fills the encoder, and nothing else."""
    shapes = resnet50_shapes()
    with torch.device("meta"):
        state = TNet().encoder.state_dict()
    assert {k: tuple(v.shape) for k, v in state.items() if not k.endswith("num_batches_tracked")} == shapes
    torch.manual_seed(0)
    weights = {key: torch.rand(shape) for key, shape in shapes.items()} | {"fc.weight": torch.zeros(1000, 2048)}
    torch.save(weights, tmp_path / "resnet50.pth")
    network = TNet()
    head = network.head[0].weight.clone()
    network.load_encoder(tmp_path / "resnet50.pth")
    for key, value in network.encoder.state_dict().items():
        if key in shapes:
            assert torch.equal(value, weights[key]), key
    assert torch.equal(network.head[0].weight, head)


def test_dilations_are_those_of_a_dilated_resnet() -> None:
    """The third stage looks twice as far, the fourth four times, and neither steps."""
    with torch.device("meta"):
        encoder = TNet().encoder
    found = {
        name: {(block.conv2.stride, block.conv2.dilation) for block in encoder.get_submodule(name)}
        for name in ("layer2", "layer3", "layer4")
    }
    assert found["layer3"] == {((1, 1), (2, 2))}
    assert found["layer4"] == {((1, 1), (4, 4))}
    assert found["layer2"] == {((2, 2), (1, 1)), ((1, 1), (1, 1))}


def test_misfits_are_named(tmp_path: Path) -> None:
    """A file that lacks a layer changes nothing and says which."""
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7), "layer5.x": torch.zeros(1)}, tmp_path / "w.pth")
    network = TNet(encoder="resnet50")
    before = network.encoder.conv1.weight.clone()
    with pytest.raises(ValueError, match=r"w.pth does not hold torchvision's resnet50 weights.*'layer5.x', which"):
        network.load_encoder(tmp_path / "w.pth")
    assert torch.equal(network.encoder.conv1.weight, before)


def test_packaged_weights_fill_lite0() -> None:
    """The package's file has a known digest, all of lite0's layers, and nothing of it is imported."""
    try:
        distribution(lite0.PACKAGE)
    except PackageNotFoundError:
        pytest.skip(f"{lite0.PACKAGE} is not installed")
    assert hashlib.sha256(lite0.packaged_weights().read_bytes()).hexdigest() == lite0.DIGEST
    network = TNet(encoder="lite0")
    load_encoder(network, "download")
    published = torch.load(lite0.packaged_weights(), weights_only=True)
    classifier = ("_fc.", "_conv_head.", "_bn1.")
    features = {key: value for key, value in published.items() if not key.startswith(classifier)}
    assert features.keys() == network.encoder.state_dict().keys()
    assert all(torch.equal(network.encoder.state_dict()[key], value) for key, value in features.items())


def test_a_package_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the extra; another file than the known one is refused."""
    with torch.device("meta"):
        network = TNet(encoder="lite0")
    monkeypatch.setattr(lite0, "PACKAGE", "no-such-package")
    with pytest.raises(TrainingError, match=r"pip install .*\[lite0\]'"):
        load_encoder(network, "download")


def test_another_file_in_the_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A digest that differs ends it before the file is read."""
    try:
        distribution(lite0.PACKAGE)
    except PackageNotFoundError:
        pytest.skip(f"{lite0.PACKAGE} is not installed")
    monkeypatch.setattr(lite0, "DIGEST", "0" * 64)
    with pytest.raises(ValueError, match="expected SHA-256 0000"):
        lite0.packaged_weights()


@pytest.mark.parametrize(("kernel", "dilation", "size"), [(3, 2, (8, 8)), (5, 2, (9, 7)), (5, 4, (13, 22))])
def test_interleaved_pictures_are_a_dilated_convolution(kernel: int, dilation: int, size: tuple[int, int]) -> None:
    """At any size, borders included, with the same gradient."""
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(
        6, 6, kernel, padding=dilation * (kernel // 2), dilation=dilation, groups=6, bias=False, dtype=torch.float64
    )
    x = torch.randn(2, 6, *size, dtype=torch.float64, requires_grad=True)
    plain, split = conv(x), lite0._depthwise(conv, x)
    torch.testing.assert_close(plain, split)
    weights = torch.randn_like(plain)
    for parameter in (x, conv.weight):
        one, other = (torch.autograd.grad((y * weights).sum(), parameter, retain_graph=True)[0] for y in (plain, split))
        torch.testing.assert_close(one, other)
