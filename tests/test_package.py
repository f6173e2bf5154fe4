"""The package: what an index would get, and what a source distribution needs to test itself."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from conftest import make_once
from test_architecture import MODULES

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build both, once, by what is installed."""
    for name in ("build", "hatchling", "hatch_vcs", "hatch_fancy_pypi_readme"):
        pytest.importorskip(name, reason="the distributions need the 'dev' extra")

    def make(folder: Path) -> None:
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
        subprocess.run(command, check=True, capture_output=True)

    return make_once(tmp_path_factory, "distributions", make)


def metadata(distributions: Path) -> Message:
    with zipfile.ZipFile(next(distributions.glob("*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(wheel.read(name))


def test_a_wheel_holds_every_module_and_what_they_read(distributions: Path) -> None:
    """Modules, templates, recipes and weights, under one name; no tests, no docs."""
    with zipfile.ZipFile(next(distributions.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert {f"matting_compose/{path.relative_to(ROOT).as_posix()}" for path in MODULES.values()} <= names
    files = {
        path for top in ("composer", "trainer", "manifests") for path in (ROOT / top).rglob("*.*") if path.is_file()
    }
    data = {path for path in files if path.suffix not in (".py", ".pyc")}
    assert {f"matting_compose/{path.relative_to(ROOT).as_posix()}" for path in data} <= names
    assert {name.split("/")[0] for name in names} == {"matting_compose"}
    assert not [name for name in names if "tests/" in name or "docs/" in name or "__pycache__" in name]


def test_a_source_distribution_tests_itself(distributions: Path) -> None:
    """It holds what its tests read: docs, examples, benches, workflows, the Makefile."""
    with tarfile.open(next(distributions.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = [path for top in ("tests", "docs", "bench", "examples", ".github") for path in (ROOT / top).rglob("*.*")]
    wanted = {path.relative_to(ROOT).as_posix() for path in needed if path.is_file() and path.suffix != ".pyc"}
    assert wanted | {"Makefile", "mkdocs.yml", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"} <= names
    assert not [name for name in names if name.startswith("src/")]  # a link, which the Makefile makes


def test_an_index_would_take_them(distributions: Path) -> None:
    """twine finds no fault; no link of the README leads to a file beside it, and no address is invented."""
    pytest.importorskip("twine", reason="the check needs the 'dev' extra")
    from twine.commands.check import check

    assert not check([str(path) for path in sorted(distributions.iterdir())], strict=True)
    found = metadata(distributions)
    assert not re.search(r"\]\((?!https?:|#)", found.get_payload())
    assert found["Version"][0].isdigit()
    assert not found["Version"].startswith("0.0")
    assert not found.get_all("Project-URL")
