"""Run card: README.md of a run's folder, with the front matter that hubs read, so that it can be uploaded as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...composer.base.text import escape
from ...composer.dataset.card import lay_out_card
from .records import errors_of

__all__ = ["run_card"]


def run_card(name: str, config: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> str:
    """Return a network's card: its best validation as hubs list results, what it must beat, and its configuration.

    Of absolute paths only the names are told: whose computer it was is nobody's business.

    Parameters
    ----------
    name : str
        The run's.
    config : Mapping
        As config.json has it.
    records : sequence of dict
        As metrics.jsonl has them.
    """
    validations = [record for record in records if record["kind"] == "validation"]
    best = next((record for record in reversed(validations) if record.get("best")), None)
    guesses = [record for record in validations if record["step"] == 0 and record["what"] != "network"]
    front = {
        "license": "unknown",
        "pipeline_tag": "image-segmentation",
        "tags": ["image-matting", "alpha-matte", "matting-compose", config["network"]["name"]],
        "model-index": [{"name": name, "results": [_result(best)]}] if best else [],
    }
    shown = [*guesses, *([best] if best else [])]
    names = list(errors_of(shown[0])) if shown else []
    table = [
        "| on | of | " + " | ".join(names) + " |",
        "|---" * (len(names) + 2) + "|",
        *(
            f"| {escape(record['dataset'])} | {escape(record['what'])} | "
            + " | ".join(f"{record[error]:.4g}" for error in names)
            + " |"
            for record in shown
        ),
    ]
    use = ["```sh", "matting-predict . photo.jpg --trimap trimap.png -o alpha.png", "```", "",
           "Say here what it was trained on, under which licences, and for what it is meant."]  # fmt: skip
    given = ["```json", json.dumps(_without_folders(config), indent=1, ensure_ascii=False), "```"]
    return lay_out_card(front, name, {"": use, "Validation": table if shown else ["None."], "Configuration": given})


def _result(best: Mapping[str, Any]) -> dict[str, Any]:
    """Say a validation as hubs read results."""
    return {
        "task": {"type": "image-segmentation", "name": "image matting"},
        "dataset": {"name": best["dataset"], "type": best["dataset"]},
        "metrics": [{"type": error, "value": value} for error, value in errors_of(best).items()],
    }


def _without_folders(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
