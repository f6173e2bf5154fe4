"""Docstrings: their examples run."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from matting_compose.composer.base.registry import Registry
from test_architecture import MODULES

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
WITH_EXAMPLES = sorted(name for name, path in MODULES.items() if ">>> " in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example in a docstring gives what stands below it."""
    if name.startswith("trainer"):
        pytest.importorskip("torch", reason="training needs the 'train' extra")
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"matting_compose.{name}")
    for registry in (value for value in vars(module).values() if isinstance(value, Registry)):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))  # other tests do not see what examples add
    outcome = doctest.testmod(module, optionflags=FLAGS)
    assert not outcome.failed
