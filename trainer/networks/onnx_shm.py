"""ONNX of SHM whole: one graph from a picture's bytes to its alpha, of any size, written operator by operator.

Torch's exporters fix the pyramid's bins to the size that they are shown; here they are sums between places that follow
from the size.
"""

from __future__ import annotations

import numpy as np
from torch import nn

from ...composer.base.errors import TrainingError
from .lite0 import FINE, InvertedResidual, Lite0
from .mnet import MNet
from .network import MASKS
from .onnx_mnet import Graph, finish, write_alpha, write_layer, write_normalised
from .resnet50 import Bottleneck, ResNet50
from .tnet import BINS, Pyramid, TNet

__all__ = ["shm_model"]


def shm_model(tnet: TNet, mnet: MNet, temperature: float) -> bytes:
    """Write an SHM of these halves, from bytes to fused alpha; see `exports.export_network`."""
    add = Graph()
    x = write_normalised(add)
    sharp = add("Div", _write_tnet(tnet, x, add), add.floats(temperature))
    masks = add("Softmax", sharp, axis=1)
    foreground, unknown = (_plane(masks, MASKS.index(name), add) for name in ("foreground", "unknown"))
    alpha = write_alpha(mnet.encoder, mnet.decoder, mnet.alpha, mnet.config, add("Concat", x, masks, axis=1), add)
    add("Add", foreground, add("Mul", unknown, alpha), output="alpha")
    return finish(add, "SHM", with_trimap=False)


def _plane(x: str, channel: int, add: Graph) -> str:
    return add("Slice", x, add.integers(channel), add.integers(channel + 1), add.integers(1))


def _write_tnet(tnet: TNet, x: str, add: Graph) -> str:
    """Write `TNet.forward`: logits of the picture's own size."""
    size = add("Shape", x, start=2, end=4)
    reduced = _resize(x, _sight(size, tnet.sight, add), add, antialias=1)
    *fine, deep = _write_encoder(tnet.encoder, reduced, add)
    *body, _dropout, classes = tnet.head
    found = _chain(body, _write_pyramid(tnet.pyramid, deep, add), add)
    for detail, skip in zip(tnet.details or (), reversed(fine), strict=True):
        larger = _resize(found, add("Shape", skip, start=2, end=4), add)
        found = _chain(list(detail.get_submodule("layers").children()), add("Concat", larger, skip, axis=1), add)
    return _resize(write_layer(classes, found, add), size, add)


def _sight(size: str, sight: int, add: Graph) -> str:
    """Work out the size that T-Net sees, as `TNet` does, in double precision."""
    sides = add("Cast", size, to=11)
    area = add("ReduceProd", sides, keepdims=1)
    scale = add("Min", add("Div", add.doubles(sight), add("Sqrt", area)), add.doubles(1))
    rounded = add("Floor", add("Add", add("Mul", sides, scale), add.doubles(0.5)))
    return add("Cast", add("Max", rounded, add.doubles(1)), to=7)


def _resize(x: str, size: str, add: Graph, antialias: int = 0) -> str:
    """Resample bilinearly to (height, width), as ``interpolate`` does without aligned corners."""
    whole = add("Concat", add("Shape", x, start=0, end=2), size, axis=0)
    return add(
        "Resize",
        x,
        "",
        "",
        whole,
        mode="linear",
        coordinate_transformation_mode="half_pixel",
        antialias=antialias,
        exclude_outside=antialias,
    )


def _write_encoder(encoder: ResNet50 | Lite0, x: str, add: Graph) -> list[str]:
    """Write the finer features and what the pyramid sees; the auxiliary head's features are for training alone."""
    if isinstance(encoder, Lite0):
        x = _chain([encoder._conv_stem, encoder._bn0, encoder._relu], x, add)
        found = []
        for block in encoder._blocks:
            found.append(x := _write_block(block, x, add))
        return [*(found[number] for number in FINE), x]
    for layer in (encoder.conv1, encoder.bn1, encoder.relu):
        x = write_layer(layer, x, add)
    x = add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for number in range(1, 5):
        for block in encoder.get_submodule(f"layer{number}").children():
            x = _write_block(block, x, add)
    return [x]


def _write_block(block: nn.Module, x: str, add: Graph) -> str:
    """Write a residual block, or a plain layer."""
    layers: list[nn.Module]
    if isinstance(block, Bottleneck):
        layers = [block.conv1, block.bn1, block.relu, block.conv2, block.bn2, block.relu, block.conv3, block.bn3]
        skipped = x if block.downsample is None else _chain(list(block.downsample), x, add)
        return add("Relu", add("Add", _chain(layers, x, add), skipped))
    if isinstance(block, InvertedResidual):
        layers = [block._expand_conv, block._bn0, block._relu] if block.expands else []
        layers += [block._depthwise_conv, block._bn1, block._relu, block._project_conv, block._bn2]
        y = _chain(layers, x, add)
        return add("Add", y, x) if block.adds else y
    return write_layer(block, x, add)


def _chain(layers: list[nn.Module], x: str, add: Graph) -> str:
    for layer in layers:
        x = write_layer(layer, x, add)
    return x


def _write_pyramid(pyramid: Pyramid, x: str, add: Graph) -> str:
    size = add("Shape", x, start=2, end=4)
    # Sums of all pixels above and to the left: of any rectangle then four of them.
    padded = add("Pad", x, add.integers(0, 0, 1, 1, 0, 0, 0, 0), add.floats(0))
    sums = add("CumSum", add("CumSum", padded, add.scalar(2)), add.scalar(3))
    parts = [x]
    for bins, level in zip(BINS, pyramid.levels, strict=True):
        if not isinstance(level, nn.Sequential):
            raise TrainingError(f"a pyramid of {type(level).__name__} cannot be exported")
        parts.append(_resize(_chain(list(level), _means(sums, size, bins, add), add), size, add))
    return add("Concat", *parts, axis=1)


def _means(sums: str, size: str, bins: int, add: Graph) -> str:
    """Average over bins × bins parts, ⌊i·n/bins⌋ to ⌈(i + 1)·n/bins⌉ along an axis of n px, as torch's pooling does."""
    places = np.arange(bins, dtype=np.int64)
    for axis in (2, 3):
        side = add("Gather", size, add.constant(np.array(axis - 2, np.int64)))
        starts = add("Div", add("Mul", add.constant(places), side), add.constant(np.array(bins, np.int64)))
        beyond = add("Add", add("Mul", add.constant(places + 1), side), add.constant(np.array(bins - 1, np.int64)))
        ends = add("Div", beyond, add.constant(np.array(bins, np.int64)))
        part = add("Sub", add("Gather", sums, ends, axis=axis), add("Gather", sums, starts, axis=axis))
        counts = add("Cast", add("Sub", ends, starts), to=1)
        shape = [1, 1, bins, 1] if axis == 2 else [1, 1, 1, bins]
        sums = add("Div", part, add("Reshape", counts, add.integers(*shape)))
    return sums
