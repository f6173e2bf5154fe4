"""Measure: what a step takes on this machine, before a training begins: time, memory, and what would fit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from ...composer.base.text import format_duration
from ...composer.dataset.rows import BACKGROUND, FOREGROUND, UNKNOWN
from ..data.stream import Batch
from .config import Config, crops_per_step
from .learner import Learner
from .runtime import Runtime

__all__ = ["StepMeasurement", "measure_step"]

PATIENCE: Final = 20.0  # seconds: a step that would take longer is judged by a small one


SMALLER: Final = 4  # times: the side of such a step's crops


FULL: Final = 0.9  # of a GPU's memory: the rest is fragments and other programs'


@dataclass(frozen=True)
class StepMeasurement:
    """What a step takes, on crops of noise: reading data and validating come on top.

    Attributes
    ----------
    seconds : float
        Of one step, in this process.
    crops_per_second : float
        Over all processes.
    hours : float
        To the last step.
    memory : int or None
        Bytes: the GPU's peak, or the process's on a CPU; None where the step is estimated.
    estimated : bool
        Whether the step was judged by fewer and smaller crops than it has.
    largest_batch : int or None
        Crops that would fit into the GPU's memory at once; None on a CPU.
    """

    seconds: float
    crops_per_second: float
    hours: float
    memory: int | None
    estimated: bool
    largest_batch: int | None

    def __str__(self) -> str:
        about = "about " if self.estimated else ""
        fits = "" if self.largest_batch is None else f"; stream.batch up to {self.largest_batch:,} would fit"
        step = f"{self.seconds:.3g} s" if self.seconds < 60 else format_duration(self.seconds)
        left = format_duration(3600 * self.hours) if self.hours < 100 else f"{self.hours / 24:,.0f} days"
        rate = f"{self.crops_per_second:,.1f}" if self.crops_per_second >= 1 else f"{self.crops_per_second:.2g}"
        memory = "" if self.memory is None else f", {self.memory / 1e9:.1f} GB"
        end = f"{left} to the end without reading and validating{fits}"
        return f"a step takes {about}{step}{memory}: {rate} crops/s, {end}"


def measure_step(config: Config, runtime: Runtime, tell: Callable[[str], None] = lambda text: None) -> StepMeasurement:
    """Take a step or two on crops of noise, with a network of random weights.

    On a CPU the first are small ones: where they say that a whole step takes longer than anyone waits, they are all.

    Parameters
    ----------
    config : Config
    runtime : Runtime
    tell : callable, optional
        Called with what is about to be measured.

    Raises
    ------
    TrainingError
        The network or the device cannot do it.
    torch.cuda.OutOfMemoryError
        The GPU's memory is too small.
    """
    table, accumulate = config.stream, config.optimiser.accumulate
    crops, side = "crops of noise", table.crop
    tell(f"measuring a step of {table.batch * accumulate} {crops}, {side} px wide, on {runtime.device} …")
    learner = Learner(config, runtime, resume=True)  # no weights are fetched
    few, on_gpu = min(max(2, learner.network.least_batch), table.batch), runtime.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(runtime.device)
    else:
        small = max(1, side // SMALLER // learner.network.stride) * learner.network.stride
        _timed(learner, config, runtime, few, small)  # with what is done once: memory, kernels, compilation
        seconds = _timed(learner, config, runtime, few, small) * (side / small) ** 2 / few * table.batch
        if seconds * accumulate > PATIENCE:
            return _found(config, runtime, seconds * accumulate, None, None)
    tell(f"measuring {few} of its {crops} …")
    for _ in range(2):
        seconds = _timed(learner, config, runtime, few, side) / few * table.batch
    memory = runtime.peak_memory()
    if table.batch > few:
        tell(f"measuring {table.batch} of its {crops} …")
        for _ in range(2):
            seconds = _timed(learner, config, runtime, table.batch, side)
    largest = _largest_batch(runtime, few, memory, table.batch)
    return _found(config, runtime, seconds * accumulate, runtime.peak_memory(), largest)


def _found(
    config: Config, runtime: Runtime, seconds: float, memory: int | None, largest: int | None
) -> StepMeasurement:
    rate = crops_per_step(config, runtime) / seconds
    return StepMeasurement(seconds, rate, config.steps * seconds / 3600, memory, memory is None, largest)


def _timed(learner: Learner, config: Config, runtime: Runtime, crops: int, side: int) -> float:
    batch = _noise(crops, side, config.composes)
    start = time.perf_counter()
    result = learner.step(0, [batch])
    result.numbers.tolist()  # waits for the device
    return time.perf_counter() - start


def _largest_batch(runtime: Runtime, few: int, memory: int, batch: int) -> int | None:
    """Draw a line through the peaks of a small and of the whole batch; None where there is no GPU, or no line."""
    if runtime.device.type != "cuda" or batch <= few:
        return None
    per_crop = (runtime.peak_memory() - memory) / (batch - few)
    free = FULL * torch.cuda.mem_get_info(runtime.device)[1] - memory
    return max(batch, few + int(free / per_crop)) if per_crop > 0 else None


def _noise(count: int, side: int, composes: bool) -> Batch:
    rng = np.random.default_rng(0)

    def planes(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))

    trimap = rng.choice(np.array([BACKGROUND, UNKNOWN, FOREGROUND], np.uint8), (count, side, side))
    colours = [planes(count, 3, side, side) if wanted else None for wanted in (True, composes, composes)]
    zeros = np.zeros(count, np.int64)
    image, foreground, background = colours
    assert image is not None
    alpha = planes(count, 1, side, side)
    return Batch(image, torch.from_numpy(trimap), alpha, foreground, background, zeros, zeros)
