"""Predict: a picture and its trimap in, alpha out, at the picture's own size and in bounded memory.

A picture that is larger than a tile is matted tile by tile. Tiles start at multiples of the network's stride, so that
they pool the same windows as the whole picture does, and what is nearer to a tile's inner edge than the network sees is
thrown away. Where nothing farther off counts, the result is therefore the whole picture's, to float32's rounding, and
tiles are cut to what is unknown. Elsewhere, as under group normalisation, which normalises a tile by itself, tiles
differ slightly, lie evenly, and are blended into one another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ...composer.dataset.rows import BACKGROUND, FOREGROUND, UNKNOWN
from ...composer.sources.image_io import composed_size
from ..networks.network import MattingNetwork

__all__ = [
    "BLEND",
    "SMALLEST_TILE",
    "blend_tiles",
    "enlarged",
    "known_from",
    "predict_alpha",
    "reduced_trimap",
]

Picture = NDArray[np.uint8]


Matte = NDArray[np.float32]


BLEND: Final = 32  # px over which one tile passes into the next


SMALLEST_TILE: Final = 512  # px; below, most of a tile is context


Box = tuple[int, int, int, int]  # top, bottom, left, right


@dataclass(frozen=True)
class Span:
    """One tile's extent along one axis, px, and its weight at each of its pixels; all spans' weights add up to 1."""

    start: int
    stop: int
    weights: Matte


def predict_alpha(
    network: MattingNetwork, image: Picture, trimap: Picture, *, tile: int | None = None, max_side: int | None = None
) -> Matte:
    """Predict a picture's alpha, fused with its trimap.

    Parameters
    ----------
    network : MattingNetwork
        In evaluation mode, on the device to work on.
    image : (H, W, 3) uint8 RGB
        Any size; with more planes where the network reads more.
    trimap : (H, W) uint8 {0, 128, 255}
    tile : int, optional
        px, the longest side that is given to the network at once: a multiple of its stride, at least 512 and more than
        twice its context; by default its own ``tile``. A network that sees whole pictures gets them whole.
    max_side : int, optional
        px. A larger picture is reduced to it, and its alpha enlarged again: SHM tests at 1500.

    Returns
    -------
    (H, W) float32
        Alpha in 0..1; 0 and 1 exactly where the trimap says so.

    Raises
    ------
    ValueError
        Another shape or type, or a tile size that cannot be.

    Examples
    --------
    >>> from matting_compose.trainer import MNet
    >>> network = MNet(width=0.125).eval()
    >>> image, trimap = np.zeros((40, 60, 3), np.uint8), np.full((40, 60), 255, np.uint8)
    >>> predict_alpha(network, image, trimap).min()  # the trimap knows it all
    np.float32(1.0)
    """
    tile = tile or network.tile
    _check(network, image, trimap, tile)
    if max_side is None or max(trimap.shape) <= max_side:
        return _tiled(network, image, trimap, tile)
    height, width = composed_size(trimap.shape, max_side)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    alpha = _tiled(network, np.asarray(small, np.uint8), reduced_trimap(trimap, (height, width)), tile)
    return known_from(trimap, enlarged(alpha, trimap.shape))


def _check(network: MattingNetwork, image: Picture, trimap: Picture, tile: int) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != network.planes or not image.size:
        raise ValueError(f"expected an image (H, W, {network.planes}) uint8, found {image.shape} {image.dtype}")
    if trimap.dtype != np.uint8 or trimap.shape != image.shape[:2]:
        raise ValueError(f"expected a trimap {image.shape[:2]} uint8, found {trimap.shape} {trimap.dtype}")
    smallest = smallest_tile(network)
    if tile < smallest or tile % network.stride:
        raise ValueError(f"tile is {tile}, but must be a multiple of {network.stride} from {smallest}")


def smallest_tile(network: MattingNetwork) -> int:
    """Return the least side of a tile, px, that a network's context leaves something of."""
    needed = _overlap(network) + network.stride
    return math.ceil(max(SMALLEST_TILE, needed) / network.stride) * network.stride


def _overlap(network: MattingNetwork) -> int:
    """Return how far two tiles overlap, px: a context on either side of the blend, and whole strides."""
    step = 2 * network.stride  # of an even length, so that both contexts are alike
    return math.ceil((2 * (network.context or 0) + BLEND) / step) * step


def _tiled(network: MattingNetwork, image: Picture, trimap: Picture, tile: int) -> Matte:
    if network.context is None:
        tile = max(trimap.shape)
    survey: tuple[torch.Tensor, ...] = ()
    if type(network).survey is not MattingNetwork.survey and (network.bounded or max(trimap.shape) > tile):
        survey = _survey(network, image, trimap)

    def make(at: tuple[slice, slice]) -> Matte:
        shares = tuple(_share(part, at, trimap.shape[1], network.stride) for part in survey)
        return _network_alpha(network, image[at], trimap[at], shares)

    alpha = blend_tiles(network, trimap == UNKNOWN, tile, make)
    return known_from(trimap, alpha)


@torch.inference_mode()
def _survey(network: MattingNetwork, image: Picture, trimap: Picture) -> tuple[torch.Tensor, ...]:
    return network.survey(*_tensors(network, image, trimap))


def blend_tiles(
    network: MattingNetwork, wanted: NDArray[np.bool_], tile: int, make: Callable[[tuple[slice, slice]], Matte]
) -> Matte:
    """Make an alpha, (H, W) float32, of overlapping tiles; anything, in 0..1, where nothing is wanted.

    Parameters
    ----------
    network : MattingNetwork
        Says where tiles may start, and how far they have to overlap.
    wanted : (H, W) bool
    tile : int
        px, a tile's side at most.
    make : Callable
        Makes the alpha of a tile, given as the slices of its rows and columns.
    """
    alpha = np.zeros(wanted.shape, np.float32)
    if network.bounded and network.context is not None:
        for (top, bottom, left, right), there in _boxes(wanted, tile, network.stride, network.context):
            y, x = there[0].start, there[1].start
            alpha[top:bottom, left:right] = make(there)[top - y : bottom - y, left - x : right - x]
        return alpha
    rows, columns = (_spans(length, tile, network.stride, _overlap(network)) for length in wanted.shape)
    for row in rows:
        for column in columns:
            there = slice(row.start, row.stop), slice(column.start, column.stop)
            weights = row.weights[:, None] * column.weights
            if (wanted[there] & (weights > 0)).any():
                alpha[there] += weights * make(there)
    return alpha


def _spans(length: int, tile: int, stride: int, overlap: int) -> list[Span]:
    """Cut an axis into spans of at most `tile` px, about equally long, that start at multiples of the stride."""
    if length <= tile:
        return [Span(0, length, np.ones(length, np.float32))]
    context = (overlap - BLEND) // 2
    count = math.ceil((length - overlap) / (tile - overlap))
    step = math.ceil((length - overlap) / count / stride) * stride
    ramp = (np.arange(BLEND, dtype=np.float32) + 0.5) / BLEND  # in 64ths: weights add up to 1 exactly
    spans = []
    for start in range(0, length - overlap, step):
        stop = min(start + step + overlap, length)
        weights = np.ones(stop - start, np.float32)
        if start > 0:
            weights[:context] = 0
            weights[context : context + BLEND] = ramp
        if stop < length:
            weights[len(weights) - context :] = 0
            weights[len(weights) - context - BLEND : len(weights) - context] = 1 - ramp
        spans.append(Span(start, stop, weights))
    return spans


def _boxes(
    wanted: NDArray[np.bool_], tile: int, stride: int, context: int
) -> Iterator[tuple[Box, tuple[slice, slice]]]:
    """Cover what is wanted, (H, W) bool, with boxes, px, and say what has to be seen for each: at most a tile."""
    height, width = (math.ceil(length / stride) for length in wanted.shape)
    whole = np.zeros((height * stride, width * stride), bool)
    whole[: wanted.shape[0], : wanted.shape[1]] = wanted
    cells = np.asarray(whole.reshape(height, stride, width, stride).any(axis=(1, 3)))
    margin = math.ceil(context / stride)
    if (box := _shrunk(cells, (0, height, 0, width))) is None:
        return
    for top, bottom, left, right in _cover(cells, box, max(1, tile // stride - 2 * margin), margin):
        rows, columns = (
            slice(max(0, first - margin) * stride, min((last + margin) * stride, length))
            for first, last, length in zip((top, left), (bottom, right), wanted.shape, strict=True)
        )
        kept = top * stride, min(bottom * stride, rows.stop), left * stride, min(right * stride, columns.stop)
        yield kept, (rows, columns)


def _cover(cells: NDArray[np.bool_], box: Box, side: int, margin: int) -> list[Box]:
    """Cover what a box has with boxes of at most `side` cells: cut it in two where boxes and margins are then least."""
    top, bottom, left, right = box
    fits = bottom - top <= side and right - left <= side
    least, best = _cost(cells.shape, box, side, margin) if fits else math.inf, [box]
    cuts = [((top, y, left, right), (y, bottom, left, right)) for y in range(top + 1, bottom)]
    cuts += [((top, bottom, left, x), (top, bottom, x, right)) for x in range(left + 1, right)]
    for halves in cuts:
        parts = [part for half in halves if (part := _shrunk(cells, half))]
        cost = sum(_cost(cells.shape, part, side, margin) for part in parts)
        if cost < least:
            least, best = cost, parts
    return best if best == [box] else [small for part in best for small in _cover(cells, part, side, margin)]


def _shrunk(cells: NDArray[np.bool_], box: Box) -> Box | None:
    """Shrink a box to what it has; None where that is nothing."""
    top, bottom, left, right = box
    there = cells[top:bottom, left:right]
    rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
    if not rows.size:
        return None
    return top + int(rows[0]), top + int(rows[-1]) + 1, left + int(columns[0]), left + int(columns[-1]) + 1


def _cost(shape: tuple[int, ...], box: Box, side: int, margin: int) -> int:
    """Count the cells that are seen for a box, of one that is too large as if it were cut evenly."""
    cost = 1
    for first, last, length in zip(box[::2], box[1::2], shape, strict=True):
        if last - first <= side:
            cost *= min(last + margin, length) - max(first - margin, 0)
        else:
            cost *= last - first + 2 * margin * math.ceil((last - first) / side)
    return cost


@torch.inference_mode()
def _network_alpha(
    network: MattingNetwork, image: Picture, trimap: Picture, survey: tuple[torch.Tensor, ...] = ()
) -> Matte:
    """Make a tile's alpha, with its share of what the whole picture showed."""
    tensors = _tensors(network, image, trimap)
    alpha = network.matte_part(*tensors, survey) if survey else network.matte(*tensors)
    return np.asarray(alpha[0, 0, : trimap.shape[0], : trimap.shape[1]].float().cpu().numpy(), np.float32)


def _share(part: torch.Tensor, at: tuple[slice, slice], width: int, stride: int) -> torch.Tensor:
    """Cut a tile's share of a part, (1, C, h, w), of a survey of a picture that is `width` px wide before padding.

    A part that has no places, (1, C, …), is every tile's.
    """
    if part.ndim < 4:
        return part
    step = math.ceil(width / stride) * stride // part.shape[-1]
    rows, columns = (slice(side.start // step, math.ceil(side.stop / stride) * stride // step) for side in at)
    return part[..., rows, columns]


def _tensors(network: MattingNetwork, image: Picture, trimap: Picture) -> tuple[torch.Tensor, torch.Tensor]:
    """Make a batch of one, (1, C, H, W) and (1, H, W) uint8, on the network's device and of a size that it takes."""
    if not network.any_size:
        below, right = (-length % network.stride for length in trimap.shape)
        image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)  # type: ignore[assignment]
        trimap = cv2.copyMakeBorder(trimap, 0, below, 0, right, cv2.BORDER_REPLICATE)  # type: ignore[assignment]
    device = next(network.parameters()).device
    picture = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].to(device)
    return picture, torch.from_numpy(np.ascontiguousarray(trimap))[None].to(device)


def reduced_trimap(trimap: Picture, size: tuple[int, int]) -> Picture:
    """Reduce a trimap to (height, width) px: what is not wholly background or foreground becomes unknown."""
    known = [
        cv2.resize((trimap == level).astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA) > 1 - 1e-4
        for level in (BACKGROUND, FOREGROUND)
    ]
    return np.where(known[0], BACKGROUND, np.where(known[1], FOREGROUND, UNKNOWN)).astype(np.uint8)


def enlarged(alpha: Matte, size: tuple[int, ...]) -> Matte:
    """Enlarge an alpha, (h, w) float32, to (height, width) px, bicubically, and cut it to 0..1."""
    if alpha.shape != size:
        alpha = np.asarray(cv2.resize(alpha, size[::-1], interpolation=cv2.INTER_CUBIC), np.float32)
    return np.clip(alpha, 0, 1)


def known_from(trimap: Picture, alpha: Matte) -> Matte:
    """Set what the trimap, (H, W) uint8, knows in an alpha, in place: `network.fuse` for a whole picture at once."""
    alpha[trimap == BACKGROUND] = 0
    alpha[trimap == FOREGROUND] = 1
    return alpha
