"""Check a foreground: what a build would make of it, asked of the code that builds. For the doctor and for dry runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..base.errors import SourceError
from ..compositing.compose import PreparedPicture
from ..compositing.trimaps import Trimap, trimap_strategy
from ..dataset.rows import UNKNOWN
from ..sources.foregrounds import Entry, ForegroundLayout
from ..sources.trimap_files import SuppliedTrimaps
from .look_reader import read_look
from .plan import Plan

NEARLY_BINARY = 0.002  # share of fractional pixels under which a matte is a mask


FEW = 64  # px of the unknown region, under which some look or trimap may have none


@dataclass(frozen=True)
class ForegroundCheck:
    """What is found in one foreground.

    Attributes
    ----------
    error : SourceError or None
        Why it cannot be read.
    never_opaque, never_clear, nearly_binary : bool
        What may be a mistake, by the recipe's thresholds.
    unknown : int
        Pixels of the unknown region where it is smallest; 0 where trimaps are supplied.
    """

    error: SourceError | None
    never_opaque: bool = False
    never_clear: bool = False
    nearly_binary: bool = False
    unknown: int = 0


def check_foreground(layout: ForegroundLayout, settings: Trimap, supplied: bool, entry: Entry) -> ForegroundCheck:
    """Read a foreground as a build does, and judge its alpha by what training needs of it.

    Parameters
    ----------
    layout : ForegroundLayout
        Where it lies.
    settings : Trimap
        The recipe's table.
    supplied : bool
        Whether trimaps are files.
    entry : Entry
        The foreground.
    """
    try:
        alpha = layout.load(entry).alpha
    except SourceError as error:
        return ForegroundCheck(error)
    opaque, clear = alpha >= settings.opaque, alpha <= settings.clear
    smallest = None if supplied else trimap_strategy(alpha, settings)(0.0, 0.0).trimap
    return ForegroundCheck(
        None,
        never_opaque=not opaque.any(),
        never_clear=not clear.any(),
        nearly_binary=bool(1 - (opaque | clear).mean() < NEARLY_BINARY),
        unknown=0 if smallest is None else int(np.count_nonzero(smallest == UNKNOWN)),
    )


def failing_variants(plan: Plan, number: int, check: ForegroundCheck) -> dict[int, SourceError]:
    """Return which composites of a readable foreground have no unknown region, by variant, and why.

    Parameters
    ----------
    plan : Plan
        What would be built.
    number : int
        The foreground's.
    check : ForegroundCheck
        What is known of it: one with a large unknown region is not looked at again.
    """
    recipe, failing = plan.recipe, {}
    if plan.supplied_trimaps or check.unknown > FEW / min(1.0, recipe.looks.scale[0]) ** 2:
        return {}
    entry, entries = plan.foregrounds[number], {entry.key: entry for entry in plan.foregrounds}
    for row in plan.rows:
        if row.foreground != number:
            continue
        try:
            read = read_look(plan.foreground_layout, entry, plan.look(row.group), entries)
        except SourceError:
            continue  # its partner's fault, which is told there
        foreground = PreparedPicture(read.image, read.alpha, recipe.trimap, name=entry.image)
        for variant in row.variants:
            try:
                foreground.draw_trimap(plan.cell(number, variant))
            except SourceError as error:
                failing[variant] = error
    return failing


def check_trimap(
    layout: ForegroundLayout, settings: Trimap, supplied: SuppliedTrimaps, place: tuple[Entry, int]
) -> SourceError | None:
    """Return why a supplied trimap, of a foreground's variant, cannot be used; None where it can."""
    entry, variant = place
    try:
        trimap, _ = supplied.load(entry.key, variant, layout.size(entry))
    except SourceError as error:
        return error
    if not (trimap == UNKNOWN).any():
        return SourceError(entry.image, "no-unknown", f"{supplied.name(entry.key, variant)} has no unknown region")
    return None
