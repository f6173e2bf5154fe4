"""Network scores: a network, or any function that makes mattes, graded on a dataset's composites, from Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from ...composer.base.arrays import UInt8Array, spread
from ...composer.base.errors import FileError
from ...composer.dataset.dataset import Dataset, Sample, open_dataset
from ..inference.automatic import MAX_SIDE, find_matte
from ..inference.tiled import predict_alpha
from ..networks.checkpoint import load_network
from ..networks.network import MattingNetwork
from ..networks.shm import SHM
from .evaluate import Score, Summary, summarise
from .metric_sets import METRIC_SETS, SetName, find_set

__all__ = ["evaluate"]


def evaluate(
    network: MattingNetwork | str | Path | Callable[[Sample], UInt8Array],
    dataset: str | Path | Dataset,
    *,
    split: Literal["auto", "train", "validation", "all"] = "auto",
    limit: int | None = None,
    metrics: SetName | None = None,
    max_side: int | None = None,
) -> Summary:
    """Grade a network on composites of a dataset, one after the other, in this process.

    Parameters
    ----------
    network : MattingNetwork, str, Path or Callable
        A network in evaluation mode, a checkpoint's path, or a function from a `Sample` to alpha, (H, W) uint8.
    dataset : str, Path or Dataset
    split : {"auto", "train", "validation", "all"}
        ``auto`` is validation where there is any, else all.
    limit : int, optional
        Only so many composites, spread evenly.
    metrics : {"composition-1k", "shm", "p3m"}, optional
        Which errors, over which region: see `metric_sets.METRIC_SETS`. By default Composition-1k's, over the unknown
        region.
    max_side : int, optional
        See `predict_alpha`.

    Returns
    -------
    Summary
        The mean of each metric, with 95 % intervals over foregrounds, and the means of each foreground.

    Raises
    ------
    DatasetError
        It cannot be read.
    FileError
        The split is empty.
    ValueError
        The checkpoint cannot be used, or a matte is not (H, W) uint8.

    Examples
    --------
    >>> from matting_compose.composer import build, load_recipe
    >>> small = ["foregrounds.count=3", "foregrounds.sides=[64,80]", "backgrounds.count=2", "variants=2"]
    >>> _ = build(load_recipe("demo", small), "small", jobs=1)
    >>> summary = evaluate(lambda sample: sample.alpha, "small", split="all")
    >>> summary.images, summary.means["sad"].mean
    (6, 0.0)
    """
    if isinstance(network, (str, Path)):
        network = load_network(network)
    opened = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    if split == "auto":
        split = "validation" if "validation" in opened.splits else "all"
    numbers = opened.numbers(None if split == "all" else split)
    if not len(numbers):
        raise FileError(f"{opened.path}: no composite is in the {split} split; there are {', '.join(opened.splits)}")
    name = getattr(network, "__name__", type(network).__name__)
    scores = []
    for number in spread(numbers.tolist(), limit or len(numbers)):
        sample = opened[number]
        if isinstance(network, SHM):
            alpha = np.rint(find_matte(network, sample.image, max_side=max_side or MAX_SIDE).alpha * 255).astype(
                np.uint8
            )
        elif isinstance(network, MattingNetwork):
            matte = predict_alpha(network, sample.image, sample.trimap, max_side=max_side)
            alpha = np.rint(matte * 255).astype(np.uint8)
        else:
            alpha = network(sample)
        errors = METRIC_SETS[find_set(metrics, True)].measure(alpha, sample.alpha, sample.trimap)
        scores.append(Score(name, sample.row.foreground, sample.row.key, errors))
    return summarise(name, scores)
