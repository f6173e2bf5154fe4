"""Packages: extras that a command needs, and how to get them."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

from .errors import MattingComposeError


def require_packages(*names: str, extra: str = "export") -> None:
    """Look for packages before the work begins that needs them.

    Parameters
    ----------
    *names : str
        The names that they are imported by.
    extra : str
        The extra of ours that installs them.

    Raises
    ------
    MattingComposeError
        One of them is not installed.
    """
    missing = []
    for name in names:
        try:
            import_module(name)
        except ImportError:  # not there, or not whole
            missing.append(name)
    if missing:
        raise MattingComposeError(
            f"this needs {' and '.join(missing)}, which is not installed: {install_command(extra)}"
        )


def install_command(extra: str) -> str:
    """Return the command that installs an extra of this package from where it was installed from itself.

    Examples
    --------
    >>> install_command("train").startswith("pip install")
    True
    """
    from importlib.metadata import PackageNotFoundError, distribution  # a tenth of what --help takes
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        origin = json.loads(distribution("matting-compose").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:  # run from a folder on PYTHONPATH
        origin = {}
    address = origin.get("url", "")
    folder = url2pathname(urlsplit(address).path) if address.startswith("file:") else ""
    if folder and Path(folder).is_dir():
        edit = "--editable " if origin.get("dir_info", {}).get("editable") else ""
        return f"pip install {edit}'{folder}[{extra}]'"
    if "vcs_info" in origin:
        return f"pip install 'matting-compose[{extra}] @ {origin['vcs_info']['vcs']}+{address}'"
    return f"pip install 'matting-compose[{extra}]'"
