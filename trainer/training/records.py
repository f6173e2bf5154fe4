"""Records: the lines of a run's metrics.jsonl, read as far as they are whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

__all__ = ["METRICS_FILE", "read_lines", "read_records"]

METRICS_FILE: Final = "metrics.jsonl"


# What curves and page need of a line.
NUMBERS: Final = {
    "train": ("loss", "rate", "crops_per_second", "waiting"),
    "validation": ("sad", "mse", "gradient", "connectivity"),
}


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Read a run's metrics.jsonl; lines that are damaged, or that a crash left unfinished, are passed over."""
    return [record for record in read_lines(folder) if record is not None]


def read_lines(folder: Path) -> list[dict[str, Any] | None]:
    """Read a run's records; None for each line that is none. A new run has no file yet."""
    path = folder / METRICS_FILE
    data = path.read_bytes() if path.exists() else b""
    return [_record(line) for line in data.splitlines() if line]


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
        kind, step = record["kind"], record["step"]
        numbers = [step, *(record[name] for name in NUMBERS[kind])]
        if kind == "train":
            numbers += record["losses"].values()
        whole = type(step) is int and all(isinstance(number, (int, float)) for number in numbers)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    named = kind == "train" or all(isinstance(record.setdefault(key, ""), str) for key in ("what", "dataset"))
    return record if whole and named else None
