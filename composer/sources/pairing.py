"""Pairing: which picture goes with which alpha, mask, trimap or prediction, by their names.

``cat.jpg`` goes with ``cat.png``, ``cat_alpha.png``, ``cat_matte.png`` and ``cat_mask.png``, in another folder or in
the same one. Endings do not count, nor how accents are coded.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..base.errors import PlanError
from .listings import Listing

ALPHA_SUFFIXES: Final = ("", "_alpha", "_matte", "_mask")  # of an alpha's name, after its picture's


TRIMAP_SUFFIXES: Final = ("", "_trimap")


NUMBER: Final = re.compile(r"_\d+$")  # of a composite among those of one foreground, which have one alpha: cat_0, cat_1


LOSSY: Final = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})  # of two files of one name, this is the photograph


@dataclass(frozen=True)
class Pair:
    """A picture and its alpha, by their names in their listings; None where it has none."""

    image: str
    alpha: str | None


def stem(name: str) -> str:
    """Return a name without its ending.

    >>> stem("a.b/cat.jpg")
    'a.b/cat'
    """
    return os.path.splitext(name)[0]  # noqa: PTH122  # names have forward slashes, whatever the system


def match_key(name: str) -> str:
    """Return what two names have in common if their files belong together: no ending, accents coded one way."""
    return unicodedata.normalize("NFC", stem(name))


def index_names(listing: Listing) -> dict[str, str]:
    """Return a listing's names by their `match_key`, in order.

    Raises
    ------
    PlanError
        Two differ by their endings only.
    """
    found: dict[str, str] = {}
    for name in listing.names:
        other = found.setdefault(match_key(name), name)
        if other is not name:
            raise PlanError(f"{listing.root}: {other} and {name} differ by their endings only; keep one")
    return found


def find_partner(key: str, index: Mapping[str, str], suffixes: Sequence[str] = ALPHA_SUFFIXES) -> str | None:
    """Return the name in an index that belongs to a picture's key: the same, or that and a suffix."""
    return next((index[key + suffix] for suffix in suffixes if key + suffix in index), None)


def pair_alphas(images: Listing, alphas: Listing, suffixes: Sequence[str] = ALPHA_SUFFIXES) -> list[Pair]:
    """Pair pictures with their alphas; where these lie among the pictures, they are no pictures themselves.

    Parameters
    ----------
    images, alphas : Listing
        Of two folders, of one that holds the other, or of the same one.
    suffixes : sequence of str
        What an alpha's name may add to its picture's.

    Returns
    -------
    list of Pair
        In the pictures' order.

    Raises
    ------
    PlanError
        A picture has two alphas.

    Examples
    --------
    >>> from pathlib import Path
    >>> pair_alphas(Listing(Path("in"), ("cat.jpg", "dog.jpg")), Listing(Path("out"), ("cat_alpha.png",)))
    [Pair(image='cat.jpg', alpha='cat_alpha.png'), Pair(image='dog.jpg', alpha=None)]
    """
    if os.path.realpath(images.root) == os.path.realpath(alphas.root):
        return _pair_within(images, alphas, suffixes)
    return _pair_across(images, alphas, suffixes)


def require_alphas(pairs: Sequence[Pair], images: str, alphas: Path) -> None:
    """Refuse folders that do not belong together.

    Raises
    ------
    PlanError
        There are pictures, and none has an alpha.
    """
    if pairs and not any(pair.alpha for pair in pairs):
        first = stem(pairs[0].image)
        raise PlanError(
            f"no picture in {images} has an alpha of the same name in {alphas} (looked for {first}.png,"
            f" {first}_alpha.png and the like; no picture is its own alpha)"
        )


def _pair_across(images: Listing, alphas: Listing, suffixes: Sequence[str]) -> list[Pair]:
    """Pair the files of two folders; of those in the alphas' folder none is a picture."""
    index = index_names(alphas)
    inner = tuple(
        os.path.relpath(place(alphas.root), place(images.root)).replace(os.sep, "/") + "/"
        for place in (os.path.realpath, os.path.abspath)
    )
    pictures = (name for name in images.names if not name.startswith(inner))
    return [Pair(name, find_partner(match_key(name), index, suffixes)) for name in pictures]


def _pair_within(images: Listing, alphas: Listing, suffixes: Sequence[str]) -> list[Pair]:
    """Pair the files of one folder with each other: what is an alpha is no picture."""
    by_key: dict[str, list[str]] = {}
    for name in alphas.names:
        by_key.setdefault(match_key(name), []).append(name)
    found: dict[str, str | None] = {}
    for key, names in by_key.items():
        image, own = _photograph(alphas, names)
        others = [by_key[key + suffix][0] for suffix in suffixes if suffix and key + suffix in by_key]
        found[image] = own or next(iter(others), None)
    taken = set(found.values())
    return [Pair(name, found[name]) for name in images.names if name in found and name not in taken]


def _photograph(listing: Listing, names: Sequence[str]) -> tuple[str, str | None]:
    """Tell the picture from its alpha, where they have one name."""
    photographs = [name for name in names if os.path.splitext(name)[1].lower() in LOSSY]  # noqa: PTH122
    if len(names) == 1:
        return names[0], None
    if len(names) > 2 or len(photographs) != 1:
        raise PlanError(
            f"{listing.root}: {' and '.join(names)} differ by their endings only, so nothing says which is the alpha;"
            f" call it {stem(names[0])}_alpha"
        )
    return photographs[0], next(name for name in names if name not in photographs)
