"""Pages: what they have in common; each is opened in a browser by the tests of what it shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import Browser, find_axe, find_faults


def test_faults_of_a_page_are_found(tmp_path: Path, page: Browser) -> None:
    """A page that is too wide for a phone, and one that a screen reader cannot read: else no page's test means much."""
    if find_axe() is None:
        pytest.skip("axe-core-python is not installed: no test looks for what keeps people from using a page")
    head = "<!doctype html><html lang=en><title>t</title><meta name=viewport content=width=device-width>"
    (tmp_path / "good.html").write_text(f"{head}<main><h1>t</h1>")
    (tmp_path / "bad.html").write_text(f"{head}<main style=width:500px><h1>t</h1><img src=data:,>")
    assert find_faults(page, (tmp_path / "good.html").as_uri()) == []
    faults = find_faults(page, (tmp_path / "bad.html").as_uri())
    assert [fault[:23] for fault in faults if "wide" in fault] == ["390 px, light: 509 px w", "390 px, dark: 509 px wi"]
    assert sum("alternat" in fault for fault in faults) == 2
