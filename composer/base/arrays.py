"""Arrays: the types of pictures and mattes, named once. Shapes and ranges stand in the docstrings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UInt8Array = NDArray[np.uint8]  # pictures, alphas, trimaps


UInt16Array = NDArray[np.uint16]  # the same with 16 bits


FloatArray = NDArray[np.float32]  # mattes in 0..1, and what is computed on the way


BoolArray = NDArray[np.bool_]  # which pixels
