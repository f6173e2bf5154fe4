"""The docs: every command and every line of Python in them is executed, as written."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import traceback
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from adobe_tree import make_adobe
from conftest import COMMAND, Cluster, make_once, photograph, save, soft_disc
from matting_compose.composer.compositing.blending import blend
from matting_compose.composer.fetching.corpus import load_corpus
from packages import write_corpus
from portrait_trees import make_portrait_sets
from structure import find_modules

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOTEBOOK = ROOT / "examples" / "tutorial.ipynb"

# Long commands are executed as written but for their length; what open431 fetches and builds has its names, but tiny
# packages of drawn pictures stand in for Debian's.
SHORTER = {
    "--out dim431": "--out dim431 --set foregrounds.list=two.txt",
    "--out composition-1k": "--out composition-1k --set foregrounds.list=two.txt",
    "matting-evaluate ": "matting-evaluate --jobs 1 ",
    "--every 4 --rounds 2": "--every 2 --rounds 1 --variants 2",
    "--every 8 --set variants=50": "--every 2 --workers 2 --rounds 1 --set variants=2",
    "--every 4 --set variants=50": "--every 2 --rounds 1 --set variants=2",
    "bench/commands.py --rounds 10": "bench/commands.py --rounds 1 'matting-compose --help'",
    "--variants 1 10 --set": "--variants 1 --batches 2 --set",
    "--backgrounds 82783": "--backgrounds 9 --rounds 1",
    "--kills 15 --forks 220 --disks 20 --memories 10 --twice 5": "--kills 1 --forks 1 --disks 0 --memories 0 --twice 0",
    "--out broken --rounds 40": "--out broken --rounds 0 --only fetch",
    "fuzz.py --seconds 60": "fuzz.py names sums --blind --seconds 0",
    "--foregrounds 50000": "--foregrounds 500",
    "bench/stream.py": "bench/stream.py --variants 2 --batch 4 --crop 64 --rounds 1 --seconds 0 --workers",
    "bench/gpu.py": "bench/gpu.py --device cpu --networks mnet:width=0.03 --crops 64 --batches 2 --cores 1"
    " --compile-box 0 --seconds 0 --variants 1",
    "bench/endpoint.py many --latency 50 --megabytes 20 50 --errors 0 0.05 --step 0.08": "bench/endpoint.py dataset"
    " --latency 1 --megabytes 100 --errors 0.1 --step 0 --crop 64 --workers 0",
    "bench/step.py --config cpu-small --rounds 9": "bench/step.py --config demo --set network.width=0.03"
    " --set stream.crop=32 --ways float32 --rounds 2",
    "--config cpu-small --rounds 16 --steps 4": "--config demo --rounds 2 --steps 1",
    "--crop 320 --rounds 5": "--crop 64 --crops 8 --rounds 1",
    "--composites 32 --rounds 3 --plot pareto.svg": "--composites 2 --rounds 1",
    "--out readme-pictures": "--out readme-pictures --side 64",
    "fetch open431": "fetch open431.csv --packages debs/",
    "build open431": "build open431 --variants 1",
    "--set shards.packing=solid --out mine": "--set shards.packing=solid --set variants=4 --out mine",
    "--rounds 15 --steps 10": "--rounds 3 --steps 1",
    "--config my-training.toml --dry-run": "--config my-training.toml --dry-run --set network.width=0.1",
    "bench/networks.py --crop 160 --batch 8": "bench/networks.py mnet:width=0.03 --crop 32",
    "--megapixels 2 --rounds 5": "--megapixels 0.1 --rounds 1",
    "--out demo-run": "--out demo-run --steps 2 --set validation.limit=1",
    "--steps 2000 --set stream.batch=4": "--steps 1 --set validation.limit=1 --set network.width=0.1",
    "run --config modern": "run --config demo --steps 2 --set validation.limit=1",
    "--out run-own": "--out run-own --steps 1 --set stream.batch=2 --set validation.limit=1",
    "--out run-two": "--out run-two --steps 1 --set stream.batch=2 --set validation.limit=1 --set network.width=0.1",
    "--out from-bucket --config cpu-small": "--out from-bucket --config cpu-small --steps 1 --set stream.batch=2"
    " --set network.width=0.1",
    "--out dim-run": "--out dim-run --steps 1 --set validation.limit=1 --set network.width=0.1 --set stream.batch=2"
    " --set network.encoder=random --set stream.workers=0 --set stream.crop=32 --set stream.sizes=[32]",
    "--out tuned --config cpu-small": "--out tuned --config cpu-small --steps 1 --set stream.batch=2"
    " --set validation.limit=1 --set network.width=0.1",
    "--out tuned --config default": "--out tuned --config default --set stream.batch=2 --set stream.crop=160"
    " --set validation.limit=1",
    "--out own --config default": "--out own --config default --set stream.batch=2 --set validation.limit=1",
    "--steps 500 --set optimiser": "--steps 1 --set optimiser",
    "--resume --steps 2500": "--resume --steps 2",
    "build portrait-demo --out portraits": "build portrait-demo --out portraits --variants 1"
    " --set foregrounds.0.count=8 --set foregrounds.1.count=2 --set backgrounds.count=4",
    "--config shm-tnet-small": "--config shm-tnet-small --steps 1 --set stream.batch=2 --set stream.crop=64"
    " --set network.encoder=random --set validation.limit=1",
    "--config shm-mnet-small": "--config shm-mnet-small --steps 1 --set stream.batch=2 --set validation.limit=1",
    "--config shm-small": "--config shm-small --steps 1 --set stream.batch=2 --set validation.limit=1",
    "--nproc-per-node 8": "--local-addr 127.0.0.1 --nproc-per-node 2",
    "--out run8": "--out run8 --config cpu-small --steps 1 --set network.width=0.03 --set stream.crop=64 --device cpu",
}


def blocks(language: str) -> list[tuple[str, str]]:
    """Return the fenced blocks of a language, with the page they stand on."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.DOTALL | re.MULTILINE)
    return [(name(page), block) for page in PAGES for block in pattern.findall(page.read_text(encoding="utf-8"))]


def name(page: Path) -> str:
    """Return a page's place below docs/."""
    return page.relative_to(ROOT / "docs").as_posix() if page != PAGES[0] else page.name


def commands() -> list[tuple[str, str]]:
    """Return every command line."""
    lines = [(page, line.partition("  #")[0].strip()) for page, block in blocks("sh") for line in block.splitlines()]
    return [(page, line) for page, line in lines if line]


# What several pages take up: each is run once, before them, and each page goes on with a copy.
SHARED = (
    "matting-compose build demo --out demo",
    "matting-compose build --foregrounds cutouts/ --backgrounds photos/ --variants 100 --out dataset",
    "matting-compose recipes demo > my.toml",
    "matting-compose extract fg/ --alphas alpha/ --out extracted",
    "matting-compose fetch open431",
)


COMMANDS_OF_PACKAGE = {entry.name: entry for entry in distribution("matting-compose").entry_points}


def execute(page: str, line: str, folder: Path, cluster: Cluster | None = None) -> None:
    """Run a command line as a reader of the page does: by a shell where it takes one, otherwise within this process."""
    environment = {
        "PATH": f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}", "GLOO_SOCKET_IFNAME": "lo",
        "MATTING_COMPOSE_CACHE": str(folder / "cache"),
    }  # fmt: skip
    if cluster:
        line = line.replace("tcp://127.0.0.1:8786", cluster.address)
    for long, short in SHORTER.items():
        line = line.replace(long, short)
    words = shlex.split(line)
    while "=" in words[0]:  # PYTHONPATH=examples, which here is on the path
        words.pop(0)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        # Workers are used again by the next line: those of a bucket must have been told of its server.
        if words[0] not in COMMANDS_OF_PACKAGE or set("&();<>|") & set(line) or "s3://" in line:
            done = subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True, check=False)
            code, told = done.returncode, done.stderr
        else:
            patch.chdir(folder)
            result = CliRunner().invoke(COMMANDS_OF_PACKAGE[words[0]].load(), words[1:])
            code, told = result.exit_code, result.output + "".join(traceback.format_exception(result.exception))
    assert code == 0, f"{page}: {line}\n{told}"


def make_shared(folder: Path) -> None:
    """Make what the docs speak of: cut-outs, pairs, photographs, Adobe's data, a network; run the shared commands."""
    for i in range(3):
        foreground, alpha = soft_disc(80, 90, i)
        save(folder / "cutouts" / f"{i}.png", np.dstack([foreground, alpha]))
        save(folder / "fg" / f"{i}.jpg", foreground)
        save(folder / "alpha" / f"{i}.png", alpha)
    make_portrait_sets(folder, 1)
    for i in range(4):
        save(folder / "photos" / f"{i}.jpg", photograph(120, 160, i))
    for name in ("bench", "examples"):
        (folder / name).symlink_to(ROOT / name)
    adobe = make_adobe(folder)
    for root, names in ((adobe.training, adobe.training_names), (adobe.test, adobe.test_names)):
        (root / "two.txt").write_text("\n".join(names[:2]))
    (folder / "elsewhere").symlink_to("dataset")  # another copy of what the README builds
    write_open431(folder)
    write_coco(folder)
    write_matting(folder)
    for line in SHARED:
        execute("shared", line, folder)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make it once for all processes that test. To be read only."""
    return make_once(tmp_path_factory, "docs", make_shared)


MANY = ("Combined_Dataset", "VOCdevkit", "debs", "train2014")  # files, which nothing writes


def copy_shared(shared: Path, folder: Path) -> Path:
    """Copy it, to be worked on, but for folders of many files: these are linked."""
    shutil.copytree(shared, folder, symlinks=True, ignore=shutil.ignore_patterns(*MANY))
    for name in MANY:
        (folder / name).symlink_to(shared / name)
    return folder


def write_coco(folder: Path) -> None:
    """Write a few of COCO's photographs, one of them with a person, and what is on them."""
    rows = [{"id": i, "file_name": f"{i:012d}.jpg", "width": 160, "height": 120} for i in range(9, 14)]
    for row in rows:
        save(folder / "train2017" / str(row["file_name"]), photograph(120, 160, int(row["id"])))
    shown = [{"id": 1, "image_id": 9, "category_id": 1}]
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}]
    (folder / "annotations").mkdir()
    document = {"images": rows, "annotations": shown, "categories": categories}
    (folder / "annotations" / "instances_train2017.json").write_text(json.dumps(document))


def write_matting(folder: Path) -> None:
    """Make a trained network, and what it is used and graded on."""
    pytest.importorskip("torch", reason="the pages on training need the 'train' extra")
    from matting_compose.trainer import SHM, TNet
    from matting_compose.trainer.networks.checkpoint import export_safetensors
    from small_networks import checkpoint, lively

    checkpoint(folder / "best.pt", lively(width=0.03, decoder="resize"))
    tnet, mnet = TNet(encoder="lite0").eval(), lively()
    for name, network in (("tnet", tnet), ("mnet", mnet), ("shm", SHM(tnet, mnet))):
        export_safetensors(network, folder / f"{name}.safetensors")
    for i in range(2):
        foreground, alpha = soft_disc(60, 70, i)
        image = blend(foreground, alpha, photograph(60, 70, i))
        trimap = np.where(alpha % 255 > 0, 128, alpha).astype(np.uint8)
        parts = {"images": image, "alphas": alpha, "masks": alpha, "trimaps": trimap, "paper": alpha}
        for name, part in parts.items():
            save(folder / name / f"{i}.png", part)
    save(folder / "photo.jpg", image)
    save(folder / "mask.png", alpha)
    save(folder / "trimap.png", trimap)
    save(folder / "beach.jpg", photograph(100, 90, 7))


def write_open431(folder: Path) -> None:
    """Make a corpus with open431's names, of packages with tiny pictures."""
    packages: dict[str, dict[str, tuple[str, bytes]]] = {}
    for number, picture in enumerate(load_corpus("open431").pictures):
        colour, alpha = soft_disc(20, 24, number)
        cutout = picture.name.startswith("cutouts/")
        _, data = cv2.imencode(".png", np.dstack([colour, alpha]) if cutout else colour)
        packages.setdefault(picture.package, {})[picture.name] = (picture.path, data.tobytes())
    write_corpus(folder, "open431", packages)


def test_make_targets_set_everything_up() -> None:
    """`make demo` and `make test` make the environment that they need before they use it."""
    stages = {
        "demo": ["-m venv .fresh", "install", "matting-compose build demo", "install", "matting-train demo"],
        "test": ["-m venv .fresh", "install", "python -m pytest"],
    }
    for target, stage in stages.items():
        plan, place = planned(target), 0
        for step in stage:
            place = plan.index(step, place) + 1


def planned(target: str) -> str:
    """Return what make would do for a target, were nothing there."""
    command = ["make", "--dry-run", "--always-make", target, "VENV=.fresh"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def commands_of_pages() -> dict[str, list[str]]:
    """Return the commands of each page, those of `make demo` first; one that comes again belongs to the first page."""
    demo = [line.removeprefix(".fresh/bin/") for line in planned("demo").splitlines() if "/bin/matting-" in line]
    pages: dict[str, list[str]] = {}
    seen = {"make demo", "make test"}  # the one is a page of its own here, the other is what is running
    for page, line in [("make demo", line) for line in demo] + commands():
        if line not in seen:
            seen.add(line)
            pages.setdefault(page, []).append(line)
    assert seen >= set(SHARED)
    return pages


COMMANDS = commands_of_pages()


@pytest.mark.filterwarnings("ignore")  # a reader is told; raised in a thread of loky's, one would end its work
@pytest.mark.parametrize("page", COMMANDS)
def test_every_command_runs(page: str, shared: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The commands of a page, in order, in one folder: each exits with 0."""
    lines = [line for line in COMMANDS[page] if line not in SHARED]
    cluster = request.getfixturevalue("cluster") if any("--cluster" in line for line in lines) else None
    if any("s3://" in line for line in lines):
        request.getfixturevalue("bucket")
    folder = copy_shared(shared, tmp_path / "folder")
    for found, block in blocks("toml"):
        if found == page and (file := re.match(r"# (\w+\.toml)\n", block)):
            (folder / file[1]).write_text(block)
    for line in lines:
        execute(page, line, folder, cluster)
    if page == "make demo":
        assert len(list((folder / "demo" / "shards").glob("*.h5"))) >= 8
        assert (folder / "demo-run" / "index.html").exists()


def test_pages_have_commands() -> None:
    """They are found in most pages."""
    assert len(COMMANDS) >= 10


@pytest.mark.filterwarnings("ignore")  # the advice of Lightning and others
def test_every_line_of_python_runs(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python of all pages, from top to bottom, on the demo that the README's first command builds."""
    monkeypatch.chdir(copy_shared(shared, tmp_path / "folder"))
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network for newer versions of itself
    names: dict[str, object] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for page, block in blocks("python"):
            exec(compile(block, page, "exec"), names)
    assert printed.getvalue().startswith("480 ")


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells, from top to bottom, with fewer steps; it comes without outputs."""
    pytest.importorskip("torch", reason="the notebook trains")
    monkeypatch.chdir(tmp_path)
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells)
    source = "\n".join("".join(cell["source"]) for cell in cells)
    for long, short in {"steps=200": 'stream.workers=0", "steps=1', "limit=4": "limit=1"}.items():
        source = source.replace(long, short)
    names: dict[str, Any] = {}
    exec(compile(source, NOTEBOOK.name, "exec"), names)
    assert names["alpha"].shape == names["sample"].alpha.shape


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Every page with its links and anchors, the README first, and both references."""
    pytest.importorskip("mkdocs", reason="the site needs the 'docs' extra")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    site = tmp_path / "site"
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(site)))  # strict: a warning is an error
    pages = [site / name(page).removesuffix(".md").removesuffix("/index") / "index.html" for page in PAGES[1:]]
    assert all(page.exists() for page in pages)
    assert "From a few hundred hand-made mattes" in (site / "index.html").read_text(encoding="utf-8")
    commands, python = ((site / "reference" / name / "index.html").read_text() for name in ("commands", "python"))
    assert all(text in commands for text in ("matting-compose convert", "--dry-run", "matting-evaluate"))
    assert "<pre><code>  matting-compose convert dataset -o pictures --to png" in commands
    assert "Sentinel" not in commands
    assert all(text in python for text in ("open_dataset", "load_network", "MattingNetwork", "Parameters"))


def test_recipes_in_the_docs_are_recipes(tmp_path: Path) -> None:
    """Every TOML block but a package's own settings parses: as a recipe, or as a configuration of a training."""
    from matting_compose.composer.recipe import load_recipe

    found = [(page, block) for page, block in blocks("toml") if "[project." not in block]
    for number, (page, block) in enumerate(found):
        path = tmp_path / f"block{number}.toml"
        path.write_text(block)
        if page == "training.md":
            from matting_compose.trainer.training.config import load_config

            load_config(path)
        else:
            load_recipe(path)


def test_every_key_is_documented() -> None:
    """docs/recipes.md names every key that a recipe may have, and every choice of a value."""
    from matting_compose.composer import recipe
    from matting_compose.composer.compositing.blending import METHODS
    from matting_compose.composer.compositing.trimaps import STRATEGIES
    from matting_compose.composer.dataset.packings import PACKINGS

    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    tables = [recipe.Fit, recipe.Pairing, recipe.Looks, recipe.Scenes, recipe.Trimap, recipe.Shards, recipe.Split]
    tables += [source.table for sources in recipe.SOURCES.values() for source in sources.values()]
    for table in tables:
        for key, field in table.model_fields.items():
            assert f"`{key}`" in text, f"{table.__name__}.{key}"
            for choice in getattr(field.annotation, "__args__", ()):
                if isinstance(choice, str):
                    assert f"`{choice}`" in text, f"{key} = {choice}"
    for registry in (STRATEGIES, METHODS, PACKINGS):
        for name in registry:
            assert f"`{name}`" in text, f"{registry.kind} {name}"


def test_every_key_of_training_is_documented() -> None:
    """docs/training.md names every key of a configuration, every choice of a value, and what is shipped."""
    from matting_compose.trainer.training import config

    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    names = [*config.list_configs(), *config.LOSSES]
    tables = [config.Config, config.NetworkTable, config.StreamTable, config.Augment, config.OptimiserTable,
              config.ValidationTable]  # fmt: skip
    for table in tables:
        for key, field in table.model_fields.items():
            names += [key, *(c for c in getattr(field.annotation, "__args__", ()) if isinstance(c, str))]
    for name in names:
        assert re.search(rf"`\[?([a-z]+\.)?{name}\]?`", text), name


def test_every_module_has_its_line() -> None:
    """docs/design.md names every module, and none that is not there."""
    named = re.findall(r"`([a-z_0-9]+)(?:\.py)?`", (ROOT / "docs" / "design.md").read_text(encoding="utf-8"))
    modules = {name.rpartition(".")[2] for name, path in find_modules(ROOT).items() if path.name != "__init__.py"}
    assert set(named) - {"matting_compose"} == modules - {"cli", "commands"}


def links(page: Path) -> set[Path]:
    """Return the files that a page links to."""
    targets = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    return {(page.parent / target).resolve() for target in targets if "://" not in target}


def test_links_and_pictures_exist() -> None:
    """No link within the docs leads nowhere."""
    for page in PAGES:
        for target in links(page):
            assert target.exists(), f"{name(page)}: {target}"


def test_no_page_is_an_orphan() -> None:
    """Nobody has to find one by chance: the README names all pages but those of tasks, which a page of theirs names."""
    tasks = ROOT / "docs" / "how-to" / "index.md"
    assert set(PAGES[1:]) <= links(PAGES[0]) | links(tasks)
    assert {page for page in PAGES[1:] if page.parent.name != "how-to"} | {tasks} <= links(PAGES[0])


def test_help_is_quick() -> None:
    """Help imports neither HDF5 nor OpenCV nor torch."""
    code = "import sys, matting_compose.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"h5py", "cv2", "torch", "numpy", "pydantic"} & set(loaded)


def test_composing_needs_no_torch() -> None:
    """Nothing that composes or reads imports torch."""
    code = "import sys; from matting_compose.composer.building import build, dry_run; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "torch" not in loaded
    assert shutil.which("matting-compose", path=str(COMMAND.parent))


def test_robustness_names_tests_that_are_there() -> None:
    """Each claim of docs/robustness.md names what fails without it."""
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")))
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 40
    assert not {name for name in named if f"def {name}(" not in tests}
