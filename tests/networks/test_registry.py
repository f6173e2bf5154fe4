"""Networks, losses and metrics are found by name; a class of anybody's is built only if it is a network."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="networks need the 'train' extra")

from matting_compose.composer.base.errors import RecipeError, UnknownNameError  # noqa: E402
from matting_compose.trainer.networks.checkpoint import load_network  # noqa: E402
from matting_compose.trainer.networks.losses import LOSSES, Loss  # noqa: E402
from matting_compose.trainer.networks.network import MattingNetwork  # noqa: E402
from matting_compose.trainer.networks.registry import (  # noqa: E402
    NETWORKS,
    build_network,
    describe_network,
    fill_arguments,
    network_class,
    rebuild_network,
)
from matting_compose.trainer.training.config import load_config  # noqa: E402
from small_networks import checkpoint, lively  # noqa: E402


class Pixelwise(MattingNetwork):
    """Looks at a pixel alone."""

    stride, context, any_size = 1, 0, True

    def __init__(self, channels: int = 4, table: tuple[int, ...] = (1, 2), bias: bool = False) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(6, channels, 1), torch.nn.Conv2d(channels, 1, 1, bias=bias))
        self.register_buffer("ramp", torch.arange(3.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).sigmoid() * self.ramp[1]


PATH = f"{__name__}:Pixelwise"


def test_a_network_is_built_from_plain_types_and_built_again() -> None:
    """By its path: arguments filled in, described, built again with its weights, computed buffers too."""
    network = build_network(PATH, {"channels": 8})
    described = describe_network(network)
    assert described == {"name": PATH, "arguments": {"channels": 8, "table": [1, 2], "bias": False}}
    again = rebuild_network(described, network.state_dict())
    x = torch.randn(1, 6, 5, 4)
    assert torch.equal(again(x), network.eval()(x))
    assert not again.training


def test_a_registered_network_goes_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry, and configuration, checkpoint and description know it."""
    monkeypatch.setitem(NETWORKS._entries, "pixelwise", Pixelwise)
    assert describe_network(build_network("pixelwise", {}))["name"] == "pixelwise"
    config = load_config(None, ["network.name=pixelwise", "network.channels=6"])
    assert config.network.arguments == {"channels": 6, "table": [1, 2], "bias": False}


def test_a_plain_module_gets_the_defaults() -> None:
    """Any torch.nn.Module from six planes to one will do; its weights keep their keys."""
    arguments = {"in_channels": 6, "out_channels": 1, "kernel_size": 3, "padding": 1}
    network = build_network("torch.nn:Conv2d", arguments)
    assert isinstance(network, MattingNetwork)
    assert network.state_dict().keys() == torch.nn.Conv2d(6, 1, 3).state_dict().keys()
    assert describe_network(network)["name"] == "torch.nn.modules.conv:Conv2d"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mnett", "did you mean 'mnet'"),
        ("nosuch.module:Net", "is the package installed"),
        (f"{__name__}:Nothing", "is the package installed"),
        (f"{__name__}:PATH", "expected a class that derives from torch.nn.Module"),
        ("pathlib:Path", "holds no networks"),
        ("os:system", "holds no networks"),
        ("pip.__main__:main", "holds no networks"),
        ("numpy:ndarray", "expected a class that derives from torch.nn.Module"),
    ],
)
def test_what_is_no_network_is_not_built(name: str, text: str) -> None:
    """A name that is unknown, or leads to something else, is refused, in configurations too."""
    with pytest.raises(UnknownNameError, match=text):
        network_class(name)
    with pytest.raises(RecipeError, match=text):
        load_config(None, [f"network.name={name}"])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [({"depth": 3}, "depth: unknown key; mnet takes width, decoder"), ({"width": "wide"}, "width: .*number"),
     ({"norm": "layer"}, "norm: .*'batch' or 'group'")],
)  # fmt: skip
def test_arguments_are_checked_against_the_signature(arguments: dict[str, object], text: str) -> None:
    """With the argument's name, what was found and what is allowed."""
    with pytest.raises(ValueError, match=text):
        fill_arguments("mnet", arguments)
    key, value = next(iter(arguments.items()))
    with pytest.raises(RecipeError, match=text):
        load_config(None, [f"network.{key}={value}"])


def test_arguments_may_be_keys_of_the_table(tmp_path: Path) -> None:
    """`network.width`, a table `network.arguments` and a file's keys are the same; another network has none of them."""
    one, two = (load_config("demo", [f"network.{key}=0.5"]) for key in ("width", "arguments.width"))
    assert one == two
    assert one.network.arguments["width"] == 0.5
    assert one.network.arguments["decoder"] == "resize"
    other = load_config("demo", [f"network.name={PATH}", "stream.crop=100"])
    assert other.network.arguments == {"channels": 4, "table": [1, 2], "bias": False}
    path = tmp_path / "twice.toml"
    path.write_text("[network]\nwidth = 1.0\narguments = {width = 0.5}\n")
    with pytest.raises(RecipeError, match="'width' is there twice"):
        load_config(path)


def test_checkpoints_of_the_first_version_are_read(tmp_path: Path) -> None:
    """They name no network: there was one."""
    network = lively(norm="group")
    path = checkpoint(tmp_path / "last.pt", network, version=1, network=dict(network.config))
    assert load_network(path).config == network.config


def test_a_network_and_its_losses_must_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss says what it compares and whether it composes; configurations are checked by that."""
    monkeypatch.setitem(LOSSES._entries, "cross_entropy", Loss(lambda p: p.outputs["trimap"].sum(), of="trimap"))
    with pytest.raises(RecipeError, match="compares 'trimap', and mnet gives alpha"):
        load_config(None, ["losses.cross_entropy=1"])
    monkeypatch.setitem(LOSSES._entries, "composed", Loss(lambda p: p.composite_difference().sum(), composes=True))
    assert load_config(None, ["losses.composed=1"]).composes
    assert not load_config(None, ["losses.composed=0", "losses.laplacian=1"]).composes
