"""The report: one file that says what the summary says, in a real browser, and in which no name can do harm."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, find_faults

from conftest import Pictures, call, decode_webp, page_data, save, soft_disc
from matting_compose.composer import open_dataset
from matting_compose.composer.inspection.html_report import THUMBNAIL, WORST, write_report
from matting_compose.composer.inspection.panel import find_detail

HOSTILE = """x"'><img src=x onerror=document.title=1> </script><!-- ü \u202e""".replace("/", "\u2215")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a dataset whose names are HTML, with a picture that fails, and write its report."""
    pictures = Pictures.make(tmp_path_factory.mktemp("html") / "pictures")
    foreground, alpha = soft_disc(60, 60, 9)
    save(pictures.cutouts / "plain.png", np.dstack([foreground, alpha]))
    (pictures.cutouts / "plain.png").rename(pictures.cutouts / f"{HOSTILE}.png")
    (pictures.cutouts / f"broken {HOSTILE}.png").write_bytes(b"no picture")
    photo = pictures.photos / "COCO_000000000000.jpg"
    photo.rename(photo.with_name(f"{HOSTILE}.jpg"))
    out = pictures.root / "<b>&amp; dataset"
    assert call(*pictures.arguments(out, "-j", "1")).code == 3
    done = call("inspect", str(out), "--report", str(pictures.root / "report.html"))
    assert done.code == 0, done.err
    return pictures.root / "report.html"


def test_a_report_is_one_file(hostile: Path) -> None:
    """It refers to nothing outside itself, says who may run in it, and names what failed, escaped."""
    text = hostile.read_text(encoding="utf-8")
    markup = re.sub(r"<script.*?</script>|<style.*?</style>", "", text, flags=re.DOTALL)
    assert not re.findall(r"(?:src|href)\s*=", markup.replace("img src=x", ""))
    assert "default-src 'none'" in markup
    assert "<img" not in markup
    assert "&lt;img src=x" in markup
    assert "not-an-image" in markup
    assert {cell["key"] for cell in page_data(hostile)["cells"]} == {
        row.key for row in open_dataset(hostile.parent / "<b>&amp; dataset").rows()
    }


def test_no_file_of_the_dataset_is_replaced(finished: Path) -> None:
    """Neither by a report nor by a panel, by whatever name."""
    plan = (finished / "plan.json").read_bytes()
    sheet = next(finished.glob("*.png"), None) or next(finished.glob("*.jpg"))
    for options in (["--report", "shards/../plan.json"], ["--show", "0", "-o", sheet.name]):
        done = call("inspect", str(finished), *options[:-1], str(finished / options[-1]))
        assert (done.code, "would replace its own input" in done.err) == (1, True)
    assert (finished / "plan.json").read_bytes() == plan


def test_worst_cases_come_first(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest and smallest unknown regions and the strongest enlargements are those of all composites."""
    monkeypatch.setattr("matting_compose.composer.inspection.html_report.WORST", 2)
    monkeypatch.setattr("matting_compose.composer.inspection.html_report.CELLS", 8)
    write_report(finished, tmp_path / "r.html")
    cells = page_data(tmp_path / "r.html")["cells"]
    samples = list(open_dataset(finished))
    unknown = {sample.row.key: float((sample.trimap == 128).mean()) for sample in samples}
    scales = {sample.row.key: sample.row.scale for sample in samples}

    def flagged(why: str) -> set[str]:
        return {cell["key"] for cell in cells if why in cell["why"]}

    def extremes(figures: dict[str, float], sign: int) -> set[str]:
        order = sorted(figures, key=lambda key: sign * figures[key])
        own = {key.rpartition("_")[0]: key for key in reversed(order)}
        return set(sorted(own.values(), key=order.index)[:2])

    assert flagged("smallest unknown region") == extremes(unknown, 1)
    assert flagged("largest unknown region") == extremes(unknown, -1)
    assert flagged("strongest enlargement") == extremes(scales, -1)
    assert all(cell["why"] for cell in cells[:4])
    assert {cell["foreground"] for cell in cells} == {sample.row.foreground for sample in samples}
    assert WORST > 2


def test_the_finest_detail_is_shown_as_it_is(tmp_path: Path) -> None:
    """Of a picture that is larger than its thumbnail: where hair is, pixel by pixel; the cut-out has the alpha, too."""
    pictures = Pictures.make(tmp_path / "pictures")
    for path in pictures.cutouts.iterdir():
        path.unlink()
    colours = np.full((600, 800, 3), 90, np.uint8)
    alpha = np.zeros((600, 800), np.uint8)
    alpha[100:300, 100:300] = 255
    alpha[400:500:3, 600:700] = 128
    save(pictures.cutouts / "hairy.png", np.dstack([colours, alpha]))
    out = tmp_path / "dataset"
    assert call(*pictures.arguments(out, "-j", "1")).code == 0
    write_report(out, tmp_path / "report.html")
    data = page_data(tmp_path / "report.html")
    cell = data["cells"][0]
    sample = next(sample for sample in open_dataset(out) if sample.row.key == cell["key"])
    views = {**cell["detail"], **data["foregrounds"][cell["group"]]["detail"]}
    shown = {name: decode_webp(view) for name, view in views.items()}
    assert {picture.shape[:2] for picture in shown.values()} == {(THUMBNAIL, THUMBNAIL)}
    assert list(views) == ["composite", "trimap", "cutout"]
    y, x, _ = find_detail(sample.alpha, THUMBNAIL)
    assert y <= 400
    assert y + THUMBNAIL >= 500
    assert x <= 600
    assert x + THUMBNAIL >= 700
    window = np.s_[y : y + THUMBNAIL, x : x + THUMBNAIL]
    np.testing.assert_array_equal(shown["trimap"][..., 0], sample.trimap[window])
    np.testing.assert_allclose(shown["cutout"][..., 3], sample.alpha[window], atol=4)


def test_the_alpha_is_drawn_of_the_cutout(tmp_path: Path, page: Browser) -> None:
    """In grey, as it is stored, and nothing beside a picture that is not square."""
    pictures = Pictures.make(tmp_path / "pictures")
    for path in pictures.cutouts.iterdir():
        path.unlink()
    ramp = np.broadcast_to(np.linspace(0, 255, 200).round().astype(np.uint8), (100, 200))
    save(pictures.cutouts / "ramp.png", np.dstack([np.full((100, 200, 3), (200, 30, 90), np.uint8), ramp]))
    out = tmp_path / "dataset"
    assert call(*pictures.arguments(out, "-j", "1")).code == 0
    write_report(out, tmp_path / "report.html")
    page.open((tmp_path / "report.html").as_uri())
    page.press("3")
    page.evaluate("document.querySelector('#sheet img').scrollIntoView()")
    page.evaluate("document.querySelector('form').hidden = true")
    assert page.becomes("document.querySelector('#sheet img').complete")
    box = page.evaluate("document.querySelector('#sheet img').getBoundingClientRect().toJSON()")
    top, left = page.evaluate("[scrollY, scrollX]")
    clip = {"x": left + box["left"], "y": top + box["top"], "width": box["width"], "height": box["height"], "scale": 1}
    drawn = decode_webp(page.command("Page.captureScreenshot", clip=clip)["data"])[..., :3].astype(int)
    height, width = drawn.shape[:2]
    inside = slice(4, width - 4)  # a border of the picture may lie within a pixel
    middle, above = drawn[height // 2, inside], drawn[height // 8, inside]
    assert np.abs(middle - np.linspace(0, 255, width)[inside, None]).max() <= 6
    assert np.ptp(above, axis=0).max() == 0
    assert above.any()


def test_in_a_browser(hostile: Path, tmp_path: Path, page: Browser) -> None:
    """It draws itself, loads nothing, runs no name; views, filter, dialog and keys work; it fits any screen."""
    shutil.copy(hostile, tmp_path / "report.html")
    page.open((tmp_path / "report.html").as_uri())
    assert [url for url in page.requests if not url.startswith("data:")] == [(tmp_path / "report.html").as_uri()]
    assert page.evaluate("document.title").startswith("<b>&amp; dataset")
    assert page.evaluate("document.querySelectorAll('img[src=x]').length") == 0
    count = page.evaluate("document.querySelectorAll('#sheet li').length")
    assert count == 24
    assert page.evaluate(
        "Promise.all([...document.images].map(i => i.decode())).then(() => "
        "[...document.images].every(i => i.naturalWidth > 1))"
    )

    page.press("2")
    assert page.evaluate("[...document.querySelectorAll('#sheet img')].every(i => i.alt === 'trimap')")
    page.press("4")
    assert page.evaluate("document.querySelector('#sheet img').className") == "cutout"
    page.evaluate("const f = document.forms[0].elements.filter; f.value = 'onerror';"
                  "f.dispatchEvent(new Event('input', {bubbles: true}))")  # fmt: skip
    assert page.evaluate("document.querySelectorAll('#sheet li').length") == 4
    assert page.evaluate("document.getElementById('status').textContent").startswith("4 of 24")

    page.evaluate("document.querySelector('#sheet button').focus()")
    page.press("Enter")
    assert page.evaluate("document.getElementById('one').open")
    first = page.evaluate("document.getElementById('key').textContent")
    assert "<img src=x" in first
    page.press("ArrowRight")
    second = page.evaluate("document.getElementById('key').textContent")
    assert second != first
    assert page.evaluate("document.querySelectorAll('#facts dd').length") == 6
    page.press("Escape")
    assert not page.evaluate("document.getElementById('one').open")
    assert page.becomes(f"document.activeElement.textContent.startsWith({json.dumps(second)})")

    address = (tmp_path / "report.html").as_uri()
    assert find_faults(page, address) == []
    assert find_faults(page, address, "document.querySelector('#sheet button').click()") == []


def test_a_name_that_got_through_would_still_not_run(hostile: Path, tmp_path: Path, page: Browser) -> None:
    """The page's policy refuses any script but its own, inline handlers and connections included."""
    text = hostile.read_text(encoding="utf-8")
    planted = "<img src=x onerror=\"document.title='ran'\"><script>document.title='ran'</script>"
    (tmp_path / "planted.html").write_text(text.replace("<main>", f"<main>{planted}"), encoding="utf-8")
    page.open((tmp_path / "planted.html").as_uri())
    assert page.evaluate("document.title") != "ran"
    assert any("Content Security Policy" in error for error in page.errors)
