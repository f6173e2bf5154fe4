"""Imports run one way: docs/design.md draws it, and this holds it."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from structure import find_modules, import_graph

WINGS = [  # each imports from those before it only
    "composer.base",
    "composer.dataset",
    "composer.compositing",
    "composer.recipe",
    "composer.fetching",
    "composer.sources",
    "composer.extraction",
    "composer.building",
    "composer.inspection",
    "trainer.metrics",
    "trainer.networks",
    "trainer.data",
    "trainer.inference",
    "trainer.evaluation",
    "trainer.training",
    "composer.console",
    "trainer.commands",
    "trainer.cli",
    "cli",
]
CONSOLE_ONLY = {"click", "rich"}


MODULES = find_modules(Path(__file__).parent.parent)
GRAPH = import_graph(MODULES)


# Who opens files to read them: all others call `open_regular` or what is made of it. The rest reads what it came with.
OPENERS = {"composer.base.files", "composer.base.storage"}
OWN_FILES = {"composer.base.pages", "composer.base.packages", "composer.base.settings", "composer.fetching.corpus",
             "trainer.networks.lite0", "trainer.networks.shipped"}  # fmt: skip


def wing(name: str) -> str | None:
    return next((wing for wing in WINGS if name == wing or name.startswith(wing + ".")), None)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_run_one_way(name: str) -> None:
    """A module imports from its own wing and those below it; only the console speaks to a terminal."""
    own = wing(name)
    if own is None:  # trainer/configs, and packages that hold nothing
        return
    for imported in GRAPH[name]:
        other = wing(imported)
        assert other is None or WINGS.index(other) <= WINGS.index(own), (
            f"{name} imports {imported}, which lies above it"
        )
    if WINGS.index(own) < WINGS.index("composer.console"):
        assert not GRAPH[name] & CONSOLE_ONLY


def opens_to_read(call: ast.Call) -> bool:
    """Tell a call that reads a path's file: a pipe would be waited for, a device read without end."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    modes = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    if name == "open":
        return not (call.args or call.keywords) or any(set(mode) <= set("rbt") for mode in modes)
    return isinstance(call.func, ast.Attribute) and name in {"read_text", "read_bytes", "imread", "fromfile"}


@pytest.mark.parametrize("name", sorted(MODULES.keys() - OPENERS - OWN_FILES))
def test_files_are_opened_in_one_place(name: str) -> None:
    """What is read may be anybody's: regular files only, and no more of them than is stated."""
    calls = [node for node in ast.walk(ast.parse(MODULES[name].read_text())) if isinstance(node, ast.Call)]
    assert not [ast.unparse(call) for call in calls if opens_to_read(call)]


def test_no_module_imports_itself_by_way_of_others() -> None:
    """There is no circle, not even one that a late import hides."""
    ours = {name: {other for other in found if other in MODULES and other != name} for name, found in GRAPH.items()}
    TopologicalSorter(ours).prepare()
