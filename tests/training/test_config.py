"""Configurations: shipped ones listed and printed, and files of one's own that extend them."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs the 'train' extra")

from matting_compose.composer.base.errors import RecipeError  # noqa: E402 (only once torch is known to be there)
from matting_compose.trainer.training.config import Config, list_configs, load_config  # noqa: E402
from runs import command  # noqa: E402


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_shipped_ones_are_listed_and_printed(tmp_path: Path) -> None:
    """What is printed is the configuration; a name that is not there names its neighbour."""
    listed = command("--list").out
    for name in list_configs():
        assert f"\n{name} " in f"\n{listed}"
        printed = write(tmp_path / "own.toml", command("--print", name).out)
        assert load_config(printed) == load_config(name)
    failed = command("--print", "moden")
    assert (failed.code, "did you mean 'modern'" in failed.err) == (2, True)


def test_a_file_extends_another(tmp_path: Path) -> None:
    """Table by table, over several files from their own folders on; overrides come last."""
    (tmp_path / "deeper").mkdir()
    write(tmp_path / "base.toml", 'extends = "modern"\nsteps = 9\n[losses]\ngradient = 0\n[network]\nwidth = 0.5')
    own = write(
        tmp_path / "deeper" / "own.toml",
        'extends = "../base.toml"\n[optimiser]\nrate = 1\n[network.arguments]\nnorm = "group"',
    )
    modern, config = load_config("modern"), load_config(own, ["steps=10"])
    assert config.steps == 10
    assert config.optimiser == modern.optimiser.model_copy(update={"rate": 1.0})
    assert config.network.arguments == modern.network.arguments | {"width": 0.5, "norm": "group"}
    assert config.losses == modern.losses | {"gradient": 0}
    assert config.stream == modern.stream


def test_another_network_brings_its_own_table(tmp_path: Path) -> None:
    """Nothing of the table that it replaces, whether by a file or by an override."""
    text = 'extends = "dim"\n[network]\nname = "tiny_unet:TinyUNet"'
    for config in (
        load_config(write(tmp_path / "own.toml", text)),
        load_config("dim", ["network.name=tiny_unet:TinyUNet"]),
    ):
        assert config.network.encoder == "random"
        assert config.network.arguments == {"channels": 16}
        assert config.losses == load_config("dim").losses


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('extends = "moden"', "did you mean 'modern'"),
        ("extends = 3", "extends: expected a configuration's name or file, found 3"),
        ('extends = "own.toml"', "which extends this one"),
        ('extends = "none.toml"', "no such configuration file"),
        ("[optimiser]\nrate = 1\n[optimizer]\nrate = 1", "one table"),
        (f"seed = {2**63}", "seed: expected less than"),
        ("[optimiser]\nrate = 1e300", r"optimiser.rate: expected at most 1e\+30"),
        ("[network]\nwidth = 1\narguments = {width = 1}", "'width' is there twice"),
    ],
)
def test_what_cannot_be_is_said(text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A base that is not there or is itself, and keys that are there twice."""
    monkeypatch.chdir(tmp_path)
    write(Path("own.toml"), text)
    with pytest.raises(RecipeError, match=said):
        load_config("own.toml")


def test_optimiser_has_two_spellings(tmp_path: Path) -> None:
    """In a file, over another file, in an override and in Python."""
    expected = load_config("modern", ["optimiser.rate=1"])
    own = write(tmp_path / "own.toml", 'extends = "modern"\n[optimizer]\nrate = 1')
    assert load_config(own) == load_config("modern", ["optimizer.rate=1"]) == expected
    assert Config.model_validate({"optimizer": {"rate": 1}}).optimiser.rate == 1
