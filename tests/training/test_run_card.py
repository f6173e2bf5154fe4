"""The card of a training: front matter that YAML reads, the best validation, no folder of the computer's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the 'train' extra")

from matting_compose.composer.dataset.card import CARD, MARK, write_card
from matting_compose.trainer.training.run_card import run_card


def records() -> list[dict[str, object]]:
    kind = {"kind": "validation", "dataset": "mine|x"}
    return [
        {**kind, "step": 0, "what": "trimap alone", "sad": 9.0, "mse": 0.2},
        {**kind, "step": 5, "what": "network", "sad": 4.0, "mse": 0.1, "best": True},
        {**kind, "step": 9, "what": "network", "sad": 5.0, "mse": 0.1},
    ]


def test_it_holds_the_best_validation_and_the_configuration(tmp_path: Path) -> None:
    """As results that hubs list; a folder's name alone is told of it."""
    config = {"network": {"name": "mnet", "init": str(tmp_path / "a.pt")}, "validation": {"datasets": [str(tmp_path)]}}
    text = run_card("run", config, records())
    front = dict(line.split(": ", 1) for line in text.split("---")[1].strip().splitlines())
    (result,) = json.loads(front["model-index"])[0]["results"]
    assert result["metrics"] == [{"type": "sad", "value": 4.0}, {"type": "mse", "value": 0.1}]
    assert json.loads(front["tags"])[-1] == "mnet"
    assert "| 9 | 0.2 |" in text
    assert "| 4 | 0.1 |" in text
    assert str(tmp_path) not in text
    assert tmp_path.name in text


def test_without_a_validation_it_says_so() -> None:
    """No results, and no table."""
    text = run_card("run", {"network": {"name": "mnet"}}, [])
    assert "model-index: []" in text
    assert "None." in text


def test_a_card_of_ones_own_is_kept(tmp_path: Path) -> None:
    """Once its mark is gone."""
    write_card(tmp_path, run_card("run", {"network": {"name": "mnet"}}, records()))
    path = tmp_path / CARD
    mine = path.read_text().replace(MARK, "") + "Mine."
    path.write_text(mine)
    write_card(tmp_path, "other")
    assert path.read_text() == mine


def test_a_training_leaves_one(whole: Path) -> None:
    """In its folder, when it ends."""
    text = (whole / CARD).read_text()
    assert text.startswith("---\n")
    assert "model-index" in text
