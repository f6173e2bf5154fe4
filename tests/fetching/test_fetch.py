"""Fetching a corpus: every picture proven, nothing fetched twice, nothing written elsewhere."""

from __future__ import annotations

import csv
import errno
import shutil
import signal
import subprocess
import tarfile
import time
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import COMMAND, Ran, run
from matting_compose.composer.base.errors import BuildError, FileError
from matting_compose.composer.base.files import temporary_name
from matting_compose.composer.fetching import fetch as fetching
from matting_compose.composer.fetching.corpus import load_corpus
from packages import package_of, tar_of, write_corpus

CONTENTS = {
    "tiny-data": {"cutouts/a.png": ("usr/a b.png", b"A" * 5000), "cutouts/b.png": ("usr/b.png", b"B" * 300)},
    "other-data": {"photographs/c.jpg": ("usr/c.jpg", b"C" * 70)},
}
PICTURES = {place: content for pictures in CONTENTS.values() for place, (_, content) in pictures.items()}


@dataclass(frozen=True)
class Place:
    """A corpus of three pictures in two packages."""

    folder: Path

    @property
    def debs(self) -> Path:
        return self.folder / "debs"

    @property
    def out(self) -> Path:
        return self.folder / "s-pictures"

    @property
    def package(self) -> Path:
        return self.debs / "tiny-data_1%3a1.0-1_all.deb"

    def fetch(self, *more: str) -> Ran:
        return run("fetch", "s.csv", *more, cwd=self.folder)

    def fetched(self) -> dict[str, bytes]:
        """Read what lies among the pictures."""
        found = [path for name in ("cutouts", "photographs") for path in (self.out / name).glob("*")]
        return {path.relative_to(self.out).as_posix(): path.read_bytes() for path in found}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Make the corpus, on a machine without apt."""
    write_corpus(tmp_path, "s", CONTENTS)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return Place(tmp_path)


@pytest.fixture
def apt(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Give the machine an apt whose archive is `debs`; it breaks off while there is a file called `cut`."""
    script = place.folder / "bin" / "apt-get"
    script.write_text(
        f"""#!/bin/sh
for last; do :; done
name=${{last%%=*}}; version=${{last#"$name"}}; version=${{version#=}}
file=$(cd {place.debs} && ls "$name"_* 2>/dev/null | head -n 1)
offered=${{file#*_}}; offered=$(echo "${{offered%%_*}}" | sed s/%3a/:/)
[ -n "$file" ] || {{ echo "E: Unable to locate package $name" >&2; exit 100; }}
[ -z "$version" ] || [ "$version" = "$offered" ] ||
    {{ echo "E: Version '$version' for '$name' was not found" >&2; exit 100; }}
case " $* " in
*" --print-uris "*) echo "'http://archive/$file' $file $(wc -c < {place.debs}/$file) SHA256:00"; exit ;;
esac
echo "$last" >> {place.folder}/log
if [ -e {place.folder}/cut ]; then
    head -c 100 {place.debs}/$file > $file; echo "E: Failed to fetch http://archive/$file  No route" >&2; exit 100
fi
if [ -e {place.folder}/slow ]; then exec sleep 60; fi
cp {place.debs}/$file .
"""
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    return place


def test_pictures_come_with_their_licences(place: Place) -> None:
    """Everything is there, byte for byte; a second run needs no package, and a lost picture only its own."""
    done = place.fetch("--packages", "debs", "--json")
    assert (done.code, done.json["fetched"], done.json["failures"]) == (0, 3, [])
    assert place.fetched() == PICTURES
    assert {path.name for path in (place.out / "licences").iterdir()} == {
        "tiny-data.txt", "other-data.txt", "pictures.csv",
    }  # fmt: skip
    assert place.fetch("--json").json["present"] == 3
    (place.out / "cutouts" / "a.png").write_bytes(b"A" * 4999 + b"x")
    temporary_name(place.out / "cutouts" / "b.png").write_bytes(b"of a killed run")
    done = place.fetch("--packages", str(place.package), "--json")
    assert (done.code, done.json["present"], done.json["fetched"]) == (0, 2, 1)
    assert place.fetched() == PICTURES


def test_another_picture_is_an_error_that_names_it(place: Place) -> None:
    """Of another version, what is the same is taken, and what is not is said: another size, another content, gone."""
    files = {"usr/share/doc/tiny-data/copyright": b"free", "usr/a b.png": b"A" * 4999 + b"x"}
    place.package.unlink()
    (place.debs / "tiny-data_2.0_all.deb").write_bytes(package_of(tar_of(files), ".zst"))
    done = place.fetch("--packages", "debs")
    assert done.code == 3
    assert "tiny-data: version 2.0 in place of 1:1.0-1" in done.err
    assert "failed: cutouts/a.png: another picture in tiny-data: expected 5,000 bytes" in done.err
    assert "failed: cutouts/b.png: tiny-data_2.0_all.deb has no file usr/b.png" in done.err
    assert set(place.fetched()) == {"photographs/c.jpg"}
    whole = {**files, "usr/a b.png": b"A" * 5000, "usr/b.png": b"B" * 301}
    (place.debs / "tiny-data_2.0_all.deb").write_bytes(package_of(tar_of(whole), ""))
    done = place.fetch("--packages", "debs")
    assert done.code == 3
    assert "failed: cutouts/b.png: another picture in tiny-data: expected 300 bytes" in done.err
    assert set(place.fetched()) == {"photographs/c.jpg", "cutouts/a.png"}


@pytest.mark.parametrize("damage", ["changed", "cut", "no package"])
def test_a_damaged_package_gives_nothing(place: Place, damage: str) -> None:
    """The pinned version has a pinned sum; the other packages are read all the same."""
    data = place.package.read_bytes()
    changed = {"changed": data[:-1] + b"x", "cut": data[: len(data) // 2], "no package": b"<html>"}[damage]
    place.package.write_bytes(changed)
    done = place.fetch("--packages", "debs")
    assert done.code == 3
    assert "its SHA-256 is not that of tiny-data 1:1.0-1; download it again" in done.err
    assert set(place.fetched()) == {"photographs/c.jpg"}


def test_nothing_is_written_outside(place: Place) -> None:
    """Neither names in a package nor links in the folder lead anywhere else."""
    link = tarfile.TarInfo("./usr/a b.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
    hostile = {"../../escaped.png": b"x", "usr/share/doc/tiny-data/copyright": b"free", "usr/b.png": b"B" * 300}
    place.package.unlink()
    (place.debs / "tiny-data_3_all.deb").write_bytes(package_of(tar_of(hostile, [link])))
    before = {path for path in place.folder.rglob("*") if place.out not in path.parents}
    done = place.fetch("--packages", "debs")
    assert "failed: cutouts/a.png: tiny-data_3_all.deb has no file usr/a b.png" in done.err
    assert {path for path in place.folder.rglob("*") if place.out not in path.parents} == before | {place.out}

    elsewhere = place.folder / "elsewhere"
    elsewhere.mkdir()
    (place.folder / "o").mkdir()
    (place.folder / "o" / "cutouts").symlink_to(elsewhere)
    done = place.fetch("--packages", "debs", "--out", "o")
    assert (done.code, list(elsewhere.iterdir())) == (1, [])
    assert "nothing is written through links" in done.err


def test_strangers_among_the_pictures_are_told(place: Place) -> None:
    """A build would compose them."""
    (place.out / "cutouts").mkdir(parents=True)
    (place.out / "cutouts" / "mine.png").write_bytes(b"mine")
    done = place.fetch("--packages", "debs")
    assert done.code == 0
    assert "note: cutouts/mine.png is no picture of s" in done.err


def test_apt_fetches_what_is_not_given(apt: Place) -> None:
    """Pinned versions are asked for; what was downloaded is not kept."""
    done = apt.fetch("--packages", str(apt.package))
    assert (done.code, apt.fetched()) == (0, PICTURES)
    assert (apt.folder / "log").read_text().split() == ["other-data=1:1.0-1"]
    assert not list((apt.out / ".packages").iterdir())


def test_a_download_that_breaks_off_is_gone_on_with(apt: Place) -> None:
    """The error is apt's own, what was fetched stays, and the same command goes on."""
    assert apt.fetch("--packages", str(apt.package)).code == 0
    (apt.out / "photographs" / "c.jpg").unlink()
    (apt.folder / "cut").touch()
    done = apt.fetch()
    assert done.code == 1
    assert "apt could not fetch other-data=1:1.0-1: Failed to fetch" in done.err
    assert (apt.out / ".packages" / "other-data_1%3a1.0-1_all.deb").stat().st_size == 100
    (apt.folder / "cut").unlink()
    assert apt.fetch().code == 0
    assert apt.fetched() == PICTURES


def test_a_package_that_apt_lacks_costs_its_own_pictures(apt: Place) -> None:
    """The others are fetched; the message says where else to get it."""
    apt.package.unlink()
    done = apt.fetch()
    assert done.code == 3
    assert "apt has no package tiny-data (Unable to locate package tiny-data); run `apt-get update`" in done.err
    assert "MIRROR/pool/main/tiny-data_1.0-1_all.deb" in done.err
    assert set(apt.fetched()) == {"photographs/c.jpg"}


def test_an_interrupted_download_ends_apt_too(apt: Place) -> None:
    """Ctrl-C ends with the usual exit code, and leaves no process behind."""
    (apt.folder / "slow").touch()
    process = subprocess.Popen([COMMAND, "fetch", "s.csv"], cwd=apt.folder, stderr=subprocess.PIPE)
    until = time.monotonic() + 60
    while not (apt.folder / "log").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    message = process.communicate(timeout=30)[1]  # waits for whoever holds its standard error, apt too
    assert process.returncode == 130
    assert b"Interrupted" in message
    assert time.monotonic() - start < 30


def test_without_apt_the_way_out_is_shown(place: Place) -> None:
    """Where to get the packages by hand, and what to do with them."""
    for arguments, code in (([], 1), (["--dry-run"], 3)):
        done = place.fetch(*arguments)
        assert done.code == code
        assert "there is no apt-get on this machine" in done.err + done.out
    assert "give them with --packages:\n  MIRROR/pool/main/tiny-data" in place.fetch().err


def test_a_dry_run_writes_nothing(apt: Place) -> None:
    """Sizes and origins, for people and for scripts."""
    sizes = {path.name.partition("_")[0]: path.stat().st_size for path in apt.debs.iterdir()}
    done = apt.fetch("--dry-run", "--packages", str(apt.package))
    assert (done.code, apt.out.exists()) == (0, False)
    for text in ("0 of 3 pictures are there", str(apt.package), "apt, other-data=1:1.0-1", "2 packages; to download"):
        assert text in done.out
    found = apt.fetch("--dry-run", "--json").json
    assert found["download_bytes"] == sum(sizes.values())
    assert found["room_bytes"] == max(sizes.values()) + sum(map(len, PICTURES.values()))
    assert [(item["package"], item["bytes"]) for item in found["packages"]] == [(n, sizes[n]) for n in CONTENTS]


def test_a_full_disk_is_said_beforehand(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is fetched."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
    with pytest.raises(fetching.FileError, match="MB are needed, the disk has"):
        fetching.fetch(load_corpus(str(place.folder / "s.csv")), place.out, [place.debs])


def test_a_disk_that_fills_up_leaves_no_half_picture(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says so, and a run with more room goes on."""
    corpus = load_corpus(str(place.folder / "s.csv"))

    def refuse(path: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Path, "replace", refuse)
        with pytest.raises(BuildError, match=r"the disk is full\. Nothing finished is lost"):
            fetching.fetch(corpus, place.out, [place.debs])
    assert fetching.fetch(corpus, place.out, [place.debs]).fetched == 3
    assert place.fetched() == PICTURES


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["nonesuch"], 1, "no corpus is called 'nonesuch'; shipped are open431"),
        (["none.csv"], 1, "none.csv: expected a corpus' table"),
        (["s.csv", "--packages", "nowhere"], 1, "nowhere: expected a package, or a folder of packages; found nothing"),
        (["s.csv", "--packages", "s.csv"], 1, "s.csv: expected one of tiny-data, other-data"),
        ([], 2, "Missing argument"),
    ],
)
def test_wrong_usage_is_explained(place: Place, arguments: list[str], code: int, text: str) -> None:
    """A wrong call ends with its exit code and a message, and fetches nothing."""
    done = run("fetch", *arguments, cwd=place.folder)
    assert done.code == code
    assert text in done.err
    assert not place.fetched()


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("cutouts/a.png", "cutouts/../../a.png", "line 2: name: String should match pattern"),
        ("cutouts/b.png", "cutouts/a.png", "two pictures have one name"),
        (",300,", ",99999999999,", "line 3: bytes"),
        ("other-data", "third-data", "no row for third-data"),
        (",train", ",test", "line 2: split"),
        (",train", f",{'x' * 200_000}", "line 2: field larger"),
    ],
)
def test_tables_are_not_trusted(place: Place, old: str, new: str, text: str) -> None:
    """A table cannot lead outside, nor ask for gigabytes."""
    table = place.folder / "s.csv"
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(FileError, match=text):
        load_corpus(str(table))


def test_open431_is_what_it_says() -> None:
    """431 cut-outs and 200 photographs or more, no two alike, and the recipe's validation is the table's."""
    corpus = load_corpus("open431")
    folder = resources.files("matting_compose.manifests")
    recipe = tomllib.loads(folder.joinpath("open431.toml").read_text(encoding="utf-8"))
    cutouts = [picture for picture in corpus.pictures if picture.name.startswith("cutouts/")]
    validation = {Path(picture.name).stem for picture in cutouts if picture.split == "validation"}
    assert len(cutouts) == 431
    assert len(corpus.pictures) - 431 >= 200
    assert len({picture.sha256 for picture in corpus.pictures}) == len(corpus.pictures)
    assert len({Path(picture.name).stem for picture in cutouts}) == 431  # keys of the dataset
    assert validation == set(recipe["split"]["validation"])
    assert 0.08 <= len(validation) / 431 <= 0.12
    assert all(picture.licence and picture.attribution for picture in corpus.pictures)
    assert all((picture.split == "background") == (picture not in cutouts) for picture in corpus.pictures)
    assert all(package.address.endswith("_all.deb") for package in corpus.packages)  # the same on every machine
    left_out = list(csv.DictReader(folder.joinpath("open431-left-out.csv").read_text(encoding="utf-8").splitlines()))
    kept = {(picture.package, picture.path) for picture in corpus.pictures}
    assert left_out
    assert not kept & {(row["package"], row["path"]) for row in left_out}
    assert all(row["reason"] for row in left_out)
