"""Differences, of packing `delta`: the extension in C does what NumPy does, and nothing outside its tile."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import matting_compose.composer.dataset.differences as differences

SOURCE = Path(differences.__file__).with_name("_differences.c")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """Compile the extension as it stands, whether or not the installed package has it."""
    compiler = shutil.which("cc")
    headers = sysconfig.get_path("include")
    if compiler is None or not Path(headers, "Python.h").exists():
        pytest.skip("no C compiler, or no headers of Python")
    library = tmp_path_factory.mktemp("kernel") / "_differences.abi3.so"
    flags = ["-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-I{headers}"]
    subprocess.run([compiler, *flags, "-o", library, SOURCE], check=True)
    spec = importlib.util.spec_from_file_location("_differences", library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_extension_does_what_numpy_does(kernel: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any part of tiles of any size is the picture's own pixels, by either way."""
    monkeypatch.setattr(differences, "sum_tile", None)
    rng = np.random.default_rng(0)
    for _ in range(300):
        height, width = rng.integers(1, 70, 2).tolist()
        top, left = int(rng.integers(height)), int(rng.integers(width))
        bottom, right = int(rng.integers(top, height)) + 1, int(rng.integers(left, width)) + 1
        picture = rng.integers(0, 256, (height, width, 3), np.uint8)
        stored = differences.take_differences(picture, (height, width)).tobytes()
        canvas = np.full((2, 80, 90, 3), 99, np.uint8)  # what lies beside the part is left alone
        by_kernel, by_numpy = canvas[:, 5 : 5 + bottom - top, 7 : 7 + right - left]
        kernel.sum_tile(stored, height, width, top, left, by_kernel)
        differences.undo_differences(stored, (height, width), (top, left), by_numpy)
        np.testing.assert_array_equal(by_numpy, picture[top:bottom, left:right])
        np.testing.assert_array_equal(*canvas)


PIXELS = np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda sum_tile: sum_tile(bytes(47), 4, 4, 0, 0, PIXELS), "of the tile's size"),
        (lambda sum_tile: sum_tile(b"", 0, 4, 0, 0, PIXELS), "of the tile's size"),
        (lambda sum_tile: sum_tile(bytes(3 * 5000), 1, 5000, 0, 0, PIXELS[:1]), "of the tile's size"),
        (lambda sum_tile: sum_tile(bytes(48), 4, 4, 1, 0, PIXELS), "not inside"),
        (lambda sum_tile: sum_tile(bytes(48), 4, 4, 0, -1, PIXELS), "not inside"),
        (lambda sum_tile: sum_tile(bytes(48), 4, 4, 0, 0, PIXELS[:, ::2]), "row by row"),
        (lambda sum_tile: sum_tile(bytes(48), 4, 4, 0, 0, PIXELS[..., 0]), "row by row"),
        (lambda sum_tile: sum_tile(bytes(48), 4, 4, 0, 0, PIXELS.astype(np.uint16)), "row by row"),
    ],
)
def test_the_extension_refuses_what_would_lead_out_of_memory(
    kernel: ModuleType, call: Callable[[Callable[..., None]], None], error: str
) -> None:
    """Sizes that do not agree are an error, never a write elsewhere."""
    with pytest.raises(ValueError, match=error):
        call(kernel.sum_tile)
