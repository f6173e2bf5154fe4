"""What networks cost: parameters, FLOPs, memory and time of a training step, each in a process of its own.

    python bench/networks.py
    python bench/networks.py mnet:width=0.25,decoder=resize tiny_unet:TinyUNet --crop 320 --batch 2 --device cuda

Crops are noise. FLOPs are of the forward pass of one crop, two to a multiplication with its addition, as torch's own
counter has them. Time is the CPU's on a CPU, so that other work matters less, and the clock's on a GPU. Memory is what
the second step added to what the process had with the network alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from matting_compose.trainer.networks.losses import LOSSES
from matting_compose.trainer.networks.registry import NETWORKS, network_class
from matting_compose.trainer.training.config import Config, load_config, parse_config
from matting_compose.trainer.training.learner import Learner
from matting_compose.trainer.training.measure import _noise
from matting_compose.trainer.training.plan import build_hollow
from matting_compose.trainer.training.runtime import open_runtime


@dataclass(frozen=True)
class Cost:
    """One network's."""

    name: str
    parameters: int
    gigaflops: float
    seconds: float
    memory: int
    checkpointed: int

    def row(self) -> str:
        memory = f"{self.memory / 1e6:,.0f} | {self.checkpointed / 1e6:,.0f}"
        return f"| `{self.name}` | {self.parameters:,} | {self.gigaflops:,.1f} | {self.seconds:.2f} | {memory} |"


def configure(name: str, crop: int, batch: int) -> Config:
    """Read ``name:key=value,…``; the losses are one of those that the network can be trained by."""
    path, _, given = name.rpartition(":") if "=" in name else (name, "", "")
    overrides = [f"network.{item}" for item in given.split(",") if item]
    outputs = network_class(path).outputs
    loss = next(key for key in ("alpha_prediction", *LOSSES) if LOSSES[key].of in outputs)
    settings = [f"stream.crop={crop}", f"stream.batch={max(batch, network_class(path).least_batch)}"]
    return load_config(None, [f"network.name={path}", *overrides, f"losses={{{loss}=1}}", *settings])


def measure(name: str, crop: int, batch: int, device: str, rounds: int, checkpointing: bool) -> Cost:
    """Take some steps, in this process."""
    torch.set_num_threads(1)
    config = configure(name, crop, batch)
    data = config.model_dump(mode="json")
    data["network"]["checkpointing"] = checkpointing and any(True for _ in build_hollow(config).blocks())
    config = parse_config(data, name)
    with open_runtime(device) as runtime:
        learner = Learner(config, runtime, resume=True)
        before = runtime.peak_memory()
        noise = _noise(config.stream.batch, crop, config.composes)
        seconds = []
        for _ in range(rounds + 1):
            start = clock(device)
            learner.step(0, [noise]).numbers.tolist()
            seconds.append(clock(device) - start)
        one = _noise(1, crop, False).to(runtime.device)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            learner.network.eval()(*learner.network.training_inputs(one.image, one.trimap))
        parameters = sum(p.numel() for p in learner.network.parameters())
        memory = runtime.peak_memory() - before
    return Cost(name, parameters, counter.get_total_flops() / 1e9, min(seconds[1:]), memory, 0)


def clock(device: str) -> float:
    return time.process_time() if device == "cpu" else time.perf_counter()


def alone(*arguments: object) -> Cost:
    """Measure in a process of its own: memory that was used before is not given back."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="name, package.module:Class, or either with :key=value,…")
    parser.add_argument("--crop", type=int, default=320)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    print(f"Crops of {options.crop} px, batches of {options.batch}, {options.device}, torch {torch.__version__}")
    heads = ["network", "parameters", "GFLOPs a crop", "seconds a step", "memory, MB", "with checkpointing"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for name in options.names or NETWORKS:
        given = (name, options.crop, options.batch, options.device, options.rounds)
        print(replace(alone(*given, False), checkpointed=alone(*given, True).memory).row(), flush=True)


if __name__ == "__main__":
    main()
