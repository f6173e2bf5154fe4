"""Settings: strict, frozen tables read from TOML, by name or by path, with single keys overridden."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import ErrorDetails

from .errors import MattingComposeError
from .files import bound_values, read_document
from .text import did_you_mean

MOST_SHOWN = 80  # characters of a value in a message


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
    keys : dict[str, Any]
    folder : Path
        What its relative paths are relative to.

    Raises
    ------
    error
        With the name, what is wrong with it, and what there is.
    """
    if name is None:
        return {}, Path.cwd()
    path = Path(name)
    if path.suffix == ".toml":
        try:
            return tomllib.loads(bound_values(read_document(path)).decode()), path.parent
        except FileNotFoundError:
            raise error(f"{path}: no such {noun} file") from None
        except (ValueError, RecursionError) as found:
            raise error(f"{path}: not TOML: {found}") from None
        except OSError as found:
            raise error(f"{path}: cannot be read: {found.strerror}") from None
    return tomllib.loads(read_shipped(str(name), package, noun, error)), Path.cwd()


def read_shipped(name: str, package: str, noun: str, error: type[MattingComposeError]) -> str:
    """Return a shipped file as it is written; raise `error` where there is none."""
    known = list_shipped(package)
    if name not in known:
        raise error(
            f"no {noun} is called '{name}'; {did_you_mean(name, known)}shipped are {', '.join(known)};"
            " a file's name ends in .toml"
        )
    return resources.files(package).joinpath(f"{name}.toml").read_text(encoding="utf-8")


def describe_shipped(package: str, noun: str, error: type[MattingComposeError]) -> dict[str, str]:
    """Return what the shipped files' first lines say of them, by name."""
    firsts = {name: read_shipped(name, package, noun, error).partition("\n")[0] for name in list_shipped(package)}
    return {name: first.lstrip("# ") for name, first in firsts.items()}


def override(data: dict[str, Any], item: str, error: type[MattingComposeError]) -> None:
    """Set one key in place: ``table.key=value``, of several ``tables.0.key``; the value TOML or else plain text."""
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
    place: Any = data
    for table in tables:
        if isinstance(place, list):
            place = place[int(table)] if table.isdecimal() and int(table) < len(place) else None
        else:
            place = place.setdefault(table, {})
        if not isinstance(place, dict | list):
            raise error(f"--set {item}: '{table}' is a value, not a table")
    if isinstance(place, list):
        raise error(f"--set {item}: there are {len(place)} such tables; say which, from 0: {'.'.join(tables)}.0.{last}")
    place[last] = value


def join_findings(found: Sequence[str], origin: str, noun: str) -> str:
    """Make one message of several findings, each on its own line, once."""
    return f"{origin} is not a {noun}:\n" + "\n".join(dict.fromkeys(f"  {line}" for line in found))


EXPECTED = {  # by pydantic's kinds of errors; {…} are its own figures
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a table",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "list_type": "a list, [a, b]",
    "literal_error": "{expected}",
    "model_type": "a table",
    "path_type": "a path",
    "string_type": "text",
    "too_long": "at most {max_length}, [a, b]",
    "too_short": "at least {min_length}, [a, b]",
    "tuple_type": "a list, [a, b]",
}


def explain_finding(key: str, found: ErrorDetails, allowed: Iterable[str]) -> str:
    """Say one of pydantic's findings: the key, what was expected, what was found.

    Parameters
    ----------
    key : str
        With its tables, as ``--set`` takes it: ``trimap.erode``.
    found : ErrorDetails
        What pydantic says of it.
    allowed : Iterable[str]
        The keys of its table.

    Examples
    --------
    >>> from pydantic import ValidationError
    >>> class Stream(Table):
    ...     batch: int = 10
    >>> try:
    ...     _ = Stream.model_validate({"batch": "many", "bach": 3})
    ... except ValidationError as error:
    ...     for found in error.errors():
    ...         print(explain_finding(f"stream.{found['loc'][0]}", found, Stream.model_fields))
    stream.batch: expected a whole number, found 'many'
    stream.bach: unknown key; did you mean 'batch'? allowed here are batch
    """
    if found["type"] == "extra_forbidden":
        names = list(allowed)
        near = did_you_mean(key.rpartition(".")[2], names)
        return f"{key}: unknown key; {near}allowed here are {', '.join(names)}"
    if found["type"] == "missing":
        return f"{key}: missing"
    value = repr(found["input"])
    value = value if len(value) <= MOST_SHOWN else f"{value[:MOST_SHOWN]}…"
    if found["type"] not in EXPECTED:
        message = found["msg"].removeprefix("Value error, ")
        if found["type"] == "value_error" and isinstance(found["input"], dict):  # of several keys: it says which
            return f"{key}: {message}" if key else message
        return f"{key}: {message} (found {value})"
    return f"{key}: expected {EXPECTED[found['type']].format(**found.get('ctx', {}))}, found {value}"


def list_keys(table: type[BaseModel], prefix: str = "") -> dict[str, list[str]]:
    """List a table's keys, those of tables in it dotted, each with the names that may be its value.

    Examples
    --------
    >>> from matting_compose.composer.recipe import Shards
    >>> list_keys(Shards, "shards.")["shards.background"]
    ['none', 'unknown', 'full']
    """
    keys: dict[str, list[str]] = {}
    for name, field in table.model_fields.items():
        kinds = [field.annotation, *get_args(field.annotation)]
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if inner is not None:
            keys |= list_keys(inner, f"{prefix}{name}.")
        else:
            keys[prefix + name] = [value for kind in kinds for value in get_args(kind) if isinstance(value, str)]
    return keys
