"""Check a background: whether a build can read it, asked of the code that builds."""

from __future__ import annotations

from ..base.errors import SourceError
from ..sources.backgrounds import BackgroundLayout


def background_error(layout: BackgroundLayout, name: str) -> SourceError | None:
    """Return why a background cannot be decoded; None where it can."""
    try:
        layout.load(name)
    except SourceError as error:
        return error
    return None
