"""Card: README.md with the front matter that hubs read, so that a folder can be uploaded as it is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base.files import read_document, write_text
from ..base.text import count_of, escape, format_size

CARD = "README.md"
MARK = "<!-- Written by matting-compose, and again each time. Remove this line to keep what you write. -->"
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))


@dataclass(frozen=True)
class SourceNote:
    """Where pictures came from, as far as the recipe says."""

    what: str
    licence: str | None
    attribution: str | None


def source_notes(recipe: Mapping[str, Any]) -> tuple[SourceNote, ...]:
    """Return what a recipe's tables of pictures say of licence and attribution; nothing where they say nothing."""
    notes = []
    for name in ("foregrounds", "backgrounds"):
        tables = recipe.get(name)
        for number, table in enumerate(tables if isinstance(tables, list) else [tables]):
            if isinstance(table, dict) and (table.get("licence") or table.get("attribution")):
                several = f"{name} {table['name']}" if table.get("name") else f"{name}[{number}]"
                what = several if isinstance(tables, list) else name
                texts = (str(table[key]) if table.get(key) else None for key in ("licence", "attribution"))
                notes.append(SourceNote(what, *texts))
    return tuple(notes)


def dataset_card(
    recipe: Mapping[str, Any], splits: Mapping[str, int], foregrounds: int, size: int, form: str,
    files: Sequence[str] = (),
) -> str:  # fmt: skip
    """Return a dataset's card. It says nothing of where it lies, so that the same dataset has the same card.

    Parameters
    ----------
    recipe : Mapping
        As the index has it.
    splits : Mapping of str to int
        Composites of each.
    foregrounds : int
        How many they are of.
    size : int
        Bytes.
    form : str
        What the files are, in a word: ``hdf5``, ``parquet``.
    files : sequence of str
        Splits whose files are named ``SPLIT-*.FORM``, to be loaded by hubs; none for shards.
    """
    count = sum(splits.values())
    name = f"{count_of(count, 'composite')} of {count_of(foregrounds, 'foreground')}, with alphas and trimaps"
    notes = source_notes(recipe)
    front: dict[str, Any] = {
        "pretty_name": name,
        "license": "other" if any(note.licence for note in notes) else "unknown",
        "task_categories": ["image-segmentation"],
        "tags": ["image-matting", "alpha-matte", "trimap", "matting-compose", form],
        "size_categories": [next((label for most, label in SIZES if count < most), "n>10M")],
    }
    if files:
        data = [{"split": split, "path": f"{split}-*.{form}"} for split in files]
        front["configs"] = [{"config_name": "default", "data_files": data}]
    sources = [
        f"- {escape(note.what)}: {escape(note.licence or 'licence not stated')}; {escape(note.attribution or '')}"
        for note in notes
    ] or ["The recipe does not say under which licences its pictures are: say it here, and in its `licence` keys."]
    figures = [f"| {split} | {number:,} |" for split, number in splits.items()]
    text = ["| split | composites |", "|---|---|", *figures, "", f"{format_size(size)} of {form}."]
    given = ["```json", json.dumps(recipe, indent=1, ensure_ascii=False), "```"]
    return lay_out_card(front, name, {"": text, "Sources": sources, "Recipe": given})


def write_card(folder: Path, text: str) -> None:
    """Write a folder's card, unless somebody has made it theirs."""
    path = folder / CARD
    old = read_document(path).decode(errors="replace") if path.exists() else ""
    if not old.strip() or MARK in old:
        write_text(path, text)


def lay_out_card(front: Mapping[str, Any], title: str, sections: Mapping[str, Iterable[str]]) -> str:
    """Lay out a card; JSON's values are YAML's, whatever a name holds."""
    lines = ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()), "---", MARK]
    lines += ["", f"# {escape(title)}"]
    for head, body in sections.items():
        lines += ["", *([f"## {head}", ""] if head else []), *body]
    return "\n".join(lines) + "\n"
