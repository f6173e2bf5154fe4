"""What commands say beside their results: progress, decisions, warnings, errors; as much as is asked for."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from conftest import COMMAND, Pictures, call
from matting_compose.cli import compose
from matting_compose.composer.base.errors import DatasetError
from matting_compose.composer.base.progress import Progress
from matting_compose.composer.console.options import shared_options
from matting_compose.composer.console.progress_bar import show_progress
from matting_compose.composer.console.terminal import handle_errors, tell
from matting_compose.trainer.cli import train
from matting_compose.trainer.commands import evaluate, export, predict

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  "


@click.command()
@shared_options
def job() -> None:
    """Do what a job of ours does."""
    logger = logging.getLogger("matting_compose.test")
    with handle_errors():
        logger.debug("evicted a")
        logger.info("resumed b")
        logger.warning("odd c\x1b[31m")
        with show_progress(line_every=0) as report:
            report(Progress("composites", 3, 10, failures=1, detail="1 MB"))
        tell("made d")
        click.echo("result")
        raise DatasetError("lost e\x1b]0;x\x07")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["-v"], ["evicted a", "resumed b", "warning: odd c", "composites 3/10", "made d"]),
        ([], ["resumed b", "warning: odd c", "composites 3/10", "made d"]),
        (["--quiet"], ["warning: odd c"]),
    ],
)
def test_as_much_is_said_as_is_asked_for(options: list[str], expected: list[str]) -> None:
    """Decisions with -v, warnings and errors also with -q; each line with the time where there is no terminal."""
    done = CliRunner().invoke(job, options)
    *lines, error = done.stderr.splitlines()
    assert (done.exit_code, done.stdout) == (1, "result\n")
    assert len(lines) == len(expected)
    for line, text in zip(lines, expected, strict=True):
        assert re.match(STAMP + re.escape(text), line), line
    assert error == r"Error: lost e\x1b]0;x\x07"
    assert "\x1b" not in done.stderr


def test_progress_tells_failures_and_details() -> None:
    """Beside what is done, of how much, and in which unit."""
    done = CliRunner().invoke(job, [])
    assert "composites 3/10  1 MB  1 failure" in done.stderr


def test_the_level_ends_with_the_command() -> None:
    """A quiet command leaves the logger as it was, for the program that called it."""
    logger = logging.getLogger("matting_compose")
    before = (logger.level, list(logger.handlers))
    CliRunner().invoke(job, ["-q"])
    assert (logger.level, logger.handlers) == before


def test_every_command_takes_the_same_options() -> None:
    """--quiet and --verbose, which exclude each other, in all of them."""
    for command in (*compose.commands.values(), train, predict, evaluate, export):  # type: ignore[attr-defined]
        names = {name for option in command.params for name in option.opts}
        assert {"-q", "--quiet", "-v", "--verbose"} <= names, command.name
    done = CliRunner().invoke(job, ["-q", "-v"])
    assert (done.exit_code, "exclude each other" in done.stderr) == (2, True)


def test_a_quiet_build_says_nothing(pictures: Pictures, tmp_path: Path) -> None:
    """All went well: no line at all."""
    done = call(*pictures.arguments(tmp_path / "d", "-j", "1", "--quiet"))
    assert (done.code, done.out, done.err) == (0, "", "")


def test_closed_streams_do_no_harm(pictures: Pictures, tmp_path: Path) -> None:
    """Standard error is closed: the build is made, and no file of it gets the stream's number."""
    command = [str(COMMAND), *pictures.arguments(tmp_path / "d", "-j", "1")]
    done = subprocess.run(command, preexec_fn=lambda: os.close(2), stdout=subprocess.PIPE, check=False)
    assert done.returncode == 0
    assert call("inspect", str(tmp_path / "d"), "--verify", "-j", "1").code == 0


def test_a_terminal_that_is_lost_does_no_harm() -> None:
    """Lines and the bar are told to nobody; the job goes on to its result."""
    code = """
import io, sys
class Lost(io.StringIO):
    def write(self, text): raise OSError(5, "Input/output error")
    def isatty(self): return sys.argv[1] == "bar"
sys.stderr = Lost()
from matting_compose.composer.base.progress import Progress
from matting_compose.composer.console.progress_bar import show_progress
from matting_compose.composer.console.terminal import handle_errors, tell
with handle_errors():
    with show_progress(line_every=0) as report:
        for done in range(3): report(Progress("composites", done, 2))
    tell("made")
print("result")
"""
    for kind in ("bar", "lines"):
        done = subprocess.run([sys.executable, "-c", code, kind], stdout=subprocess.PIPE, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "result\n")


def test_a_stream_of_ascii_shows_what_it_can(finished: Path) -> None:
    """What it has no characters for is escaped."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [str(COMMAND), "inspect", str(finished)]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert rb"\xd7" in done.stdout  # 5 × 4 variants


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["build", "modren"], "did you mean 'modern'?"),
        (["recipes", "demmo"], "did you mean 'demo'?"),
        (["fetch", "open413"], "did you mean 'open431'?"),
        (["build", "--set", "trimap.dilatte=[1,2]"], "did you mean 'dilate'?"),
    ],
)
def test_the_name_that_was_meant_is_asked_for(arguments: list[str], text: str) -> None:
    """Of recipes, corpora and keys."""
    done = call(*arguments)
    assert text in done.err


def test_help_is_quick() -> None:
    """It imports nothing heavy: not NumPy, not joblib, not rich."""
    code = "import sys; from matting_compose.cli import compose; from matting_compose.trainer import cli, commands;"
    code += "print(sorted({'numpy', 'joblib', 'rich', 'pydantic', 'torch', 'cv2', 'h5py'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
