"""Not finite: what a step was made of whose loss or gradient is no number, and the ways on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from ...composer.base.errors import DatasetError, TrainingError
from ...composer.base.files import write_json
from ...composer.base.text import list_briefly
from ..data.mix import Mix
from ..data.stream import Stream
from .batches import places_of_step
from .config import Config
from .run_folder import LAST, PREVIOUS
from .run_page import warn_only
from .runtime import Runtime

__all__ = ["report_step"]

SHOWN = 4  # composites in the message


def report_step(
    out: Path, step: int, values: Mapping[str, float], stream: Stream, mix: Mix, config: Config, runtime: Runtime
) -> TrainingError:
    """Write down which crops a step was made of that was not finite, as ``not-finite-NNNNNNN.json``.

    Parameters
    ----------
    out : Path
        The run's folder.
    step : int
        Counted from 1.
    values : mapping of str to float
        What was not finite, by name.
    stream, mix, config, runtime
        The training's.

    Returns
    -------
    TrainingError
        To be raised, with the ways on.
    """
    path = out / f"not-finite-{step:07d}.json"
    try:
        crops = [asdict(origin) for origin in stream.origins(places_of_step(step, config, runtime))]
    except DatasetError as error:
        return TrainingError(f"step {step:,}: not finite, and what it was made of cannot be read: {error}")
    for crop in crops:
        crop["dataset"] = str(mix.datasets[crop["dataset"]].path)
    if runtime.leads:
        with warn_only():
            write_json(path, {"step": step, "values": {k: str(v) for k, v in values.items()}, "crops": crops})
    keys = list_briefly([crop["key"] for crop in crops], SHOWN)
    skip = ",".join(map(str, sorted({*config.stream.skip, step})))
    without = "" if step in config.stream.skip else f" without its composites by --set 'stream.skip=[{skip}]', or"
    return TrainingError(
        f"step {step:,}: not finite: {dict(values)}. Its composites: {keys}; all, with their crops, are in {path}."
        f" {LAST} is from before. Go on with --resume{without} with a lower optimiser.rate, or optimiser.clip=1.0, or"
        f" precision=float32, by --set; or go back further: rename {LAST}, and --resume takes {PREVIOUS}. The run keeps"
        " a record of it"
    )
