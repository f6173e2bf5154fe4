"""Parquet: what the real library loads is the dataset, row by row; and the cards that hubs read."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from conftest import Pictures, call
from matting_compose.composer import open_dataset
from matting_compose.composer.dataset.card import CARD, MARK, dataset_card
from matting_compose.composer.inspection import parquet as module
from matting_compose.composer.inspection.export import export

pq = pytest.importorskip("pyarrow.parquet", reason="Parquet needs the extra of that name")


def front_matter(path: Path) -> dict[str, object]:
    """Read a card as hubs do: YAML between two lines of dashes."""
    yaml = pytest.importorskip("yaml")
    return dict(yaml.safe_load(path.read_text(encoding="utf-8").split("---\n")[1]))


def test_the_real_library_loads_every_composite(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the folder alone, both splits; pictures and names are the dataset's."""
    datasets = pytest.importorskip("datasets", reason="a test by the library itself")
    done = call("convert", str(finished), "-o", str(tmp_path / "out"), "--to", "parquet", "-j", "1", "--json")
    assert (done.code, done.json["composites"]) == (0, 20)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 16, "validation": 4}
    with closing(open_dataset(finished)) as dataset:
        by_key = {dataset.row(number).key: number for number in range(len(dataset))}
        for row in (loaded["train"][0], loaded["train"][15], loaded["validation"][3]):
            sample = dataset[by_key.pop(row["key"])]
            for part in ("image", "trimap", "alpha", "foreground", "background"):
                np.testing.assert_array_equal(np.asarray(row[part]), getattr(sample, part))
            assert (row["foreground_name"], json.loads(row["row"])["key"]) == (sample.row.foreground, sample.row.key)


def test_an_export_that_was_stopped_goes_on(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are whole are kept, others written again, with the same bytes; row groups hold a bounded part."""
    monkeypatch.setattr(module, "GROUP_BYTES", 1)
    assert export(finished, tmp_path / "out", "parquet", jobs=1).written == 20
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert pq.ParquetFile(tmp_path / "out" / "train-000000.parquet").num_row_groups > 1
    (tmp_path / "out" / "train-000000.parquet").write_bytes(b"half")
    assert 0 < export(finished, tmp_path / "out", "parquet", jobs=1).written < 20
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}


def test_a_dataset_carries_its_card(pictures: Pictures, tmp_path: Path) -> None:
    """Front matter, splits, recipe; what somebody made theirs stays, and is in the sums from the next build on."""
    out = tmp_path / "a #1: dataset"
    licence = ("--set", "foregrounds.licence=CC0: 'a'", "--set", 'split.validation=["disc 1"]', "-j", "1")
    assert call(*pictures.arguments(out, *licence)).code == 0
    card = front_matter(out / CARD)
    assert (card["license"], card["size_categories"]) == ("other", ["n<1K"])
    assert card["pretty_name"] == "20 composites of 5 foregrounds, with alphas and trimaps"
    text = (out / CARD).read_text(encoding="utf-8")
    assert "| train | 16 |" in text
    assert "| validation | 4 |" in text
    assert "CC0: 'a'" in text
    (out / CARD).write_text(text.replace(MARK, "ours"), encoding="utf-8")
    assert call("inspect", str(out), "--verify", "-j", "1").code == 1
    assert call(*pictures.arguments(out, *licence)).code == 0
    verified = call("inspect", str(out), "--verify", "-j", "1", "--json")
    assert (verified.code, verified.json["notes"]) == (0, [])
    assert "ours" in (out / CARD).read_text(encoding="utf-8")


def test_cards_hold_what_recipes_say_as_text() -> None:
    """No text ends the front matter or draws on a terminal, and one without licences says so."""
    text = dataset_card({"foregrounds": {"layout": "rgba"}}, {"train": 43_100}, 431, 7, "hdf5", ["a\n---\nb"])
    assert text.split("\n---\n")[0].count("\n") == 6
    assert '"10K<n<100K"' in text
    assert "does not say under which licences" in text
