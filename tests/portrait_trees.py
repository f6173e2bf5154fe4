"""Published sets of pictures with alphas, as small but true trees: folders, names and formats as they come."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from conftest import photograph, save, soft_disc
from matting_compose.composer.compositing.blending import blend

# Folder of pictures, folder of alphas, how names begin, how alphas end; what else lies beside them.
SETS = {
    "P3M-10k/train": ("blurred_image", "mask", "p_", ".png", ("fg", "facemask")),
    "P3M-10k/validation/P3M-500-P": ("blurred_image", "mask", "p_", ".png", ("trimap",)),
    "P3M-10k/validation/P3M-500-NP": ("original_image", "mask", "p_", ".png", ("trimap",)),
    "AM-2k/train": ("original", "mask", "m_", ".png", ("fg", "bg")),
    "AM-2k/validation": ("original", "mask", "m_", ".png", ("trimap",)),
    "PPM-100": ("image", "matte", "1070_", ".jpg", ()),
    "AIM-500": ("original", "mask", "o_", ".png", ("trimap", "usr")),
    "data": ("image", "alpha", "", ".png", ("mask", "trimap")),
}


def make_portrait_sets(root: Path, count: int = 2) -> None:
    """Make `count` pictures for each part of each set: a JPEG, and an alpha of one, three or four channels."""
    for number, (part, (images, alphas, start, ending, beside)) in enumerate(SETS.items()):
        for place in range(count):
            foreground, alpha = soft_disc(80 + 7 * place, 72, 10 * number + place)
            name = f"{start}{number:04x}{place:04x}"
            save(root / part / images / f"{name}.jpg", blend(foreground, alpha, photograph(*alpha.shape, 90 + number)))
            several = np.repeat(alpha[..., None], 3, 2)
            if part == "AIM-500" and place:
                several = np.dstack([several, np.full_like(alpha, 255)])
            save(root / part / alphas / f"{name}{ending}", several if part in ("AIM-500", "PPM-100") else alpha)
            for folder in beside:
                (root / part / folder).mkdir(parents=True, exist_ok=True)
                assert cv2.imwrite(str(root / part / folder / f"{name}.png"), alpha // 128 * 128)
    (root / "data" / "train.txt").write_text(
        "".join(f"{path.name}\n" for path in sorted((root / "data/image").iterdir()))
    )
