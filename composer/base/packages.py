"""Packages: extras that a command needs, and how to get them."""

from __future__ import annotations

import importlib.util

from .errors import ExportError


def require_packages(*names: str) -> None:
    """Raise ExportError where a package is not installed."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(
            f"this needs {' and '.join(missing)}, which is not installed: pip install 'matting-compose[export]'"
        )
