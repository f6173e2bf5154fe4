"""Rows: what a shard says of its composites, as plain values, and the table that holds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from ..base.arrays import UInt8Array
from .codecs import Codec
from .packings import Packing, load_packing

BACKGROUND, UNKNOWN, FOREGROUND = 0, 128, 255


@dataclass(frozen=True)
class Look:
    """What is done to a foreground, in this order; the defaults leave it as it is.

    Attributes
    ----------
    number : int
        Which of its foreground's looks.
    flip : bool
        Mirrored, left to right.
    scale : float
        Its size is multiplied by so much.
    rotate : float
        Degrees, counter-clockwise.
    partner : str
        The key of the foreground that stands behind; empty where none does.
    partner_flip : bool
        The partner is mirrored.
    partner_size : float
        1 where the partner is as large as fits in the frame.
    partner_y, partner_x : float
        Where in the space that is left, 0 top or left .. 1 bottom or right.
    red, green, blue, offset : float
        Colour c becomes gain · c + offset, of both foregrounds, cut to 0..255.
    """

    number: int = 0
    flip: bool = False
    scale: float = 1.0
    rotate: float = 0.0
    partner: str = ""
    partner_flip: bool = False
    partner_size: float = 1.0
    partner_y: float = 0.0
    partner_x: float = 0.0
    red: float = 1.0
    green: float = 1.0
    blue: float = 1.0
    offset: float = 0.0


UNCHANGED_LOOK = Look()


@dataclass(frozen=True)
class Scene:
    """What is done to a background, in this order; the defaults leave it as it is.

    Attributes
    ----------
    denoise : bool
        Its noise is smoothed.
    blur : float
        Standard deviation of a Gaussian, px; 0 for none.
    harmonise : float
        How far its brightness goes towards the foreground's, 0..1.
    gamma : float
        What its levels, 0..1, were raised to for that, so that nothing burns out; known when it is rendered, and 1
        before.
    shadow : float
        How dark the foreground's shadow on it is, 0 none .. 1 black.
    shadow_y, shadow_x : float
        How far the shadow is moved, down and to the right, as fractions of the subject's size.
    shadow_blur : float
        Standard deviation of the shadow's blur, as a fraction of the subject's size.
    distractors : str
        The foregrounds that stand behind the one that the alpha is of, the farthest first: a JSON list of lists of key,
        whether mirrored, size, y and x, as of a look's partner; empty where none does. They are part of the background.
    """

    denoise: bool = False
    blur: float = 0.0
    harmonise: float = 0.0
    gamma: float = 1.0
    shadow: float = 0.0
    shadow_y: float = 0.0
    shadow_x: float = 0.0
    shadow_blur: float = 0.0
    distractors: str = ""


UNCHANGED_SCENE = Scene()


Window = tuple[int, int, int, int]  # y, x, height, width


FORMAT = "matting-compose/shard"


VERSION = 2  # the newest that is read; files of composites alone are of version 1, and older programs read them


MASK_TILES = 2  # a mask's tile is so many times wider and higher than a picture's


TILE_TABLE = "tiles"  # the table of where all tiles lie


FIRST_TILE = "tiles"  # an array's attribute: its first row in that table


UINT16_MAX = 65_535  # what a row's 16-bit columns hold: variants, radii, looks


@dataclass(frozen=True)
class Row:
    """A composite's row in its shard's table.

    Attributes
    ----------
    key : str
        Unique in the dataset: the foreground's name, ``_``, the variant.
    foreground, background : str
        Who meets whom: names, below their roots, with forward slashes; a picture as it is has no background, ``""``.
    variant : int
        Which of its foreground's, from 0.
    background_sha256 : str
        Of the background's file; empty where there is none.
    height, width : int
        Px.
    scale : float
        Background px × scale = composite px.
    offset_y, offset_x : int
        The cut's corner, in the background's own px; its size is height/scale × width/scale, rounded.
    erode, dilate : int
        Radii, px; kernel sides for the trimap strategies that use kernels.
    group, position : int
        Where its pixels lie: ``groups/{group:05d}``, at index `position`.
    look : Look
        What was done to the foreground.
    scene : Scene
        What was done to the background.
    """

    key: str
    foreground: str
    variant: int
    background: str
    background_sha256: str
    height: int
    width: int
    scale: float
    offset_y: int
    offset_x: int
    erode: int
    dilate: int
    group: int
    position: int
    look: Look = UNCHANGED_LOOK
    scene: Scene = UNCHANGED_SCENE

    @property
    def composed(self) -> bool:
        """Whether it is a composite, and no picture as it is."""
        return bool(self.background)

    def columns(self) -> dict[str, Any]:
        """Return it flat: its fields, and ``look_number``, ``scene_blur`` and the like."""
        return {name: getattr(self, name) for name in _ROW_FIELDS} | _flat(vars(self))

    def changes(self) -> list[tuple[str, Any]]:
        """List what its look and its scene change, by column."""
        return [(name, value) for name, value in _flat(vars(self)).items() if value != _USUAL[name]]


class ArrayKind(NamedTuple):
    """What an array of a group holds.

    Attributes
    ----------
    codec : Codec
        What its pictures are encoded by.
    tile : int
        Their tiles' sides, px, at most.
    stacked : bool
        A picture for each composite, along its first axis; else one for all.
    """

    codec: Codec
    tile: int
    stacked: bool


@dataclass(frozen=True)
class Header:
    """A shard's attributes: what it is part of, and how to decode it."""

    plan_sha256: str
    index: int
    split: str
    packing: str
    quality: int
    tile: int
    background: str

    def arrays(self, composed: bool = True) -> dict[str, ArrayKind]:
        """Map the arrays of a group to what they hold: of composites, or of a picture as it is and its trimaps."""
        codecs = self.codecs()
        # Masks pack to next to nothing, so that a chunk's overhead is what they cost: fewer, larger tiles.
        mask_tile = self.tile * MASK_TILES
        kinds = {
            "alpha": ArrayKind(codecs.mask, mask_tile, stacked=False),
            "foreground": ArrayKind(codecs.foreground, self.tile, stacked=False),
            "image": ArrayKind(codecs.image, self.tile, stacked=composed),
            "trimap": ArrayKind(codecs.mask, mask_tile, stacked=True),
        }
        if not composed:
            del kinds["foreground"]
            return kinds
        return kinds if self.background == "none" else kinds | {"background": kinds["image"]}

    def codecs(self) -> Packing:
        """Return the codecs that its pictures were written with."""
        return load_packing(self.packing, self.quality)


class Parts(NamedTuple):
    """A composite and what it was made of, whole or a window of it.

    image (H, W, 3), trimap (H, W), alpha (H, W), foreground (H, W, 3), background (H, W, 3); all uint8, RGB. A picture
    as it is has neither foreground nor background, and backgrounds are not in every dataset: None.
    """

    image: UInt8Array
    trimap: UInt8Array
    alpha: UInt8Array
    foreground: UInt8Array | None
    background: UInt8Array | None


HEADER_FIELDS = tuple(field.name for field in fields(Header))


_PARTS: dict[str, Look | Scene] = {
    "look": UNCHANGED_LOOK,
    "scene": UNCHANGED_SCENE,
}  # a row's parts, each with its usual value


def _flat(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}_{name}": value for prefix in _PARTS for name, value in vars(parts[prefix]).items()}


_USUAL = _flat(_PARTS)


_TEXT = ("key", "foreground", "background", "background_sha256", "look_partner", "scene_distractors")


_NUMBERS = {
    "variant": "<u2",
    "height": "<u4",
    "width": "<u4",
    "scale": "<f8",
    "offset_y": "<u4",
    "offset_x": "<u4",
    "erode": "<u2",
    "dilate": "<u2",
    "group": "<u4",
    "position": "<u4",
}


_KINDS = {bool: "<u1", int: "<u2", float: "<f8"}  # of the parts' columns


def to_table(rows: Sequence[Row]) -> NDArray[np.void]:
    """Make the compound table; texts are UTF-8 of a fixed length, as long as the longest.

    A column of looks or scenes that has its usual value in every row is left out.
    """
    flat = [row.columns() for row in rows]
    names = [*_ROW_FIELDS, *(name for name, value in _USUAL.items() if any(row[name] != value for row in flat))]

    def kind(name: str) -> Any:
        if name not in _TEXT:
            return _NUMBERS.get(name) or _KINDS[type(_USUAL[name])]
        longest = max((len(row[name].encode()) for row in flat), default=1)
        return h5py.string_dtype("utf-8", max(longest, 1))

    table = np.zeros(len(rows), np.dtype([(name, kind(name)) for name in names]))
    for name in names:
        values = [row[name] for row in flat]
        table[name] = [value.encode() for value in values] if name in _TEXT else values
    return table


def from_table(table: NDArray[np.void]) -> list[Row]:
    """Return a shard's table as rows; see `to_table`."""

    def column(name: str) -> list[Any]:
        values = table[name].tolist()
        return [value.decode() for value in values] if name in _TEXT else values

    columns = [column(name) for name in _ROW_FIELDS]
    for prefix, part in _PARTS.items():
        there = {name: value for name, value in vars(part).items() if f"{prefix}_{name}" in (table.dtype.names or ())}
        cells = zip(*(map(type(value), column(f"{prefix}_{name}")) for name, value in there.items()), strict=True)
        same = [part] * len(table)
        columns.append([type(part)(**dict(zip(there, values, strict=True))) for values in cells] if there else same)
    return [Row(*values) for values in zip(*columns, strict=True)]


def digest_keys(keys: Iterable[bytes]) -> NDArray[np.uint64]:
    """Return eight bytes for each key, (N,): what can be held of millions; two share them almost never by chance."""
    digests = (blake2b(key, digest_size=8).digest() for key in keys)
    return np.fromiter(map(int.from_bytes, digests), np.uint64)


def compare_tables(one: NDArray[np.void], other: NDArray[np.void]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield a row's fields, and in which rows of two tables of one length each differs, (N,)."""

    def differs(name: str) -> NDArray[np.bool_]:
        usual = _USUAL.get(name)
        left_out = np.array(usual.encode() if isinstance(usual, str) else usual)
        first, second = (table[name] if name in (table.dtype.names or ()) else left_out for table in (one, other))
        return np.broadcast_to(first != second, len(one))

    for name in _ROW_FIELDS:
        yield name, differs(name)
    for prefix, part in _PARTS.items():
        yield prefix, np.any([differs(f"{prefix}_{name}") for name in vars(part)], axis=0)


_ROW_FIELDS = tuple(field.name for field in fields(Row) if field.name not in _PARTS)


def read_table(dataset: h5py.Dataset, most: int) -> NDArray[np.void]:
    """Read a shard's table, of which `from_table` makes rows.

    Parameters
    ----------
    dataset : h5py.Dataset
        The table, proved to be in this file.
    most : int
        Bytes that it may declare: the file's size.

    Raises
    ------
    ValueError
        It declares more, or columns of other kinds than `to_table` makes: no pointers are followed; or a text is no
        UTF-8.
    """
    columns = dataset.dtype  # h5py makes it anew each time
    kinds = {name: columns[name].kind for name in [*_ROW_FIELDS, *(n for n in _USUAL if n in (columns.names or ()))]}
    if (
        dataset.ndim != 1
        or dataset.size * columns.itemsize > most
        or columns.hasobject
        or any(kind not in _allowed_kinds(name) for name, kind in kinds.items())
    ):
        raise ValueError(f"a table of {dataset.size:,} rows, {columns}")
    table: NDArray[np.void] = dataset[()]
    for name in kinds:
        if name in _TEXT:
            b"\n".join(table[name].tolist()).decode()
    return table


def _allowed_kinds(name: str) -> str:
    if name in _TEXT:
        return "S"
    return "f" if _NUMBERS.get(name) == "<f8" or isinstance(_USUAL.get(name), float) else "iu"
