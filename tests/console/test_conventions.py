"""All commands keep one convention: options of one meaning have one name, and old ones are still understood."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from conftest import Pictures, call
from matting_compose.cli import compose
from matting_compose.composer.console.command import FormerArgument

pytest.importorskip("torch", reason="the trainer's commands need the 'train' extra")

from matting_compose.trainer.cli import train
from matting_compose.trainer.commands import evaluate, export, predict

TRAINER = {"matting-train": train, "matting-predict": predict, "matting-evaluate": evaluate, "matting-export": export}
COMMANDS = {f"matting-compose {name}": command for name, command in compose.commands.items()} | TRAINER
PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")


def documented() -> dict[str, list[str]]:
    """Return the options of the page's table by their long names."""
    rows = [re.findall(r"`(-[^`]+)`", line.split("|")[1]) for line in PAGE.splitlines() if line.startswith("| `-")]
    return {next(name for name in names if name.startswith("--")).split()[0]: names for names in rows}


@pytest.mark.parametrize("name", COMMANDS)
def test_options_of_one_meaning_have_one_name(name: str) -> None:
    """Each stands in the table of docs/commands.md with its letter; where a command has it, both are the same."""
    shared, command = documented(), COMMANDS[name]
    assert {"--out", "--jobs", "--limit", "--json", "--quiet", "--verbose", "--set", "--dry-run"} <= set(shared)
    found = {opt: option.opts for option in command.params if isinstance(option, click.Option) for opt in option.opts}
    assert {"--json", "--quiet", "--verbose"} <= set(found)
    for long, names in shared.items():
        if long in found:
            assert {opt.split()[0] for opt in names} == set(found[long]), long
    assert not {"--output", "--count", "--number", "--threads"} & set(found)
    letters = [opt for opt in found if not opt.startswith("--")]
    assert all(any(letter in names for names in shared.values()) for letter in letters)
    written = [p.name for p in command.params if isinstance(p, click.Argument) and not isinstance(p, FormerArgument)]
    assert not {"out", "output"} & set(written)


def test_short_helps_are_not_cut() -> None:
    """On a terminal of 80 columns every command is described to its full stop."""
    text = CliRunner().invoke(compose, ["--help"], terminal_width=80).output
    lines = text.partition("Commands:\n")[2].splitlines()
    assert len(lines) == sum(not command.hidden for command in compose.commands.values())
    assert all(line.endswith(".") and not line.endswith("..") for line in lines)


def test_former_spellings_are_understood_and_hidden(finished: Path, tmp_path: Path) -> None:
    """Exports of a dataset, their folder and their number; the file of a panel."""
    old, new = (
        call(*words, "--to", "png", "-j", "1", "--json", cwd=tmp_path)
        for words in (
            ("export", str(finished), "old", "--count", "2"), ("convert", str(finished), "-o", "new", "--limit", "2"),
        )
    )  # fmt: skip
    assert (old.code, new.code) == (0, 0)
    assert old.json["composites"] == new.json["composites"] == 2
    assert call("inspect", str(finished), "--show", "0", "--output", str(tmp_path / "panel.png")).code == 0
    helps = [CliRunner().invoke(command, ["--help"]).output for command in (compose, *COMMANDS.values())]
    assert not [text for text in helps if re.search(r"--count|--output|^  export ", text, re.MULTILINE)]
    twice = call("convert", str(finished), "a", "-o", "b", "--to", "png")
    none = call("convert", str(finished), "--to", "png")
    assert (twice.code, none.code, "--out" in none.err) == (2, 2, True)


@pytest.mark.parametrize(
    ("command", "words", "code"),
    [
        (compose, ["build", "nope.toml"], 2),
        (compose, ["build", "-j", "many"], 2),
        (compose, ["inspect", "nowhere"], 1),
        (train, [], 2),
        (train, ["nowhere", "--out", "run"], 1),
        (predict, ["nowhere.png", "-o", "x.png", "--tile", "513"], 2),
        (evaluate, [], 2),
        (export, ["nowhere.pt", "--to", "onnx"], 1),
    ],
    ids=str,
)
def test_errors_are_json_where_json_is_asked_for(
    command: click.Command, words: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One object on standard output, the same exit code, and the line on standard error as without it."""
    monkeypatch.chdir(tmp_path)
    plain, asked = (CliRunner().invoke(command, [*words, *more]) for more in ((), ("--json",)))
    assert (plain.exit_code, plain.stdout, asked.exit_code) == (code, "", code)
    assert list(json.loads(asked.stdout)) == ["error"]
    said = "".join(line.removeprefix("Error: ") for line in asked.stderr.splitlines()[-1:])
    assert said.split("  ")[-1] in json.loads(asked.stdout)["error"]


def test_what_is_shipped_is_listed_as_json() -> None:
    """Recipes and configurations, each by its name; and one by its keys."""
    recipes = call("recipes", "--json").json["recipes"]
    assert recipes["demo"].startswith("The demo")
    assert call("recipes", "demo", "--json").json["foregrounds"]["layout"] == "procedural"
    for words in (["--list", "--json"], ["--json", "--list"]):
        assert "modern" in json.loads(CliRunner().invoke(train, words).stdout)["configurations"]
    assert json.loads(CliRunner().invoke(train, ["--print", "dim", "--json"]).stdout)["steps"] == 500_000


@pytest.mark.parametrize(
    ("command", "words", "begun", "expected"),
    [
        (compose, ["build"], "dim4", "dim431-coco2014"),
        (compose, ["recipes"], "mod", "modern"),
        (compose, ["fetch"], "op", "open431"),
        (compose, ["build", "--set"], "split.", "split.validation="),
        (compose, ["build", "--set"], "trimap.strategy=sup", "trimap.strategy=supplied"),
        (train, ["dataset", "--config"], "cpu", "cpu-small"),
        (train, ["dataset", "--set"], "losses.lap", "losses.laplacian="),
        (train, ["dataset", "--set"], "network.name=mn", "network.name=mnet"),
        (predict, ["--method"], "clo", "closed-form"),
    ],
    ids=str,
)
def test_a_shell_completes_names(command: click.Command, words: list[str], begun: str, expected: str) -> None:
    """Recipes, corpora, configurations, keys, losses, networks and methods."""
    shell = ShellComplete(command, {}, "matting", "_COMPLETE")
    assert expected in [item.value for item in shell.get_completions(words, begun)]


def test_a_file_stands_in_the_place_of_a_shipped_name(pictures: Pictures) -> None:
    """Recipes of one's own are completed by the shell itself."""
    shell = ShellComplete(compose, {}, "matting", "_COMPLETE")
    assert [item.type for item in shell.get_completions(["build"], str(pictures.root))] == ["file"]
