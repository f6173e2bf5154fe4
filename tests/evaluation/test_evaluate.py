"""Grading: strict about files, the metrics' own numbers, honest means, the same for any number of processes."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import Browser, find_faults
from click.testing import CliRunner, Result

from conftest import Pictures, decode_webp, page_data, run, save, soft_disc
from matting_compose.trainer import commands
from matting_compose.trainer.evaluation import evaluate, scoresheet
from matting_compose.trainer.evaluation.cases import CasePictures, FolderCase, folder_cases
from matting_compose.trainer.evaluation.evaluate import Competitor, bootstrap
from matting_compose.trainer.evaluation.evaluate import evaluate as grade_all
from matting_compose.trainer.evaluation.gallery import CELL, Gallery, draw_preview
from matting_compose.trainer.inference import methods
from matting_compose.trainer.metrics import METRICS, sad


def grade(*arguments: object) -> Result:
    return CliRunner().invoke(commands.evaluate, [str(a) for a in (*arguments, "-j", "1")])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Truths, trimaps, images, and two sets of predictions: the truth itself, and a blurred one."""
    for i, (height, width) in enumerate([(60, 70), (48, 90), (80, 51)]):
        image, alpha = soft_disc(height, width, i)
        band = cv2.dilate((alpha % 255 > 0).astype(np.uint8), np.ones((9, 9), np.uint8))
        for folder, picture in {
            "truths": alpha,
            "trimaps": np.where(band > 0, 128, alpha).astype(np.uint8),
            "images": image,
            "same": alpha,
            "blurred": cv2.GaussianBlur(alpha, (0, 0), 1 + i),
        }.items():
            save(tmp_path / folder / f"disc {i}.png", np.asarray(picture, np.uint8))
    return tmp_path


def folders(tree: Path, *names: str) -> list[str]:
    return [part for name in names for part in (f"--{name}", str(tree / name))]


def test_scores_are_the_metrics_own(tree: Path, tmp_path: Path) -> None:
    """Per picture, per foreground, on average; over the unknown region, and over whole pictures; JSON and CSV alike."""
    given = ["--predictions", tree / "same", "--predictions", tree / "blurred", *folders(tree, "truths", "trimaps")]
    for more in ([], ["--whole"]):
        result = json.loads(grade(*given, *more, "--json", "-o", tmp_path / "out").stdout)
        assert result["metrics"] == ("shm" if more else "composition-1k")
        assert result["region"] == ("the whole picture" if more else "the unknown region")
        for score in result["scores"]:
            p, g, t = (
                cv2.imread(str(tree / folder / f"{score['image']}.png"), cv2.IMREAD_UNCHANGED)
                for folder in (score["competitor"], "truths", "trimaps")
            )
            for key, metric in METRICS.items():
                assert score[key] == metric(p, g, None if more else t)
        same, blurred = result["summaries"]
        assert all(interval["mean"] == 0 for interval in same["means"].values())
        own = [score["sad"] for score in result["scores"] if score["competitor"] == "blurred"]
        assert blurred["means"]["sad"]["mean"] == pytest.approx(np.mean(own))
        assert blurred["means"]["sad"]["low"] < np.mean(own) < blurred["means"]["sad"]["high"]
        with (tmp_path / "out" / "scores.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert [float(row["gradient"]) for row in rows] == [score["gradient"] for score in result["scores"]]
        assert json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8")) == result


def test_without_trimaps_whole_pictures_are_graded(tree: Path) -> None:
    """SHM's variant, and the table says who is better."""
    done = grade("--predictions", tree / "blurred", "--predictions", tree / "same", *folders(tree, "truths"))
    assert done.exit_code == 0
    assert re.search(r"^same +3 +0 \[0, 0\]", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda t: (t / "blurred/disc 1.png").unlink(), "no prediction for disc 1"),
        (lambda t: (t / "blurred/disc 1.png").rename(t / "blurred/disc 9.png"), "no prediction for disc 1"),
        (lambda t: save(t / "blurred/extra.png", np.zeros((9, 9), np.uint8)), "no case that expects prediction extra"),
        (lambda t: save(t / "blurred/disc 1.png", np.zeros((90, 48), np.uint8)), "disc 1.png: 48×90 px, but its truth"),
        (lambda t: save(t / "trimaps/disc 1.png", np.zeros((9, 48), np.uint8)), "disc 1.png: 48×9 px, but its truth"),
        (lambda t: (t / "truths/disc 2.png").unlink(), "no truth for disc 2"),
        (lambda t: (t / "trimaps/disc 2.png").unlink(), "no case that uses truth disc 2"),
        (lambda t: save(t / "blurred/disc 1.bmp", np.zeros((9, 9), np.uint8)), "differ by their endings only"),
    ],
)
def test_what_does_not_fit_is_an_error_with_its_name(tree: Path, spoil, text: str) -> None:
    """No prediction is left out of a mean in silence."""
    spoil(tree)
    done = grade("--predictions", tree / "blurred", *folders(tree, "truths", "trimaps"))
    assert done.exit_code == 1
    assert text in done.stderr
    assert not done.stdout


def test_one_truth_serves_the_numbered_cases_of_composition_1k(tree: Path) -> None:
    """1,000 trimaps and predictions {name}_{0..19} over 50 truths {name}; foregrounds are the truths."""
    for folder in ("trimaps", "blurred"):
        for path in list((tree / folder).glob("*.png")):
            for i in range(2):
                (path.parent / f"{path.stem}_{i}.png").write_bytes(path.read_bytes())
            path.unlink()
    result = json.loads(grade("--predictions", tree / "blurred", *folders(tree, "truths", "trimaps"), "--json").stdout)
    assert len(result["scores"]) == 6
    assert list(result["summaries"][0]["foregrounds"]) == ["disc 0", "disc 1", "disc 2"]


def test_any_number_of_processes_gives_the_same(tree: Path) -> None:
    """Byte for byte, methods included."""
    given = [*folders(tree, "images", "trimaps", "truths"), "--method", "trimap", "--method", "perfect-mask", "--json"]
    one = grade(*given)
    two = CliRunner().invoke(commands.evaluate, [*given, "-j", "2"])
    assert one.exit_code == 0
    assert one.stdout == two.stdout


def test_the_page_shows_the_worst_cases(tree: Path, tmp_path: Path) -> None:
    """As pictures within the page, so that it can be sent; all others with their errors alone; names are text."""
    for folder in ("images", "trimaps", "truths"):
        (tree / folder / "disc 0.png").rename(tree / folder / "<b>&.png")
    arguments = ["--method", "trimap", "--method", "perfect-mask", "-o", tmp_path / "out", "--worst", 2, "--json"]
    result = json.loads(grade(*folders(tree, "images", "trimaps", "truths"), *arguments).stdout)
    data = page_data(tmp_path / "out" / "index.html")
    assert [case["name"] for case in data["cases"]] == ["<b>&", "disc 1", "disc 2"]
    own = {name: [s for s in result["scores"] if s["competitor"] == name] for name in data["competitors"]}
    worst = {max(scores, key=lambda score: score["sad"])["image"] for scores in own.values()}
    shown = {case["name"] for case in data["cases"] if case["preview"]}
    assert len(shown) == 2
    assert worst <= shown
    for case in data["cases"]:
        for name, errors in case["errors"].items():
            score = next(s for s in own[name] if s["image"] == case["name"])
            assert errors == pytest.approx([score[metric] for metric in result["units"]], rel=1e-3)
    assert "<b>&" not in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


def test_the_place_of_the_largest_error_is_shown_as_it_is() -> None:
    """Pixel by pixel, of truth and of all mattes; errors are amplified, and what is not graded has none."""
    truth = np.zeros((400, 500), np.uint8)
    near, far = truth.copy(), truth.copy()
    near[300:320, 420:440] = 30
    far[10:200, 10:200] = 255  # known: not graded
    trimap = np.where(np.arange(500) >= 250, np.uint8(128), np.uint8(0))[None].repeat(400, axis=0)
    found = draw_preview(CasePictures(truth, trimap, None), {"near": near, "far": far}, masked=True)
    assert (found.width, found.height, found.image) == (500, 400, None)
    assert found.y <= 300 <= 320 <= found.y + found.side
    assert found.x <= 420 <= 440 <= found.x + found.side
    inside = np.s_[300 - found.y + 4 : 320 - found.y - 4, 420 - found.x + 4 : 440 - found.x - 4]
    assert decode_webp(found.alphas["near"].detail).shape[:2] == (found.side, found.side) == (CELL, CELL)
    assert np.abs(decode_webp(found.errors["near"].detail)[inside].astype(int) - 120).max() <= 3
    assert decode_webp(found.errors["far"].whole).max() <= 3
    assert max(decode_webp(found.truth.whole).shape[:2]) == CELL
    whole = draw_preview(CasePictures(truth, trimap, None), {"near": near, "far": far}, masked=False)
    assert whole.x + whole.side <= 200


def test_the_gallery_is_bounded() -> None:
    """The worst of each method in equal parts, then the worst on average; never more than are wanted."""
    preview = draw_preview(CasePictures(np.zeros((9, 9), np.uint8), None, None), {}, False)
    gallery = Gallery(3, 2)
    for number, (case, errors) in enumerate({"a": (9, 0), "b": (8, 8), "c": (0, 9), "d": (1, 1), "e": (7, 7)}.items()):
        gallery.add(case, number, dict(zip(("one", "two"), errors, strict=True)), preview)
    assert list(gallery.previews()) == ["a", "c", "b"]


def test_the_page_in_a_browser(tmp_path: Path, page: Browser) -> None:
    """Sorted by each error of each method, by foreground, and filtered; errors for alphas; on every screen."""
    for i in range(2):
        image, alpha = soft_disc(60, 70, i)
        save(tmp_path / "truths" / f"<i>{i}.png", alpha)
        for k in range(17):
            blurred = cv2.GaussianBlur(alpha, (0, 0), 1 + k / 4)
            for folder, picture in {"images": image, "blurred": blurred, "ä" * 60: alpha}.items():
                save(tmp_path / folder / f"<i>{i}_{k}.png", np.asarray(picture, np.uint8))
    given = ["--images", tmp_path / "images", "--truths", tmp_path / "truths", "-o", tmp_path / "out", "--worst", 33]
    done = grade("--predictions", tmp_path / "blurred", "--predictions", tmp_path / ("ä" * 60), *given)
    assert done.exit_code == 0, done.stderr
    address = (tmp_path / "out" / "index.html").as_uri()
    page.open(address)
    names = "[...document.querySelectorAll('#cases h3')].map(h => h.firstChild.data)"
    data = page_data(tmp_path / "out" / "index.html")
    assert [error["title"] for error in data["errors"]] == ["SAD", "MSE", "Grad", "Conn"]
    for error in range(4):
        page.evaluate(f"form.elements.error.value = {error}; form.dispatchEvent(new Event('input'))")
        expected = sorted(data["cases"], key=lambda case: -case["errors"]["blurred"][error])
        assert page.evaluate(names) == [case["name"] for case in expected[:30]]
    assert page.evaluate("document.getElementById('status').textContent").startswith("34 of 34 pictures; 33 of them")
    page.evaluate("document.getElementById('more').click()")
    assert page.evaluate("document.querySelectorAll('.case').length") == 34
    titles = "[...document.querySelector('.cells').children].map(f => f.firstChild.textContent)"
    assert page.evaluate(titles) == ["image", "blurred", "ä" * 60, "truth"]
    page.press("2")
    assert page.evaluate("document.querySelectorAll('.cells img')[2].alt") == "blurred: error, whole"
    assert page.evaluate("document.querySelectorAll('.case i').length") == 0  # names are no HTML
    rows = "document.querySelectorAll('[aria-label^=Differences]:not([hidden]) th[scope=row]')"
    shown = f"[...{rows}].map(h => h.innerText)"
    assert page.evaluate(shown) == ["ä" * 60]
    page.evaluate("reference.value = 'ä'.repeat(60); reference.dispatchEvent(new Event('input'))")
    assert page.evaluate(shown) == ["blurred"]
    page.evaluate("document.forms[0].elements.grouped.click()")
    assert page.evaluate("document.querySelectorAll('.group').length") == 2
    page.evaluate("document.querySelector('.group').open = true")
    assert page.becomes("document.querySelectorAll('.case').length === 17")
    page.evaluate("form.elements.filter.value = '1_3'; form.dispatchEvent(new Event('input'))")
    assert page.evaluate("document.getElementById('status').textContent").startswith("1 of 34")
    assert find_faults(page, address) == []


def test_the_interval_resamples_foregrounds() -> None:
    """A mean over pictures; wider than if pictures were independent; the same at each call; none for one foreground."""
    rng = np.random.default_rng(3)
    means = rng.normal(50, 10, 40)
    interval = bootstrap(means, np.full(40, 20.0))
    assert interval == bootstrap(means, np.full(40, 20.0))
    assert interval.mean == pytest.approx(means.mean())
    half = 1.96 * means.std() / np.sqrt(40)
    assert interval.high - interval.mean == pytest.approx(half, rel=0.15)
    assert interval.mean - interval.low == pytest.approx(half, rel=0.15)
    assert bootstrap(np.array([1.0, 4.0]), np.array([3.0, 1.0])).mean == 1.75
    assert bootstrap(np.array([5.0]), np.array([20.0])).low is None


def test_a_dataset_is_graded_with_a_checkpoint(pictures: Pictures, tmp_path: Path) -> None:
    """Only its validation foregrounds, where it has some; rivals by the same command; exported weights likewise."""
    networks = pytest.importorskip("small_networks")
    network = networks.lively()
    checkpoint = networks.checkpoint(tmp_path / "last.pt", network)
    out = tmp_path / "dataset"
    assert run(*pictures.arguments(out, "--set", "split.validation=0.4", "-j", "1")).code == 0
    given = ["--dataset", out, "--checkpoint", checkpoint]
    done = grade(*given, "--method", "mnet", "--method", "segmentation", "--method", "trimap", "--json")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert [s["competitor"] for s in result["summaries"]] == ["network", "segmentation", "trimap"]
    assert [s["images"] for s in result["summaries"]] == [8, 8, 8]
    assert len(json.loads(grade(*given, "--split", "all", "--limit", 7, "--json").stdout)["scores"]) == 7

    from matting_compose.composer import open_dataset
    from matting_compose.trainer.inference.tiled import predict_alpha

    dataset, first = open_dataset(out), result["scores"][0]
    sample = next(s for s in dataset if s.row.key == first["image"])
    expected = np.rint(predict_alpha(network, sample.image, sample.trimap) * 255).astype(np.uint8)
    assert first["sad"] == pytest.approx(sad(expected, sample.alpha, sample.trimap))


@pytest.mark.parametrize("method", methods.CLASSICAL)
def test_classical_methods_beat_the_trimap(method: str) -> None:
    """On a disc of one colour over another all of pymatting's methods find most of the alpha."""
    pytest.importorskip("pymatting")
    _, alpha = soft_disc(50, 60, 1)
    grain = np.random.default_rng(0).normal(0, 4, (50, 60, 3))
    share, colours = alpha[..., None] / 255, np.array([[230, 40, 30], [20, 60, 200]])
    image = np.clip(share * colours[0] + (1 - share) * colours[1] + grain, 0, 255).astype(np.uint8)
    trimap = np.where(cv2.dilate((alpha % 255 > 0).view(np.uint8), np.ones((7, 7))) > 0, 128, alpha).astype(np.uint8)
    mattes = [methods.make_matte(name, image, trimap, methods.MatteOptions()) for name in (method, "trimap")]
    found, trivial = (sad(methods.to_bytes(matte), alpha, trimap) for matte in mattes)
    assert found < 0.5 * trivial


def test_classical_methods_work_on_reduced_pictures() -> None:
    """`max_side` is for them too; the trimap's own pixels stay known."""
    pytest.importorskip("pymatting")
    image, alpha = soft_disc(50, 60, 1)
    trimap = np.where(alpha % 255 > 0, 128, alpha).astype(np.uint8)
    reduced = methods.make_matte("closed-form", image, trimap, methods.MatteOptions(max_side=40))
    assert reduced.shape == alpha.shape
    assert (reduced[trimap == 255] == 1).all()
    assert (reduced[trimap == 0] == 0).all()


def test_a_method_that_fails_has_no_means(tree: Path) -> None:
    """What it could do is listed, what it could not is named, and the others are graded."""
    pytest.importorskip("pymatting")
    trimap = cv2.imread(str(tree / "trimaps" / "disc 1.png"), cv2.IMREAD_UNCHANGED)
    save(tree / "trimaps" / "disc 1.png", np.maximum(trimap, 128))
    given = [*folders(tree, "images", "trimaps", "truths"), "--method", "closed-form", "--method", "trimap", "--json"]
    done = grade(*given)
    assert done.exit_code == 3
    result = json.loads(done.stdout)
    assert [summary["competitor"] for summary in result["summaries"]] == ["trimap"]
    assert [(f["competitor"], f["image"]) for f in result["failures"]] == [("closed-form", "disc 1")]
    assert len(result["scores"]) == 5
    assert "closed-form on disc 1: closed-form needs known foreground and known background" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "either --dataset, or --truths"),
        (["--truths", "a", "--dataset", "b"], "either --dataset, or --truths"),
        (["--truths", "a"], "nothing to grade"),
        (["--truths", "a", "--method", "mnet"], "needs a --checkpoint"),
        (["--truths", "a", "--method", "magic"], "Invalid value for '--method'"),
        (["--dataset", "b", "--predictions", "a"], "--predictions go with --truths"),
        (["--truths", "a", "--predictions", "b", "--jobs", "0"], "--jobs takes"),
        (["--truths", "a", "--method", "trimap", "--tile", "1000"], "--tile takes a multiple of 16"),
    ],
)
def test_wrong_usage_is_explained(arguments: list[str], text: str) -> None:
    """With exit code 2, and what would be right."""
    done = CliRunner().invoke(commands.evaluate, arguments)
    assert done.exit_code == 2
    assert text in done.stderr


def test_names_are_escaped_on_the_terminal(tree: Path) -> None:
    """A folder may be called anything."""
    (tree / "same").rename(tree / "s\x1b[31mame")
    done = grade("--predictions", tree / "s\x1b[31mame", *folders(tree, "truths", "trimaps"))
    assert done.exit_code == 0
    assert "s\\x1b[31mame" in done.stdout
    assert "\x1b" not in done.output


def test_a_damaged_picture_costs_no_other_score(tree: Path, tmp_path: Path) -> None:
    """A prediction, a truth or a trimap: it is listed, who is graded on it has no mean, and the exit code says so."""
    given = ["--predictions", tree / "same", "--predictions", tree / "blurred", *folders(tree, "truths", "trimaps")]
    (tree / "blurred" / "disc 1.png").write_bytes(b"broken")
    done = grade(*given, "--json", "-o", tmp_path / "out")
    assert done.exit_code == 3
    result = json.loads(done.stdout)
    assert len(result["scores"]) == 5
    assert [summary["competitor"] for summary in result["summaries"]] == ["same"]
    assert "blurred on disc 1: disc 1.png: not a picture" in done.stderr
    save(tree / "trimaps" / "disc 0.png", np.zeros((60, 70), np.uint8))
    done = grade(*given, "--json")
    assert (done.exit_code, json.loads(done.stdout)["summaries"]) == (3, [])
    assert "same on disc 0: disc 0.png: no pixel is unknown" in done.stderr
    for path in (tree / "truths").iterdir():
        path.write_bytes(b"broken")
    assert grade(*given).exit_code == 1


def test_trimaps_are_mended_as_for_predictions(tree: Path) -> None:
    """Levels of 127 grade the same region as those of 128."""
    given = ["--predictions", tree / "blurred", *folders(tree, "truths", "trimaps"), "--json"]
    before = grade(*given).stdout
    for path in (tree / "trimaps").iterdir():
        trimap = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        save(path, np.where(trimap == 128, np.uint8(127), trimap))
    assert grade(*given).stdout == before


def test_truths_graded_against_themselves_are_refused(tree: Path) -> None:
    """A folder of predictions that is the truths', or a link to it, would be perfect."""
    (tree / "link").symlink_to(tree / "truths")
    for folder in ("truths", "link"):
        done = grade("--predictions", tree / folder, *folders(tree, "truths"))
        assert done.exit_code == 1
        assert "its predictions are the truths themselves" in done.stderr


def test_a_part_of_a_test_set_is_never_graded_in_silence(tree: Path) -> None:
    """What lies in subfolders counts: as a case, as a prediction that is missing, as one too many."""
    given = ["--predictions", tree / "same", *folders(tree, "truths")]
    (tree / "truths" / "hard").mkdir()
    (tree / "truths" / "disc 2.png").rename(tree / "truths" / "hard" / "disc 2.png")
    done = grade(*given)
    assert done.exit_code == 1
    assert "no prediction for hard/disc 2" in done.stderr
    (tree / "same" / "hard").mkdir()
    (tree / "same" / "disc 2.png").rename(tree / "same" / "hard" / "disc 2.png")
    assert len(json.loads(grade(*given, "--json").stdout)["scores"]) == 3


def test_scores_are_kept_as_they_come(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was graded before an interruption stays, also where others begin there; it goes when its own ends."""
    given = ["--predictions", tree / "blurred", *folders(tree, "truths"), "-o"]
    partial = tmp_path / "late" / "scores.partial.csv"

    def stop_late(*_: object) -> None:
        assert "disc 2" in partial.read_text(encoding="utf-8")  # as a kill would leave it
        stop()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scoresheet, "write_scoresheet", stop_late)
    assert grade(*given, tmp_path / "late").exit_code == 130
    assert partial.exists()
    monkeypatch.setattr(evaluate, "summarise", stop)
    assert grade(*given, tmp_path / "out").exit_code == 130
    with (tmp_path / "out" / "scores.partial.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["disc 0", "disc 1", "disc 2"]
    done = grade("--predictions", tree / "same", *given[2:], tmp_path / "out")
    assert done.exit_code == 130
    assert "scores.partial.csv has the scores of a grading that did not end" in done.stderr
    monkeypatch.undo()
    assert grade(*given, tmp_path / "out").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.partial.*")) == [
        "scores.partial.csv",
        "scores.partial.csv.1",
    ]
    with (tmp_path / "out" / "scores.partial.csv").open(encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == rows
    assert grade(*given, tmp_path / "new").exit_code == 0
    assert not list((tmp_path / "new").glob("*.partial.*"))


def test_scores_that_cannot_be_written_are_shown(tree: Path, tmp_path: Path) -> None:
    """An output that is no folder is told before the first; a disk that is full in between ends no grading."""
    given = ["--predictions", tree / "blurred", *folders(tree, "truths"), "-o"]
    shown = grade(*given[:-1]).stdout
    (tmp_path / "file").write_text("mine")
    done = grade(*given, tmp_path / "file")
    assert (done.exit_code, done.stdout) == (1, shown)
    assert "file: cannot be written" in done.stderr.splitlines()[0]
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scores.partial.csv").symlink_to("/dev/full")
    done = grade(*given, tmp_path / "out")
    assert (done.exit_code, done.stdout) == (0, shown)
    assert "the disk is full" in done.stderr
    assert len((tmp_path / "out" / "scores.csv").read_text().splitlines()) == 4


@dataclass(frozen=True)
class DeadlyCase(FolderCase):
    """A case that kills the process which reads it; with a mark, only the first."""

    mark: Path | None = None

    def load(self) -> CasePictures:
        if self.mark is None or not self.mark.exists():
            if self.mark:
                self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().load()


def test_a_killed_worker_is_replaced(tree: Path) -> None:
    """The scores are those of a grading in peace; a picture that kills always is given up, and listed."""
    first, second, third = folder_cases(tree / "truths", trimaps=None, images=None, predictions=[tree / "blurred"])
    competitors, options = [Competitor("blurred")], methods.MatteOptions()
    peace = grade_all([first, second, third], competitors, options, jobs=1)
    once = DeadlyCase(**vars(first), mark=tree / "killed")
    assert grade_all([once, second, third], competitors, options, jobs=2).scores == peace.scores
    result = grade_all([first, DeadlyCase(**vars(second)), third], competitors, options, jobs=2)
    assert result.scores == (peace.scores[0], peace.scores[2])
    assert [failure.image for failure in result.failures] == ["disc 1"]
    assert "a worker process was killed" in result.failures[0].reason
