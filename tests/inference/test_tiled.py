"""Prediction: tiles give the whole picture's matte; checkpoints are read and never trusted."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need the 'train' extra")

from matting_compose.trainer import MNet  # noqa: E402
from matting_compose.trainer.inference import tiled as predict  # noqa: E402 (only once torch is known to be there)
from matting_compose.trainer.inference.tiled import predict_alpha, reduced_trimap  # noqa: E402
from matting_compose.trainer.networks.checkpoint import load_network  # noqa: E402
from matting_compose.trainer.networks.network import MattingNetwork, fuse, network_input  # noqa: E402
from small_networks import checkpoint, lively, picture  # noqa: E402


def test_the_context_is_what_the_network_sees() -> None:
    """No pixel farther than its context has a gradient on another's alpha; the published layers add up to 169."""
    reach = 0
    for decoder in ("unpool", "resize"):
        network = lively(decoder=decoder)
        for row in (192, 207):
            x = torch.randn(1, 6, 400, 16, requires_grad=True)
            network(x)[0, 0, row].sum().backward()
            rows = x.grad.abs().sum(dim=(0, 1, 3)).nonzero()
            reach = max(reach, row - int(rows.min()), int(rows.max()) - row)
    assert 100 < reach <= 169 <= MNet.context


@pytest.mark.parametrize("length", [1, 511, 512, 513, 560, 895, 1024, 1025, 4000, 6001])
@pytest.mark.parametrize("tile", [512, 1024, 2048])
@pytest.mark.parametrize(("stride", "context"), [(16, MNet.context), (32, 40), (1, 0), (6, 99)])
def test_spans_cover_each_pixel_once(length: int, tile: int, stride: int, context: int) -> None:
    """Weights add up to exactly 1, tiles start at multiples of the stride, none weighs where its context is cut off."""

    class Network(MattingNetwork):
        pass

    Network.stride, Network.context = stride, context
    total = np.zeros(length, np.float32)
    tile = tile // stride * stride if stride == 6 else tile
    for span in predict._spans(length, tile, stride, predict._overlap(Network())):
        total[span.start : span.stop] += span.weights
        assert span.start % stride == 0
        assert span.stop - span.start == len(span.weights) <= tile
        assert span.start == 0 or not span.weights[:context].any()
        assert span.stop == length or not span.weights[len(span.weights) - context :].any()
    assert (total == 1).all()


@pytest.mark.parametrize("decoder", ["unpool", "resize"])
@pytest.mark.parametrize("size", [(707, 37), (37, 707)])
def test_tiles_equal_the_whole_picture(decoder: str, size: tuple[int, int]) -> None:
    """To float32's rounding, everywhere: odd sizes, borders and seams included."""
    network = lively(decoder=decoder)
    image, trimap = picture(*size)
    whole = predict_alpha(network, image, trimap, tile=1024)
    assert whole[trimap == 128].std() > 0.01
    np.testing.assert_allclose(predict_alpha(network, image, trimap, tile=512), whole, atol=1e-5)


def test_a_network_says_how_large_tiles_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody else does."""
    seen = []
    own = predict._network_alpha
    monkeypatch.setattr(predict, "_network_alpha", lambda *a: seen.append(max(a[2].shape)) or own(*a))
    network, (image, trimap) = lively(), picture(33, 1200)
    trimap[:] = 128
    predict_alpha(network, image, trimap)
    assert 512 < max(seen) <= network.tile == 1024
    seen.clear()
    monkeypatch.setattr(MNet, "tile", 512)
    predict_alpha(network, image, trimap)
    assert max(seen) <= 512
    seen.clear()
    predict_alpha(network, image, trimap, tile=2048)
    assert seen == [1200]


@pytest.mark.parametrize("decoder", ["unpool", "resize"])
def test_tiles_are_cut_to_what_is_unknown(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two specks far apart: the whole picture's alpha, of a part of its pixels."""
    seen = []
    own = predict._network_alpha
    image, trimap = picture(900, 37)
    trimap[:] = 255
    trimap[300:], trimap[20:31, 30:35], trimap[890, 30:] = 0, 128, 128
    network = lively(decoder=decoder)
    with monkeypatch.context() as patch:
        patch.setattr(network, "bounded", False)
        whole = predict_alpha(network, image, trimap)
    monkeypatch.setattr(predict, "_network_alpha", lambda *a: seen.append(a[2].size) or own(*a))
    np.testing.assert_allclose(predict_alpha(network, image, trimap), whole, atol=1e-5)
    assert len(seen) == 2
    assert sum(seen) < trimap.size / 2


@pytest.mark.parametrize(("stride", "context", "tile"), [(16, 176, 512), (1, 0, 17), (3, 4, 30)])
def test_boxes_cover_all_that_is_wanted(stride: int, context: int, tile: int) -> None:
    """Each wanted pixel once, with its context, in tiles that start at multiples of the stride."""
    rng = np.random.default_rng(0)
    for size in ((1, 1), (90, 41), (60 * stride, 70)):
        wanted = rng.random(size) < rng.choice([0, 0.001, 0.01, 0.5])
        count = np.zeros(size, int)
        for (top, bottom, left, right), (rows, columns) in predict._boxes(wanted, tile, stride, context):
            count[top:bottom, left:right] += 1
            assert rows.start % stride == columns.start % stride == 0
            assert max(rows.stop - rows.start, columns.stop - columns.start) <= tile
            assert 0 <= rows.start <= max(0, top - context)
            assert 0 <= columns.start <= max(0, left - context)
            assert min(bottom + context, size[0]) <= rows.stop <= size[0]
            assert min(right + context, size[1]) <= columns.stop <= size[1]
        assert (count[wanted] == 1).all()
        assert count.max(initial=0) <= 1


def test_small_pictures_are_the_networks_own() -> None:
    """One tile is the network and the fusion, nothing else."""
    network = lively()
    for size in ((1, 1), (5, 3), (50, 70)):
        image, trimap = picture(*size)
        planes = torch.from_numpy(image).permute(2, 0, 1)[None]
        with torch.inference_mode():
            masks = torch.from_numpy(trimap)[None]
            expected = fuse(network(network_input(planes, masks)), masks)[0, 0].numpy()
        np.testing.assert_array_equal(predict_alpha(network, image, trimap), expected)


def test_tiles_without_unknown_pixels_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network sees only tiles in which something is to be found."""
    seen = []
    own = predict._network_alpha
    monkeypatch.setattr(predict, "_network_alpha", lambda *a: seen.append(a[1].shape) or own(*a))
    image, trimap = picture(2000, 20)
    trimap[:] = 255
    trimap[1900:] = 0
    trimap[600] = 128
    alpha = predict_alpha(lively(), image, trimap, tile=512)
    assert len(seen) == 1
    np.testing.assert_array_equal(alpha[trimap == 255], 1)
    np.testing.assert_array_equal(alpha[trimap == 0], 0)


def test_a_reduced_picture_keeps_its_size_and_what_is_known() -> None:
    """`max_side` changes neither the shape nor the trimap's own pixels."""
    image, trimap = picture(90, 130)
    trimap[20:60, 30:90] = 128
    alpha = predict_alpha(lively(), image, trimap, max_side=64)
    assert alpha.shape == (90, 130)
    assert alpha.min() >= 0
    assert alpha.max() <= 1
    np.testing.assert_array_equal(alpha[trimap == 255], 1)
    np.testing.assert_array_equal(alpha[trimap == 0], 0)


def test_a_reduced_trimap_promises_nothing_it_did_not_know() -> None:
    """A pixel is known only where all that it covers is known alike."""
    trimap = np.zeros((40, 40), np.uint8)
    trimap[:, 20:] = 255
    trimap[7, 3] = 128
    small = reduced_trimap(trimap, (10, 10))
    assert small[1, 0] == 128
    assert (small == 128).sum() == 1
    assert (reduced_trimap(trimap, (9, 9))[:, 4] == 128).all()  # the border falls within this column


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda i, t: (i[..., :2], t, 512), "image"),
        (lambda i, t: (i, t[1:], 512), "trimap"),
        (lambda i, t: (i, t.astype(float), 512), "trimap"),
        (lambda i, t: (i, t, 520), "multiple of 16"),
        (lambda i, t: (i, t, 256), "multiple of 16 from 512"),
    ],
)
def test_wrong_input_is_named(spoil, message: str) -> None:
    """Shapes, types and tiles that cannot be."""
    image, trimap, tile = spoil(*picture(8, 9))
    with pytest.raises(ValueError, match=message):
        predict_alpha(lively(), image, trimap, tile=tile)


def test_checkpoints_bring_the_network_back(tmp_path: Path) -> None:
    """Configuration and weights; the averaged weights where there are some."""
    first, second = lively(1, norm="group"), lively(2, norm="group")
    image, trimap = picture(20, 30)
    plain = load_network(checkpoint(tmp_path / "a.pt", first))
    averaged = load_network(checkpoint(tmp_path / "b.pt", first, ema=second.state_dict()))
    assert not plain.training
    for loaded, network in ((plain, first), (averaged, second)):
        np.testing.assert_array_equal(predict_alpha(loaded, image, trimap), predict_alpha(network, image, trimap))


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = str(victim)

    def __reduce__(self):
        return os.mkdir, (self.victim,)


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    """Truncated, foreign, hostile, newer, or of another network: a ValueError with the path, and nothing executed."""
    network, path, victim = lively(), tmp_path / "last.pt", tmp_path / "executed"
    whole = checkpoint(path, network).read_bytes()
    lying = {k: torch.zeros(()).expand(v.shape) for k, v in network.state_dict().items()}
    nan = {k: v * float("nan") if v.is_floating_point() else v for k, v in network.state_dict().items()}
    spoilt = [
        lambda: path.write_bytes(whole[: len(whole) // 2]),
        lambda: path.write_bytes(b""),
        lambda: path.write_bytes(b"<html>not found</html>"),
        lambda: torch.save([1, 2], path),
        lambda: torch.save({"model": network.state_dict()}, path),
        lambda: checkpoint(path, network, step=Hostile(victim)),
        lambda: checkpoint(path, network, version=99),
        lambda: checkpoint(path, network, network={"width": 0.25}),
        lambda: checkpoint(path, network, network={"depth": 3}),
        lambda: checkpoint(path, network, network=None),
        lambda: checkpoint(path, network, network={"name": "nosuch", "arguments": {}}),
        lambda: checkpoint(path, network, network={"name": "os:mkdir", "arguments": {"path": str(victim)}}),
        lambda: checkpoint(path, network, network={"name": "numpy:save", "arguments": {"file": str(victim)}}),
        lambda: checkpoint(path, network, model=None),
        lambda: checkpoint(path, network, network={"width": 1000.0}, model=lying),
        lambda: checkpoint(path, network, model=nan),
    ]
    for spoil in spoilt:
        spoil()
        with pytest.raises(ValueError, match=r"last\.pt") as raised:
            load_network(path)
        assert "weights_only" not in str(raised.value)
    assert not victim.exists()
    with pytest.raises(FileNotFoundError):
        load_network(tmp_path / "nothing.pt")
