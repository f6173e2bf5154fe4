"""Background reader: backgrounds that a process decodes once for all of its shards, where all of them fit."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from ..base.errors import SourceError
from ..sources.backgrounds import Background, BackgroundLayout

MOST_BYTES = 256_000_000  # of decoded backgrounds, in each process


def all_fit(layout: BackgroundLayout, names: Iterable[str]) -> bool:
    """Tell by their headers whether backgrounds take at most `MOST_BYTES` together, at three bytes a pixel.

    Of more of them none is kept: most would be decoded again for every shard all the same.
    """
    room = MOST_BYTES
    for name in names:
        try:
            height, width = layout.size(name)
        except SourceError:
            continue  # it cannot be decoded either
        room -= height * width * 3
        if room < 0:
            return False
    return True


@lru_cache(maxsize=1)
def known_backgrounds(build: Path) -> dict[str, Background]:
    """Return what this process has decoded for a build, of which `build` is a path; another build's is forgotten."""
    return {}
