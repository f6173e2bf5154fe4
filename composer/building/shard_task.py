"""Shard task: everything that a worker needs to render one shard. It travels by pickle and holds no pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..compositing.blending import Fit
from ..compositing.compose import PreparedForeground, PreparedPicture
from ..compositing.trimaps import Trimap
from ..dataset.rows import Header, Look
from ..sources.backgrounds import Background, BackgroundLayout
from ..sources.foregrounds import Entry, ForegroundLayout
from ..sources.trimap_files import SuppliedTrimaps
from .background_reader import known_backgrounds
from .look_reader import LookPictures, read_look
from .plan import Cell, Plan, ShardPlan, Strip


@dataclass(frozen=True)
class ShardTask:
    """One shard to render.

    Attributes
    ----------
    folder : Path
        Of the shards.
    counters : Path
        See `counters.Counters`.
    shard : ShardPlan
        What it holds.
    header : Header
        How it is written.
    entries : dict[int, Entry]
        Its foregrounds, by number.
    looks : dict[int, Look]
        By group.
    partners : dict[str, Entry]
        The foregrounds that stand behind in its looks and scenes, by key.
    cells : list[Cell]
        Its composites.
    foreground_layout, background_layout : ForegroundLayout, BackgroundLayout
        Where pictures come from.
    fit, trimap : Fit, Trimap
        The recipe's tables.
    supplied : SuppliedTrimaps or None
        Where trimaps come from that are not drawn.
    keep_backgrounds : bool
        Whether a process keeps the backgrounds that it has decoded for its other shards.
    retry : bool
        Whether an earlier version of the shard lacks composites.
    """

    folder: Path
    counters: Path
    shard: ShardPlan
    header: Header
    entries: dict[int, Entry]
    looks: dict[int, Look]
    partners: dict[str, Entry]
    cells: list[Cell]
    foreground_layout: ForegroundLayout
    background_layout: BackgroundLayout
    fit: Fit
    trimap: Trimap
    supplied: SuppliedTrimaps | None
    keep_backgrounds: bool
    retry: bool

    def key(self, cell: Cell) -> str:
        """Return a composite's key."""
        return f"{self.entries[cell.foreground].key}_{cell.variant}"

    def keys(self, strip: Strip) -> list[str]:
        """Return the keys of a group's composites."""
        return [f"{self.entries[strip.foreground].key}_{variant}" for variant in strip.variants]

    def read_look(self, foreground: int, group: int) -> LookPictures:
        """Read a group's pictures."""
        return read_look(self.foreground_layout, self.entries[foreground], self.looks[group], self.partners)

    def load_background(self, name: str) -> Background:
        """Read a background, unless this process has it of an earlier shard."""
        known = known_backgrounds(self.counters) if self.keep_backgrounds else {}
        if name not in known:
            known[name] = self.background_layout.load(name)
        return known[name]

    def prepare(self, foreground: int, pictures: LookPictures) -> PreparedPicture:
        """Make a group's pictures ready: a foreground to be composed, a picture as it is for its trimaps."""
        entry = self.entries[foreground]
        if not entry.composed:
            return PreparedPicture(pictures.image, pictures.alpha, self.trimap, name=entry.image)
        return PreparedForeground(pictures.image, pictures.alpha, self.fit, self.trimap, name=entry.image)


def make_task(
    plan: Plan, shard: ShardPlan, folder: Path, counters: Path, *, keep_backgrounds: bool, retry: bool
) -> ShardTask:
    """Take out of a plan what one shard needs; see `ShardTask`."""
    recipe = plan.recipe
    looks = {strip.group: plan.look(strip.group) for strip in shard.strips}
    cells = list(plan.cells(shard))
    partners = {look.partner for look in looks.values()} | {one.key for cell in cells for one in cell.distractors}
    return ShardTask(
        folder=folder.absolute(),
        counters=counters,
        shard=shard,
        header=Header(
            plan_sha256=plan.sha256,
            index=shard.index,
            split=shard.split,
            packing=recipe.shards.packing,
            quality=recipe.shards.quality,
            tile=recipe.shards.tile,
            background=recipe.shards.background,
        ),
        entries={strip.foreground: plan.foregrounds[strip.foreground] for strip in shard.strips},
        looks=looks,
        partners={entry.key: entry for entry in plan.foregrounds if entry.key in partners},
        cells=cells,
        foreground_layout=plan.foreground_layout,
        background_layout=plan.background_layout,
        fit=recipe.fit,
        trimap=recipe.trimap,
        supplied=plan.supplied_trimaps,
        keep_backgrounds=keep_backgrounds,
        retry=retry,
    )
