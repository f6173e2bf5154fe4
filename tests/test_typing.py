"""What a user's own type checker sees of an editable install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
USER = """
from typing import Annotated

from pydantic import Field

from matting_compose.composer import open_dataset
from matting_compose.composer.base.settings import Fraction, Table
from matting_compose.trainer.data.crops import Augment
from matting_compose.trainer.training.config import Config


class Flips(Table):
    share: Fraction = 0.5
    seed: Annotated[int, Field(ge=0)] = 0


flips = Flips(share=0.2)
Augment(flip=0.2)
Config(steps=100)
dataset = open_dataset("dataset")
reveal_type(dataset)
reveal_type(flips.seed)
open_dataset(3.5)
"""


@pytest.mark.skipif(not (ROOT / "src" / "matting_compose").is_dir(), reason="links are not checked out here")
def test_strict_code_of_a_user_is_checked(tmp_path: Path) -> None:
    """Under mypy --strict the package is found, with its types; a default of ours is one; mistakes are seen."""
    pytest.importorskip("mypy")
    (tmp_path / "user.py").write_text(USER)
    command = [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={ROOT / '.mypy_cache'}", "user.py"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    found = found.replace("builtins.", "")
    lines = [line.partition(": ")[2] or line for line in found.splitlines()]
    assert lines == [
        'note: Revealed type is "matting_compose.composer.dataset.dataset.Dataset"',
        'note: Revealed type is "int"',
        'error: Argument 1 to "open_dataset" has incompatible type "float"; expected "str | Path"  [arg-type]',
        "Found 1 error in 1 file (checked 1 source file)",
    ], found
