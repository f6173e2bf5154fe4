"""Place: which device and which of how many processes this is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from ..composer.errors import TrainingError


@dataclass(frozen=True)
class Place:
    """This process among `world`, and its device. What needs several processes does nothing where there is one."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Average a number over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(value)
            value /= self.world
        return value

    def any(self, flag: bool) -> bool:
        """Tell whether any process says so, to all alike."""
        if self.world == 1:
            return flag
        raised = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(raised, op=dist.ReduceOp.MAX)
        return bool(raised.item())

    def gather(self, items: list[tuple[int, dict[str, float]]]) -> list[tuple[int, dict[str, float]]]:
        """Bring all processes' items together, to all alike."""
        if self.world == 1:
            return items
        parts: list[list[tuple[int, dict[str, float]]]] = [[] for _ in range(self.world)]
        dist.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def take_place(device: str = "auto") -> Iterator[Place]:
    """Find this process's place: alone, or as torchrun says; on the GPU where there is one.

    Raises
    ------
    TrainingError : the device is not there
    """
    world, rank, local = (int(os.environ.get(name, default)) for name, default in
                          (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0")))  # fmt: skip
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise TrainingError(f"--device {device}: PyTorch {torch.__version__} sees no GPU here; take --device cpu")
    chosen = torch.device(f"cuda:{local}" if device == "cuda" else device)
    if chosen.type == "cuda":
        if (chosen.index or 0) >= torch.cuda.device_count():
            raise TrainingError(f"--device {chosen}: there are {torch.cuda.device_count()} GPUs, numbered from 0")
        torch.cuda.set_device(chosen)
        torch.backends.cudnn.benchmark = True  # crops have one size
        torch.set_float32_matmul_precision("high")
    if world == 1:
        yield Place(chosen)
        return
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Place(chosen, rank, world)
    finally:
        dist.destroy_process_group()
