"""Object storage: a real S3 server on this machine, and a storage in memory; the same bytes as in a folder."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from conftest import Pictures, call, run, shard_bytes
from matting_compose.composer import open_dataset
from matting_compose.composer.base import storage as store
from matting_compose.composer.base.errors import BuildError, DatasetError
from matting_compose.composer.building.build import build
from matting_compose.composer.recipe import load_recipe

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep copies in a folder of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MATTING_COMPOSE_CACHE", str(folder))
    return folder


@pytest.fixture
def memory() -> Iterator[Any]:
    """Give the storage in memory, empty."""
    storage = fsspec.filesystem("memory")
    yield storage
    storage.rm("/", recursive=True)


def objects(bucket: Any, prefix: str) -> dict[str, bytes]:
    """Read everything below a prefix."""
    found = bucket.objects.filter(Prefix=prefix)
    return {item.key.removeprefix(prefix): item.get()["Body"].read() for item in found}


def files(folder: Path) -> dict[str, bytes]:
    """Read every file of a dataset but its lock."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def build_in_memory(pictures: Pictures) -> None:
    """Build the pictures' dataset at memory://bucket/d."""
    recipe = load_recipe(
        None, ["variants=4", "shards.variants=2"], foregrounds=pictures.cutouts, backgrounds=pictures.photos
    )
    build(recipe, "memory://bucket/d", jobs=1)


def test_a_bucket_gets_the_same_bytes(bucket: Any, pictures: Pictures, tmp_path: Path) -> None:
    """Built by two processes of this machine into S3; what is lost there is rendered again, and no more."""
    arguments = pictures.arguments(Path("out"), "--json")
    arguments[arguments.index("out")] = "s3://bucket/d"
    first = run(*arguments, "-j", "2")
    assert first.code == 0, first.err
    assert call(*pictures.arguments(tmp_path / "d", "-j", "1")).code == 0
    assert objects(bucket, "d/") == files(tmp_path / "d")
    for name in ("d/shards/shard-00001.h5", "d/shards/shard-00003.json", "d/dataset.json"):
        bucket.Object(name).delete()
    again = call(*arguments, "-j", "1")
    assert (again.code, again.json["rendered"]) == (0, 4)
    assert objects(bucket, "d/") == files(tmp_path / "d")


def test_a_bucket_is_read_as_a_folder_is(bucket: Any, finished: Path, cache: Path) -> None:
    """Pictures, summary, proof and comparison are those of the folder; a changed object is found."""
    for name, data in files(finished).items():
        bucket.put_object(Key=f"read/{name}", Body=data)
    here, there = open_dataset(finished), open_dataset("s3://bucket/read")
    for i in (0, 7, len(here) - 1):
        np.testing.assert_array_equal(there[i].image, here[i].image)
        assert there.row(i) == here.row(i)
    assert 0 < len(list(cache.glob("*.h5"))) < len(here.shards)
    summary = call("inspect", "s3://bucket/read", "--json").json
    assert {**summary, "path": ""} == {**call("inspect", str(finished), "--json").json, "path": ""}
    assert call("inspect", "s3://bucket/read", "--diff", str(finished)).code == 0
    assert call("inspect", "s3://bucket/read", "--verify", "-j", "1").code == 0
    changed = bytearray(files(finished)["shards/shard-00002.h5"])
    changed[-9] ^= 1
    bucket.put_object(Key="read/shards/shard-00002.h5", Body=bytes(changed))
    proof = call("inspect", "s3://bucket/read", "--verify", "-j", "1", "--json")
    assert proof.code == 1
    assert "shards/shard-00002.h5" in {problem["file"] for problem in proof.json["problems"]}


def test_a_network_is_trained_out_of_a_bucket(bucket: Any, finished: Path, whole: Path, tmp_path: Path) -> None:
    """`matting-train s3://…`, with a reading process, ends where a training on the folder did, to the last bit."""
    from runs import MODULE, command, same, state

    for name, data in files(finished).items():
        bucket.put_object(Key=f"train/{name}", Body=data)
    how = ["--config", str(whole / "config.json"), "--set=steps=3", "--device=cpu"]
    there, here = tmp_path / "there", tmp_path / "here"
    far = [*MODULE, "s3://bucket/train", "--out", str(there), *how, "--set=stream.workers=1"]
    done = subprocess.run(far, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert command(str(finished), "--out", str(here), *how, "--set=stream.workers=0").code == 0
    assert same(state(there / "last.pt"), state(here / "last.pt"))


def test_an_upload_that_fails_leaves_nothing_committed(
    memory: Any, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before, damaged on the way, stopped after: no sidecar speaks of the shard, the next build mends it."""
    send = type(memory).put_file
    sent = []

    def fail(self: Any, local: str, remote: str, **options: Any) -> None:
        sent.append(remote)
        if len(sent) == 3:
            raise ConnectionResetError("in the middle")
        if len(sent) == 5:
            self.pipe_file(remote, Path(local).read_bytes()[:-1] + b"?")
            return
        send(self, local, remote, **options)
        if len(sent) == 7:
            raise KeyboardInterrupt("Ctrl-C")

    monkeypatch.setattr(type(memory), "put_file", fail)
    for error, words in (
        (DatasetError, "in the middle"),
        (BuildError, "not what was sent"),
        (KeyboardInterrupt, "Ctrl-C"),
    ):
        with pytest.raises(error, match=words):
            build_in_memory(pictures)
        names = {Path(name).name for name in memory.find("/bucket/d")}
        assert Path(sent[-1]).with_suffix(".json").name not in names
        assert "dataset.json" not in names
        assert error is not BuildError or Path(sent[-1]).name not in names
    build_in_memory(pictures)
    assert call(*pictures.arguments(tmp_path / "d", "-j", "1")).code == 0
    for name, data in shard_bytes(tmp_path / "d").items():
        assert memory.cat_file(f"/bucket/d/shards/{name}") == data
    assert len(sent) == 10 + 3


def test_mended_pictures_reach_the_storage(memory: Any, pictures: Pictures, tmp_path: Path) -> None:
    """A shard that lacks composites is completed from what the storage has of it."""
    bad = pictures.photos / "COCO_000000000002.jpg"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:900])
    build_in_memory(pictures)
    assert 0 < len(open_dataset("memory://bucket/d")) < 20
    bad.write_bytes(whole)
    build_in_memory(pictures)
    assert call(*pictures.arguments(tmp_path / "d", "-j", "1")).code == 0
    assert memory.cat_file("/bucket/d/dataset.json") == (tmp_path / "d" / "dataset.json").read_bytes()


def test_copies_make_room_for_others(memory: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy used longest ago goes first; who has it open reads on; one that is not what it should be is refused."""
    memory.mkdir("/b")
    digests = []
    for i in range(4):
        data = bytes([i]) * 400
        memory.pipe_file(f"/b/shard-{i}.h5", data)
        digests.append(hashlib.sha256(data).hexdigest())
    monkeypatch.setenv("MATTING_COMPOSE_CACHE_GB", "0.000001")  # two of them, not three
    (cache / "thesis").write_bytes(bytes(400))
    os.utime(cache / "thesis", (0, 0))
    folder = store.resolve_path("memory://b")
    copies = [store.cache_locally(folder / f"shard-{i}.h5", 400, digests[i]) for i in (0, 1)]
    with copies[1].open("rb") as open_one:
        for age, copy in enumerate(copies):
            os.utime(copy, (1e9 - age, 1e9 - age))
        assert store.cache_locally(folder / "shard-0.h5", 400, digests[0]) == copies[0]
        store.cache_locally(folder / "shard-2.h5", 400, digests[2])
        assert [copy.exists() for copy in copies] == [True, False]
        assert open_one.read() == bytes([1]) * 400
    with pytest.raises(DatasetError, match="is not the shard that the index lists"):
        store.cache_locally(folder / "shard-3.h5", 400, digests[2][::-1])
    with pytest.raises(DatasetError, match="for a SHA-256"):
        store.cache_locally(folder / "shard-3.h5", 400, "../../etc/passwd")
    with pytest.raises(DatasetError, match="the shard is missing"):
        store.cache_locally(folder / "shard-9.h5", 400, digests[3])
    assert len(list(cache.glob("*.*"))) == 2
    assert (cache / "thesis").exists()
    monkeypatch.setenv("MATTING_COMPOSE_CACHE_GB", "two")
    with pytest.raises(DatasetError, match="expected a number of gigabytes, found 'two'"):
        store.cache_locally(folder / "shard-3.h5", 400, digests[3])
    monkeypatch.setattr(store.uuid, "uuid4", lambda: UUID(int=0))
    (cache / f"{UUID(int=0).hex}.part").symlink_to("/dev/full")
    with pytest.raises(DatasetError, match=f"{cache}: a copy of shard-1.h5 cannot be written there .No space left"):
        store.cache_locally(folder / "shard-1.h5", 400, digests[1])


def test_a_storage_that_goes_away_is_an_error_in_a_line(
    memory: Any, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever kind of exception its own package has for that, and wherever it comes."""
    lost = pytest.importorskip("botocore.exceptions").EndpointConnectionError(endpoint_url="http://far")
    build_in_memory(pictures)
    reading = type(memory)._open

    def fail(self: Any, path: str, *arguments: Any, **options: Any) -> Any:
        if path.endswith("plan.json"):
            raise lost
        return reading(self, path, *arguments, **options)

    monkeypatch.setattr(type(memory), "_open", fail)
    done = call("inspect", "memory://bucket/d", "--verify", "-j", "1")
    assert done.code == 1
    assert "Error: the storage does not answer, or refuses (Could not connect" in done.err


def test_places_that_are_none(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No dataset, no bucket, no such kind of address, nobody there: each is a line that says so."""
    for where in ("s3://bucket/none", "s3://nowhere/none"):
        with pytest.raises(DatasetError, match=f"{where}: expected a dataset's folder, found nothing"):
            open_dataset(where)
    with pytest.raises(DatasetError, match=r"pip install .*\[remote\]"):
        open_dataset("carrier-pigeon://bucket/d")

    def nobody(_: str) -> bool:
        raise ConnectionRefusedError("nobody there")

    monkeypatch.setattr(store.resolve_path("s3://bucket/none").fs, "isdir", nobody)  # type: ignore[attr-defined]
    with pytest.raises(DatasetError, match=r"does not answer, or refuses \(nobody there"):
        open_dataset("s3://bucket/none")
