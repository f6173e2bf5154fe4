"""`matting-predict` and `matting-export`: files in, files out, and what is wrong with them said plainly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from conftest import photograph, save, soft_disc
from matting_compose.composer.base.errors import FileError
from matting_compose.composer.compositing.blending import blend
from matting_compose.trainer import commands
from matting_compose.trainer.inference import methods
from matting_compose.trainer.inference.user_trimaps import checked_trimap, trimap_from_alpha


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
    broken = predict(tree / "images" / "0.png", *given[1:], "-o", tree / "d.png")
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
        ("images/0.png --trimap trimaps/0.png -o a.png", 2, "takes a checkpoint and then images"),
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


def test_trimaps_are_mended_where_that_is_safe() -> None:
    """What JPEG does to levels is undone, with a warning; a smoothed border is unknown."""
    trimap = np.repeat(np.repeat(np.array([[0, 128, 255]], np.uint8), 40, 0), 40, 1)
    assert checked_trimap(trimap, trimap.shape, "t") == (pytest.approx(trimap), [])
    noisy = np.clip(trimap + np.random.default_rng(1).integers(-9, 10, trimap.shape), 0, 255).astype(np.uint8)
    noisy[:, 39] = 64
    mended, warnings = checked_trimap(noisy, trimap.shape, "t.jpg")
    np.testing.assert_array_equal(mended[:, :39], trimap[:, :39])
    assert (mended[:, 39] == 128).all()
    assert "t.jpg" in warnings[0]
    _, warnings = checked_trimap(np.full((9, 9), 128, np.uint8), (9, 9), "t")
    assert ["background" in w or "foreground" in w for w in warnings] == [True, True]


@pytest.mark.parametrize(
    ("picture", "size", "message"),
    [
        (np.full((20, 30), 128, np.uint8), (40, 60), "enlarge or reduce the trimap by nearest"),
        (np.full((20, 30), 128, np.uint8), (30, 20), "another image's"),
        (np.zeros((20, 30), np.uint8), (20, 30), "no pixel is unknown"),
        (np.arange(600).reshape(20, 30).astype(np.uint8), (20, 30), "far from 0, 128 and 255"),
    ],
)
def test_what_is_no_trimap_is_refused(picture: np.ndarray, size: tuple[int, int], message: str) -> None:
    """Another size, a mask, an alpha: each with what to do."""
    with pytest.raises(FileError, match=message):
        checked_trimap(picture, size, "t.png")


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
