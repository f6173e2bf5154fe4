"""Packages: extras that a command needs, and how to get them."""

from __future__ import annotations

import importlib.util

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
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise MattingComposeError(
            f"this needs {' and '.join(missing)}, which is not installed: pip install 'matting-compose[{extra}]'"
        )
