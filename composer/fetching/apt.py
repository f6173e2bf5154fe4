"""Apt: packages from Debian's archive, as files. Nothing is installed, and no rights are needed.

``apt-get download`` knows the mirrors, the proxies and the signatures, so it does the fetching.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..base.errors import MattingComposeError

REFRESH = 0.2  # seconds between two looks at a file that is growing


OFFER = re.compile(r"^'(?P<address>[^']+)' (?P<file>[A-Za-z0-9][A-Za-z0-9.+%~_-]*\.deb) (?P<bytes>\d+)", re.MULTILINE)


class AptError(MattingComposeError):
    """Apt is not here, knows no such package, or cannot fetch it."""


@dataclass(frozen=True)
class Offer:
    """A package as apt would fetch it.

    Attributes
    ----------
    wanted : str
        ``name=version``, or the name alone, where apt has another version only.
    file : str
        The name that the file will have.
    bytes : int
        Its size.
    """

    wanted: str
    file: str
    bytes: int


def ask_apt(name: str, version: str) -> Offer:
    """Ask apt for a package: for this version, else for the one that it has. Nothing is fetched.

    Raises
    ------
    AptError
        There is no apt, or it has no package of this name.
    """
    if shutil.which("apt-get") is None:
        raise AptError("there is no apt-get on this machine")
    for wanted in (f"{name}={version}", name):
        command = _command("--print-uris", wanted)
        done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
        if found := OFFER.search(done.stdout):
            return Offer(wanted, found["file"], int(found["bytes"]))
    raise AptError(f"apt has no package {name} ({_reason(done.stderr)}); run `apt-get update`, on Debian 12 or newer")


def download(offer: Offer, folder: Path, on_progress: Callable[[int], None]) -> Path:
    """Fetch a package into a folder; one that was begun there is gone on with. Apt checks its signed sum.

    Parameters
    ----------
    offer : Offer
        What `ask_apt` said.
    folder : Path
        Exists.
    on_progress : Callable[[int], None]
        Called about five times a second with the bytes that are there.

    Raises
    ------
    AptError
        With apt's own first reason.
    """
    path = folder / offer.file
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            _command(offer.wanted), cwd=folder, env=_environment(), stdout=subprocess.DEVNULL, stderr=said
        )
        try:
            while process.poll() is None:
                time.sleep(REFRESH)
                on_progress(path.stat().st_size if path.exists() else 0)
        finally:
            process.terminate()  # where we are interrupted; what it has is kept
            process.wait()
        said.seek(0)
        if process.returncode or not path.is_file():
            reason = _reason(said.read())
            raise AptError(f"apt could not fetch {offer.wanted}: {reason}; run the same command to go on")
    return path


def _command(*arguments: str) -> list[str]:
    return ["apt-get", "download", "-q", *arguments]


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}


def _reason(text: str) -> str:
    errors = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("E:")]
    return errors[0] if errors else "it does not say why"
