"""Config: how to train. A frozen, strictly typed value, read from TOML and written into the run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt, ValidationError, field_validator
from pydantic_core import ErrorDetails

from ...composer.base.errors import RecipeError
from ...composer.base.settings import Table, join_findings, list_shipped, override, read_toml
from ..data.crops import Augment
from ..data.stream import OPEN_SHARDS, SIZES
from ..networks.losses import LOSSES
from .runtime import Place

CONFIGS = "matting_compose.trainer.configs"


COMPOSING = ("compositional", "shm_prediction")  # they need the foreground and the background


Positive = Annotated[float, Field(gt=0)]


NotNegative = Annotated[float, Field(ge=0)]


Side = Annotated[int, Field(ge=32, le=4096)]


class NetworkTable(Table):
    """Which MNet; see `mnet.MNet`."""

    width: Positive = Field(1.0, description="multiplies every layer's channels")
    decoder: Literal["unpool", "resize"] = "unpool"
    norm: Literal["batch", "group"] = "batch"
    output: Literal["clamp", "sigmoid"] = "clamp"
    encoder: str = Field(
        "random", description="random, download (torchvision's vgg16_bn, by torch.hub), or the path of such a file"
    )


class StreamTable(Table):
    """What the network sees; see `stream.open_stream`."""

    batch: PositiveInt = Field(10, description="crops per process and step")
    crop: Side = Field(320, description="px, the crops' side")
    sizes: Annotated[tuple[Side, ...], Field(min_length=1)] = Field(SIZES, description="px, the windows' sides")
    open_shards: PositiveInt = Field(OPEN_SHARDS, description="shards that are mixed at any moment")
    workers: NonNegativeInt | None = Field(None, description="reading processes; by default one per core, at most 8")
    prefetch: PositiveInt = Field(4, description="batches that each of them reads ahead")
    augment: Augment = Augment()


class OptimiserTable(Table):
    """How the weights move."""

    name: Literal["adam", "adamw"] = "adam"
    rate: Positive = Field(1e-5, description="the learning rate")
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: NonNegativeInt = Field(0, description="steps in which the rate rises from nothing")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    decay: NotNegative = Field(0.0, description="weight decay")
    clip: NotNegative = Field(0.0, description="the gradient's largest norm; 0 leaves it")
    accumulate: PositiveInt = Field(1, description="batches to a step")
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="decay of the weights' exponential moving average, which is then validated; 0 keeps none"
    )


class ValidationTable(Table):
    """What is measured on foregrounds that training never sees."""

    every: PositiveInt = Field(1000, description="steps between two validations")
    limit: PositiveInt = Field(100, description="composites, spread over the split")
    max_side: Side = Field(1500, description="px; longer pictures are reduced for the network only")
    panel: NonNegativeInt = Field(4, description="composites in the panel")


class Config(Table):
    """How to train."""

    steps: PositiveInt = 100_000
    seed: NonNegativeInt = 431
    precision: Literal["float32", "bf16"] = "float32"
    compile: bool = Field(False, description="torch.compile")
    channels_last: bool = True
    fuse: bool = Field(False, description="losses see F + U·α (SHM) rather than α as predicted")
    save_every: PositiveInt = Field(1000, description="steps between two `last` checkpoints")
    keep_every: NonNegativeInt = Field(0, description="steps between two checkpoints that stay; 0 keeps none")
    log_every: PositiveInt = Field(50, description="steps between two lines of metrics.jsonl")
    tensorboard: bool = Field(False, description="write events for TensorBoard too")
    network: NetworkTable = NetworkTable()
    stream: StreamTable = StreamTable()
    optimiser: OptimiserTable = OptimiserTable()
    losses: dict[str, NotNegative] = Field({"alpha_prediction": 1.0}, description="weights, by the losses' names")
    validation: ValidationTable = ValidationTable()

    @field_validator("losses")
    @classmethod
    def _check_losses(cls, losses: dict[str, float]) -> dict[str, float]:
        unknown = [name for name in losses if name not in LOSSES]
        if unknown:
            raise ValueError(f"unknown loss '{unknown[0]}'; there are {', '.join(LOSSES)}")
        if not any(losses.values()):
            raise ValueError("no loss has a weight above 0")
        return losses

    @property
    def composes(self) -> bool:
        """Whether a loss needs foregrounds and backgrounds."""
        return any(self.losses.get(name) for name in COMPOSING)


# What a run may change when it goes on: nothing that decides what the steps so far would have been.
CHANGEABLE = ("steps", "save_every", "keep_every", "log_every", "tensorboard", "validation", "stream.workers",
              "stream.prefetch", "compile")  # fmt: skip


def shipped_configs() -> list[str]:
    """Name the configurations that come with the package, sorted."""
    return list_shipped(CONFIGS)


def load_config(name: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration.

    Parameters
    ----------
    name : a shipped one's name, the path of a TOML file or of a run's config.json, or None for the defaults
    overrides : ``key=value`` strings, the key dotted (``optimiser.rate=1e-4``); values are TOML, else plain text

    Raises
    ------
    RecipeError : naming the key's path, what was found and what is allowed
    """
    if name is not None and Path(name).suffix == ".json":
        data = _read_json(Path(name))
    else:
        data, _ = read_toml(name, CONFIGS, "configuration", RecipeError)
    for item in overrides:
        override(data, item, RecipeError)
    return parse_config(data, str(name or "the command line"))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}); give a configuration by --config") from None
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: expected a configuration, found a {type(data).__name__}")
    return data


def parse_config(data: dict[str, Any], origin: str) -> Config:
    """Make a configuration of plain values; see `load_config`."""
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        found = [_explain_one(one) for one in error.errors(include_url=False)]
        raise RecipeError(join_findings(found, origin, "configuration")) from None


def differences(before: dict[str, Any], after: dict[str, Any], place: str = "") -> list[str]:
    """Name the keys in which two dumped configurations differ and a run that goes on may not."""
    found = []
    for key in sorted(before.keys() | after.keys()):
        path = f"{place}{key}"
        old, new = before.get(key), after.get(key)
        if path in CHANGEABLE or old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict) and path != "losses":
            found += differences(old, new, f"{path}.")
        else:
            found.append(f"{path} was {old}, is {new}")
    return found


def _explain_one(found: ErrorDetails) -> str:
    table: type[BaseModel] = Config
    place: list[str] = []
    for part in map(str, found["loc"]):
        place.append(part)
        field = table.model_fields.get(part)
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            break  # what follows says which member of a union or a tuple was tried
        table = field.annotation
    key = ".".join(place)
    if found["type"] == "extra_forbidden":
        return f"{key}: unknown key; allowed here are {', '.join(table.model_fields)}"
    return f"{key}: {found['msg'].removeprefix('Value error, ')} (found {found['input']!r})"


def crops_a_step(config: Config, place: Place) -> int:
    """Count what a step sees, over all processes."""
    return config.stream.batch * config.optimiser.accumulate * place.world
