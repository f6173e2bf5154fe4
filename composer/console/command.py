"""Command: what commands do beyond click's: former spellings, errors as JSON, names that a shell completes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from click.shell_completion import CompletionItem

JSON = "matting_compose.json"  # in a context: whether --json was given
Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


class FormerNames(click.Option):
    """An option that is still understood by its former names, which no help shows."""

    def __init__(self, *arguments: Any, former: tuple[str, ...], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.former = former

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Let the parser know the former names."""
        shown, self.opts = self.opts, [*self.opts, *self.former]
        super().add_to_parser(parser, ctx)
        self.opts = shown


class FormerArgument(click.Argument):
    """What an option says now; no usage shows it."""

    def get_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return none."""
        return []


class Command(click.Command):
    """A command. With --json, wrong usage is said on standard output, too: see `tell_error_as_json`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and remember whether JSON is asked for: options that end the command need to know before others."""
        if ctx.parent is None:
            ctx.meta[JSON] = "--json" in args
        with _usage_as_json(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _usage_as_json(ctx):
            return super().invoke(ctx)


class Group(Command, click.Group):
    """A command of commands."""


@contextmanager
def _usage_as_json(context: click.Context) -> Iterator[None]:
    try:
        yield
    except click.ClickException as error:
        if context.parent is None:
            tell_error_as_json(error.format_message())
        raise


def wants_json() -> bool:
    """Tell whether the running command was asked for JSON."""
    context = click.get_current_context(silent=True)
    return bool(context and context.meta.get(JSON))


def tell_error_as_json(message: str) -> None:
    """Print ``{"error": message}`` on standard output where JSON is asked for; nothing elsewhere."""
    if wants_json():
        click.echo(json.dumps({"error": message}))


def complete_names(names: Callable[[], list[str]]) -> Complete:
    """Let a shell complete names, and files."""

    def complete(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
        found = [CompletionItem(name) for name in names() if name.startswith(begun)]
        return [*found, CompletionItem(begun, type="file")]

    return complete


def complete_settings(settings: Callable[[], dict[str, list[str]]]) -> Complete:
    """Let a shell complete KEY=VALUE: the keys, and the values of those that have names for them."""

    def complete(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
        found = settings()
        key, equals, value = begun.partition("=")
        if equals:
            return [CompletionItem(f"{key}={name}") for name in found.get(key, []) if name.startswith(value)]
        return [CompletionItem(f"{name}=") for name in found if name.startswith(begun)]

    return complete
