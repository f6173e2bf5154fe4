import itertools
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the network needs the 'train' extra")

from matting_compose.trainer import MNet  # noqa: E402 (only once torch is known to be there)
from matting_compose.trainer.networks.network import MASKS, fuse, network_input, trimap_masks  # noqa: E402

nn, F = torch.nn, torch.nn.functional
FlopCounterMode = pytest.importorskip("torch.utils.flop_counter").FlopCounterMode
torch.set_num_threads(1)

# The published layers, written down apart from the code: (in, out, kernel) of each convolution, and where sizes change.
# fmt: off
PUBLISHED = [
    "6-64-3", "64-64-3", "down",
    "64-128-3", "128-128-3", "down",
    "128-256-3", "256-256-3", "256-256-3", "down",
    "256-512-3", "512-512-3", "512-512-3", "down",
    "512-512-3", "512-512-3", "512-512-3",
    "512-512-5", "up", "512-256-5", "up", "256-128-5", "up", "128-64-5", "up", "64-64-5",
    "64-1-5",
]
# fmt: on
SWITCHES = list(itertools.product(("unpool", "resize"), ("batch", "group"), ("clamp", "sigmoid")))


def vgg16_bn_shapes():
    """torchvision's `features`: convolution, normalisation, ReLU and pool are numbered through."""
    shapes, number, channels = {}, 0, 3
    for item in (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"):
        if item == "M":
            number += 1
            continue
        shapes[f"features.{number}.weight"] = (item, channels, 3, 3)
        shapes[f"features.{number}.bias"] = (item,)
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"features.{number + 1}.{name}"] = (item,)
        number, channels = number + 3, item
    return shapes


def hollow_state():
    """A state_dict of the right shapes that takes no room in a file: every tensor repeats one number."""
    return {key: torch.zeros(()).expand(shape) for key, shape in vgg16_bn_shapes().items()}


@pytest.fixture(scope="module")
def meta_network():
    with torch.device("meta"):
        return MNet()


@pytest.fixture(scope="module")
def vgg_state():
    generator = torch.Generator().manual_seed(1)
    state = {key: torch.rand(shape, generator=generator) * 0.05 for key, shape in vgg16_bn_shapes().items()}
    state["features.1.num_batches_tracked"] = torch.tensor(7)
    state["classifier.6.bias"] = torch.zeros(1000)
    return state


def test_published_parameter_count(meta_network):
    assert sum(p.numel() for p in meta_network.parameters()) == 25_686_337


def test_published_layers(meta_network):
    """Each convolution keeps the size and, but for the last, is followed by normalisation and ReLU."""
    layers = [m for m in meta_network.modules() if not list(m.children())]
    convolutions = [m for m in layers if isinstance(m, nn.Conv2d)]
    found = [f"{m.in_channels}-{m.out_channels}-{m.kernel_size[0]}" for m in convolutions]
    assert found == [item for item in PUBLISHED if "-" in item]
    assert all(m.padding == (m.kernel_size[0] // 2,) * 2 and m.stride == (1, 1) for m in convolutions)
    kinds = [type(m) for m in layers]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * (len(convolutions) - 1) + [nn.Conv2d]


def test_published_cost(meta_network):
    """60.5 GMAC at 320×320: the multiplications show at which size each layer works."""
    macs, size = 0, 320
    for item in PUBLISHED:
        if item in ("down", "up"):
            size = size // 2 if item == "down" else size * 2
        else:
            channels, out, kernel = map(int, item.split("-"))
            macs += channels * out * kernel**2 * size**2
    with FlopCounterMode(display=False) as counter:
        meta_network(torch.empty(1, 6, 320, 320, device="meta"))
    assert counter.get_total_flops() == 2 * macs
    assert round(macs / 1e9, 1) == 60.5


def published_forward(network, x):
    """The published network, from its description: pools without rounding, unpools through their indices."""
    layers = iter([m for m in network.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)])
    pool, unpool, indices = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2), []
    for item in PUBLISHED[:-1]:
        if item == "down":
            x, index = pool(x)
            indices.append(index)
        elif item == "up":
            x = unpool(x, indices.pop())
        else:
            x = next(layers)(x)
            x = F.relu(next(layers)(x))
    return next(layers)(x).clamp(0, 1)


def test_multiples_of_16_are_the_published_network():
    torch.manual_seed(2)
    network, x = MNet(width=0.125).eval(), torch.randn(2, 6, 48, 32)
    expected = published_forward(network, x)
    assert 0 < expected.mean() < 1
    torch.testing.assert_close(network(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("decoder", "norm", "output"), SWITCHES)
def test_any_size_keeps_its_shape_and_range(decoder, norm, output):
    torch.manual_seed(3)
    network = MNet(width=0.125, decoder=decoder, norm=norm, output=output).eval()
    for height, width in ((1, 1), (1, 40), (17, 15), (31, 33), (50, 2)):
        with torch.inference_mode():
            alpha = network(3 * torch.randn(2, 6, height, width))
        assert alpha.shape == (2, 1, height, width)
        assert alpha.dtype == torch.float32
        assert alpha.min() >= 0
        assert alpha.max() <= 1


def test_switches_change_no_parameter_count():
    counts = {
        sum(p.numel() for p in MNet(width=0.25, decoder=decoder, norm=norm, output=output).parameters())
        for decoder, norm, output in SWITCHES
    }
    assert len(counts) == 1


@pytest.mark.parametrize(("decoder", "norm", "output"), SWITCHES)
def test_config_rebuilds_the_network(decoder, norm, output):
    """What a checkpoint stores survives JSON and gives the same network."""
    first = MNet(width=0.125, decoder=decoder, norm=norm, output=output).eval()
    second = MNet(**json.loads(json.dumps(first.config))).eval()
    second.load_state_dict(first.state_dict())
    x = torch.randn(1, 6, 20, 20)
    assert torch.equal(first(x), second(x))


@pytest.mark.parametrize(
    "wrong", [{"width": 0}, {"width": float("nan")}, {"decoder": "max"}, {"norm": None}, {"output": "tanh"}]
)
def test_wrong_switches_are_named(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .* must be"):
        MNet(**wrong)


def test_learns_a_tiny_batch():
    torch.manual_seed(4)
    network = MNet(width=0.125)
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    truth = F.interpolate(torch.rand(2, 1, 4, 4), size=32, mode="bilinear")
    image = (truth * torch.tensor([200.0, 150, 90]).view(3, 1, 1)).to(torch.uint8)
    x = network_input(image, torch.full((2, 32, 32), 128, dtype=torch.uint8))
    losses = []
    for _ in range(40):
        loss = (network(x) - truth).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < 0.5 * losses[0]


def test_clamped_pixels_give_no_gradient_but_sigmoid_ones_do():
    """The price of the published output, as the docstring says."""
    for output, learns in (("clamp", False), ("sigmoid", True)):
        network = MNet(width=0.125, output=output)
        nn.init.constant_(network.alpha.bias, -20.0)
        network(torch.randn(2, 6, 16, 16)).sum().backward()
        assert bool(network.alpha.weight.grad.abs().sum() > 0) is learns


def test_mask_order():
    """Background, foreground, unknown: two public ports swapped the last two and still trained."""
    assert MASKS == ("background", "foreground", "unknown")
    trimap = torch.tensor([[[0, 255, 128]]], dtype=torch.uint8)
    masks = network_input(torch.zeros(1, 3, 1, 3, dtype=torch.uint8), trimap)[0, 3:, 0]
    assert masks.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_every_trimap_value_has_one_mask():
    masks = trimap_masks(torch.arange(256).to(torch.uint8).view(1, 1, 256))
    assert torch.equal(masks.sum(dim=1), torch.ones(1, 1, 256, dtype=torch.int64))
    assert masks[0, 2].sum() == 254


def test_colours_are_normalised_as_imagenet():
    image = np.random.default_rng(5).integers(0, 256, (2, 3, 4, 5), dtype=np.uint8)
    x = network_input(torch.from_numpy(image), torch.zeros(2, 4, 5, dtype=torch.uint8))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (image / 255 - mean[:, None, None]) / std[:, None, None]
    assert x.shape == (2, 6, 4, 5)
    assert x.dtype == torch.float32
    np.testing.assert_allclose(x[:, :3].numpy(), expected, atol=1e-5)


def test_input_of_another_shape_or_type_is_refused():
    image, trimap = torch.zeros(1, 3, 4, 5, dtype=torch.uint8), torch.zeros(1, 4, 5, dtype=torch.uint8)
    for wrong in ((image.float(), trimap), (image[:, :1], trimap), (image, trimap[:, None]), (image, trimap.bool())):
        with pytest.raises(ValueError, match="uint8"):
            network_input(*wrong)
    with pytest.raises(ValueError, match="differ"):
        network_input(image, trimap[:, :3])


def test_fuse_keeps_what_the_trimap_says():
    trimap = torch.tensor([[[0, 255, 128]]], dtype=torch.uint8)
    assert fuse(torch.full((1, 1, 1, 3), 0.25), trimap).tolist() == [[[[0, 1, 0.25]]]]


def save_safetensors(state, path):
    """Written by the format's description: length, JSON header, bytes."""
    header, blobs, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for key, tensor in state.items():
        blob = tensor.contiguous().numpy().tobytes()
        kind = {torch.float32: "F32", torch.int64: "I64"}[tensor.dtype]
        header[key] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))


def save_legacy(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)  # as torchvision's own file is


@pytest.mark.parametrize(
    ("save", "name"), [(torch.save, "a.pth"), (save_legacy, "b.pth"), (save_safetensors, "c.safetensors")]
)
def test_encoder_takes_torchvisions_weights(save, name, vgg_state, tmp_path):
    path = tmp_path / name
    save(vgg_state, path)
    network = MNet().eval()
    decoder = network.decoder[0][0].weight.clone()
    network.load_encoder(path)
    expected = vgg_state | {"features.0.weight": F.pad(vgg_state["features.0.weight"], (0, 0, 0, 0, 0, 3))}
    loaded = [m for m in network.encoder.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    numbers = sorted({int(key.split(".")[1]) for key in vgg16_bn_shapes()})
    for module, number in zip(loaded, numbers, strict=True):
        for key in ("weight", "bias", "running_mean", "running_var")[: len(module.state_dict())]:
            assert torch.equal(getattr(module, key), expected[f"features.{number}.{key}"]), (number, key)
    assert torch.equal(network.decoder[0][0].weight, decoder)
    if name == "a.pth":
        with torch.inference_mode():
            assert network(torch.randn(1, 6, 64, 64)).isfinite().all()


MISFITS = {
    "a missing key": (lambda s: s.pop("features.24.weight"), "no 'features.24.weight' among its 77 keys"),
    "a wrong shape": (
        lambda s: s.update({"features.3.weight": torch.zeros(64, 64, 5, 5)}),
        r"'features.3.weight' \(64, 64, 5, 5\) instead of \(64, 64, 3, 3\)",
    ),
    "grey first convolution": (
        lambda s: s.update({"features.0.weight": torch.zeros(64, 1, 3, 3)}),
        r"'features.0.weight' \(64, 1, 3, 3\) instead of \(64, 3, 3, 3\)",
    ),
    "a layer too many": (lambda s: s.update({"features.44.weight": torch.zeros(1)}), "'features.44.weight', which"),
    "not a number": (lambda s: s.update({"features.0.bias": torch.full((64,), float("nan"))}), "not finite"),
    "integers": (lambda s: s.update({"features.0.bias": torch.zeros(64, dtype=torch.int8)}), "torch.int8"),
    "not a tensor": (lambda s: s.update({"features.0.bias": [0.0] * 64}), "'features.0.bias' as a list"),
    "another network": (lambda s: (s.clear(), s.update({"conv1.weight": torch.zeros(1)})), "its 1 keys.*; and 75"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_misfits_are_named(case, meta_network, tmp_path):
    spoil, message = MISFITS[case]
    state, path = hollow_state(), tmp_path / "weights.pth"
    spoil(state)
    torch.save(state, path)
    with pytest.raises(ValueError, match=f"weights.pth does not hold .*found: .*{message}.*Take http"):
        meta_network.load_encoder(path)


def test_half_a_fit_changes_nothing(tmp_path):
    network = MNet()
    before = network.encoder[0][0].weight.clone()
    state = hollow_state()
    state.pop("features.40.weight")
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"features\.40"):
        network.load_encoder(tmp_path / "weights.pth")
    assert torch.equal(network.encoder[0][0].weight, before)


@pytest.mark.parametrize("save", [torch.save, save_legacy, save_safetensors])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.99])
def test_truncated_files_are_refused(save, keep, meta_network, tmp_path):
    path = tmp_path / ("weights.safetensors" if save is save_safetensors else "weights.pth")
    save({key: torch.zeros(shape) for key, shape in list(vgg16_bn_shapes().items())[:12]}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ValueError, match="found: content that is damaged") as raised:
        meta_network.load_encoder(path)
    assert str(path) in str(raised.value)


def test_a_flipped_bit_is_found(meta_network, tmp_path):
    """PyTorch writes a CRC-32 of each record, and does not read it."""
    path = tmp_path / "weights.pth"
    torch.save({"features.0.weight": torch.ones(64, 3, 3, 3)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(b"\x00\x00\x80\x3f") + 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not what was written"):
        meta_network.load_encoder(path)


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"\x00" * 200, b"\xff" * 200, pickle.dumps([1, 2])])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_foreign_files_are_refused(content, suffix, meta_network, tmp_path):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="does not hold torchvision's vgg16_bn weights"):
        meta_network.load_encoder(path)


class Hostile:
    def __init__(self, victim):
        self.victim = str(victim)

    def __reduce__(self):
        return os.mkdir, (self.victim,)


@pytest.mark.parametrize("dump", [torch.save, save_legacy, lambda o, path: path.write_bytes(pickle.dumps(o))])
def test_hostile_pickles_are_not_executed(dump, meta_network, tmp_path):
    path, victim = tmp_path / "weights.pth", tmp_path / "executed"
    dump({"features.0.weight": Hostile(victim)}, path)
    with pytest.raises(ValueError, match="does not hold torchvision's") as raised:
        meta_network.load_encoder(path)
    assert not victim.exists()
    assert "weights_only" not in str(raised.value)  # torch's advice to load it all the same is not passed on


@pytest.mark.parametrize("switch", [{"width": 0.125}, {"norm": "group"}])
def test_only_vgg16s_shape_takes_its_weights(switch, tmp_path):
    with torch.device("meta"):
        network = MNet(**switch)
    with pytest.raises(ValueError, match=r"weights.pth.*width=1\.0 and norm='batch'"):
        network.load_encoder(tmp_path / "weights.pth")


def test_missing_file_is_an_oserror(meta_network, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth"):
        meta_network.load_encoder(tmp_path / "nothing.pth")


def test_torch_is_imported_only_for_the_network():
    """Composing, and the trainer's metrics, must work and start fast without torch."""
    code = "import sys, matting_compose.composer, matting_compose.trainer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_missing_torch_says_what_to_install():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "try:\n    from matting_compose.trainer import MNet\n"
        "except ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "[train]'" in done.stdout


def test_unknown_names_are_attribute_errors():
    with pytest.raises(ImportError, match="NoSuchNet"):
        from matting_compose.trainer import NoSuchNet  # noqa: F401
