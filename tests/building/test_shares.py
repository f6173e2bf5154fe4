"""Builds past one process and one machine: shares in one folder, and a real Dask cluster of this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import COMMAND, Cluster, Pictures, call
from matting_compose.composer import open_dataset
from matting_compose.composer.base.errors import BuildError
from matting_compose.composer.building.shares import WHOLE_BUILD, Share, lock_share

# Shards of one composite, so that there are many and a build can be stopped between two.
MANY = ["--variants", "12", "--set", "shards.variants=1"]


def all_bytes(out: Path) -> dict[str, bytes]:
    """Read every file of a dataset but its lock."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


@given(st.integers(0, 300), st.integers(1, 70))
def test_shares_are_a_partition(length: int, count: int) -> None:
    """Every item is in exactly one share, and no two shares differ by more than one item."""
    shares = [Share(number, count).of(range(length)) for number in range(1, count + 1)]
    assert sorted(item for share in shares for item in share) == list(range(length))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("text", ["0/4", "5/4", "a/b", "3", "1/0", "-1/4", "1/2/3", " 1/2", "¹/2", ""])
def test_other_values_are_refused(tmp_path: Path, text: str) -> None:
    """The message says what is expected and what was found; nothing is made."""
    done = call("build", "--out", str(tmp_path / "d"), f"--shards={text}")
    assert done.code == 2
    assert f"--shards: expected i/n with i from 1 to n, such as 3/64; found '{text}'" in done.err
    assert not list(tmp_path.iterdir())


def test_shares_at_once_make_the_same_dataset(pictures: Pictures, tmp_path: Path) -> None:
    """Three processes in one folder, started together: every file is that of one build, whoever came last."""
    commands = [[str(COMMAND), *pictures.arguments(tmp_path / "d", "--shards", f"{i}/3", "--json")] for i in (1, 2, 3)]
    started = [subprocess.Popen([*command, "-j", "1"], stdout=subprocess.PIPE) for command in commands]
    found = [json.loads(process.communicate(timeout=300)[0]) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert [result["share"] for result in found] == ["1/3", "2/3", "3/3"]
    assert [result["rendered"] for result in found] == [8, 6, 6]
    assert [result["missing"] for result in found].count(0) >= 1
    assert call(*pictures.arguments(tmp_path / "plain", "-j", "1")).code == 0
    assert all_bytes(tmp_path / "d") == all_bytes(tmp_path / "plain")
    again = call(*pictures.arguments(tmp_path / "d", "--shards", "2/3", "--json", "-j", "1"))
    assert (again.code, again.json["rendered"], again.json["missing"]) == (0, 0, 0)


def test_a_plain_build_finishes_what_shares_began(pictures: Pictures, tmp_path: Path) -> None:
    """A share that never came is no loss; until then there is no index."""
    out = tmp_path / "d"
    for number in (3, 1):
        part = call(*pictures.arguments(out, "--shards", f"{number}/4", "--json", "-j", "1"))
        assert part.code == 0
        assert "shards of other shares are missing" in part.err
        assert not (out / "dataset.json").exists()
    assert part.json["missing"] == 5
    rest = call(*pictures.arguments(out, "--json", "-j", "1")).json
    assert (rest["rendered"], rest["composites"], rest["share"]) == (10, 20, "1/1")
    assert call(*pictures.arguments(tmp_path / "plain", "-j", "1")).code == 0
    assert all_bytes(out) == all_bytes(tmp_path / "plain")


def test_more_shares_than_shards(pictures: Pictures, tmp_path: Path) -> None:
    """A job array may be longer than there is work."""
    idle = call(*pictures.arguments(tmp_path / "d", "--shards", "64/64", "--json"))
    assert (idle.code, idle.json["shards"], idle.json["missing"]) == (0, 0, 10)


def test_a_share_tells_its_own_failures(pictures: Pictures, tmp_path: Path) -> None:
    """What cannot be made is told by the share that should have made it; mended, its share makes it."""
    out = tmp_path / "d"
    bad = pictures.cutouts / "disc 0.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:100])
    first, second = (call(*pictures.arguments(out, "--shards", f"{i}/10", "--json", "-j", "1")) for i in (1, 3))
    assert (first.code, first.json["failures"], second.code, second.json["failures"]) == (3, 2, 0, 0)
    assert "2 composites are missing, because of 1 picture:" in first.err
    assert call(*pictures.arguments(out, "-j", "1")).code == 3
    bad.write_bytes(whole)
    for number, left in ((1, 2), (2, 0)):
        mended = call(*pictures.arguments(out, "--shards", f"{number}/10", "--json", "-j", "1"))
        assert (mended.code, mended.json["rendered"]) == (0, 2)
        assert len(json.loads((out / "dataset.json").read_text())["failures"]) == left
    assert len(open_dataset(out)) == 20


def test_shares_of_different_cuts_exclude_each_other(tmp_path: Path) -> None:
    """The same share twice, another cut and a plain build are refused; another share of the same cut is not."""
    with lock_share(tmp_path, Share(2, 3)):
        for other, words in (
            (Share(2, 3), "of share 2/3 is"),
            (Share(1, 2), "of share 2/3 is"),
            (WHOLE_BUILD, "of share 2"),
        ):
            with pytest.raises(BuildError, match=f"another build {words}"), lock_share(tmp_path, other):
                pass
        with lock_share(tmp_path, Share(1, 3)) as alone, alone():
            pass
    (tmp_path / ".lock.9-of-9").touch()  # of a process that was killed
    with (
        lock_share(tmp_path, WHOLE_BUILD),
        pytest.raises(BuildError, match="another build is running"),
        lock_share(tmp_path, WHOLE_BUILD),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.fixture(scope="module")
def peaceful(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pictures, dict[str, bytes]]:
    """Make pictures, and build many shards of them here and in peace."""
    pictures = Pictures.make(tmp_path_factory.mktemp("peaceful") / "pictures")
    out = pictures.root.parent / "d"
    assert call(*pictures.arguments(out, *MANY, "-j", "1")).code == 0
    return pictures, all_bytes(out)


def on_cluster(cluster: Cluster, pictures: Pictures, out: Path) -> subprocess.Popen[str]:
    """Start a build on a cluster, with relative places; return when some of its shards are finished."""
    places = ["--foregrounds", "cutouts", "--backgrounds", "photos", "--out", os.path.relpath(out, pictures.root)]
    command = [str(COMMAND), "build", *places, *MANY, "--cluster", cluster.address]
    process = subprocess.Popen(command, cwd=pictures.root, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while len(list((out / "shards").glob("shard-*.json"))) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process


def test_an_interrupted_cluster_build_goes_on_here(
    cluster: Cluster, peaceful: tuple[Pictures, dict[str, bytes]], tmp_path: Path
) -> None:
    """Ctrl-C: 130, a sentence and no traceback; this machine alone finishes what the cluster began."""
    pictures, expected = peaceful
    process = on_cluster(cluster, pictures, tmp_path / "d")
    os.killpg(process.pid, signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "run the same command again" in err
    assert "Traceback" not in err
    assert not (tmp_path / "d" / "dataset.json").exists()
    assert call(*pictures.arguments(tmp_path / "d", *MANY, "-j", "1")).code == 0
    assert all_bytes(tmp_path / "d") == expected


def test_a_killed_worker_costs_nothing(
    cluster: Cluster, peaceful: tuple[Pictures, dict[str, bytes]], tmp_path: Path
) -> None:
    """kill -9 of one of two workers in the middle: the other takes over, and the bytes are the same."""
    pictures, expected = peaceful
    process = on_cluster(cluster, pictures, tmp_path / "d")
    cluster.workers[0].kill()
    err = process.communicate(timeout=300)[1]
    assert process.returncode == 0, err
    assert all_bytes(tmp_path / "d") == expected


def test_a_cluster_that_is_none(pictures: Pictures, tmp_path: Path) -> None:
    """An address that cannot be one, and options that do not go together, are told."""
    arguments = pictures.arguments(tmp_path / "d")
    done = call(*arguments, "--cluster", "nonsense")
    assert done.code == 1
    assert "no Dask scheduler answers at nonsense" in done.err
    assert call(*arguments, "--cluster", "tcp://127.0.0.1:1", "-j", "2").code == 2
    assert call(*arguments, "--shards", "1/2", "--dry-run").code == 2
