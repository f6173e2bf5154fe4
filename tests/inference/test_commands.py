"""`matting-predict` and `matting-export`: files in, files out, and what is wrong with them said plainly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from conftest import photograph, save, soft_disc
from matting_compose.composer.base.errors import FileError
from matting_compose.composer.base.files import share_folder, temporary_name
from matting_compose.composer.compositing.blending import blend
from matting_compose.trainer import commands
from matting_compose.trainer.inference import methods, predict_files
from matting_compose.trainer.inference.user_trimaps import trimap_from_alpha


def predict(*arguments: object) -> Result:
    return CliRunner().invoke(commands.predict, [str(a) for a in arguments])


def read(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert picture is not None, path
    return np.asarray(picture)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Images with their alphas, trimaps and hard masks."""
    for i, (height, width) in enumerate([(60, 70), (48, 90)]):
        foreground, alpha = soft_disc(height, width, i)
        save(tmp_path / "images" / f"{i}.png", blend(foreground, alpha, photograph(height, width, i)))
        save(tmp_path / "masks" / f"{i}.png", np.where(alpha >= 128, 255, 0).astype(np.uint8))
        save(tmp_path / "trimaps" / f"{i}.png", np.where(alpha % 255 > 0, 128, alpha).astype(np.uint8))
    save(tmp_path / "new.jpg", photograph(100, 40, 9))
    return tmp_path


def test_folders_in_folders_out(tree: Path) -> None:
    """All products of all pictures: alphas where an evaluation expects them, the others in folders of their own."""
    pytest.importorskip("pymatting")
    out = tree / "out"
    done = predict(
        tree / "images", "--trimap", tree / "trimaps", "--method", "trimap", "-o", out,
        "--cutout", "--background", tree / "new.jpg", "--panel", "--save-trimap", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["written"] == [str(out / "0.png"), str(out / "1.png")]
    kinds = {"": ".png", "cutout/": ".png", "composite/": ".png", "panel/": ".jpg", "trimap/": ".png"}
    expected = {f"{folder}{i}{ending}" for i in (0, 1) for folder, ending in kinds.items()}
    assert {str(path.relative_to(out)) for path in out.rglob("*.*")} == expected
    alpha, trimap = read(out / "0.png"), read(tree / "trimaps" / "0.png")
    np.testing.assert_array_equal(alpha, trimap)  # 128 is 0.5, rounded
    np.testing.assert_array_equal(read(out / "trimap" / "0.png"), trimap)
    cutout, image = read(out / "cutout" / "0.png"), read(tree / "images" / "0.png")
    np.testing.assert_array_equal(cutout[..., 3], alpha)
    solid = alpha == 255
    np.testing.assert_array_equal(cutout[solid][:, :3], image[solid])
    composite = read(out / "composite" / "0.png")
    assert composite.shape == image.shape
    np.testing.assert_array_equal(composite[solid], cutout[solid][:, :3])
    assert np.abs(composite[alpha == 0].astype(int) - image[alpha == 0]).mean() > 5  # another background


def test_a_network_mattes_a_picture_to_16_bits(tree: Path) -> None:
    """One file in, one out; the checkpoint comes first; 16 bits hold what 8 round."""
    networks = pytest.importorskip("small_networks")
    network = networks.lively()
    checkpoint = networks.checkpoint(tree / "last.pt", network)
    given = [checkpoint, tree / "images" / "0.png", "--trimap", tree / "trimaps" / "0.png"]
    assert predict(*given, "-o", tree / "a.png", "--bits", "16").exit_code == 0
    assert predict(*given, "-o", tree / "b.png").exit_code == 0
    deep, plain = read(tree / "a.png"), read(tree / "b.png")
    assert deep.dtype == np.uint16
    assert plain.dtype == np.uint8
    assert len(np.unique(deep)) > len(np.unique(plain)) > 20
    assert np.abs(deep / 257 - plain).max() <= 0.51
    assert predict(*given, "-o", tree / "c.png", "--method", "segmentation").exit_code == 0
    np.testing.assert_array_equal(read(tree / "c.png"), np.where(deep >= 32768, 255, 0))
    broken = predict(tree / "images" / "0.png", *given[1:], "-o", tree / "d.png", "--method", "network")
    assert broken.exit_code == 1
    assert "0.png: no checkpoint" in broken.stderr


def test_exports_are_taken_for_checkpoints(tree: Path) -> None:
    """safetensors give the same mattes; ONNX is proven as it is written."""
    networks = pytest.importorskip("small_networks")
    pytest.importorskip("safetensors")
    pytest.importorskip("onnxruntime")
    checkpoint = networks.checkpoint(tree / "last.pt", networks.lively())
    for name in ("m.safetensors", "m.onnx"):
        done = CliRunner().invoke(commands.export, [str(checkpoint), "-o", str(tree / name), "--json"])
        assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["largest"] < 1e-5
    for source, out in ((checkpoint, "a.png"), (tree / "m.safetensors", "b.png")):
        given = [source, tree / "images" / "0.png", "--trimap", tree / "trimaps" / "0.png", "-o", tree / out]
        assert predict(*given).exit_code == 0
    assert (tree / "a.png").read_bytes() == (tree / "b.png").read_bytes()
    wrong = CliRunner().invoke(commands.export, [str(checkpoint), "-o", "m.pt"])
    assert wrong.exit_code == 2


def test_masks_and_cutouts_need_no_trimap(tree: Path) -> None:
    """A mask beside the picture, or the picture's own alpha."""
    given = ["--method", "trimap", "--save-trimap"]
    assert predict(tree / "images", "--mask", tree / "masks", *given, "-o", tree / "a").exit_code == 0
    mask, trimap = read(tree / "masks" / "0.png"), read(tree / "a" / "trimap" / "0.png")
    assert set(np.unique(trimap)) == {0, 128, 255}
    assert (mask[trimap == 255] == 255).all()
    assert (mask[trimap == 0] == 0).all()
    save(tree / "rgba.png", np.dstack([read(tree / "images" / "0.png"), mask]))
    assert predict(tree / "rgba.png", *given, "-o", tree / "b.png").exit_code == 0
    np.testing.assert_array_equal(read(tree / "b-trimap.png"), trimap)


def test_composites_of_one_foreground_share_its_mask(tree: Path) -> None:
    """A mask serves the pictures that add a number to its name, unless it is that of a picture of its own."""
    (tree / "images" / "0.png").rename(tree / "images" / "0_7.png")
    given = ["--mask", tree / "masks", "--method", "trimap"]
    assert predict(tree / "images", *given, "-o", tree / "a").exit_code == 0
    assert {path.name for path in (tree / "a").iterdir()} == {"0_7.png", "1.png"}
    (tree / "images" / "0_7.png").rename(tree / "images" / "1_7.png")
    refused = predict(tree / "images", *given, "-o", tree / "b")
    assert "no picture is called '1_7'" in refused.stderr


def test_one_bad_picture_does_not_stop_the_others(tree: Path) -> None:
    """It is named, and shows in the exit code."""
    (tree / "images" / "0.png").write_bytes(b"broken")
    done = predict(tree / "images", "--trimap", tree / "trimaps", "--method", "trimap", "-o", tree / "out", "--json")
    assert done.exit_code == 3
    result = json.loads(done.stdout)
    assert list(result["failures"]) == [str(tree / "images" / "0.png")]
    assert result["written"] == [str(tree / "out" / "1.png")]
    assert not (tree / "out" / "0.png").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ("last.pt images/0.png --trimap trimaps/0.png -o a.png", 1, "last.pt: cannot be read"),
        ("images/0.png --trimap trimaps/0.png --method network -o a.png", 2, "takes a checkpoint and then images"),
        ("images/0.png --trimap a --mask b -o a.png --method trimap", 2, "exclude each other"),
        ("images/0.png -o a.png --method trimap", 1, "give --trimap, or --mask"),
        ("images --trimap trimaps/0.png -o a --method trimap", 1, "2 images need a folder of them"),
        ("images --trimap trimaps -o a.png --method trimap", 1, "-o must be a folder"),
        ("images --trimap images/../trimaps -o images --method trimap", 1, "would replace its own input"),
        ("images/0.png --trimap trimaps/0.png -o a.jpg --method trimap", 1, "written as .png"),
        ("nowhere.png --trimap trimaps/0.png -o a.png --method trimap", 1, "found nothing"),
        ("images/0.png --trimap trimaps/1.png -o a.png --method trimap", 1, "the trimap is 90×48 px, its image 70×60"),
        ("images/0.png --trimap masks/0.png -o a.png --method trimap", 1, "no pixel is unknown (128)"),
        ("images/0.png --trimap images/0.png -o a.png --method trimap", 1, "its three channels differ"),
        ("images/0.png --mask masks/1.png -o a.png --method trimap", 1, "the mask is 90×48 px"),
        ("images/0.png --trimap trimaps/0.png -o a.png --tile 1000 --method trimap", 2, "multiple of 16"),
        ("images images/0.png --trimap trimaps -o out --method trimap", 1, "the same result"),
    ],
)
def test_what_is_wrong_is_explained(
    tree: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, code: int, text: str
) -> None:
    """With the file's name, and the way out."""
    monkeypatch.chdir(tree)
    before = {path: path.read_bytes() for path in tree.rglob("*.*")}
    done = predict(*arguments.split())
    assert done.exit_code == code, done.stderr
    assert text in done.stderr
    assert {path: path.read_bytes() for path in tree.rglob("*.*")} == before


def test_radii_follow_the_subjects_size() -> None:
    """Twice the subject, twice the radius; never below 2 px; fractional pixels are always unknown."""
    widths = []
    for side in (100, 200, 10):
        mask = np.zeros((3 * side, 3 * side), np.uint8)
        mask[side : 2 * side, side : 2 * side] = 255
        unknown = trimap_from_alpha(mask, "m", radius=40) == 128
        widths.append(int(unknown[3 * side // 2, : 3 * side // 2].sum()))
    assert widths == [8, 16, 4]
    soft = np.full((50, 50), 128, np.uint8)
    soft[0] = 0
    assert (trimap_from_alpha(soft, "m")[1:] == 128).all()
    for flat in (0, 255):
        with pytest.raises(FileError, match="all over"):
            trimap_from_alpha(np.full((9, 9), flat, np.uint8), "m")


def test_commands_explain_themselves() -> None:
    """Every option has help, every command an example, and the methods are those that there are."""
    for command in (commands.predict, commands.evaluate, commands.export):
        text = CliRunner().invoke(command, ["--help"]).stdout
        assert "Example" in text
        for parameter in command.params:
            assert isinstance(parameter, click.Argument) or parameter.help, parameter.name
    assert commands.METHODS == methods.METHODS
    assert commands.NETWORK == methods.NETWORK


def test_help_is_quick() -> None:
    """Help imports neither NumPy nor OpenCV nor torch."""
    code = "import sys, matting_compose.trainer.commands; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"h5py", "cv2", "torch", "numpy", "pymatting"} & set(loaded)


def test_subfolders_are_matted_into_subfolders(tree: Path) -> None:
    """Masks may lie among the pictures; results of an earlier run are no pictures; evaluation takes all of it."""
    pytest.importorskip("pymatting")
    images = tree / "images"
    for i in (0, 1):
        (images / "deep").mkdir(exist_ok=True)
        (images / f"{i}.png").rename(images / "deep" / f"{i}.png")
        (tree / "masks" / f"{i}.png").rename(images / "deep" / f"{i}_mask.png")
        save(tree / "truths" / "deep" / f"{i}_alpha.png", read(images / "deep" / f"{i}_mask.png"))
    out = images / "out"
    for _ in range(2):
        done = predict(images, "--mask", images, "--method", "trimap", "-o", out, "--cutout", "--save-trimap", "--json")
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)["written"] == [str(out / "deep" / f"{i}.png") for i in (0, 1)]
    assert (out / "cutout" / "deep" / "0.png").exists()
    graded = CliRunner().invoke(
        commands.evaluate, ["--predictions", str(out), "--truths", str(tree / "truths"), "-j", "1", "--json"]
    )
    assert graded.exit_code == 0, graded.stderr
    assert [score["image"] for score in json.loads(graded.stdout)["scores"]] == ["deep/0_alpha", "deep/1_alpha"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--background", "gone.jpg"], "gone.jpg: cannot be read: No such file"),
        (["--cutout", "-o", "work"], "cutout/0.png: the result would replace its own input"),
        (["--background", "work/composite/0.png", "-o", "work"], "composite/0.png: the result would replace its own"),
        (["--cutout", "more", "-o", "elsewhere"], "two results would be written there"),
        (["-o", "new.jpg/results"], "results cannot be written there"),
    ],
)
def test_what_all_pictures_need_is_seen_to_first(
    tree: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], text: str
) -> None:
    """Once, in one line, and nothing is written or replaced."""
    pytest.importorskip("pymatting")
    monkeypatch.chdir(tree)
    (tree / "work").mkdir()
    (tree / "images").rename(tree / "work" / "cutout")
    save(tree / "work" / "composite" / "0.png", photograph(20, 20, 0))
    for name in ("x.png", "cutout/x.png"):
        save(tree / "more" / name, np.dstack([photograph(20, 20, 0), soft_disc(20, 20, 0)[1]]))
        save(tree / "trimaps" / name, np.full((20, 20), 128, np.uint8))
    before = {path: path.read_bytes() for path in tree.rglob("*.*") if path.is_file()}
    done = predict("work/cutout", "--trimap", "trimaps", "--method", "trimap", "-o", "out", *arguments)
    assert done.exit_code == 1
    assert [text in line for line in done.stderr.splitlines()] == [True], done.stderr
    assert {path: path.read_bytes() for path in tree.rglob("*.*") if path.is_file()} == before


def test_a_fault_of_a_library_is_one_pictures(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named with its type, and the other picture is matted; so is a picture of one pixel."""
    pytest.importorskip("pymatting")
    save(tree / "images" / "2.png", np.full((1, 1, 3), 99, np.uint8))
    save(tree / "trimaps" / "2.png", np.full((1, 1), 128, np.uint8))

    def fail_once(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        if image.shape == (60, 70, 3):
            raise ZeroDivisionError("by zero")
        return image

    monkeypatch.setattr(predict_files, "estimate_foreground", fail_once)
    given = (tree / "images", "--trimap", tree / "trimaps", "--method", "trimap", "-o", tree / "out")
    done = predict(*given, "--cutout", "--json")
    assert done.exit_code == 3
    assert list(json.loads(done.stdout)["failures"].values()) == ["0.png: ZeroDivisionError: by zero"]
    assert {path.name for path in (tree / "out" / "cutout").iterdir()} == {"1.png", "2.png"}
    monkeypatch.undo()
    assert predict(*given, "--cutout", "--panel", "--background", tree / "new.jpg").exit_code == 0


def test_a_classical_method_leaves_the_networks_threads_alone() -> None:
    """Numba sets OpenMP's number of threads for all: it is asked for as many as the rest."""
    pytest.importorskip("pymatting")
    code = (
        "import numpy as np, torch\n"
        "from matting_compose.trainer.inference.methods import MatteOptions, make_matte\n"
        "trimap = np.repeat(np.array([0, 128, 255], np.uint8), 8)[:, None].repeat(24, 1)\n"
        "image = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)\n"
        "make_matte('closed-form', image, trimap, MatteOptions())\n"
        "print(torch.get_num_threads())"
    )
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment | {"OMP_NUM_THREADS": "1"}
    )
    assert done.stdout.split()[-1:] == ["1"], done.stderr


def test_what_a_solver_says_does_not_spoil_json(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pymatting prints its warnings; what is printed for scripts stays one JSON object."""
    package = pytest.importorskip("pymatting")

    def chatter(image: np.ndarray, trimap: np.ndarray) -> np.ndarray:
        print("PERFORMANCE WARNING: try a larger shift")
        return trimap

    monkeypatch.setattr(package, "estimate_alpha_cf", chatter)
    given = (tree / "images", "--trimap", tree / "trimaps", "--method", "closed-form", "-o", tree / "out")
    done = predict(*given, "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["failures"] == {}


KILLED = """
import os, signal, sys
from matting_compose.composer.base import files
from matting_compose.trainer.commands import predict
files.sync_to_disk = lambda path: os.kill(os.getpid(), signal.SIGKILL)
predict(sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="folders have no locks there")
@pytest.mark.parametrize("out", ["out", "out/0.png"])
def test_what_a_killed_prediction_left_is_cleared_away(tree: Path, out: str) -> None:
    """By the next that writes the same, if no other writes there; nobody else's files, nor those of other results."""
    (tree / "out").mkdir()
    images, trimaps = (tree / kind / ("" if out == "out" else "0.png") for kind in ("images", "trimaps"))
    given = [images, "--trimap", trimaps, "--method", "trimap", "-o", tree / out]
    subprocess.run([sys.executable, "-c", KILLED, *map(str, given)], capture_output=True, check=False)
    [left] = (tree / "out").iterdir()
    assert left.name.startswith(".0.png.")
    others = [tree / "out" / ".0.png.tmp", temporary_name(tree / "out" / "8.png")]
    for path in others:
        path.touch()
    with share_folder(tree / "out", []):
        assert predict(*given).exit_code == 0
    assert left.exists()
    assert predict(*given).exit_code == 0
    found = {path.name for path in (tree / "out").iterdir()} - {"0.png", "1.png"}
    assert found == {path.name for path in others}


def test_files_are_read_and_written_beside_the_matting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one is matted the next is read, no other, and the last one written; results come in order."""
    count = 4
    reading, begun = ([threading.Event() for _ in range(count + 2)] for _ in range(2))
    for number in range(count):
        trimap = np.repeat(np.array([[0, 128, 255]], np.uint8), 3, axis=0)
        save(tmp_path / "images" / f"{number}.png", np.full((3, 3, 3), number, np.uint8))
        save(tmp_path / "trimaps" / f"{number}.png", trimap)
    read_image, write_picture = predict_files.read_image, predict_files.write_picture

    def read_one(path: Path) -> np.ndarray[Any, Any]:
        picture = read_image(path)
        reading[int(path.stem)].set()
        return picture

    def matte_one(_: str, image: np.ndarray[Any, Any], trimap: np.ndarray[Any, Any], __: object) -> Any:
        number = int(image[0, 0, 0])
        begun[number].set()
        assert number == count - 1 or reading[number + 1].wait(60)
        assert not reading[number + 2].is_set()
        if number == 1:
            raise ValueError("this one fails")
        return trimap.astype(np.float32) / 255

    def write_one(path: Path, picture: np.ndarray[Any, Any]) -> None:
        assert path.stem == str(count - 1) or begun[int(path.stem) + 1].wait(60)
        write_picture(path, picture)

    for name, changed in (("read_image", read_one), ("make_matte", matte_one), ("write_picture", write_one)):
        monkeypatch.setattr(predict_files, name, changed)
    options = predict_files.PredictOptions("closed-form")
    tasks = predict_files.plan_tasks([tmp_path / "images"], tmp_path / "trimaps", None, tmp_path / "out", options)
    errors = [result.error for result in predict_files.run_tasks(tasks, options)]
    assert errors == [None, "1.png: ValueError: this one fails", None, None]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "2.png", "3.png"]
