"""Find what each part of the default network and of its training is worth: short trainings without it, some seeds each.

    python bench/ablation.py model/open431 model/drawn=0.6 --cases real composed --out ablation

Every run is one of `matting-train` by the configuration `default` but for its length, one thread, and is gone on with
where it was stopped; `--only` takes some terms. Printed for each set of cases (folders with image/, trimap/ and alpha/,
whose pictures have the same names): the mean SAD of all seeds, that of each, and how far it is from that of the first
term; and the CPU seconds of a training, as far as it was still to be done, so that what a part costs is seen, too.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from matting_compose.composer.console.terminal import handle_errors
from matting_compose.trainer.evaluation.cases import FolderCase, folder_cases
from matting_compose.trainer.evaluation.evaluate import Competitor, evaluate
from matting_compose.trainer.inference.methods import MatteOptions
from matting_compose.trainer.networks.colournet import ColourNet
from matting_compose.trainer.networks.network import Inputs

PLANES: Final = {"mixture": (5,), "propagation": (6,), "likelihood": (7, 8)}  # of those at full size


HINTS: Final = {"mixture": range(12), "propagation": (12,), "likelihood": (13, 14)}  # of those at half size


TERMS: Final = {
    "all": (),
    "no nearby colours": ("network.without=mixture",),
    "no propagation": ("network.without=propagation",),
    "no likelihood": ("network.without=likelihood",),
    "no remix": ("stream.remix.chance=0",),
    "no new trimaps": ("stream.remix.retrim=0",),
    "no tint": ("stream.remix.tint=0",),
    "no average": ("optimiser.ema=0",),
    "no Laplacian loss": ("losses.laplacian=0",),
}


class Without(ColourNet):
    """ColourNet that is not told one of the things.

    Parameters
    ----------
    without : str
        One of `PLANES`, or nothing.
    """

    def __init__(self, *, without: str = "", width: float = 1.0) -> None:
        super().__init__(width=width)
        self.without = without

    @torch.no_grad()
    def _inputs(self, image: Tensor, trimap: Tensor, survey: tuple[Tensor, ...]) -> Inputs:
        planes, hints = super()._inputs(image, trimap, survey)
        planes[:, list(PLANES.get(self.without, ()))] = 0.5
        hints[:, list(HINTS.get(self.without, ()))] = 0.5
        return planes, hints


def train(datasets: list[str], term: str, seed: int, settings: list[str], out: Path) -> Path:
    """Train, unless that is done; return the checkpoint."""
    last = out / "last.pt"
    command = [str(Path(sys.executable).parent / "matting-train"), *datasets, "--out", str(out), "--config", "default"]
    for setting in ("network.name=ablation:Without", *settings, *TERMS[term], f"seed={seed}"):
        command += ["--set", setting]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    if subprocess.run([*command, *(["--resume"] if last.exists() else [])], env=environment).returncode:
        raise SystemExit(f"{out}: the training failed; what it said is above")
    return last


def list_cases(folder: Path) -> list[FolderCase]:
    """List a set of cases."""
    return folder_cases(folder / "alpha", trimaps=folder / "trimap", images=folder / "image", predictions=[])


def grade(cases: Sequence[FolderCase], checkpoint: Path) -> float:
    """Return the mean SAD of a set of cases."""
    found = evaluate(cases, [Competitor("it", "network", checkpoint=checkpoint)], MatteOptions(device="cpu"), jobs=1)
    return float(np.mean([score.errors["sad"] for score in found.scores]))


def main() -> None:
    """Train and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("datasets", nargs="+", help="a dataset, and its weight after an equals sign")
    parser.add_argument("--cases", type=Path, nargs="+", required=True)
    parser.add_argument("--steps", type=int, default=750, help="of six crops of 192 px")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=TERMS, default=list(TERMS))
    parser.add_argument("--set", action="append", default=[], help="a key of every run's configuration")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sets = [list_cases(folder) for folder in options.cases]  # before hours of training
    settings = [f"steps={options.steps}", f"validation.every={options.steps}", "validation.limit=1", *options.set]
    rows: dict[str, Any] = {}
    for term in options.only:
        begun = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        runs = [options.out / f"{term.replace(' ', '-')}-{seed}" for seed in range(options.seeds)]
        trained = [train(options.datasets, term, seed, settings, run) for seed, run in enumerate(runs)]
        seconds = (resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - begun) / len(runs)
        rows[term] = seconds, np.array([[grade(cases, last) for last in trained] for cases in sets])
    base = next(iter(rows.values()))[1].mean(1)
    print("| | " + " | ".join(f"{folder.name} | − all" for folder in options.cases) + " | CPU s |")
    print("|---" * (2 * len(options.cases) + 2) + "|")
    for term, (seconds, found) in rows.items():
        cells = [
            f"{each.mean():.2f} ({', '.join(f'{sad:.2f}' for sad in each)}) | {each.mean() - one:+.2f}"
            for each, one in zip(found, base, strict=True)
        ]
        print(f"| {term} | {' | '.join(cells)} | {seconds:.0f} |")


if __name__ == "__main__":
    with handle_errors():
        main()
