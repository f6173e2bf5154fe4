"""A tracker for Weights & Biases. WANDB_MODE=offline keeps the run in its folder, to be sent by ``wandb sync``.

PYTHONPATH=examples matting-train demo --out run --set 'trackers=["wandb_tracker:WandbTracker"]'
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import wandb
from numpy.typing import NDArray


class WandbTracker:
    """Log a run; one that is resumed in the same folder goes on."""

    def __init__(self, folder: Path, step: int, config: Mapping[str, Any]) -> None:
        place = folder.resolve()
        number = hashlib.sha256(str(place).encode()).hexdigest()[:12]
        self._run = wandb.init(
            project="matting", id=number, name=place.name, resume="allow", dir=place, config=dict(config)
        )

    def log_numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log them at their step."""
        self._run.log(dict(numbers), step=step)

    def log_picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """Log a panel."""
        self._run.log({name: wandb.Image(picture)}, step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()
