"""Make the weights of ``--method refined`` again: crops, classical mattes of them, a training.

    python bench/refined.py mattes model/open431 model/drawn=0.6 --out model/mattes
    python bench/refined.py train model/mattes -o model/refined.safetensors

Both go on where they were stopped; the second prints mean error and mean square over unknown pixels of crops that it
does not train on. Crops are those of the configuration `default-wide`, but larger, so that the algorithms
see something; those whose trimap lacks known foreground or background are left out.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch

from matting_compose.composer.base.arrays import UInt8Array
from matting_compose.composer.base.files import atomic_write, file_sha256
from matting_compose.composer.base.workers import run_in_processes
from matting_compose.composer.console.terminal import handle_errors
from matting_compose.composer.dataset.rows import UNKNOWN
from matting_compose.trainer.data.stream import Batch, open_stream
from matting_compose.trainer.inference.methods import MatteError, MatteOptions, make_matte, to_bytes
from matting_compose.trainer.networks.checkpoint import export_safetensors
from matting_compose.trainer.networks.fusion import MATTES
from matting_compose.trainer.networks.shipped import WEIGHTS
from matting_compose.trainer.training.config import Config, load_config
from matting_compose.trainer.training.learner import Learner
from matting_compose.trainer.training.runtime import Runtime

CROP: Final = 384  # px


SIZES: Final = (384, 480, 576)  # px, windows that become crops


BATCH: Final = 16  # crops of a file


CLASSICS: Final = MATTES[1:]


TRAINED: Final = 128  # px, of a crop, turned and mirrored


COARSE: Final = 0.2  # how often a matte is that of a reduced picture, as those of large pictures are


SETTINGS: Final = (
    "network.name=matting_compose.trainer.networks.fusion:Fusion",
    f"stream.crop={TRAINED}",
    "steps=1500",
    "fuse=true",
    "losses.gradient=0.5",
)


@dataclass(frozen=True)
class Task:
    """A file to make."""

    datasets: tuple[tuple[str, float], ...]
    split: str
    number: int
    out: Path


def make_file(task: Task) -> Path:
    """Draw a batch of crops, have them matted, and write all that together."""
    path = task.out / f"{task.split}-{task.number:04}.npz"
    if path.exists():
        return path
    table = load_config("default-wide").stream
    stream = open_stream(
        list(task.datasets), batch=BATCH, crop=CROP, sizes=SIZES, split=task.split, start=task.number,
        augment=table.augment, remix=table.remix,
    )  # fmt: skip
    batch = next(iter(stream))
    kept: dict[str, list[np.ndarray]] = {name: [] for name in ("image", "trimap", "alpha", *CLASSICS)}
    for image, trimap, alpha in zip(batch.image.permute(0, 2, 3, 1), batch.trimap, batch.alpha[:, 0], strict=True):
        parts = [np.ascontiguousarray(part.numpy()) for part in (image, trimap, alpha)]
        try:
            mattes = [to_bytes(make_matte(name, parts[0], parts[1], MatteOptions(device="cpu"))) for name in CLASSICS]
        except MatteError:
            continue
        for name, part in zip(kept, (*parts, *mattes), strict=True):
            kept[name].append(part)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **{name: np.stack(parts) for name, parts in kept.items()})
    return path


def make_mattes(options: argparse.Namespace) -> None:
    """Make all files that are not there yet."""
    pairs = [re.fullmatch(r"(.+?)(?:=([\d.]+))?", each) for each in options.datasets]
    datasets = tuple((found[1], float(found[2] or 1)) for found in pairs if found)
    tasks = [Task(datasets[:1], "validation", number, options.out) for number in range(options.held_out)]
    tasks += [Task(datasets, "train", number, options.out) for number in range(options.files)]
    for done, path in enumerate(run_in_processes(make_file, tasks, len(tasks), options.jobs), 1):
        print(f"{done}/{len(tasks)} {path.name}", flush=True)


class Crops:
    """All crops of a split, in memory; the network's mattes of them are kept in files beside theirs.

    Attributes
    ----------
    image : (N, S, S, 3) uint8 RGB
    trimap, alpha : (N, S, S) uint8
    mattes : (N, 4, S, S) uint8
        `MATTES`, and the network's of the picture at half its size.
    """

    def __init__(self, folder: Path, split: str, network: Path) -> None:
        digest = file_sha256(network)[:8]
        parts: dict[str, list[UInt8Array]] = {name: [] for name in ("image", "trimap", "alpha", "mattes")}
        files = sorted(folder.glob(f"{split}-*.npz"))
        if not files:
            raise SystemExit(f"{folder}: expected {split}-*.npz, found none; make them by refined.py mattes")
        for path in files:
            with np.load(path) as file:
                found = {name: file[name] for name in file.files}
            firsts = _network_mattes(path.with_suffix(f".{digest}.npy"), network, found)
            found["mattes"] = np.stack((firsts[:, 0], *(found[name] for name in CLASSICS), firsts[:, 1]), axis=1)
            for name, part in parts.items():
                part.append(found[name])
        self.image, self.trimap, self.alpha, self.mattes = (np.concatenate(part) for part in parts.values())

    def batch(self, config: Config, step: int) -> Batch:
        """Draw a step's crops, from the seed and the step alone."""
        rng = np.random.default_rng((config.seed, step))
        crops = [self._draw(rng) for _ in range(config.stream.batch)]
        image, trimap, alpha = (np.stack(parts) for parts in zip(*crops, strict=True))
        return _as_batch(image, trimap, alpha)

    def _draw(self, rng: np.random.Generator) -> tuple[UInt8Array, UInt8Array, UInt8Array]:
        number = int(rng.integers(len(self.trimap)))
        mattes = [_coarse(matte, rng) for matte in self.mattes[number][: len(MATTES)]]
        if rng.random() < COARSE:
            mattes[0] = self.mattes[number][-1]
        image = np.dstack((self.image[number], *mattes))
        unknown = np.argwhere(self.trimap[number] == UNKNOWN)
        centre = unknown[rng.integers(len(unknown))]
        y, x = np.clip(centre - rng.integers(TRAINED, size=2), 0, CROP - TRAINED)
        turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
        cut = [part[y : y + TRAINED, x : x + TRAINED] for part in (image, self.trimap[number], self.alpha[number])]
        cut = [np.rot90(part[:, ::-1] if mirrored else part, turns) for part in cut]
        return cut[0], cut[1], cut[2]


def _as_batch(image: UInt8Array, trimap: UInt8Array, alpha: UInt8Array) -> Batch:
    planes = torch.from_numpy(np.ascontiguousarray(image)).permute(0, 3, 1, 2)
    hint, truth = (torch.from_numpy(np.ascontiguousarray(part)) for part in (trimap, alpha))
    names = np.zeros(len(image), np.int64)  # nobody asks which they are
    return Batch(planes, hint, truth[:, None], None, None, names, names)


def _coarse(matte: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """Reduce and enlarge a matte, at times."""
    if rng.random() >= COARSE:
        return matte
    side = round(len(matte) / rng.uniform(1.2, 4))
    small = cv2.resize(matte, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, matte.shape, interpolation=cv2.INTER_CUBIC), np.uint8)


def _network_mattes(path: Path, network: Path, crops: dict[str, UInt8Array]) -> UInt8Array:
    """Return a file's (N, 2, S, S): the network's mattes of its pictures, and of these at half their size."""
    if not path.exists():
        options = [MatteOptions(network, device="cpu", max_side=side) for side in (None, CROP // 2)]
        mattes = [
            [to_bytes(make_matte("network", image, trimap, each)) for each in options]
            for image, trimap in zip(crops["image"], crops["trimap"], strict=True)
        ]
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.save(file, np.array(mattes))
    return np.asarray(np.load(path), np.uint8)


def train(options: argparse.Namespace) -> None:
    """Train the fusion, from where an earlier call was stopped; write its averaged weights."""
    torch.set_num_threads(1)
    config = load_config("default", (*SETTINGS, *options.set))
    crops, held_out = (Crops(options.mattes, split, options.network) for split in ("train", "validation"))
    print(f"{len(crops.trimap)} crops, {len(held_out.trimap)} held out", flush=True)
    learner = Learner(config, Runtime(torch.device("cpu")))
    last, start = options.output.with_suffix(".last.pt"), 0
    if last.exists():
        state = torch.load(last, weights_only=True)
        learner.load(state, last)
        start = state["step"]
    else:
        judge(held_out, learner)
    for step in range(start, config.steps):
        result = learner.step(step, [crops.batch(config, step)])
        if (step + 1) % config.log_every == 0:
            print(step + 1, [round(float(number), 4) for number in result.numbers], flush=True)
        if (step + 1) % (10 * config.log_every) == 0 or step + 1 == config.steps:
            with atomic_write(last) as temporary:
                torch.save({"step": step + 1, **learner.state()}, temporary)
            judge(held_out, learner)
    export_safetensors(learner.best_network, options.output, half=True)


@torch.inference_mode()
def judge(crops: Crops, learner: Learner) -> None:
    """Print mean |error| and mean square over the unknown pixels of each crop, averaged over crops."""
    network = learner.best_network.eval()
    rows: dict[str, list[Any]] = {}
    joined = crops.mattes[:, : len(MATTES)]
    for image, trimap, alpha, mattes in zip(crops.image, crops.trimap, crops.alpha, joined, strict=True):
        batch = _as_batch(np.dstack((image, *mattes))[None], trimap[None], alpha[None])
        fused = network.matte(batch.image, batch.trimap)[0, 0].numpy()
        found = {**dict(zip(MATTES, mattes / 255, strict=True)), "median": np.median(mattes, 0) / 255, "fusion": fused}
        for name, matte in found.items():
            error = (matte - alpha / 255)[trimap == UNKNOWN]
            rows.setdefault(name, []).append((np.abs(error).mean(), (error**2).mean()))
    print({name: np.mean(found, 0).round(4).tolist() for name, found in rows.items()}, flush=True)


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    mattes = commands.add_parser("mattes", help="crops and their mattes, a file for sixteen")
    mattes.add_argument("datasets", nargs="+", help="a dataset, and its weight after an equals sign")
    mattes.add_argument("--out", type=Path, required=True)
    mattes.add_argument("--files", type=int, default=38)
    mattes.add_argument("--held-out", type=int, default=4, help="files of the first dataset's validation split")
    mattes.add_argument("--jobs", type=int, default=-1)
    mattes.set_defaults(run=make_mattes)
    training = commands.add_parser("train", help="the weights")
    training.add_argument("mattes", type=Path)
    training.add_argument("-o", "--output", type=Path, required=True)
    training.add_argument("--network", type=Path, default=WEIGHTS, help="whose mattes are joined with theirs")
    training.add_argument("--set", action="append", default=[], help="a key of the configuration")
    training.set_defaults(run=train)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    with handle_errors():
        main()
