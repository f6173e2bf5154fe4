"""Records: the lines of a run's metrics.jsonl, read as far as they are whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ...composer.base.files import bound_values, open_regular

__all__ = ["METRICS_FILE", "TITLES", "errors_of", "read_lines", "read_records"]

METRICS_FILE: Final = "metrics.jsonl"


# What curves and page need of a line.
NUMBERS: Final = {
    "train": ("loss", "rate", "crops_per_second", "waiting"),
    "validation": (),
}


TITLES: Final = {
    "sad": "SAD",
    "mse": "MSE",
    "gradient": "Grad",
    "connectivity": "Conn",
}  # of errors, where they have one


def errors_of(record: Mapping[str, Any]) -> dict[str, float]:
    """Take a validation's errors out of its record; the first is the one that curves show."""
    return {key: value for key, value in record.items() if key not in ("kind", "step", "what", "dataset", "best")}


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Read a run's metrics.jsonl; lines that are damaged, or that a crash left unfinished, are passed over."""
    return [record for record in read_lines(folder) if record is not None]


def read_lines(folder: Path) -> list[dict[str, Any] | None]:
    """Read a run's records; None for each line that is none. A new run has no file yet."""
    path = folder / METRICS_FILE
    try:
        with open_regular(path) as file:
            return [_record(line) for line in file.read().splitlines() if line]
    except FileNotFoundError:
        return []


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(bound_values(line))
        kind, step = record["kind"], record["step"]
        numbers = [step, *(record[name] for name in NUMBERS[kind])]
        if kind == "train":
            numbers += record["losses"].values()
        else:
            numbers += errors_of(record).values()
        whole = type(step) is int and all(isinstance(number, (int, float)) for number in numbers)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    named = kind == "train" or all(isinstance(record.setdefault(key, ""), str) for key in ("what", "dataset"))
    return record if whole and named and len(numbers) > 1 else None
