"""Predict from Python: a network or its file, a picture and its trimap as arrays or paths; alpha out."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from ...composer.base.arrays import UInt8Array
from ...composer.sources.image_io import read_image
from ...composer.sources.mattes import mend_trimap, read_trimap
from ..networks.checkpoint import load_network
from ..networks.devices import find_device
from ..networks.network import MattingNetwork
from ..networks.shm import SHM
from .automatic import find_matte
from .tiled import Matte, predict_alpha

__all__ = ["predict"]

PictureOrPath: TypeAlias = UInt8Array | str | Path


def predict(
    network: MattingNetwork | str | Path,
    image: PictureOrPath,
    trimap: PictureOrPath | None = None,
    *,
    device: str = "auto",
    tile: int | None = None,
    max_side: int | None = None,
) -> Matte:
    """Predict a picture's alpha, as `matting-predict` does.

    Parameters
    ----------
    network : MattingNetwork, str or Path
        In evaluation mode, or the file or run's folder that it is read from: read it once for many pictures.
    image : (H, W, 3) uint8 RGB, str or Path
    trimap : (H, W) uint8, str or Path, optional
        0 background, 128 unknown, 255 foreground, or within 10 levels of them. A network that finds its own needs none.
    device : str
        Where a network that is read runs: ``auto``, ``cpu``, ``cuda``; another stays where it is.
    tile, max_side : int, optional
        px, see `predict_alpha`.

    Returns
    -------
    (H, W) float32
        Alpha in 0..1, of the picture's size.

    Raises
    ------
    ValueError
        The network is none, or in training mode, or lacks a trimap; or arrays of another shape or type.
    SourceError
        A picture cannot be read, or the trimap is none for it.

    Examples
    --------
    >>> import numpy as np
    >>> from matting_compose.trainer import MNet
    >>> image, trimap = np.zeros((40, 60, 3), np.uint8), np.full((40, 60), 128, np.uint8)
    >>> predict(MNet(width=0.125).eval(), image, trimap).shape
    (40, 60)
    """
    if isinstance(network, (str, Path)):
        network = load_network(network).to(find_device(device))
    if network.training:
        raise ValueError("the network is in training mode, where normalisation follows the batch: call network.eval()")
    picture = read_image(Path(image)) if isinstance(image, (str, Path)) else image
    if trimap is None:
        if not isinstance(network, SHM):
            raise ValueError(f"{type(network).__name__} needs a trimap: give an array or a file")
        return find_matte(network, picture, tile=tile, max_side=max_side).alpha
    if isinstance(trimap, (str, Path)):
        known = read_trimap(Path(trimap), Path(trimap).name, picture.shape[:2])[0]
    else:
        known = mend_trimap(trimap, "trimap", picture.shape[:2])[0]
    return predict_alpha(network, picture, known, tile=tile, max_side=max_side)
