"""Other systems: what only one of them has stands behind one module, and nothing needs it to be imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from matting_compose.composer.base import system
from test_architecture import MODULES

LACKING = """
import os, sys, importlib, multiprocessing
for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None  # importing it fails
for name in ("O_CLOEXEC", "O_NONBLOCK", "sched_getaffinity", "fork"):
    delattr(os, name)
multiprocessing.get_all_start_methods = lambda: ["spawn"]
for name in sys.argv[1:]:
    importlib.import_module(name)
from matting_compose.composer.base import system
assert system.fcntl is None and system.peak_memory() == 0 and system.count_cores() >= 1
assert system.worker_context("json").get_start_method() == "spawn"
"""


def test_everything_is_imported_without_what_windows_lacks() -> None:
    """No module needs fcntl, resource, termios or fork; what stands for them says so, or does without."""
    pytest.importorskip("torch", reason="the trainer needs the 'train' extra")
    names = [f"matting_compose.{name}" for name, path in MODULES.items() if path.name != "__init__.py"]
    done = subprocess.run([sys.executable, "-c", LACKING, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_systems_differ_in_one_module() -> None:
    """No other imports what a system may lack, or asks which system it is on."""
    pattern = re.compile(r"^\s*(import|from) (fcntl|resource|termios|msvcrt)\b|sys\.platform|os\.name\b", re.MULTILINE)
    found = {name for name, path in MODULES.items() if pattern.search(path.read_text(encoding="utf-8"))}
    assert found <= {"composer.base.system", "composer.console.live_display"}


def test_this_system_says_what_it_has() -> None:
    """Memory in bytes, cores that may be used, and files that open without waiting."""
    assert 2**20 < system.peak_memory() < 2**40
    assert 1 <= system.count_cores() <= (os.cpu_count() or 1)
    assert system.worker_context("json").get_start_method() == "forkserver"
    assert system.READ_AT_ONCE & os.O_NONBLOCK
