"""Doctor: which of a recipe's pictures are missing or odd, found before anything is rendered. Nothing is written.

Every picture is read as a build reads it, in parallel: what cannot be made then is told here.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar
from unicodedata import normalize

from ..base.errors import PlanError, SourceError
from ..base.progress import OnProgress, Progress
from ..base.text import fold_name
from ..base.workers import run_in_processes
from ..recipe import ListBackgrounds, Recipe
from ..sources.backgrounds import Photographs, background_layout, select_backgrounds
from ..sources.coco import coco_names
from ..sources.foregrounds import Cutouts, Dim, Entry, ForegroundLayout, Pairs, Several, foreground_layout
from ..sources.listings import document_name, list_pictures, say_once
from ..sources.probe import ENDINGS
from ..sources.trimap_files import supplied_trimaps
from .check_background import background_error
from .check_foreground import ForegroundCheck, check_foreground, check_trimap, failing_variants
from .make_plan import make_plan, variant_count
from .plan import Plan

CHUNK = 256  # pictures that a worker looks at between two reports


FEW = 512  # fewer pictures than this are looked at before a second process has started


T = TypeVar("T")


R = TypeVar("R")


@dataclass(frozen=True)
class Finding:
    """Something that is missing or odd.

    Attributes
    ----------
    kind : str
        A short, countable word.
    problem : bool
        Whether composites will be missing or others than meant; else it is only worth knowing.
    text : str
        A sentence.
    names : tuple[str, ...]
        Every picture that it is about, some with what was found instead.
    """

    kind: str
    problem: bool
    text: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor says.

    Attributes
    ----------
    foregrounds, variants, backgrounds : int
        How many the recipe has.
    composites : int or None
        How many there should be; None where the recipe and its pictures do not add up to a plan.
    lost : int or None
        How many of them cannot be made.
    findings : tuple[Finding, ...]
        Problems first.
    """

    foregrounds: int
    variants: int
    backgrounds: int
    composites: int | None
    lost: int | None
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not any(finding.problem for finding in self.findings)


@say_once()
def examine(recipe: Recipe, *, jobs: int = -1, on_progress: OnProgress | None = None) -> Diagnosis:
    """Look at everything that a build would read.

    Parameters
    ----------
    recipe : Recipe
        What would be built.
    jobs : int
        Worker processes; -1 for one per core.
    on_progress : OnProgress, optional
        Called as things are looked at.
    """
    case = _Case(recipe, jobs, on_progress or (lambda *_: None))
    entries = case.try_listing(lambda: foreground_layout(recipe).entries())
    plan, refusal = _try_plan(recipe)
    # Listing backgrounds may read annotations for half a minute: the plan has done it.
    names = list(plan.backgrounds) if plan else case.try_listing(lambda: select_backgrounds(recipe)[0])
    _examine_counts(case, entries, names)
    _examine_foregrounds(case, entries)
    _examine_backgrounds(case, names)
    _examine_trimaps(case, entries)
    if refusal and refusal not in {finding.text for finding in case.findings}:
        case.find("no-plan", refusal)
    if plan:
        _examine_unknown_regions(case, plan)
        left_out = [f"{source} ({reason})" for source, reason in plan.excluded]
        if left_out:
            case.find("left-out", f"pictures left out on purpose: {len(left_out):,}", left_out, problem=False)
    return Diagnosis(
        foregrounds=len(entries),
        variants=recipe.variants,
        backgrounds=len(names),
        composites=len(plan) if plan else None,
        lost=_count_lost(case, plan) if plan else None,
        findings=tuple(sorted(case.findings, key=lambda finding: not finding.problem)),
    )


@dataclass
class _Case:
    """What is examined, and what was found so far."""

    recipe: Recipe
    jobs: int
    report: OnProgress
    findings: list[Finding] = field(default_factory=list)
    checks: dict[str, ForegroundCheck] = field(default_factory=dict)  # of readable foregrounds, by key
    bad_foregrounds: set[str] = field(default_factory=set)  # keys
    bad_backgrounds: set[str] = field(default_factory=set)
    bad_composites: set[tuple[str, int]] = field(default_factory=set)  # (foreground's key, variant)

    def find(self, kind: str, text: str, names: Iterable[str] = (), *, problem: bool = True) -> None:
        """Note a finding."""
        self.findings.append(Finding(kind, problem, text, tuple(names)))

    def find_each(self, faults: Iterable[tuple[str, str]], what: str) -> None:
        """Note pictures that cannot be used: (cause, name and detail), one finding for each cause."""
        by_cause: dict[str, list[str]] = defaultdict(list)
        for cause, text in faults:
            by_cause[cause].append(text)
        for cause, texts in by_cause.items():
            self.find(cause, f"{what} that cannot be used ({cause}): {len(texts):,}", texts)

    def find_missing(self, what: str, missing: Sequence[str], there: Iterable[str]) -> None:
        """Note missing files, and which others may be meant: their names differ in case or ending only."""
        if not missing:
            return
        alike = defaultdict(list)
        for name in there:
            alike[_folded(name)].append(name)
        told = []
        for name in missing:
            meant = ", ".join(sorted(alike.get(_folded(name), [])))
            told.append(f"{name} (there is {meant})" if meant else name)
        near = sum(_folded(name) in alike for name in missing)
        hint = f"; there but for case or ending, so rename them: {near:,}" if near else ""
        self.find(f"missing-{what}", f"missing {what}s: {len(missing):,}{hint}", told)

    def find_unlisted(self, what: str, there: Iterable[str], used: set[str]) -> None:
        """Note pictures that nobody asks for."""
        composed = {normalize("NFC", name) for name in used}
        pictures = (name for name in there if Path(name).suffix.lower() in ENDINGS)
        rest = sorted(name for name in pictures if normalize("NFC", name) not in composed)
        if rest:
            self.find(f"unlisted-{what}", f"{what}s that no list names, not used: {len(rest):,}", rest, problem=False)

    def try_listing(self, listing: Callable[[], list[T]]) -> list[T]:
        """List pictures; what prevents it is a finding."""
        try:
            return listing()
        except PlanError as error:
            self.find("not-listed", str(error))
            return []

    def look(self, what: str, look: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Apply `look` to every item, in worker processes where there are many."""
        chunks = [items[i : i + CHUNK] for i in range(0, len(items), CHUNK)]
        jobs = 1 if len(items) < FEW else self.jobs
        done = 0
        for results in run_in_processes(partial(_look_at_all, look), chunks, len(chunks), jobs):
            done += len(results)
            self.report(Progress(what, done, len(items)))
            yield from results


def _try_plan(recipe: Recipe) -> tuple[Plan | None, str | None]:
    try:
        return make_plan(recipe), None
    except PlanError as error:
        return None, str(error)


def _look_at_all(look: Callable[[T], R], items: Sequence[T]) -> list[R]:
    return [look(item) for item in items]


def _folded(name: str) -> str:
    """Return what is left of a name when folder, ending, case and the way accents are coded do not count."""
    stem = name.rpartition("/")[2].rpartition(".")[0]
    return fold_name(stem)


def _examine_counts(case: _Case, entries: list[Entry], names: list[str]) -> None:
    """Compare the lists' lengths with what they should be."""
    recipe, wanted = case.recipe, 0
    for number, table in enumerate(recipe.foreground_tables):
        there = sum(entry.table == number for entry in entries)
        expected = getattr(table, "expected", None)
        if there and expected not in (None, there):
            case.find("foreground-count", f"listed foregrounds: {there:,}, expected {expected:,}")
        wanted += (expected or there) * variant_count(recipe, table) if table.compose else 0
    if names and recipe.pairing.order == "listed":
        if len(names) != wanted:
            # Too few is a plan's own error; with too many, a line too much somewhere shifts all that follow.
            case.find("background-count", f"listed backgrounds: {len(names):,}, expected {wanted:,}")
        twice = [f"{name} ({count} times)" for name, count in Counter(names).items() if count > 1]
        if twice:
            case.find("repeated", f"backgrounds listed more than once: {len(twice):,}", twice, problem=False)


# ---- foregrounds ----
def _examine_foregrounds(case: _Case, entries: list[Entry]) -> None:
    layout = foreground_layout(case.recipe)
    for number, part in enumerate(layout.layouts if isinstance(layout, Several) else (layout,)):
        own = [entry for entry in entries if entry.table == number]
        if isinstance(part, Dim | Pairs | Cutouts) and own:
            prefix = layout.prefix(number) if isinstance(layout, Several) else ""
            case.bad_foregrounds |= _examine_table(case, layout, part, prefix, own)


def _examine_table(
    case: _Case, layout: ForegroundLayout, part: Dim | Pairs | Cutouts, prefix: str, entries: list[Entry]
) -> set[str]:
    """Look at the foregrounds of one table, which `part` lists and `layout` calls by its `prefix`.

    Return the keys of those that cannot be used.
    """
    images, alphas = ({prefix + name for name in names} for names in _foreground_files(part))
    lost_images = [entry for entry in entries if not _is_there(layout, entry, 0)]
    case.find_missing("foreground", [entry.image for entry in lost_images], images)
    lost_alphas = []
    if not isinstance(part, Cutouts):
        lost_alphas = [entry for entry in entries if entry.alpha is None or not _is_there(layout, entry, 1)]
        case.find_missing("alpha", [entry.alpha or f"{entry.key}.*" for entry in lost_alphas], alphas)
        case.find_unlisted("alpha", alphas - images, {entry.alpha for entry in entries if entry.alpha})
    case.find_unlisted("foreground", images, {name for entry in entries for name in (entry.image, entry.alpha) if name})
    lost = {entry.key for entry in (*lost_images, *lost_alphas)}
    present = [entry for entry in entries if entry.key not in lost]
    faults, never_opaque = [], []
    supplied = supplied_trimaps(case.recipe) is not None
    checks = case.look("foregrounds", partial(check_foreground, layout, case.recipe.trimap, supplied), present)
    for entry, seen in zip(present, checks, strict=True):
        if seen.error is not None:
            faults.append((seen.error.cause, str(seen.error)))
            lost.add(entry.key)
            continue
        case.checks[entry.key] = seen
        if seen.never_opaque:
            never_opaque.append(entry.alpha or entry.image)
    case.find_each(faults, "foregrounds")
    if never_opaque:
        text = f"alphas that are never opaque (glass, smoke, a net, or a mistake): {len(never_opaque):,}"
        case.find("never-opaque", text, never_opaque, problem=False)
    return lost


def _is_there(layout: ForegroundLayout, entry: Entry, number: int) -> bool:
    """Tell whether one of a foreground's files, the picture or its alpha, lies where it will be read."""
    try:
        return layout.files(entry)[number].exists()
    except SourceError:
        return False


def _foreground_files(layout: Dim | Pairs | Cutouts) -> tuple[set[str], set[str]]:
    """List the pictures and the alphas that there are, by the names that entries have."""
    match layout:
        case Dim(table=table):
            kinds = ("fg", "alpha")
            images, alphas = (
                {f"{folder}/{kind}/{name}" for folder in table.folders for name in _files(table.root / folder / kind)}
                for kind in kinds
            )
            return images, alphas
        case Pairs(table=table):
            return set(list_pictures(table.images).names), set(list_pictures(table.alphas).names)
        case Cutouts(table=table):
            return set(list_pictures(table.root).names), set()


def _files(folder: Path) -> list[str]:
    """List the files of a folder; none where there is no such folder, for then each is reported as missing."""
    try:
        with os.scandir(folder) as found:
            return [document_name(item.name) for item in found if not item.is_dir()]
    except OSError:
        return []


# ---- backgrounds ----
def _examine_backgrounds(case: _Case, names: list[str]) -> None:
    layout = background_layout(case.recipe)
    if not isinstance(layout, Photographs) or not names:
        return
    if not layout.table.root.is_dir():
        case.find("no-folder", f"{layout.table.root}: no such folder; say where the backgrounds are: --backgrounds")
        case.bad_backgrounds |= set(names)
        return
    listed = isinstance(case.recipe.backgrounds, ListBackgrounds)
    there = set(list_pictures(layout.table.root).names) if listed else set(names)
    stored = {name: _stored_name(layout, name) for name in names}
    missing = [name for name, other in stored.items() if other is None]
    case.find_missing("background", missing, there)
    renamed = [f"{name} (there is {other})" for name, other in stored.items() if other in coco_names(name)[1:]]
    if renamed:
        text = f"backgrounds found under COCO's names of another year, the same pictures: {len(renamed):,}"
        case.find("coco-names", text, renamed, problem=False)
    left_out = {other for name in layout.names() if name not in stored for other in coco_names(name)}
    case.find_unlisted("background", there, left_out | {other for other in stored.values() if other})
    present = [name for name, other in stored.items() if other is not None]
    errors = list(case.look("backgrounds", partial(background_error, layout), present))
    case.find_each(((error.cause, str(error)) for error in errors if error), "backgrounds")
    case.bad_backgrounds |= {*missing, *(name for name, error in zip(present, errors, strict=True) if error)}


def _stored_name(layout: Photographs, name: str) -> str | None:
    """Return the name under which a listed background lies in its folder; None where it does not."""
    try:
        path = layout.files(name)[0]
    except SourceError:
        return None
    return document_name(path.relative_to(layout.table.root).as_posix()) if path.exists() else None


# ---- trimaps ----
def _examine_trimaps(case: _Case, entries: list[Entry]) -> None:
    supplied = supplied_trimaps(case.recipe)
    if supplied is None or not entries:
        return
    there = {f"{supplied.folder}/{name}" for name in _files(supplied.root / supplied.folder)}
    wanted = {
        supplied.name(entry.key, variant): (entry, variant)
        for entry in entries
        for variant in range(case.recipe.variants)
    }
    missing = [name for name in wanted if name not in there]
    case.find_missing("trimap", missing, there)
    case.find_unlisted("trimap", there, set(wanted))
    usable = [place for name, place in wanted.items() if name in there and place[0].key not in case.bad_foregrounds]
    layout = foreground_layout(case.recipe)
    check = partial(check_trimap, layout, case.recipe.trimap, supplied)
    faults = [error and (error.cause, str(error)) for error in case.look("trimaps", check, usable)]
    case.find_each((fault for fault in faults if fault), "trimaps")
    bad = [*(wanted[name] for name in missing), *(place for place, fault in zip(usable, faults, strict=True) if fault)]
    case.bad_composites |= {(entry.key, variant) for entry, variant in bad}


def _examine_unknown_regions(case: _Case, plan: Plan) -> None:
    """Find composites whose drawn trimap would have no unknown region."""
    for number, entry in enumerate(plan.foregrounds):
        if (seen := case.checks.get(entry.key)) is None:
            continue
        if failing := failing_variants(plan, number, seen):
            error = next(iter(failing.values()))
            case.find_each([(error.cause, f"{error} ({len(failing):,} composites)")], "foregrounds")
            case.bad_composites |= {(entry.key, variant) for variant in failing}


def _count_lost(case: _Case, plan: Plan) -> int:
    """Count the composites that cannot be made."""
    lost = 0
    for row in plan.rows:
        key, partner = plan.foregrounds[row.foreground].key, plan.look(row.group).partner
        lost += sum(
            bool({key, partner} & case.bad_foregrounds)
            or plan.background_name(row.foreground, variant) in case.bad_backgrounds
            or (key, variant) in case.bad_composites
            or any(one.key in case.bad_foregrounds for one in plan.distractors(row.foreground, variant))
            for variant in row.variants
        )
    return lost
