"""Methods: every way of making a matte from a picture and its trimap, under one name each and one signature.

``network`` is the trained network. The others are what it is measured against: classical algorithms from pymatting, a
segmentation, and the trimap itself.
"""

from __future__ import annotations

import io
import logging
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from ...composer.base.arrays import FloatArray, UInt8Array
from ...composer.base.errors import MattingComposeError
from ...composer.base.packages import install_command
from ...composer.dataset.rows import BACKGROUND, FOREGROUND
from ...composer.extraction.foreground import pymatting
from ...composer.sources.image_io import composed_size
from .tiled import enlarged, known_from, reduced_trimap

if TYPE_CHECKING:
    from ..networks.network import MattingNetwork
    from .automatic import FoundMatte

__all__ = [
    "CLASSICAL",
    "METHODS",
    "NETWORK",
    "MatteError",
    "MatteOptions",
    "finds_trimaps",
    "make_automatic",
    "make_matte",
    "network_of",
    "prepare",
    "to_bytes",
    "usual_method",
]


logger = logging.getLogger(__name__)


NETWORK: Final = ("network", "segmentation")  # of a checkpoint; of the network that comes with the package without


CLASSICAL: Final = {
    "closed-form": "estimate_alpha_cf",  # Levin, Lischinski & Weiss, 2008
    "knn": "estimate_alpha_knn",  # Chen, Li & Tang, 2013
    "learning-based": "estimate_alpha_lbdm",  # Zheng & Kambhamettu, 2009
    "large-kernel": "estimate_alpha_lkm",  # He, Sun & Tang, 2010
    "random-walk": "estimate_alpha_rw",  # Grady et al., 2005
    "shared": "estimate_alpha_sm",  # Gastal & Oliveira, 2010
}


DEFAULT: Final = "default"  # the network that comes with the package


REFINED: Final = "refined"  # that, closed form and KNN, joined


METHODS: Final = (DEFAULT, REFINED, *NETWORK, *CLASSICAL, "trimap")


class MatteError(MattingComposeError):
    """A matte cannot be made."""


@dataclass(frozen=True)
class MatteOptions:
    """How mattes are made.

    Attributes
    ----------
    checkpoint : Path, optional
        The network's file, for the methods in `NETWORK`; ``default``, and None, is what comes with the package.
    device : str
        ``cpu``, ``cuda`` …, or ``auto``: a GPU where there is one.
    tile : int, optional
        px, see `tiled.predict_alpha`.
    max_side : int, optional
        px, likewise; for the classical methods, too.
    """

    checkpoint: Path | None = None
    device: str = "auto"
    tile: int | None = None
    max_side: int | None = None


def make_matte(method: str, image: UInt8Array, trimap: UInt8Array, options: MatteOptions) -> FloatArray:
    """Make a matte by one of `METHODS`.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    image : (H, W, 3) uint8
        RGB.
    trimap : (H, W) uint8
        0 background, 128 unknown, 255 foreground.
    options : MatteOptions
        The checkpoint, the device and the sizes.

    Returns
    -------
    (H, W) float32
        0..1; 0 and 1 where the trimap says so (but for ``segmentation``, which is 0 or 1 everywhere).

    Raises
    ------
    MatteError
        The method does not exist, lacks its checkpoint, or cannot work on this trimap.
    MattingComposeError
        pymatting is not installed.
    """
    if method == REFINED:
        return _refined(image, trimap, options)
    if method in (DEFAULT, *NETWORK):
        from .tiled import predict_alpha

        own = options if method in NETWORK else replace(options, checkpoint=None)
        network = network_of(own).hinted
        alpha = predict_alpha(network, image, trimap, tile=options.tile, max_side=options.max_side)
        return (alpha >= 0.5).astype(np.float32) if method == "segmentation" else alpha
    if method == "trimap":
        return np.where(trimap == BACKGROUND, 0, np.where(trimap == FOREGROUND, 1, 0.5)).astype(np.float32)
    if method in CLASSICAL:
        return _classical(method, image, trimap, options.max_side)
    raise MatteError(f"no method is called '{method}'; there are {', '.join(METHODS)}")


def finds_trimaps(method: str, options: MatteOptions) -> bool:
    """Tell whether a method makes mattes of pictures alone. Raise MatteError as `network_of`."""
    return method in NETWORK and not network_of(options).needs_trimap


def make_automatic(method: str, image: UInt8Array, options: MatteOptions) -> FoundMatte:
    """Make a matte of an image, (H, W, 3) uint8 RGB, alone, by a method of which `finds_trimaps` is true.

    Raises
    ------
    MatteError
        As `network_of`.
    """
    from ..networks.shm import SHM
    from .automatic import MAX_SIDE, FoundMatte, find_matte, guess_matte

    network = network_of(options)
    max_side = options.max_side or MAX_SIDE
    if isinstance(network, SHM):
        found = find_matte(network, image, tile=options.tile, max_side=max_side)
    else:
        found = guess_matte(network, image, max_side)
    if method == "segmentation":
        return FoundMatte((found.alpha >= 0.5).astype(np.float32), found.trimap)
    return found


def usual_method(options: MatteOptions) -> str:
    """Choose how a checkpoint is used unasked: ``segmentation`` of a T-Net alone, else ``network``. Raise as it."""
    return "network" if "alpha" in network_of(options).outputs else "segmentation"


def prepare(method: str, options: MatteOptions) -> None:
    """Load what a method needs, so that what is not there is said once, and before any picture is read.

    Raises
    ------
    MatteError, MattingComposeError
        As `make_matte`.
    """
    if method in NETWORK:
        if method == "network" and "alpha" not in network_of(options).outputs:
            raise MatteError(
                f"{options.checkpoint}: holds a T-Net alone, which finds a trimap and no alpha. Join it with an M-Net:"
                f" matting-export {options.checkpoint} --mnet MNET -o shm.safetensors, or train both by matting-train"
                " --config shm-small --init tnet=... --init mnet=...; or cut the subject out by --method segmentation"
            )
        network_of(options)
    elif method == DEFAULT:
        network_of(replace(options, checkpoint=None))
    elif method == REFINED:
        prepare(DEFAULT, options)
        _fusion(options.device)
        pymatting()
    elif method in CLASSICAL:
        pymatting()


def to_bytes(alpha: FloatArray) -> UInt8Array:
    """Round a matte, (H, W) float32 in 0..1, to (H, W) uint8 in 0..255."""
    return np.rint(alpha * 255).astype(np.uint8)


def network_of(options: MatteOptions) -> MattingNetwork:
    """Load the network, once.

    Raises
    ------
    MatteError
        There is no PyTorch or no such device, or the file is not what it should be.
    """
    return _load(options.checkpoint or Path(DEFAULT), options.device)


@lru_cache(maxsize=2)  # one after the other is graded
def _load(path: Path, device: str) -> MattingNetwork:
    try:
        from ..networks.checkpoint import load_network
        from ..networks.devices import find_device
        from ..networks.shipped import find_weights
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MatteError(f"a network needs PyTorch, which is not installed: {install_command('train')}") from None
    place = find_device(device)
    try:
        network = load_network(find_weights(path))
    except OSError as error:
        raise MatteError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise MatteError(str(error)) from None
    return network.to(place)


def _refined(image: UInt8Array, trimap: UInt8Array, options: MatteOptions) -> FloatArray:
    """Join the mattes of `fusion.MATTES`, with the network's, twice, and without, once; one classical may fail."""
    from ..networks.fusion import MATTES
    from .refine import refine_alpha, solvable_side

    side = solvable_side(trimap.shape, options.max_side)
    mattes: list[FloatArray | None] = [make_matte(DEFAULT, image, trimap, options)]
    failures = []
    for method in MATTES[1:]:
        try:
            mattes.append(_classical(method, image, trimap, side))
        except MatteError as error:
            mattes.append(None)
            failures.append(str(error))
    if len(failures) == len(MATTES) - 1:
        raise MatteError(f"refined: {'; '.join(failures)}. --method default needs none of them")
    for failure in failures:
        logger.warning("%s; refined does without it", failure)
    fusion = _fusion(options.device)
    both = [  # a network errs most where pictures are unlike those that it learned from
        refine_alpha(fusion, image, trimap, each, tile=options.tile, max_side=options.max_side)
        for each in (mattes, [None, *mattes[1:]])
    ]
    return np.asarray((2 * both[0] + both[1]) / 3, np.float32)


def _fusion(device: str) -> MattingNetwork:
    from ..networks.shipped import refined_weights

    return _load(refined_weights(), device)


def _classical(method: str, image: UInt8Array, trimap: UInt8Array, max_side: int | None) -> FloatArray:
    if not ((trimap == FOREGROUND).any() and (trimap == BACKGROUND).any()):
        raise MatteError(f"{method} needs known foreground and known background, and the trimap lacks one of them")
    estimate = getattr(pymatting(), CLASSICAL[method])
    small, hint, size = image, trimap, composed_size(trimap.shape, max_side)
    if size != trimap.shape:
        small = np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        hint = reduced_trimap(trimap, size)
    said = io.StringIO()  # warnings of pymatting's, which would stand within what --json prints
    try:
        with redirect_stdout(said):
            alpha = estimate(small / 255, hint / 255)
    except (ValueError, AssertionError) as error:  # a solver that does not converge, a picture too small
        raise MatteError(f"{method} failed: {error or 'the picture is too small for it'}") from None
    if said.getvalue():
        logger.debug("%s: %s", method, said.getvalue().strip())
    return known_from(trimap, enlarged(alpha.astype(np.float32), trimap.shape))
