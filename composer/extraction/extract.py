"""Extract: cut-outs with true colours, out of pictures with alphas, and out of cut-outs whose colours are mixed.

Each picture is one task, and each cut-out its own record: a note in the PNG says what it was made of and how well that
went. So nothing has to be kept in step, and an extraction that was stopped goes on where it stopped.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from ..base.arrays import UInt8Array
from ..base.errors import FileError, SourceError
from ..base.files import disk_error, file_sha256, lock_exclusively, write_json
from ..base.progress import OnProgress
from ..base.text import escape
from ..base.workers import run_in_processes
from ..recipe import PairsForegrounds
from ..sources.image_io import Foreground, picture_size, read_cutout, read_pair
from ..sources.listings import CONTACT_SHEET, list_pictures
from ..sources.png_text import is_noted, read_note, write_noted
from .before_after import PICTURES, BeforeAfter, write_sheet
from .foreground import Layers, estimate_layers, extend_colours, pymatting
from .halo import LEVELS, Surroundings, halo, matted_on, reblending_error, surroundings, unmatted
from .pairs import Matte

REPORT: Final = "extract.json"


FORMAT: Final = "matting-compose/extract"


VERSION: Final = 1  # of what is made of a picture: a cut-out of another version is made again


KEYWORD: Final = "matting-compose extract"


MAX_PIXELS: Final[int] = PairsForegrounds.model_fields["max_pixels"].default


@dataclass(frozen=True)
class Figures:
    """Where a cut-out's colours come from, and how good they are.

    Attributes
    ----------
    colours : ``estimated``; ``unmatted-black`` or ``unmatted-white``: that backdrop was taken out; or ``kept``, as
        nothing says that they are mixed
    reblending_error : see `halo.reblending_error`; None where colours were kept
    halo_before, halo_after : see `halo.halo`, of the picture's raw colours and of the cut-out's; None where there is
        nothing to compare with: no pixel is opaque, none is clear, or colours were kept
    """

    colours: str
    reblending_error: float | None = None
    halo_before: float | None = None
    halo_after: float | None = None


@dataclass(frozen=True)
class Extracted:
    """What was made of one picture.

    Attributes
    ----------
    name, file : the picture's, and the cut-out's below the output
    width, height : px
    fractional : share of the pixels whose alpha is neither clear nor opaque
    figures : how good it is
    """

    name: str
    file: str
    width: int
    height: int
    fractional: float
    figures: Figures


@dataclass(frozen=True)
class Failure:
    """A picture of which nothing could be made, and why."""

    source: str
    cause: str
    detail: str


@dataclass(frozen=True)
class Spread:
    """A figure over all pictures that have it."""

    count: int
    least: float
    median: float
    most: float


@dataclass(frozen=True)
class Extraction:
    """What an extraction made.

    Attributes
    ----------
    out : the cut-outs' folder
    pictures, made, present : all; extracted by this run; there before, of the same inputs
    colours : number of cut-outs by where their colours come from
    reblending_error, halo_before, halo_after : levels of 255; None where no cut-out has it
    failures : in the order of the pictures
    foreign : pictures in the folder that are none of these cut-outs; a build would take them, too
    seconds : wall time
    """

    out: str
    pictures: int
    made: int
    present: int
    colours: dict[str, int]
    reblending_error: Spread | None
    halo_before: Spread | None
    halo_after: Spread | None
    failures: tuple[Failure, ...]
    foreign: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Outlook:
    """What an extraction would do.

    Attributes
    ----------
    pictures, present : all; those that are there already
    megapixels : of what is to be made
    failures : what would fail, as far as headers tell
    """

    pictures: int
    present: int
    megapixels: float
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class _Task:
    """One picture's; it travels to a worker by pickle."""

    matte: Matte
    out: Path

    @property
    def file(self) -> Path:
        return self.out / f"{self.matte.key}.png"


def look(mattes: Sequence[Matte], out: Path, *, jobs: int = -1, on_progress: OnProgress | None = None) -> Outlook:
    """See what `extract` would do. Nothing is written; headers are read, and what is there already is compared.

    Raises
    ------
    FileError : `out` holds some of the pictures
    """
    _refuse_overlap(mattes, out)
    found = list(_in_turn(_look, mattes, out, jobs, on_progress))
    sizes = [size for size in found if isinstance(size, int)]
    failures = tuple(failure for failure in found if isinstance(failure, Failure))
    return Outlook(len(found), found.count(None), round(sum(sizes) / 1e6, 3), failures)


def extract(mattes: Sequence[Matte], out: Path, *, jobs: int = -1, on_progress: OnProgress | None = None) -> Extraction:
    """Make cut-outs of pictures, a report of how good they are, and a contact sheet, worst first.

    Parameters
    ----------
    mattes : of `mattes.list_mattes`
    out : the cut-outs' folder; what is there already of the same inputs is kept
    jobs : worker processes; -1 for one per core
    on_progress : called as pictures are done

    Raises
    ------
    FileError : `out` holds some of the pictures
    MattingComposeError : there are alphas to use, and pymatting is not installed
    BuildError : another extraction is running in `out`, or it cannot be written
    """
    start = time.monotonic()
    _refuse_overlap(mattes, out)
    if any(matte.alpha for matte in mattes):
        pymatting()
    with lock_exclusively(out, "extraction"):
        found = list(_in_turn(_extract_one, mattes, out, jobs, on_progress))
        done = [
            (matte, result) for matte, (result, _) in zip(mattes, found, strict=True) if isinstance(result, Extracted)
        ]
        failures = tuple(result for result, _ in found if isinstance(result, Failure))
        made = sum(fresh for _, fresh in found)
        results = [result for _, result in done]
        write_sheet(_worst(done, out), out / CONTACT_SHEET)
        extraction = Extraction(
            out=str(out),
            pictures=len(found),
            made=made,
            present=len(results) - made,
            colours=dict(sorted(Counter(result.figures.colours for result in results).items())),
            reblending_error=_spread(result.figures.reblending_error for result in results),
            halo_before=_spread(result.figures.halo_before for result in results),
            halo_after=_spread(result.figures.halo_after for result in results),
            failures=failures,
            foreign=_foreign(mattes, out),
            seconds=round(time.monotonic() - start, 3),
        )
        document = {"format": FORMAT, "version": VERSION, **asdict(extraction), "out": "."}
        write_json(out / REPORT, {**document, "cutouts": [asdict(result) for result in results]})
    return extraction


def _in_turn(
    function: Any, mattes: Sequence[Matte], out: Path, jobs: int, on_progress: OnProgress | None
) -> Iterator[Any]:
    tasks = [_Task(matte, out) for matte in mattes]
    for done, result in enumerate(run_in_processes(function, tasks, len(tasks), jobs), start=1):
        if on_progress:
            on_progress("pictures", done, len(tasks))
        yield result


def _refuse_overlap(mattes: Sequence[Matte], out: Path) -> None:
    """Make sure that no result replaces an input, or is taken for one in the next run."""
    target = out.resolve()
    for matte in mattes:
        for path in (matte.image, matte.alpha):
            if path is not None and target in path.resolve().parents:
                raise FileError(f"{out}: holds {escape(matte.name)}, which is to be extracted; choose another --out")


def _look(task: _Task) -> Failure | int | None:
    """Return the px of a picture that is to be made, None if it is there, or why it cannot be made."""
    matte = task.matte
    try:
        if _present(task, _digests(task)):
            return None
        _refuse_foreign(task)
        if not (matte.alpha or matte.own):
            raise _no_alpha(matte)
        height, width = picture_size(matte.image, matte.name, MAX_PIXELS)
        if matte.alpha and (there := picture_size(matte.alpha, matte.alpha.name, MAX_PIXELS)) != (height, width):
            sizes = f"{width}×{height} px, its alpha {there[1]}×{there[0]}"
            raise SourceError(matte.name, "size-mismatch", f"the picture is {sizes}; they must be of one size")
        return height * width
    except SourceError as error:
        return Failure(escape(error.source), error.cause, escape(error.detail))


def _extract_one(task: _Task) -> tuple[Extracted | Failure, bool]:
    """Extract one picture unless that was done; return what was made, and whether it is fresh."""
    cv2.setNumThreads(1)  # the processes are the parallelism
    try:
        digests = _digests(task)
        if there := _present(task, digests):
            return there, False
        _refuse_foreign(task)
        source = _read(task.matte)
    except SourceError as error:
        return Failure(escape(error.source), error.cause, escape(error.detail)), False
    cutout, figures = _cut_out(source, estimated=task.matte.alpha is not None)
    height, width = source.alpha.shape
    fractional = np.count_nonzero((source.alpha > 0) & (source.alpha < 255)) / source.alpha.size
    result = _named(task, width, height, round(fractional, 6), figures)
    known = {"width": width, "height": height, "fractional": result.fractional, "figures": asdict(figures)}
    try:
        write_noted(task.file, cutout, KEYWORD, {"version": VERSION, "inputs": digests, **known})
    except OSError as error:
        raise disk_error(error, task.out) from None
    return result, True


def _named(task: _Task, width: int, height: int, fractional: float, figures: Figures) -> Extracted:
    return Extracted(escape(task.matte.name), f"{task.matte.key}.png", width, height, fractional, figures)


def _digests(task: _Task) -> list[str]:
    """Return the SHA-256 of the files that a cut-out is made from."""
    matte = task.matte
    try:
        return [file_sha256(path) for path in (matte.image, matte.alpha) if path]
    except OSError as error:
        raise SourceError(matte.name, "missing", f"cannot be read: {error.strerror or error}") from None


def _present(task: _Task, digests: list[str]) -> Extracted | None:
    """Return what was made of the same files by the same version."""
    note = read_note(task.file, KEYWORD)
    if note is None or note.get("version") != VERSION or note.get("inputs") != digests:
        return None
    try:
        return _named(task, note["width"], note["height"], note["fractional"], Figures(**note["figures"]))
    except (KeyError, TypeError):
        return None


def _refuse_foreign(task: _Task) -> None:
    if task.file.exists() and not is_noted(task.file, KEYWORD):  # one that breaks off is made anew
        detail = f"{task.file.name} is in the output already, and was not made by extract; move it away"
        raise SourceError(task.matte.name, "occupied", detail)


def _read(matte: Matte) -> Foreground:
    if matte.alpha is not None:
        source = read_pair(matte.image, matte.alpha, matte.name, MAX_PIXELS)
    elif matte.own:
        source = _read_cutout(matte)
    else:
        raise _no_alpha(matte)
    if source.alpha.min() == source.alpha.max() and source.alpha.flat[0] in (0, 255):
        state = "opaque" if source.alpha.flat[0] else "clear"
        raise SourceError(matte.name, "no-alpha", f"its alpha is {state} everywhere, so nothing is cut out")
    return source


def _read_cutout(matte: Matte) -> Foreground:
    try:
        return read_cutout(matte.image, matte.name, MAX_PIXELS)
    except SourceError as error:
        if error.cause != "no-alpha":
            raise
        raise SourceError(matte.name, "no-alpha", "it has no alpha of its own; give --alphas or --layout") from None


def _no_alpha(matte: Matte) -> SourceError:
    return SourceError(matte.name, "no-alpha", f"the alphas' folder has no picture called {Path(matte.name).stem}")


def _cut_out(source: Foreground, *, estimated: bool) -> tuple[UInt8Array, Figures]:
    """Return the cut-out, (H, W, 4) uint8 RGBA."""
    image, alpha = source.image, source.alpha
    near: Surroundings | None
    if estimated:
        colours, layers = "estimated", estimate_layers(image, alpha.astype(np.float32) / np.float32(255))
        near = surroundings(image, alpha)
    elif backdrop := matted_on(image, alpha):
        plain = np.broadcast_to(np.uint8(LEVELS[backdrop]), image.shape)
        colours, layers = f"unmatted-{backdrop}", Layers(unmatted(image, alpha, backdrop), plain)
        near = surroundings(image, alpha, plain)
    else:
        return np.dstack([extend_colours(image, alpha), alpha]), Figures("kept")
    figures = Figures(
        colours,
        round(reblending_error(image, alpha, layers), 4),
        round(halo(image, alpha, near), 4) if near else None,
        round(halo(layers.foreground, alpha, near), 4) if near else None,
    )
    del near
    return np.dstack([extend_colours(layers.foreground, alpha), alpha]), figures


def _worst(done: list[tuple[Matte, Extracted]], out: Path) -> Iterator[BeforeAfter]:
    """Yield the worst cut-outs with their pictures: by what is left of a halo; those without that figure last."""

    def badness(pair: tuple[Matte, Extracted]) -> tuple[float, float]:
        figures = pair[1].figures
        return -(figures.halo_after or -1), -(figures.reblending_error or -1)

    for matte, result in sorted(done, key=badness)[:PICTURES]:
        try:
            source, cutout = _read(matte), read_cutout(out / result.file, result.file, MAX_PIXELS)
        except SourceError:
            continue  # it was there a moment ago; the next run will say what became of it
        yield BeforeAfter(
            result.name, source.image, source.alpha, cutout.image, result.figures.halo_before, result.figures.halo_after
        )


def _spread(values: Iterable[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(len(known), min(known), round(float(np.median(known)), 4), max(known))


def _foreign(mattes: Sequence[Matte], out: Path) -> tuple[str, ...]:
    own = {f"{matte.key}.png" for matte in mattes}
    return tuple(escape(name) for name in list_pictures(out) if name not in own)
