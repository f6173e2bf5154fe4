"""Job: one picture from its files to its matte and whatever else is wanted of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...composer.base.arrays import UInt8Array
from ...composer.base.errors import FileError, SourceError
from ...composer.sources.image_io import read_image, read_image_alpha, write_picture
from ...composer.sources.mattes import read_matte, read_trimap
from .cutout import estimate_foreground, on_background, panel
from .files import list_pictures
from .methods import Settings, make_matte, to_bytes
from .user_trimaps import RADIUS, trimap_from_alpha

__all__ = ["Job", "Wanted", "plan_jobs", "run_job"]


@dataclass(frozen=True)
class Wanted:
    """What is to be made of each picture.

    Attributes
    ----------
    method, settings : how the matte is made
    bits : 8 or 16, of the alpha's file
    radius : of trimaps drawn from masks, see `trimaps.trimap_from_alpha`
    trimap : also write the trimap that was used
    cutout : also an RGBA with the foreground's estimated colours
    background : also the foreground over this picture
    panel : also all of it side by side
    """

    method: str = "mnet"
    settings: Settings = field(default_factory=Settings)
    bits: int = 8
    radius: float = RADIUS
    trimap: bool = False
    cutout: bool = False
    background: Path | None = None
    panel: bool = False


@dataclass(frozen=True)
class Job:
    """One picture's files: the image, its trimap or else a mask (or neither: its own alpha), and the alpha to write.

    Other products lie beside the alpha: in subfolders where a folder is written, else with the product in their name.
    """

    image: Path
    trimap: Path | None
    mask: Path | None
    out: Path
    in_folder: bool

    def product(self, kind: str, ending: str) -> Path:
        """Return the file for a product."""
        if self.in_folder:
            return self.out.parent / kind / f"{self.out.stem}{ending}"
        return self.out.with_name(f"{self.out.stem}-{kind}{ending}")


def plan_jobs(images: list[Path], trimap: Path | None, mask: Path | None, out: Path) -> list[Job]:
    """Match images, trimaps or masks, and results by their names without ending.

    Parameters
    ----------
    images : pictures and folders of pictures
    trimap, mask : a picture for a single image, else a folder
    out : a .png file for a single image, else a folder

    Raises
    ------
    FileError : a companion is missing, names clash, or a result would replace an input
    """
    found: dict[str, Path] = {}
    for place in images:
        for stem, path in list_pictures(place).items():
            if stem in found:
                raise FileError(f"{found[stem]} and {path} would write the same result; matte them one by one")
            found[stem] = path
    companions = trimap or mask
    single = len(found) == 1
    if companions is not None and not companions.is_dir() and not (single and companions.is_file()):
        given = f"{len(found)} images need a folder of them" if companions.exists() else "found nothing"
        raise FileError(f"{companions}: expected a trimap or mask; {given}")
    in_folder = not (single and out.suffix)
    if in_folder and out.suffix.lower() == ".png":
        raise FileError(f"{out}: {len(found)} images were given, so -o must be a folder")
    if not in_folder and out.suffix.lower() != ".png":
        raise FileError(f"{out}: an alpha is written as .png; other formats lose levels or are not read elsewhere")
    beside = list_pictures(companions) if companions is not None and companions.is_dir() else {}
    jobs = []
    for stem, path in found.items():
        companion = companions if not beside else beside.get(stem)
        if companions is not None and companion is None:
            raise FileError(f"{companions}: no picture is called '{stem}', for {path}; trimaps are matched by name")
        alpha = out / f"{stem}.png" if in_folder else out
        for source in (path, companion):
            if source is not None and source.resolve() == alpha.resolve():
                raise FileError(f"{alpha}: the result would replace its own input; choose another -o")
        jobs.append(Job(path, companion if trimap else None, companion if not trimap else None, alpha, in_folder))
    return jobs


def run_job(job: Job, wanted: Wanted) -> list[str]:
    """FloatArray one picture and write what is wanted.

    Returns
    -------
    Warnings for the person at the keyboard

    Raises
    ------
    MattingComposeError : a file cannot be read, used or written, or no matte can be made
    """
    image, trimap, warnings = _read(job, wanted.radius)
    matte = make_matte(wanted.method, image, trimap, wanted.settings)
    alpha = to_bytes(matte)
    deep = wanted.bits == 16
    write_picture(job.out, np.rint(matte * np.float32(65_535)).astype(np.uint16) if deep else alpha)
    if wanted.trimap:
        write_picture(job.product("trimap", ".png"), trimap)
    pictures: list[UInt8Array] = []
    if wanted.cutout or wanted.background or wanted.panel:
        pictures.append(estimate_foreground(image, matte))
    if wanted.cutout:
        write_picture(job.product("cutout", ".png"), np.dstack([pictures[0], alpha]))
    if wanted.background:
        pictures.append(on_background(pictures[0], alpha, read_image(wanted.background)))
        write_picture(job.product("composite", ".png"), pictures[1])
    if wanted.panel:
        write_picture(job.product("panel", ".jpg"), panel(image, trimap, alpha, *pictures))
    return warnings


def _read(job: Job, radius: float) -> tuple[UInt8Array, UInt8Array, list[str]]:
    """Read the image and its trimap, or draw one."""
    name = job.image.name
    if job.trimap is not None:
        image = read_image(job.image)
        return image, *read_trimap(job.trimap, job.trimap.name, image.shape[:2])
    if job.mask is not None:
        image, (alpha, _) = read_image(job.image), read_matte(job.mask, job.mask.name, role="mask")
        if alpha.shape != image.shape[:2]:
            raise FileError(
                f"{job.mask}: the mask is {alpha.shape[1]}×{alpha.shape[0]} px, its image"
                f" {image.shape[1]}×{image.shape[0]} px; they must be of one size"
            )
        return image, trimap_from_alpha(alpha, job.mask.name, radius), []
    try:
        own = read_image_alpha(job.image)
    except SourceError as error:
        if error.cause != "no-alpha":
            raise
        raise FileError(
            f"{name}: a matte needs a hint of where the subject is: give --trimap, or --mask with a rough mask"
        ) from None
    return own.image, trimap_from_alpha(own.alpha, name, radius), []
