"""What others do: the same composites in the forms that training programs usually read, each with its loader.

Every loader gives batches of (image, trimap, alpha) crops, uint8, of the same windows around an unknown pixel, mirrored
half of the time, and each is written as quick as its form lets it be: OpenCV on one thread, nothing decoded twice.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset

from matting_compose.composer.building.plan import Plan
from matting_compose.composer.dataset import dataset as composites

Array = NDArray[np.uint8]
Crop = tuple[Array, Array, Array]


@dataclass(frozen=True)
class Wanted:
    """What a stream is asked for: windows of `sizes` px, `batch` crops of `crop` px, by `workers` processes."""

    sizes: tuple[int, ...]
    crop: int
    batch: int
    workers: int


class Form(Protocol):
    """A form of the composites on disk, and how it is read."""

    name: str
    needs: str | None  # a package that not everybody has

    def write(self, dataset: composites.Dataset, plan: Plan, folder: Path) -> None:
        """Write every composite of the dataset into the folder."""

    def batches(self, folder: Path, wanted: Wanted) -> Iterable[Any]:
        """Read batches without end."""


def cut(image: Array, trimap: Array, alpha: Array, wanted: Wanted) -> Crop:
    """Cut a window around an unknown pixel, reduce it to the crop, mirror it or not."""
    rng = np.random.default_rng()
    height, width = trimap.shape
    side = min(wanted.sizes[int(rng.integers(len(wanted.sizes)))], height, width)
    for _ in range(64):
        y, x = int(rng.integers(height)), int(rng.integers(width))
        if trimap[y, x] == 128:
            break
    top, left = min(max(y - side // 2, 0), height - side), min(max(x - side // 2, 0), width - side)
    flip = bool(rng.random() < 0.5)
    done = []
    for part in (image, trimap, alpha):
        part = part[top : top + side, left : left + side]
        if side != wanted.crop:
            method = cv2.INTER_AREA if side > wanted.crop else cv2.INTER_LINEAR
            if part is trimap:
                method = cv2.INTER_NEAREST
            part = np.asarray(cv2.resize(part, (wanted.crop, wanted.crop), interpolation=method), np.uint8)
        done.append(np.asarray(cv2.flip(part, 1), np.uint8) if flip else np.ascontiguousarray(part))
    return done[0], done[1], done[2]


def one_thread(_: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def endless(samples: Dataset[Crop] | IterableDataset[Crop], wanted: Wanted) -> Iterator[Any]:
    """Read epoch after epoch, with PyTorch's own loader."""
    shuffle = None if isinstance(samples, IterableDataset) else True
    loader = DataLoader(
        samples,
        wanted.batch,
        shuffle,
        num_workers=wanted.workers,
        drop_last=True,
        worker_init_fn=one_thread,
        prefetch_factor=4 if wanted.workers else None,
        persistent_workers=bool(wanted.workers),
        multiprocessing_context="forkserver" if wanted.workers else None,  # as the stream's own
    )
    while True:
        yield from loader


def png(picture: Array) -> bytes:
    """Code a picture as OpenCV does by default."""
    coded = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    return cv2.imencode(".png", coded)[1].tobytes()


def jpeg(picture: Array) -> bytes:
    """Code a picture as JPEG 95."""
    return cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def decoded(data: bytes | Array, flags: int) -> Array:
    """Decode a file's bytes."""
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if picture is None:
        raise ValueError("a picture cannot be decoded")
    return np.asarray(picture, np.uint8)


@dataclass
class _Mapped(Dataset[Crop]):
    """Crops by number, each out of a whole composite that `load` reads."""

    load: Callable[[int], Crop]
    count: int
    wanted: Wanted

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Crop:
        return cut(*self.load(index), self.wanted)


class PngFolder:
    """A folder of PNG files: image, trimap and alpha, decoded whole."""

    name: ClassVar[str] = "PNG folder"
    needs: ClassVar[None] = None

    def write(self, dataset: composites.Dataset, plan: Plan, folder: Path) -> None:
        for number, sample in enumerate(dataset):
            for kind, picture in (("image", sample.image), ("trimap", sample.trimap), ("alpha", sample.alpha)):
                (folder / f"{number}_{kind}.png").write_bytes(png(picture))

    def batches(self, folder: Path, wanted: Wanted) -> Iterable[Any]:
        count = len(list(folder.glob("*_image.png")))
        return endless(_Mapped(partial(self._load, folder), count, wanted), wanted)

    @staticmethod
    def _load(folder: Path, number: int) -> Crop:
        image = cv2.imread(str(folder / f"{number}_image.png"), cv2.IMREAD_COLOR_RGB)
        trimap = cv2.imread(str(folder / f"{number}_trimap.png"), cv2.IMREAD_GRAYSCALE)
        return image, trimap, cv2.imread(str(folder / f"{number}_alpha.png"), cv2.IMREAD_GRAYSCALE)  # type: ignore[return-value]


class ComposeInLoader:
    """Nothing on disk but the sources: decode foreground, alpha and background, blend, draw the trimap."""

    name: ClassVar[str] = "compose in loader"
    needs: ClassVar[None] = None

    def write(self, dataset: composites.Dataset, plan: Plan, folder: Path) -> None:
        entries = {entry.key: entry for entry in plan.foregrounds}
        lines = []
        for row in dataset.rows():
            files = plan.foreground_layout.files(entries[row.foreground])
            files += plan.background_layout.files(row.background)
            lines.append("\t".join([str(row.height), str(row.width), *(str(path.resolve()) for path in files)]))
        (folder / "list.txt").write_text("\n".join(lines))

    def batches(self, folder: Path, wanted: Wanted) -> Iterable[Any]:
        lines = [line.split("\t") for line in (folder / "list.txt").read_text().splitlines()]
        return endless(_Mapped(partial(self._load, lines), len(lines), wanted), wanted)

    @staticmethod
    def _load(lines: list[list[str]], number: int) -> Crop:
        height, width = int(lines[number][0]), int(lines[number][1])
        *files, behind = lines[number][2:]
        if len(files) == 1:
            with Image.open(files[0]) as picture:  # palettes and SGI files too, which OpenCV leaves out
                rgba = np.array(picture.convert("RGBA"))
        else:
            alpha = cv2.imread(files[1], cv2.IMREAD_GRAYSCALE)
            rgba = np.dstack([cv2.imread(files[0], cv2.IMREAD_COLOR_RGB), alpha])  # type: ignore[list-item]
        if rgba.shape[:2] != (height, width):
            rgba = cv2.resize(rgba, (width, height), interpolation=cv2.INTER_AREA)
        background = np.asarray(cv2.imread(behind, cv2.IMREAD_COLOR_RGB), np.uint8)
        ratio = max(height / background.shape[0], width / background.shape[1])
        size = max(width, round(background.shape[1] * ratio)), max(height, round(background.shape[0] * ratio))
        background = np.asarray(cv2.resize(background, size, interpolation=cv2.INTER_AREA), np.uint8)[:height, :width]
        alpha = np.ascontiguousarray(rgba[..., 3])
        weight = (alpha / np.float32(255))[..., None]
        image = (weight * rgba[..., :3] + (1 - weight) * background + np.float32(0.5)).astype(np.uint8)
        sides = np.random.default_rng().integers(1, 30, 2).tolist()
        kernels = [cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)) for side in sides]
        trimap = np.full(alpha.shape, 128, np.uint8)
        trimap[cv2.erode(alpha, kernels[0]) == 255] = 255
        trimap[cv2.dilate(alpha, kernels[1]) == 0] = 0
        return image, trimap, alpha


class MemoryMapped:
    """One file of bare bytes, mapped into memory: only the window is touched. As large as can be."""

    name: ClassVar[str] = "memory-mapped, raw"
    needs: ClassVar[None] = None

    def write(self, dataset: composites.Dataset, plan: Plan, folder: Path) -> None:
        table, start = [], 0
        with (folder / "pixels").open("wb") as file:
            for sample in dataset:
                for part in (sample.image, sample.trimap, sample.alpha):
                    file.write(part.tobytes())
                table.append((start, *sample.alpha.shape))
                start += sample.alpha.size * 5
        np.save(folder / "table.npy", np.array(table, np.int64))

    def batches(self, folder: Path, wanted: Wanted) -> Iterable[Any]:
        table = np.load(folder / "table.npy").tolist()
        return endless(_Mapped(partial(self._load, folder / "pixels", table), len(table), wanted), wanted)

    @staticmethod
    def _load(path: Path, table: list[tuple[int, int, int]], number: int) -> Crop:
        start, height, width = table[number]
        area = height * width
        pixels = _mapped(path)
        image = pixels[start : start + 3 * area].reshape(height, width, 3)
        masks = pixels[start + 3 * area : start + 5 * area].reshape(2, height, width)
        return image, masks[0], masks[1]


@lru_cache(maxsize=1)
def _mapped(path: Path) -> Array:
    """Map a file once in each process."""
    return np.memmap(path, np.uint8, "r")


@dataclass(frozen=True)
class Tars:
    """WebDataset: tars of some hundred samples, read from front to back and shuffled in memory."""

    name: str
    lossless: bool
    needs: ClassVar[str] = "webdataset"

    def write(self, dataset: composites.Dataset, plan: Plan, folder: Path) -> None:
        import webdataset

        code, ending = (png, "image.png") if self.lossless else (jpeg, "image.jpg")
        with webdataset.ShardWriter(str(folder / "%05d.tar"), maxcount=100, maxsize=2e8, verbose=0) as writer:
            for number, sample in enumerate(dataset):
                masks = {"trimap.png": png(sample.trimap), "alpha.png": png(sample.alpha)}
                writer.write({"__key__": f"{number:06d}", ending: code(sample.image), **masks})

    def batches(self, folder: Path, wanted: Wanted) -> Iterable[Any]:
        import webdataset

        tars = sorted(str(path) for path in folder.glob("*.tar"))
        samples = webdataset.WebDataset(tars, shardshuffle=len(tars), empty_check=False, seed=0).shuffle(100)
        workers = min(wanted.workers, len(tars))
        return endless(
            samples.map(partial(_from_files, wanted)), Wanted(wanted.sizes, wanted.crop, wanted.batch, workers)
        )


def _from_files(wanted: Wanted, sample: dict[str, Any]) -> Crop:
    """Decode a sample whose pictures are files within it, and cut."""
    image = sample["image.png"] if "image.png" in sample else sample["image.jpg"]
    masks = (decoded(sample[name], cv2.IMREAD_GRAYSCALE) for name in ("trimap.png", "alpha.png"))
    return cut(decoded(image, cv2.IMREAD_COLOR_RGB), *masks, wanted)


class LitData:
    """LitData: chunks of 64 MB with an index; a sample holds PNG files."""

    name: ClassVar[str] = "LitData, PNG"
    needs: ClassVar[str] = "litdata"

    def write(self, dataset: composites.Dataset, plan: Plan, folder: Path) -> None:
        import litdata

        inputs = list(range(len(dataset)))
        function = partial(_as_files, dataset)
        litdata.optimize(function, inputs, str(folder), chunk_bytes="64MB", num_workers=1, verbose=False)

    def batches(self, folder: Path, wanted: Wanted) -> Iterable[Any]:
        import litdata

        samples = litdata.StreamingDataset(str(folder), shuffle=True, transform=partial(_from_files, wanted))
        loader = litdata.StreamingDataLoader(
            samples,
            batch_size=wanted.batch,
            num_workers=wanted.workers,
            drop_last=True,
            worker_init_fn=one_thread,
            **(
                {"prefetch_factor": 4, "persistent_workers": True, "multiprocessing_context": "forkserver"}
                if wanted.workers
                else {}
            ),
        )
        while True:
            yield from loader


def _as_files(dataset: composites.Dataset, number: int) -> dict[str, bytes]:
    sample = dataset[number]
    return {"image.png": png(sample.image), "trimap.png": png(sample.trimap), "alpha.png": png(sample.alpha)}


RIVALS: tuple[Form, ...] = (
    PngFolder(),
    ComposeInLoader(),
    Tars("WebDataset, PNG", lossless=True),
    Tars("WebDataset, JPEG", lossless=False),
    LitData(),
    MemoryMapped(),
)


def installed(form: Form) -> bool:
    """Tell whether what a form needs is there."""
    return form.needs is None or importlib.util.find_spec(form.needs) is not None


def forget() -> None:
    """Unmap what is mapped."""
    _mapped.cache_clear()


def quiet() -> None:
    """Keep what the rivals print to themselves, and what they would send, here."""
    os.environ["DO_NOT_TRACK"] = os.environ["DISABLE_OPTIMIZER_TELEMETRY"] = "1"
    warnings.filterwarnings("ignore")
