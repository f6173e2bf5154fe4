"""Plan: what a training is going to be, without beginning it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ...composer.base.errors import TrainingError
from ..data.mix import Datasets, Mix, open_mix
from ..data.stream import open_stream
from ..networks.fine_tune import compare_parts, freeze
from ..networks.network import MattingNetwork
from ..networks.registry import build_network
from .config import Config, crops_per_step
from .measure import StepMeasurement, measure_step
from .runtime import Runtime, settle_precision
from .trackers import find_trackers
from .validate import open_validation_sets

__all__ = ["PlannedDataset", "TrainingPlan", "measured", "plan_training"]

LARGE = 6_500_000  # parameters: MNet at half its width


@dataclass(frozen=True)
class PlannedDataset:
    """What a training is going to take of a dataset.

    Attributes
    ----------
    path : str
    composites : int
    share : float
        Of all crops, 0..1.
    epochs : float
        How often each composite is seen.
    """

    path: str
    composites: int
    share: float
    epochs: float

    def __str__(self) -> str:
        return f"{self.epochs:.1f} epochs of {self.composites:,} composites"


@dataclass(frozen=True)
class TrainingPlan:
    """What a training is going to be.

    Attributes
    ----------
    datasets : list of PlannedDataset
        What trains.
    validated : dict[str, int]
        How many composites are scored each time, by the datasets' names.
    parameters : int
        Of the network.
    crops, steps : int
        Crops a step, over all processes; steps.
    processes : int
    device : str
    warnings : list of str
        What may waste a week, a line each.
    init : str or None
        What the weights of `network.init` do for the network.
    step : StepMeasurement or None
        What one takes, where it was measured.
    """

    datasets: list[PlannedDataset]
    validated: dict[str, int]
    parameters: int
    crops: int
    steps: int
    processes: int
    device: str
    warnings: list[str]
    init: str | None = None
    step: StepMeasurement | None = None

    def __str__(self) -> str:
        first, *others = self.datasets
        lines = [
            f"{self.parameters:,} parameters on {self.processes} × {self.device};"
            f" {self.steps:,} steps of {self.crops} crops" + (f": {first}" if not others else ""),
            *(f"{one.share:.1%} of the crops from {one.path}: {one}" for one in self.datasets if others),
            f"validated on {', '.join(f'{count:,} of {name}' for name, count in self.validated.items()) or 'nothing'}",
            *([f"init: {self.init}"] if self.init else []),
            *(f"warning: {warning}" for warning in self.warnings),
            *([str(self.step)] if self.step else []),
        ]
        return "\n".join(lines)


def plan_training(datasets: Datasets, config: Config, runtime: Runtime, resume: bool = False) -> TrainingPlan:
    """Work out what a training is going to be.

    Raises
    ------
    DatasetError
        One cannot be trained on, see `open_stream`, or validated on.
    TrainingError
        The network cannot be built, or the validation makes no sense.
    MattingComposeError
        A tracker is not there, or its package is not.
    """
    find_trackers(config.trackers)
    settle_precision(runtime.device, config.precision)
    mix = open_mix(datasets)
    table = config.stream
    open_stream(mix, crop=table.crop, sizes=table.sizes, colours=config.composes)  # raises where it cannot be
    validated = {one.name: len(one.numbers) for one in open_validation_sets(mix, config)}
    network = build_hollow(config)
    parameters = sum(p.numel() for p in network.parameters())
    freeze(network, config.network.freeze)
    init = None
    if config.network.init and not resume:
        init = compare_parts(network, config.network.init)[1]
    crops = crops_per_step(config, runtime)
    return TrainingPlan(
        _plan_datasets(mix, config.steps * crops), validated, parameters, crops, config.steps, runtime.world,
        str(runtime.device), _warnings(mix, config, runtime, network, bool(validated), parameters), init,
    )  # fmt: skip


def measured(plan: TrainingPlan, config: Config, runtime: Runtime, tell: Callable[[str], None]) -> TrainingPlan:
    """Add what a step takes, or how it could fit; tell what is being measured."""
    try:
        return replace(plan, step=measure_step(config, runtime, tell))
    except torch.cuda.OutOfMemoryError:
        advice = (
            f"a step does not fit into the GPU's memory: take stream.batch={max(1, config.stream.batch // 2)} with"
            f" optimiser.accumulate={2 * config.optimiser.accumulate}, network.checkpointing=true or precision=bf16"
        )
        return replace(plan, warnings=[*plan.warnings, advice])


def _plan_datasets(mix: Mix, crops: int) -> list[PlannedDataset]:
    shares = [share / sum(mix.shares) for share in mix.shares]
    counts = [len(dataset.numbers("train")) for dataset in mix.datasets]
    return [
        PlannedDataset(str(dataset.path), count, share, crops * share / count)
        for dataset, count, share in zip(mix.datasets, counts, shares, strict=True)
    ]


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
    mix: Mix, config: Config, runtime: Runtime, network: MattingNetwork, validated: bool, parameters: int
) -> list[str]:
    warnings = []
    if not validated:
        warnings.append(
            "no validation split, and no --validation: nothing will be scored, and there will be no best.pt"
        )
    for dataset in mix.datasets:
        if dataset.failures:
            warnings.append(f"{len(dataset.failures):,} composites of {dataset.path} are missing; see its index")
    if config.network.encoder == "random" and not config.network.init:
        warnings += network.random_weights_warnings()
    if runtime.device.type == "cpu" and parameters > LARGE:
        warnings.append("a network of this size takes seconds a crop on a CPU; --config cpu-small is made for it")
    return warnings
