"""The commands: options and exit codes. Everything else is imported by the command that needs it."""

from __future__ import annotations

import copy
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from . import __version__
from .composer.base.errors import FileError
from .composer.base.text import count_of, format_duration, format_size
from .composer.console.command import FormerArgument, FormerNames, Group, complete_names, complete_settings
from .composer.console.options import (
    A_FOLDER,
    A_PATH,
    AS_JSON,
    HELP,
    JOBS,
    LIMIT,
    DatasetPath,
    Decorated,
    shared_options,
)
from .composer.console.progress_bar import show_progress
from .composer.console.terminal import CLEAN, FAILED, WITH_FAILURES, handle_errors, tell, warn

if TYPE_CHECKING:
    from .composer.building.shares import Share
    from .composer.extraction.inputs import ExtractInput
    from .composer.fetching.corpus import Corpus
    from .composer.recipe import Recipe

# Names only: the module that knows more imports NumPy, and help must not wait for that. A test compares.
LAYOUTS = ("aim500", "am2k", "p3m10k", "ppm100")

DEMO = "demo"  # the recipe of who names neither a recipe nor foregrounds

EXIT_CODES = """\b
Exit codes: 0 all is well; 1 failed; 2 wrong usage or recipe;
3 finished, but some composites are missing; 130 interrupted."""

LOOK_CODES = """\b
Exit codes: 0 all is well; 1 something is wrong; 2 wrong usage; 130 interrupted."""


def _recipes() -> list[str]:
    from .composer.base.settings import list_shipped
    from .composer.recipe import MANIFESTS

    return list_shipped(MANIFESTS)


def _settings() -> dict[str, list[str]]:
    from .composer.base.settings import list_keys
    from .composer.compositing.blending import METHODS
    from .composer.compositing.trimaps import STRATEGIES, SUPPLIED
    from .composer.dataset.packings import PACKINGS
    from .composer.recipe import Recipe

    named = {"fit.method": METHODS, "trimap.strategy": [*STRATEGIES, SUPPLIED], "shards.packing": PACKINGS}
    return list_keys(Recipe) | {key: list(registry) for key, registry in named.items()}


def _corpora() -> list[str]:
    from .composer.fetching.corpus import list_corpora

    return list_corpora()


def _recipe_options(command: Decorated) -> Decorated:
    """Add what says which recipe is meant: its name and what takes the place of its own keys."""
    for option in (
        click.option(
            "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the recipe; repeatable.",
            shell_complete=complete_settings(_settings),
        ),
        click.option("--backgrounds", type=A_PATH, help="Folder of backgrounds, searched recursively."),
        click.option("--alphas", type=A_PATH, help="Folder of their alphas, under the same names."),
        click.option("--foregrounds", type=A_PATH, help="Folder of foregrounds: cut-outs, or pictures with --alphas."),
        click.argument("recipe", required=False, shell_complete=complete_names(_recipes)),
    ):  # fmt: skip
        command = option(command)
    return command


@click.group(cls=Group, context_settings=HELP)
@click.version_option(__version__, prog_name="matting-compose")
def compose() -> None:
    """Compose image-matting datasets, offline and in parallel.

    \b
    Examples:
      matting-compose build                      the demo: drawn pictures, no download
      matting-compose build my.toml --dry-run    what would be made, and what might go wrong
      matting-compose recipes                    what is shipped
    """


@compose.command(epilog=EXIT_CODES)
@_recipe_options
@click.option(
    "-o",
    "--out",
    type=DatasetPath(path_type=Path, file_okay=False),
    help="The dataset's folder, or s3://…  [default: named as the recipe]",
)
@JOBS
@click.option("--variants", type=int, help="Backgrounds per foreground.")
@click.option("--shards", "share", metavar="I/N", help="Render the I-th of N shares of the shards, for job arrays.")
@click.option("--cluster", metavar="ADDRESS", help="Render on the workers of this Dask scheduler, tcp://HOST:PORT.")
@click.option("--dry-run", is_flag=True, help="Plan, measure and warn; write nothing.")
@AS_JSON
@shared_options
def build(
    recipe: str | None,
    out: Path | None,
    jobs: int,
    foregrounds: Path | None,
    alphas: Path | None,
    backgrounds: Path | None,
    variants: int | None,
    overrides: tuple[str, ...],
    share: str | None,
    cluster: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Render composites, alphas and trimaps into sharded HDF5 files.

    RECIPE is a TOML file or the name of a shipped recipe; without it, and without --foregrounds, the demo is built.
    A build that was stopped, by whatever, goes on when the same command is run again.

    \b
    Examples:
      matting-compose build
      matting-compose build --foregrounds cutouts/ --backgrounds photos/ --variants 100 --out dataset
      matting-compose build --foregrounds fg/ --alphas alpha/ --backgrounds photos/ --out dataset --dry-run
      matting-compose build my.toml -j 8 --set trimap.dilate=[1,30] --set shards.packing=solid
      matting-compose build my.toml --out /shared/dataset --shards 3/64
    """
    with handle_errors():
        from .composer.base.storage import resolve_path

        if cluster and jobs != -1:
            raise click.UsageError("--jobs is for this machine; with --cluster, its workers decide")
        if dry_run and (share or cluster):
            raise click.UsageError("--dry-run looks at the whole, on this machine; leave --shards and --cluster out")
        part = _share(share)
        if variants is not None:
            overrides = (f"variants={variants}", *overrides)
        loaded = _load(recipe, overrides, foregrounds, alphas, backgrounds)
        out = resolve_path(out or Path(Path(recipe).stem if recipe else "dataset" if foregrounds else DEMO))
        code = _dry_run(loaded, out, jobs, as_json) if dry_run else _build(loaded, out, jobs, part, cluster, as_json)
    sys.exit(code)


def _load(
    name: str | None,
    overrides: tuple[str, ...],
    foregrounds: Path | None,
    alphas: Path | None,
    backgrounds: Path | None,
) -> Recipe:
    """Read the recipe that is meant: with no name and no folders the demo."""
    from .composer.fetching.corpus import list_corpora
    from .composer.recipe import load_recipe

    if name is None and foregrounds is None and alphas is None and backgrounds is not None:
        raise click.UsageError(
            f"--backgrounds says what lies behind; say by --foregrounds, or by a recipe, what stands before it:"
            f" '{DEMO} --backgrounds {backgrounds}' lays drawn pictures over yours"
        )
    name = name or (None if foregrounds else DEMO)
    recipe = load_recipe(name, overrides, foregrounds=foregrounds, alphas=alphas, backgrounds=backgrounds)
    root = getattr(recipe.foreground_tables[0], "root", None)
    if name in list_corpora() and not (root and root.exists()):
        raise FileError(f"{root}: no such folder; its pictures are brought by: matting-compose fetch {name}")
    return recipe


def _share(text: str | None) -> Share:
    from .composer.building.shares import WHOLE_BUILD, Share

    try:
        return WHOLE_BUILD if text is None else Share.parse(text)
    except ValueError as error:
        raise click.UsageError(f"--shards: {error}") from None


def _build(recipe: Recipe, out: Path, jobs: int, share: Share, cluster: str | None, as_json: bool) -> int:
    from .composer.base.files import free_bytes
    from .composer.base.storage import is_remote
    from .composer.building.build import build
    from .composer.building.resume import plan_build
    from .composer.console.printing import headline, print_built, print_missing
    from .composer.dataset.documents import INDEX
    from .composer.sources.listings import CONTACT_SHEET

    plan = plan_build(recipe, out)
    tell(headline(plan))
    mine = share.of(plan.shards)
    total = sum(map(len, mine))
    if share.count > 1:
        tell(f"share {share}: {count_of(len(mine), 'shard')}, {count_of(total, 'composite')}")
    free = None if is_remote(out) else free_bytes(out)
    if free is not None and plan.estimated_bytes // share.count > free:
        warn(f"it needs about {format_size(plan.estimated_bytes)}, the disk has {format_size(free)} free")
    with show_progress() as report:
        result = build(plan, out, jobs=jobs, share=share, cluster=cluster, on_progress=report)
    if as_json:
        failed = [failure.model_dump() for failure in result.failed]
        click.echo(json.dumps({**asdict(result), "failed": failed}))
    print_built(result, out / CONTACT_SHEET)
    if not result.failures:
        return CLEAN
    print_missing(result.failed, out / INDEX)
    return WITH_FAILURES


def _dry_run(recipe: Recipe, out: Path, jobs: int, as_json: bool) -> int:
    from .composer.building.dry_run import dry_run
    from .composer.building.resume import plan_build
    from .composer.console.printing import headline, print_dry_run

    plan = plan_build(recipe, out)
    (tell if as_json else click.echo)(headline(plan))
    with show_progress() as report:
        found = dry_run(plan, out, jobs=jobs, on_progress=report)
    if as_json:
        click.echo(json.dumps({**asdict(found), "out": str(out), "plan_sha256": plan.sha256}))
    else:
        print_dry_run(found)
    return WITH_FAILURES if found.failing else CLEAN


@compose.command(
    short_help="Say which of a recipe's pictures are missing or odd.",
    epilog="""\b
    Exit codes: 0 all is well, notes apart; 2 wrong usage or recipe;
    3 there are problems: composites would be missing, or others than meant.""",
)
@_recipe_options
@JOBS
@AS_JSON
@shared_options
def doctor(
    recipe: str | None,
    jobs: int,
    foregrounds: Path | None,
    alphas: Path | None,
    backgrounds: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Say which of a recipe's pictures are missing or odd, before anything is rendered.

    Folders are listed, headers and alphas read; nothing is written.

    \b
    Examples:
      matting-compose doctor dim431-coco2014 --foregrounds Combined_Dataset/Training_set --backgrounds train2014
      matting-compose doctor --foregrounds cutouts/ --backgrounds photos/ --json
    """
    with handle_errors("Nothing was written"):
        from .composer.building.doctor import examine
        from .composer.console.printing import print_diagnosis

        loaded = _load(recipe, overrides, foregrounds, alphas, backgrounds)
        with show_progress() as report:
            found = examine(loaded, jobs=jobs, on_progress=report)
        if as_json:
            click.echo(json.dumps({**asdict(found), "healthy": found.healthy}))
        else:
            print_diagnosis(found)
    sys.exit(CLEAN if found.healthy else WITH_FAILURES)


@compose.command()
@click.argument("name", required=False, shell_complete=complete_names(_recipes))
@AS_JSON
@shared_options
def recipes(name: str | None, as_json: bool) -> None:
    """List the shipped recipes, or print one, to start your own from.

    \b
    Examples:
      matting-compose recipes
      matting-compose recipes demo > my.toml
    """
    with handle_errors():
        from .composer.console.shipped import print_list, print_text
        from .composer.recipe import MANIFESTS

        if name is None:
            print_list(MANIFESTS, "recipe")
        else:
            print_text(name, MANIFESTS, "recipe")


@compose.command(
    short_help="Fetch openly licensed cut-outs and photographs.",
    epilog="""\b
    Exit codes: 0 all is there; 1 failed; 2 wrong usage;
    3 finished, but some pictures are missing; 130 interrupted.""",
)
@click.argument("corpus", shell_complete=complete_names(_corpora))
@click.option("-o", "--out", type=A_FOLDER, help="The pictures' folder  [default: CORPUS-pictures]")
@click.option(
    "--packages",
    type=A_PATH,
    multiple=True,
    help="A package file, or a folder of them, to take before apt is asked; repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be fetched, and from where; write nothing.")
@AS_JSON
@shared_options
def fetch(corpus: str, out: Path | None, packages: tuple[Path, ...], dry_run: bool, as_json: bool) -> None:
    """Fetch openly licensed cut-outs and photographs out of Debian's packages.

    CORPUS is the name of a shipped corpus, or a table like its own. Each picture is compared with its hash;
    what is there already is not fetched again, and a fetch that was stopped goes on.

    \b
    Examples:
      matting-compose fetch open431 --dry-run
      matting-compose fetch open431
      matting-compose fetch open431 --packages downloads/ --out pictures
    """
    with handle_errors():
        from .composer.fetching.corpus import load_corpus

        loaded = load_corpus(corpus)
        out = out or Path(f"{loaded.name}-pictures")
        code = (_dry_fetch if dry_run else _fetch)(loaded, out, packages, as_json)
    sys.exit(code)


def _fetch(corpus: Corpus, out: Path, packages: tuple[Path, ...], as_json: bool) -> int:
    from .composer.console.printing import print_fetch_result
    from .composer.fetching.fetch import fetch

    with show_progress() as report:
        done = fetch(corpus, out, packages, on_progress=report)
    if as_json:
        click.echo(json.dumps(asdict(done)))
    print_fetch_result(done)
    return WITH_FAILURES if done.failures else CLEAN


def _dry_fetch(corpus: Corpus, out: Path, packages: tuple[Path, ...], as_json: bool) -> int:
    from .composer.base.files import free_bytes
    from .composer.console.printing import print_fetch_plan
    from .composer.fetching.fetch import plan_fetch

    plan, free = plan_fetch(corpus, out, packages), free_bytes(out)
    if as_json:
        click.echo(json.dumps({"out": str(out), **plan.document(), "free_bytes": free}))
    else:
        print_fetch_plan(plan, out, free)
    return WITH_FAILURES if plan.absent else CLEAN


@compose.command(
    short_help="Make cut-outs with true colours, without halos.",
    epilog="""\b
    Exit codes: 0 all is well; 1 failed; 2 wrong usage;
    3 finished, but some cut-outs are missing; 130 interrupted.""",
)
@click.argument("pictures", nargs=-1, required=True, type=A_PATH)
@click.option("--alphas", type=A_PATH, help="Folder of the pictures' alphas, under the same names.")
@click.option("--layout", type=click.Choice(LAYOUTS), help="PICTURES is this data set's folder.")
@click.option("-o", "--out", type=A_FOLDER, required=True, help="The cut-outs' folder.")
@JOBS
@click.option("--dry-run", is_flag=True, help="Say what would be made, and what would fail; write nothing.")
@AS_JSON
@shared_options
def extract(
    pictures: tuple[Path, ...],
    alphas: Path | None,
    layout: str | None,
    out: Path,
    jobs: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make cut-outs with true colours, so that composites have no halos.

    PICTURES are pictures with --alphas, a data set's folder with --layout, or cut-outs that carry their alpha; files
    or folders. The result serves as build --foregrounds. An extraction that was stopped goes on when the same command
    is run again.

    \b
    Examples:
      matting-compose extract photos/ --alphas mattes/ --out cutouts
      matting-compose extract P3M-10k/ --layout p3m10k --out cutouts --dry-run
      matting-compose extract downloaded/ --out cutouts
    """
    with handle_errors():
        if alphas and layout:
            raise click.UsageError("--alphas and --layout exclude each other: a layout knows where its alphas lie")
        from .composer.extraction.inputs import list_inputs

        inputs = list_inputs(pictures, alphas, layout, out=out)
        code = (_dry_extract if dry_run else _extract)(inputs, out, jobs, as_json)
    sys.exit(code)


def _extract(inputs: list[ExtractInput], out: Path, jobs: int, as_json: bool) -> int:
    from .composer.console.printing import print_extraction, print_failures
    from .composer.extraction.extract import extract
    from .composer.sources.listings import EXTRACT_PAGE, EXTRACT_REPORT

    with show_progress() as report:
        done = extract(inputs, out, jobs=jobs, on_progress=report)
    if as_json:
        click.echo(json.dumps(asdict(done)))
    print_extraction(done, out / EXTRACT_PAGE)
    print_failures(done.failures, f"all in {out / EXTRACT_REPORT}")
    return WITH_FAILURES if done.failures else CLEAN


def _dry_extract(inputs: list[ExtractInput], out: Path, jobs: int, as_json: bool) -> int:
    from .composer.console.printing import print_failures
    from .composer.extraction.extract import preview_extract

    with show_progress() as report:
        found = preview_extract(inputs, out, jobs=jobs, on_progress=report)
    if as_json:
        click.echo(json.dumps({"out": str(out), **asdict(found)}))
    else:
        todo = found.pictures - found.present - len(found.failures)
        click.echo(
            f"{out}: {todo:,} of {count_of(found.pictures, 'cut-out')} to make, {found.megapixels:,.1f} megapixels"
        )
    print_failures(found.failures, "--json lists all")
    return WITH_FAILURES if found.failures else CLEAN


@compose.command(short_help="Look at a dataset, prove it, or compare it.", epilog=LOOK_CODES)
@click.argument("dataset", type=DatasetPath(path_type=Path))
@click.option("--full", is_flag=True, help="Look at every composite's pixels, not at a sample.")
@click.option("--verify", is_flag=True, help="Prove that every byte and every composite is as planned.")
@click.option(
    "--repair", is_flag=True, help="With --verify: move bad shards aside, so that a build renders them again."
)
@click.option("--show", "name", metavar="KEY", help="Show one composite: its key, its number, or random.")
@click.option(
    "-o", "--out", cls=FormerNames, former=("--output",), type=click.Path(path_type=Path, dir_okay=False),
    help="With --show: write a picture file.",
)  # fmt: skip
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write one self-contained HTML file.")
@click.option("--diff", "other", type=DatasetPath(path_type=Path), help="Say what differs from another dataset.")
@JOBS
@AS_JSON
@shared_options
def inspect(
    dataset: Path,
    full: bool,
    verify: bool,
    repair: bool,
    name: str | None,
    out: Path | None,
    report: Path | None,
    other: Path | None,
    jobs: int,
    as_json: bool,
) -> None:
    """Look at a dataset: what it holds, how it is spread, what is missing or damaged.

    \b
    Examples:
      matting-compose inspect dataset                     a summary
      matting-compose inspect dataset --verify            every byte, every composite
      matting-compose inspect dataset --show random -o panel.png
      matting-compose inspect dataset --report look.html  to open in a browser
      matting-compose inspect dataset --diff other        what differs; exit code 1 if anything does
      matting-compose inspect dataset --verify --repair   and make room for what a build will mend
    """
    with handle_errors():
        if repair and not verify:
            raise click.UsageError("--repair goes with --verify")
        if out and name is None:
            raise click.UsageError("--out goes with --show")
        if sum((verify, name is not None, report is not None, other is not None)) > 1:
            raise click.UsageError("--verify, --show, --report and --diff are asked for one at a time")
        if verify:
            code = _verify(dataset, repair, jobs, as_json)
        elif name is not None:
            code = _show(dataset, name, out, as_json)
        elif report:
            code = _report(dataset, report, as_json)
        elif other:
            code = _diff(dataset, other, full, as_json)
        else:
            code = _summary(dataset, full, as_json)
    sys.exit(code)


def _verify(dataset: Path, repair: bool, jobs: int, as_json: bool) -> int:
    from .composer.console.printing import print_verdict
    from .composer.inspection.verify import move_aside, verify

    with show_progress() as report:
        verdict = verify(dataset, jobs=jobs, on_progress=report)
    if repair:
        verdict = move_aside(dataset, verdict)
    if as_json:
        click.echo(json.dumps(asdict(verdict)))
    else:
        print_verdict(verdict)
    return FAILED if verdict.problems else CLEAN


def _summary(dataset: Path, full: bool, as_json: bool) -> int:
    from .composer.console.printing import print_summary
    from .composer.inspection.summary import summarise

    with show_progress() as report:
        summary = summarise(dataset, full=full, on_progress=report)
    if as_json:
        click.echo(json.dumps(asdict(summary)))
    else:
        print_summary(summary)
    return CLEAN


def _diff(dataset: Path, other: Path, full: bool, as_json: bool) -> int:
    from .composer.console.printing import print_difference
    from .composer.inspection.diff import compare

    with show_progress() as report:
        found = compare(dataset, other, full=full, on_progress=report)
    if as_json:
        click.echo(json.dumps(asdict(found)))
    else:
        print_difference(found)
    return CLEAN if found.same else FAILED


def _show(dataset: Path, name: str, out: Path | None, as_json: bool) -> int:
    from .composer.base.files import refuse_replacing
    from .composer.console.printing import print_panel
    from .composer.dataset.checksums import covered_files
    from .composer.inspection.panel import draw_panel, read_composite, write_panel

    if out:
        refuse_replacing([out], covered_files(dataset))
    sample = read_composite(dataset, name)
    picture = draw_panel(sample)
    if out:
        write_panel(picture, out)
    if as_json:
        click.echo(json.dumps(asdict(sample.row)))
    else:
        print_panel(sample.row, None if out and not sys.stdout.isatty() else picture)
    return CLEAN


def _report(dataset: Path, path: Path, as_json: bool) -> int:
    from .composer.base.files import refuse_replacing
    from .composer.dataset.checksums import covered_files
    from .composer.inspection.html_report import write_report

    refuse_replacing([path], covered_files(dataset))

    start = time.monotonic()
    with show_progress() as report:
        summary = write_report(dataset, path, on_progress=report)
    if as_json:
        click.echo(json.dumps(asdict(summary)))
    tell(f"{path}: {format_size(path.stat().st_size)}, in {format_duration(time.monotonic() - start)}")
    return CLEAN


@compose.command(short_help="Write a dataset as PNG files, WebDataset or Parquet.", epilog=LOOK_CODES)
@click.argument("dataset", type=DatasetPath(path_type=Path))
@click.argument("folder", type=A_FOLDER, required=False, cls=FormerArgument)
@click.option("-o", "--out", type=A_FOLDER, help="The folder to write.  [required]")
@click.option(
    "--to",
    type=click.Choice(["png", "webdataset", "parquet"]),
    required=True,
    help="png: folders merged, alpha, trimap, fg, bg, with lists; webdataset: tar files; parquet: columns of pictures.",
)
@click.option("--split", type=click.Choice(["train", "validation"]), help="Only this split.")
@click.option("--foreground", "foregrounds", multiple=True, metavar="NAME", help="Only this foreground; repeatable.")
@LIMIT
@JOBS
@AS_JSON
@shared_options
def convert(
    dataset: Path,
    folder: Path | None,
    out: Path | None,
    to: Literal["png", "webdataset", "parquet"],
    split: str | None,
    foregrounds: tuple[str, ...],
    limit: int | None,
    jobs: int,
    as_json: bool,
) -> None:
    """Write a dataset, or a part of it, as what other programs read.

    What was stopped goes on when the same command is run again.

    \b
    Examples:
      matting-compose convert dataset -o pictures --to png --limit 100
      matting-compose convert dataset -o tars --to webdataset --split train
      matting-compose convert dataset -o parquet --to parquet
    """
    with handle_errors():
        if folder and out:
            raise click.UsageError("the folder to write is given twice: leave all but --out away")
        if not (out := out or folder):
            raise click.UsageError("Missing option '-o' / '--out': the folder to write")
        from .composer.inspection.export import export as write

        with show_progress() as report:
            result = write(
                dataset, out, to, split=split, foregrounds=foregrounds, count=limit, jobs=jobs, on_progress=report
            )
        if as_json:
            click.echo(json.dumps(asdict(result)))
        tell(f"{out}: {count_of(result.composites, 'composite')} in {count_of(result.files, 'file')}")


_export = copy.copy(convert)  # as it was called: matting-export, which writes networks, is another matter
_export.hidden = True
compose.add_command(_export, "export")
