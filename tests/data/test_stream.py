"""The stream: the order is a function of the seed alone, and what a crop shows is what the composite is."""

from __future__ import annotations

import queue
from collections import Counter
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from conftest import Pictures, run
from matting_compose.composer import open_dataset
from matting_compose.composer.base.errors import DatasetError
from matting_compose.composer.dataset.dataset import Dataset
from matting_compose.trainer import CropDataset
from matting_compose.trainer.data import fetch_ahead
from matting_compose.trainer.data.crops import Augment, CropBuffers, cut_crop, unknown_pixel
from matting_compose.trainer.data.fetch_ahead import FetchAhead
from matting_compose.trainer.data.mix import Datasets
from matting_compose.trainer.data.order import Order
from matting_compose.trainer.data.stream import Batch, Stream, open_stream

STILL = Augment(flip=0)
PACKINGS = ["delta", "plain"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a small dataset, one foreground of five kept for validation, backgrounds for the losses."""
    folder = tmp_path_factory.mktemp("stream")
    out = folder / "dataset"
    done = run(*Pictures.make(folder / "pictures").arguments(
        out, "--set", "split.validation=0.2", "--set", "shards.background=unknown", "--set", "shards.tile=48",
        "--set", "shards.megabytes=1"))  # fmt: skip
    assert done.code == 0, done.err
    return out


def taken(dataset: Datasets, batches: int, **options: object) -> list[Batch]:
    """Take some batches of 3 crops of 64 px."""
    arguments = {"batch": 3, "crop": 64, "sizes": (64, 96), "colours": True, **options}
    stream = open_stream(dataset, **arguments)  # type: ignore[arg-type]
    try:
        return list(islice(stream, batches))
    finally:
        stream.close()


def brighten(crop: CropBuffers, rng: np.random.Generator) -> None:
    """Change a crop in place, by its own generator."""
    cv2.add(crop.image, float(rng.integers(1, 60)), crop.image)


def turn(crop: CropBuffers, rng: np.random.Generator) -> CropBuffers:
    """Return another crop: turned by a quarter."""
    parts = (crop.image, crop.trimap, crop.alpha, crop.foreground, crop.background)
    return CropBuffers(*(None if part is None else np.rot90(part) for part in parts))  # type: ignore[arg-type]


def same(one: Batch, other: Batch) -> bool:
    """Compare every byte of two batches."""
    names = ("image", "trimap", "alpha", "foreground", "background")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(built: Path, workers: int) -> None:
    """The same batches, to the byte, from this process and from others; on one core one worker is what there is."""
    alone = taken(built, 9)
    others = taken(built, 9, workers=workers)
    assert [b.samples.tolist() for b in alone] == [b.samples.tolist() for b in others]
    assert all(map(same, alone, others))


def test_no_more_workers_than_cores_that_may_be_used(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a machine that is shared, a job has some."""
    monkeypatch.setattr("matting_compose.trainer.data.stream.count_cores", lambda: 3)
    asked: list[int] = []
    monkeypatch.setattr("matting_compose.trainer.data.stream.Stream", lambda *given: asked.append(given[1]))
    open_stream(built, batch=3, crop=32, sizes=(32, 48), workers=9)
    assert asked == [3]


def test_ranks_share_an_epoch(built: Path) -> None:
    """Two ranks together take, batch by batch, what one with twice the batch takes."""
    whole = taken(built, 6, batch=6)
    halves = [taken(built, 6, batch=3, rank=rank, world=2) for rank in (0, 1)]
    for one, first, second in zip(whole, *halves, strict=True):
        assert one.samples.tolist() == [*first.samples.tolist(), *second.samples.tolist()]
        assert torch.equal(one.image, torch.cat((first.image, second.image)))


def test_it_goes_on_anywhere(built: Path) -> None:
    """From any batch on, across the end of an epoch, with another number of workers."""
    whole = taken(built, 12)
    rest = taken(built, 7, start=5, workers=1)
    assert all(map(same, whole[5:], rest))
    samples = np.concatenate([batch.samples for batch in whole])
    epoch = sum(shard.composites for shard in open_dataset(built).shards if shard.split == "train")
    assert max(Counter(samples[:epoch].tolist()).values()) == 1
    again = [i for i in range(epoch, len(samples)) if samples[i] in samples[:epoch]]
    first = {int(sample): i for i, sample in enumerate(samples[:epoch])}
    crops = torch.cat([batch.image for batch in whole])
    assert any(not torch.equal(crops[i], crops[first[int(samples[i])]]) for i in again)  # crops are drawn anew


def test_two_datasets_go_on_anywhere(built: Path, finished: Path) -> None:
    """A mix from any batch on, with other workers and ranks; each crop is named, and is that of its dataset."""
    both: Datasets = [built, (finished, 0.5)]
    whole = taken(both, 12)
    rest = taken(both, 7, start=5, workers=2)
    assert all(map(same, whole[5:], rest))
    names = [[*zip(b.datasets.tolist(), b.samples.tolist(), strict=True)] for b in whole]
    assert names[5:] == [[*zip(b.datasets.tolist(), b.samples.tolist(), strict=True)] for b in rest]
    assert [sum(batch.datasets) for batch in whole] == [1] * 12  # of three crops, one is of the second
    halves = [taken(both, 4, rank=rank, world=2, workers=1) for rank in (0, 1)]
    assert all(map(same, whole[:8], [batch for pair in zip(*halves, strict=True) for batch in pair]))
    mixed = torch.cat([batch.image for batch in whole])
    own = np.concatenate([batch.datasets for batch in whole]) == 0
    assert torch.equal(mixed[own], torch.cat([batch.image for batch in taken(built, 8)]))


def test_validation_is_kept_apart(built: Path) -> None:
    """No foreground is in both streams."""
    dataset = open_dataset(built)
    seen = {
        split: {dataset.row(int(n)).foreground for b in taken(built, 12, split=split) for n in b.samples}
        for split in ("train", "validation")
    }
    assert seen["train"]
    assert seen["validation"]
    assert not seen["train"] & seen["validation"]


def buffers(side: int) -> CropBuffers:
    """Make room for a crop."""
    return CropBuffers(*(np.empty((side, side, *last), np.uint8) for last in ((3,), (), (), (3,), (3,))))


def test_a_crop_is_part_of_its_composite(built: Path) -> None:
    """Without flips and resampling, a crop is found in the composite, at one place in all its parts."""
    dataset = open_dataset(built, remember=1_000_000)
    for index in range(len(dataset)):
        whole = dataset[index]
        if min(whole.alpha.shape) < 64:
            continue
        out = buffers(64)
        cut_crop(dataset, index, (64,), STILL, np.random.default_rng(index), out)
        match = cv2.matchTemplate(whole.image, out.image, cv2.TM_SQDIFF)
        _, _, (x, y), _ = cv2.minMaxLoc(match)
        where = slice(y, y + 64), slice(x, x + 64)
        assert whole.background is not None
        np.testing.assert_array_equal(out.image, whole.image[where])
        np.testing.assert_array_equal(out.trimap, whole.trimap[where])
        np.testing.assert_array_equal(out.alpha, whole.alpha[where])
        np.testing.assert_array_equal(out.foreground, whole.foreground[where])
        np.testing.assert_array_equal(out.background, whole.background[where])
        assert (out.trimap == 128).any()


def test_a_flipped_crop_is_its_mirror(built: Path) -> None:
    """Flipping mirrors every part alike."""
    dataset = open_dataset(built)
    straight, mirrored = buffers(64), buffers(64)
    cut_crop(dataset, 0, (64, 96), STILL, np.random.default_rng(5), straight)
    cut_crop(dataset, 0, (64, 96), Augment(flip=1), np.random.default_rng(5), mirrored)
    for name in ("image", "trimap", "alpha", "foreground", "background"):
        np.testing.assert_array_equal(getattr(mirrored, name), getattr(straight, name)[:, ::-1])


def test_reducing_averages_and_knows_less(built: Path) -> None:
    """Twice as large a window gives the mean of 2×2 pixels; a mixed one of the trimap is unknown."""
    dataset = open_dataset(built)
    index = next(i for i, row in enumerate(dataset.rows()) if min(row.height, row.width) >= 200)
    small, large = buffers(64), buffers(128)
    cut_crop(dataset, index, (128,), STILL, np.random.default_rng(3), small)
    cut_crop(dataset, index, (128,), STILL, np.random.default_rng(3), large)
    for name in ("image", "alpha"):
        part = getattr(large, name).astype(float)
        mean = (part[::2, ::2] + part[1::2, ::2] + part[::2, 1::2] + part[1::2, 1::2]) / 4
        assert np.abs(getattr(small, name) - mean).max() <= 0.5
    cells = np.stack(
        [large.trimap[::2, ::2], large.trimap[1::2, ::2], large.trimap[::2, 1::2], large.trimap[1::2, 1::2]]
    )
    alike = (cells == cells[0]).all(0)
    np.testing.assert_array_equal(small.trimap, np.where(alike, cells[0], 128))


def test_unknown_pixels_are_drawn_evenly(built: Path) -> None:
    """Every unknown pixel is equally likely, and no other is ever drawn."""
    dataset = open_dataset(built, remember=1_000_000)
    reader = dataset.reader(0)
    row = reader.rows[0]
    trimap = dataset[0].trimap
    rng = np.random.default_rng(0)
    drawn = np.array([unknown_pixel(reader, row, rng) for _ in range(3000)])
    assert (trimap[drawn[:, 0], drawn[:, 1]] == 128).all()
    ys, xs = np.nonzero(trimap == 128)
    for mine, all_of_them in ((drawn[:, 0], ys), (drawn[:, 1], xs)):
        assert abs(mine.mean() - all_of_them.mean()) < 5 * all_of_them.std() / np.sqrt(3000)


def test_a_tiny_unknown_region_is_found(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no try hits, the trimap is searched."""
    monkeypatch.setattr("matting_compose.trainer.data.crops.PROBES", 0)
    dataset = open_dataset(built)
    y, x = unknown_pixel(dataset.reader(0), dataset.row(0), np.random.default_rng(1))
    assert dataset[0].trimap[y, x] == 128


def held(stream: Stream, keep: int) -> tuple[set[int], list[Batch]]:
    """Take 30 batches, holding the last `keep`; return the addresses they had, and those still held."""
    places, batches = set(), []
    for batch in islice(stream, 30):
        places.add(batch.image.data_ptr())
        batches = [*batches, batch][-keep:]
    return places, batches


@pytest.mark.parametrize("workers", [0, 1])
def test_memory_is_used_again(built: Path, workers: int) -> None:
    """A batch that nobody holds gives its memory to another; one that is held is never written to again."""
    wanted = taken(built, 30)
    for keep in (1, 12):  # more than a worker has slots for
        stream = open_stream(built, batch=3, crop=64, sizes=(64, 96), colours=True, workers=workers, prefetch=2)
        places, batches = held(stream, keep)
        stream.close()
        assert len(places) <= (keep + 4 if keep == 1 else 30)
        assert all(same(batch, then) for batch, then in zip(batches, wanted[-keep:], strict=True))


def test_part_of_a_batch_holds_its_memory(built: Path) -> None:
    """A view of one part, as an array too, keeps the whole from being written over."""
    stream = iter(open_stream(built, batch=3, crop=64, sizes=(64,)))
    alpha = next(stream).alpha[1, 0].numpy()
    then = alpha.copy()
    list(islice(stream, 5))
    np.testing.assert_array_equal(alpha, then)


def test_spoiling_spares_alpha(built: Path) -> None:
    """Colour jitter, blur, noise and JPEG change the picture and nothing that is true."""
    dataset = open_dataset(built)
    spoilt = Augment(flip=0, jitter=0.3, chance=1)
    plain, changed, again = buffers(64), buffers(64), buffers(64)
    cut_crop(dataset, 0, (64,), STILL, np.random.default_rng(5), plain)
    cut_crop(dataset, 0, (64,), spoilt, np.random.default_rng(5), changed)
    cut_crop(dataset, 0, (64,), spoilt, np.random.default_rng(5), again)
    np.testing.assert_array_equal(changed.alpha, plain.alpha)
    np.testing.assert_array_equal(changed.trimap, plain.trimap)
    np.testing.assert_array_equal(changed.image, again.image)
    difference = np.abs(changed.image.astype(int) - plain.image)
    assert 1 < difference.mean() < 80  # noise that wrapped around would be far off


def test_colours_compose_to_the_picture(built: Path) -> None:
    """In the unknown region, image = αF + (1−α)B, flipped crops too."""
    for batch in taken(built, 4, crop=48, sizes=(48,)):
        assert batch.foreground is not None
        assert batch.background is not None
        alpha = batch.alpha / 255
        composed = alpha * batch.foreground + (1 - alpha) * batch.background
        inside = (batch.trimap == 128)[:, None].expand_as(composed)
        assert (composed - batch.image)[inside].abs().max() <= 0.51


def test_what_cannot_be_is_refused(built: Path, tmp_path: Path) -> None:
    """An empty split, missing backgrounds, crops far larger than the pictures, numbers that make no sense."""
    with pytest.raises(DatasetError, match="in the split 'test', only in train, validation"):
        open_stream(built, split="test")
    with pytest.raises(DatasetError, match=r"more than twice as large.*stream\.crop="):
        open_stream(built, crop=640)
    with pytest.raises(ValueError, match="positive"):
        open_stream(built, batch=0)
    bare = tmp_path / "bare"
    assert run(*Pictures.make(tmp_path / "pictures").arguments(bare)).code == 0
    with pytest.raises(DatasetError, match=r"shards\.background=unknown"):
        open_stream(bare, crop=64, colours=True)
    with pytest.raises(DatasetError, match=r"split\.validation"):
        open_stream(bare, crop=64, split="validation")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_breaks_is_named(built: Path, tmp_path: Path, workers: int) -> None:
    """A shard that turns unreadable while it is read is an error with its name, from a worker too."""
    copy = tmp_path / "copy"
    (copy / "shards").mkdir(parents=True)
    for path in built.rglob("*"):
        if path.is_file():
            (copy / path.relative_to(built)).write_bytes(path.read_bytes())
    for path in (copy / "shards").glob("*.h5"):
        data = bytearray(path.read_bytes())
        middle = slice(len(data) // 4, len(data) * 3 // 4)
        data[middle] = bytes(len(data[middle]))
        path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"shard-0000\d\.h5"):
        taken(copy, 8, workers=workers)


def test_a_dataset_remembers_no_other_shards_tiles(built: Path) -> None:
    """Readers that come and go share a memory, and every composite stays what it is."""
    remembering, plain = Dataset(built, remember=3_000_000), Dataset(built)
    for _ in range(2):
        for index in range(len(plain)):
            np.testing.assert_array_equal(remembering[index].image, plain[index].image)
            np.testing.assert_array_equal(remembering[index].trimap, plain[index].trimap)
        remembering.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_ends_and_the_next_one_follows(built: Path, workers: int) -> None:
    """Iterations of a stream of one epoch are the endless one, cut: nothing comes twice, and nothing is left out."""
    stream = open_stream(built, batch=3, crop=64, sizes=(64, 96), colours=True, epochs=1, workers=workers)
    count = len(stream)
    assert count == -(-stream.length // 3)
    first = list(stream)
    start = next(iter(stream))  # an iteration that is left is gone on with
    rest = list(stream)
    stream.close()
    assert [len(first), len(rest)] == [count, count - 1]
    assert all(map(same, [*first, start, *rest], taken(built, 2 * count)))
    with pytest.raises(TypeError, match="epochs=1"):
        len(open_stream(built, batch=3, crop=64))


def test_a_stream_is_put_back(built: Path) -> None:
    """A state saved in mid-epoch, loaded by a stream with other workers, gives what would have followed."""
    options = {"batch": 3, "crop": 64, "sizes": (64, 96), "colours": True, "epochs": 1}
    stream = open_stream(built, **options)  # type: ignore[arg-type]
    batches = iter(stream)
    for _ in range(3):
        next(batches)
    state = stream.state_dict()
    rest = list(batches)
    other = open_stream(built, workers=1, **options)  # type: ignore[arg-type]
    next(iter(other))
    other.load_state_dict(state)
    found = list(other)
    other.close()
    assert len(found) == len(rest) == len(stream) - 3
    assert all(map(same, found, rest))


def test_a_transform_is_done_where_crops_are_made(built: Path) -> None:
    """In place or by what it returns; the same with workers, since it draws from the sample's own generator."""
    plain = taken(built, 4, augment=STILL)
    bright = taken(built, 4, augment=STILL, transform=brighten)
    assert all(map(same, bright, taken(built, 4, augment=STILL, transform=brighten, workers=1)))
    assert all((b.image.int() - p.image).max() > 0 for b, p in zip(bright, plain, strict=True))
    turned = taken(built, 4, augment=STILL, transform=turn)
    for one, other in zip(turned, plain, strict=True):
        assert torch.equal(one.alpha, other.alpha.rot90(dims=(2, 3)))
        assert torch.equal(one.image, other.image.rot90(dims=(2, 3)))


@pytest.mark.parametrize("workers", [0, 2])
def test_crops_for_a_loader_of_ones_own(built: Path, workers: int) -> None:
    """A plain DataLoader has each sample once an epoch, with the stream's crops; another epoch has others."""
    crops = CropDataset(built, crop=64, sizes=(64, 96), colours=True)
    loader = DataLoader(crops, batch_size=3, num_workers=workers, persistent_workers=workers > 0)
    first = list(loader)
    stream = open_stream(built, batch=1, crop=64, sizes=(64, 96), colours=True, epochs=1)
    wanted = {int(batch.samples[0]): batch for batch in stream}
    samples = [int(sample) for batch in first for sample in batch["sample"]]
    assert sorted(samples) == sorted(wanted)
    for batch in first:
        for i, sample in enumerate(batch["sample"].tolist()):
            for name in ("image", "trimap", "alpha", "foreground", "background"):
                assert torch.equal(batch[name][i], getattr(wanted[sample], name)[0]), name
    crops.set_epoch(1)
    assert not all(torch.equal(a["image"], b["image"]) for a, b in zip(first, loader, strict=True))
    with pytest.raises(DatasetError, match="in the split 'test'"):
        CropDataset(built, split="test")


def test_shards_of_the_next_places_are_fetched_ahead(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of object storage each is asked for once, in the order in which it is needed; of a folder nothing is."""
    asked: queue.SimpleQueue[int] = queue.SimpleQueue()

    def fetch(_: Dataset, shard: int) -> Path:
        asked.put(shard)
        raise DatasetError("its reader will say so")

    datasets = [open_dataset(finished)]
    order = Order(datasets, (1,), "train", seed=1, open_shards=2)
    monkeypatch.setattr(Dataset, "fetch", fetch)
    FetchAhead(datasets, order).look(0)
    monkeypatch.setattr(fetch_ahead, "is_remote", lambda _: True)
    monkeypatch.setattr(fetch_ahead, "AT_ONCE", 1)
    ahead = FetchAhead(datasets, order)
    ahead.look(0)
    places = 2 * len(datasets[0]) // len(datasets[0].shards)
    needed = list(dict.fromkeys(datasets[0].locate(order[place].sample)[0] for place in range(places)))
    assert [asked.get(timeout=20) for _ in needed] == needed
    ahead.look(0)
    assert asked.empty()
    ahead.look(order.length)  # another epoch: what was thrown out of the cache meanwhile comes again
    assert asked.get(timeout=20) == datasets[0].locate(order[order.length].sample)[0]
