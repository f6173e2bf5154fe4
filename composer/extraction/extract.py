"""Extract: cut-outs with true colours, out of pictures with alphas, and out of cut-outs whose colours are mixed.

Each picture is one task, and each cut-out its own record: a note in the PNG says what it was made of and how well that
went. So nothing has to be kept in step, and an extraction that was stopped goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from ..base.arrays import UInt8Array
from ..base.errors import FileError, SourceError, describe_error
from ..base.files import disk_error, lock_exclusively, write_json
from ..base.progress import OnProgress, Progress
from ..base.text import count_of, escape
from ..base.workers import run_in_processes
from ..recipe import PairsForegrounds
from ..sources.image_io import Foreground, pair_sha256, read_cutout, read_pair
from ..sources.listings import EXTRACT_PAGE, EXTRACT_REPORT, list_pictures
from ..sources.picture_bytes import read_bytes
from ..sources.png_text import is_noted, read_note, write_noted
from .before_after import PICTURES, BeforeAfter, write_page
from .foreground import Layers, estimate_layers, extend_colours, pymatting
from .halo import LEVELS, Surroundings, halo, matted_on, reblending_error, surroundings, unmatted
from .inputs import ExtractInput

logger = logging.getLogger(__name__)


FORMAT: Final = "matting-compose/extract"


VERSION: Final = 2  # of what is made of a picture: a cut-out of another version is made again


KEYWORD: Final = "matting-compose extract"


MAX_PIXELS: Final[int] = PairsForegrounds.model_fields["max_pixels"].default


Result = TypeVar("Result")


@dataclass(frozen=True)
class Quality:
    """Where a cut-out's colours come from, and how good they are.

    Attributes
    ----------
    colours : str
        ``estimated``; ``unmatted-black`` or ``unmatted-white``: that backdrop was taken out; or ``kept``, as nothing
        says that they are mixed.
    reblending_error : float or None
        See `halo.reblending_error`; None where colours were kept.
    halo_before, halo_after : float or None
        See `halo.halo`, of the picture's raw colours and of the cut-out's; None where there is nothing to compare
        with: no pixel is opaque, none is clear, or colours were kept.
    """

    colours: str
    reblending_error: float | None = None
    halo_before: float | None = None
    halo_after: float | None = None


@dataclass(frozen=True)
class Cutout:
    """What was made of one picture.

    Attributes
    ----------
    name, file : str
        The picture's, and the cut-out's below the output.
    width, height : int
        px.
    fractional : float
        Share of the pixels whose alpha is neither clear nor opaque.
    figures : Quality
        How good it is.
    """

    name: str
    file: str
    width: int
    height: int
    fractional: float
    figures: Quality


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
class ExtractResult:
    """What an extraction made.

    Attributes
    ----------
    out : str
        The cut-outs' folder.
    pictures, made, present : int
        All; extracted by this run; there before, of the same inputs.
    colours : dict of str to int
        Number of cut-outs by where their colours come from.
    reblending_error, halo_before, halo_after : Spread or None
        Levels of 255; None where no cut-out has it.
    failures : tuple of Failure
        In the order of the pictures.
    foreign : tuple of str
        Pictures in the folder that are none of these cut-outs; a build would take them, too.
    seconds : float
        Wall time.
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
class ExtractPreview:
    """What an extraction would do.

    Attributes
    ----------
    pictures, present : int
        All; those that are there already.
    megapixels : float
        Of what is to be made.
    failures : tuple of Failure
        What cannot be made.
    """

    pictures: int
    present: int
    megapixels: float
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class _Task:
    """One picture's; it travels to a worker by pickle."""

    source: ExtractInput
    out: Path

    @property
    def file(self) -> Path:
        return self.out / f"{self.source.key}.png"


@dataclass(frozen=True)
class _Decoded:
    """A picture that is to be extracted, and the SHA-256 of its files."""

    pixels: Foreground
    digests: list[str]


def preview_extract(
    inputs: Sequence[ExtractInput], out: Path, *, jobs: int = -1, on_progress: OnProgress | None = None
) -> ExtractPreview:
    """See what `extract` would do: read and judge every picture as it does, and write nothing.

    Raises
    ------
    FileError, MattingComposeError
        As `extract`.
    """
    _check(inputs, out)
    found = list(_in_turn(_preview_one, inputs, out, jobs, on_progress))
    failures = tuple(result for result in found if isinstance(result, Failure))
    pixels = sum(result for result in found if isinstance(result, int))
    present = sum(isinstance(result, Cutout) for result in found)
    return ExtractPreview(len(found), present, round(pixels / 1e6, 3), failures)


def extract(
    inputs: Sequence[ExtractInput], out: Path, *, jobs: int = -1, on_progress: OnProgress | None = None
) -> ExtractResult:
    """Make cut-outs of pictures, a report of how good they are, and a page to look at, worst first.

    Parameters
    ----------
    inputs : sequence of ExtractInput
        Of `list_inputs`.
    out : Path
        The cut-outs' folder; what is there already of the same inputs is kept.
    jobs : int
        Worker processes; -1 for one per core.
    on_progress : callable, optional
        Called as pictures are done.

    Raises
    ------
    FileError
        `out` holds some of the pictures.
    MattingComposeError
        There are alphas to use, and pymatting is not installed.
    BuildError
        Another extraction is running in `out`, or it cannot be written.
    """
    start = time.monotonic()
    _check(inputs, out)
    with lock_exclusively(out, "extraction"):
        found = list(_in_turn(_extract_one, inputs, out, jobs, on_progress))
        done = [(one, made) for one, (made, _) in zip(inputs, found, strict=True) if isinstance(made, Cutout)]
        cutouts = [cutout for _, cutout in done]
        fresh = sum(is_fresh for _, is_fresh in found)
        if fresh < len(cutouts):
            logger.info("%s: already there, of the same inputs: %s", out, count_of(len(cutouts) - fresh, "cut-out"))
        result = ExtractResult(
            out=str(out),
            pictures=len(found),
            made=fresh,
            present=len(cutouts) - fresh,
            colours=dict(sorted(Counter(cutout.figures.colours for cutout in cutouts).items())),
            reblending_error=_spread(cutout.figures.reblending_error for cutout in cutouts),
            halo_before=_spread(cutout.figures.halo_before for cutout in cutouts),
            halo_after=_spread(cutout.figures.halo_after for cutout in cutouts),
            failures=tuple(made for made, _ in found if isinstance(made, Failure)),
            foreign=_foreign(inputs, out),
            seconds=round(time.monotonic() - start, 3),
        )
        document = {"format": FORMAT, "version": VERSION, **asdict(result), "out": "."}
        write_json(out / EXTRACT_REPORT, {**document, "cutouts": [asdict(cutout) for cutout in cutouts]})
        write_page(
            _worst(done, out), out / EXTRACT_PAGE, facts=_facts(result), failures=list(map(astuple, result.failures))
        )
    return result


def _in_turn(
    function: Callable[[_Task], Result],
    inputs: Sequence[ExtractInput],
    out: Path,
    jobs: int,
    on_progress: OnProgress | None,
) -> Iterator[Result]:
    tasks = [_Task(one, out) for one in inputs]
    for done, result in enumerate(run_in_processes(function, tasks, len(tasks), jobs), start=1):
        if on_progress:
            on_progress(Progress("pictures", done, len(tasks)))
        yield result


def _check(inputs: Sequence[ExtractInput], out: Path) -> None:
    """Make sure that no result replaces an input, or is taken for one in the next run, and that all tools are there."""
    target = out.resolve()
    for one in inputs:
        for path in (one.image, one.alpha):
            if path is not None and target in path.resolve().parents:
                raise FileError(f"{out}: holds {escape(one.name)}, which is to be extracted; choose another --out")
    if any(one.alpha for one in inputs):
        pymatting()


def _preview_one(task: _Task) -> Cutout | int | Failure:
    """Return a cut-out that is there, the px of one that is to be made, or why it cannot be made."""
    found = _decode(task)
    return found.pixels.alpha.size if isinstance(found, _Decoded) else found


def _extract_one(task: _Task) -> tuple[Cutout | Failure, bool]:
    """Extract one picture unless that was done; return what was made, and whether it is fresh."""
    source = _decode(task)
    if not isinstance(source, _Decoded):
        return source, False
    try:
        pixels, quality = _cut_out(source.pixels, estimated=task.source.alpha is not None)
    except MemoryError:
        raise
    except Exception as error:  # of a library, about this picture
        return _failure(task, error), False
    height, width, _ = pixels.shape
    fractional = round(np.count_nonzero((pixels[..., 3] > 0) & (pixels[..., 3] < 255)) / (width * height), 6)
    known = {"width": width, "height": height, "fractional": fractional, "figures": asdict(quality)}
    try:
        write_noted(task.file, pixels, KEYWORD, {"version": VERSION, "inputs": source.digests, **known})
    except OSError as error:
        raise disk_error(error, task.out) from None
    return _cutout(task, width, height, fractional, quality), True


def _decode(task: _Task) -> _Decoded | Cutout | Failure:
    """Read what a cut-out is made from, unless it is there already."""
    try:
        digests = _digests(task)
        if there := _present(task, digests):
            return there
        _refuse_foreign(task)
        pixels = _read(task.source)
        if pixels.sha256 != (pair_sha256(*digests) if len(digests) == 2 else digests[0]):
            raise SourceError(task.source.name, "changed", "it changed while it was read; run the same command again")
        return _Decoded(pixels, digests)
    except MemoryError:
        raise
    except Exception as error:
        return _failure(task, error)


def _failure(task: _Task, error: Exception) -> Failure:
    if isinstance(error, SourceError):
        return Failure(escape(error.source), error.cause, escape(error.detail))
    return Failure(escape(task.source.name), "failed", escape(describe_error(error)))


def _cutout(task: _Task, width: int, height: int, fractional: float, quality: Quality) -> Cutout:
    return Cutout(escape(task.source.name), f"{task.source.key}.png", width, height, fractional, quality)


def _digests(task: _Task) -> list[str]:
    """Return the SHA-256 of the files that a cut-out is made from."""
    paths = (task.source.image, task.source.alpha)
    return [hashlib.sha256(read_bytes(path, task.source.name)).hexdigest() for path in paths if path]


def _present(task: _Task, digests: list[str]) -> Cutout | None:
    """Return what was made of the same files by the same version."""
    note = read_note(task.file, KEYWORD)
    if note is None or note.get("version") != VERSION or note.get("inputs") != digests:
        return None
    try:
        return _cutout(task, note["width"], note["height"], note["fractional"], Quality(**note["figures"]))
    except (KeyError, TypeError):
        return None


def _refuse_foreign(task: _Task) -> None:
    if task.file.exists() and not is_noted(task.file, KEYWORD):  # one that breaks off is made anew
        detail = f"{task.file.name} is in the output already, and was not made by extract; move it away"
        raise SourceError(task.source.name, "occupied", detail)


def _read(one: ExtractInput) -> Foreground:
    if one.alpha is not None:
        source = read_pair(one.image, one.alpha, one.name, MAX_PIXELS)
    elif one.own:
        source = _read_cutout(one)
    else:
        raise SourceError(one.name, "no-alpha", f"the alphas' folder has no picture called {Path(one.name).stem}")
    if source.alpha.min() == source.alpha.max() and source.alpha.flat[0] in (0, 255):
        state = "opaque" if source.alpha.flat[0] else "clear"
        raise SourceError(one.name, "no-alpha", f"its alpha is {state} everywhere, so nothing is cut out")
    return source


def _read_cutout(one: ExtractInput) -> Foreground:
    try:
        return read_cutout(one.image, one.name, MAX_PIXELS)
    except SourceError as error:
        if error.cause != "no-alpha":
            raise
        raise SourceError(one.name, "no-alpha", "it has no alpha of its own; give --alphas or --layout") from None


def _cut_out(source: Foreground, *, estimated: bool) -> tuple[UInt8Array, Quality]:
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
        return np.dstack([extend_colours(image, alpha), alpha]), Quality("kept")
    quality = Quality(
        colours,
        round(reblending_error(image, alpha, layers), 4),
        round(halo(image, alpha, near), 4) if near else None,
        round(halo(layers.foreground, alpha, near), 4) if near else None,
    )
    del near
    return np.dstack([extend_colours(layers.foreground, alpha), alpha]), quality


def _worst(done: list[tuple[ExtractInput, Cutout]], out: Path) -> Iterator[BeforeAfter]:
    """Yield the worst cut-outs with their pictures: by what is left of a halo; those without that figure last."""

    def badness(pair: tuple[ExtractInput, Cutout]) -> tuple[float, float]:
        figures = pair[1].figures
        return -(figures.halo_after or -1), -(figures.reblending_error or -1)

    for one, cutout in sorted(done, key=badness)[:PICTURES]:
        try:
            source, made = _read(one), read_cutout(out / cutout.file, cutout.file, MAX_PIXELS)
        except SourceError:
            continue  # it was there a moment ago; the next run will say what became of it
        yield BeforeAfter(cutout.name, source.image, source.alpha, made.image, _describe(cutout.figures))


def _describe(figures: Quality) -> tuple[str, ...]:
    """Say how good a cut-out's colours are."""
    said = [f"colours {figures.colours}"]
    if figures.halo_before is not None and figures.halo_after is not None:
        said.append(f"halo {figures.halo_before:.1f} → {figures.halo_after:.1f}")
    if figures.reblending_error is not None:
        said.append(f"re-blending error {figures.reblending_error:.1f}")
    return tuple(said)


def _facts(result: ExtractResult) -> list[tuple[str, str]]:
    """Say what the page says of all cut-outs."""
    spreads = (
        ("halo before", result.halo_before),
        ("halo after", result.halo_after),
        ("re-blending error", result.reblending_error),
    )
    return [
        ("cut-outs", f"{result.made + result.present:,} of {count_of(result.pictures, 'picture')}"),
        ("colours", ", ".join(f"{count:,} {kind}" for kind, count in result.colours.items()) or "–"),
        *((name, f"median {s.median:.1f}, {s.least:.1f} to {s.most:.1f} of 255") for name, s in spreads if s),
    ]


def _spread(values: Iterable[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(len(known), min(known), round(float(np.median(known)), 4), max(known))


def _foreign(inputs: Sequence[ExtractInput], out: Path) -> tuple[str, ...]:
    own = {f"{one.key}.png" for one in inputs}
    return tuple(escape(name) for name in list_pictures(out).names if name not in own)
