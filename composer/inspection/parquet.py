"""Parquet: composites as rows with columns of pictures, as Hugging Face's `datasets` loads and hubs show them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..base.files import atomic_write, encode_picture, file_sha256
from ..dataset.dataset import Sample
from ..dataset.rows import Parts

GROUP_BYTES = 32 * 2**20  # of pictures in a row group, about: what a reader, and this writer, hold at once
NAMES = ("key", "foreground_name", "background_name", "split", "row")


def write_parquet(path: Path, split: str, samples: Iterable[Sample], background: bool) -> str:
    """Write a Parquet file whole or not at all; return its SHA-256.

    Parameters
    ----------
    path : Path
    split : str
        ``train`` or ``validation``; a column has it.
    samples : iterable of Sample
        Taken one after the other: memory holds one row group.
    background : bool
        Whether there is a column of backgrounds.

    Raises
    ------
    BuildError
        It cannot be written.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    schema = _schema(background)
    with atomic_write(path) as temporary:
        # Pictures are compressed already, and no two are the same: neither pays a second time.
        with ParquetWriter(
            temporary, schema, compression="none", use_dictionary=False, write_statistics=False
        ) as writer:
            rows: list[dict[str, Any]] = []
            held = 0
            for sample in samples:
                rows.append(_row(sample, split, schema.names))
                held += sum(len(value["bytes"]) for value in rows[-1].values() if isinstance(value, dict))
                if held >= GROUP_BYTES:
                    writer.write_table(pa.Table.from_pylist(rows, schema), row_group_size=len(rows))
                    rows, held = [], 0
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema), row_group_size=len(rows))
        return file_sha256(temporary)


def features(background: bool) -> dict[str, dict[str, str]]:
    """Return the columns as `datasets` describes them: pictures first."""
    parts = [part for part in Parts._fields if background or part != "background"]
    return {part: {"_type": "Image"} for part in parts} | {
        name: {"dtype": "string", "_type": "Value"} for name in NAMES
    }


def _schema(background: bool) -> Any:
    import pyarrow as pa

    picture = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    columns = features(background)
    kinds = {name: picture if kind["_type"] == "Image" else pa.string() for name, kind in columns.items()}
    return pa.schema(kinds).with_metadata({"huggingface": json.dumps({"info": {"features": columns}})})


def _row(sample: Sample, split: str, names: list[str]) -> dict[str, Any]:
    """Return one row; what a picture as it is has no layers of is null."""
    row = sample.row
    values: dict[str, Any] = {
        "key": row.key, "foreground_name": row.foreground, "background_name": row.background, "split": split,
        "row": json.dumps(asdict(row)),
    }  # fmt: skip
    for part in Parts._fields:
        if part in names and (picture := getattr(sample, part)) is not None:
            values[part] = {"bytes": bytes(encode_picture(picture, ".png")), "path": f"{row.key}.{part}.png"}
    return values
