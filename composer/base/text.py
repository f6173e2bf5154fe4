"""Text: figures as people read them, for the terminal and the report alike."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def escape(text: str) -> str:
    """Make a name safe to print: what would move the cursor, colour or reorder a line is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def list_briefly(names: Sequence[str], most: int) -> str:
    """Name the first of them, and say how many more there are."""
    listed = ", ".join(names[:most])
    return listed if len(names) <= most else f"{listed} and {len(names) - most:,} more"


def fold_name(name: str) -> str:
    """Return what is left of a name on systems where case, and the way accents are coded, do not count."""
    return unicodedata.normalize("NFC", name).casefold()


def format_size(count: float) -> str:
    """Say a number of bytes."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def format_duration(seconds: float) -> str:
    """Say a number of seconds."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02} min"
