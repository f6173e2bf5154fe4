"""Imports run one way: docs/design.md draws it, and this holds it."""

from __future__ import annotations

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


def test_no_module_imports_itself_by_way_of_others() -> None:
    """There is no circle, not even one that a late import hides."""
    ours = {name: {other for other in found if other in MODULES and other != name} for name, found in GRAPH.items()}
    TopologicalSorter(ours).prepare()
