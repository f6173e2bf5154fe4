"""bench/gpu.py: what goes wrong in one case is told of that case, and the others are measured."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs the 'train' extra")

import gpu  # noqa: E402 (only once torch is known to be there)
from runs import CPU  # noqa: E402

CASE = gpu.Case("mnet", 320, 8)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "out of memory"),
        (RuntimeError("inductor: CUDA out of memory"), "out of memory"),
        (RuntimeError("no kernel image\nis available"), "RuntimeError: no kernel image"),
    ],
)
def test_a_failure_is_told(error: Exception, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that is too small by one word, anything else by its first line."""

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(gpu, "measure_step", fail)
    assert gpu.attempt(CASE, CPU, argparse.Namespace()).failure == told


def helper(serve: Any, monkeypatch: pytest.MonkeyPatch) -> gpu.Helper:
    """Make a helper whose process does something else."""
    monkeypatch.setattr(gpu, "serve", serve)
    return gpu.Helper(multiprocessing.get_context("fork"), 0, argparse.Namespace())


def dies(pipe: Any, *_: Any) -> None:
    """Start well, and die with the case."""
    pipe.send(None)
    pipe.recv()
    os._exit(1)


def hangs(pipe: Any, *_: Any) -> None:
    """Start well, and never answer."""
    pipe.send(None)
    pipe.recv()
    pipe.recv()


@pytest.mark.parametrize(("serve", "told"), [(dies, "its process died"), (hangs, "took more than 0 s")])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="these processes are forked")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_is_lost_is_replaced(serve: Any, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dead or too slow: it is ended, the case says so, and the next one gets a new process."""
    one = helper(serve, monkeypatch)
    for _ in range(2):
        assert one.measure(CASE, 0.1 if serve is hangs else 30).failure == told
        assert one.process is None


def test_larger_batches_than_what_did_not_fit_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for them; the table and the file have every case so far."""

    def measure(self: gpu.Helper, case: gpu.Case, box: float) -> gpu.Found:
        return gpu.Found(failure="out of memory") if case.batch > 8 else gpu.Found(100.0, 2 * 10**9)

    monkeypatch.setattr(gpu.Helper, "measure", measure)
    monkeypatch.setattr("sys.argv", ["gpu.py", "--out", str(tmp_path), "--networks", "mnet", "--crops", "320"])
    monkeypatch.setattr(gpu, "cases", lambda _: (gpu.Case("mnet", 320, batch) for batch in (8, 16, 64)))
    gpu.measure_all(gpu.parse(), {"device": "Card", "torch": "2"})
    rows = (tmp_path / "gpu.md").read_text().splitlines()
    assert rows[0] == "Card, torch 2"
    assert rows[4:7] == [
        "| mnet | 320 | 8 | float32 | 100 | 2.0 |",
        "| mnet | 320 | 16 | float32 | out of memory | |",
        "| mnet | 320 | 64 | float32 | out of memory, as with 16 crops | |",
    ]
    assert [case["batch"] for case in json.loads((tmp_path / "gpu.json").read_text())["cases"]] == [8, 16, 64]
