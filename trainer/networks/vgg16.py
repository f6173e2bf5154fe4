"""VGG16: torchvision's weights for an encoder of its shape."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from torch import Tensor

from .weights import read_tensors

__all__ = ["VGG16_BN", "read_vgg16"]

VGG16_BN: Final = "https://download.pytorch.org/models/vgg16_bn-6c64b313.pth"


def read_vgg16(path: Path, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read torchvision's ``vgg16_bn`` from a file, all that fills `targets`.

    Parameters
    ----------
    path : Path
    targets : Mapping[str, Tensor]
        The tensors to be filled, by torchvision's keys: ``features.0.weight``.

    Raises
    ------
    ValueError
        Something is missing, of another shape or type, or not finite; or the file holds no such weights.
    OSError
        It cannot be read.
    """
    try:
        return _fitting(read_tensors(path, "features."), targets)
    except ValueError as error:
        raise ValueError(
            f"{path} does not hold torchvision's vgg16_bn weights. Expected a state_dict with 'features.0.weight' "
            f"(64, 3, 3, 3) to 'features.41.running_var' (512,); found: {error}. Take {VGG16_BN}, or train without a "
            "pre-trained encoder"
        ) from error


def _fitting(state: Mapping[str, object], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    fitting: dict[str, Tensor] = {}
    misfits = [f"{k!r}, which vgg16_bn lacks" for k in state if _is_feature(k) and k not in targets]
    for key, target in targets.items():
        value = state.get(key)
        if value is None:
            misfits.append(f"no {key!r} among its {len(state)} keys")
        elif not isinstance(value, Tensor):
            misfits.append(f"{key!r} as a {type(value).__name__}")
        elif value.shape != target.shape:
            misfits.append(f"{key!r} {tuple(value.shape)} instead of {tuple(target.shape)}")
        elif not value.is_floating_point() or not value.isfinite().all():
            misfits.append(f"{key!r} with values that are not finite floating-point numbers ({value.dtype})")
        else:
            fitting[key] = value
    if misfits:
        more = f"; and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise ValueError("; ".join(misfits[:3]) + more)
    return fitting


def _is_feature(key: object) -> bool:
    # The counter of batches seen is not in torchvision's own file, and nothing here depends on it.
    return isinstance(key, str) and key.startswith("features.") and not key.endswith("num_batches_tracked")
