"""Training and grading from Python, without the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="training needs the 'train' extra")

from matting_compose.composer import open_dataset  # noqa: E402 (only once torch is known to be there)
from matting_compose.composer.base.errors import FileError  # noqa: E402
from matting_compose.trainer import commands, evaluate, load_config, load_network, metrics, train  # noqa: E402
from runs import TINY, same, state  # noqa: E402


def test_a_training_is_one_call(finished: Path, whole: Path, tmp_path: Path) -> None:
    """Paths as text, a configuration; resumed without one it goes on as it was begun."""
    out = str(tmp_path / "run")
    assert train(str(finished), out, load_config(None, [*TINY, "steps=4"])).step == 4
    assert not train(finished, out, resume=True).stopped
    config = load_config(None, TINY)
    assert train(finished, out, config, resume=True).step == 7
    assert same(state(tmp_path / "run" / "last.pt"), state(whole / "last.pt"))


def test_a_network_is_graded_by_one_call(finished: Path, whole: Path) -> None:
    """A checkpoint, its network and any function of a sample; over the validation split where there is one."""
    by_path = evaluate(whole / "best.pt", finished)
    network = evaluate(load_network(whole / "best.pt"), open_dataset(finished))
    assert by_path == network
    assert by_path.images == 4
    assert by_path.foregrounds.keys() == {"disc 1"}
    half = evaluate(lambda sample: np.full_like(sample.alpha, 128), finished, split="all", limit=3, metrics="shm")
    assert half.images == 3
    assert half.means["sad"].mean > 100
    with pytest.raises(FileError, match="no composite is in the test split"):
        evaluate(whole / "best.pt", finished, split="test")  # type: ignore[arg-type]


def test_a_metric_is_one_entry(finished: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever grades has it too: scores, their means, tables."""

    def largest(prediction: metrics.Picture, truth: metrics.Picture, trimap: metrics.Picture | None = None) -> float:
        return float(np.abs(prediction.astype(int) - truth).max())

    monkeypatch.setitem(metrics.METRICS._entries, "largest", largest)
    summary = evaluate(whole / "best.pt", finished)
    assert 0 < summary.means["largest"].mean <= 255
    arguments = ["--dataset", str(finished), "--method", "trimap", "-j", "1", "--json"]
    graded = json.loads(CliRunner().invoke(commands.evaluate, arguments).stdout)
    assert graded["summaries"][0]["means"]["largest"]["mean"] > 0
    assert graded["scores"][0]["largest"] > 0
