"""Learner: a network, its optimiser and its average, and what one step does to them."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...composer.base.errors import TrainingError
from ..data.stream import Batch
from ..networks.fine_tune import freeze, init_parts, is_in
from ..networks.losses import LOSSES, Prediction
from ..networks.network import Inputs, MattingNetwork, trimap_masks
from ..networks.recompute import recompute_features
from ..networks.registry import build_network, describe_network
from ..networks.weights import load_encoder
from .config import Config, NetworkTable, OptimiserTable
from .runtime import Runtime, settle_precision

__all__ = ["Learner", "StepResult", "learning_rate"]

RECORDS = 2048  # bytes around the three tensors that an optimiser keeps of each weight, in torch's files


@dataclass(frozen=True)
class StepResult:
    """What a step found; tensors, so that nobody waits for the device before the numbers are needed.

    Attributes
    ----------
    number : int
        The step's, from 0.
    numbers : (2 + losses,) float32
        The weighted sum, the gradient's norm, then each loss in the order of its name.
    """

    number: int
    numbers: Tensor


@dataclass(frozen=True)
class _Given:
    """A batch, what the network is given of it, and where what its alpha covers is unknown."""

    batch: Batch
    inputs: Inputs
    unknown: Tensor


class Learner:
    """Train a network on batches; `state` and `load` are what a checkpoint keeps of it."""

    def __init__(self, config: Config, runtime: Runtime, resume: bool = False) -> None:
        self._config, self._runtime = config, runtime
        self._precision = settle_precision(runtime.device, config.precision)
        torch.manual_seed(config.seed)
        network = _build(config.network, resume)
        self._frozen = freeze(network, config.network.freeze)
        if runtime.world > 1 and runtime.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self._layout = layout
        self.network: MattingNetwork = network.to(runtime.device, memory_format=layout)  # type: ignore[call-overload]
        self.ema: MattingNetwork | None = None
        if config.optimiser.ema:
            self.ema = copy.deepcopy(self.network).requires_grad_(False).eval()
        if config.network.checkpointing:
            recompute_features(self.network)
        self._trained: nn.Module = self.network
        if config.compile:
            self._trained = torch.compile(self.network)  # type: ignore[assignment]
        if runtime.world > 1:
            devices = [runtime.device] if runtime.device.type == "cuda" else None
            self._trained = nn.parallel.DistributedDataParallel(self._trained, device_ids=devices)
        self._optimiser = _optimiser(self.network, config.optimiser, runtime.device)
        # float16 has no room for small gradients: they are scaled, and a step in which they overflow is left out.
        self._scaler = torch.amp.GradScaler(runtime.device.type, enabled=self._precision == "fp16")
        self.losses = [name for name, weight in config.losses.items() if weight]

    @property
    def best_network(self) -> MattingNetwork:
        """The network to judge and to use: the average where one is kept."""
        return self.ema or self.network

    def step(self, number: int, batches: Sequence[Batch]) -> StepResult:
        """Take step `number` (from 0) on its batches: forward, backward, move; where one raises, none is taken."""
        rate = learning_rate(self._config.optimiser, number, self._config.steps)
        for group in self._optimiser.param_groups:
            group["lr"] = rate * group.get("factor", 1)
        kept = [buffer.clone() for buffer in self.network.buffers()] if self._runtime.world > 1 else []
        try:
            numbers = self._compute_gradients(number, batches)
        except BaseException:  # another process is lost: averages of batches go back to where the weights still are
            for buffer, before in zip(self.network.buffers(), kept, strict=False):
                buffer.copy_(before)
            raise
        self._scaler.unscale_(self._optimiser)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self._config.optimiser.clip or math.inf)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        if self._scaler.is_enabled():
            norm = norm.nan_to_num(0, 0)  # of a step that was left out
        if self.ema is not None:
            self._update_ema(self.ema, number)
        return StepResult(number, torch.cat((numbers[:1], norm.detach().reshape(1), numbers[1:])))

    def _compute_gradients(self, number: int, batches: Sequence[Batch]) -> Tensor:
        """Compute a step's gradients, over all processes; return the weighted sum and each loss."""
        self._optimiser.zero_grad(set_to_none=True)
        self._trained.train()
        for module in self._frozen:
            module.eval()
        # What a network draws, dropout and patches, follows from the step: so a run that goes on draws the same.
        torch.manual_seed(_step_seed(self._config.seed, number, self._runtime.rank))
        given = [self._give(batch.to(self._runtime.device)) for batch in batches]
        # Sums over unknown pixels are divided by the count of the whole step, in all batches and on all ranks: then
        # neither accumulating nor distributing changes what is minimised.
        count = self._runtime.mean(sum(part.unknown.sum() for part in given) / len(given))  # type: ignore[arg-type]
        numbers = torch.zeros(1 + len(self.losses), device=self._runtime.device)
        for i, part in enumerate(given):
            last = i == len(given) - 1
            if not last and isinstance(self._trained, nn.parallel.DistributedDataParallel):
                with self._trained.no_sync():
                    numbers += self._backward(part, count, len(batches))
            else:
                numbers += self._backward(part, count, len(batches))
        return self._runtime.mean(numbers)

    def _give(self, batch: Batch) -> _Given:
        inputs = self.network.training_inputs(batch.image, batch.trimap)
        return _Given(batch, inputs, self.network.covered(trimap_masks(batch.trimap)[:, 2:], inputs))

    def _backward(self, given: _Given, count: Tensor, parts: int) -> Tensor:
        """Add one batch's share to the gradients; return the weighted sum and each loss."""
        config = self._config
        inputs = [
            part.contiguous(memory_format=self._layout) if isinstance(part, Tensor) and part.ndim == 4 else part
            for part in given.inputs
        ]
        kind = torch.float16 if self._precision == "fp16" else torch.bfloat16
        with torch.autocast(self._runtime.device.type, kind, enabled=self._precision != "float32"):
            found = self.network.named_outputs(self._trained(*inputs))
        outputs = {name: output.float() for name, output in found.items()}  # losses: differences of near equals
        prediction = self._compare(given, outputs, count)
        values = torch.stack([LOSSES[name](prediction) for name in self.losses]) / parts
        weights = [config.losses[name] for name in self.losses]
        total = sum(weight * value for weight, value in zip(weights, values, strict=True))
        assert isinstance(total, Tensor)
        self._scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        return torch.cat((total.detach().reshape(1), values.detach()))

    def _compare(self, given: _Given, outputs: Mapping[str, Tensor], count: Tensor) -> Prediction:
        """Put outputs beside what they are compared with."""
        network, batch = self.network, given.batch
        alpha = outputs.get("alpha", batch.image.new_empty(0, dtype=torch.float32))
        if self._config.fuse and "alpha" in outputs:
            alpha = network.fuse(alpha, batch.trimap)

        def covered(part: Tensor | None) -> Tensor | None:
            return None if part is None else network.covered(part / 255, given.inputs)

        whole = batch.alpha / 255
        return Prediction(
            alpha,
            network.covered(whole, given.inputs),
            given.unknown,
            covered(batch.foreground),
            covered(batch.background),
            count,
            outputs,
            batch.trimap,
            whole,
        )

    @torch.no_grad()
    def _update_ema(self, ema: MattingNetwork, number: int) -> None:
        """Move the average towards the weights: quickly at first, when they are far from anywhere.

        So with the statistics of normalisation, which else are those of the last ten batches: as small as these are on
        a processor, that costs a network more than the weights' own noise.
        """
        decay = min(self._config.optimiser.ema, (1 + number) / (10 + number))
        pairs = list(zip(_tensors(ema), _tensors(self.network), strict=True))
        moving = [(kept, now) for kept, now in pairs if kept.is_floating_point()]
        torch._foreach_lerp_([kept for kept, _ in moving], [now for _, now in moving], 1 - decay)
        for kept, now in pairs:
            if not kept.is_floating_point():
                kept.copy_(now)

    @property
    def optimiser_bytes(self) -> int:
        """Bytes of a checkpoint that the optimiser takes once it has made a step: two averages for each weight."""
        weights = [weight for group in self._optimiser.param_groups for weight in group["params"]]
        return sum(2 * weight.numel() * weight.element_size() + RECORDS for weight in weights)

    def state(self) -> dict[str, Any]:
        """Return all that decides the next step, as tensors and plain types."""
        return {
            "network": describe_network(self.network),
            "model": self.network.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            **({"scaler": self._scaler.state_dict()} if self._scaler.is_enabled() else {}),
        }

    def load(self, state: Mapping[str, Any], path: Path) -> None:
        """Go on from a checkpoint's state.

        Raises
        ------
        TrainingError
            It does not fit.
        """
        try:
            self.network.load_state_dict(state["model"])
            if self.ema is not None:
                self.ema.load_state_dict(state["ema"])
            self._optimiser.load_state_dict(state["optimiser"])
            if self._scaler.is_enabled():
                self._scaler.load_state_dict(state["scaler"])
        except (KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
            raise TrainingError(f"{path}: does not fit this configuration's network ({error})") from None


def _step_seed(seed: int, number: int, rank: int) -> int:
    return int(np.random.SeedSequence((seed, number, rank)).generate_state(1, np.uint64)[0] >> 1)


def learning_rate(settings: OptimiserTable, number: int, steps: int) -> float:
    """Return step `number`'s rate: a line up to the full rate, then constant or half a cosine down to 0."""
    rising = min(1.0, (number + 1) / (settings.warmup + 1))
    if settings.schedule == "constant":
        return settings.rate * rising
    done = max(0, number - settings.warmup) / max(1, steps - settings.warmup)
    return settings.rate * rising * (1 + math.cos(math.pi * min(1.0, done))) / 2


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _build(table: NetworkTable, resume: bool) -> MattingNetwork:
    """Build a network with the weights that it starts from; one that is resumed gets its own later."""
    try:
        network = build_network(table.name, table.arguments)
    except ValueError as error:
        raise TrainingError(f"network: {error}") from error
    if not resume:
        load_encoder(network, table.encoder)
        if table.init:
            init_parts(network, table.init)
    return network


def _optimiser(network: MattingNetwork, settings: OptimiserTable, device: torch.device) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return kind(
        _parameter_groups(network, settings.factors),
        lr=settings.rate,
        betas=settings.betas,
        weight_decay=settings.decay,
        fused=device.type == "cuda",
    )


def _parameter_groups(network: MattingNetwork, factors: Mapping[str, float]) -> list[dict[str, Any]]:
    """Group what learns by the factor of its rate; a name that several parts begin goes with the longest."""
    groups: dict[float, list[nn.Parameter]] = {}
    used = set()
    for name, parameter in network.named_parameters():
        part = max((part for part in factors if is_in(name, part)), key=len, default=None)
        used.add(part)
        if parameter.requires_grad:
            groups.setdefault(1.0 if part is None else factors[part], []).append(parameter)
    if unknown := factors.keys() - used:
        there = ", ".join(name for name, _ in network.named_children())
        raise TrainingError(f"optimiser.factors: the network has no part '{min(unknown)}'; there are {there}")
    if not factors:
        return [{"params": parameters} for parameters in groups.values()]
    return [{"params": parameters, "factor": factor} for factor, parameters in groups.items()]
