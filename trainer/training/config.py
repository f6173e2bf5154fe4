"""Config: how to train. A frozen, strictly typed value, read from TOML and written into the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from ...composer.base.errors import RecipeError, UnknownNameError
from ...composer.base.files import parse_json, read_document
from ...composer.base.settings import Table, explain_finding, join_findings, list_shipped, override, read_toml
from .. import configs
from ..data.crops import Augment
from ..data.remix import Remix
from ..data.stream import OPEN_SHARDS, SIZES
from ..data.whole_scenes import WholeScenes
from ..networks.losses import LOSSES
from ..networks.registry import fill_arguments, network_class
from .runtime import Runtime

__all__ = ["Config", "crops_per_step", "differences", "list_configs", "load_config", "parse_config"]

CONFIGS = configs.__name__


Positive = Annotated[float, Field(gt=0)]


Rate = Annotated[float, Field(gt=0, le=1e30)]  # beyond, float32 has no such number


NotNegative = Annotated[float, Field(ge=0)]


Side = Annotated[int, Field(ge=32, le=4096)]


class NetworkTable(Table):
    """Which network; see `network.MattingNetwork`. Any other key is one of its arguments."""

    name: str = Field(default="mnet", description="a registered name, or package.module:Class")
    arguments: dict[str, Any] = Field(default={}, description="of the network's class", validate_default=True)
    encoder: str = Field(
        default="random",
        description="random, download (for mnet torchvision's vgg16_bn, by torch.hub), or a file's path",
    )

    init: str | dict[str, str] | None = Field(
        default=None,
        description="weights to start from, by name and shape: a file, or one for each part, {tnet = ..., mnet = ...};"
        " or --init",
    )
    checkpointing: bool = Field(
        default=False,
        description="gradient checkpointing: features are computed twice rather than kept",
    )
    freeze: list[str] = Field(
        default=[], description="parts that do not learn, by the beginnings of their names: encoder"
    )

    @classmethod
    def gather(cls, data: Any) -> Any:
        """Take ``width = 0.25`` for ``arguments = {width = 0.25}``."""
        if not isinstance(data, dict):
            return data
        known = {key: value for key, value in data.items() if key in cls.model_fields}
        loose = {key: value for key, value in data.items() if key not in cls.model_fields}
        arguments = known.get("arguments", {})
        if not loose or not isinstance(arguments, dict):
            return known
        if twice := loose.keys() & arguments.keys():
            raise ValueError(f"'{min(twice)}' is there twice: as a key and among the arguments")
        return known | {"arguments": {**arguments, **loose}}

    _gather = model_validator(mode="before")(gather)

    @field_validator("arguments")
    @classmethod
    def _check_arguments(cls, arguments: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        try:
            return fill_arguments(info.data["name"], arguments) if "name" in info.data else arguments
        except UnknownNameError as error:
            raise ValueError(str(error)) from None


class StreamTable(Table):
    """What the network sees; see `stream.open_stream`."""

    batch: PositiveInt = Field(default=10, description="crops per process and step")
    crop: Side = Field(default=320, description="px, the crops' side")
    sizes: Annotated[tuple[Side, ...], Field(min_length=1)] = Field(default=SIZES, description="px, the windows' sides")
    open_shards: PositiveInt = Field(default=OPEN_SHARDS, description="shards that are mixed at any moment")
    workers: NonNegativeInt | None = Field(
        default=None, description="reading processes; by default one per core, at most 8"
    )
    prefetch: PositiveInt = Field(default=4, description="batches that each of them reads ahead")
    skip: tuple[PositiveInt, ...] = Field(
        default=(),
        description="steps whose composites are left out, since they were not finite: not-finite-*.json",
    )
    augment: Augment = Augment()
    remix: Remix = Remix()
    scenes: WholeScenes | None = Field(
        default=None, description="a table: crops show whole scenes, and their trimaps are drawn from their alphas"
    )


class OptimiserTable(Table):
    """How the weights move."""

    name: Literal["adam", "adamw"] = "adam"
    rate: Rate = Field(default=1e-5, description="the learning rate")
    factors: dict[str, Rate] = Field(
        default={}, description="of the rate, for parts by the beginnings of their names: {encoder = 0.1}"
    )
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: NonNegativeInt = Field(default=0, description="steps in which the rate rises from nothing")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    decay: Annotated[float, Field(ge=0, le=1000)] = Field(default=0.0, description="weight decay")
    clip: NotNegative = Field(default=0.0, description="the gradient's largest norm; 0 leaves it")
    accumulate: PositiveInt = Field(default=1, description="batches to a step")
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="decay of the weights' exponential moving average, which is then validated; 0 keeps none",
    )


class ValidationTable(Table):
    """What is measured on foregrounds that training never sees."""

    every: PositiveInt = Field(default=1000, description="steps between two validations")
    limit: PositiveInt = Field(default=100, description="composites, spread over the split")
    max_side: Side = Field(default=1500, description="px; longer pictures are reduced for the network only")
    panel: NonNegativeInt = Field(default=4, description="composites of each dataset in the panel")
    datasets: list[str] = Field(
        default=[], description="folders whose validation split, or else all, is scored; or --validation"
    )
    best: str = Field(
        default="sad", description="the error whose least makes best.pt: sad is the first dataset's, or NAME.sad"
    )
    patience: NonNegativeInt = Field(
        default=0, description="validations in a row without a better one that end the training; 0 never does"
    )


class ProcessesTable(Table):
    """How long the processes of one training wait for each other."""

    silence: PositiveInt = Field(
        default=20,
        description="seconds without a sign of life, as of one that is stopped, until the others save and end",
    )
    wait: PositiveInt = Field(
        default=1800, description="seconds until they no longer wait for one that lives and does not come"
    )


class Config(Table):
    """How to train."""

    steps: PositiveInt = 100_000
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 431
    precision: Literal["auto", "float32", "bf16", "fp16"] = Field(
        default="float32", description="auto: bf16 where the device multiplies it itself, else float32; kept by the run"
    )
    compile: bool = Field(default=False, description="torch.compile")
    channels_last: bool = True
    fuse: bool = Field(default=False, description="losses see F + U·α (SHM) rather than α as predicted")
    save_every: PositiveInt = Field(default=1000, description="steps between two `last` checkpoints")
    keep_every: NonNegativeInt = Field(default=0, description="steps between two checkpoints that stay; 0 keeps none")
    log_every: PositiveInt = Field(default=50, description="steps between two lines of metrics.jsonl")
    trackers: list[str] = Field(
        default=[], description="where the numbers go beside metrics.jsonl: tensorboard, or package.module:Class"
    )
    network: NetworkTable = NetworkTable()
    stream: StreamTable = StreamTable()
    optimiser: OptimiserTable = OptimiserTable()
    losses: dict[str, NotNegative] = Field(
        default={"alpha_prediction": 1.0}, description="weights, by the losses' names"
    )
    validation: ValidationTable = ValidationTable()
    processes: ProcessesTable = ProcessesTable()

    @model_validator(mode="before")
    @classmethod
    def _spell(cls, data: Any) -> Any:
        """Take ``optimizer`` for ``optimiser``, and of older runs ``tensorboard`` for the tracker."""
        return _spell_as_here(data) if isinstance(data, dict) else data

    @field_validator("losses")
    @classmethod
    def _check_losses(cls, losses: dict[str, float]) -> dict[str, float]:
        try:
            for name in losses:
                LOSSES[name]
        except UnknownNameError as error:
            raise ValueError(str(error)) from None
        if not any(losses.values()):
            raise ValueError("no loss has a weight above 0")
        return losses

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        network = network_class(self.network.name)
        for name, weight in self.losses.items():
            if weight and LOSSES[name].of not in network.outputs:
                raise ValueError(
                    f"the loss '{name}' compares '{LOSSES[name].of}', and {self.network.name} gives"
                    f" {', '.join(network.outputs)}: take other losses"
                )
        if self.stream.batch < network.least_batch:
            raise ValueError(
                f"stream.batch is {self.stream.batch}; {self.network.name} normalises over crops, and takes at least"
                f" {network.least_batch}"
            )
        if not network.any_size and self.stream.crop % network.stride:
            raise ValueError(
                f"stream.crop is {self.stream.crop}; {self.network.name} takes multiples of {network.stride}"
            )
        return self

    @property
    def composes(self) -> bool:
        """Whether a loss needs foregrounds and backgrounds."""
        return any(LOSSES[name].composes for name, weight in self.losses.items() if weight)


# What a run may change when it goes on: nothing that decides what the steps so far would have been.
CHANGEABLE = ("steps", "save_every", "keep_every", "log_every", "trackers", "validation", "processes", "stream.workers",
              "stream.prefetch", "compile", "network.checkpointing")  # fmt: skip


# And what it may change where a step was not finite: recorded in its checkpoints, and told.
RETUNABLE = ("optimiser.rate", "optimiser.clip", "optimiser.warmup", "precision", "stream.skip")


# And what may change where the crops of a step, over all processes, stay as many: it then sees the same ones.
SPLITTING = ("stream.batch", "optimiser.accumulate")


def list_configs() -> list[str]:
    """Name the configurations that come with the package, sorted."""
    return list_shipped(CONFIGS)


def load_config(name: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration.

    Parameters
    ----------
    name : str, Path or None
        A shipped one's name, the path of a TOML file or of a run's config.json, or None for the defaults. A file may
        say ``extends = "modern"`` (or another file, from its own folder on): it then has only what differs.
    overrides : Sequence[str]
        ``key=value``, the key dotted (``optimiser.rate=1e-4``); values are TOML, else plain text.

    Raises
    ------
    RecipeError
        With the key's path, what was found and what is allowed.

    Examples
    --------
    >>> config = load_config("cpu-small", ["optimiser.rate=1e-4", "network.width=0.125"])
    >>> config.optimiser.rate, config.network.arguments["width"], config.stream.crop
    (0.0001, 0.125, 160)
    """
    return amend_config(_read(name), overrides, str(name or "the command line"))


def amend_config(data: dict[str, Any], overrides: Sequence[str], origin: str) -> Config:
    """Make a configuration of plain values and overrides; see `load_config`."""
    for item in sorted(overrides, key=lambda item: not item.startswith("network.name=")):
        _override(data, item)
    return parse_config(data, origin)


def _read(name: str | Path | None, above: Sequence[str] = ()) -> dict[str, Any]:
    """Read a file, and under it what it extends; its keys in one spelling."""
    if name is not None and Path(name).suffix == ".json":
        data, folder = _read_json(Path(name)), Path(name).parent
    else:
        data, folder = read_toml(name, CONFIGS, "configuration", RecipeError)
    try:
        data = _spell_as_here(data)
        if "network" in data:
            data["network"] = NetworkTable.gather(data["network"])
    except ValueError as error:
        raise RecipeError(f"{name} is not a configuration:\n  {error}") from None
    base = data.pop("extends", None)
    if base is None:
        return data
    if not isinstance(base, str):
        raise RecipeError(f"{name}: extends: expected a configuration's name or file, found {base!r}")
    base = str(folder / base) if Path(base).suffix in (".toml", ".json") else base
    if base in above:
        raise RecipeError(f"{name}: extends {base}, which extends this one")
    return _extend(_read(base, (*above, str(name))), data)


def _extend(base: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Lay a configuration over another, table by table; another network brings nothing of the one that it replaces."""
    merged = dict(base)
    for key, value in own.items():
        below = base.get(key)
        if key == "network" and isinstance(value, dict) and value.get("name", _name_in(base)) != _name_in(base):
            below = None
        merged[key] = _extend(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _name_in(data: Mapping[str, Any]) -> Any:
    network = data.get("network")
    return network.get("name", NetworkTable().name) if isinstance(network, dict) else NetworkTable().name


def _spell_as_here(data: dict[str, Any]) -> dict[str, Any]:
    """Rename what others spell otherwise."""
    if "optimizer" in data and "optimiser" in data:
        raise ValueError("'optimiser' and 'optimizer' are one table: leave one of them out")
    data = {("optimiser" if key == "optimizer" else key): value for key, value in data.items()}
    if data.pop("tensorboard", False) is True:
        data.setdefault("trackers", ["tensorboard"])
    return data


def _override(data: dict[str, Any], item: str) -> None:
    """Set a key; one of the network's arguments goes to them, and another network replaces the whole table."""
    item = item.strip()
    if item.startswith(("optimizer.", "optimizer=")):
        item = item.replace("optimizer", "optimiser", 1)
    table, _, key = item.partition("=")[0].strip().partition(".")
    if table == "network" and key and key.partition(".")[0] not in NetworkTable.model_fields:
        item = item.replace("network.", "network.arguments.", 1)
    before = _name_in(data)
    override(data, item, RecipeError)
    if (table, key) == ("network", "name") and data["network"]["name"] != before:
        data["network"] = {"name": data["network"]["name"]}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = parse_json(read_document(path))
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


def differences(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Tell by key how two dumped configurations differ, but for what any run may change that goes on."""
    found: dict[str, str] = {}
    for key in sorted(before.keys() | after.keys()):
        path = f"{prefix}{key}"
        old, new = before.get(key), after.get(key)
        if path in CHANGEABLE or old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict) and path != "losses":
            found |= differences(old, new, f"{path}.")
        else:
            found[path] = f"{path} was {old}, is {new}"
    return found


def _explain_one(found: ErrorDetails) -> str:
    table: type[BaseModel] = Config
    keys: list[str] = []
    for part in map(str, found["loc"]):
        keys.append(part)
        field = table.model_fields.get(part)
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            break  # what follows says which member of a union or a tuple was tried
        table = field.annotation
    return explain_finding(".".join(keys), found, table.model_fields)


def crops_per_step(config: Config, runtime: Runtime) -> int:
    """Count what a step sees, over all processes."""
    return config.stream.batch * config.optimiser.accumulate * runtime.world
