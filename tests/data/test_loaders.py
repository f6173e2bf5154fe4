"""Batches in other libraries, each as it is installed: Lightning, Accelerate, albumentations, torch's own loader."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from matting_compose.composer import open_dataset
from matting_compose.trainer import MNet, open_stream
from matting_compose.trainer.data.crops import CropBuffers

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it asks the network for newer versions of itself
DOCS = Path(__file__).parent.parent.parent / "docs" / "loaders.md"
OPTIONS: dict[str, Any] = {"batch": 4, "crop": 32, "sizes": (32, 48), "epochs": 1}
CHANGES: list[Any] = []


def augment(crop: CropBuffers, rng: np.random.Generator) -> None:
    """Change a crop by albumentations, as the docs show it."""
    import albumentations

    if not CHANGES:
        brighter, mirrored = albumentations.RandomBrightnessContrast(p=1), albumentations.HorizontalFlip()
        CHANGES.append(albumentations.Compose([brighter, mirrored]))
    CHANGES[0].set_random_seed(int(rng.integers(2**32)))
    changed = CHANGES[0](image=crop.image, masks=[crop.trimap, crop.alpha])
    crop.image[:] = changed["image"]
    crop.trimap[:], crop.alpha[:] = changed["masks"]


def test_albumentations_draws_from_the_samples_own_generator(finished: Path) -> None:
    """Workers change nothing, and crops are changed."""
    pytest.importorskip("albumentations")
    alone = list(open_stream(finished, transform=augment, **OPTIONS))
    stream = open_stream(finished, transform=augment, workers=1, **OPTIONS)
    others = list(stream)
    stream.close()
    plain = list(open_stream(finished, **OPTIONS))
    for one, other, was in zip(alone, others, plain, strict=True):
        assert one.image.equal(other.image)
        assert one.alpha.equal(other.alpha)
        assert not one.image.equal(was.image)


@pytest.mark.parametrize("workers", [0, 2])
def test_whole_composites_collate(finished: Path, workers: int) -> None:
    """A sample is a mapping of its pictures, and torch's own collation makes a batch of several of one size."""
    dataset = open_dataset(finished)
    loader = DataLoader(dataset, batch_size=2, num_workers=workers)  # type: ignore[arg-type]  # a sequence does
    batch = next(iter(loader))
    assert list(batch) == ["image", "trimap", "alpha", "foreground", "background"]
    for i in (0, 1):
        sample = dataset[i]
        assert {**sample}.keys() == batch.keys()
        assert len(sample) == 5
        for name, part in sample.items():
            np.testing.assert_array_equal(batch[name][i], part)
    with pytest.raises(KeyError):
        sample["row"]


def noting(seen: list[list[int]]) -> Any:
    """Make a module for Lightning that notes what it is given."""
    import lightning
    import torch

    class Noting(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.network = MNet(width=0.03, norm="group", output="sigmoid")

        def training_step(self, batch: Any, _: int) -> Any:
            seen.append(batch.samples.tolist())
            return (self.network.matte(batch.image, batch.trimap) - batch.alpha / 255).abs().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), 1e-3)

    return Noting()


@pytest.mark.filterwarnings("ignore")  # Lightning's own, and its advice
def test_lightning_goes_on_in_mid_epoch(finished: Path, tmp_path: Path) -> None:
    """Epochs follow each other, and from a checkpoint come the batches and weights that would have followed."""
    lightning = pytest.importorskip("lightning")
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}

    def fit(steps: int, **more: Any) -> tuple[list[list[int]], Any]:
        seen: list[list[int]] = []
        stream = open_stream(finished, **OPTIONS)
        module = noting(seen)
        trainer = lightning.Trainer(max_steps=steps, enable_checkpointing=False, **quiet)
        trainer.fit(module, stream, **more)
        trainer.save_checkpoint(tmp_path / f"{steps}.ckpt")
        return seen, module.state_dict()

    whole, weights = fit(6)
    wanted = [batch.samples.tolist() for batch in islice(open_stream(finished, **OPTIONS | {"epochs": None}), 6)]
    assert whole == wanted
    first, _ = fit(3)
    rest, again = fit(6, ckpt_path=tmp_path / "3.ckpt", weights_only=True)
    assert first + rest == wanted
    assert all(weights[key].equal(again[key]) for key in weights)


NOTING = """
import json, os, pathlib, sys, warnings
warnings.simplefilter("ignore")
from functools import partial
from torch.utils.data import DataLoader
import torch
from matting_compose.trainer import CropDataset, MNet, open_stream
from matting_compose.trainer.data.stream import Stream
seen, whole = [], Stream._batch
def noted(self, item):
    batch = whole(self, item)
    seen.append(batch.samples.tolist())
    return batch
Stream._batch = noted
def tell(name, network):
    total = float(sum(p.double().sum() for p in network.parameters()))
    pathlib.Path(f"{name}-{os.environ['RANK']}.json").write_text(json.dumps({"seen": seen, "weights": total}))
    seen.clear()
"""
PREPARED = """
loader = accelerator.prepare(DataLoader(CropDataset("demo", crop=128, sizes=(128, 192)), batch_size=4, shuffle=True))
seen.extend(batch["sample"].tolist() for batch in loader)
tell("loader", network)
"""


def block(text: str) -> str:
    """Find the block of the docs that imports something."""
    return next(found for found in re.findall(r"^```python\n(.*?)^```", DOCS.read_text(), re.M | re.S) if text in found)


def test_two_processes_share_the_batches(finished: Path, tmp_path: Path) -> None:
    """The docs' scripts under torchrun: two processes take what one with twice the batch does, and learn as one."""
    pytest.importorskip("accelerate")
    pytest.importorskip("lightning")
    (tmp_path / "demo").symlink_to(finished)
    one_of_two = 'lightning.Trainer = partial(lightning.Trainer, devices=2, accelerator="cpu", strategy="ddp")\n'
    script = [
        NOTING, block("import accelerate"), 'tell("accelerate", network)\n', PREPARED, "import lightning\n", one_of_two,
        block("import lightning"), 'tell("lightning", trainer.lightning_module)\n',
    ]  # fmt: skip
    (tmp_path / "script.py").write_text("".join(script))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node=2", "script.py"], cwd=tmp_path, text=True, capture_output=True, check=False,
        env=os.environ | {"GLOO_SOCKET_IFNAME": "lo", "ACCELERATE_USE_CPU": "true"}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    together = open_stream(finished, batch=8, crop=128, sizes=(128, 192))
    wanted = [batch.samples.tolist() for batch in islice(together, 2)]
    for name in ("accelerate", "lightning"):
        halves = [json.loads((tmp_path / f"{name}-{rank}.json").read_text()) for rank in (0, 1)]
        assert [a + b for a, b in zip(halves[0]["seen"], halves[1]["seen"], strict=True)][:2] == wanted
        assert halves[0]["weights"] == halves[1]["weights"]
    crops = [batch for rank in (0, 1) for batch in json.loads((tmp_path / f"loader-{rank}.json").read_text())["seen"]]
    assert sorted(chain(*crops)) == open_dataset(finished).numbers("train").tolist()
