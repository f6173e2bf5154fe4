"""Predicting from Python, and what a sample and a dataset look like there."""

from __future__ import annotations

import base64
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need the 'train' extra")

import predict as bench  # noqa: E402 (bench/predict.py)

from conftest import save  # noqa: E402 (only once torch is known to be there)
from matting_compose.composer import open_dataset  # noqa: E402
from matting_compose.trainer import predict, predict_alpha  # noqa: E402
from small_networks import checkpoint, lively, picture  # noqa: E402


def test_arrays_and_paths_give_the_same(tmp_path: Path) -> None:
    """A network or its file, pictures or theirs; a trimap's levels are mended."""
    network = lively()
    image, trimap = picture(40, 50)
    save(tmp_path / "image.png", image)
    save(tmp_path / "trimap.png", trimap)
    best = checkpoint(tmp_path / "best.pt", network)
    expected = predict_alpha(network, image, trimap)
    for given in (
        (network, image, trimap),
        (network, image, np.where(trimap == 128, 127, trimap).astype(np.uint8)),
        (str(best), tmp_path / "image.png", str(tmp_path / "trimap.png")),
    ):
        np.testing.assert_array_equal(predict(*given, device="cpu"), expected)


def test_what_would_mislead_is_refused() -> None:
    """No trimap for a network that needs one, and normalisation by the batch."""
    image, trimap = picture(40, 50)
    with pytest.raises(ValueError, match="MNet needs a trimap"):
        predict(lively(), image)
    with pytest.raises(ValueError, match=r"call network\.eval\(\)"):
        predict(lively().train(), image, trimap)


def test_objects_say_in_a_line_what_they_are(finished: Path) -> None:
    """A dataset, a sample; the sample as pictures in a notebook and as a figure."""
    dataset = open_dataset(finished)
    assert re.fullmatch(r"Dataset\('.*': 20 composites in \d+ shards; 16 train, 4 validation\)", repr(dataset))
    sample = dataset[0]
    height, width = sample.alpha.shape
    assert repr(sample).startswith(f"Sample({sample.row.key!r}: {width} × {height} px, ")
    assert "\n" not in repr(sample)
    shown = re.findall(r'alt="(\w+)".*?base64,([^"]+)"', sample._repr_html_())
    assert [name for name, _ in shown] == ["image", "trimap", "alpha", "foreground"]
    first = cv2.imdecode(np.frombuffer(base64.b64decode(shown[0][1]), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(first[..., ::-1], sample.image)
    pytest.importorskip("matplotlib", reason="the extra 'notebook'")
    assert [axes.get_title() for axes in sample.plot().axes] == ["image", "trimap", "alpha", "foreground"]


def test_a_benchmark_of_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """bench/predict.py says in a line that it draws no picture of no pixels."""
    monkeypatch.setattr(sys, "argv", ["predict.py", "mnet", "--megapixels", "0"])
    with pytest.raises(SystemExit, match="2"):
        bench.main()
    assert "error: --megapixels is 0.0001 at least" in capsys.readouterr().err.splitlines()[-1]
