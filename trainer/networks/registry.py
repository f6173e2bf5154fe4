"""Registry: networks by name, or by the path of their class; built from arguments of plain types, and built again."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Final, cast

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from torch import nn

from ...composer.base.errors import UnknownNameError
from ...composer.base.registry import Registry, import_class
from .colournet import ColourNet
from .mnet import MNet
from .network import MattingNetwork
from .shm import SHM
from .tnet import TNet

__all__ = ["NETWORKS", "build_network", "describe_network", "fill_arguments", "network_class", "rebuild_network"]

NETWORKS: Final[Registry[type[nn.Module]]] = Registry(
    "network", "matting_compose.networks", {"mnet": MNet, "colournet": ColourNet, "shm": SHM, "tnet": TNet}
)


FIRST: Final = "mnet"  # what a checkpoint holds that names no network: it is from before there were others


def network_class(name: str) -> type[MattingNetwork]:
    """Find a network.

    Parameters
    ----------
    name : str
        A name in `NETWORKS`, or ``package.module:Class`` of a module that can be imported: installed, or on
        ``PYTHONPATH``. A plain ``torch.nn.Module`` gets the defaults of `MattingNetwork`.

    Raises
    ------
    UnknownNameError
        There is none, or it is no ``torch.nn.Module``.

    Examples
    --------
    >>> network_class("mnet").stride
    16
    >>> network_class("torch.nn:Identity").__mro__[1].__name__
    'MattingNetwork'
    """
    found = import_class("network", name) if ":" in name else NETWORKS[name]
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise UnknownNameError(f"network '{name}': expected a class that derives from torch.nn.Module, found {found!r}")
    if issubclass(found, MattingNetwork):
        return found
    own = {"__module__": found.__module__, "__qualname__": found.__qualname__}
    return cast(type[MattingNetwork], type(found.__name__, (MattingNetwork, found), own))


def fill_arguments(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Check a network's arguments against its signature, and add those that have defaults.

    Raises
    ------
    UnknownNameError
        There is no such network.
    ValueError
        An argument that it does not take, lacks, or cannot use.

    Examples
    --------
    >>> fill_arguments("mnet", {"width": 0.25})
    {'width': 0.25, 'decoder': 'unpool', 'norm': 'batch', 'output': 'clamp'}
    """
    model = _arguments_model(network_class(name))
    try:
        filled = model.model_validate(dict(arguments)).model_dump()
    except ValidationError as error:
        raise ValueError("; ".join(_explain(name, model, found) for found in error.errors())) from None
    return {key: list(value) if isinstance(value, tuple) else value for key, value in filled.items()}


def _arguments_model(kind: type[nn.Module]) -> type[BaseModel]:
    signature = inspect.signature(kind, eval_str=True)
    fields: dict[str, Any] = {}
    extra = False
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            extra = extra or parameter.kind is parameter.VAR_KEYWORD
            continue
        annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
        fields[parameter.name] = (annotation, ... if parameter.default is parameter.empty else parameter.default)
    config = ConfigDict(extra="allow" if extra else "forbid", arbitrary_types_allowed=True, protected_namespaces=())
    return create_model("Arguments", __config__=config, **fields)


def _explain(name: str, model: type[BaseModel], found: Any) -> str:
    key = ".".join(map(str, found["loc"]))
    if found["type"] == "extra_forbidden":
        return f"{key}: unknown key; {name} takes {', '.join(model.model_fields)}"
    return f"{key}: {found['msg']} (found {found['input']!r})"


def build_network(name: str, arguments: Mapping[str, Any]) -> MattingNetwork:
    """Build a network with weights as its class starts them.

    Parameters
    ----------
    name : str
        See `network_class`.
    arguments : Mapping[str, Any]
        Its constructor's, of plain types.

    Raises
    ------
    UnknownNameError
        There is no such network.
    ValueError
        It cannot be built from these arguments.

    Examples
    --------
    >>> network = build_network("mnet", {"width": 0.125, "norm": "group"})
    >>> describe_network(network)["name"]
    'mnet'
    """
    kind, filled = network_class(name), fill_arguments(name, arguments)
    try:
        network = kind(**filled)
    except Exception as error:  # a class of anybody's
        raise ValueError(f"network '{name}' cannot be built: {_first_line(error)}") from error
    network.config = filled
    return network


def describe_network(network: MattingNetwork) -> dict[str, Any]:
    """Say in plain types how to build a network again: what checkpoints and exports keep."""
    kind = type(network)
    path = f"{kind.__module__}:{kind.__qualname__}"
    name = next((name for name in NETWORKS if _path(name) == path), path)
    return {"name": name, "arguments": dict(network.config)}


def _path(name: str) -> str:
    kind = NETWORKS[name]
    return f"{kind.__module__}:{kind.__qualname__}"


def rebuild_network(description: object, state: Mapping[str, torch.Tensor]) -> MattingNetwork:
    """Build a network again from `describe_network` and its ``state_dict``, on the CPU, in evaluation mode.

    It is built without memory first, so that a description of any size costs nothing.

    Raises
    ------
    ValueError
        They do not fit each other, or there is no such network here.
    """
    if not isinstance(description, Mapping):
        raise ValueError("it does not say which network it holds")
    if "name" in description:
        name, arguments = str(description["name"]), description.get("arguments") or {}
    else:
        name, arguments = FIRST, description
    try:
        with torch.device("meta"):
            network = build_network(name, arguments)
        network.load_state_dict(state, assign=True)
        if any(tensor.is_meta for tensor in network.buffers()):  # those that are computed, not kept
            network = build_network(name, arguments)
            network.load_state_dict(state)
    except (UnknownNameError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(_first_line(error)) from error
    return network.eval()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
