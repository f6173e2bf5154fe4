"""A matte of a picture alone: found, fused, tiled; and what the commands say where a half is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("torch", reason="networks need the 'train' extra")

import torch

from conftest import photograph, save, soft_disc
from matting_compose.composer.compositing.blending import blend
from matting_compose.trainer import SHM, TNet, commands
from matting_compose.trainer.inference.automatic import find_matte
from matting_compose.trainer.networks.checkpoint import export_safetensors, load_network
from matting_compose.trainer.networks.network import trimap_masks
from small_networks import lively


class Told(torch.nn.Module):
    """A T-Net that is told what it finds."""

    def __init__(self, trimap: np.ndarray[Any, Any]) -> None:
        super().__init__()
        self.masks = trimap_masks(torch.from_numpy(trimap)[None]).float()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 20 * self.masks


def whole(decoder: str = "resize") -> SHM:
    torch.manual_seed(0)
    return SHM(TNet(encoder="lite0"), lively(decoder=decoder)).eval()


def scene(height: int = 90, width: int = 120) -> tuple[Any, Any]:
    foreground, alpha = soft_disc(height, width, 1)
    return blend(foreground, alpha, photograph(height, width, 2)), np.where(alpha % 255 > 0, 128, alpha).astype(
        np.uint8
    )


@pytest.mark.parametrize("decoder", ["resize", "unpool"])
def test_tiles_are_the_whole_picture(decoder: str) -> None:
    """M-Net in tiles gives what the network gives in one piece."""
    network = whole(decoder)
    image = photograph(40, 900, 3)
    with torch.inference_mode():
        at_once = network.matte(torch.from_numpy(image.transpose(2, 0, 1).copy())[None])[0, 0].numpy()
    found = find_matte(network, image, tile=512, max_side=None)
    if not found.is_empty:
        np.testing.assert_allclose(found.alpha, at_once, atol=1e-4)


def test_nobody_gives_an_empty_matte() -> None:
    """Where all is background by T-Net, nothing is left of M-Net's noise; a subject in a large picture is found."""
    image, trimap = scene()
    network = whole()
    network.tnet = Told(np.zeros_like(trimap))  # type: ignore[assignment]
    found = find_matte(network, image)
    assert found.is_empty
    assert not found.alpha.any()
    network.tnet = Told(trimap)  # type: ignore[assignment]
    found = find_matte(network, image)
    assert not found.is_empty
    np.testing.assert_array_equal(found.trimap, trimap)
    assert found.alpha[trimap == 255].min() > 0.999
    assert found.alpha[trimap == 0].max() < 0.001


def test_large_pictures_are_reduced_and_enlarged_again() -> None:
    """At most so long inside, at their own size outside."""
    found = find_matte(whole(), photograph(300, 400, 1), max_side=100)
    assert found.alpha.shape == found.trimap.shape == (300, 400)


def test_the_whole_network_is_used_as_any_other(tmp_path: Path) -> None:
    """Joined, exported, asked for mattes without and with a trimap, and graded without one."""
    image, trimap = scene()
    save(tmp_path / "images" / "p.jpg", image)
    save(tmp_path / "trimaps" / "p.png", trimap)
    save(tmp_path / "truths" / "p.png", trimap)
    save(tmp_path / "beach.jpg", photograph(50, 60, 5))
    network = whole()
    tnet, mnet, joined = (tmp_path / f"{name}.safetensors" for name in ("tnet", "mnet", "shm"))
    export_safetensors(network.tnet, tnet)
    export_safetensors(network.mnet, mnet)
    assert ran(commands.export, tnet, "--mnet", mnet, "-o", joined).exit_code == 0
    assert isinstance(load_network(joined), SHM)

    out = tmp_path / "out"
    done = ran(commands.predict, joined, tmp_path / "images", "-o", out, "--panel", "--save-trimap",
               "--background", tmp_path / "beach.jpg")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert {str(path.relative_to(out)) for path in out.rglob("*.*")} == {
        "p.png", "trimap/p.png", "panel/p.jpg", "composite/p.png",
    }  # fmt: skip
    given = ran(
        commands.predict, joined, tmp_path / "images", "--trimap", tmp_path / "trimaps", "-o", tmp_path / "with"
    )
    alone = ran(commands.predict, mnet, tmp_path / "images", "--trimap", tmp_path / "trimaps", "-o", tmp_path / "mnet")
    assert given.exit_code == alone.exit_code == 0
    assert (tmp_path / "with" / "p.png").read_bytes() == (tmp_path / "mnet" / "p.png").read_bytes()
    graded = ran(commands.evaluate, "--images", tmp_path / "images", "--truths", tmp_path / "truths", "--checkpoint",
                 joined, "-j", "1", "--json")  # fmt: skip
    assert graded.exit_code == 0, graded.output
    both = ran(commands.evaluate, "--images", tmp_path / "images", "--truths", tmp_path / "truths", "--checkpoint",
               tnet, "--checkpoint", joined, "--method", "segmentation", "-j", "1", "--json")  # fmt: skip
    names = [summary["competitor"] for summary in json.loads(both.stdout)["summaries"]]
    assert names == ["tnet.safetensors segmentation", "shm.safetensors segmentation"]
    usual = ran(commands.evaluate, "--images", tmp_path / "images", "--truths", tmp_path / "truths", "--checkpoint",
                tnet, "--checkpoint", joined, "-j", "1", "--json")  # fmt: skip
    means = {s["competitor"]: s["means"]["sad"]["mean"] for s in json.loads(usual.stdout)["summaries"]}
    first = json.loads(both.stdout)["summaries"][0]["means"]["sad"]["mean"]
    assert means["tnet.safetensors"] == first
    assert means["shm.safetensors"] == json.loads(graded.stdout)["summaries"][0]["means"]["sad"]["mean"]


def test_half_of_it_is_told_as_that(tmp_path: Path) -> None:
    """A T-Net gives no alpha, an M-Net needs a trimap, and two of a kind do not join: each says what to do."""
    save(tmp_path / "p.jpg", scene()[0])
    network = whole()
    tnet, mnet = tmp_path / "tnet.safetensors", tmp_path / "mnet.safetensors"
    export_safetensors(network.tnet, tnet)
    export_safetensors(network.mnet, mnet)
    alone = ran(commands.predict, tnet, tmp_path / "p.jpg", "-o", tmp_path / "a.png")
    assert alone.exit_code == 1
    assert f"matting-export {tnet} --mnet" in alone.output.replace("\n", " ")
    hint = ran(commands.predict, mnet, tmp_path / "p.jpg", "-o", tmp_path / "a.png")
    assert hint.exit_code == 1
    assert "a network that finds it (SHM)" in hint.output
    twice = ran(commands.export, mnet, "--mnet", tnet, "-o", tmp_path / "x.safetensors")
    assert "these are MNet and TNet" in twice.output
    hard = ran(commands.predict, tnet, tmp_path / "p.jpg", "-o", tmp_path / "a.png", "--method", "segmentation")
    assert hard.exit_code == 0


def ran(command: Any, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])
