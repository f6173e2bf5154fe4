"""Settings: strict, frozen tables read from TOML, by name or by path, with single keys overridden."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from .errors import MattingComposeError


def _check_order(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError(f"the range [{limits[0]:g}, {limits[1]:g}] is upside down")
    return limits


Range = Annotated[
    tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]], AfterValidator(_check_order)
]  # both ends included


Fraction = Annotated[float, Field(ge=0, lt=1)]


Chance = Annotated[float, Field(ge=0, le=1)]


Chances = Annotated[tuple[Chance, Chance], AfterValidator(_check_order)]  # both ends included


class Table(BaseModel):
    """One table of settings: frozen, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)


def list_shipped(package: str) -> list[str]:
    """Name the TOML files that come in a package, sorted, without their ending."""
    folder = resources.files(package)
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def read_toml(
    name: str | Path | None, package: str, noun: str, error: type[MattingComposeError]
) -> tuple[dict[str, Any], Path]:
    """Read a TOML file: a shipped one by name, another by its path, which ends in ``.toml``; None gives no keys.

    Returns
    -------
    its keys, and the folder that its relative paths are relative to

    Raises
    ------
    error : with the name, what is wrong with it, and what there is
    """
    if name is None:
        return {}, Path.cwd()
    path = Path(name)
    if path.suffix == ".toml":
        try:
            return tomllib.loads(path.read_text(encoding="utf-8")), path.parent
        except FileNotFoundError:
            raise error(f"{path}: no such {noun} file") from None
        except (ValueError, RecursionError) as found:
            raise error(f"{path}: not TOML: {found}") from None
        except OSError as found:
            raise error(f"{path}: cannot be read: {found.strerror}") from None
    if str(name) not in list_shipped(package):
        raise error(
            f"no {noun} is called '{name}'; shipped are {', '.join(list_shipped(package))}; a file's name ends in .toml"
        )
    return tomllib.loads(read_shipped(str(name), package)), Path.cwd()


def read_shipped(name: str, package: str) -> str:
    """Return a shipped file as it is written."""
    return resources.files(package).joinpath(f"{name}.toml").read_text(encoding="utf-8")


def override(data: dict[str, Any], item: str, error: type[MattingComposeError]) -> None:
    """Set one key in place: ``table.key=value``, the value TOML or else plain text."""
    key, equals, text = item.partition("=")
    if not equals or not key.strip():
        raise error(f"--set {item}: expected KEY=VALUE, for example trimap.dilate=[1,30]")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is a string
    except (ValueError, RecursionError) as found:
        raise error(f"--set {key}: {found}") from None
    *tables, last = key.strip().split(".")
    for table in tables:
        data = data.setdefault(table, {})
        if not isinstance(data, dict):
            raise error(f"--set {item}: '{table}' is a value, not a table")
    data[last] = value


def join_findings(found: Sequence[str], origin: str, noun: str) -> str:
    """Make one message of several findings, each on its own line, once."""
    return f"{origin} is not a {noun}:\n" + "\n".join(dict.fromkeys(f"  {line}" for line in found))
