"""Extensions: a package beside this one adds one of each kind, with the code that docs/contributing.md gives."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from conftest import Pictures, Ran
from matting_compose.composer import open_dataset
from structure import find_modules

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```\w+\n# (my_matting/\w+\.py|pyproject\.toml)\n(.*?)^```", re.DOTALL | re.MULTILINE)
FILES = dict(BLOCK.findall(PAGE))
ENTRY_POINTS = tomllib.loads(FILES.pop("pyproject.toml"))["project"]["entry-points"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the page's package: its modules, and the metadata that pip writes beside them."""
    site = tmp_path_factory.mktemp("site")
    metadata = site / "my_matting-1.0.dist-info"
    for folder in (site / "my_matting", metadata):
        folder.mkdir()
    for name, code in FILES.items():
        (site / name).write_text(code)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-matting\nVersion: 1.0\n")
    lines: list[str] = []
    for group, found in ENTRY_POINTS.items():
        lines += [f"[{group}]", *(f"{name} = {entry}" for name, entry in found.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    return site


def run(site: Path, program: str, *arguments: str) -> Ran:
    """Run a command where that package is installed."""
    command = [str(Path(sys.executable).parent / program), *arguments]
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def dataset(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a dataset by the package's packing, trimap strategy and fit method, by two processes."""
    tree = Pictures.make(tmp_path_factory.mktemp("extensions") / "pictures")
    arguments = tree.arguments(tree.root / "dataset", "--set", 'split.validation=["disc 1"]', "-j", "2")
    settings = ("shards.packing=strong", "trimap.strategy=band", "fit.method=stretch")
    run(site, "matting-compose", *arguments, *(f"--set={setting}" for setting in settings))
    return tree.root / "dataset"


@pytest.fixture(scope="module")
def trained(site: Path, dataset: Path) -> Path:
    """Train the package's network by its loss."""
    pytest.importorskip("torch", reason="training needs the 'train' extra")
    settings = ("network.name=tiny", "network.width=4", "losses={huber=1}", "stream.crop=32", "stream.sizes=[32]",
                "stream.batch=2", "validation.limit=2", "log_every=1", 'trackers=["lines"]')  # fmt: skip
    out = dataset.parent / "run"
    more = [f"--set={setting}" for setting in settings]
    run(site, "matting-train", str(dataset), "--out", str(out), "--steps=2", "--device=cpu", *more)
    return out


def test_the_page_shows_one_of_each() -> None:
    """Every registry that takes entry points has an example, none of more than twelve lines of code."""
    sources = find_modules(ROOT).values()
    registry = re.compile(r'^[A-Z].* = Registry\(\s*"[\w ]+",\s*"(matting_compose\.\w+)"', re.MULTILINE)
    assert ENTRY_POINTS.keys() == {group for path in sources for group in registry.findall(path.read_text())}
    for name, code in FILES.items():
        statements = [line for line in code.splitlines() if line.strip() and "import" not in line]
        assert len(statements) <= 12, name


def test_a_packing_a_trimap_strategy_and_a_fit_method(site: Path, dataset: Path) -> None:
    """Shards hold what they made, and are verified: every tile is read back, and composites are made again."""
    recipe = json.loads((dataset / "dataset.json").read_text())["recipe"]
    found = recipe["shards"]["packing"], recipe["trimap"]["strategy"], recipe["fit"]["method"]
    assert found == ("strong", "band", "stretch")
    run(site, "matting-compose", "inspect", str(dataset), "--verify", "-j", "2")


def test_sources(site: Path, dataset: Path, tmp_path: Path) -> None:
    """A recipe's tables are checked by them, and composites are made of their pictures."""
    (tmp_path / "r.toml").write_text(
        'variants = 3\nbackgrounds = {layout = "grey"}\n'
        f'foregrounds = {{layout = "chosen", root = "{dataset.parent / "cutouts"}", suffix = "2"}}'
    )
    run(site, "matting-compose", "build", str(tmp_path / "r.toml"), "--out", str(tmp_path / "d"), "-j", "2")
    samples = list(open_dataset(tmp_path / "d"))
    assert {sample.row.foreground for sample in samples} == {"disc 2"}
    assert {int(sample.image[sample.alpha == 0][0, 0]) for sample in samples} == {0, 128, 255}


def test_a_dataset_of_a_packing_that_is_not_installed(dataset: Path) -> None:
    """Without the package the error says which packing is missing."""
    with pytest.raises(Exception, match="strong"):
        open_dataset(dataset)[0]


def test_a_network_and_a_loss(trained: Path) -> None:
    """A run's lines name the loss, and its checkpoint the network."""
    import torch

    assert "huber" in (trained / "metrics.jsonl").read_text()
    assert torch.load(trained / "last.pt", weights_only=True)["network"]["name"] == "tiny"


def test_a_tracker(trained: Path) -> None:
    """It is told each line, and the panels."""
    text = (trained / "lines.txt").read_text()
    assert "1 train/losses/huber " in text
    assert " panel (" in text


def test_a_metric(site: Path, dataset: Path, trained: Path, tmp_path: Path) -> None:
    """Validation and evaluation report it, of the package's network."""
    assert '"mad"' in (trained / "metrics.jsonl").read_text()
    graded = ("--checkpoint", str(trained / "last.pt"), "--dataset", str(dataset), "--limit", "2", "-j", "1")
    run(site, "matting-evaluate", *graded, "-o", str(tmp_path / "scores"))
    assert any("mad" in path.read_text() for path in (tmp_path / "scores").glob("*.csv"))
