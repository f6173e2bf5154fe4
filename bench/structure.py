"""How the program is built: modules, imports between them, the longest chain of imports, lines of each kind.

    python bench/structure.py
    python bench/structure.py before/ after/

Of each folder, this repository by default, every Python file below `composer/`, `trainer/` and `cli.py` is parsed, none
is run. An import counts once for two modules, wherever in a module it stands. The packages `composer` and `trainer`
themselves are left out: they hand on what lies in others when it is asked for. A line of code is one that is neither
empty nor only a comment nor part of a docstring.
"""

from __future__ import annotations

import argparse
import ast
from collections import Counter
from functools import cache
from pathlib import Path

Graph = dict[str, set[str]]


def find_modules(root: Path) -> dict[str, Path]:
    """Return the modules of a repository by their dotted names."""
    paths = [root / "cli.py", *(root / "composer").rglob("*.py"), *(root / "trainer").rglob("*.py")]
    named = {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    return {name: path for name, path in named.items() if name not in ("composer", "trainer")}


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


def import_graph(modules: dict[str, Path]) -> Graph:
    """Return what each module imports."""
    return {name: imports(name, path, set(modules)) for name, path in modules.items()}


def longest_chain(graph: Graph) -> list[str]:
    """Return the longest way down from import to import; one that closes a circle is not followed."""

    @cache
    def below(name: str) -> tuple[str, ...]:
        if name in walked:
            return ()
        walked.add(name)
        ways = [below(other) for other in sorted(graph[name]) if other in graph and other != name]
        walked.discard(name)
        return (name, *max(ways, key=len, default=()))

    walked: set[str] = set()
    return list(max((below(name) for name in graph), key=len))


def count_lines(path: Path) -> Counter[str]:
    """Count a file's lines of code, comments and docstrings."""
    text = path.read_text(encoding="utf-8")
    inside: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and ast.get_docstring(node):
                inside |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    counts: Counter[str] = Counter()
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            counts["docstrings" if number in inside else "comments" if line.lstrip()[0] == "#" else "code"] += 1
    return counts


def measure(root: Path) -> dict[str, str]:
    """Return a repository's figures by their names."""
    modules = find_modules(root)
    graph = import_graph(modules)
    counts = sum((count_lines(path) for path in modules.values()), Counter[str]())
    chain = longest_chain(graph)
    figures = {
        "modules": len(modules),
        "packages": sum(path.name == "__init__.py" for path in modules.values()),
        "imports between modules": sum(len((found & graph.keys()) - {name}) for name, found in graph.items()),
        "most imports of one module": max(len(found & graph.keys()) for found in graph.values()),
        "longest chain of imports": len(chain),
        "lines of code": counts["code"],
        "lines of comments": counts["comments"],
        "lines of docstrings": counts["docstrings"],
        "lines of code, tests": sum(count_lines(path)["code"] for path in (root / "tests").rglob("*.py")),
        "lines of code, bench": sum(count_lines(path)["code"] for path in (root / "bench").glob("*.py")),
        "lines of docs": sum(
            len(p.read_text().splitlines()) for p in [root / "README.md", *(root / "docs").glob("*.md")]
        ),
    }
    return {name: f"{value:,}" for name, value in figures.items()} | {"that chain": " → ".join(chain)}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roots", nargs="*", type=Path, default=[Path(__file__).resolve().parent.parent])
    columns = {str(root): measure(root) for root in parser.parse_args().roots}
    print("|", *columns, sep=" | ", end=" |\n" + "|---" * (len(columns) + 1) + "|\n")
    for name in next(iter(columns.values())):
        print(f"| {name}", *(figures[name] for figures in columns.values()), sep=" | ", end=" |\n")


if __name__ == "__main__":
    main()
