"""Distractor reader: the foregrounds that stand in others' scenes, each read once for as long as there is room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from ..compositing.scenes import Distractor
from ..dataset.documents import InputRecord
from ..sources.foregrounds import Entry, ForegroundLayout
from ..sources.image_io import Foreground
from .look_reader import name_files

MOST_PIXELS = 16_000_000  # that are kept, at 4 bytes each


class DistractorReader:
    """Read distractors; the one used longest ago is forgotten first.

    Parameters
    ----------
    layout : ForegroundLayout
        Where they lie.
    entries : Mapping[str, Entry]
        By key, at least those that are asked for.
    """

    def __init__(self, layout: ForegroundLayout, entries: Mapping[str, Entry]) -> None:
        self._layout, self._entries = layout, entries
        self._known: OrderedDict[str, Foreground] = OrderedDict()
        self._pixels = 0

    def read(self, distractors: Sequence[Distractor]) -> tuple[list[Foreground], dict[str, InputRecord]]:
        """Read a composite's distractors; return them, and their files by the names that sidecars give.

        Raises
        ------
        SourceError
            One of them cannot be read.
        """
        found: list[Foreground] = []
        files: dict[str, InputRecord] = {}
        for distractor in distractors:
            foreground = self._load(distractor.key)
            files |= name_files(self._entries[distractor.key], foreground)
            found.append(foreground)
        return found, files

    def _load(self, key: str) -> Foreground:
        foreground = self._known.get(key)
        if foreground is None:
            foreground = self._known[key] = self._layout.load(self._entries[key])
            self._pixels += foreground.alpha.size
            while self._pixels > MOST_PIXELS and len(self._known) > 1:
                self._pixels -= self._known.popitem(last=False)[1].alpha.size
        self._known.move_to_end(key)
        return foreground
