"""A tracker for MLflow: in the run's folder ``mlflow``, or where MLFLOW_TRACKING_URI says. mlflow-skinny is enough.

PYTHONPATH=examples matting-train demo --out run --set 'trackers=["mlflow_tracker:MLflowTracker"]'
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from numpy.typing import NDArray

os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # else a local store is a database, and needs SQLAlchemy


class MLflowTracker:
    """Log a run; one that is resumed goes on as the run whose number lies in its folder."""

    def __init__(self, folder: Path, step: int, config: Mapping[str, Any]) -> None:
        store = os.environ.get("MLFLOW_TRACKING_URI") or (folder / "mlflow").resolve().as_uri()
        self._client, note = MlflowClient(store), folder / "mlflow-run.txt"
        if not note.exists():
            note.write_text(self._client.create_run("0", run_name=folder.resolve().name).info.run_id)
        self._run = note.read_text()
        self._client.log_dict(self._run, dict(config), "config.json")

    def log_numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log them at their step."""
        for name, value in numbers.items():
            self._client.log_metric(self._run, name, value, step=step)

    def log_picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """Keep a panel among the run's artifacts."""
        self._client.log_image(self._run, picture, f"{name}-{step:07d}.png")

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._run)
