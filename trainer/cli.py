"""matting-train: options, progress, exit codes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..composer.base.text import format_duration
from ..composer.console.command import Command, complete_names, complete_settings
from ..composer.console.options import A_FOLDER, AS_JSON, HELP, DatasetPath, shared_options
from ..composer.console.progress_bar import show_progress
from ..composer.console.terminal import CLEAN, INTERRUPTED, handle_errors, tell
from . import configs

if TYPE_CHECKING:
    from .training.config import Config

EXIT_CODES = """\b
Exit codes: 0 trained; 1 failed; 2 wrong usage or configuration; 130 stopped, and saved."""
KNOWN_CONFIGS = "cpu-small, default(-wide), demo, dim, modern, shm, shm-mnet, shm-tnet (and each shm with -small)"


def _list_configs(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Name the shipped configurations, each with its first line."""
    if wanted:
        from ..composer.console.shipped import print_list

        print_list(configs.__name__, "configuration")
        context.exit()


def _print_config(context: click.Context, _: click.Parameter, name: str | None) -> None:
    """Print a shipped configuration as it is written."""
    if name is not None:
        with handle_errors():
            from ..composer.console.shipped import print_text

            print_text(name, configs.__name__, "configuration")
        context.exit()


class WeightedDataset(DatasetPath):
    """A dataset, and its weight after the last equals sign; 1 where none is given."""

    name = "dataset"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Take what ends in = and digits as a weight, and ask where a folder is called so."""
        path, weight = value, 1.0
        if found := re.fullmatch(r"(.+)=(\d+\.?\d*|\.\d+)", value, re.DOTALL):
            path, weight = found[1], float(found[2])
            if "://" not in value and Path(value).exists():
                self.fail(f"'{value}' is a folder, and {path} with a weight: write {value}=1, or {path}/={found[2]}")
        if not 0.001 <= weight <= 1000:
            self.fail(f"'{value}': a weight lies within 0.001 and 1000")
        return super().convert(path, param, ctx), weight


def _configs() -> list[str]:
    from ..composer.base.settings import list_shipped

    return list_shipped(configs.__name__)


def _settings() -> dict[str, list[str]]:
    from ..composer.base.settings import list_keys
    from .networks.losses import LOSSES
    from .networks.registry import NETWORKS
    from .training.config import Config

    keys = list_keys(Config) | {"network.name": list(NETWORKS)} | {f"losses.{name}": [] for name in LOSSES}
    del keys["losses"]
    return keys


@click.command(cls=Command, epilog=EXIT_CODES, context_settings=HELP)
@click.version_option(__version__, prog_name="matting-train")
@click.argument("datasets", metavar="DATASET[=WEIGHT]...", nargs=-1, required=True, type=WeightedDataset())
@click.option("-o", "--out", type=A_FOLDER, required=True, help="The run's folder.")
@click.option(
    "--config",
    "name",
    shell_complete=complete_names(_configs),
    show_default="modern, or with --resume what the run was begun with",
    help=f"{KNOWN_CONFIGS}, a TOML file, or another run's config.json.",
)
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_configs,
    help="Name the configurations that are shipped.",
)
@click.option(
    "--print",
    metavar="NAME",
    shell_complete=complete_names(_configs),
    is_eager=True,
    expose_value=False,
    callback=_print_config,
    help="Print a configuration, to start your own from.",
)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key; repeatable.",
    shell_complete=complete_settings(_settings),
)  # fmt: skip
@click.option("--steps", type=int, help="How many steps; short for --set steps=N.")
@click.option(
    "--validation",
    multiple=True,
    type=DatasetPath(),
    help="Validate on this dataset; repeatable.",
    show_default="on what the datasets keep apart",
)
@click.option(
    "--init",
    multiple=True,
    metavar="[PART=]RUN|FILE",
    help="Start from its weights, where they fit; default: the package's; of shm tnet=RUN and mnet=RUN.",
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--dry-run", is_flag=True, help="Check everything and say what would be done; write nothing.")
@AS_JSON
@shared_options
def train(
    datasets: tuple[tuple[Path | str, float], ...],
    out: Path,
    name: str | None,
    overrides: tuple[str, ...],
    steps: int | None,
    validation: tuple[str, ...],
    init: tuple[str, ...],
    resume: bool,
    device: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train MNet, or another network, on datasets that matting-compose has built.

    Of several datasets, crops come as their weights say, 1 where none is given. Of a path that ends in = and a number
    the weight is given, too: lr=2=1.

    Ctrl-C or SIGTERM saves and stops after the step; --resume goes on, bit for bit on a CPU.

    \b
    Examples:
      matting-train dataset --out run --config cpu-small
      matting-train --print modern > my.toml
      matting-train composed natural=0.3 --validation composition-1k --out run
      matting-train dataset --out run --set stream.batch=16 --set optimiser.rate=1e-4
      matting-train dataset --out run --resume
      torchrun --standalone --nproc-per-node 8 -m matting_compose.trainer.cli dataset --out run
    """
    with handle_errors("Go on with --resume: the last checkpoint is whole"):
        _need_packages()
        if steps is not None:
            overrides = (*overrides, f"steps={steps}")
        if init:
            overrides = (*overrides, f"network.init={_init(init)}")
        if validation:
            found = [where if "://" in where else str(Path(where).absolute()) for where in validation]  # for a resume
            overrides = (*overrides, f"validation.datasets={json.dumps(found, ensure_ascii=False)}")
        config = _config(out, name, overrides, resume)
        code = _train(list(datasets), out, config, resume, device, dry_run, as_json)
    sys.exit(code)


def _init(given: tuple[str, ...]) -> str:
    """Write --init as TOML: a file, or a table of one for each part. What there is a file of is one, = or not."""
    if len(given) == 1 and ("=" not in given[0] or Path(given[0]).exists()):
        return json.dumps(given[0], ensure_ascii=False)
    parts = dict(item.partition("=")[::2] for item in given)
    if len(parts) < len(given) or not all(parts.values()):
        raise click.UsageError("several --init are one for each part of the network: --init tnet=RUN --init mnet=RUN")
    return "{" + ", ".join(f"{part} = {json.dumps(path, ensure_ascii=False)}" for part, path in parts.items()) + "}"


def _need_packages() -> None:
    """Look for what training needs now, not when the first hour is over."""
    from ..composer.base.packages import require_packages

    require_packages("torch", extra="train")


def _config(out: Path, name: str | None, overrides: tuple[str, ...], resume: bool) -> Config:
    from .training.config import load_config
    from .training.run_folder import begun_config, check_folder

    check_folder(out, resume)
    if name is None and resume:
        return begun_config(out, overrides)
    return load_config(name or "modern", overrides)


def _train(
    datasets: Sequence[tuple[Path | str, float]], out: Path, config: Config, resume: bool, device: str, dry_run: bool,
    as_json: bool,
) -> int:  # fmt: skip
    from .training.loop import train
    from .training.plan import measured, plan_training
    from .training.runtime import open_runtime

    with open_runtime(device, config.processes.wait, config.processes.silence) as runtime:
        plan = plan_training(datasets, config, runtime, resume)
        if dry_run:
            if runtime.leads and not as_json:
                click.echo(str(plan))  # at once: measuring takes its time
            whole = measured(plan, config, runtime, tell if runtime.leads else lambda text: None)
            if runtime.leads:
                click.echo(json.dumps(asdict(whole)) if as_json else str(whole).removeprefix(str(plan)).strip())
            return CLEAN
        if runtime.leads:
            tell(str(plan))
        with show_progress(line_every=0) as report:
            result = train(datasets, out, config, runtime, report, resume)
    if not runtime.leads:
        return INTERRUPTED if result.stopped else CLEAN
    if as_json:
        click.echo(json.dumps(asdict(result)))
    best = (
        ""
        if result.best_score is None
        else f"; best {config.validation.best} {result.best_score:.4g} at step {result.best_step:,}"
    )
    tell(f"{out}: {result.step:,} steps in {format_duration(result.seconds)}{best}. Look at {out / 'index.html'}")
    if result.step < result.steps and not result.stopped:
        tell(f"It ended early: nothing better in {config.validation.patience} validations (validation.patience)")
    if result.stopped:
        tell(f"Stopped at step {result.step:,} of {result.steps:,}, and saved: go on with --resume")
        return INTERRUPTED
    return CLEAN


if __name__ == "__main__":
    train()
