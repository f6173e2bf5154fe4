"""Draw the README's pictures: photographs matted by the network of the package, and composites that `build` makes.

    python bench/readme.py open431-pictures --portrait astronaut.png --out docs/

`matte.jpg` has a row for each subject: the photograph, the trimap drawn from a rough mask, its alpha, the cut-out with
its own colours, and it over another photograph. `panel.jpg` has a row for each cut-out: its alpha, a trimap, and three
composites. The pictures are those of `matting-compose fetch open431` that are in the public domain or under CC BY, as
its `licences/pictures.csv` says; the portrait is scikit-image's `astronaut.png`, and left out where it is not given.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from matting_compose.composer import build, load_recipe, open_dataset
from matting_compose.composer.sources.image_io import read_image
from matting_compose.trainer.inference.cutout import estimate_foreground, on_background, panel, side_by_side
from matting_compose.trainer.inference.methods import MatteOptions, make_matte, prepare, to_bytes
from matting_compose.trainer.inference.user_trimaps import trimap_from_alpha

Array = NDArray[np.uint8]
SIDE = 640  # px, of a subject's square
WIDTH = 1200  # px, of a row
QUALITY = 84  # of the JPEG
CELL = 290  # px, of a composite


class Subject(NamedTuple):
    """A photograph's square, how its rough mask is drawn in it, and what it is put over."""

    name: str  # empty: the portrait
    corner: tuple[float, float]  # x and y, as `side` in shares of the photograph's shorter side
    side: float
    outline: tuple[tuple[float, float], ...]  # x and y, in shares of the square
    radius: float  # of the trimap, as matting-predict --radius
    over: str


ASTRONAUT = Subject(
    "", (0.0, 0.0), 1.0,
    ((0.33, 0.13), (0.38, 0.05), (0.46, 0.035), (0.55, 0.07), (0.585, 0.15), (0.575, 0.22), (0.52, 0.28), (0.53, 0.32),
     (0.58, 0.40), (0.59, 0.47), (0.66, 0.52), (0.70, 0.60), (0.70, 0.69), (0.80, 0.67), (0.90, 0.71), (0.97, 0.80),
     (0.985, 1.0), (0.06, 1.0), (0.055, 0.80), (0.08, 0.60), (0.12, 0.51), (0.22, 0.45), (0.235, 0.38), (0.26, 0.32),
     (0.36, 0.30), (0.37, 0.26), (0.34, 0.22)),
    25, "endless-beach0.jpg",
)  # fmt: skip
ROUND = np.linspace(0.56 * np.pi, 2.44 * np.pi, 40)
DANDELION = Subject(
    "lomiri-seeding-by-clements-engelhardt.jpg", (0.13, 0.0), 0.8,
    (*zip(0.5 + 0.325 * np.cos(ROUND), 0.405 + 0.325 * np.sin(ROUND), strict=True), (0.575, 1.0), (0.45, 1.0)),
    75, "endless-beach1.jpg",
)  # fmt: skip
SUBJECTS = (ASTRONAUT, DANDELION)
CUTOUTS = ("kart-ekasia.png", "kart-tree-1.png")
BACKGROUNDS = ("endless-canyon4.jpg", "endless-fields3.jpg", "endless-forest4.jpg")


def rows_of_mattes(pictures: Path, portrait: Path | None, side: int) -> Iterator[Array]:
    """Matte each subject by the network of the package, from its rough mask."""
    options = MatteOptions()
    prepare("default", options)
    for subject in SUBJECTS:
        path = pictures / "photographs" / subject.name if subject.name else portrait
        if path is None:
            continue
        image = square(read_image(path), subject, side)
        mask = np.zeros(image.shape[:2], np.uint8)
        cv2.fillPoly(mask, [np.rint(np.array(subject.outline) * image.shape[0]).astype(np.int32)], 255)
        trimap = trimap_from_alpha(mask, subject.name, subject.radius)
        matte = make_matte("default", image, trimap, options)
        colours, alpha = estimate_foreground(image, matte), to_bytes(matte)
        over = on_background(colours, alpha, read_image(pictures / "photographs" / subject.over))
        yield panel(image, trimap, alpha, colours, over)


def square(photograph: Array, subject: Subject, side: int) -> Array:
    """Cut the subject's square out, `side` px wide."""
    x, y, width = (round(share * min(photograph.shape[:2])) for share in (*subject.corner, subject.side))
    return np.asarray(cv2.resize(photograph[y : y + width, x : x + width], (side, side), interpolation=cv2.INTER_AREA))


RECIPE = """
variants = 3
[foregrounds]
layout = "rgba"
root = "cutouts"
[backgrounds]
layout = "folder"
root = "photographs"
"""


def rows_of_composites(pictures: Path) -> Iterator[Array]:
    """Build a dataset of the cut-outs over the backgrounds; a row has a cut-out's composites."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in (*(f"cutouts/{name}" for name in CUTOUTS), *(f"photographs/{name}" for name in BACKGROUNDS)):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(pictures / name, folder / name)
        (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
        build(load_recipe(folder / "recipe.toml"), folder / "dataset", jobs=1)
        with closing(open_dataset(folder / "dataset")) as dataset:
            for start in range(0, len(dataset), 3):
                samples = [dataset[start + place] for place in range(3)]
                yield side_by_side((samples[0].alpha, samples[0].trimap, *(sample.image for sample in samples)), WIDTH)


def write_rows(rows: Iterable[Array], path: Path) -> None:
    """Write rows below each other, reduced to one width."""
    heights = ((row, round(row.shape[0] * WIDTH / row.shape[1])) for row in rows)
    small = [cv2.resize(row, (WIDTH, height), interpolation=cv2.INTER_AREA) for row, height in heights]
    Image.fromarray(np.vstack(small)).save(path, quality=QUALITY, optimize=True)
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="what matting-compose fetch open431 made")
    parser.add_argument("--portrait", type=Path, help="scikit-image's astronaut.png")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="the folder of both pictures")
    parser.add_argument("--side", type=int, default=640, help="px, at which subjects are matted")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    mattes = rows_of_mattes(arguments.pictures, arguments.portrait, arguments.side)
    write_rows(mattes, arguments.out / "matte.jpg")
    write_rows(rows_of_composites(arguments.pictures), arguments.out / "panel.jpg")


if __name__ == "__main__":
    main()
