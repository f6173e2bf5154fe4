"""Workers: processes that are used again."""

from __future__ import annotations

from pathlib import Path

import pytest

from matting_compose.composer.base.workers import run_in_processes


def test_workers_follow_their_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths are relative to the folder of whoever asks, however often workers were used before."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name.txt").write_text(name)
        monkeypatch.chdir(tmp_path / name)
        assert list(run_in_processes(Path.read_text, [Path("name.txt")] * 4, 4, 2)) == [name] * 4
