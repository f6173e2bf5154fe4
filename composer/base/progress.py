"""Progress: how long jobs say how far they are."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[str, int, int], None]  # what is done, how much of it, of how much
