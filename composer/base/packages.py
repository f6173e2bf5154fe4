"""Packages: extras that a command needs, and how to get them."""

from __future__ import annotations

from importlib import import_module

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
            f"this needs {' and '.join(missing)}, which is not installed: pip install 'matting-compose[{extra}]'"
        )
