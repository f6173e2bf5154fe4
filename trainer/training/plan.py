"""Plan: what a training is going to be, without beginning it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ...composer.base.errors import TrainingError
from ...composer.dataset.dataset import Dataset, open_dataset
from ..data.stream import open_stream
from ..networks.fine_tune import compare_weights, freeze
from ..networks.network import MattingNetwork
from ..networks.registry import build_network
from .config import Config, crops_per_step
from .runtime import Runtime
from .trackers import find_trackers
from .validate import validation_samples

__all__ = ["TrainingPlan", "plan_training"]

LARGE = 6_500_000  # parameters: MNet at half its width


@dataclass(frozen=True)
class TrainingPlan:
    """What a training is going to be.

    Attributes
    ----------
    composites, validated : int
        Composites that train, and that are scored each time.
    parameters : int
        Of the network.
    crops, steps : int
        Crops a step, over all processes; steps.
    epochs : float
        How often each composite is seen.
    processes : int
    device : str
    warnings : list of str
        What may waste a week, a line each.
    init : str or None
        What the weights of `network.init` do for the network.
    """

    composites: int
    validated: int
    parameters: int
    crops: int
    steps: int
    epochs: float
    processes: int
    device: str
    warnings: list[str]
    init: str | None = None

    def __str__(self) -> str:
        lines = [
            f"{self.parameters:,} parameters on {self.processes} × {self.device};"
            f" {self.steps:,} steps of {self.crops} crops: {self.epochs:.1f} epochs of {self.composites:,} composites",
            *([f"init: {self.init}"] if self.init else []),
            *(f"warning: {warning}" for warning in self.warnings),
        ]
        return "\n".join(lines)


def plan_training(dataset: str | Path, config: Config, runtime: Runtime, resume: bool = False) -> TrainingPlan:
    """Work out what a training is going to be.

    Raises
    ------
    DatasetError
        It cannot be trained on; as `open_stream`.
    TrainingError
        The network cannot be built.
    MattingComposeError
        A tracker is not there, or its package is not.
    """
    find_trackers(config.trackers)
    opened = open_dataset(dataset)
    table = config.stream
    open_stream(opened, crop=table.crop, sizes=table.sizes, colours=config.composes)  # raises where it cannot be
    composites = len(opened.numbers("train"))
    validated = len(validation_samples(opened, config.validation.limit))
    network = build_hollow(config)
    parameters = sum(p.numel() for p in network.parameters())
    freeze(network, config.network.freeze)
    init = None
    if config.network.init and not resume:
        init = str(compare_weights(network, Path(config.network.init))[1])
    crops = crops_per_step(config, runtime)
    return TrainingPlan(
        composites, validated, parameters, crops, config.steps, config.steps * crops / composites, runtime.world,
        str(runtime.device), _warnings(opened, config, runtime, network, validated, parameters), init,
    )  # fmt: skip


def build_hollow(config: Config) -> MattingNetwork:
    """Build a network without memory for its weights, if its class can be built so."""
    name, arguments = config.network.name, config.network.arguments
    try:
        try:
            with torch.device("meta"):
                return build_network(name, arguments)
        except ValueError:
            return build_network(name, arguments)
    except ValueError as error:
        raise TrainingError(f"network: {error}") from error


def _warnings(
    dataset: Dataset, config: Config, runtime: Runtime, network: MattingNetwork, validated: int, parameters: int
) -> list[str]:
    warnings = []
    if not validated:
        warnings.append("the dataset has no validation split: nothing will be scored, and there will be no best.pt")
    if dataset.failures:
        warnings.append(f"{len(dataset.failures):,} composites of the dataset are missing; see its index")
    if config.network.encoder == "random" and not config.network.init:
        warnings += network.random_weights_warnings()
    if runtime.device.type == "cpu" and parameters > LARGE:
        warnings.append("a network of this size takes seconds a crop on a CPU; --config cpu-small is made for it")
    return warnings
