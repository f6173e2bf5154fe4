"""Verification: whatever is wrong with a dataset is found, named, and can be mended."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from conftest import Pictures, call
from matting_compose.composer import open_dataset
from matting_compose.composer.dataset.documents import Settings
from matting_compose.composer.dataset.reader import ShardReader
from matting_compose.composer.dataset.rows import Parts
from matting_compose.composer.inspection.verify import VerifyResult, move_aside, verify
from matting_compose.composer.inspection.verify_shard import Judge


def find_fault(parts: Parts, recipe: dict[str, Any]) -> str:
    judge = Judge(parts.alpha, parts.foreground, Settings.model_validate(recipe))
    return judge.find_fault(parts.image, parts.trimap, parts.background, judge.compared(parts.trimap))


def causes(verdict: VerifyResult) -> set[tuple[str, str]]:
    return {(problem.file, problem.cause) for problem in verdict.problems}


def reseal(folder: Path) -> None:
    """Make all hashes agree with what is there: what is then found, is found by looking."""
    index = json.loads((folder / "dataset.json").read_text())
    for shard in index["shards"]:
        path = folder / "shards" / shard["file"]
        shard["sha256"], shard["bytes"] = hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size
        sidecar = json.loads(path.with_suffix(".json").read_text())
        path.with_suffix(".json").write_text(json.dumps({**sidecar, **shard}))
    index["bytes"] = sum(shard["bytes"] for shard in index["shards"])
    (folder / "dataset.json").write_text(json.dumps(index))
    (folder / "SHA256SUMS").unlink()


def test_a_good_dataset_is_well(finished: Path) -> None:
    """Nothing wrong, nothing unproved, exit code 0; `sha256sum` agrees."""
    verdict = verify(finished, jobs=1)
    assert (verdict.problems, verdict.notes, verdict.composites) == ((), (), 20)
    done = call("inspect", str(finished), "--verify", "-j", "2")
    assert done.code == 0
    assert "all is well" in done.out
    checked = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=finished, capture_output=True, check=False)
    assert checked.returncode == 0
    listed = (finished / "SHA256SUMS").read_text().count("\n")
    assert listed == len([path for path in finished.rglob("*") if path.is_file()]) - 2  # itself, and the lock


def test_every_flipped_bit_is_found(copied: Path) -> None:
    """Single bits, anywhere in any file."""
    rng = np.random.default_rng(7)
    files = sorted(path for path in copied.rglob("*") if path.is_file() and path.name != ".lock")
    for path in [file for file in files if file.suffix != ".h5"] * 2 + files:
        whole = path.read_bytes()
        data = bytearray(whole)
        place = int(rng.integers(len(data)))
        data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        verdict = verify(copied, jobs=1)
        assert verdict.problems, f"{path.name}, byte {place}"
        name = path.relative_to(copied).as_posix()
        assert {"SHA256SUMS", name} & {problem.file for problem in verdict.problems} or path.name == "SHA256SUMS"
        path.write_bytes(whole)
    assert not verify(copied, jobs=1).problems


def test_a_bit_that_only_a_digest_tells_is_found(pictures: Pictures, tmp_path: Path) -> None:
    """A level of a mixed pixel, where a packing has no checksums and no background is there to blend."""
    arguments = pictures.arguments(tmp_path / "d", "-j", "1", "--variants", "1", "--set", "shards.packing=plain")
    assert call(*arguments).code == 0
    dataset = open_dataset(tmp_path / "d")
    sample, path = dataset[0], tmp_path / "d" / "shards" / dataset.shards[0].file
    with h5py.File(path) as file:
        array = file[f"groups/{sample.row.group:05d}/image"]
        height, width = array.chunks[1:3]
        start = array.id.get_chunk_info(0).byte_offset
    y, x = np.argwhere((sample.alpha % 255 > 0)[:height, :width])[0]
    data = bytearray(path.read_bytes())
    data[start + 3 * int(y * width + x)] ^= 1
    path.write_bytes(data)
    (problem,) = verify(tmp_path / "d", jobs=1).problems
    assert (problem.file, problem.cause) == (f"shards/{path.name}", "changed")
    assert "every composite still decodes" in problem.detail


def test_a_damaged_tile_names_its_composite(copied: Path) -> None:
    """The shard and the composite are named; with `--repair` the shard is moved aside, and only that."""
    path = copied / "shards" / "shard-00000.h5"
    with h5py.File(path) as file:
        row = file["samples"][0]
        chunk = file[f"groups/{row['group']:05d}/image"].id.get_chunk_info(0)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 0x10
    path.write_bytes(data)
    done = call("inspect", str(copied), "--verify", "--repair", "-j", "1")
    assert done.code == 1
    assert "shards/shard-00000.h5: changed" in done.out
    assert f"damaged-composite: composite {row['key'].decode()}" in done.out
    assert "Run the same build again" in done.out
    assert {item.name for item in (copied / "damaged").iterdir()} == {"shard-00000.h5", "shard-00000.json"}


@pytest.mark.parametrize("packing", ["delta", "solid", "webp", "jpeg"])
def test_tiles_that_nothing_is_compared_with_are_proved(pictures: Pictures, tmp_path: Path, packing: str) -> None:
    """Without a background nothing tells what an image should be; one of its tiles is damaged, and it is named."""
    out = tmp_path / "d"
    sets = ("--set", f"shards.packing={packing}", "--set", "shards.tile=64")
    assert call(*pictures.arguments(out, *sets, "-j", "1", "--variants", "2")).code == 0
    damaged = []
    for path in (out / "shards").glob("*.h5"):
        data = bytearray(path.read_bytes())
        with ShardReader(path) as reader:
            for number, row in enumerate(reader.rows):
                tiles = reader.arrays(row.group)["image"].tiles[row.position].reshape(-1, 2).tolist()
                offset, size = tiles[-number % len(tiles)]
                data[offset : offset + size] = bytes(size)
                damaged.append(row.key)
        path.write_bytes(data)
    found = [problem.composite for problem in verify(out, jobs=1).problems if problem.cause == "damaged-composite"]
    assert sorted(found) == sorted(damaged)  # type: ignore[type-var]


def test_a_build_mends_what_was_moved_aside(tmp_path: Path) -> None:
    """Two bad shards, a bad index and a bad contact sheet: the same build makes them anew, byte for byte."""
    pictures = Pictures.make(tmp_path / "pictures")
    out = tmp_path / "d"
    arguments = pictures.arguments(out, "-j", "1", "--set", "shards.megabytes=1")
    assert call(*arguments).code == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for name in ("shards/shard-00000.h5", "shards/shard-00001.json", "dataset.json", "contact-sheet.jpg"):
        data = bytearray((out / name).read_bytes())
        data[len(data) // 2] ^= 2
        (out / name).write_bytes(data)
    done = call("inspect", str(out), "--verify", "--repair", "-j", "1", "--json")
    assert done.code == 1
    assert done.json["moved"] == ["shard-00000.h5", "shard-00001.h5"]
    assert call(*arguments).code == 0
    assert call("inspect", str(out), "--verify", "-j", "1").code == 0
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("damage", ["missing", "truncated", "foreign", "swapped", "copied"])
def test_shards_that_are_none_are_named(copied: Path, pictures: Pictures, damage: str) -> None:
    """A shard that is missing, truncated, no HDF5, another dataset's, or another of the same dataset."""
    shards = copied / "shards"
    path = shards / "shard-00002.h5"
    whole = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "foreign":
        path.write_bytes(b"GIF89a")
    elif damage == "swapped":
        other = copied.parent / "other"
        assert call(*pictures.arguments(other, "-j", "1", "--set", "seed=5")).code == 0
        shutil.copy(other / "shards" / path.name, path)
        shutil.copy(other / "shards" / "shard-00002.json", path.with_suffix(".json"))
    elif damage == "copied":
        shutil.copy(shards / "shard-00000.h5", path)
    verdict = verify(copied, jobs=1)
    found = {cause for file, cause in causes(verdict) if file == "shards/shard-00002.h5"}
    expected = {
        "missing": {"missing", "missing-composite"},
        "truncated": {"changed", "unreadable"},
        "foreign": {"changed", "unreadable"},
        "swapped": {"changed", "foreign"},
        "copied": {"changed", "disagrees", "unplanned-composite"},
    }
    assert expected[damage] - {"missing-composite"} <= found
    if damage == "copied":
        assert "duplicate-key" in {cause for _, cause in causes(verdict)}
        (copied / "plan.json").unlink()
        without = verify(copied, jobs=1).problems
        twice = [problem.composite for problem in without if problem.cause == "duplicate-key"]
        with ShardReader(path) as reader:
            assert sorted(twice) == sorted(row.key for row in reader.rows)


def change_table(path: Path, change: Any) -> None:
    with h5py.File(path, "r+") as file:
        table = file["samples"][()]
        kind = file["samples"].dtype
        table = change(table)
        del file["samples"]
        file.create_dataset("samples", data=table, dtype=kind)
        file.attrs["composites"] = len(table)


def test_hashes_that_agree_do_not_hide_a_wrong_table(copied: Path) -> None:
    """A row too few, a row twice, another background: found although all digests fit."""

    def fewer(table: Any) -> Any:
        return table[1:]

    def twice(table: Any) -> Any:
        return np.concatenate([table, table[:1]])

    def another(table: Any) -> Any:
        table["background"][0] = b"COCO_other.jpg"
        return table

    for number, change in enumerate((fewer, twice, another)):
        change_table(copied / "shards" / f"shard-{number:05d}.h5", change)
    reseal(copied)
    verdict = verify(copied, jobs=1)
    found = causes(verdict)
    assert ("shards/shard-00000.h5", "missing-composite") in found
    assert ("shards/shard-00001.h5", "duplicate-key") in found
    assert ("shards/shard-00002.h5", "disagrees") in found
    assert any("SHA256SUMS" in note for note in verdict.notes)


def test_pixels_that_do_not_agree_are_found(finished: Path) -> None:
    """Each rule of a composite alone: levels, unknown region, clear, opaque, blend."""
    sample = open_dataset(finished)[0]
    recipe = json.loads((finished / "dataset.json").read_text())["recipe"]
    recipe["shards"]["packing"] = "plain"  # one whose images hold opaque pixels
    good = Parts(sample.image, sample.trimap, sample.alpha, sample.foreground, sample.background)
    assert find_fault(good, recipe) == ""
    clear = tuple(np.argwhere((sample.alpha > 0) & (sample.trimap == 128))[0])
    opaque = tuple(np.argwhere((sample.alpha < 255) & (sample.trimap == 128))[0])
    solid = tuple(np.argwhere(sample.alpha == 255)[0])
    for name, place, value, message in (
        ("trimap", clear, 127, "127"),
        ("trimap", ..., 0, "no unknown region"),
        ("trimap", clear, 0, "1 px where alpha is not clear"),
        ("trimap", opaque, 255, "1 px where alpha is not opaque"),
        ("image", clear, sample.image[clear] ^ 1, "not the blend of its parts at 1 px"),
        ("image", solid, sample.image[solid] ^ 1, "not the blend of its parts at 1 px"),
        ("background", opaque, sample.background[opaque] ^ 128, "not the blend"),  # type: ignore[index]
    ):
        changed = getattr(good, name).copy()
        changed[place] = value
        assert message in find_fault(good._replace(**{name: changed}), recipe)


def test_thresholds_are_the_recipes(finished: Path) -> None:
    """With alphas that were JPEG, 250 counts as opaque and 5 as clear."""
    recipe = json.loads((finished / "dataset.json").read_text())["recipe"]
    alpha = np.array([[5, 100, 250]], np.uint8)
    picture = np.zeros((1, 3, 3), np.uint8)
    parts = Parts(picture, np.array([[0, 128, 255]], np.uint8), alpha, picture, None)
    assert "not clear" in find_fault(parts, recipe)
    recipe["trimap"] |= {"opaque": 250, "clear": 5}
    assert find_fault(parts, recipe) == ""


@pytest.mark.parametrize("packing", ["solid", "plain", "webp", "jpeg"])
def test_every_packing_can_be_verified(pictures: Pictures, tmp_path: Path, packing: str) -> None:
    """What was built is well; backgrounds that are stored in the unknown region only are compared there."""
    out = tmp_path / "d"
    sets = ("--set", f"shards.packing={packing}", "--set", "shards.background=unknown")
    assert call(*pictures.arguments(out, *sets, "-j", "1", "--variants", "2")).code == 0
    assert verify(out, jobs=1).problems == ()


def test_failures_are_no_damage(pictures: Pictures, tmp_path: Path) -> None:
    """A composite that was never made is a note; one that is neither made nor listed is wrong."""
    (pictures.cutouts / "disc 0.png").write_bytes(b"")
    out = tmp_path / "d"
    assert call(*pictures.arguments(out, "-j", "1")).code == 3
    verdict = verify(out, jobs=1)
    assert verdict.problems == ()
    assert "4 composites were never made" in verdict.notes[0]


def test_a_folder_that_is_being_built_is_left_alone(copied: Path) -> None:
    """`--repair` waits for nobody and moves nothing while a build holds the folder."""
    from matting_compose.composer.base.errors import BuildError
    from matting_compose.composer.building.shares import WHOLE_BUILD, lock_share
    from matting_compose.composer.inspection.verify import move_aside

    (copied / "shards" / "shard-00000.h5").write_bytes(b"")
    verdict = verify(copied, jobs=1)
    with lock_share(copied, WHOLE_BUILD), pytest.raises(BuildError, match="another build is running"):
        move_aside(copied, verdict)
    assert (copied / "shards" / "shard-00000.h5").exists()


def test_a_lock_is_no_damage(copied: Path) -> None:
    """A shard that another program has locked is told as that, and stays where it is."""
    shard = sorted((copied / "shards").glob("*.h5"))[0]
    with shard.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        call("inspect", str(copied), "--verify", "--repair")
    assert shard.exists()
    assert verify(copied, jobs=1).problems == ()


def test_a_shard_whose_digest_is_right_stays(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What hinders opening it is told; it is not moved aside."""

    def refuse(path: Path) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("matting_compose.composer.inspection.verify_shard.ShardReader", refuse)
    result = verify(copied, jobs=1)
    assert {problem.cause for problem in result.problems if problem.file.startswith("shards/")} == {"not-opened"}
    assert move_aside(copied, result).moved == ()


def test_repair_needs_verify(copied: Path) -> None:
    """The option alone is wrong usage."""
    assert call("inspect", str(copied), "--repair").code == 2
