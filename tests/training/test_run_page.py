"""The run's page: drawn as steps are taken, and in a real browser: curves with values, panels through time."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the 'train' extra")

from browser import Browser, find_faults

from conftest import page_data
from matting_compose.trainer.training.run_page import EVERY, MOST_POINTS, RunPage


def records(steps: int) -> str:
    """Write a metrics.jsonl as a run does, with two losses and validations of two guesses and the network."""
    kind, errors = {"kind": "validation", "dataset": "d"}, {"mse": 0.1, "gradient": 9.0, "connectivity": 9.0}
    lines: list[dict[str, object]] = [
        {**kind, "step": 0, "what": what, "sad": sad, **errors}
        for what, sad in (("unknown = 0.5", 22.0), ("trimap alone", 21.0))
    ]
    for step in range(10, steps + 1, 10):
        lines.append({
            "kind": "train", "step": step, "loss": 3 / step, "losses": {"<i>l1</i>": 1 / step, "laplacian": 2 / step},
            "gradient": 1.0, "rate": 1e-3, "crops_per_second": 60.0, "waiting": 0.01, "memory": 7e8, "seconds": step,
        })  # fmt: skip
        if step % 100 == 0:
            best = {"best": True} if step <= 200 else {}
            scores = {"sad": 5 + abs(step - 200) / 100, "mse": 0.01, "gradient": 3.0, "connectivity": 4.0}
            lines.append({**kind, "step": step, "what": "network", **scores, **best})
    return "".join(json.dumps(line) + "\n" for line in lines)


def test_it_is_drawn_anew_once_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a dataset without a validation split; a finished one does not load itself again."""
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    page = RunPage(tmp_path, "{}")
    (tmp_path / "metrics.jsonl").write_text(records(10))
    page.refresh(1000, 90.0)
    first = (tmp_path / "index.html").read_text()
    assert f'data-every="{EVERY}"' in first
    assert " of 1,000, 1:30 min to go at this pace" in first
    (tmp_path / "metrics.jsonl").write_text(records(20))
    now += EVERY - 1
    page.refresh(1000, 90.0)
    assert (tmp_path / "index.html").read_text() == first
    now += 1
    page.refresh(1000, 90.0)
    assert (tmp_path / "index.html").read_text() != first
    page.write("Finished.")
    assert 'data-every="0"' in (tmp_path / "index.html").read_text()


def test_a_long_run_is_thinned_and_keeps_its_end(tmp_path: Path) -> None:
    """As many points as a screen can show, the last one among them."""
    (tmp_path / "metrics.jsonl").write_text(records(40_000))
    RunPage(tmp_path, "{}").write("Running.")
    points = page_data(tmp_path / "index.html")["charts"][0]["series"][0]["points"]
    assert len(points) <= MOST_POINTS + 1
    assert points[-1][0] == 40_000


def test_an_update_of_the_program_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its templates may name what the program that runs does not give; what else is wrong with a page is found here."""
    monkeypatch.setattr("matting_compose.trainer.training.run_page.TITLES", "no mapping")  # as another version's is
    (tmp_path / "metrics.jsonl").write_text(records(100))
    RunPage(tmp_path, "{}").write("Running.")
    assert "was the program updated meanwhile?" in caplog.text


def test_panels_are_titled_by_what_is_learned(tmp_path: Path) -> None:
    """Of a trimap network: the true trimap, its own, and alpha."""
    (tmp_path / "panels").mkdir()
    (tmp_path / "panels" / "step-000001.png").touch()
    for text, titles in (
        (records(200), "trimap alpha true alpha error × 4"),
        (records(200).replace('"sad"', '"trimap_error"'), "true trimap trimap true alpha error"),
    ):
        (tmp_path / "metrics.jsonl").write_text(text)
        RunPage(tmp_path, "{}").write("Finished.")
        columns = (tmp_path / "index.html").read_text().partition('class="columns">')[2].partition("</div>")[0]
        assert re.sub("<.*?>", " ", columns).split() == ["composite", *titles.split()]


def test_in_a_browser(tmp_path: Path, whole: Path, page: Browser) -> None:
    """Values under the pointer and the arrow keys, panels through time, wide and narrow, and nothing from elsewhere."""
    (tmp_path / "metrics.jsonl").write_text(records(400))
    shutil.copytree(whole / "panels", tmp_path / "panels")
    RunPage(tmp_path, '{"a": "<b>"}').write("Finished.")
    address = (tmp_path / "index.html").as_uri()
    page.open(address)
    assert all(url.startswith(tmp_path.as_uri()) for url in page.requests)
    assert page.evaluate("document.querySelectorAll('#charts figure').length") == 7
    assert page.evaluate("document.querySelectorAll('#charts i i, #charts i b').length") == 0  # names are no HTML
    assert page.evaluate("document.querySelectorAll('.mark').length") == 1
    legend = "document.querySelectorAll('#charts .legend')[1].textContent"
    assert page.evaluate(legend).startswith("step 400network 7")
    page.evaluate("document.querySelectorAll('#charts svg')[1].focus()")
    page.press("ArrowLeft")
    assert page.evaluate(legend).startswith("step 300network 6")
    assert page.evaluate("document.getElementById('panel').naturalWidth") == 1280
    page.evaluate("const t = document.getElementById('time'); t.value = 0; t.dispatchEvent(new Event('input'))")
    assert page.evaluate("document.getElementById('panel').src").endswith("step-0000004.png")
    assert page.evaluate("location.hash") == "#step-0000004.png"
    assert find_faults(page, address) == []
