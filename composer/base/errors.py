"""What can go wrong, as a small tree. A message says what failed, what was expected and found, and the way out.

There is a class for what somebody catches by name, or what a command answers otherwise, and no more.
"""

from __future__ import annotations

RESUME_HINT = "Nothing finished is lost: run the same command again to go on"


class MattingComposeError(Exception):
    """The root: every error whose message is meant for the person at the keyboard."""


class RecipeError(MattingComposeError):
    """A recipe or a training configuration cannot be used: an unknown key, a wrong type, an impossible value."""


class PlanError(MattingComposeError):
    """A recipe and the pictures it names do not add up to a dataset."""


class BuildError(MattingComposeError):
    """A folder cannot be written, or a build cannot start or go on."""


class DatasetError(MattingComposeError):
    """A dataset or a shard is not what it should be."""


class TrainingError(MattingComposeError):
    """A training cannot start or go on, a checkpoint is not what it should be, or a network cannot be exported."""


class FileError(MattingComposeError):
    """A file or folder that a command was given is not what it needs."""


class SourceError(MattingComposeError):
    """A picture cannot be used.

    Parameters
    ----------
    source : str
        The picture's name as the plan has it, never an absolute path.
    cause : str
        A short, countable word: ``missing``, ``empty``, ``not-an-image``, ``truncated``, ``too-large``,
        ``unsupported``, ``size-mismatch``, ``no-alpha``, ``too-small``, ``no-unknown``, ``not-a-trimap``,
        ``not-a-matte`` or ``occupied``.
    detail : str
        What was expected, what was found, and what to do about it.
    """

    def __init__(self, source: str, cause: str, detail: str) -> None:
        super().__init__(f"{source}: {detail}")
        self.source = source
        self.cause = cause
        self.detail = detail

    def __reduce__(self) -> tuple[type[SourceError], tuple[str, str, str]]:
        return type(self), (self.source, self.cause, self.detail)


def describe_error(error: Exception) -> str:
    """Return an error's message in a line; of a library's with its type, which often says more."""
    if isinstance(error, MattingComposeError):
        return str(error)
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


class UnknownNameError(MattingComposeError, KeyError):
    """Nothing of that name is registered."""

    __str__ = Exception.__str__  # KeyError's shows its argument in quotes
