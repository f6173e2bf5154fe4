"""The commands that use and grade a network: options, progress, exit codes. The work is in the modules they import."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from .. import __version__
from ..composer.base.packages import require_packages
from ..composer.base.progress import Progress
from ..composer.base.text import count_of, escape_lines, format_duration
from ..composer.console.command import Command
from ..composer.console.options import A_PATH, AS_JSON, HELP, JOBS, LIMIT, DatasetPath, Decorated, shared_options
from ..composer.console.progress_bar import show_progress
from ..composer.console.terminal import CLEAN, FAILED, WITH_FAILURES, handle_errors, tell, warn, write_error

WHOLE = "What is written is whole"  # said where a command is interrupted

# Names only: the modules that know more import NumPy, and help must not wait for that. A test compares.
CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
NETWORK = ("network", "segmentation")
METHODS = (
    "default",
    "refined",
    *NETWORK,
    "closed-form",
    "knn",
    "learning-based",
    "large-kernel",
    "random-walk",
    "shared",
    "trimap",
)
ENDINGS = {"onnx": ".onnx", "safetensors": ".safetensors", "torchscript": ".ts"}


class MethodName(click.Choice[str]):
    """A method's name; ``mnet``, as the network was called when there was but one, is still understood."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name."""
        return super().convert("network" if value == "mnet" else value, param, ctx)


def _making(command: Decorated) -> Decorated:
    """Add the options that say how mattes are made."""
    for option in (
        click.option(
            "--max-side",
            type=click.IntRange(min=16),
            help="Reduce larger pictures to this, px, and enlarge their alpha again; SHM tests at 1500.",
        ),
        click.option(
            "--tile", type=click.IntRange(min=512), show_default="the network's: 1024, or 1536",
            help="Side of what the network sees at once, px; memory grows with its square.",
        ),
        click.option(
            "--device", default="auto", show_default="a GPU if any", help="Where the network runs: cpu, cuda."
        ),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command(cls=Command, context_settings=HELP)
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
@click.option(
    "--method",
    type=MethodName(METHODS),
    show_default="network where a checkpoint is given, else default",
    help="How to matte.",
)
@click.option("--bits", type=click.Choice(["8", "16"]), default="8", show_default=True, help="Of the alpha.")
@click.option("--save-trimap", is_flag=True, help="Also write the trimap that was used.")
@click.option("--cutout", is_flag=True, help="Also an RGBA PNG with the foreground's estimated colours.")
@click.option("--background", type=A_PATH, help="Also the foreground over this picture.")
@click.option("--panel", is_flag=True, help="Also a picture that shows all of it.")
@_making
@AS_JSON
@shared_options
def predict(
    inputs: tuple[Path, ...],
    trimap: Path | None,
    mask: Path | None,
    radius: float,
    out: Path,
    method: str | None,
    bits: str,
    save_trimap: bool,
    cutout: bool,
    background: Path | None,
    panel: bool,
    device: str,
    tile: int | None,
    max_side: int | None,
    as_json: bool,
) -> None:
    """Make the alpha of pictures, at their own size, with the network that comes with the package.

    Or with one of your own, or a rival of it: see --method.

    IMAGE is a picture or a folder of them, with the folders in it. Without --trimap and --mask a network that can (SHM)
    finds the subject itself; for others the trimap is drawn from the picture's own alpha.
    CHECKPOINT comes first: the file or the folder that training wrote, for network and for segmentation (its alpha,
    thresholded). refined joins default, closed-form and knn: slower, and better.

    \b
    Examples:
      matting-predict photo.jpg --trimap trimap.png -o alpha.png
      matting-predict photo.jpg --trimap trimap.png -o alpha.png --method refined
      matting-predict shm-run photo.jpg -o alpha.png --cutout --background beach.jpg --panel --save-trimap
      matting-predict last.pt photos/ --mask masks/ -o mattes/ --cutout --background beach.jpg --panel
      matting-predict photo.jpg --trimap trimap.png --method closed-form -o alpha.png

    \b
    Exit codes: 0 all is well; 1 failed; 2 wrong usage;
    3 finished, but some pictures failed; 130 interrupted.
    """
    checkpoint, images = _split(inputs, method)
    method = method or ("network" if checkpoint else "default")
    if trimap and mask:
        raise click.UsageError("--trimap and --mask exclude each other: one of them says what is unknown")
    if tile and tile % 16:
        raise click.UsageError(f"--tile takes a multiple of 16, such as {tile // 16 * 16}")
    with handle_errors(WHOLE):
        from ..composer.sources.image_io import read_image
        from .inference.methods import MatteOptions
        from .inference.predict_files import PredictOptions, plan_tasks, prepare_all, run_tasks

        _check_device(device)
        backdrop = read_image(background) if background else None
        matte = MatteOptions(checkpoint, device, tile, max_side)
        options = PredictOptions(method, matte, int(bits), radius, save_trimap, cutout, backdrop, panel)
        others = [path for path in (checkpoint, background) if path]
        tasks = plan_tasks(images, trimap, mask, out, options, others)
        prepare_all(options, tasks)
        start = time.monotonic()
        failures: dict[str, str] = {}
        with show_progress() as report:
            report(Progress("pictures", 0, len(tasks)))
            for done, (task, result) in enumerate(zip(tasks, run_tasks(tasks, options), strict=True), 1):
                for warning in result.warnings:
                    warn(warning)
                if result.error is not None:
                    failures[str(task.image)] = result.error
                    write_error(result.error)
                report(Progress("pictures", done, len(tasks), len(failures)))
        seconds = round(time.monotonic() - start, 3)
    written = [str(task.out) for task in tasks if str(task.image) not in failures]
    if as_json:
        click.echo(json.dumps({"written": written, "failures": failures, "method": method, "seconds": seconds}))
    tell(f"{out}: {len(written):,} of {count_of(len(tasks), 'matte')} in {format_duration(seconds)}")
    sys.exit(CLEAN if not failures else WITH_FAILURES if written else FAILED)


def _check_device(device: str) -> None:
    """See that a device that was named is there, also where no method needs it."""
    if device != "auto":
        require_packages("torch", extra="train")
        from .networks.devices import find_device

        find_device(device)


def _split(inputs: tuple[Path, ...], method: str | None) -> tuple[Path | None, list[Path]]:
    """Tell the checkpoint from the images."""
    if method is None and len(inputs) > 1 and _is_checkpoint(inputs[0]):
        return inputs[0], list(inputs[1:])
    if method not in NETWORK:
        return None, list(inputs)
    if len(inputs) < 2:
        raise click.UsageError(
            f"--method {method} takes a checkpoint and then images: matting-predict CHECKPOINT IMAGE..."
        )
    return inputs[0], list(inputs[1:])


def _is_checkpoint(path: Path) -> bool:
    """Tell what training wrote, a file by its suffix and a run's folder by its files, from pictures."""
    if path.is_dir():
        return any((path / name).is_file() for name in ("best.pt", "last.pt"))
    return path.suffix.lower() in CHECKPOINTS


@click.command(cls=Command, context_settings=HELP)
@click.version_option(__version__, prog_name="matting-evaluate")
@click.option("--predictions", type=A_PATH, multiple=True, help="Folder of predicted alphas; repeatable.")
@click.option("--truths", type=A_PATH, help="Folder of true alphas.")
@click.option("--trimaps", type=A_PATH, help="Folder of trimaps: their unknown region is graded.")
@click.option("--images", type=A_PATH, help="Folder of images, for the methods that make mattes.")
@click.option(
    "--dataset", type=DatasetPath(path_type=Path), help="Instead of folders: a dataset that matting-compose built."
)
@click.option(
    "--split",
    type=click.Choice(["auto", "train", "validation", "all"]),
    default="auto",
    show_default="validation where there is any, else all",
    help="Which composites of the dataset.",
)
@LIMIT
@click.option(
    "--checkpoint",
    "checkpoints",
    type=A_PATH,
    multiple=True,
    help="A trained network; adds the method network where none is given. Repeatable; of several, a T-Net alone is"
    " graded by its segmentation.",
)
@click.option(
    "--method",
    "methods",
    multiple=True,
    type=MethodName((*METHODS, "perfect-mask")),
    help="Also grade this method's mattes; repeatable. perfect-mask is the truth, thresholded.",
)
@click.option(
    "--metrics",
    type=click.Choice(["composition-1k", "shm", "p3m"]),
    show_default="composition-1k with trimaps, else shm",
    help="Whose errors: over the unknown region, over whole pictures, or those of automatic matting.",
)
@click.option("--whole", is_flag=True, help="Short for --metrics shm.")
@click.option("-o", "--out", type=A_PATH, help="Folder for a page, index.html, and the scores as CSV and JSON.")
@click.option(
    "--worst",
    type=click.IntRange(0),
    default=240,
    show_default=True,
    help="Show so many pictures on the page, each method's worst; of the others it has the errors alone.",
)
@JOBS
@_making
@AS_JSON
@shared_options
def evaluate(
    predictions: tuple[Path, ...],
    truths: Path | None,
    trimaps: Path | None,
    images: Path | None,
    dataset: Path | None,
    split: str,
    limit: int | None,
    checkpoints: tuple[Path, ...],
    methods: tuple[str, ...],
    metrics: str | None,
    whole: bool,
    out: Path | None,
    worst: int,
    jobs: int,
    device: str,
    tile: int | None,
    max_side: int | None,
    as_json: bool,
) -> None:
    """Grade mattes: SAD, MSE, gradient and connectivity errors as Composition-1k's evaluation defines them.

    Over the unknown region where there are trimaps, else (or with --whole) over whole pictures, as in SHM's table. With
    --metrics p3m as automatic matting does it. Methods are compared with the first one, picture by picture.
    A missing, extra or mis-sized prediction is an error. What fails on a picture, or cannot be read, has no means.

    \b
    Examples:
      matting-evaluate --predictions mattes/ --truths alpha/ --trimaps trimaps/
      matting-evaluate --checkpoint last.pt --dataset dataset -o scores
      matting-evaluate --checkpoint run --checkpoint other-run --dataset dataset
      matting-evaluate --images photos/ --trimaps trimaps/ --truths alpha/ --checkpoint last.pt
          --method network --method closed-form --method knn --method perfect-mask --method trimap

    \b
    Exit codes: 0 all is well; 1 failed; 2 wrong usage;
    3 finished, but a method failed on some pictures; 130 interrupted.
    """
    if len(checkpoints) == 1 and not methods:
        methods = ("network",)
    _check_usage(predictions, truths, dataset, methods, checkpoints)
    if tile and tile % 16:
        raise click.UsageError(f"--tile takes a multiple of 16, such as {tile // 16 * 16}")
    with handle_errors(WHOLE):
        from ..composer.base.arrays import spread
        from .evaluation.cases import dataset_cases, folder_cases
        from .evaluation.evaluate import Competitor
        from .evaluation.evaluate import evaluate as grade
        from .evaluation.scoresheet import PAGE, as_document, as_table, open_scores, write_scoresheet
        from .inference.methods import MatteOptions, prepare, usual_method

        _check_device(device)
        matte = MatteOptions(None, device, tile, max_side)
        cases: list[Any] = (
            dataset_cases(dataset, split)  # type: ignore[arg-type]  # click has checked the choice
            if dataset
            else folder_cases(truths, trimaps=trimaps, images=images, predictions=predictions)  # type: ignore[arg-type]
        )
        cases = spread(cases, limit or len(cases))
        competitors = [
            Competitor(_name(folder, predictions), prediction=number) for number, folder in enumerate(predictions)
        ]
        for method, path in _methods(methods, checkpoints):
            own = replace(matte, checkpoint=path)
            chosen = method or usual_method(own)
            prepare(chosen, own)
            network = _name(path, checkpoints) if path and len(checkpoints) > 1 else ""
            competitors.append(Competitor(f"{network} {method or ''}".strip(), chosen, checkpoint=path))
        with open_scores(out) if out else nullcontext() as on_score:
            with show_progress() as report:
                result = grade(
                    cases,
                    competitors,
                    matte,
                    metrics="shm" if whole else metrics,  # type: ignore[arg-type]  # as above
                    jobs=jobs,
                    worst=worst if out else 0,
                    on_score=on_score,
                    on_progress=report,
                )
            click.echo(json.dumps(as_document(result)) if as_json else escape_lines(as_table(result)))
            for failure in result.failures:
                write_error(f"{failure.competitor} on {failure.image}: {failure.reason}")
            if out:  # once they are shown: a disk that refuses them costs no score
                write_scoresheet(result, out)
    if out:
        tell(f"Look at {out / PAGE}")
    sys.exit(CLEAN if not result.failures else WITH_FAILURES if result.scores else FAILED)


def _check_usage(
    predictions: tuple[Path, ...],
    truths: Path | None,
    dataset: Path | None,
    methods: tuple[str, ...],
    checkpoints: tuple[Path, ...],
) -> None:
    if (dataset is None) == (truths is None):
        raise click.UsageError("give either --dataset, or --truths and what goes with them")
    if dataset and predictions:
        raise click.UsageError("--predictions go with --truths; a dataset is graded with --checkpoint or --method")
    if not (predictions or methods or checkpoints):
        raise click.UsageError("nothing to grade: give --predictions, --checkpoint or --method")
    if "network" in methods and not checkpoints:
        raise click.UsageError("--method network needs a --checkpoint; default is what comes with the package")


def _methods(methods: tuple[str, ...], checkpoints: tuple[Path, ...]) -> list[tuple[str | None, Path | None]]:
    """Pair those methods that a network has with each checkpoint; no method is the checkpoint's usual one."""
    if not methods:
        return [(None, path) for path in checkpoints]
    networks = checkpoints or (None,)
    return [(m, path) for m in dict.fromkeys(methods) for path in (networks if m in NETWORK else (None,))]


def _name(folder: Path, folders: tuple[Path, ...]) -> str:
    """Name a folder of predictions; in full where two are called alike."""
    unique = [other.name for other in folders].count(folder.name) == 1
    return os.fsencode(folder.name if unique else folder).decode("utf-8", "backslashreplace")


@click.command(cls=Command, context_settings=HELP)
@click.version_option(__version__, prog_name="matting-export")
@click.argument("checkpoint", type=A_PATH)
@click.option(
    "--to",
    "kind",
    type=click.Choice(["onnx", "safetensors", "torchscript"]),
    show_default="what --out ends in",
    help="For which programs.",
)
@click.option(
    "-o",
    "--out",
    type=A_PATH,
    show_default="beside the checkpoint",
    help="File to write: .onnx, .safetensors or .ts.",
)
@click.option("--mnet", type=A_PATH, help="CHECKPOINT is a T-Net: join it with this M-Net into SHM whole.")
@click.option("--half", is_flag=True, help="Weights in float16: half the size.")
@AS_JSON
@shared_options
def export(checkpoint: Path, kind: str | None, out: Path | None, mnet: Path | None, half: bool, as_json: bool) -> None:
    """Write a trained network for other programs, once its alphas there are torch's.

    CHECKPOINT is a file that training wrote, a run's folder, or default: the package's own network. ONNX and
    TorchScript take image and trimap as bytes, any number of any size, and give the fused alpha. Safetensors holds the
    weights; matting-predict and matting-evaluate take it in place of a checkpoint.

    \b
    Examples:
      matting-export run --to onnx
      matting-export last.pt -o mnet.safetensors --half
      matting-export run-tnet --mnet run-mnet -o shm.safetensors
    """
    if out is None and kind is None:
        raise click.UsageError("give --to onnx, safetensors or torchscript, or a file by --out")
    if out is not None and kind is None and out.suffix not in ENDINGS.values():
        raise click.UsageError(f"--out ends in {', '.join(ENDINGS.values())}, not '{out.suffix}'; or give --to")
    if half and (kind == "torchscript" or (kind is None and out is not None and out.suffix == ".ts")):
        raise click.UsageError("--half is for onnx and safetensors; a TorchScript module has .half() where it runs")
    with handle_errors(WHOLE):
        from ..composer.base.files import refuse_replacing
        from .inference.methods import MatteOptions, network_of

        network = network_of(MatteOptions(checkpoint, "cpu"))
        from .networks.exports import export_network

        if mnet is not None:
            from .networks.shm import join

            network = join(network, network_of(MatteOptions(mnet, "cpu")))

        if out is None:
            out = (checkpoint / "best" if checkpoint.is_dir() else checkpoint).with_suffix(ENDINGS[str(kind)])
        refuse_replacing([out], [one for path in (checkpoint, mnet) if path for one in (path, *path.glob("*.pt"))])
        parity = export_network(network, out, kind, half)  # type: ignore[arg-type]  # click has checked the choice
    if as_json:
        result = {"out": str(out), "pictures": parity.pictures, "largest": parity.largest, "mean": parity.mean}
        click.echo(json.dumps(result))
    pictures = count_of(parity.pictures, "picture")
    told = f"alphas of {pictures} differ from torch's by at most {parity.largest:.1e}"
    tell(f"{out}: {out.stat().st_size / 1e6:,.1f} MB; {told}")
