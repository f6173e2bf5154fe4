"""Registry: things that are found by name. A package of one's own adds to it by an entry point."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from .errors import UnknownNameError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """What is known by name: entries of this program, and of any installed package that offers more.

    A package offers one by an entry point, which processes of every kind find, workers included::

        [project.entry-points."matting_compose.losses"]
        charbonnier = "my_package.losses:charbonnier"

    Parameters
    ----------
    kind : str
        What it holds, in the singular, for messages: ``loss``.
    group : str
        The entry points' group: ``matting_compose.losses``.
    entries : Mapping[str, T]
        This program's own.

    Examples
    --------
    >>> doubling = Registry("rule", "matting_compose.rules", {"twice": lambda x: 2 * x})
    >>> doubling["twice"](21)
    42
    >>> _ = doubling.register("thrice", lambda x: 3 * x)
    >>> list(doubling)
    ['twice', 'thrice']
    >>> doubling["twise"]
    Traceback (most recent call last):
        ...
    UnknownNameError: no rule is called 'twise'; did you mean 'twice'?
    """

    def __init__(self, kind: str, group: str, entries: Mapping[str, T]) -> None:
        self.kind, self.group = kind, group
        self._entries = dict(entries)

    def register(self, name: str, entry: T) -> T:
        """Add an entry for this process; a package that is installed uses an entry point."""
        self._entries[name] = entry
        return entry

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            offered = entry_points(group=self.group, name=name)
            if not offered:
                raise UnknownNameError(self._unknown(name))
            self._entries[name] = next(iter(offered)).load()
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._entries, *entry_points(group=self.group).names]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in list(self)

    def check(self, name: str) -> str:
        """Return a name that is known: what pydantic asks of a setting (`AfterValidator`).

        Raises
        ------
        ValueError
            It is not known.
        """
        try:
            self[name]
        except UnknownNameError as error:
            raise ValueError(str(error)) from None
        return name

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, list(self), 1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(self)}"
        return f"no {self.kind} is called '{name}'; {hint}"


def import_class(kind: str, name: str) -> object:
    """Import what a ``package.module:Class`` names.

    Raises
    ------
    UnknownNameError
        It cannot be imported, or is nothing that should be: a file of a stranger's could name it.
    """
    module, _, attribute = name.partition(":")
    # Nothing of ours lies in the standard library or in a program's entry, whose import may do anything.
    if module.partition(".")[0] in sys.stdlib_module_names or module.endswith("__main__"):
        raise UnknownNameError(f"{kind} '{name}': {module} holds no {kind}s")
    try:
        return getattr(import_module(module), attribute)
    except Exception as error:  # whatever a module of anybody's raises
        raise UnknownNameError(
            f"{kind} '{name}': expected package.module:Class, found nothing there ({type(error).__name__}: {error});"
            " is the package installed, or its folder on PYTHONPATH?"
        ) from error
