"""Packings: found by name, also those of other packages; one that is missing is named."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (registers bzip2 with HDF5, as another program would)
import numpy as np
import pytest

from conftest import Pictures, call
from matting_compose.composer import open_dataset
from matting_compose.composer.base.errors import DatasetError, UnknownNameError
from matting_compose.composer.dataset.packings import PACKINGS, load_packing
from matting_compose.composer.inspection.verify import verify

PAGE = (Path(__file__).parent.parent.parent / "docs" / "format.md").read_text(encoding="utf-8")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Install the package that docs/format.md shows, and return its packing's name."""
    (source,) = re.findall(r"```python\n(import bz2.*?)```", PAGE, re.DOTALL)
    ((group, entry),) = re.findall(r'```toml\n\[project\.entry-points\."(.*packings)"\]\n(.*?)```', PAGE, re.DOTALL)
    site = tmp_path / "site"
    (site / "my_package").mkdir(parents=True)
    (site / "my_package" / "packing.py").write_text(source)
    (site / "my_package-1.dist-info").mkdir()
    (site / "my_package-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: my_package\nVersion: 1\n")
    (site / "my_package-1.dist-info" / "entry_points.txt").write_text(f"[{group}]\n{entry}".replace('"', ""))
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(PACKINGS, "_entries", dict(PACKINGS._entries))
    return str(entry.split()[0])


def test_a_package_can_add_one(
    pictures: Pictures, tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's ten lines: recipes take it, builds write it, readers, --verify and other programs read it."""
    arguments = pictures.arguments(tmp_path / "d", "-j", "1", "--variants", "1", "--set", f"shards.packing={package}")
    done = call(*arguments)
    assert done.code == 0, done.err
    assert verify(tmp_path / "d", jobs=1).problems == ()
    dataset = open_dataset(tmp_path / "d")
    for number, sample in enumerate(dataset):
        row = sample.row
        with h5py.File(tmp_path / "d" / "shards" / dataset.shard_of(number).file) as file:
            np.testing.assert_array_equal(file[f"groups/{row.group:05d}/image"][row.position], sample.image)
    monkeypatch.undo()  # the package is gone
    with pytest.raises(DatasetError, match=rf"no packing is called '{package}'"):
        open_dataset(tmp_path / "d")[0]


def test_names_are_told() -> None:
    """A name that is none is answered with those there are, by the registry and by the recipe."""
    with pytest.raises(UnknownNameError, match="no packing is called 'detla'; did you mean 'delta'"):
        load_packing("detla")
    done = call("build", "demo", "--set", "shards.packing=zip", "--dry-run")
    assert done.code == 2
    assert "shards.packing: no packing is called 'zip'; there are delta, solid, plain, webp, jpeg" in done.err


def test_only_packings_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a package offers under the group must be one."""
    monkeypatch.setattr(PACKINGS, "_entries", {"mine": lambda quality: quality})
    with pytest.raises(TypeError, match="'mine' is no Packing, but int"):
        load_packing("mine")
