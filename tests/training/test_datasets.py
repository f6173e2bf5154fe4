"""Training on several datasets, and validation on others: order and resume as of one, and each with its own scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs the 'train' extra")

from conftest import call, make_once, save, soft_disc  # noqa: E402 (only once torch is known to be there)
from matting_compose.composer import open_dataset  # noqa: E402
from matting_compose.composer.base.errors import DatasetError, TrainingError  # noqa: E402
from matting_compose.trainer import load_config, open_stream, train  # noqa: E402
from matting_compose.trainer.training.loop import TrainResult  # noqa: E402
from matting_compose.trainer.training.records import read_records  # noqa: E402
from runs import CPU, TINY, arguments, asked_at, command, same, state  # noqa: E402


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build another dataset once, of drawn pictures, none of it kept apart. To be read only."""

    def make(folder: Path) -> None:
        sizes = ["foregrounds.count=3", "foregrounds.sides=[64,90]", "backgrounds.count=2", "variants=3"]
        more = [f"--set={item}" for item in (*sizes, "split.validation=0", "shards.background=full")]
        assert call("build", "demo", "--out", str(folder / "other"), "-j", "1", *more).code == 0

    return make_once(tmp_path_factory, "others", make) / "other"


def trained(datasets: Any, out: Path, *more: str, resume: bool = False, stop: int | None = None) -> TrainResult:
    """Train seven steps in this process, or up to a stop."""
    options: dict[str, Any] = {"on_progress": asked_at(stop)} if stop else {}
    return train(datasets, out, load_config(None, (*TINY, *more)), CPU, resume=resume, **options)


@pytest.fixture(scope="module")
def mixed(finished: Path, other: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train on two datasets in one go, validated on one of its own and one of another. To be read only."""
    out = tmp_path_factory.mktemp("mixed") / "run"
    trained([finished, (other, 0.5)], out, "stream.batch=3")
    return out


@pytest.mark.parametrize(("before", "after"), [(0, 1), (1, 0)])
def test_two_datasets_resume_exactly(
    finished: Path, other: Path, mixed: Path, tmp_path: Path, before: int, after: int
) -> None:
    """Stopped, and gone on with by another number of workers: every tensor as if it had never stopped."""
    out, datasets = tmp_path / "run", [finished, (other, 0.5)]
    assert trained(datasets, out, "stream.batch=3", f"stream.workers={before}", stop=3).stopped
    trained(datasets, out, "stream.batch=3", f"stream.workers={after}", resume=True)
    for name in ("last.pt", "best.pt"):
        assert same(state(out / name), state(mixed / name))
    lines = [[r["loss"] for r in read_records(folder) if r["kind"] == "train"] for folder in (out, mixed)]
    assert lines[0] == lines[1]


def test_each_dataset_has_its_scores(
    finished: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained on one, validated on that one's split and on another whole; the best is by the error that is named."""
    out = tmp_path / "run"
    monkeypatch.chdir(other.parent)
    done = command(
        *arguments(finished, out, "--validation", "other", "--validation", str(finished),
                   "--set=validation.best=dataset.mse", "--set=validation.every=2"))  # fmt: skip
    assert done.code == 0, done.err
    records = [r for r in read_records(out) if r["kind"] == "validation"]
    assert [r["dataset"] for r in records if r["step"] == 2] == ["other", "dataset"]
    assert [r["dataset"] for r in records if r["step"] == 0] == ["other", "dataset"] * 2
    scores = {r["step"]: r["mse"] for r in records if r["dataset"] == "dataset" and r["step"]}
    best = state(out / "best.pt")
    assert best["best"] == min((score, step) for step, score in scores.items())[::-1]
    assert next(r["step"] for r in reversed(records) if r.get("best")) == best["step"]
    assert f"best dataset.mse {best['best'][1]:.4g} at step {best['step']}" in done.err
    assert "validation on other, network" in done.err
    monkeypatch.chdir(tmp_path)  # a resume finds them again from anywhere
    assert command(str(finished), "--out", str(out), "--device=cpu", "--resume").code == 0
    page = (out / "index.html").read_text()
    assert "other: network" in page
    assert "dataset: network" in page


def test_training_ends_when_nothing_gets_better(finished: Path, tmp_path: Path) -> None:
    """After so many validations without a better one; a resume finds it ended, and goes on with more patience."""
    out = tmp_path / "run"
    options = ["optimiser.rate=1e-30", "validation.every=1", "validation.panel=0", "optimiser.ema=0"]
    done = trained(finished, out, *options, "validation.patience=2")
    assert (done.step, done.best_step, done.stopped) == (3, 1, False)
    assert "Finished." in (out / "index.html").read_text()
    again = command(str(finished), "--out", str(out), "--device=cpu", "--resume")
    assert (again.code, state(out / "last.pt")["step"]) == (0, 3)
    assert "ended early" in again.err
    more = trained(finished, out, *options, "validation.patience=3", resume=True)
    assert (more.step, more.best_step) == (4, 1)
    other_score = trained(finished, out, *options, "validation.best=mse", "validation.patience=3", resume=True)
    assert (other_score.step, other_score.best_step) == (7, 5)  # what is the best is sought anew


def test_what_makes_no_sense_is_refused(finished: Path, other: Path, tmp_path: Path) -> None:
    """Scores of what is trained on, an error that nothing is scored by, a weight of 0: before a folder is begun."""
    out = tmp_path / "run"
    cases = [
        (1, "all of it is trained on", [str(other)], ["--validation", str(other)]),
        (1, "take sad, mse", [str(finished)], ["--set=validation.best=other.sad"]),
        (2, "a weight lies within", [f"{finished}=0"], []),
        (1, "this dataset was built without", [str(finished), str(bare(tmp_path))], ["--set=losses.compositional=1"]),
    ]
    for code, text, datasets, more in cases:
        done = command(*datasets, *arguments(finished, out, *more)[1:])
        assert (done.code, text in " ".join(done.err.split())) == (code, True), done.err
    assert not out.exists()


def bare(folder: Path) -> Path:
    """Build a dataset that keeps no backgrounds."""
    more = ["--set=foregrounds.count=1", "--set=variants=1", "--set=backgrounds.count=1", "--set=split.validation=0"]
    assert call("build", "demo", "--out", str(folder / "bare"), "-j", "1", *more).code == 0
    return folder / "bare"


def test_natural_pictures_mix_with_composed_ones(finished: Path, tmp_path: Path) -> None:
    """Pictures as they are beside composites, by weight, in one stream; layers that only some have are refused."""
    for number in range(2):
        picture, alpha = soft_disc(90, 80, number)
        save(tmp_path / "pictures" / f"{number}.png", picture)
        save(tmp_path / "alphas" / f"{number}.png", alpha)
    folders = ["--foregrounds", str(tmp_path / "pictures"), "--alphas", str(tmp_path / "alphas")]
    natural = tmp_path / "natural"
    assert call("build", *folders, "--set", "foregrounds.compose=false", "--out", str(natural), "-j", "1",
                "--variants", "2").code == 0  # fmt: skip
    options: dict[str, Any] = {"batch": 4, "crop": 32, "sizes": (32, 48)}
    batch = next(iter(open_stream([finished, (natural, 3)], **options)))
    assert sorted(batch.datasets.tolist()) == [0, 1, 1, 1]
    rows = open_dataset(natural)
    assert not any(rows.row(int(n)).composed for n, d in zip(batch.samples, batch.datasets, strict=True) if d)
    with pytest.raises(DatasetError, match=r"natural: .*taken as they are.*leave it out"):
        open_stream([finished, natural], colours=True, **options)
    assert trained([finished, (natural, 0.5)], tmp_path / "run", "steps=1").step == 1


def test_a_weight_is_not_a_name(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that ends in = and a number is asked about, and taken where its weight is given, too."""
    monkeypatch.chdir(tmp_path)
    Path("lr=0.5").symlink_to(finished)
    Path("lr").symlink_to(finished)
    asked = command(*arguments(Path("lr=0.5"), tmp_path / "run", "--dry-run"))
    assert asked.code == 2
    assert "write lr=0.5=1, or lr/=0.5" in " ".join(asked.err.split())
    for text, path in (("lr=0.5=1", "lr=0.5"), ("lr/=0.5", "lr")):
        found = command(text, str(finished), *arguments(finished, tmp_path / "run", "--dry-run", "--json")[1:]).json
        assert found["datasets"][0]["path"] == path
        assert [one["share"] for one in found["datasets"]] == ([1 / 2] * 2 if path == "lr=0.5" else [1 / 3, 2 / 3])


def test_a_resume_is_of_the_same_datasets(finished: Path, other: Path, mixed: Path) -> None:
    """Their number, their order and their weights decide the order of crops: another one is refused."""
    cases: list[tuple[str, Any]] = [
        ("trained on 2 datasets, not 1", finished),
        ("was trained on another dataset", [other, (finished, 0.5)]),
        ("weights were as 2:1, are 1:1", [finished, other]),
    ]
    for text, datasets in cases:
        with pytest.raises(TrainingError, match=text):
            trained(datasets, mixed, "stream.batch=3", resume=True)
    trained([(finished, 2), other], mixed, "stream.batch=3", resume=True)  # the same ratio


def test_an_older_checkpoint_goes_on(finished: Path, whole: Path, tmp_path: Path) -> None:
    """One that knew of one dataset, and by what its best was found, to nobody's surprise."""
    out = tmp_path / "run"
    trained(finished, out, stop=3)
    now = torch.load(out / "last.pt", weights_only=True)
    (one,) = now.pop("datasets")
    del now["worse"], now["decided_by"]
    torch.save(
        now | {"version": 2, "plan_sha256": one["plan_sha256"], "composites": one["composites"]}, out / "last.pt"
    )
    trained(finished, out, resume=True)
    assert same(state(out / "last.pt"), state(whole / "last.pt"))
