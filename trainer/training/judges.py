"""Judges: what a network's answer is compared with, by which errors, and how that is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ...composer.base.thumbnails import amplify_error
from ...composer.dataset.dataset import Sample
from ...composer.dataset.rows import BACKGROUND, FOREGROUND, UNKNOWN
from ..data.whole_scenes import WholeScenes, true_trimap
from ..inference.automatic import find_matte, find_trimap
from ..inference.tiled import predict_alpha, smallest_tile
from ..metrics import METRICS
from ..networks.network import MattingNetwork
from ..networks.registry import network_class
from ..networks.shm import SHM
from .config import Config

__all__ = ["Judge", "guess_half", "guess_ramp", "judge_of", "predict_whole", "trimap_errors"]

Array = NDArray[np.uint8]


SEEN: Final = {"background": BACKGROUND, "foreground": FOREGROUND, "unknown": UNKNOWN}


class Judge(Protocol):
    """How one kind of network is validated.

    Attributes
    ----------
    errors : sequence of str
        What `measure` gives; the first decides which network is best, and less of it is better.
    guesses : Mapping
        What a network must beat, by names: from a `Sample` to what `predict` gives.
    """

    @property
    def errors(self) -> Sequence[str]:
        """See `Judge`."""

    @property
    def guesses(self) -> Mapping[str, Callable[[Sample], Array]]:
        """See `Judge`."""

    def predict(self, network: MattingNetwork, sample: Sample) -> Array:
        """Give a network's answer, (H, W) uint8: alpha or a trimap."""

    def measure(self, predicted: Array, sample: Sample) -> list[float]:
        """Compare an answer with the truth."""

    def row(self, sample: Sample, predicted: Array) -> list[Array]:
        """Lay out five pictures: composite, trimap, answer, truth, error (times four)."""


def judge_of(config: Config, bf16: bool = False) -> Judge:
    """Choose how a configuration's network is validated, with bf16 by autocast or without."""
    kind = network_class(config.network.name)
    if "alpha" not in kind.outputs:
        return _TrimapJudge(config.validation.max_side, config.stream.scenes or WholeScenes())
    if issubclass(kind, SHM):
        return _WholeJudge(config.validation.max_side)
    return _AlphaJudge(config.validation.max_side, bf16)


class _AlphaJudge:
    """Alpha over the trimap's unknown region, by `METRICS`."""

    def __init__(self, max_side: int, bf16: bool) -> None:
        self.errors = list(METRICS)
        self.guesses = {"unknown = 0.5": guess_half, "trimap alone": guess_ramp}
        self._max_side, self._bf16 = max_side, bf16

    def predict(self, network: MattingNetwork, sample: Sample) -> Array:
        return predict_whole(network, sample.image, sample.trimap, self._max_side, self._bf16)

    def measure(self, predicted: Array, sample: Sample) -> list[float]:
        return [metric(predicted, sample.alpha, sample.trimap) for metric in METRICS.values()]

    def row(self, sample: Sample, predicted: Array) -> list[Array]:
        return [sample.image, sample.trimap, predicted, sample.alpha, amplify_error(predicted, sample.alpha)]


class _WholeJudge:
    """Alpha of a picture alone, over all of it, in the units of SHM's table."""

    def __init__(self, max_side: int) -> None:
        self.errors = list(METRICS)
        self.guesses = {"nobody there": guess_nobody, "true trimap alone": guess_ramp}
        self._max_side = max_side

    def predict(self, network: MattingNetwork, sample: Sample) -> Array:
        assert isinstance(network, SHM)
        found = find_matte(network, sample.image, tile=max(smallest_tile(network.mnet), 2048), max_side=self._max_side)
        return np.rint(found.alpha * 255).astype(np.uint8)

    def measure(self, predicted: Array, sample: Sample) -> list[float]:
        return [metric(predicted, sample.alpha, None) for metric in METRICS.values()]

    def row(self, sample: Sample, predicted: Array) -> list[Array]:
        return [sample.image, sample.trimap, predicted, sample.alpha, amplify_error(predicted, sample.alpha)]


class _TrimapJudge:
    """A trimap that was found, against the one drawn from alpha: see `trimap_errors`."""

    def __init__(self, max_side: int, scenes: WholeScenes) -> None:
        self.errors = TRIMAP_ERRORS
        self.guesses = {"nobody there": guess_nobody}
        self._max_side, self._scenes = max_side, scenes

    def predict(self, network: MattingNetwork, sample: Sample) -> Array:
        return find_trimap(network, sample.image, self._max_side)

    def measure(self, predicted: Array, sample: Sample) -> list[float]:
        return list(trimap_errors(predicted, true_trimap(sample.alpha, self._scenes), sample.alpha).values())

    def row(self, sample: Sample, predicted: Array) -> list[Array]:
        truth = true_trimap(sample.alpha, self._scenes)
        return [sample.image, truth, predicted, sample.alpha, np.asarray(cv2.absdiff(predicted, truth), np.uint8)]


TRIMAP_ERRORS: Final = (
    "trimap_error", "accuracy", "iou_background", "iou_foreground", "iou_unknown", "soft_covered"
)  # fmt: skip


def trimap_errors(predicted: Array, truth: Array, alpha: Array) -> dict[str, float]:
    """Compare a trimap with the true one, each (H, W) uint8 {0, 128, 255}, and with alpha, (H, W) uint8.

    Returns
    -------
    dict of str to float
        ``trimap_error``, one minus the mean of the classes' intersections over unions; ``accuracy``, the share of
        pixels with the right class; ``iou_background``, ``iou_foreground``, ``iou_unknown`` (1 of a class that is in
        neither); ``soft_covered``, the share of soft pixels, 0 < α < 1, that are unknown: the others M-Net cannot mend.

    Examples
    --------
    >>> truth = np.array([[0, 128, 128, 255]], np.uint8)
    >>> found = trimap_errors(np.array([[0, 0, 128, 255]], np.uint8), truth, np.array([[0, 9, 99, 255]], np.uint8))
    >>> found["accuracy"], found["iou_unknown"], found["soft_covered"]
    (0.75, 0.5, 0.5)
    """
    ious = {}
    for name, level in SEEN.items():
        one, other = predicted == level, truth == level
        union = np.count_nonzero(one | other)
        ious[f"iou_{name}"] = float(np.count_nonzero(one & other) / union) if union else 1.0
    soft = (alpha > 0) & (alpha < 255)
    count = np.count_nonzero(soft)
    covered = float(np.count_nonzero(soft & (predicted == UNKNOWN)) / count) if count else 1.0
    return {
        "trimap_error": 1 - sum(ious.values()) / len(ious),
        "accuracy": float((predicted == truth).mean()),
        **ious,
        "soft_covered": covered,
    }


def guess_nobody(sample: Sample) -> Array:
    """Answer that nothing is there."""
    return np.zeros_like(sample.alpha)


def predict_whole(network: MattingNetwork, image: Array, trimap: Array, max_side: int, bf16: bool = False) -> Array:
    """Predict a whole picture's alpha as `predict_alpha` does, but in one piece, so that all of it is normalised alike.

    Parameters
    ----------
    network : MattingNetwork
    image : (H, W, 3) uint8 RGB
    trimap : (H, W) uint8 {0, 128, 255}
        What it knows is kept (SHM's fusion).
    max_side : int
        px. A longer picture is reduced for the network, and its alpha enlarged again, as SHM tests.
    bf16 : bool
        By autocast.

    Returns
    -------
    (H, W) uint8
        Alpha.
    """
    device = next(network.parameters()).device.type
    tile = max(smallest_tile(network), -(-max_side // network.stride) * network.stride)
    # Every picture has a size of its own: trying all of cuDNN's ways for each would take longer than any of them.
    tried = torch.backends.cudnn.flags(enabled=True, benchmark=False)  # its own default is to do without cuDNN
    with torch.autocast(device, torch.bfloat16, enabled=bf16), tried:
        alpha = predict_alpha(network, image, trimap, tile=tile, max_side=max_side)
    return np.rint(alpha * 255).astype(np.uint8)


def guess_half(sample: Sample) -> Array:
    """Answer as if nothing were known: 0.5 wherever the trimap is unknown."""
    return sample.trimap


def guess_ramp(sample: Sample) -> Array:
    """Answer from the trimap alone, as well as that can be: alpha falls with the distances to what is known."""
    inside = _distance_to(sample.trimap == FOREGROUND)
    outside = _distance_to(sample.trimap == BACKGROUND)
    with np.errstate(invalid="ignore"):  # where both are infinite, or the outside is: replaced
        share = outside / np.maximum(inside + outside, 1e-6)
    ramp = np.where(np.isinf(inside), 0, np.where(np.isinf(outside), 1, share))
    ramp[np.isinf(inside) & np.isinf(outside)] = 0.5
    return np.where(sample.trimap == UNKNOWN, np.rint(ramp * 255), sample.trimap).astype(np.uint8)


def _distance_to(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    if not mask.any():
        return np.full(mask.shape, np.inf)
    found = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Its last bit differs from call to call; what is under the root is a whole number.
    return np.sqrt(np.rint(np.asarray(found, np.float64) ** 2))
