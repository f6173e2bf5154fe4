"""Mattes: pictures that are measured, not looked at: alphas, masks, trimaps, truths and predictions.

What a file holds is judged: which channel is the matte, and what scale its levels have. Where there is one right
reading it is taken, and the log says so once for each folder; where there is none, the reason is given.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final, Literal, get_args

import cv2
import numpy as np

from ..base.arrays import UInt8Array
from ..base.errors import SourceError
from ..dataset.documents import InputRecord, record_input
from ..dataset.rows import BACKGROUND, FOREGROUND, UNKNOWN
from ..recipe import Reading
from .colour import to_8_bits
from .decode import Levels, decode_indices, decode_levels, decode_stored
from .picture_bytes import read_bytes
from .probe import MAX_PIXELS, Header

__all__ = ["mend_trimap", "read_matte", "read_trimap"]


Role = Literal["alpha", "mask", "trimap", "truth", "prediction"]


ROLES: Final[tuple[Role, ...]] = get_args(Role)


logger = logging.getLogger("matting_compose")


_noted: set[tuple[Path, str]] = set()


NEAR: Final = 10  # levels; what compression or an editor's smoothing does to 0, 128 and 255


FOREIGN_SHARE: Final = 0.02  # of all pixels: antialiased borders stay below it, an alpha does not


UNEQUAL_SHARE: Final = 0.01  # of all pixels may have channels that are not near, as compression makes them


MOST_CLASSES: Final = 20  # a matte whose largest level is that low holds labels: PASCAL VOC has 20 classes


VOID: Final = 255  # PASCAL VOC's label of what belongs to no class: the borders of objects


OPAQUE, CLEAR = 250, 5  # what JPEG leaves of 255 and 0


FRAME: Final = 0.99  # of a picture's border is opaque, and what is clear lies in one piece inside: it is inverted


def read_matte(
    path: Path, name: str, max_pixels: int = MAX_PIXELS, reading: Reading = "seen", *, role: Role = "alpha"
) -> tuple[UInt8Array, InputRecord]:
    """Read a matte: the one right reading of what the file holds.

    Parameters
    ----------
    path : Path
        Where it lies; the log speaks of each folder once.
    name : str
        What to call it in messages.
    max_pixels : int
        Refuse more than this, from the header.
    reading : {"seen", "stored"}
        Upright and judged; or channel 0 as Pillow has it, whatever it is.
    role : {"alpha", "mask", "trimap", "truth", "prediction"}
        What it is to be.

    Returns
    -------
    (H, W) uint8
        0 clear .. 255 opaque.
    InputRecord
        The file's size and digest, of the one read that the matte came from.

    Raises
    ------
    SourceError
        As `image_io.read_rgb`, and ``not-a-matte``: there is no one right reading.

    Examples
    --------
    >>> import numpy as np
    >>> from pathlib import Path
    >>> from matting_compose.composer.sources.image_io import write_picture
    >>> from matting_compose.composer.sources.mattes import read_matte
    >>> write_picture(Path("mask.png"), np.uint8([[0, 1, 1]]))
    >>> read_matte(Path("mask.png"), "mask.png")[0].tolist()
    [[0, 255, 255]]
    """
    data = read_bytes(path, name)
    file = record_input(data)
    if reading == "stored":
        stored = decode_stored(data, name, max_pixels)
        return np.ascontiguousarray(stored if stored.ndim == 2 else stored[..., 0]), file
    header, levels = decode_levels(data, name, max_pixels)
    return np.ascontiguousarray(_Judge(header, path, name, role).matte(levels)), file


def own_alpha(alpha: UInt8Array, path: Path, name: str) -> UInt8Array:
    """Judge the scale of a cut-out's own alpha (H, W) uint8: where 1 is its largest level, that is opaque."""
    if alpha.max(initial=0) != 1:
        return alpha
    _note(path, name, "its alpha's levels are 0 and 1, and 1 is taken as opaque")
    return alpha * np.uint8(255)


def read_trimap(
    path: Path, name: str, size: tuple[int, ...], max_pixels: int = MAX_PIXELS
) -> tuple[UInt8Array, list[str]]:
    """Read a trimap for a picture, and mend what is plainly meant, as `mend_trimap` does.

    Parameters
    ----------
    path : Path
        Where it lies.
    name : str
        What to call it in messages.
    size : (H, W)
        Of the picture that it belongs to, px.
    max_pixels : int
        Refuse more than this, from the header.

    Returns
    -------
    (H, W) uint8
        0 background, 128 unknown, 255 foreground.
    list of str
        Warnings for the person who gave it.

    Raises
    ------
    SourceError
        The file cannot be read, or is no trimap for that picture.
    """
    levels, _ = read_matte(path, name, max_pixels, role="trimap")
    return mend_trimap(levels, name, size)


def mend_trimap(levels: UInt8Array, name: str, size: tuple[int, ...]) -> tuple[UInt8Array, list[str]]:
    """Make sure that levels are a trimap for a picture; mend what is plainly meant.

    Levels within 10 of 0, 128 and 255 are taken for these, as compression makes them. Up to 2 % of other levels count
    as unknown: they are an editor's smoothed borders.

    Parameters
    ----------
    levels : (h, w) uint8
        As read.
    name : str
        What to call it in messages.
    size : (H, W)
        Of the picture that it belongs to, px.

    Returns
    -------
    (H, W) uint8
        0 background, 128 unknown, 255 foreground.
    list of str
        Warnings for the person who gave it.

    Raises
    ------
    SourceError
        Causes ``size-mismatch``; ``no-unknown``: nothing is left to matte; ``not-a-trimap``: too many other levels, so
        that it is an alpha or a photograph.

    Examples
    --------
    >>> import numpy as np
    >>> from matting_compose.composer.sources.mattes import mend_trimap
    >>> trimap, warnings = mend_trimap(np.uint8([[0, 127, 255]]), "cat.png", (1, 3))
    >>> trimap.tolist(), warnings
    ([[0, 128, 255]], ['cat.png: 1 pixel was not 0, 128 or 255; the nearest was taken, or unknown'])
    """
    if levels.shape != size:
        raise SourceError(name, "size-mismatch", _sizes(levels.shape, size))
    background, foreground = levels <= BACKGROUND + NEAR, levels >= FOREGROUND - NEAR
    trimap = np.where(background, BACKGROUND, np.where(foreground, FOREGROUND, UNKNOWN)).astype(np.uint8)
    share = float((np.abs(levels.astype(np.int16) - trimap) > NEAR).mean())
    if share > FOREIGN_SHARE:
        raise SourceError(
            name,
            "not-a-trimap",
            f"{share:.0%} of its pixels are far from 0, 128 and 255, so it is no trimap; if it is a mask or a"
            " rough alpha, give it with --mask and a trimap is drawn from it",
        )
    if not (trimap == UNKNOWN).any():
        raise SourceError(
            name,
            "no-unknown",
            "no pixel is unknown (128), so nothing is left to matte; if it is a mask, give it with --mask",
        )
    return trimap, _warnings(levels, trimap, name)


class _Judge:
    """Judges what one file holds."""

    def __init__(self, header: Header, path: Path, name: str, role: Role) -> None:
        self.header, self.path, self.name, self.role = header, path, name, role

    def matte(self, levels: Levels) -> UInt8Array:
        """Return the matte (H, W) in decoded levels."""
        labels = self._labels(levels)
        matte = self._scaled(self._channel(levels)) if labels is None else labels
        if self.header.is_lossy and self.role != "trimap":
            matte = self._without_noise(matte)
        if self.role in ("alpha", "mask", "truth") and _is_frame(matte):
            raise self.refusal(
                "its border is opaque all around and its inside is clear: is it inverted? If not, save it as the alpha"
                " of its picture (RGBA)"
            )
        return matte

    def refusal(self, reason: str) -> SourceError:
        return SourceError(self.name, "not-a-matte", reason)

    def note(self, reading: str) -> None:
        """Say which reading was taken, once for each folder."""
        _note(self.path, self.name, reading)

    def _labels(self, levels: Levels) -> UInt8Array | None:
        """Read a palette whose colours name classes, as PASCAL VOC's masks have them; None where it is of greys."""
        if self.header.picture.mode != "P":
            return None
        colours = levels[..., :3]
        if (colours.min(axis=2) == colours.max(axis=2)).all():
            return None
        indices = decode_indices(self.header)
        found = np.flatnonzero(np.bincount(indices.reshape(-1), minlength=256)).tolist()
        classes = [index for index in found if index not in (0, VOID)] or [index for index in found if index]
        palette = self.header.picture.getpalette("RGB") or []
        if len(classes) != 1 or any(palette[:3]):
            count = f"{len(classes)} classes ({', '.join(map(str, classes[:5]))}{', …' if len(classes) > 5 else ''})"
            raise self.refusal(
                f"its palette's colours stand for {count}, so which is the subject is open; save the subject as 255"
                " and all else as 0"
            )
        if VOID in found and classes != [VOID]:
            if self.role != "mask":
                raise self.refusal("its palette marks borders as void (255), neither clear nor opaque: it is a mask")
            self.note("its palette's class is taken as opaque, and void (255) as unknown")
            return np.select([indices == 0, indices == VOID], [0, UNKNOWN], 255).astype(np.uint8)
        self.note("its palette's one class is taken as opaque")
        return np.where(indices == 0, 0, 255).astype(np.uint8)

    def _channel(self, levels: Levels) -> Levels:
        """Return the one channel (H, W) that is the matte."""
        if self.header.space == "cmyk":
            raise self.refusal("CMYK has no channel that could be a matte; save it as grey")
        if self.header.alpha == "none":
            return self._grey(levels)
        colours, alpha = levels[..., :-1], levels[..., -1]
        if _is_flat(alpha):
            return self._grey(colours)
        grey = _grey_of(colours)
        if grey is not None and not _is_flat(grey[alpha > 0]):
            if _are_near(grey, alpha):
                return grey
            raise self.refusal("both its grey levels and its transparency vary; save the one that is meant as grey")
        self.note("it has colours and transparency, and its transparency is taken")
        return alpha

    def _grey(self, colours: Levels) -> Levels:
        grey = _grey_of(colours)
        if grey is not None:
            return grey
        moving = [channel for channel in range(3) if not _is_flat(colours[..., channel])]
        still = [channel for channel in range(3) if channel not in moving]
        black = all(colours[0, 0, channel] == 0 for channel in still)
        if still and black and (grey := _grey_of(colours[..., moving])) is not None:
            self.note("its only colour is taken")
            return grey
        raise self.refusal("its three channels differ, so it is a picture, not a matte; save the matte as grey")

    def _scaled(self, matte: Levels) -> UInt8Array:
        """Bring levels to 0..255."""
        most = int(matte.max(initial=0))
        if matte.dtype == np.uint16 and 1 < most <= 255:
            self.note("its 16 bits hold 0..255, which is taken as such")
            matte = matte.astype(np.uint8)
        if most == 0 or self.header.picture.mode == "1":
            return to_8_bits(matte)
        if most == 1 and not self.header.is_lossy:
            self.note("its levels are 0 and 1, and 1 is taken as opaque")
            return (matte * 255).astype(np.uint8)
        if self.role != "prediction":  # one may well be all but clear
            self._refuse_labels(matte, most)
        return to_8_bits(matte)

    def _refuse_labels(self, matte: Levels, most: int) -> None:
        if matte.dtype == np.uint16:
            if most < 4096:
                raise self.refusal(f"its largest level is {most:,} of 65,535: another scale; save it with 8 bits")
            return
        counts = np.bincount(matte.reshape(-1), minlength=256)
        found = np.flatnonzero(counts).tolist()
        low = [level for level in found if 0 < level <= MOST_CLASSES]
        with_void = set(found) - {0, VOID} == set(low) and len(low) == 1 and counts[low[0]] > counts[VOID]
        if most <= MOST_CLASSES or with_void:
            raise self.refusal(
                f"its levels {', '.join(map(str, low[:5]))} of 255 are labels or another scale; save what is opaque as"
                " 255, and all else as 0"
            )

    def _without_noise(self, matte: UInt8Array) -> UInt8Array:
        noise = ((matte >= OPAQUE) & (matte < 255)) | ((matte > 0) & (matte <= CLEAR))
        if not noise.any():
            return matte
        self.note(f"levels from {OPAQUE} on are taken as 255 and up to {CLEAR} as 0, as lossy compression changed them")
        return np.where(matte >= OPAQUE, 255, np.where(matte <= CLEAR, 0, matte)).astype(np.uint8)


def _note(path: Path, name: str, reading: str) -> None:
    if (key := (path.parent, reading)) not in _noted:
        _noted.add(key)
        logger.warning("%s: %s (and so in others of its folder)", name, reading)


def _is_flat(levels: Levels) -> bool:
    return bool(levels.size == 0 or levels.min() == levels.max())


def _grey_of(colours: Levels) -> Levels | None:
    """Return (H, W) of colours that are grey, but for what compression does to chroma; None of others."""
    if colours.shape[2] == 1:
        return colours[..., 0]
    spread = colours.max(axis=2) - colours.min(axis=2)
    if (spread > _near(colours)).mean() > UNEQUAL_SHARE:
        return None
    return colours[..., 0] if not spread.any() or colours.shape[2] != 3 else cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY)


def _near(levels: Levels) -> int:
    return NEAR * 257 if levels.dtype == np.uint16 else NEAR


def _are_near(one: Levels, other: Levels) -> bool:
    difference = np.maximum(one, other) - np.minimum(one, other)
    return bool((difference > _near(one)).mean() <= UNEQUAL_SHARE)


def _is_frame(matte: UInt8Array) -> bool:
    """Tell whether a matte's whole border is opaque, and nearly all that is clear lies in one piece."""
    border = np.concatenate([matte[0], matte[-1], matte[:, 0], matte[:, -1]])
    clear = (matte <= CLEAR).astype(np.uint8)
    if (border >= OPAQUE).mean() < FRAME or clear.mean() < 0.05:
        return False
    count, _, stats, _ = cv2.connectedComponentsWithStats(clear, connectivity=4)
    return bool(count > 1 and stats[1:, cv2.CC_STAT_AREA].max() > 0.9 * clear.sum())


def _sizes(found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    (h, w), (height, width) = found, expected
    scaled = abs(h / height - w / width) < 0.01
    advice = ", so enlarge or reduce the trimap by nearest neighbour" if scaled else "; is it another image's?"
    return f"the trimap is {w}×{h} px, its image {width}×{height} px; they must be of one size{advice}"


def _warnings(levels: UInt8Array, trimap: UInt8Array, name: str) -> list[str]:
    warnings = []
    if changed := int((trimap != levels).sum()):
        count = "1 pixel was" if changed == 1 else f"{changed:,} pixels were"
        warnings.append(f"{name}: {count} not 0, 128 or 255; the nearest was taken, or unknown")
    for level, kind in ((BACKGROUND, "background"), (FOREGROUND, "foreground")):
        if not (trimap == level).any():
            warnings.append(f"{name}: no pixel is known {kind} ({level}); mattes are worse without any")
    return warnings
