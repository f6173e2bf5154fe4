"""Refine: closed-form matting that knows, beside the trimap, what a network makes of each unknown pixel."""

from __future__ import annotations

from typing import Final

import numpy as np

from ...composer.base.arrays import FloatArray, UInt8Array
from ...composer.dataset.rows import FOREGROUND, UNKNOWN
from ...composer.extraction.foreground import pymatting

__all__ = ["refine_alpha"]

TRUST: Final = 0.001  # how much an unknown pixel's alpha weighs; a window of the Laplacian weighs 1


KNOWN: Final = 100.0  # how much a known pixel's does, as in pymatting's closed form


def refine_alpha(image: UInt8Array, trimap: UInt8Array, alpha: FloatArray) -> FloatArray:
    """Find the alpha that is a linear function of colour in each 3×3 window, near to `alpha` and true to the trimap.

    (L + Λ)x = Λα, L being the matting Laplacian (Levin et al., 2008, equation 12) and Λ how far each pixel is trusted,
    as sampling-based matting joins its samples with it (Wang & Cohen, 2007, section 4).

    Parameters
    ----------
    image : (H, W, 3) uint8 RGB
    trimap : (H, W) uint8 {0, 128, 255}
    alpha : (H, W) float32
        A first matte, in 0..1.

    Returns
    -------
    (H, W) float32
        In 0..1.

    Raises
    ------
    ValueError
        The solver does not converge.
    """
    from scipy.sparse import diags

    library = pymatting()
    known = trimap != UNKNOWN
    trust = np.where(known, KNOWN, TRUST).ravel()
    wanted = np.where(known, trimap == FOREGROUND, alpha).astype(np.float64).ravel()
    system = (library.cf_laplacian(image / 255) + diags(trust)).tocsc()
    found = library.cg(system.tocsr(), trust * wanted, x0=wanted, M=library.ichol(system))
    return np.asarray(np.clip(found, 0, 1).reshape(trimap.shape), np.float32)
