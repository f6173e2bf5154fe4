"""Imports run one way: docs/design.md draws it, and this holds it."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WINGS = [  # each imports from those before it only
    "composer.base",
    "composer.dataset",
    "composer.recipe",
    "composer.fetching",
    "composer.sources",
    "composer.compositing",
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
CONSOLE_ONLY = {"click"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def modules() -> dict[str, Path]:
    found = [ROOT / "cli.py", *(ROOT / "composer").rglob("*.py"), *(ROOT / "trainer").rglob("*.py")]
    facades = {"composer", "trainer"}  # they hand on what lies in every wing, when it is asked for
    return {name: path for path in found if (name := module_name(path)) not in facades}


def imports(name: str, path: Path, known: set[str]) -> set[str]:
    """List what a module imports, wherever in it: modules of ours by their dotted names, others by their first one."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1], *([node.module] if node.module else [])]
            for alias in node.names:
                inside = ".".join([*base, alias.name])
                found.add(inside if inside in known else ".".join(base))
    return found


MODULES = modules()
GRAPH = {name: imports(name, path, set(MODULES)) for name, path in MODULES.items()}


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
