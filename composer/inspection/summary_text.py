"""Summary text: a summary in lines, for the terminal and the report alike."""

from __future__ import annotations

from collections.abc import Iterator

from ..base.text import format_size
from .summary import Distribution, Summary

BLOCKS = "▁▂▃▄▅▆▇█"


def list_lines(summary: Summary) -> Iterator[tuple[str, str, Distribution | None]]:
    """Yield a summary's lines: what each is about, what is to be said, and how it is spread where it is."""
    s = summary
    weighted = "" if s.planned == s.foregrounds * s.recipe["variants"] else " by weight"
    variants = f"{s.recipe['variants']} variants{weighted}"
    over = f"over {s.backgrounds:,} backgrounds" if s.backgrounds else "as they are"
    matrix = f"{s.foregrounds:,} foregrounds × {variants} {over}"
    yield "composites", f"{s.composites:,} of {s.planned:,} planned: {matrix}", None
    if s.as_they_are:
        yield "as they are", f"{s.as_they_are:,} of them are pictures that were not composed, with a trimap each", None
    each = f", {s.bytes / s.composites / 1e3:,.0f} kB a composite" if s.composites else ""
    packing = s.recipe["shards"]["packing"]
    yield "shards", f"{s.shards:,}, {format_size(s.bytes)}{each}; packed {s.packing_ratio:.2f} to 1 ({packing})", None
    if s.absent:
        names = ", ".join(s.absent[:3]) + (" …" if len(s.absent) > 3 else "")
        yield "absent", f"{len(s.absent):,} shards are missing or of another size: {names}", None
    splits = (
        f"{name} {split.composites:,} composites of {split.foregrounds:,} foregrounds in {split.shards:,} shards"
        for name, split in s.splits.items()
    )
    yield "splits", "; ".join(splits), None
    smallest, median, largest = (f"{width}×{height}" for width, height in (s.smallest, s.median, s.largest))
    yield "sizes", f"{smallest} to {largest} px, median {median}", s.megapixels
    looked = "all looked at" if s.looked_at == s.composites else f"{s.looked_at:,} looked at"
    if s.unknown:
        yield "unknown", f"{describe(s.unknown, '.1%')} of a composite; {looked}", s.unknown
    if s.alpha and s.fractional:
        a = s.alpha
        shares = f"opaque {a.opaque:.1%}, clear {a.clear:.1%}, fractional {a.fractional:.1%}".replace("%", " %")
        yield "alpha", f"{shares}, on average", None
        yield "fractional", f"{describe(s.fractional, '.1%')} of a foreground", s.fractional
    if s.enlargement:
        share = s.enlarged / s.enlargement.count
        worst = f"{s.strongly_enlarged:,} composites more than 4×"
        yield "enlarged", f"{100 * share:.1f} % of backgrounds, up to {s.enlargement.most:.2f}×; {worst}", s.enlargement
    if s.erode and s.dilate:
        yield "eroded", f"{describe(s.erode, '.0f')} px", s.erode
        yield "dilated", f"{describe(s.dilate, '.0f')} px", s.dilate
    causes = ", ".join(f"{count:,} × {cause}" for cause, count in s.failures.items())
    yield "failures", f"{sum(s.failures.values()):,} composites: {causes}" if s.failures else "none", None
    if s.excluded:
        yield "left out", f"{s.excluded:,} pictures", None
    for note in s.sources:
        yield "sources", f"{note.what}: {'; '.join(filter(None, (note.licence, note.attribution)))}", None
    trimap = s.recipe["trimap"]
    alphas = f"opaque from {trimap['opaque']}, clear to {trimap['clear']}"
    stored = s.recipe["shards"]["background"]
    recipe = f"seed {s.recipe['seed']}, trimap {trimap['strategy']}, {alphas}, backgrounds stored: {stored}"
    yield "recipe", recipe, None
    yield "plan", s.plan_sha256, None
    yield "content", s.sha256, None
    yield "made with", ", ".join(f"{name} {version}" for name, version in s.made_with.items()), None


def describe(figures: Distribution, form: str) -> str:
    """Say a distribution in a few words: the median, where nine of ten lie, the least and the most."""

    def text(value: float) -> str:
        return f"{value:{form}}".replace("%", " %")

    f = figures
    return f"median {text(f.median)}, 90 % in {text(f.low)} – {text(f.high)}, all in {text(f.least)} – {text(f.most)}"


def draw_bars(figures: Distribution) -> str:
    """Draw a histogram a line high."""
    most = max(figures.counts)
    # A bin that is not empty shows, however few it holds.
    return "".join(" " if not n else BLOCKS[min(7, 8 * n // (most + 1))] for n in figures.counts)
