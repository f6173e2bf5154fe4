"""Shipped: print what comes with the package, recipes and configurations: a list, or one to start one's own from."""

from __future__ import annotations

import json
import tomllib

import click

from ..base.errors import RecipeError
from ..base.settings import describe_shipped, read_shipped
from .command import wants_json


def print_list(package: str, noun: str) -> None:
    """Print the names of what is shipped, each with its first line; with --json, ``{"recipes": {name: line}}``."""
    firsts = describe_shipped(package, noun, RecipeError)
    lines = "\n".join(f"{name:20} {first}" for name, first in firsts.items())
    click.echo(json.dumps({f"{noun}s": firsts}) if wants_json() else lines)


def print_text(name: str, package: str, noun: str) -> None:
    """Print one as it is written; with --json, its keys."""
    text = read_shipped(name, package, noun, RecipeError)
    click.echo(json.dumps(tomllib.loads(text)) if wants_json() else text, nl=wants_json())
