"""Arrays: the types of pictures and mattes, named once, and some of many. Shapes and ranges stand in the docstrings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

UInt8Array = NDArray[np.uint8]  # pictures, alphas, trimaps


UInt16Array = NDArray[np.uint16]  # the same with 16 bits


FloatArray = NDArray[np.float32]  # mattes in 0..1, and what is computed on the way


BoolArray = NDArray[np.bool_]  # which pixels


T = TypeVar("T")


def spread(items: Sequence[T], limit: int) -> list[T]:
    """Choose at most `limit` items, spread evenly over all.

    >>> spread(range(10), 3)
    [1, 5, 8]
    """
    count = min(limit, len(items))
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]
