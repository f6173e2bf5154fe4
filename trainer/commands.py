"""The commands that use and grade a network: options, progress, exit codes. The work is in the modules they import."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from .. import __version__
from ..composer.errors import MattingComposeError

CLEAN, FAILED, WITH_FAILURES, INTERRUPTED = 0, 1, 3, 130
LINE_EVERY = 10.0  # seconds between two lines of progress where there is no terminal

# Names only: the modules that know more import NumPy, and help must not wait for that. A test compares.
NETWORK = ("mnet", "segmentation")
METHODS = (
    *NETWORK,
    "closed-form",
    "knn",
    "learning-based",
    "large-kernel",
    "random-walk",
    "shared",
    "trimap",
)

HELP = {"help_option_names": ["-h", "--help"]}
A_PATH = click.Path(path_type=Path)

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def _making(command: F) -> F:
    """Add the options that say how mattes are made."""
    for option in (
        click.option(
            "--max-side",
            type=click.IntRange(min=16),
            help="Reduce larger pictures to this, px, and enlarge their alpha again; SHM tests at 1500.",
        ),
        click.option(
            "--tile", type=click.IntRange(min=512), default=1024, show_default=True,
            help="Side of what the network sees at once, px; memory grows with its square.",
        ),
        click.option(
            "--device", default="auto", show_default="a GPU if any", help="Where the network runs: cpu, cuda."
        ),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command(context_settings=HELP)
@click.version_option(__version__, prog_name="matting-predict")
@click.argument("inputs", nargs=-1, required=True, type=A_PATH, metavar="[CHECKPOINT] IMAGE...")
@click.option("--trimap", type=A_PATH, help="Trimap of the image, or a folder of trimaps under the images' names.")
@click.option("--mask", type=A_PATH, help="Instead: a mask or rough alpha (or a folder), to draw the trimap from.")
@click.option(
    "--radius",
    type=click.FloatRange(0, 500),
    default=20.0,
    show_default=True,
    help="Width of the unknown region on either side of a mask's edge, thousandths of the subject's size.",
)
@click.option("-o", "--out", type=A_PATH, required=True, help="The alpha's PNG, or a folder for several.")
@click.option("--method", type=click.Choice(METHODS), default="mnet", show_default=True, help="How to matte.")
@click.option("--bits", type=click.Choice(["8", "16"]), default="8", show_default=True, help="Of the alpha.")
@click.option("--save-trimap", is_flag=True, help="Also write the trimap that was used.")
@click.option("--cutout", is_flag=True, help="Also an RGBA PNG with the foreground's estimated colours.")
@click.option("--background", type=A_PATH, help="Also the foreground over this picture.")
@click.option("--panel", is_flag=True, help="Also a picture that shows all of it.")
@_making
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def predict(
    inputs: tuple[Path, ...],
    trimap: Path | None,
    mask: Path | None,
    radius: float,
    out: Path,
    method: str,
    bits: str,
    save_trimap: bool,
    cutout: bool,
    background: Path | None,
    panel: bool,
    device: str,
    tile: int,
    max_side: int | None,
    as_json: bool,
) -> None:
    """Make the alpha of pictures, at their own size, with a trained network or a rival of it.

    IMAGE is a picture or a folder of them; without --trimap and --mask the trimap is drawn from its own alpha.
    CHECKPOINT comes first for mnet and for segmentation (which is mnet's alpha, thresholded); the others have none.

    \b
    Examples:
      matting-predict last.pt photo.jpg --trimap trimap.png -o alpha.png
      matting-predict last.pt photos/ --mask masks/ -o mattes/ --cutout --background beach.jpg --panel
      matting-predict photo.jpg --trimap trimap.png --method closed-form -o alpha.png

    \b
    Exit codes: 0 all is well; 1 failed; 2 wrong usage;
    3 finished, but some pictures failed; 130 interrupted.
    """
    checkpoint, images = _split(inputs, method)
    if trimap and mask:
        raise click.UsageError("--trimap and --mask exclude each other: one of them says what is unknown")
    if tile % 16:
        raise click.UsageError(f"--tile takes a multiple of 16, such as {tile // 16 * 16}")
    with _explained():
        from .job import Wanted, plan_jobs, run_job
        from .methods import Settings, prepare

        jobs = plan_jobs(images, trimap, mask, out)
        settings = Settings(checkpoint, device, tile, max_side)
        wanted = Wanted(method, settings, int(bits), radius, save_trimap, cutout, background, panel)
        prepare(method, settings)
        start, failures = time.monotonic(), {}
        for job in _progress(jobs, len(jobs), "pictures"):
            try:
                for warning in run_job(job, wanted):
                    click.echo(f"warning: {warning}", err=True)
            except MattingComposeError as error:
                failures[str(job.image)] = str(error)
                click.echo(f"Error: {error}", err=True)
        seconds = round(time.monotonic() - start, 3)
    done = [str(job.out) for job in jobs if str(job.image) not in failures]
    if as_json:
        click.echo(json.dumps({"written": done, "failures": failures, "method": method, "seconds": seconds}))
    click.echo(f"{out}: {len(done):,} of {len(jobs):,} mattes in {seconds:.1f} s", err=True)
    sys.exit(CLEAN if not failures else WITH_FAILURES if done else FAILED)


def _split(inputs: tuple[Path, ...], method: str) -> tuple[Path | None, list[Path]]:
    """Tell the checkpoint from the images."""
    if method not in NETWORK:
        return None, list(inputs)
    if len(inputs) < 2:
        raise click.UsageError(
            f"--method {method} takes a checkpoint and then images: matting-predict CHECKPOINT IMAGE..."
        )
    return inputs[0], list(inputs[1:])


@contextmanager
def _explained() -> Iterator[None]:
    """Turn errors into a message and an exit code."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("\nInterrupted; what is written is whole", err=True)
        sys.exit(INTERRUPTED)
    except MattingComposeError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(FAILED)


def _progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Pass items on and show how far it is: live on a terminal, else a line now and then."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(items, description="", total=total, console=Console(stderr=True))
        return
    start = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - last >= LINE_EVERY:
            last = now
            left = (now - start) / done * (total - done) if done else 0
            click.echo(f"{done:,}/{total:,} {what}, about {left:,.0f} s left", err=True)
        yield item
