"""What is given in the place of a checkpoint, and names of devices: told before anything is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="networks need the 'train' extra")
pytest.importorskip("pydantic")

from conftest import save  # noqa: E402
from matting_compose.composer.base.errors import TrainingError  # noqa: E402
from matting_compose.trainer.cli import train  # noqa: E402
from matting_compose.trainer.commands import evaluate, predict  # noqa: E402
from matting_compose.trainer.networks.checkpoint import FORMAT, VERSION, load_checkpoint, load_network  # noqa: E402
from matting_compose.trainer.networks.mnet import MNet  # noqa: E402
from matting_compose.trainer.networks.registry import describe_network  # noqa: E402

DEVICES = ("tpu", "gpu", "meta", "cuda:77")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Make what a checkpoint of a very small network holds."""
    network = MNet(width=0.03, norm="group")
    description = describe_network(network)
    return {"format": FORMAT, "version": VERSION, "network": description, "model": network.state_dict(), "ema": None}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html>404</html>", "a page"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
        (b"", "an empty file"),
    ],
)
def test_other_files_are_told_as_what_they_are(tmp_path: Path, content: bytes, text: str) -> None:
    """Not as a damaged checkpoint; with what to do."""
    path = tmp_path / "best.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=text):
        load_network(path)
    with pytest.raises(TrainingError, match=text):
        load_checkpoint(path)


def test_a_pickle_is_told_as_that(tmp_path: Path, document: dict[str, Any]) -> None:
    """PyTorch's format before 1.6."""
    torch.save(document, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="a bare pickle"):
        load_network(tmp_path / "old.pt")


def test_a_run_means_its_best_checkpoint(
    tmp_path: Path, document: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Or the last one, where nothing was validated, and says so; a pipe is not waited for."""
    with pytest.raises(ValueError, match=r"best\.pt or last\.pt; found neither"):
        load_network(tmp_path)
    torch.save(document, tmp_path / "last.pt")
    with caplog.at_level("INFO"):
        assert load_network(tmp_path).config["norm"] == "group"
    assert "last.pt it is" in caplog.text
    (tmp_path / "last.pt").rename(tmp_path / "best.pt")
    assert load_network(tmp_path).config["norm"] == "group"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="a device or a pipe"):
        load_network(tmp_path / "pipe")


def test_parts_are_visited_once(tmp_path: Path, document: dict[str, Any]) -> None:
    """64 lists, each twice in the next, and a list that holds itself, take no time."""
    nested: list[Any] = []
    for _ in range(64):
        nested = [nested, nested]
    itself: list[Any] = []
    itself.append(itself)
    torch.save({**document, "nested": nested, "itself": itself}, tmp_path / "best.pt")
    load_network(tmp_path)


@pytest.mark.parametrize("part", ["ema", "model"])
def test_what_are_no_weights_is_refused(tmp_path: Path, document: dict[str, Any], part: str) -> None:
    """A tensor in the place of a table; complex numbers."""
    weights: Any = torch.zeros(3)
    if part == "model":
        weights = {key: value.to(torch.complex64) for key, value in document["model"].items()}
    torch.save({**document, part: weights}, tmp_path / "best.pt")
    with pytest.raises(ValueError, match=r"no weights|no tensor of plain numbers"):
        load_network(tmp_path)


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_that_is_not_there_is_told_everywhere(finished: Path, tmp_path: Path, device: str) -> None:
    """In the same words by training, prediction and evaluation, before anything is written."""
    save(tmp_path / "t" / "a.png", np.full((16, 16), 128, np.uint8))
    folder, out = str(tmp_path / "t"), str(tmp_path / "out")
    answers = {
        CliRunner().invoke(command, [*arguments, "--device", device]).stderr.splitlines()[-1]
        for command, arguments in (
            (train, [str(finished), "--out", out]),
            (predict, [f"{folder}/a.png", "--trimap", f"{folder}/a.png", "--method", "trimap", "-o", out]),
            (evaluate, ["--truths", folder, "--predictions", folder, "-o", out]),
        )
    }
    assert len(answers) == 1
    assert answers.pop().startswith(f"Error: --device {device}")
    assert not Path(out).exists()
