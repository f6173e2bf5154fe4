"""Trackers: where a run's numbers and panels go beside its own metrics.jsonl, by name in `TRACKERS`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ...composer.base.errors import TrainingError, UnknownNameError, describe_error
from ...composer.base.packages import require_packages
from ...composer.base.registry import Registry, import_class

__all__ = ["TRACKERS", "Tracker", "TrackerClass", "Trackers", "find_trackers"]

logger = logging.getLogger(__name__)


@runtime_checkable
class Tracker(Protocol):
    """What a run asks of a tracker, which is opened by ``TheClass(folder, step, config)``.

    `folder` is the run's, `step` the one that it goes on from (what was told of later ones is told again), and `config`
    the configuration, of plain types. `metrics.jsonl` is written whatever a tracker does: one that raises is warned of
    and no longer told anything, and the training goes on.
    """

    def log_numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """Take numbers by names like ``train/loss``, ``train/losses/laplacian`` and ``validation/demo/network/sad``."""

    def log_picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """Take a picture, (H, W, 3) uint8 RGB."""

    def close(self) -> None:
        """Finish."""


class TrackerClass(Protocol):
    """How a tracker is opened; ``packages``, if the class has it, names what it imports late."""

    def __call__(self, folder: Path, step: int, config: Mapping[str, Any]) -> Tracker:
        """Begin a run, or go on with it."""


class TensorBoard:
    """Events in the run's folder ``tensorboard``."""

    packages: ClassVar = ("tensorboard",)

    def __init__(self, folder: Path, step: int, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def log_numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Tracker`."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def log_picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """See `Tracker`."""
        self._writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """See `Tracker`."""
        self._writer.close()


TRACKERS: Final[Registry[TrackerClass]] = Registry("tracker", "matting_compose.trackers", {"tensorboard": TensorBoard})


def find_trackers(names: Sequence[str]) -> list[TrackerClass]:
    """Find trackers, and see that what they need is installed.

    Parameters
    ----------
    names : Sequence[str]
        Names in `TRACKERS`, or ``package.module:Class`` of a module that can be imported.

    Raises
    ------
    UnknownNameError
        There is none, or it lacks what `Tracker` asks for.
    MattingComposeError
        Something is not installed.

    Examples
    --------
    >>> find_trackers(["tensorbord"])
    Traceback (most recent call last):
        ...
    UnknownNameError: no tracker is called 'tensorbord'; did you mean 'tensorboard'?
    """
    found: list[TrackerClass] = []
    for name in names:
        kind: Any = import_class("tracker", name) if ":" in name else TRACKERS[name]
        if not (isinstance(kind, type) and issubclass(kind, Tracker)):
            raise UnknownNameError(
                f"tracker '{name}': expected a class with log_numbers, log_picture and close, found {kind!r}"
            )
        require_packages(*getattr(kind, "packages", ()), extra=name)
        found.append(cast(TrackerClass, kind))
    return found


class Trackers:
    """Those of a run as one, which never raises once it is open; see `Tracker`.

    Raises
    ------
    TrainingError
        One of them cannot be opened.
    """

    def __init__(self, names: Sequence[str], folder: Path, step: int, config: Mapping[str, Any]) -> None:
        self._open: dict[str, Tracker] = {}
        for name, kind in zip(names, find_trackers(names), strict=True):
            try:
                self._open[name] = kind(folder, step, config)
            except Exception as error:  # whatever a package of anybody's raises
                raise TrainingError(f"tracker '{name}' cannot be opened: {describe_error(error)}") from error

    def log_numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._tell(lambda tracker: tracker.log_numbers(step, numbers))

    def log_picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """See `Tracker`."""
        self._tell(lambda tracker: tracker.log_picture(step, name, picture))

    def close(self) -> None:
        """See `Tracker`."""
        self._tell(lambda tracker: tracker.close())

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                what(tracker)
            except Exception as error:  # as above
                del self._open[name]
                logger.warning("tracker '%s' is told no more (%s); the training goes on", name, describe_error(error))
