"""Runtime: which device, which of how many processes, and a request to stop."""

from __future__ import annotations

import os
import signal
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist

from ...composer.base.errors import TrainingError
from ...composer.base.system import peak_memory
from ..networks.devices import find_device
from .meeting import BEAT, Neighbours, meet

__all__ = ["Runtime", "StopRequest", "StopRequested", "open_runtime", "settle_precision", "stop_on_signals"]

WAIT, SILENCE = 1800.0, 20.0  # seconds


CONNECTING = 60.0  # seconds that those who have met may take to connect over gloo, or `silence` where that is more


@dataclass(frozen=True)
class Runtime:
    """This process among several, and its device. What needs several processes does nothing where there is one.

    Attributes
    ----------
    device : torch.device
    rank, world : int
        Which of how many processes.
    group : dist.ProcessGroup or None
        The same processes once more, over CPUs, for signs of life; None where nobody watches.
    sockets : frozenset of int
        The descriptors by which they are connected.
    """

    device: torch.device
    rank: int = 0
    world: int = 1
    group: dist.ProcessGroup | None = None
    sockets: frozenset[int] = frozenset()

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

    def any(self, flag: bool) -> torch.Tensor:
        """Find out whether any process says so: above 0, to all alike. Reading it waits for the device."""
        raised = torch.full((), float(flag), device=self.device)
        if self.world > 1:
            dist.all_reduce(raised, op=dist.ReduceOp.MAX)
        return raised

    def first_of(self, text: str) -> str:
        """Return what the first process says that says anything, to all alike; an empty text says nothing."""
        if self.world == 1:
            return text
        texts = [""] * self.world
        dist.all_gather_object(texts, text)
        return next(filter(None, texts), "")

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """Add up over all processes; on the device and back."""
        if self.world == 1:
            return value
        there = value.to(self.device)
        dist.all_reduce(there)
        return there.to(value.device)

    def peak_memory(self) -> int:
        """Return the most bytes that were in use: the GPU's, or this process's on a CPU."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        return peak_memory()

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            dist.barrier()


Precision = Literal["float32", "bf16", "fp16"]


def settle_precision(device: torch.device, precision: Precision | Literal["auto"]) -> Precision:
    """See that a device computes in a precision, or choose one.

    ``auto`` is bf16 where the device multiplies it itself, by AMX, AVX512-BF16 or a GPU's cores; elsewhere it is put
    together from float32, several times slower.

    Raises
    ------
    TrainingError
        It does not, or not well.

    Examples
    --------
    >>> settle_precision(torch.device("cpu"), "bf16")
    'bf16'
    >>> settle_precision(torch.device("cpu"), "fp16")
    Traceback (most recent call last):
        ...
    TrainingError: precision=fp16 is for CUDA GPUs, and this is cpu: take float32, or bf16 where the processor has it
    """
    if precision == "auto":
        return "bf16" if _multiplies_bf16(device) else "float32"
    if precision == "fp16" and device.type != "cuda":
        raise TrainingError(
            f"precision=fp16 is for CUDA GPUs, and this is {device.type}: take float32, or bf16 where the processor has"
            " it"
        )
    if precision == "bf16" and device.type == "mps":
        raise TrainingError("precision=bf16 is not for MPS, which loses what it needs: take float32")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise TrainingError(
            f"precision=bf16: {torch.cuda.get_device_name(device)} has no bf16: take fp16, which scales the gradients"
        )
    return precision


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # older versions of PyTorch do not say
        return False
    found = torch.cpu.get_capabilities()
    return bool(found.get("amx_bf16") or found.get("avx512_bf16"))


@contextmanager
def open_runtime(device: str = "auto", wait: float = WAIT, silence: float = SILENCE) -> Iterator[Runtime]:
    """Join the other processes, if torchrun has started some, on the GPU where there is one.

    Parameters
    ----------
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    wait : float
        Seconds that processes wait for one that lives, and does not come; at the start, for one that has not shown up.
    silence : float
        Seconds without a sign of life after which one that has shown up is given up; see `meet`.

    Raises
    ------
    TrainingError
        The device is not there, or not all processes are.
    """
    world, rank, local = (int(os.environ.get(name, default)) for name, default in
                          (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0")))  # fmt: skip
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = find_device(f"cuda:{local}" if device == "cuda" and torch.cuda.is_available() else device)
    if chosen.type == "cuda":
        if world > 1 and device != "cuda":
            raise TrainingError(
                f"--device {device}: {world} processes cannot share it; leave it out, each takes its own"
            )
        torch.cuda.set_device(chosen)
        torch.backends.cudnn.benchmark = True  # crops have one size
        torch.set_float32_matmul_precision("high")
    if world == 1:
        yield Runtime(chosen)
        return
    before = _open_sockets()
    group = _connect(chosen, rank, world, wait, silence)
    try:
        yield Runtime(chosen, rank, world, group, _open_sockets() - before)
    finally:
        dist.destroy_process_group()


def _connect(device: torch.device, rank: int, world: int, wait: float, silence: float) -> dist.ProcessGroup:
    """Meet the others and connect to them; return the group for signs of life."""
    made: list[dist.ProcessGroup | RuntimeError] = []
    # Told its device, NCCL neither guesses one at a barrier nor waits until then to connect.
    backend, its_device = ("nccl", device) if device.type == "cuda" else ("gloo", None)

    def connect() -> None:
        try:
            dist.init_process_group(backend, timeout=timedelta(seconds=wait), device_id=its_device)
            made.append(dist.new_group(backend="gloo"))
        except RuntimeError as error:
            made.append(error)

    meeting = meet(rank, world, wait, silence)
    connecting = threading.Thread(target=connect, daemon=True)  # where one stops now, PyTorch waits for ever
    connecting.start()
    limit = wait if its_device else max(silence, CONNECTING)
    neighbours = Neighbours(rank)
    for _ in range(round(limit / BEAT)):
        connecting.join(BEAT)
        if not connecting.is_alive():
            break
        neighbours.look()
    del meeting
    if made and isinstance(made[0], dist.ProcessGroup):
        return made[0]
    why = str(made[0]).partition("\n")[0] if made else f"within {limit:g} s: one is stopped, or cut off"
    raise TrainingError(
        f"the processes of this training have met, but could not connect ({why}). Nothing was trained yet:"
        " start all of them again"
    )


def _open_sockets() -> frozenset[int]:
    """Return the descriptors of this process that are sockets."""
    found = set()
    for name in os.listdir("/dev/fd"):  # noqa: PTH208  # numbers, not files
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                found.add(int(name))
    return frozenset(found)


AGAIN = 1.0  # seconds: torchrun hands a Ctrl-C on to processes that had it from the terminal; that is one request


class StopRequested(KeyboardInterrupt):
    """The request came while nothing was done but waiting."""


class StopRequest:
    """Whether somebody asked to stop.

    Attributes
    ----------
    asked : bool
    """

    def __init__(self) -> None:
        self.asked = False
        self._since = 0.0
        self._waiting = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Obey within by raising `StopRequested`: for waits that may never end."""
        self._waiting = True
        try:
            if self.asked:
                raise StopRequested
            yield
        finally:
            self._waiting = False

    def ask(self) -> bool:
        """Note a request; tell whether it is another one, from somebody who has lost patience."""
        now = time.monotonic()
        again = self.asked and now - self._since >= AGAIN
        if not self.asked:
            self.asked, self._since = True, now
        if self._waiting and not again:
            raise StopRequested
        return again


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Take Ctrl-C, SIGTERM and a lost terminal (SIGHUP) as a request to stop.

    The second one, a second or more after, is obeyed as ever. What ``nohup`` ignores stays ignored.
    """
    stop = StopRequest()
    numbers = [signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in numbers}
    before = {n: handler for n, handler in before.items() if n.name != "SIGHUP" or handler is not signal.SIG_IGN}

    def on_signal(number: int, _frame: object) -> None:
        if stop.ask():
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
