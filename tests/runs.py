"""Trainings of a few seconds, in this process and as a command, and what tests ask of their folders."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner

from conftest import Ran
from matting_compose.composer.base.progress import OnProgress, ignore_progress
from matting_compose.trainer import cli
from matting_compose.trainer.training import loop
from matting_compose.trainer.training.config import Config, load_config
from matting_compose.trainer.training.records import read_records
from matting_compose.trainer.training.runtime import Runtime

torch.set_num_threads(1)
CPU = Runtime(torch.device("cpu"))
MODULE = [sys.executable, "-m", "matting_compose.trainer.cli"]
TINY = (
    "steps=7", "log_every=1", "save_every=100", "network.width=0.03", "network.decoder=resize",
    "network.output=sigmoid", "network.norm=group", "stream.batch=2", "stream.crop=32", "stream.sizes=[32,48]",
    "stream.workers=0", "optimiser.rate=1e-3", "optimiser.ema=0.9", "validation.every=4", "validation.limit=2",
    "validation.panel=1",
)  # fmt: skip


def tiny(*more: str) -> Config:
    """Configure seven steps of two crops of 32 px."""
    return load_config(None, (*TINY, *more))


def train_in_process(
    dataset: Path, out: Path, config: Config, resume: bool = False, on_progress: OnProgress = ignore_progress
) -> loop.TrainResult:
    """Train in this process."""
    return loop.train(dataset, out, config, CPU, on_progress, resume)


def asked_at(step: int) -> OnProgress:
    """Send this process SIGTERM when a step's progress is told."""
    return lambda now: signal.raise_signal(signal.SIGTERM) if now.done == step else None


def arguments(dataset: Path, out: Path, *more: str) -> list[str]:
    """Return the command's arguments for `tiny`."""
    return [str(dataset), "--out", str(out), "--device", "cpu", *(f"--set={item}" for item in TINY), *more]


def command(*arguments: str) -> Ran:
    """Run `matting-train` in this process."""
    done = CliRunner().invoke(cli.train, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Ran(done.exit_code, done.stdout, done.stderr)


def together(*arguments: str, processes: int = 2) -> Ran:
    """Run `matting-train` in several processes on CPUs, as torchrun does."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    done = subprocess.run(
        [*torchrun, f"--nproc-per-node={processes}", "-m", MODULE[-1], *arguments, "--device=cpu"],
        env=os.environ | {"GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    return Ran(done.returncode, done.stdout, done.stderr)


def state(path: Path) -> dict[str, Any]:
    """Read a checkpoint without the clock's part in it."""
    found: dict[str, Any] = torch.load(path, weights_only=True)
    return {key: value for key, value in found.items() if key not in ("seconds", "config")}


def same(one: Any, other: Any) -> bool:
    """Compare two nested states, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def steps_of(out: Path, kind: str) -> list[int]:
    """Return the steps of a run's lines."""
    return [record["step"] for record in read_records(out) if record["kind"] == kind]
