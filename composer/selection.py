"""Selection: which backgrounds a recipe takes, of those that its layout lists."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from .annotations import picture_identity, pictures_showing
from .errors import PlanError, SourceError
from .layouts import BackgroundLayout, background_layout
from .recipe import ProceduralBackgrounds, Recipe


def select_backgrounds(recipe: Recipe) -> tuple[list[str], list[tuple[str, str]]]:
    """List a recipe's backgrounds, in the layout's order, and those that it leaves out, each with the reason.

    Raises
    ------
    PlanError : they cannot be listed; the annotations are damaged, or speak of other pictures
    """
    layout, table = background_layout(recipe), recipe.backgrounds
    names = layout.names()
    if isinstance(table, ProceduralBackgrounds):
        return names, []
    unfit: dict[str, str] = {}
    if table.annotations is not None and names:
        changed = table.annotations.stat().st_mtime_ns if table.annotations.is_file() else 0
        known, showing = _remembered(table.annotations, changed, table.without)
        unfit |= _annotated(names, known, showing, table.without)
        if not any(picture_identity(name) in known for name in names):
            raise PlanError(
                f"{table.annotations}: knows none of the backgrounds ({names[0]} and so on);"
                " give the annotations of their year and set"
            )
    if table.min_side is not None:
        unfit |= _small(layout, [name for name in names if name not in unfit], table.min_side)
    return [name for name in names if name not in unfit], list(unfit.items())


@lru_cache(maxsize=1)  # a build plans twice, and COCO's file takes half a minute
def _remembered(path: Path, _changed: int, categories: tuple[str, ...]) -> tuple[set[str], set[str]]:
    return pictures_showing(path, categories)


def _annotated(names: Sequence[str], known: set[str], showing: set[str], categories: Sequence[str]) -> dict[str, str]:
    unfit = {}
    for name in names:
        picture = picture_identity(name)
        if picture in showing:
            unfit[name] = f"annotated with {' or '.join(categories)}"
        elif picture not in known:
            unfit[name] = "not in the annotations: nobody knows what it shows"
    return unfit


def _small(layout: BackgroundLayout, names: Sequence[str], least: int) -> dict[str, str]:
    unfit = {}
    for name in names:
        try:
            height, width = layout.size(name)
        except SourceError:
            continue  # it stays in the plan, fails when it is rendered, and is listed there
        if min(height, width) < least:
            unfit[name] = f"{width}×{height} px, under min_side = {least}"
    return unfit
