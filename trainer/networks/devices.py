"""Devices: where a network runs, found by name before anything is written."""

from __future__ import annotations

import torch

from ...composer.base.errors import TrainingError

__all__ = ["find_device"]


def find_device(name: str = "auto") -> torch.device:
    """Find a device by its name, and see that it can compute.

    Parameters
    ----------
    name : str
        ``auto`` (a GPU if there is any, else the CPU), ``cpu``, ``cuda``, ``cuda:N``, or another that PyTorch offers on
        this machine, such as ``mps``.

    Returns
    -------
    torch.device

    Raises
    ------
    TrainingError
        There is no such device here.

    Examples
    --------
    >>> find_device("cpu")
    device(type='cpu')
    >>> find_device("tpu")
    Traceback (most recent call last):
        ...
    TrainingError: --device tpu: PyTorch knows no such device; take auto, cpu, cuda or cuda:N
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise TrainingError(f"--device {name}: PyTorch knows no such device; take auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise TrainingError(f"--device {name}: PyTorch {torch.__version__} sees no GPU here; take --device cpu")
        if (device.index or 0) >= (count := torch.cuda.device_count()):
            raise TrainingError(f"--device {name}: there are {count} GPUs, numbered from 0")
    try:
        torch.ones(1, device=device).tolist()
    except Exception as error:  # whatever torch raises for a device that is not there; on meta nothing can be read
        reason = (str(error) or type(error).__name__).partition("\n")[0].partition(". ")[0]
        raise TrainingError(f"--device {name} cannot be used here ({reason}); take auto, cpu, cuda or cuda:N") from None
    return device
