"""Measure: what a step takes on this machine, before a training begins: time, memory, and what would fit."""

from __future__ import annotations

import time
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

PATIENCE: Final = 20.0  # seconds: a step that would take longer is judged by its first crops


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
    memory : int
        Bytes: the GPU's peak, or the process's on a CPU.
    estimated : bool
        Whether the step was judged by fewer crops than it has.
    largest_batch : int or None
        Crops that would fit into the GPU's memory at once; None on a CPU.
    """

    seconds: float
    crops_per_second: float
    hours: float
    memory: int
    estimated: bool
    largest_batch: int | None

    def __str__(self) -> str:
        about = "about " if self.estimated else ""
        fits = "" if self.largest_batch is None else f"; stream.batch up to {self.largest_batch:,} would fit"
        step = f"{self.seconds:.3g} s" if self.seconds < 60 else format_duration(self.seconds)
        left = format_duration(3600 * self.hours) if self.hours < 100 else f"{self.hours / 24:,.0f} days"
        rate = f"{self.crops_per_second:,.1f}" if self.crops_per_second >= 1 else f"{self.crops_per_second:.2g}"
        return (
            f"a step takes {about}{step}, {about}{self.memory / 1e9:.1f} GB: {rate} crops/s, {left} to the end without"
            f" reading and validating{fits}"
        )


def measure_step(config: Config, runtime: Runtime) -> StepMeasurement:
    """Take a step or two on crops of noise, with a network of random weights.

    Raises
    ------
    TrainingError
        The network or the device cannot do it.
    torch.cuda.OutOfMemoryError
        The GPU's memory is too small.
    """
    table = config.stream
    learner = Learner(config, runtime, resume=True)  # no weights are fetched
    few = min(max(2, learner.network.least_batch), table.batch)
    if runtime.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(runtime.device)
    first = _timed(learner, config, runtime, few)  # with what is done once: memory, kernels, compilation
    again = first if first > PATIENCE / 5 and runtime.device.type != "cuda" else _timed(learner, config, runtime, few)
    seconds, memory = again / few * table.batch, runtime.peak_memory()
    estimated = runtime.device.type != "cuda" and seconds * config.optimiser.accumulate > PATIENCE
    largest = None
    if not estimated:
        if table.batch > few:
            _timed(learner, config, runtime, table.batch)
        seconds = _timed(learner, config, runtime, table.batch)
        largest = _largest_batch(runtime, few, memory, table.batch)
        memory = runtime.peak_memory()
    seconds *= config.optimiser.accumulate
    rate = crops_per_step(config, runtime) / seconds
    return StepMeasurement(seconds, rate, config.steps * seconds / 3600, memory, estimated, largest)


def _timed(learner: Learner, config: Config, runtime: Runtime, crops: int) -> float:
    batch = _noise(crops, config.stream.crop, config.composes)
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
