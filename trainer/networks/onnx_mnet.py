"""ONNX of MNet, written operator by operator, in terms that every runtime has.

MaxUnpool is missing from most, and torch's exporter refuses ``max_unpool2d``. A value returns to the first of its 2×2
pixels that equals their maximum, which is where max-pooling found it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ...composer.base.errors import TrainingError
from .network import IMAGENET_MEAN, IMAGENET_STD, MASKS

__all__ = ["Graph", "finish", "mnet_model", "write_alpha", "write_layer", "write_normalised"]

OPSET: Final = 18


IR_VERSION: Final = 10  # of the file; newer ones are refused by runtimes of a year ago


END: Final = np.iinfo(np.int64).max  # of a slice: to the end


def mnet_model(encoder: nn.ModuleList, decoder: nn.ModuleList, alpha: nn.Conv2d, config: Mapping[str, Any]) -> bytes:
    """Write an MNet of these parts, from bytes to fused alpha; see `exports.export_network`."""
    add = Graph()
    x, foreground, unknown = _write_input(add)
    add("Add", foreground, add("Mul", unknown, write_alpha(encoder, decoder, alpha, config, x, add)), output="alpha")
    return finish(add, "MNet")


def finish(graph: Graph, name: str, with_trimap: bool = True) -> bytes:
    """Make a file of a graph from ``image``, and ``trimap`` where it takes one, to ``alpha``."""
    import onnx
    from onnx import TensorProto, helper

    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 3, "height", "width"])]
    if with_trimap:
        inputs.append(helper.make_tensor_value_info("trimap", TensorProto.UINT8, ["batch", "height", "width"]))
    output = helper.make_tensor_value_info("alpha", TensorProto.FLOAT, ["batch", 1, "height", "width"])
    model = helper.make_model(
        helper.make_graph(graph.nodes, name, inputs, [output], graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="matting-compose",
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


class Graph:
    """An ONNX graph in the making: every call adds an operator and returns its output's name."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def __call__(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add an operator; return its output's name."""
        from onnx import helper

        output = output or f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, values: NDArray[Any]) -> str:
        """Add an array; return its name."""
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def floats(self, *values: float, shape: tuple[int, ...] = ()) -> str:
        """Add float32 numbers."""
        return self.constant(np.array(values, np.float32).reshape(shape))

    def doubles(self, value: float) -> str:
        """Add a float64 number."""
        return self.constant(np.array([value], np.float64))

    def scalar(self, value: int) -> str:
        """Add an int64 number without dimensions."""
        return self.constant(np.array(value, np.int64))

    def integers(self, *values: int) -> str:
        """Add a vector of int64 numbers."""
        return self.constant(np.array(values, np.int64))


def write_alpha(
    encoder: nn.ModuleList, decoder: nn.ModuleList, alpha: nn.Conv2d, config: Mapping[str, Any], x: str, add: Graph
) -> str:
    """Write `MNet.forward` of these parts, from its six planes to alpha."""
    blocks = list(encoder)
    skips: list[tuple[str, str]] = []
    for block in blocks[:-1]:
        features = write_layers(block, x, add)
        x = add("MaxPool", features, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
        skips.append((features, x))
    first, *rest = decoder
    x = write_layers(first, write_layers(blocks[-1], x, add), add)
    for block, (features, pooled) in zip(rest, reversed(skips), strict=True):
        enlarge = _write_unpool if config["decoder"] == "unpool" else _write_resize
        x = write_layers(block, enlarge(x, features, pooled, add), add)
    y = write_layers(nn.Sequential(alpha), x, add)
    return add("Sigmoid", y) if config["output"] == "sigmoid" else add("Clip", y, add.floats(0), add.floats(1))


def _write_input(add: Graph) -> tuple[str, str, str]:
    """Normalise and split the trimap: `network_input`; return it and the masks that `fuse` needs."""
    normalised = write_normalised(add)
    levels = add("Unsqueeze", add("Cast", "trimap", to=1), add.integers(1))
    background, foreground = (add("Equal", levels, add.floats(level)) for level in (0, 255))
    unknown = add("Not", add("Or", background, foreground))
    found = {"background": background, "foreground": foreground, "unknown": unknown}
    masks = {name: add("Cast", mask, to=1) for name, mask in found.items()}
    x = add("Concat", normalised, *(masks[name] for name in MASKS), axis=1)
    return x, masks["foreground"], masks["unknown"]


def write_normalised(add: Graph) -> str:
    """Write `network.normalised` of the image."""
    colours = add("Div", add("Cast", "image", to=1), add.floats(255))
    mean, deviation = (add.floats(*values, shape=(1, 3, 1, 1)) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return add("Div", add("Sub", colours, mean), deviation)


def write_layers(block: nn.Module, x: str, add: Graph) -> str:
    """Write a block's layers, one after the other."""
    for layer in block.children():
        x = write_layer(layer, x, add)
    return x


def write_layer(layer: nn.Module, x: str, add: Graph) -> str:
    """Write a layer.

    Raises
    ------
    TrainingError
        Of a type that is not known here.
    """
    state = {key: value.detach().cpu().float().numpy() for key, value in layer.state_dict().items()}
    if isinstance(layer, nn.Conv2d):
        weights = [add.constant(state[name]) for name in ("weight", "bias") if name in state]
        return add(
            "Conv", x, *weights, pads=[int(layer.padding[0])] * 4, strides=list(layer.stride),
            dilations=list(layer.dilation), group=layer.groups,
        )  # fmt: skip
    if isinstance(layer, nn.BatchNorm2d):
        names = ("weight", "bias", "running_mean", "running_var")
        return add("BatchNormalization", x, *(add.constant(state[name]) for name in names), epsilon=layer.eps)
    if isinstance(layer, nn.GroupNorm):
        return _write_group_norm(layer, state, x, add)
    if isinstance(layer, nn.ReLU):
        return add("Relu", x)
    if isinstance(layer, nn.ReLU6):
        return add("Clip", x, add.floats(0), add.floats(6))
    raise TrainingError(f"a layer of type {type(layer).__name__} cannot be exported")


def _write_group_norm(layer: nn.GroupNorm, state: dict[str, NDArray[Any]], x: str, add: Graph) -> str:
    """Normalise each group as if it were one channel: GroupNormalization is younger than the opset."""
    groups = layer.num_groups
    rows = add("Reshape", x, add.integers(0, groups, -1))
    ones, zeros = add.floats(*[1.0] * groups, shape=(groups,)), add.floats(*[0.0] * groups, shape=(groups,))
    rows = add("InstanceNormalization", rows, ones, zeros, epsilon=layer.eps)
    scale, shift = (add.constant(state[name].reshape(1, -1, 1, 1)) for name in ("weight", "bias"))
    return add("Add", add("Mul", add("Reshape", rows, add("Shape", x)), scale), shift)


def _write_unpool(x: str, features: str, pooled: str, add: Graph) -> str:
    """Put each value where its 2×2 pixels have their maximum; of equals the first, as max-pooling does."""
    # What is beyond an odd border never is a maximum: features follow a ReLU.
    padded = add("Pad", features, add.integers(0, 0, 0, 0, 0, 0, 1, 1), add.floats(-1))
    zero, free, corners = add.floats(0), "", []
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        # The pixels (i, j) of all windows; the padding belongs to the second row or column only.
        ends = add.integers(END if i else -1, END if j else -1)
        corner = add("Slice", padded, add.integers(i, j), ends, add.integers(2, 3), add.integers(2, 2))
        best = add("Equal", corner, pooled)
        corners.append(add("Where", add("And", best, free) if free else best, x, zero))
        taken = add("Not", best)
        free = add("And", free, taken) if free else taken
    return _write_interleaved(corners, features, add)


def _write_resize(x: str, features: str, _pooled: str, add: Graph) -> str:
    """Double by nearest neighbours and add the features."""
    return add("Add", _write_interleaved([x] * 4, features, add), features)


def _write_interleaved(corners: list[str], features: str, add: Graph) -> str:
    """Make 2×2 pixels of four pictures, and cut them to the size of `features`."""
    doubled = add("DepthToSpace", add("Concat", *corners, axis=1), blocksize=2, mode="DCR")
    size = add("Shape", features, start=2, end=4)
    return add("Slice", doubled, add.integers(0, 0), size, add.integers(2, 3))
