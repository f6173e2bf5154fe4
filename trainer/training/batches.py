"""Batches: those of each step, taken by every process or by none."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice

import torch

from ...composer.base.errors import MattingComposeError
from ...composer.base.system import count_cores
from ..data.mix import Mix
from ..data.stream import Batch, Stream, open_stream
from .config import Config, crops_per_step
from .run_log import Meter
from .runtime import Runtime, StopRequest, StopRequested

__all__ = ["StepBatches", "open_training_stream", "places_of_step"]

MOST_WORKERS = 8


def open_training_stream(mix: Mix, config: Config, runtime: Runtime, step: int) -> Stream:
    """Open the stream of a training at a step."""
    table = config.stream
    workers = table.workers
    if workers is None:
        workers = min(MOST_WORKERS, max(1, count_cores() // runtime.world))
    return open_stream(
        mix, batch=table.batch, crop=table.crop, sizes=table.sizes, seed=config.seed,
        start=step * config.optimiser.accumulate, rank=runtime.rank, world=runtime.world,
        augment=table.augment, remix=table.remix, scenes=table.scenes,
        colours=config.composes, open_shards=table.open_shards, workers=workers, prefetch=table.prefetch,
        pin=runtime.device.type == "cuda",
        skip=[place for number in table.skip for place in places_of_step(number, config, runtime)],
    )  # fmt: skip


def places_of_step(number: int, config: Config, runtime: Runtime) -> range:
    """Return the places of the stream that a step takes, over all processes; steps are counted from 1, as people do."""
    crops = crops_per_step(config, runtime)
    return range((number - 1) * crops, number * crops)


class StepBatches:
    """Iterate over the batches of each step; end early where a process has none, or is asked to stop.

    Attributes
    ----------
    failure : str
        Why this process has no more data; empty where it has.
    """

    def __init__(self, stream: Stream, config: Config, runtime: Runtime, stop: StopRequest, meter: Meter) -> None:
        self.failure = ""
        self._stream, self._runtime, self._stop, self._meter = iter(stream), runtime, stop, meter
        self._per_step = config.optimiser.accumulate

    def steps(self, count: int) -> Iterator[list[Batch]]:
        """Yield the batches of so many steps, once every process has its own.

        Several processes tell each other a step ahead, and listen while their devices take the step before: all end
        before the same step, and no device waits to hear of it.
        """
        late = int(self._runtime.world > 1)
        ahead: deque[tuple[list[Batch], torch.Tensor]] = deque()
        for number in range(count + late):
            if number < count:
                batches = self._take()
                ahead.append((batches, self._runtime.any(not batches or (late > 0 and self._stop.asked))))
            if number >= late:
                batches, ends = ahead.popleft()
                if ends > 0:
                    return
                yield batches

    def _take(self) -> list[Batch]:
        """Wait for a step's batches; [] where a request to stop came first, or where they cannot be read."""
        try:
            with self._meter.waiting(), self._stop.at_once():
                return list(islice(self._stream, self._per_step))
        except StopRequested:
            pass
        except MattingComposeError as error:
            self.failure = str(error)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            if not self._stop.asked:  # else the same signal has ended the workers
                self.failure = (
                    f"a reading process died ({error}), perhaps for want of memory: take fewer stream.workers"
                )
        return []
