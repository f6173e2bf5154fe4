"""Packings: which codec stores what in a shard.

========  ==========================================================  ==============  ========
packing   composites and backgrounds                                  foregrounds     masks
========  ==========================================================  ==============  ========
delta     green-subtracted second differences, Zstandard 1            the same        Zstandard
solid     RGB, Zstandard −3 (any HDF5 viewer with the filter shows)   RGB, Zstandard  Zstandard
plain     RGB, no filter: for tools that know nothing of us           RGB             bytes
webp      a lossless WebP per tile: the smallest, slow to make        the same        the same
jpeg      a JPEG 4:4:4 per tile: lossy, for short disks               as delta        Zstandard
========  ==========================================================  ==============  ========

With ``delta``, ``solid`` and ``webp`` a composite's opaque pixels are stored as zeros: they are the foreground's, which
is stored once for all its composites.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..base.registry import Registry
from .codecs import Codec, Delta, Interleaved, Jpeg, WebP


@dataclass(frozen=True)
class Packing:
    """Which codec stores what.

    Attributes
    ----------
    image : Codec
        Of composites and backgrounds.
    foreground : Codec
        Of foregrounds, which are stored once for all their composites.
    mask : Codec
        Of alphas and trimaps.
    typical_bytes : float
        Bytes per composite pixel, trimap included, of photographs with a quarter of opaque pixels; for estimates only.
    shares_opaque : bool
        Composites hold zeros where alpha is 255, and a reader puts the foreground there.
    lossy : bool
        What is read back is not what was composed.
    """

    image: Codec
    foreground: Codec
    mask: Codec
    typical_bytes: float
    shares_opaque: bool = False
    lossy: bool = False


MASKS = Interleaved(1, level=1)


PACKINGS: Registry[Callable[[int], Packing]] = Registry(
    "packing",
    "matting_compose.packings",
    {
        "delta": lambda _: Packing(Delta(), Delta(), MASKS, 0.75, shares_opaque=True),
        "solid": lambda _: Packing(Interleaved(3, -3), Interleaved(3, 1), MASKS, 1.45, shares_opaque=True),
        "plain": lambda _: Packing(Interleaved(3, None), Interleaved(3, None), Interleaved(1, None), 4.0),
        "webp": lambda _: Packing(WebP(3), WebP(3), WebP(1), 0.65, shares_opaque=True),
        "jpeg": lambda quality: Packing(Jpeg(quality), Delta(), MASKS, 0.55, lossy=True),
    },
)  # an entry takes the recipe's ``shards.quality``, 1..100, and returns its packing


def load_packing(name: str, quality: int = 95) -> Packing:
    """Return the packing of that name.

    Parameters
    ----------
    name : str
        As in `PACKINGS`.
    quality : int
        1..100, of lossy packings.

    Raises
    ------
    UnknownNameError
        There is none such.
    TypeError
        A package offers something else under that name.

    Examples
    --------
    >>> load_packing("jpeg", 90).image
    Jpeg(quality=90, channels=3)
    """
    packing = PACKINGS[name](quality)
    if not isinstance(packing, Packing):
        raise TypeError(f"packing '{name}' is no Packing, but {type(packing).__name__}")
    return packing
