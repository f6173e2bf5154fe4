"""Recompute: a network's features computed twice rather than kept, so that larger batches fit (gradient checkpointing).

Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ...composer.base.errors import TrainingError
from .network import MattingNetwork

__all__ = ["recompute_features"]


def recompute_features(network: MattingNetwork) -> None:
    """Keep only what goes into each of a network's blocks, and compute the rest again for the gradient.

    Gradients and statistics are those without it, to the last bit on a CPU, for a third more time.

    Raises
    ------
    TrainingError
        It has no blocks.

    Examples
    --------
    >>> from matting_compose.trainer import MNet
    >>> network = MNet(width=0.125)
    >>> recompute_features(network)
    >>> network(torch.zeros(1, 6, 32, 32)).mean().backward()
    """
    blocks = list(network.blocks())
    if not blocks:
        raise TrainingError(
            f"network.checkpointing: {type(network).__name__} has no blocks: a ModuleList, a Sequential, or its own"
            " blocks()"
        )
    for module in network.modules():
        if getattr(module, "inplace", False):  # what a block is given again must be what it was given
            vars(module)["inplace"] = False
    for block in blocks:
        block.forward = _Recomputed(block, block.forward)


class _Recomputed:
    """A block's ``forward``."""

    def __init__(self, block: nn.Module, forward: Callable[..., Any]) -> None:
        self._block, self._forward = block, forward

    def __call__(self, *inputs: Any) -> Any:
        if not (self._block.training and torch.is_grad_enabled()):
            return self._forward(*inputs)
        return checkpoint(self._forward, *inputs, use_reentrant=False, context_fn=self._contexts)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _without_statistics(self._block)


@contextmanager
def _without_statistics(block: nn.Module) -> Iterator[None]:
    """Keep batch normalisation from counting the same batch twice."""
    counting = [m for m in block.modules() if isinstance(m, _BatchNorm)]
    counts = [module.num_batches_tracked for module in counting if module.num_batches_tracked is not None]
    before = [module.momentum for module in counting], [count.clone() for count in counts]
    try:
        for module in counting:
            module.momentum = 0.0
        yield
    finally:
        for module, momentum in zip(counting, before[0], strict=True):
            module.momentum = momentum
        for count, kept in zip(counts, before[1], strict=True):
            count.copy_(kept)
