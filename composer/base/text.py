"""Text: names, counts, sizes and times as people read them, on the terminal and in reports alike."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence

CLOSE = 0.5  # of 1: erosion is close to erode


MARKS = "=+-@\t\r"  # what makes a spreadsheet take a cell for a formula


def escape(text: str) -> str:
    r"""Make a name safe to print: what would move the cursor, colour or reorder a line is escaped.

    Examples
    --------
    >>> print(escape("a\x1b[31mb"))
    a\x1b[31mb
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def escape_lines(text: str) -> str:
    """Make a message safe to print; its lines stay lines."""
    return "\n".join(map(escape, text.split("\n")))


def escape_cell(text: str) -> str:
    """Make a name safe in a table's cell: spreadsheets take what begins with a sign for a formula."""
    return f"'{escape(text)}" if text.startswith(tuple(MARKS)) else escape(text)


def list_briefly(names: Sequence[str], most: int) -> str:
    """Name the first of them, and say how many more there are."""
    listed = ", ".join(names[:most])
    return listed if len(names) <= most else f"{listed} and {len(names) - most:,} more"


def count_of(number: int, noun: str) -> str:
    """Say how many there are of what a noun in the singular names; ``y`` and ``s`` endings are known, no other.

    Examples
    --------
    >>> count_of(1, "composite"), count_of(1200, "cut-out"), count_of(0, "entry")
    ('1 composite', '1,200 cut-outs', '0 entries')
    """
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def are(number: int) -> str:
    """Return the verb that goes with a count: is or are."""
    return "is" if number == 1 else "are"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Ask for the known name that is nearest, with a space after it; nothing where none is near.

    Examples
    --------
    >>> did_you_mean("demmo", ["demo", "modern"])
    "did you mean 'demo'? "
    """
    near = difflib.get_close_matches(name, list(known), 1, CLOSE)
    return f"did you mean '{near[0]}'? " if near else ""


def fold_name(name: str) -> str:
    """Return what is left of a name on systems where case, and the way accents are coded, do not count."""
    return unicodedata.normalize("NFC", name).casefold()


def format_size(count: float) -> str:
    """Say a number of bytes."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def format_duration(seconds: float) -> str:
    """Say a number of seconds."""
    rounded = round(seconds)
    if rounded < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{rounded} s"
    hours, rest = divmod(rounded, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02} min"
