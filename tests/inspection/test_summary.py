"""The summary: each figure against an independent computation, and unusual folders."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from conftest import Pictures, call
from matting_compose.composer import open_dataset
from matting_compose.composer.inspection.export import export
from matting_compose.composer.inspection.html_report import write_report
from matting_compose.composer.inspection.summary import Distribution, source_notes, summarise


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the small tree once, with one bad photograph and foregrounds kept for validation."""
    pictures = Pictures.make(tmp_path_factory.mktemp("inspect") / "pictures")
    (pictures.photos / "COCO_000000000003.jpg").write_bytes(b"no picture")
    out = pictures.root / "dataset"
    done = call(*pictures.arguments(out, "--set", 'split.validation=["disc 1"]', "-j", "1"))
    assert done.code == 3, done.err
    return out


def test_every_figure_is_right(built: Path) -> None:
    """Counts, sizes, shares, radii and enlargement as plain NumPy over whole composites finds them."""
    found = summarise(built, full=True)
    samples = list(open_dataset(built))
    rows = [sample.row for sample in samples]
    assert (found.composites, found.planned, found.foregrounds, found.backgrounds) == (len(samples), 20, 5, 7)
    assert found.failures == {"not-an-image": 20 - len(samples)}
    assert not found.complete
    files = list((built / "shards").glob("*.h5"))
    assert found.bytes == sum(path.stat().st_size for path in files)
    assert found.shards == len(files)
    assert found.pixels == sum(sample.alpha.size for sample in samples)
    raw = sum(part.nbytes for sample in samples for part in (sample.image, sample.alpha, sample.trimap))
    assert found.packing_ratio == pytest.approx(raw / found.bytes)
    assert (found.smallest, found.largest) == ((75, 75), (210, 200))
    validation = {row.foreground for row in rows} & {"disc 1"}
    assert found.splits["validation"].foregrounds == len(validation) == 1
    assert found.splits["validation"].composites == sum(row.foreground == "disc 1" for row in rows)
    assert found.splits["train"].foregrounds == 4

    unknown = [float((sample.trimap == 128).mean()) for sample in samples]
    assert found.unknown is not None
    assert found.looked_at == found.unknown.count == len(samples)
    assert (found.unknown.least, found.unknown.most) == pytest.approx((min(unknown), max(unknown)))
    assert (found.unknown.median, found.unknown.mean) == pytest.approx((np.median(unknown), np.mean(unknown)))
    assert sum(found.unknown.counts) == len(samples)
    alphas = {sample.row.foreground: sample.alpha for sample in samples}.values()
    assert found.alpha is not None
    assert found.alpha.opaque == pytest.approx(np.mean([(alpha == 255).mean() for alpha in alphas]))
    assert found.alpha.clear == pytest.approx(np.mean([(alpha == 0).mean() for alpha in alphas]))
    assert found.alpha.fractional == pytest.approx(1 - found.alpha.opaque - found.alpha.clear)
    enlarged = [max(1.0, row.scale) for row in rows]
    assert found.enlarged == sum(factor > 1 for factor in enlarged) > 0
    assert found.enlargement is not None
    assert found.enlargement.most == pytest.approx(max(enlarged))
    assert found.erode is not None
    assert (found.erode.least, found.erode.most) == (min(r.erode for r in rows), max(r.erode for r in rows))


def test_the_command_says_it_for_people_and_scripts(built: Path) -> None:
    """The terminal shows the figures; `--json` has them all."""
    told = call("inspect", str(built))
    assert told.code == 0, told.err
    for text in ("incomplete", "foregrounds × 4 variants over 7 backgrounds", "75×75", "unknown", "× not-an-image"):
        assert text in told.out
    found = call("inspect", str(built), "--full", "--json").json
    assert found["sha256"] == open_dataset(built).sha256
    assert found["plan_sha256"] == json.loads((built / "plan.json").read_text())["plan_sha256"]
    assert found["unknown"]["count"] == found["composites"]


def test_a_sample_is_drawn_evenly_and_always_alike(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `--full` a part is looked at, the same at every call, and it is said how large."""
    monkeypatch.setattr("matting_compose.composer.inspection.summary.SAMPLE", 5)
    first = summarise(built)
    assert first == summarise(built)
    assert first.looked_at == 5
    assert first.unknown is not None
    assert first.unknown.count == 5


def test_whole_numbers_get_a_bin_each() -> None:
    """Radii from 1 to 20 make twenty bins; a single value makes one that holds it."""
    spread = Distribution.of(list(range(1, 21)), whole=True)
    assert spread is not None
    assert spread.counts == (1,) * 20
    alone = Distribution.of([0.25])
    assert alone is not None
    assert sum(alone.counts) == 1
    assert Distribution.of([]) is None


def test_licences_are_read_where_a_recipe_gives_them() -> None:
    """One table or several; tables that say nothing are left out."""
    assert source_notes({"foregrounds": {"layout": "rgba"}, "backgrounds": {"licence": "CC0"}})[0].licence == "CC0"
    several = {"foregrounds": [{"licence": "GPL-2"}, {}, {"attribution": "A. Painter"}]}
    assert [note.what for note in source_notes(several)] == ["foregrounds[0]", "foregrounds[2]"]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("dataset.json", None, "an unfinished dataset: run the same build again"),
        ("dataset.json", "[" * 100_000, "damaged"),
        ("dataset.json", '{"format": "matting-compose/dataset"}', "damaged"),
        ("dataset.json", '{"format": "matting-compose/dataset", "version": 99}', "update it"),
        ("shards/shard-00000.h5", None, "shards are missing or of another size: shard-00000.h5"),
        ("shards/shard-00000.h5", "not HDF5", "of another size"),
    ],
)
def test_unusual_folders_are_explained(copied: Path, file: str, text: str | None, message: str) -> None:
    """What is missing, damaged or too new is named, without a traceback."""
    (copied / file).unlink()
    if text is not None:
        (copied / file).write_text(text)
    done = call("inspect", str(copied))
    assert done.code == (0 if "shards" in file else 1)
    assert message in done.out + done.err
    assert "Traceback" not in done.err


def test_a_foreign_shard_of_the_right_size_is_named(copied: Path) -> None:
    """An HDF5 file that calls itself a shard, but holds no table."""
    path = copied / "shards" / "shard-00001.h5"
    size = path.stat().st_size
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["version"], file.attrs["complete"] = "matting-compose/shard", 1, True
    with path.open("ab") as end:
        end.truncate(size)
    done = call("inspect", str(copied))
    assert done.code == 1
    assert "shard-00001.h5: damaged" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("name", ["nowhere", "empty", "file"])
def test_what_is_no_dataset_is_said(tmp_path: Path, name: str) -> None:
    """A place that is not there, an empty folder, a file."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    done = call("inspect", str(tmp_path / name))
    assert done.code == 1
    assert "dataset" in done.err


def test_names_cannot_speak_to_the_terminal() -> None:
    """Control characters and direction marks in a name are shown as escapes."""
    from matting_compose.composer.base.text import escape

    assert escape("a\x1b[31mb\r\u202ec é") == "a\\x1b[31mb\\r\\u202ec é"


def test_licences_travel_with_the_dataset(copied: Path, tmp_path: Path) -> None:
    """What the recipe says of its sources shows in the summary, in the report and in an export."""
    index = json.loads((copied / "dataset.json").read_text())
    index["recipe"]["foregrounds"] |= {"licence": "CC-BY-SA-4.0", "attribution": "A. Painter <a@b.example>"}
    (copied / "dataset.json").write_text(json.dumps(index))
    assert "foregrounds: CC-BY-SA-4.0; A. Painter <a@b.example>" in call("inspect", str(copied)).out
    write_report(copied, tmp_path / "r.html")
    assert "<td>A. Painter &lt;a@b.example&gt;</td>" in (tmp_path / "r.html").read_text(encoding="utf-8")
    export(copied, tmp_path / "out", "png", count=1, jobs=1)
    sources = json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))["sources"]
    assert sources[0] == {
        "what": "foregrounds",
        "licence": "CC-BY-SA-4.0",
        "attribution": "A. Painter <a@b.example>",
    }


@pytest.mark.parametrize(
    "arguments", [["--verify"], ["--show", "0"], ["--report", "r.html"], ["--diff", "."], ["export"]], ids=str
)
def test_every_way_of_looking_explains_what_is_none(finished: Path, tmp_path: Path, arguments: list[str]) -> None:
    """A half-built dataset is said to be one, whatever is asked of it, and nothing is written."""
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "plan.json").write_bytes((finished / "plan.json").read_bytes())
    if arguments == ["export"]:
        done = call("export", "half", "out", "--to", "png", cwd=tmp_path)
    else:
        done = call("inspect", "half", *arguments, cwd=tmp_path)
    assert done.code == 1
    assert "unfinished" in done.err
    assert "Traceback" not in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["half"]
