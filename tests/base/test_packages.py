"""Extras that are missing: the command that is named installs them from where this package came from."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest

from matting_compose.composer.base.errors import MattingComposeError
from matting_compose.composer.base.packages import install_command, require_packages


class Installed:
    def __init__(self, origin: dict[str, object] | None) -> None:
        self.origin = origin

    def read_text(self, name: str) -> str | None:
        return None if self.origin is None else json.dumps(self.origin)


def test_the_command_names_where_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout, editable or not; a repository; an index; a checkout that is gone."""
    here = {"url": tmp_path.as_uri(), "dir_info": {"editable": True}}
    for origin, command in (
        (here, f"pip install --editable '{tmp_path}[train]'"),
        (here | {"dir_info": {}}, f"pip install '{tmp_path}[train]'"),
        ({"url": "https://a/b.git", "vcs_info": {"vcs": "git"}},
         "pip install 'matting-compose[train] @ git+https://a/b.git'"),
        (None, "pip install 'matting-compose[train]'"),
        ({"url": (tmp_path / "gone").as_uri(), "dir_info": {}}, "pip install 'matting-compose[train]'"),
    ):  # fmt: skip
        monkeypatch.setattr(importlib.metadata, "distribution", lambda _, origin=origin: Installed(origin))
        assert install_command("train") == command


def test_what_is_missing_is_named_with_the_way_to_get_it() -> None:
    """All of it at once."""
    require_packages("json", extra="train")
    with pytest.raises(MattingComposeError, match=r"needs nowhere_1 and nowhere_2, .* pip install .*\[train\]'"):
        require_packages("json", "nowhere_1", "nowhere_2", extra="train")
