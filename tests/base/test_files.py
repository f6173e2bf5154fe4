"""Files: written whole, whatever they are called."""

from __future__ import annotations

from pathlib import Path

from matting_compose.composer.base.files import write_text


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    """What is written meanwhile has a name of its own, which must not be longer than names can be."""
    path = tmp_path / f"{'ü' * 125}.json"  # 255 bytes
    write_text(path, "{}")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
