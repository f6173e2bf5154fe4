"""The command line: help, dry runs, output for scripts, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest

from conftest import Pictures, call, run, save
from matting_compose.cli import compose


@pytest.mark.parametrize("arguments", [[], ["build"], ["doctor"], ["fetch"], ["recipes"], ["inspect"], ["convert"]])
def test_every_command_explains_itself(arguments: list[str]) -> None:
    """`--help` shows what the command does, with an example."""
    done = run(*arguments, "--help")
    assert done.code == 0
    assert "Example" in done.out
    assert "matting-compose" in done.out


def test_every_option_has_help() -> None:
    """No option is left unexplained."""
    for command in compose.commands.values():
        for parameter in command.params:
            assert isinstance(parameter, click.Argument) or parameter.help, parameter.name  # type: ignore[attr-defined]


def test_a_dry_run_measures_and_writes_nothing(pictures: Pictures, tmp_path: Path) -> None:
    """Counts, sizes, disk, time and warnings, for people and for scripts."""
    out = tmp_path / "d"
    told = run(*pictures.arguments(out, "--dry-run"))
    assert told.code == 0
    for text in ("20 composites: 5 foregrounds × 4 variants over 7 backgrounds", "75×75 to 210×200", "disk", "time"):
        assert text in told.out
    found = run(*pictures.arguments(out, "--dry-run", "--json")).json
    assert (found["composites"], found["foregrounds"], found["backgrounds"]) == (20, 5, 7)
    assert (found["smallest"], found["largest"]) == ([75, 75], [210, 200])
    assert found["bytes"] > 0
    assert not out.exists()


def test_a_dry_run_warns(pictures: Pictures, tmp_path: Path) -> None:
    """What wastes a night is said beforehand, and what cannot be read is in the exit code."""
    save(pictures.cutouts / "hard.png", np.dstack([np.full((200, 200, 3), 9), np.eye(200) * 255]).astype(np.uint8))
    save(pictures.cutouts / "smoke.png", np.full((400, 400, 4), 77, np.uint8))
    save(pictures.cutouts / "empty.png", np.zeros((50, 50, 4), np.uint8))
    (pictures.photos / "COCO_000000000001.jpg").write_bytes(b"")
    (pictures.cutouts / "disc 2.png").write_bytes(b"broken")
    done = run(*pictures.arguments(tmp_path / "d", "--dry-run", "--variants", "9"))
    assert done.code == 3
    for text in (
        "never opaque: empty.png, smoke.png", "nearly binary, a mask rather than a matte: empty.png, hard.png",
        "unknown region can be empty: empty.png", "enlarge their background more than 4×",
        "fewer backgrounds (7) than variants (9)", "will fail    disc 2.png: not a picture", "COCO_000000000001.jpg",
    ):  # fmt: skip
        assert text in done.out


def test_results_for_scripts(pictures: Pictures, tmp_path: Path) -> None:
    """`--json` prints exactly one object on standard output; everything else goes elsewhere."""
    done = run(*pictures.arguments(tmp_path / "d", "--json"))
    assert {"composites", "failures", "shards", "bytes", "seconds", "out"} <= done.json.keys()
    on_disk = sum(path.stat().st_size for path in (tmp_path / "d" / "shards").glob("*.h5"))
    assert done.json["bytes"] == on_disk
    assert done.json["shards"] == len(list((tmp_path / "d" / "shards").glob("*.h5")))


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["build", "nonesuch"], 2, "no recipe is called 'nonesuch'"),
        (["build", "--set", "trimap.colour=red"], 2, "trimap.colour: unknown key"),
        (["build", "--jobs", "0"], 2, "--jobs takes a number from 1"),
        (["build", "--variants", "0"], 2, "variants"),
        (["build", "--alphas", "x"], 2, "--foregrounds must say"),
        (["build", "--foregrounds", "nowhere", "--backgrounds", "nowhere"], 1, "expected a folder of pictures"),
        (["build", "--foregrounds", "nowhere"], 2, "backgrounds: expected a table with layout"),
        (["build", "--colour"], 2, "No such option"),
        (["recipes", "nonesuch"], 2, "shipped are"),
    ],
)
def test_wrong_usage_is_explained(tmp_path: Path, arguments: list[str], code: int, text: str) -> None:
    """A wrong call ends with its exit code and a message, and leaves nothing behind."""
    done = run(*arguments, cwd=tmp_path)
    assert done.code == code
    assert text in done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.iterdir())


def test_shipped_recipes_can_be_started_from(tmp_path: Path) -> None:
    """A printed recipe is a recipe."""
    assert "demo" in run("recipes").out
    (tmp_path / "my.toml").write_text(run("recipes", "demo").out)
    done = run("build", "my.toml", "--dry-run", "--json", cwd=tmp_path)
    assert json.loads(done.out)["composites"] == 480
    assert done.json["out"] == "my"


def test_an_interruption_is_not_lost() -> None:
    """A signal that comes while a weak reference's callback runs, where Python drops what is raised."""
    code = """
import signal, time, weakref
from matting_compose.composer.console.terminal import handle_errors

class Thing:
    pass

with handle_errors():
    thing = Thing()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
    del thing
    time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50)
    assert (done.returncode, done.stderr.count("Interrupted."), "Traceback" in done.stderr) == (130, 1, False)


def test_a_signal_that_comes_twice_is_one_request() -> None:
    """Who ends a process and its group sends two at once: the second must not end what answers the first."""
    code = """
import signal
from matting_compose.composer.console import terminal

def tell(text):
    signal.raise_signal(signal.SIGTERM)
    usual(text)

usual, terminal._echo = terminal._echo, tell
with terminal.handle_errors():
    signal.raise_signal(signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50)
    assert (done.returncode, done.stderr.count("Interrupted."), "Traceback" in done.stderr) == (130, 1, False)


def test_an_interruption_is_told_without_others_complaints() -> None:
    """Threads that fail because of it say nothing; those that fail before do."""
    code = """
import signal, threading
from matting_compose.composer.console.terminal import handle_errors

def fail():
    raise KeyError("a thread's")

def run():
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()

with handle_errors():
    {before}
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        run()
"""
    for before, complaints in (("pass", 0), ("run()", 1)):
        command = [sys.executable, "-c", code.format(before=before)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
        found = done.returncode, done.stderr.count("KeyError"), "Interrupted." in done.stderr
        assert found == (130, complaints, True)


def test_what_is_kept_for_validation_is_said(pictures: Pictures, tmp_path: Path) -> None:
    """In the first line, and in a dry run with the way to keep some."""
    none = call(*pictures.arguments(tmp_path / "d", "--dry-run", "-j", "1"))
    assert "; none kept for validation" in none.out.splitlines()[0]
    assert "--set split.validation=0.1 keeps a tenth" in none.out
    some = call(*pictures.arguments(tmp_path / "d", "--dry-run", "-j", "1", "--set", "split.validation=0.4"))
    assert some.out.count("2 foregrounds kept for validation") == 2


def test_nobody_composes_drawings_over_photographs_unasked(pictures: Pictures, tmp_path: Path) -> None:
    """Backgrounds alone are half an order; the demo's foregrounds are asked for by its name."""
    for command in ("build", "doctor"):
        done = call(command, "--backgrounds", str(pictures.photos), cwd=tmp_path)
        assert (done.code, "--foregrounds" in done.err, "'demo --backgrounds" in done.err) == (2, True, True)
    assert not list(tmp_path.glob("d*"))
    one = ("--set", "foregrounds.count=2", "-j", "1")
    asked = call("build", "demo", "--backgrounds", str(pictures.photos), "--dry-run", *one, cwd=tmp_path)
    assert (asked.code, "over 7 backgrounds" in asked.out) == (0, True)


def test_a_corpus_that_is_not_there_names_what_fetches_it(tmp_path: Path) -> None:
    """Also before a dry run and by the doctor; fetch has exit codes of its own."""
    for arguments in (["build"], ["build", "--dry-run"], ["doctor"]):
        done = call(*arguments, "open431", cwd=tmp_path)
        assert (done.code, "matting-compose fetch open431" in done.err) == (1, True)
    assert "some pictures are missing" in call("fetch", "--help").out
