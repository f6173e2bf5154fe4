"""Adobe's folders as they come, with COCO and VOC beside them: few and tiny pictures, under all their names."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from conftest import Array, photograph

SIDE = (26, 22)  # (height, width) px of the foregrounds
VOC = "VOCdevkit/VOC2012/JPEGImages"
FOLDERS = ("Adobe-licensed images", "Other")


def foreground_picture(seed: int) -> Array:
    """Draw a foreground with saturated areas, where sums are whole and float64 falls short of some."""
    picture = photograph(*SIDE, seed)
    picture[:, : SIDE[1] // 3] = 255
    return picture


def alpha_picture(seed: int) -> Array:
    """Draw an alpha: opaque and clear areas, their neighbours 254 and 1, and every kind of fraction."""
    alpha = np.random.default_rng(seed).integers(0, 256, SIDE, np.uint8)
    for row, value in enumerate((0, 0, 0, 1, 254, 255, 255, 255)):
        alpha[row] = value
    return alpha


def background_templates(folder: Path) -> list[Path]:
    """Write backgrounds of every kind that COCO and VOC hold: large, small, grey, CMYK, turned, white."""
    pictures = {
        "large": Image.fromarray(photograph(40, 50, 1)),
        "small": Image.fromarray(photograph(9, 12, 2)),
        "wide": Image.fromarray(photograph(10, 61, 3)),
        "tall": Image.fromarray(photograph(47, 13, 4)),
        "grey": Image.fromarray(photograph(30, 30, 5)[..., 0]),
        "grey small": Image.fromarray(photograph(11, 15, 6)[..., 0]),
        "cmyk": Image.fromarray(photograph(33, 21, 7)).convert("CMYK"),
        "white": Image.fromarray(np.full((31, 37, 3), 255, np.uint8)),
        "turned": Image.fromarray(photograph(20, 60, 8)),
    }
    exif = Image.Exif()
    exif[0x0112] = 6
    folder.mkdir(parents=True)
    for name, picture in pictures.items():
        more = {"exif": exif} if name == "turned" else {}
        picture.save(folder / f"{name}.jpg", quality=92, **more)
    return sorted(folder.iterdir())


@dataclass(frozen=True)
class Adobe:
    """Combined_Dataset with COCO and VOC beside it; few pictures, under all their names."""

    root: Path
    training_names: list[str]
    test_names: list[str]

    @property
    def training(self) -> Path:
        return self.root / "Combined_Dataset" / "Training_set"

    @property
    def test(self) -> Path:
        return self.root / "Combined_Dataset" / "Test_set"

    @property
    def coco(self) -> Path:
        return self.root / "train2014"

    @property
    def voc(self) -> Path:
        return self.root / VOC

    def folder(self, name: str) -> Path:
        """Return the training folder that holds a foreground."""
        return next(self.training / folder for folder in FOLDERS if (self.training / folder / "fg" / name).exists())


def picture_names(count: int, ending: str) -> list[str]:
    """Invent names such as the data set has; the order is theirs, without regard to case."""
    kinds = ["retriever-{0}_1920 ({1})", "Girl, {0}", "{0}_o", "antique-{0}_1920", "Water drop {0}"]
    names = [kinds[i % 5].format(348_572 + i, i % 4) + ending for i in range(count)]
    return sorted(names, key=str.casefold)


def make_training_set(root: Path, backgrounds: list[Path]) -> list[str]:
    """Lay out 431 foregrounds in two folders, and COCO's 43,100."""
    names = picture_names(431, ".jpg")
    templates = []
    turned = Image.Exif()
    turned[0x0112] = 6
    for i, (mode, alpha_mode) in enumerate(
        [("RGB", "L"), ("L", "L"), ("CMYK", "L"), ("RGB", "RGB")] + 2 * [("RGB", "L")]
    ):
        options = {"exif": turned} if i == 4 else {}  # which the script does not see
        picture, alpha = Image.fromarray(foreground_picture(i)), Image.fromarray(alpha_picture(i))
        picture.convert(mode).save(root / f"fg{i}.jpg", quality=95, **options)
        alpha.convert(alpha_mode).save(root / f"alpha{i}.jpg", quality=95, **options)
        templates.append((root / f"fg{i}.jpg", root / f"alpha{i}.jpg"))
    training = root / "Combined_Dataset" / "Training_set"
    for folder in FOLDERS:
        for kind in ("fg", "alpha"):
            (training / folder / kind).mkdir(parents=True)
    for i, name in enumerate(names):
        for kind, template in zip(("fg", "alpha"), templates[i % 6], strict=True):
            os.link(template, training / FOLDERS[i % 3 == 0] / kind / name)
    coco = [f"COCO_train2014_{number:012d}.jpg" for number in range(9, 9 + 43_100)]
    random.Random(0).shuffle(coco)
    (root / "train2014").mkdir()
    for i, name in enumerate(coco):
        os.link(backgrounds[i % len(backgrounds)], root / "train2014" / name)
    (training / "training_fg_names.txt").write_text("\n".join(names))  # as theirs, without a last newline
    (training / "training_bg_names.txt").write_text("\r\n".join(coco), newline="")
    return names


def make_test_set(root: Path, backgrounds: list[Path]) -> list[str]:
    """Lay out 50 foregrounds with three-channel alphas and 20 trimaps each, and VOC's 1,000."""
    names = picture_names(50, ".png")
    licensed = root / "Combined_Dataset" / "Test_set" / FOLDERS[0]
    for kind in ("fg", "alpha", "trimaps"):
        (licensed / kind).mkdir(parents=True)
    trimap = np.zeros(SIDE, np.uint8)
    trimap[5:20], trimap[9:14] = 128, 255
    for i in range(4):
        Image.fromarray(np.roll(trimap, i, axis=0)).save(root / f"trimap{i}.png")
        Image.fromarray(foreground_picture(40 + i)).save(root / f"fg{i}.png")
        three = np.dstack([alpha_picture(40 + i), np.zeros(SIDE, np.uint8), np.zeros(SIDE, np.uint8)])
        Image.fromarray(three).save(root / f"alpha{i}.png")
    for i, name in enumerate(names):
        os.link(root / f"fg{i % 4}.png", licensed / "fg" / name)
        os.link(root / f"alpha{i % 4}.png", licensed / "alpha" / name)
        for variant in range(20):
            os.link(root / f"trimap{(i + variant) % 4}.png", licensed / "trimaps" / f"{Path(name).stem}_{variant}.png")
    voc = [f"2008_{number:06d}.jpg" for number in range(1000)]
    random.Random(1).shuffle(voc)
    (root / VOC).mkdir(parents=True)
    for i, name in enumerate(voc):
        os.link(backgrounds[i % len(backgrounds)], root / VOC / name)
    (licensed.parent / "test_fg_names.txt").write_text("\n".join(names))
    (licensed.parent / "test_bg_names.txt").write_text("\n".join(voc))
    return names


def make_adobe(root: Path) -> Adobe:
    """Make the whole tree: some 46,000 names."""
    backgrounds = background_templates(root / "templates")
    return Adobe(root, make_training_set(root, backgrounds), make_test_set(root, backgrounds))
