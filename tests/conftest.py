"""Small but true picture trees, and the command as a user runs it."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from browser import Browser, find_browser
from filelock import FileLock
from hypothesis import settings
from numpy.typing import NDArray
from PIL import Image

# Threads that wait for each other make training slow beside other work, and sums over more differ in the last bits.
os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"  # importing Numba sets torch's, too
# A shell that starts tests in the background has them, and what they start, ignore Ctrl-C, and nohup hang-ups.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):  # elsewhere than on Windows
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
settings.register_profile("untimed", deadline=None)  # beside other work, anything may take long
settings.load_profile("untimed")

Array = NDArray[np.uint8]
COMMAND = Path(sys.executable).parent / "matting-compose"


def soft_disc(height: int, width: int, seed: int) -> tuple[Array, Array]:
    """Draw a textured disc with a soft rim: a foreground (H, W, 3) RGB and its alpha (H, W)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(y - height * rng.uniform(0.4, 0.6), x - width * rng.uniform(0.4, 0.6))
    alpha = np.clip((min(height, width) * 0.35 - distance) / 6 + 0.5, 0, 1)
    colour = cv2.resize(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(colour, np.uint8), np.rint(alpha * 255).astype(np.uint8)


def photograph(height: int, width: int, seed: int) -> Array:
    """Draw something as smooth and as noisy as a photograph, (H, W, 3) RGB."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 5, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 3, (height, width, 1)), 0, 255).astype(np.uint8)  # grain is of luminance


def save(path: Path, picture: Array) -> None:
    """Write a picture (H, W[, 3 or 4]) RGB(A) in the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    orders = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    ordered = picture if picture.ndim == 2 else cv2.cvtColor(picture, orders[picture.shape[2]])
    assert cv2.imwrite(str(path), ordered)


@dataclass(frozen=True)
class Pictures:
    """A tree of cut-outs and photographs."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> Pictures:
        """Draw five cut-outs of different sizes and seven photographs, some smaller than the cut-outs."""
        tree = cls(root)
        photos = [(60, 80), (240, 320), (100, 400), (333, 250), (70, 70), (512, 300), (99, 101)]
        for i, (height, width) in enumerate([(90, 70), (64, 120), (200, 210), (75, 75), (130, 48)]):
            foreground, alpha = soft_disc(height, width, i)
            save(tree.cutouts / f"disc {i}.png", np.dstack([foreground, alpha]))
        for i, (height, width) in enumerate(photos):
            save(tree.photos / f"COCO_{i:012d}.jpg", photograph(height, width, 100 + i))
        return tree

    @property
    def cutouts(self) -> Path:
        return self.root / "cutouts"

    @property
    def photos(self) -> Path:
        return self.root / "photos"

    def arguments(self, out: Path, *more: str) -> list[str]:
        """Return a build's arguments, small shards so that there are several."""
        return [
            "build", "--foregrounds", str(self.cutouts), "--backgrounds", str(self.photos), "--out", str(out),
            "--variants", "4", "--set", "shards.variants=2", *more,
        ]  # fmt: skip


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder that `make` fills once for all processes that test. To be read only."""
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, made = base / name, base / f"{name}.made"
    with FileLock(base / f"{name}.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


@pytest.fixture(autouse=True)
def _one_thread_of_torch() -> None:
    """Sum in one order: numba's first parallel loop, pymatting's, sets OpenMP's threads for torch, too."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    """Make five cut-outs of different sizes and seven photographs, some smaller than the cut-outs."""
    return Pictures.make(tmp_path / "pictures")


def make_finished(folder: Path) -> None:
    """Build that tree, complete, backgrounds stored whole."""
    tree = Pictures.make(folder / "pictures")
    more = ["--set", "shards.tile=48", "--set", "shards.background=full", "--set", 'split.validation=["disc 1"]']
    done = call(*tree.arguments(folder / "pictures" / "dataset", *more, "-j", "1"))
    assert done.code == 0, done.err


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build that tree once, complete, backgrounds stored whole. To be read only: see `copied`."""
    return make_once(tmp_path_factory, "finished", make_finished) / "pictures" / "dataset"


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """Copy the finished dataset, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "dataset"))


@pytest.fixture(scope="session")
def whole(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train on that dataset once, in one go. To be read only."""
    pytest.importorskip("torch", reason="training needs the 'train' extra")
    from runs import tiny, train_in_process

    def make(folder: Path) -> None:
        outcome = train_in_process(finished, folder / "run", tiny())
        assert (outcome.step, outcome.stopped) == (7, False)

    return make_once(tmp_path_factory, "whole", make) / "run"


@pytest.fixture(scope="session")
def one_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Start a browser for all tests; without one, they are skipped."""
    executable = find_browser()
    if executable is None:
        pytest.skip("no Chromium or Chrome is installed (apt-get install chromium): pages are not opened")
    with Browser(executable, tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def page(one_browser: Browser) -> Browser:
    """Give an empty page of 1280 px in light colours, of which nothing is known yet."""
    one_browser.open("about:blank")
    one_browser.resize(1280, 900)
    one_browser.prefer("light")
    one_browser.requests.clear()
    one_browser.errors.clear()
    return one_browser


@dataclass(frozen=True)
class Cluster:
    """A scheduler and its workers, each a process."""

    address: str
    workers: list[subprocess.Popen[bytes]]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start a Dask scheduler and three workers, which run elsewhere than the builds."""
    folder = tmp_path_factory.mktemp("cluster")
    file = folder / "scheduler.json"

    def start(what: str, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--scheduler-file", str(file), *more]
        with (folder / "log").open("ab") as log:
            return subprocess.Popen([*command, "--no-dashboard"], stdout=log, stderr=log, cwd=folder)

    scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0")
    workers = [start("worker", "--no-nanny", "--nthreads", "1", "--host", "127.0.0.1") for _ in range(2)]
    try:
        deadline = time.monotonic() + 120
        while (folder / "log").read_text().count("Registered to") < 2:
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)
        yield Cluster(json.loads(file.read_text())["address"], workers)
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def bucket() -> Iterator[Any]:
    """Serve S3 on this machine, and give a bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "testing")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        try:
            environment.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
            yield boto3.resource("s3").create_bucket(Bucket="bucket")
        finally:
            server.stop()


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


def run(*arguments: str, cwd: Path | None = None) -> Ran:
    """Run `matting-compose` as a user does."""
    done = subprocess.run([str(COMMAND), *arguments], cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


def call(*arguments: str, cwd: Path | None = None) -> Ran:
    """Run the same command in this process: quicker by what its imports take."""
    from click.testing import CliRunner

    from matting_compose.cli import compose

    with contextlib.chdir(cwd or Path.cwd()):
        done = CliRunner().invoke(compose, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Ran(done.exit_code, done.stdout, done.stderr)


def page_data(page: Path) -> dict[str, Any]:
    """Read what a page gives its script."""
    text = page.read_text(encoding="utf-8").partition('id="data">')[2].partition("</script>")[0]
    value = json.loads(text)
    assert isinstance(value, dict)
    return value


def decode_webp(webp: str) -> Array:
    """Decode a picture that lies in a page."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(webp))))


def shard_bytes(out: Path) -> dict[str, bytes]:
    """Read every shard and sidecar of a dataset."""
    return {path.name: path.read_bytes() for path in sorted((out / "shards").glob("shard-*"))}
