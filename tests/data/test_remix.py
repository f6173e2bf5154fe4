"""Remix: a crop is composed anew, exactly, of layers that datasets hold, and all of it follows from the sample."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage

from conftest import Pictures, run
from matting_compose.composer import open_dataset
from matting_compose.composer.compositing.blending import blend
from matting_compose.trainer.data import remix
from matting_compose.trainer.data.crops import Augment
from matting_compose.trainer.data.remix import Layers, Mixer, Remix
from matting_compose.trainer.data.stream import Batch, open_stream

ALL = Remix(
    chance=1, combine=0.5, fade=0.5, pierce=0.5, mesh=0.5, repaint=0.5, tint=0.3, defocus=0.5, stretch=0.5, warp=0.5,
    soften=0.5, retrim=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a small dataset without backgrounds: remixing needs none."""
    folder = tmp_path_factory.mktemp("remix")
    out = folder / "dataset"
    done = run(*Pictures.make(folder / "pictures").arguments(out, "--set", "split.validation=0.2"))
    assert done.code == 0, done.err
    return out


def batches(dataset: Path, count: int, remix: Remix | None, **options: object) -> list[Batch]:
    """Take some batches of 3 crops of 64 px."""
    stream = open_stream(dataset, batch=3, crop=64, sizes=(64, 96), remix=remix, **options)  # type: ignore[arg-type]
    try:
        return [batch for batch, _ in zip(stream, range(count), strict=False)]
    finally:
        stream.close()


def layers(rng: np.random.Generator, side: int = 48) -> Layers:
    """Draw layers whose trimap knows some of both."""
    alpha = np.clip(rng.normal(128, 200, (side, side)), 0, 255).astype(np.uint8)
    trimap = np.where(alpha == 0, 0, np.where(alpha == 255, 255, 128)).astype(np.uint8)
    return Layers(rng.integers(0, 256, (side, side, 3), np.uint8), alpha, trimap)


def test_a_composed_crop_is_exact(built: Path) -> None:
    """I = αF + (1−α)B, rounded, at every pixel; the trimap claims nothing that alpha denies."""
    mixer = Mixer(ALL, [open_dataset(built)], "train")
    for seed in range(8):
        rng = np.random.default_rng(seed)
        done, image, background = mixer.compose(layers(rng), rng)
        alpha = done.alpha[..., None] / 255
        exact = alpha * done.foreground + (1 - alpha) * background
        assert np.abs(image - exact).max() <= 0.5 + 1e-9
        assert (done.alpha[done.trimap == 255] == 255).all()
        assert (done.alpha[done.trimap == 0] == 0).all()


def test_two_foregrounds_combine_as_light_does(built: Path) -> None:
    """Over any background, both at once look as one laid over the other over it."""
    rng = np.random.default_rng(4)
    front, always = layers(rng), Remix(chance=1, combine=1)
    mixer = Mixer(always, [open_dataset(built)], "train")
    again = np.random.default_rng(11)
    again.random()
    _, behind = mixer._cut(48, again)
    done, image, background = mixer.compose(front, np.random.default_rng(11))
    over = background.astype(float)
    for layer in (behind, front):
        alpha = layer.alpha[..., None] / 255
        over = alpha * layer.foreground + (1 - alpha) * over
    assert np.abs(image - over).max() <= 2  # alpha and colours are rounded in between
    assert (done.alpha >= front.alpha).all()


def test_a_faded_foreground_is_nowhere_known(built: Path) -> None:
    """It joins the other, before or behind it; of both only what the other has is known, and that is opaque."""
    mixer = Mixer(Remix(chance=1, combine=1, fade=1), [open_dataset(built)], "train")
    hidden = 0
    for seed in range(8):
        front, again = layers(np.random.default_rng(6)), np.random.default_rng(seed)
        again.random()
        _, other = mixer._cut(48, again)
        done, image, background = mixer.compose(front, np.random.default_rng(seed))
        assert ((done.trimap == 255) == (front.trimap == 255)).all()
        assert (done.alpha[done.trimap == 255] == 255).all()
        assert (done.trimap == 0).sum() == ((front.trimap == 0) & (other.trimap == 0)).sum()
        assert (image == blend(done.foreground, done.alpha, background)).all()
        solid = (other.alpha == 255) & (front.alpha < 255)
        hidden += int(solid.sum())
        assert (done.alpha[solid] >= 127).all()
        assert (done.trimap[solid] == 128).all()
    assert hidden


def test_a_hole_has_the_shape_of_another_foreground(built: Path) -> None:
    """What is left is what light passes: α₁(1−α₂); known is what both know; nothing is done that leaves nothing."""
    front, mixer = layers(np.random.default_rng(6)), Mixer(Remix(chance=1, pierce=1), [open_dataset(built)], "train")
    again = np.random.default_rng(12)
    again.random(2)
    _, hole = mixer._cut(48, again)
    done, image, background = mixer.compose(front, np.random.default_rng(12))
    left = front.alpha / 255 * (1 - hole.alpha / 255)
    assert np.abs(done.alpha - 255 * left).max() <= 0.5 + 1e-4
    assert (done.trimap == 255).sum() == ((front.trimap == 255) & (hole.trimap == 0)).sum()
    assert (done.trimap == 0).sum() == ((front.trimap == 0) | (hole.trimap == 255)).sum()
    assert (image == blend(front.foreground, done.alpha, background)).all()
    whole = np.full_like(front.alpha, 255)
    assert remix._pierce(front, Layers(front.foreground, whole, whole)) is front


def test_a_mesh_lies_where_another_foreground_does(built: Path) -> None:
    """There, holes and threads of the foreground, none of it known; elsewhere nothing changes."""
    solid = np.full((48, 48), 255, np.uint8)
    front = Layers(np.random.default_rng(1).integers(0, 256, (48, 48, 3), np.uint8), solid, solid)
    mixer, met = Mixer(Remix(chance=1, mesh=1), [open_dataset(built)], "train"), 0
    for seed in range(8):
        again = np.random.default_rng(seed)
        again.random()
        _, part = mixer._cut(48, again)
        done, image, background = mixer.compose(front, np.random.default_rng(seed))
        inside = part.alpha > 0
        assert (done.alpha[~inside] == 255).all()
        assert ((done.trimap == 128) == inside).all()
        assert (done.trimap[~inside] == 255).all()
        assert (image == blend(front.foreground, done.alpha, background)).all()
        whole = part.alpha == 255
        met += whole.sum() > 1000 and 0.1 < (done.alpha[whole] == 0).mean() < 0.7 and (done.alpha[whole] == 255).any()
    assert met


def test_a_repainted_foreground_has_a_pictures_colours_and_its_own_shape(built: Path) -> None:
    """What another composite shows, background and all, is what the foreground looks like; its alpha stays."""
    before, mixer = layers(np.random.default_rng(3)), Mixer(Remix(chance=1, repaint=1), [open_dataset(built)], "train")
    again = np.random.default_rng(5)
    again.random()
    shown, _ = mixer._cut(48, again)
    done, image, background = mixer.compose(before, np.random.default_rng(5))
    assert (done.foreground == shown).all()
    assert (done.alpha == before.alpha).all()
    assert (done.trimap == before.trimap).all()
    assert (image == blend(shown, before.alpha, background)).all()


def test_an_unsharp_foreground_stands_before_sharp_backgrounds_too(built: Path) -> None:
    """Its background is blurred with it half of the times, and the layers alike in both."""
    before, mixer = layers(np.random.default_rng(3)), Mixer(Remix(chance=1, soften=1), [open_dataset(built)], "train")
    sharp = Mixer(Remix(chance=1), [open_dataset(built)], "train")
    kept = 0
    for seed in range(40):
        done, _, background = mixer.compose(before, np.random.default_rng(seed))
        kept += (background == sharp.compose(before, np.random.default_rng(seed))[2]).all()
        assert (done.alpha != before.alpha).any()
    assert 10 <= kept <= 30


def test_a_softened_composite_is_the_composite_softened(built: Path) -> None:
    """Layers blurred alike and blended look as the blended picture blurred would, over a plain background."""
    rng = np.random.default_rng(2)
    before = layers(rng)
    smooth = Layers(cv2.GaussianBlur(before.foreground, (0, 0), 3), before.alpha, before.trimap)
    spread = 1.4
    after = remix._soften(smooth, spread)
    plain = np.full_like(smooth.foreground, 90)
    blurred = cv2.GaussianBlur(blend(smooth.foreground, smooth.alpha, plain).astype(np.float32), (0, 0), spread)
    assert np.abs(blend(after.foreground, after.alpha, plain) - blurred).max() < 2
    assert (after.trimap == 128).sum() > (before.trimap == 128).sum()


def test_a_warped_foreground_is_turned_and_enlarged(built: Path) -> None:
    """A square's area follows the scale; colours stay what they were; the trimap claims nothing that alpha denies."""
    alpha = np.zeros((96, 96), np.uint8)
    alpha[36:60, 36:60] = 255
    square = Layers(np.full((96, 96, 3), (10, 200, 30), np.uint8), alpha, alpha)
    areas = []
    for seed in range(30):
        warped = remix._warp(square, np.random.default_rng(seed))
        assert (warped.foreground == (10, 200, 30)).all()
        assert (warped.alpha[warped.trimap == 255] == 255).all()
        assert (warped.alpha[warped.trimap == 0] == 0).all()
        areas.append(warped.alpha.sum() / alpha.sum())
    assert 0.6 < min(areas) < 0.9
    assert 2.5 < max(areas) < 4.1


def test_a_stretched_background_shows_a_part_of_it(built: Path) -> None:
    """A ramp that is stretched is a slower ramp, or the same."""
    ramp = np.repeat(np.arange(0, 240, 2, dtype=np.uint8)[None, :, None], 120, axis=0).repeat(3, axis=2)
    for seed in range(10):
        across = remix._stretch(ramp, np.random.default_rng(seed))[60, :, 0].astype(int)
        assert 60 < across[-1] - across[0] <= 238
        assert (np.diff(across) >= 0).all()


def test_a_trimap_is_drawn_anew_by_distances(built: Path) -> None:
    """Known is what lies further than a radius from all that is not so, one radius on either side."""
    rng = np.random.default_rng(0)
    alpha = np.zeros((64, 64), np.uint8)
    alpha[20:50, 10:50] = 255
    alpha[30, 50:60] = 100
    old = np.full_like(alpha, 128)
    mixer = Mixer(Remix(retrim=1, radii=(2, 9)), [open_dataset(built)], "train")
    inner, outer = ndimage.distance_transform_edt(alpha == 255), ndimage.distance_transform_edt(alpha == 0)
    widths = set()
    for _ in range(20):
        new = mixer.redraw(alpha, old, rng)
        lost, found = inner[(alpha == 255) & (new == 128)].max(), inner[new == 255].min()
        assert found >= 2
        assert lost <= 9
        assert lost < found
        assert (alpha[new == 0] == 0).all()
        assert outer[new == 0].min() > outer[(alpha == 0) & (new == 128)].max()
        widths.add((lost, outer[new == 0].min()))
    assert len(widths) > 10
    clear = np.zeros_like(alpha)
    np.testing.assert_array_equal(mixer.redraw(clear, old, rng), old)  # nothing would be unknown


def test_a_remixed_stream_follows_from_the_sample(built: Path) -> None:
    """Any number of workers and any interruption give the same crops; another epoch gives others."""
    whole = batches(built, 6, ALL)
    for other in (batches(built, 6, ALL, workers=2), batches(built, 2, ALL) + batches(built, 4, ALL, start=2)):
        for one, two in zip(whole, other, strict=True):
            for name in ("image", "trimap", "alpha"):
                torch.testing.assert_close(getattr(one, name), getattr(two, name), rtol=0, atol=0)
    assert all((batch.trimap == 128).any((1, 2)).all() for batch in whole)


def test_without_remixing_crops_are_what_they_were(built: Path) -> None:
    """The table's defaults change nothing, and what is switched off draws nothing of the crop."""
    still = Augment(flip=0)
    for one, two in zip(batches(built, 3, None, augment=still), batches(built, 3, Remix(), augment=still), strict=True):
        torch.testing.assert_close(one.image, two.image, rtol=0, atol=0)
        torch.testing.assert_close(one.trimap, two.trimap, rtol=0, atol=0)
    trimaps = batches(built, 3, Remix(retrim=1), augment=still)
    for one, two in zip(batches(built, 3, None, augment=still), trimaps, strict=True):
        torch.testing.assert_close(one.image, two.image, rtol=0, atol=0)
        assert not torch.equal(one.trimap, two.trimap)
