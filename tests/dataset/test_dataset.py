"""Datasets: what is read is what was composed, by our reader and by one written from the format's description."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import h5py
import hdf5plugin  # (registers Zstandard with HDF5, as another program would)
import numpy as np
import pytest
from PIL import Image

from conftest import Pictures, call, run, shard_bytes
from matting_compose.composer import Dataset, open_dataset
from matting_compose.composer.base.errors import DatasetError
from matting_compose.composer.dataset.reader import ShardReader

PACKINGS = ["delta", "solid", "plain", "webp", "jpeg"]


@pytest.fixture
def built(pictures: Pictures, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Build the small tree, with the packing that the test asks for, backgrounds stored whole."""
    out = tmp_path / "dataset"
    packing = getattr(request, "param", "delta")
    done = run(*pictures.arguments(out, "--set", f"shards.packing={packing}", "--set", "shards.tile=48",
                                   "--set", "shards.background=full", "-j", "1"))  # fmt: skip
    assert done.code == 0, done.err
    return out


@pytest.mark.parametrize("built", PACKINGS, indirect=True)
def test_composites_are_the_blend_of_their_parts(built: Path, pictures: Pictures) -> None:
    """Image, alpha, foreground, background and trimap agree with the files and with I = αF + (1−α)B."""
    dataset = open_dataset(built)
    assert len(dataset) == 20
    lossy = "jpeg" in json.loads((built / "dataset.json").read_text())["recipe"]["shards"]["packing"]
    keys = set()
    for sample in dataset:
        row = sample.row
        keys.add(row.key)
        source = np.asarray(Image.open(pictures.cutouts / f"{row.foreground}.png"))
        np.testing.assert_array_equal(sample.foreground, source[..., :3])
        np.testing.assert_array_equal(sample.alpha, source[..., 3])
        alpha = sample.alpha[..., None].astype(np.float64) / 255
        assert sample.background is not None
        photo = np.asarray(Image.open(pictures.photos / row.background))
        if row.scale == 1 and not lossy:
            cut = photo[row.offset_y :, row.offset_x :][: row.height, : row.width]
            np.testing.assert_array_equal(sample.background, cut)
        if not lossy:
            exact = np.rint(alpha * sample.foreground + (1 - alpha) * sample.background)
            np.testing.assert_array_equal(sample.image, exact.astype(np.uint8))
        assert set(np.unique(sample.trimap)) <= {0, 128, 255}
        assert (sample.trimap == 128).any()
        assert (sample.alpha[sample.trimap == 255] == 255).all()
        assert (sample.alpha[sample.trimap == 0] == 0).all()
    assert len(keys) == 20


@pytest.mark.parametrize("built", PACKINGS, indirect=True)
def test_windows_are_parts_of_the_whole(built: Path) -> None:
    """A window equals the same part of the whole composite, in every field."""
    dataset = open_dataset(built)
    rng = np.random.default_rng(0)
    for index in range(len(dataset)):
        whole = dataset[index]
        height, width = whole.alpha.shape
        h, w = int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1))
        y, x = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
        part = dataset.window(index, y, x, h, w)
        for name in ("image", "trimap", "alpha", "foreground", "background"):
            expected = getattr(whole, name)[y : y + h, x : x + w]
            np.testing.assert_array_equal(getattr(part, name), expected)
        assert part.row == whole.row
    with pytest.raises(ValueError, match="is not inside"):
        dataset.window(0, 0, 0, 10_000, 1)


@pytest.mark.parametrize("packing", ["delta", "solid", "plain", "webp"])
def test_tiles_in_which_a_mask_is_zero_need_no_pixels(pictures: Pictures, tmp_path: Path, packing: str) -> None:
    """Where it is not, the pixels are those that are read without it."""
    sets = ("--set", f"shards.packing={packing}", "--set", "shards.tile=32")
    assert call(*pictures.arguments(tmp_path / "d", *sets, "-j", "1", "--variants", "1")).code == 0
    for path in (tmp_path / "d" / "shards").glob("*.h5"):
        with ShardReader(path) as reader:
            for row in reader.rows:
                where = np.zeros((row.height, row.width), np.uint8)
                where[row.height // 2 :, row.width // 3 : row.width // 2] = 255
                some, every = reader.read_stored(row, "image", where), reader.read_stored(row, "image")
                np.testing.assert_array_equal(some[where > 0], every[where > 0])


@pytest.mark.parametrize("built", ["delta", "solid", "plain"], indirect=True)
def test_another_program_can_read_it(built: Path) -> None:
    """A reader of a dozen lines, written from docs/format.md with h5py alone, gets the same pixels."""
    dataset = open_dataset(built)
    expected = {sample.row.key: sample for sample in dataset}
    for path in sorted((built / "shards").glob("*.h5")):
        with h5py.File(path) as file:
            for row in file["samples"]:
                group = file[f"groups/{row['group']:05d}"]
                alpha, position = group["alpha"][()], row["position"]
                pictures = {}
                for name, stored in (("foreground", group["foreground"]), ("image", group["image"])):
                    pixels = stored[()] if name == "foreground" else stored[position]
                    if file.attrs["packing"] == "delta":
                        tile = stored.chunks[-2:]
                        for y in range(0, pixels.shape[1], tile[0]):
                            for x in range(0, pixels.shape[2], tile[1]):
                                part = pixels[:, y : y + tile[0], x : x + tile[1]]
                                part[...] = part.cumsum(1, np.uint8).cumsum(2, np.uint8)
                        green, red, blue = pixels
                        pixels = np.stack([red + green, green, blue + green], axis=-1)
                    pictures[name] = pixels
                if file.attrs["packing"] != "plain":
                    pictures["image"] |= pictures["foreground"] * (alpha == 255)[..., None]
                sample = expected.pop(row["key"].decode())
                np.testing.assert_array_equal(pictures["image"], sample.image)
                np.testing.assert_array_equal(pictures["foreground"], sample.foreground)
                np.testing.assert_array_equal(group["trimap"][position], sample.trimap)
                np.testing.assert_array_equal(alpha, sample.alpha)
    assert not expected


@pytest.mark.parametrize("built", ["delta", "plain"], indirect=True)
def test_early_files_have_no_table_of_tiles(built: Path) -> None:
    """Without the table HDF5 is asked, and says the same; a table that points out of the file is refused."""
    dataset = open_dataset(built)
    whole = list(dataset)
    dataset.close()
    for path in (built / "shards").glob("*.h5"):
        with h5py.File(path, "r+") as file:
            table = file["tiles"][()]
            del file["tiles"]
    for sample, early in zip(whole, dataset, strict=True):
        for name in ("image", "trimap", "alpha", "foreground", "background"):
            np.testing.assert_array_equal(getattr(early, name), getattr(sample, name))
    dataset.close()
    with h5py.File(path, "r+") as file:
        table[0] = path.stat().st_size + 1, 2**60
        file["tiles"] = table
    with pytest.raises(DatasetError, match=r"shard-\d+\.h5: damaged \(its table of tiles"):
        list(dataset)


def test_it_is_a_sequence(built: Path) -> None:
    """Length, negative indices, slices, iteration and the end."""
    dataset = open_dataset(built)
    assert dataset[-1].row == dataset[19].row == dataset.row(19)
    assert [s.row.key for s in dataset[3:5]] == [dataset.row(3).key, dataset.row(4).key]
    assert [row.key for row in dataset.rows()] == [sample.row.key for sample in dataset]
    with pytest.raises(IndexError):
        dataset[20]


def _sum(dataset: Dataset) -> int:
    return sum(int(sample.image.sum()) for sample in dataset)


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_processes_can_share_it(built: Path, method: str) -> None:
    """A dataset that is open here reads the same in spawned and forked children, and here afterwards."""
    dataset = open_dataset(built)
    here = _sum(dataset)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_sum, [dataset] * 4) == [here] * 4
    assert _sum(dataset) == here
    assert _sum(pickle.loads(pickle.dumps(dataset))) == here


def test_few_files_are_open_at_once(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many shards there are, the least recently used are closed."""
    monkeypatch.setattr("matting_compose.composer.dataset.dataset.OPEN_SHARDS", 2)
    dataset = open_dataset(built)
    assert len(dataset.shards) > 4
    for _ in dataset:
        assert _open_shards(built) <= 2
    dataset.close()
    assert _open_shards(built) == 0


def _open_shards(dataset: Path) -> int:
    """Count the dataset's shards that this process holds open (other tests' do not count)."""
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum(link.readlink().parent == (dataset / "shards").resolve() for link in links)


@pytest.mark.parametrize("built", ["delta", "solid", "webp"], indirect=True)
def test_damage_is_noticed_when_it_is_read(built: Path) -> None:
    """A byte changed within a tile is an error that names the shard and the composite."""
    dataset = open_dataset(built)
    path = built / "shards" / dataset.shards[0].file
    with h5py.File(path) as file:
        group = sorted(file["groups"])[0]
        chunk = file[f"groups/{group}/image"].id.get_chunk_info(0)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"shard-00000\.h5: composite .* is damaged"):
        list(open_dataset(built))


@pytest.mark.parametrize("side", [0, 3, 200_000_000])
def test_a_row_is_not_believed(built: Path, side: int) -> None:
    """Whatever size a forged table declares: an error, before there is memory for it."""
    dataset = open_dataset(built)
    with pytest.raises(DatasetError, match="is damaged"):
        dataset.reader(0).read(replace(dataset.row(0), height=side))


@pytest.mark.parametrize("damage", ["missing", "empty", "foreign", "truncated", "newer", "swapped"])
def test_shards_that_are_none_are_named(built: Path, damage: str) -> None:
    """A shard that is missing, empty, foreign, truncated, too new or of another dataset says so."""
    path = built / "shards" / "shard-00000.h5"
    whole = path.read_bytes()
    path.unlink()
    if damage == "empty":
        path.touch()
    elif damage == "foreign":
        h5py.File(path, "w").close()
    elif damage == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage in ("newer", "swapped"):
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            file.attrs["version" if damage == "newer" else "plan_sha256"] = 99 if damage == "newer" else "0" * 64
    with pytest.raises(DatasetError, match=r"shard-00000\.h5"):
        open_dataset(built)[0]


def test_folders_that_are_none_are_explained(built: Path, tmp_path: Path) -> None:
    """No folder, no dataset, an unfinished one, a foreign index, a newer one."""
    with pytest.raises(DatasetError, match="found nothing"):
        open_dataset(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no dataset"):
        open_dataset(tmp_path / "empty")
    index = built / "dataset.json"
    document = json.loads(index.read_text())
    for text, message in (("{", "cannot be read"), ("{}", "not a dataset's index")):
        index.write_text(text)
        with pytest.raises(DatasetError, match=message):
            open_dataset(built)
    index.write_text(json.dumps({**document, "version": 99}))
    with pytest.raises(DatasetError, match="version 99"):
        open_dataset(built)
    index.unlink()
    with pytest.raises(DatasetError, match="unfinished"):
        open_dataset(built)


@pytest.mark.parametrize("name", ["../../secret.h5", "/etc/passwd", "shards/shard-00000.h5", "other.h5"])
def test_an_index_cannot_point_elsewhere(built: Path, name: str) -> None:
    """A shard lies in the dataset's own folder, whatever its index says."""
    document = json.loads((built / "dataset.json").read_text())
    document["shards"][0]["file"] = name
    (built / "dataset.json").write_text(json.dumps(document))
    with pytest.raises(DatasetError, match="is no shard's name"):
        open_dataset(built)


def test_the_contact_sheet_is_a_picture(built: Path) -> None:
    """It opens, and is not blank."""
    sheet = cv2.imread(str(built / "contact-sheet.jpg"), cv2.IMREAD_COLOR)
    assert sheet is not None
    assert sheet.std() > 20


def test_bytes_do_not_depend_on_plugins(pictures: Pictures, tmp_path: Path) -> None:
    """HDF5 writes a filter's name into a file where it knows one: whether a program has loaded it changes no byte."""
    assert run(*pictures.arguments(tmp_path / "without", "-j", "1")).code == 0
    hdf5plugin.register(force=True)
    assert h5py.h5z.filter_avail(32015)
    assert call(*pictures.arguments(tmp_path / "with", "-j", "1")).code == 0
    assert shard_bytes(tmp_path / "with") == shard_bytes(tmp_path / "without")
    assert h5py.h5z.filter_avail(32015)  # and it is there as before


def test_reading_takes_nothing_that_makes_datasets(finished: Path) -> None:
    """Opening and reading imports the format and the base alone, and leaves the process as it was."""
    code = (
        "import sys, cv2\n"
        "before = cv2.getNumThreads()\n"
        "from matting_compose.composer import open_dataset\n"
        "dataset = open_dataset(sys.argv[1])\n"
        "dataset[0], dataset.window(1, 0, 0, 8, 8), dataset.numbers('train'), dataset.missing_shards()\n"
        "assert cv2.getNumThreads() == before\n"
        "print(*(name for name in sys.modules if name.startswith('matting_compose.composer.')))\n"
        "print(*{'PIL', 'joblib', 'torch', 'jinja2', 'tomllib', 'click', 'filelock'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", code, str(finished)]
    ours, others = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert {name.split(".")[2] for name in ours.split()} == {"base", "dataset"}
    assert not others


def test_a_dataset_answers_for_its_documents(finished: Path, copied: Path) -> None:
    """Splits, numbers, rows, masks, failures and settings, as the index and the tables have them."""
    dataset = open_dataset(finished)
    document = json.loads((finished / "dataset.json").read_text())
    assert (dataset.plan_sha256, dataset.recipe) == (document["plan_sha256"], document["recipe"])
    assert (dataset.background, dataset.settings.shards.packing, dataset.failures) == ("full", "delta", [])
    rows = dict(dataset.read_rows(dataset.numbers()))
    assert list(rows.values()) == list(dataset.rows())
    assert dataset.splits == ("train", "validation")
    expected = {split: [n for n, row in rows.items() if (row.foreground == "disc 1") == (split == "validation")]
                for split in dataset.splits}  # fmt: skip
    for split, numbers in expected.items():
        assert dataset.numbers(split).tolist() == numbers == [n for part in dataset.ranges(split) for n in part]
        assert {dataset.shard_of(number).split for number in numbers} == {split}
    assert dataset.numbers().tolist() == list(rows)
    np.testing.assert_array_equal(dataset.read_mask(3, "trimap"), dataset[3].trimap)
    np.testing.assert_array_equal(dataset.read_mask(-1, "alpha"), dataset[-1].alpha)
    damaged = open_dataset(copied)
    (copied / "shards" / "shard-00000.h5").unlink()
    assert damaged.missing_shards() == ("shard-00000.h5",)
    there = [number for numbers, _ in damaged.read_tables(damaged.missing_shards()) for number in numbers]
    assert there == list(range(damaged.shards[0].composites, 20))
    some = np.array([damaged.shards[0].composites, 19])
    assert dict(damaged.read_rows(some)) == {number: rows[number] for number in some.tolist()}
