"""The network that comes with the package: it is the one that was packaged, needs no checkpoint, and mattes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="networks need the 'train' extra")

from matting_compose.trainer import cli, commands, default_network  # noqa: E402
from matting_compose.trainer.inference import methods, refine  # noqa: E402
from matting_compose.trainer.inference.methods import MatteError, MatteOptions, make_matte  # noqa: E402
from matting_compose.trainer.networks import shipped  # noqa: E402
from matting_compose.trainer.networks.checkpoint import load_network  # noqa: E402
from matting_compose.trainer.networks.exports import export_network  # noqa: E402
from matting_compose.trainer.networks.fusion import MATTES  # noqa: E402

ROOT = Path(__file__).parent.parent.parent


def scene(folder: Path, side: int = 160) -> tuple[Path, Path, np.ndarray]:
    """Write a soft disk over a gradient and its trimap; return both and alpha, (side, side) in 0..1."""
    y, x = np.mgrid[:side, :side]
    alpha = np.clip((50 - np.hypot(x - 80, y - 80)) / 24 + 0.5, 0, 1)
    background = np.stack([x, y, 255 - x], axis=-1)
    image = alpha[..., None] * (230, 200, 40) + (1 - alpha[..., None]) * background
    trimap = np.where(alpha == 0, 0, np.where(alpha == 1, 255, 128)).astype(np.uint8)
    cv2.imwrite(str(folder / "photo.png"), np.rint(image[..., ::-1]).astype(np.uint8))
    cv2.imwrite(str(folder / "trimap.png"), trimap)
    return folder / "photo.png", folder / "trimap.png", alpha


@pytest.mark.parametrize(
    ("weights", "digest"), [(shipped.WEIGHTS, shipped.DIGEST), (shipped.REFINED, shipped.REFINED_DIGEST)]
)
def test_the_weights_are_those_that_the_card_describes(weights: Path, digest: str) -> None:
    """Digest and size of the files; the card names the digests, and lies beside the weights too."""
    data = weights.read_bytes()
    assert hashlib.sha256(data).hexdigest() == digest
    assert len(data) <= 8_000_000
    card = ROOT / "docs" / "model-card.md"
    assert digest in card.read_text(encoding="utf-8")
    assert weights.with_name("model-card.md").read_bytes() == card.read_bytes()


def test_weights_that_were_changed_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with another digest is not loaded."""
    changed = tmp_path / "default.safetensors"
    changed.write_bytes(shipped.WEIGHTS.read_bytes() + b"\0")
    monkeypatch.setattr(shipped, "WEIGHTS", changed)
    shipped._check.cache_clear()
    with pytest.raises(ValueError, match="install matting-compose again"):
        default_network()
    monkeypatch.undo()
    shipped._check.cache_clear()


def test_a_photo_is_matted_without_a_checkpoint(tmp_path: Path) -> None:
    """By the command as by the function; far nearer to the truth than the trimap is."""
    photo, trimap, alpha = scene(tmp_path)
    done = CliRunner().invoke(
        commands.predict, [str(photo), "--trimap", str(trimap), "-o", str(tmp_path / "alpha.png"), "--device", "cpu"]
    )
    assert done.exit_code == 0, done.output
    written = cv2.imread(str(tmp_path / "alpha.png"), cv2.IMREAD_UNCHANGED)
    assert written is not None
    image = cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB)  # type: ignore[arg-type]
    hint = cv2.imread(str(trimap), cv2.IMREAD_UNCHANGED)
    made = make_matte("default", image, hint, MatteOptions(device="cpu"))  # type: ignore[arg-type]
    assert np.abs(made * 255 - written).max() <= 0.5
    unknown = hint == 128
    assert np.abs(made - alpha)[unknown].mean() < 0.25 * np.abs(0.5 - alpha)[unknown].mean()


def test_a_checkpoint_is_told_from_a_photo_by_its_name(tmp_path: Path) -> None:
    """A file that training or export writes comes first; a first picture is a picture."""
    photo, _, _ = scene(tmp_path)
    other = tmp_path / "own.safetensors"
    other.write_bytes(shipped.WEIGHTS.read_bytes())
    assert commands._split((other, photo), None) == (other, [photo])
    assert commands._split((photo, photo), None) == (None, [photo, photo])
    (tmp_path / "run").mkdir()
    assert commands._split((tmp_path / "run", photo), None) == (None, [tmp_path / "run", photo])
    (tmp_path / "run" / "best.pt").touch()
    assert commands._split((tmp_path / "run", photo), None) == (tmp_path / "run", [photo])


def read_scene(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return `scene` as arrays: image, trimap, alpha."""
    photo, trimap, alpha = scene(folder)
    image = cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB)  # type: ignore[arg-type]
    return image, cv2.imread(str(trimap), cv2.IMREAD_UNCHANGED), alpha  # type: ignore[return-value]


def test_refined_joins_the_network_and_the_classics(tmp_path: Path) -> None:
    """It keeps what the trimap knows, and lies far nearer to the truth; of two answers one counts twice."""
    pytest.importorskip("pymatting")
    image, hint, alpha = read_scene(tmp_path)
    refined = make_matte("refined", image, hint, MatteOptions(device="cpu"))
    assert (refined[hint == 0] == 0).all()
    assert (refined[hint == 255] == 1).all()
    assert np.abs(refined - alpha).mean() < 0.5 * np.abs(hint / 255 - alpha).mean()
    mattes = [make_matte(name, image, hint, MatteOptions(device="cpu")) for name in MATTES]
    fusion = load_network(shipped.refined_weights())
    answers = [refine.refine_alpha(fusion, image, hint, each) for each in (mattes, [None, *mattes[1:]])]
    np.testing.assert_allclose(refined, np.average(answers, axis=0, weights=(2, 1)), atol=1e-6)


@pytest.mark.parametrize("failing", [("knn",), ("closed-form",), ("closed-form", "knn")])
def test_refined_does_without_a_solver_that_fails(
    failing: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And says so; without both it says what would do."""
    image, hint, alpha = read_scene(tmp_path)

    def classical(method: str, *_: object) -> np.ndarray:
        if method in failing:
            raise MatteError(f"{method} failed: it did not converge")
        return alpha.astype(np.float32)

    monkeypatch.setattr(methods, "_classical", classical)
    if len(failing) == 2:
        with pytest.raises(MatteError, match=r"closed-form failed.*; knn failed.*--method default needs none of them"):
            make_matte("refined", image, hint, MatteOptions(device="cpu"))
        return
    with caplog.at_level("WARNING"):
        refined = make_matte("refined", image, hint, MatteOptions(device="cpu"))
    assert f"{failing[0]} failed: it did not converge; refined does without it" in caplog.text
    assert np.abs(refined - alpha).mean() < 0.5 * np.abs(hint / 255 - alpha).mean()


def test_classics_of_large_pictures_are_made_of_reduced_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No solver is given more pixels than its memory allows; the result has the picture's size all the same."""
    image, hint, alpha = read_scene(tmp_path)
    sides = []

    def classical(_: str, image: np.ndarray, trimap: np.ndarray, side: int) -> np.ndarray:
        sides.append(side)
        return alpha.astype(np.float32)

    monkeypatch.setattr(methods, "_classical", classical)
    monkeypatch.setattr(refine, "PIXELS", 80 * 80)
    assert make_matte("refined", image, hint, MatteOptions(device="cpu")).shape == hint.shape
    assert sides == [80, 80]


def test_it_is_exported_as_onnx(tmp_path: Path) -> None:
    """Other programs get the same alpha."""
    pytest.importorskip("onnxruntime")
    assert export_network(default_network(), tmp_path / "default.onnx").largest < 1e-4


def test_fine_tuning_starts_from_it(finished: Path, tmp_path: Path) -> None:
    """``--init default`` loads every tensor of its network."""
    keys = ["--set", "stream.crop=32", "--set", "stream.sizes=[32]", "--init", "default", "--dry-run"]
    done = CliRunner().invoke(cli.train, [str(finished), "--out", str(tmp_path / "run"), "--config", "default", *keys])
    assert done.exit_code == 0, done.output
    count = len(default_network().state_dict())
    assert f"init: {count:,} tensors loaded\n" in done.stdout
