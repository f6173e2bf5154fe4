"""Builds: the same bytes whatever happens, nothing lost, nothing silently dropped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest

from conftest import COMMAND, Pictures, call, photograph, run, save, shard_bytes, soft_disc
from matting_compose.composer import build, load_recipe, open_dataset
from matting_compose.composer.base.errors import BuildError
from matting_compose.composer.building import background_reader, plan, resume
from matting_compose.composer.building.inputs import Ledger
from matting_compose.composer.building.make_plan import make_plan
from matting_compose.composer.building.shares import WHOLE_BUILD, lock_share
from matting_compose.composer.dataset.documents import InputRecord
from matting_compose.composer.sources import backgrounds

# Drawn pictures, so that a build lasts some seconds and can be stopped in the middle.
SLOW = ["build", "demo", "--variants", "12", "--set", "foregrounds.count=16", "--set", "shards.variants=6"]
SLOW += ["--set", "foregrounds.sides=[200,280]", "--set", "backgrounds.sides=[240,320]"]


def start(out: Path, *more: str) -> subprocess.Popen[bytes]:
    """Start a slow build in a process group of its own."""
    command = [str(COMMAND), *SLOW, "--out", str(out), *more]
    with out.with_suffix(".log").open("wb") as log:  # not a pipe: an orphan would hold it open
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True)


def wait_for_sidecars(build: subprocess.Popen[bytes], out: Path, count: int) -> None:
    """Wait until some shards are finished."""
    deadline = time.monotonic() + 120
    while len(list((out / "shards").glob("shard-*.json"))) < count:
        assert time.monotonic() < deadline
        assert build.poll() is None, "the build ended too early"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Build the slow dataset in peace."""
    out = tmp_path_factory.mktemp("untouched") / "d"
    assert run(*SLOW, "--out", str(out), "-j", "1").code == 0
    return shard_bytes(out)


def test_bytes_do_not_depend_on_workers_or_places(pictures: Pictures, tmp_path: Path) -> None:
    """One worker or three, from here or from elsewhere: the same shards and sidecars, byte for byte."""
    assert run(*pictures.arguments(tmp_path / "a", "-j", "1")).code == 0
    assert run(*pictures.arguments(tmp_path / "b", "-j", "3"), cwd=pictures.root).code == 0
    relative = ["--foregrounds", "cutouts", "--backgrounds", "photos", "--out", "../c"]
    assert run("build", *relative, "--variants", "4", "--set", "shards.variants=2", cwd=pictures.root).code == 0
    first = shard_bytes(tmp_path / "a")
    assert len(first) > 8
    assert shard_bytes(tmp_path / "b") == first
    assert shard_bytes(tmp_path / "c") == first


@pytest.mark.parametrize("who", ["everything", "the parent", "a worker"])
def test_a_killed_build_goes_on(untouched: dict[str, bytes], tmp_path: Path, who: str) -> None:
    """kill -9, then the same command: what was finished is kept, and the bytes are those of a build in peace."""
    out = tmp_path / "d"
    build = start(out, "-j", "2")
    wait_for_sidecars(build, out, 2)
    if who == "everything":
        os.killpg(build.pid, signal.SIGKILL)
    elif who == "the parent":
        build.kill()
    else:
        children = Path(f"/proc/{build.pid}/task/{build.pid}/children").read_text().split()
        workers = [pid for pid in children if "LokyProcess" in Path(f"/proc/{pid}/cmdline").read_text()]
        os.kill(int(workers[0]), signal.SIGKILL)
    build.wait(timeout=60)
    if who == "a worker":
        assert build.returncode == 1
        assert "a worker process was killed" in out.with_suffix(".log").read_text()
    assert not (out / "dataset.json").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in (out / "shards").glob("shard-*.json")}
    again = run(*SLOW, "--out", str(out), "-j", "2", "--json")
    assert again.code == 0, again.err
    assert again.json["composites"] == 192
    assert again.json["rendered"] < 192
    assert all((out / "shards" / name).stat().st_mtime_ns == time for name, time in kept.items())
    assert shard_bytes(out) == untouched
    assert not list(out.rglob("*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_says_how_to_go_on(untouched: dict[str, bytes], tmp_path: Path, number: int) -> None:
    """Ctrl-C and SIGTERM end it with 130 and a sentence, without a traceback and without remains."""
    out = tmp_path / "d"
    build = start(out, "-j", "2")
    wait_for_sidecars(build, out, 1)
    os.killpg(build.pid, number) if number == signal.SIGINT else build.send_signal(number)
    build.wait(timeout=60)
    err = out.with_suffix(".log").read_text()
    assert build.returncode == 130
    assert "run the same command again" in err
    assert "Traceback" not in err
    assert not list(out.rglob("*.tmp"))
    assert run(*SLOW, "--out", str(out)).code == 0
    assert shard_bytes(out) == untouched


def test_a_finished_build_does_nothing_again(pictures: Pictures, tmp_path: Path) -> None:
    """The same command on a finished dataset renders nothing and succeeds; other programs' files stay."""
    arguments = pictures.arguments(tmp_path / "d", "--json")
    assert run(*arguments).json["rendered"] == 20
    others = tmp_path / "d" / ".syncthing.dataset.json.tmp", tmp_path / "d" / "shards" / ".shard-00000.h5.tmp"
    for other in others:
        other.write_bytes(b"another program's")
    again = run(*arguments)
    assert (again.code, again.json["rendered"], again.json["composites"]) == (0, 0, 20)
    assert all(other.exists() for other in others)


def test_a_lost_shard_is_rendered_again(pictures: Pictures, tmp_path: Path) -> None:
    """Deleted or cut off behind our back: the next run notices and restores it."""
    arguments = pictures.arguments(tmp_path / "d", "--json")
    assert run(*arguments).code == 0
    before = shard_bytes(tmp_path / "d")
    (tmp_path / "d" / "shards" / "shard-00001.h5").unlink()
    cut = tmp_path / "d" / "shards" / "shard-00002.h5"
    cut.write_bytes(cut.read_bytes()[:-100])
    again = run(*arguments)
    assert 0 < again.json["rendered"] < 20
    assert shard_bytes(tmp_path / "d") == before


@pytest.mark.parametrize(
    ("more", "difference"),
    [
        (["--set", "trimap.dilate=[1,30]"], "recipe.trimap.dilate[1] was 20.0, now it is 30.0"),
        (["--set", "seed=1"], "recipe.seed was 431, now it is 1"),
        (["--set", "shards.packing=solid"], 'recipe.shards.packing was "delta", now it is "solid"'),
    ],
)
def test_another_recipe_is_refused(pictures: Pictures, tmp_path: Path, more: list[str], difference: str) -> None:
    """A folder is never mixed from two plans; the first difference is named."""
    assert run(*pictures.arguments(tmp_path / "d")).code == 0
    before = shard_bytes(tmp_path / "d")
    refused = run(*pictures.arguments(tmp_path / "d", *more))
    assert refused.code == 1
    assert difference in refused.err
    assert shard_bytes(tmp_path / "d") == before


def test_other_inputs_are_refused(pictures: Pictures, tmp_path: Path) -> None:
    """A new picture, a renamed one and a changed one are noticed and named."""
    arguments = pictures.arguments(tmp_path / "d")
    assert run(*arguments).code == 0
    extra = pictures.photos / "extra.jpg"
    save(extra, photograph(90, 90, 1))
    assert "backgrounds had 7 entries, now 8" in run(*arguments).err
    extra.unlink()
    save(pictures.photos / "COCO_000000000003.jpg", photograph(333, 250, 9))
    changed = run(*arguments)
    assert changed.code == 1
    assert "background COCO_000000000003.jpg has changed since shard-" in changed.err


def test_a_picture_changed_between_two_shards_is_noticed(pictures: Pictures, tmp_path: Path) -> None:
    """Of the same size and under the same name, but with other pixels: no dataset is made of both."""
    arguments = pictures.arguments(tmp_path / "d")
    assert run(*arguments).code == 0
    photo = pictures.photos / "COCO_000000000003.jpg"
    changed = bytearray(photo.read_bytes())
    changed[-20] ^= 1
    photo.write_bytes(changed)
    for path in sorted((tmp_path / "d" / "shards").glob("shard-*"))[:10]:
        path.unlink()
    mixed = run(*arguments)
    assert mixed.code == 1
    assert "background COCO_000000000003.jpg was changed while the dataset was built" in mixed.err


def test_few_backgrounds_are_decoded_once(pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all fit, and for one build, whatever its shards; the bytes are the same."""
    read: list[str] = []
    load = backgrounds.Photographs.load
    monkeypatch.setattr(backgrounds.Photographs, "load", lambda layout, name: read.append(name) or load(layout, name))

    def built(name: str, most: int, *more: str) -> dict[str, int]:
        monkeypatch.setattr(background_reader, "MOST_BYTES", most)
        read.clear()
        assert call(*pictures.arguments(tmp_path / name, "-j", "1", *more)).code == 0
        return Counter(read)

    pixels = sum(cv2.imread(str(path)).size for path in pictures.photos.iterdir())
    assert set(built("kept", pixels).values()) == {1}
    assert set(built("kept too", pixels).values()) == {1}
    assert min(built("none", pixels - 1).values()) > 1
    assert set(built("reduced", pixels // 2, "--set=backgrounds.max_side=120").values()) == {1}
    assert shard_bytes(tmp_path / "kept") == shard_bytes(tmp_path / "none")


def test_bad_pictures_are_counted_listed_and_mended(pictures: Pictures, tmp_path: Path) -> None:
    """One bad background and two bad foregrounds cost their own composites, and no others.

    After repair the same command renders what is missing, and the bytes are those of a build that never failed.
    """
    assert run(*pictures.arguments(tmp_path / "clean")).code == 0
    broken = [pictures.photos / "COCO_000000000002.jpg"]
    broken += [pictures.cutouts / "disc 1.png", pictures.cutouts / "disc 3.png"]
    whole = [path.read_bytes() for path in broken]
    broken[0].write_bytes(whole[0][:900])
    broken[1].write_bytes(b"")
    broken[2].write_bytes(b"not a picture")
    arguments = pictures.arguments(tmp_path / "d", "--json")
    first = run(*arguments)
    assert first.code == 3
    assert first.json["composites"] + first.json["failures"] == 20
    index = json.loads((tmp_path / "d" / "dataset.json").read_text())
    causes = {(failure["source"], failure["cause"]) for failure in index["failures"]}
    assert causes == {("COCO_000000000002.jpg", "truncated"), ("disc 1.png", "empty"), ("disc 3.png", "not-an-image")}
    for name in ("COCO_000000000002.jpg", "disc 1.png", "disc 3.png"):
        assert name in first.err
    assert len(open_dataset(tmp_path / "d")) == first.json["composites"]
    assert sum(1 for _ in open_dataset(tmp_path / "d")) == first.json["composites"]

    unchanged = run(*arguments)
    assert (unchanged.code, unchanged.json["rendered"]) == (3, 0)

    broken[0].write_bytes(whole[0])
    partly = run(*arguments)
    assert partly.code == 3
    assert partly.json["rendered"] == partly.json["composites"] - first.json["composites"] > 0
    for path, content in zip(broken[1:], whole[1:], strict=True):
        path.write_bytes(content)
    last = run(*arguments)
    assert (last.code, last.json["composites"], last.json["failures"]) == (0, 20, 0)
    assert last.json["rendered"] == 20 - partly.json["composites"]
    assert shard_bytes(tmp_path / "d") == shard_bytes(tmp_path / "clean")


def test_mending_signs_no_rot(pictures: Pictures, tmp_path: Path) -> None:
    """A pixel that changed on the disk, unnoticed by a packing without checksums, is not copied: it is made anew."""
    arguments = ("-j", "1", "--set", "shards.packing=plain", "--set", "shards.variants=4")
    assert call(*pictures.arguments(tmp_path / "clean", *arguments)).code == 0
    broken = pictures.photos / "COCO_000000000002.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(b"")
    assert call(*pictures.arguments(tmp_path / "d", *arguments)).code == 3
    shards = [path.with_suffix("") for path in (tmp_path / "d" / "shards").glob("*.json")]
    lacking = [path for path in shards if json.loads(path.with_suffix(".json").read_text())["failures"]]
    for path in lacking:
        with h5py.File(path.with_suffix(".h5")) as file:
            group = file[f"groups/{file['samples'][0]['group']:05d}"]
            offset = group["image"].id.get_chunk_info(0).byte_offset
        with path.with_suffix(".h5").open("r+b") as raw:
            raw.seek(offset + 100)
            raw.write(b"rot")
    broken.write_bytes(whole)
    assert call(*pictures.arguments(tmp_path / "d", *arguments)).code == 0
    clean, mended = shard_bytes(tmp_path / "clean"), shard_bytes(tmp_path / "d")
    names = [f"{path.name}{ending}" for path in lacking for ending in (".h5", ".json")]
    assert names
    assert {name: mended[name] for name in names} == {name: clean[name] for name in names}


def test_an_empty_unknown_region_is_a_failure(pictures: Pictures, tmp_path: Path) -> None:
    """A composite that training could not use is left out, by name and cause."""
    save(pictures.cutouts / "void.png", np.zeros((60, 60, 4), np.uint8))
    done = run(*pictures.arguments(tmp_path / "d", "--json"))
    assert (done.code, done.json["failures"]) == (3, 4)
    assert "no-unknown: void.png" in done.err


def test_pairs_without_an_alpha_fail_by_name(tmp_path: Path) -> None:
    """Of three pictures one has no alpha: it is listed, the others are built."""
    for i in range(3):
        foreground, alpha = soft_disc(60, 70, i)
        save(tmp_path / "fg" / f"{i}.jpg", foreground)
        if i != 1:
            save(tmp_path / "alpha" / f"{i}.png", alpha)
    save(tmp_path / "bg" / "a.jpg", photograph(80, 90, 1))
    done = run("build", "--foregrounds", "fg", "--alphas", "alpha", "--backgrounds", "bg", "--variants", "2",
               "--out", "d", "--json", cwd=tmp_path)  # fmt: skip
    assert (done.code, done.json["composites"], done.json["failures"]) == (3, 4, 2)
    assert "no-alpha: 1.jpg" in done.err


def test_one_build_at_a_time(pictures: Pictures, tmp_path: Path) -> None:
    """A second build in the folder is refused; a lock that was left behind is not in the way."""
    out = tmp_path / "d"
    out.mkdir()
    with lock_share(out, WHOLE_BUILD):
        second = run(*pictures.arguments(out))
        assert second.code == 1
        assert "another build is running" in second.err
    assert run(*pictures.arguments(out)).code == 0


def test_foreign_folders_are_left_alone(pictures: Pictures, tmp_path: Path) -> None:
    """A folder with other things in it is not built into."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.txt").write_text("precious")
    refused = run(*pictures.arguments(tmp_path / "d"))
    assert refused.code == 1
    assert "not empty" in refused.err
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["thesis.txt"]


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """No room: a clear message, no half-made shard under a final name; with room again it goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        full = run(*SLOW, "--out", str(disk / "d"), "-j", "2")
        assert full.code == 1
        assert "the disk is full" in full.err
        assert "Traceback" not in full.err
        for path in (disk / "d" / "shards").glob("shard-*.h5"):
            with h5py.File(path) as file:
                assert file.attrs["complete"]
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        assert run(*SLOW, "--out", str(disk / "d")).code == 0
        assert len(open_dataset(disk / "d")) == 192
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_split_is_in_the_shards(tmp_path: Path) -> None:
    """Validation foregrounds have shards of their own, named in the index."""
    out = tmp_path / "d"
    assert run(*SLOW, "--out", str(out), "--set", "split.validation=0.25").code == 0
    dataset = open_dataset(out)
    sides: dict[str, set[str]] = {"train": set(), "validation": set()}
    for number, shard in enumerate(dataset.shards):
        sides[shard.split] |= {row.foreground for row in dataset.reader(number).rows}
    assert len(sides["validation"]) == 4
    assert not sides["train"] & sides["validation"]


def test_a_change_of_equal_size_is_noticed(pictures: Pictures, tmp_path: Path) -> None:
    """A finished dataset whose picture was painted over, in as many bytes: the same command does not say that all is
    well; a picture that is merely written again is no change.
    """
    photo = pictures.photos / "bitmap.bmp"
    save(photo, photograph(120, 160, 3))
    arguments = pictures.arguments(tmp_path / "d", "-j", "1")
    assert call(*arguments).code == 0
    photo.write_bytes(photo.read_bytes())
    assert call(*arguments).code == 0
    save(photo, photograph(120, 160, 4))
    refused = call(*arguments)
    assert refused.code == 1
    assert "background bitmap.bmp was changed" in refused.err
    assert "of the same size" in refused.err


def test_two_versions_of_a_picture_are_never_in_one_shard() -> None:
    """Read twice with other bytes, while a shard is rendered or since: told, with the file."""
    one, other = (InputRecord(bytes=3, sha256=digit * 64) for digit in "ab")
    fresh, mended = Ledger("shard-00000.h5", {}), Ledger("shard-00000.h5", {"background a": one})
    fresh.add({"background a": one})
    fresh.add({"background a": one})
    with pytest.raises(BuildError, match=r"background a was changed while shard-00000\.h5 was rendered"):
        fresh.add({"background a": other})
    with pytest.raises(BuildError, match=r"background a has changed since shard-00000\.h5 was rendered"):
        mended.add({"background a": other})


def test_two_versions_of_a_picture_are_never_in_one_dataset(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two shards that were made of other bytes of it are refused by name, before a build goes on and when it ends."""
    tree = Pictures(Path(shutil.copytree(finished.parent, tmp_path / "pictures")))
    (out := tree.root / "dataset").joinpath("SHA256SUMS").unlink()
    first, second, third = sorted((out / "shards").glob("*.json"))[:3]
    third.unlink()
    document = json.loads(second.read_text())
    name = min(set(json.loads(first.read_text())["inputs"]) & set(document["inputs"]))
    document["inputs"][name]["sha256"] = "0" * 64
    second.write_text(json.dumps(document))
    more = ["--set", "shards.tile=48", "--set", "shards.background=full", "--set", 'split.validation=["disc 1"]']
    refused = call(*tree.arguments(out, *more, "-j", "1"))
    assert refused.code == 1
    assert f"{name} was changed while the dataset was built: {first.stem}.h5 and {second.stem}.h5" in refused.err
    assert not third.exists()
    real, read = backgrounds.read_rgb, Counter[str]()

    def read_another(path: Path, name: str, *rest: Any) -> Any:
        pixels, record = real(path, name, *rest)
        read[name] += 1
        return pixels, record.model_copy(update={"sha256": f"{read[name]:064}"})

    monkeypatch.setattr(backgrounds, "read_rgb", read_another)
    monkeypatch.setattr(background_reader, "MOST_BYTES", 0)  # as if each shard were another process's
    refused = call(*tree.arguments(tmp_path / "new", "-j", "1"))
    assert (refused.code, "was changed while the dataset was built: shard-" in refused.err) == (1, True), refused.err
    assert not (tmp_path / "new" / "dataset.json").exists()


def test_building_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    """A plan is built as it is, and with one job the caller's OpenCV keeps its threads."""
    small = ["foregrounds.count=2", "foregrounds.sides=[64,80]", "backgrounds.count=2", "variants=2"]
    plan, threads = make_plan(load_recipe("demo", small)), cv2.getNumThreads()
    result = build(plan, tmp_path / "d", jobs=1)
    assert (result.composites, result.failed, result.plan_sha256) == (4, (), plan.sha256)
    assert cv2.getNumThreads() == threads


def test_a_dataset_of_earlier_rules_is_read_but_not_mixed(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is opened, verified and exported; going on with it and repairing it are refused, with the way out."""
    arguments = pictures.arguments(tmp_path / "d", "-j", "1")
    with monkeypatch.context() as patch:
        for module in (plan, resume):
            patch.setattr(module, "VERSION", 1)
        assert call(*arguments).code == 0
    for sidecar in (tmp_path / "d" / "shards").glob("*.json"):  # as early builds wrote them
        sidecar.write_text(json.dumps({k: v for k, v in json.loads(sidecar.read_text()).items() if k != "made_with"}))
    (tmp_path / "d" / "SHA256SUMS").unlink()
    assert len(open_dataset(tmp_path / "d")) == 20
    assert call("inspect", str(tmp_path / "d"), "--verify", "-j", "1").code == 0
    assert call("export", str(tmp_path / "d"), str(tmp_path / "e"), "--to", "png", "-j", "1").code == 0
    refused = call(*arguments)
    assert refused.code == 1
    assert "version 1 of the rules" in refused.err
    assert "another --out" in refused.err
    shard = tmp_path / "d" / "shards" / "shard-00000.h5"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert "version 1 of the rules" in call("inspect", str(tmp_path / "d"), "--verify", "--repair", "-j", "1").err
    assert shard.exists()


def test_versions_of_all_that_made_it_are_told(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build that goes on with another library says both versions; `--verify` notes it."""
    arguments = pictures.arguments(tmp_path / "d", "-j", "1", "--set", "shards.megabytes=1")
    with monkeypatch.context() as patch:
        patch.setattr("zstandard.__version__", "0.1-other")
        assert call(*arguments, "--shards", "1/2").code == 0
    assert call(*arguments).code == 0
    made_with = open_dataset(tmp_path / "d").metadata.made_with
    assert "0.1-other, " in made_with["zstandard"]
    assert ", " not in made_with["numpy"]
    assert "several versions of zstandard: 0.1-other" in call("inspect", str(tmp_path / "d"), "--verify").out
