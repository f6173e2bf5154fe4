"""COCO: its names in their several spellings, and what its annotations say that a picture shows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from ..base.errors import PlanError

CHUNK = 2**20  # characters read at once


LONGEST = 2**25  # characters of one value: an outline has some thousands, and memory must not run out


def pictures_showing(path: Path, categories: Sequence[str]) -> tuple[set[str], set[str]]:
    """Say which pictures a file of COCO's annotations knows, and which of them show any of some categories.

    Parameters
    ----------
    path : ``instances_train2014.json`` or the like: an object with the lists ``images``, ``annotations`` and
        ``categories``, in any order. It is read as a stream; what is kept is a number for each picture.
    categories : their names, such as ``person``

    Returns
    -------
    two sets of pictures, each by its `picture_identity`

    Raises
    ------
    PlanError : the file cannot be read, or is something else; it knows no such category
    """
    names: dict[int, str] = {}
    shown: dict[int, int] = {}  # by picture: a bit for each category
    numbers: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8") as file:
            for key, value in _Stream(file).values():
                if key == "images":
                    names[int(value["id"])] = picture_identity(str(value["file_name"]))
                elif key == "annotations":
                    picture = int(value["image_id"])
                    shown[picture] = shown.get(picture, 0) | _bit(value["category_id"])
                elif key == "categories":
                    numbers[str(value["name"])] = int(value["id"])
    except OSError as error:
        raise PlanError(f"{path}: expected COCO's annotations: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise PlanError(
            f"{path}: not COCO's annotations, as instances_train2014.json ({type(error).__name__}: {error})"
        ) from None
    if unknown := [name for name in categories if name not in numbers]:
        some = ", ".join(sorted(numbers)[:5]) or "none"
        raise PlanError(f"{path}: knows no category '{unknown[0]}'; it has {some} …")
    wanted = sum({_bit(numbers[name]) for name in categories})
    return set(names.values()), {name for picture, name in names.items() if shown.get(picture, 0) & wanted}


def picture_identity(name: str) -> str:
    """Return what a picture's names have in common: COCO's are called otherwise in 2017 than in 2014.

    >>> picture_identity("train/COCO_train2014_000000000009.jpg")
    '000000000009.jpg'
    """
    last = name.rpartition("/")[2]
    coco = COCO_NAME.fullmatch(last)
    return coco["number"] if coco else last


def _bit(category: Any) -> int:
    number = int(category)
    if not 0 <= number < 10_000:
        raise ValueError(f"category {number}")
    return 1 << number


class _Stream:
    """A JSON object whose values are lists, read an item at a time; what is not in a list is skipped."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._text, self._at = file, "", 0
        self._decoder = json.JSONDecoder()

    def values(self) -> Iterator[tuple[str, Any]]:
        """Yield each list's items with the list's key.

        Raises
        ------
        ValueError : it is no such object
        """
        self._expect("{")
        while self._next() != "}":
            key = self._value()
            if not isinstance(key, str):
                raise ValueError("an object was expected")
            self._expect(":")
            if self._next() != "[":
                self._value()
            else:
                self._at += 1
                while self._next() != "]":
                    yield key, self._value()
                    self._separate("]")
                self._at += 1
            self._separate("}")

    def _expect(self, character: str) -> None:
        if self._next() != character:
            raise ValueError(f"'{character}' was expected, found '{self._next()}'")
        self._at += 1

    def _separate(self, end: str) -> None:
        if self._next() != end:
            self._expect(",")

    def _next(self) -> str:
        """Return the next character that is not white space, without taking it."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                raise ValueError("the file breaks off")

    def _value(self) -> Any:
        self._next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError:
                if not self._more():
                    raise
                continue
            if end == len(self._text) and self._more():
                continue  # a number may go on
            self._at = end
            return value

    def _more(self) -> bool:
        """Read on, as much as is left to look at: so that a long value is not tried too often."""
        rest = self._text[self._at :]
        if len(rest) > LONGEST:
            raise ValueError(f"one value has more than {LONGEST:,} characters")
        read = self._file.read(max(CHUNK, len(rest)))
        self._text, self._at = rest + read, 0
        return bool(read)


# COCO's pictures of 2014 kept their numbers in 2017 and lost the rest: 000000000009.jpg
COCO_NAME = re.compile(r"(?P<set>COCO_(?:train|val)2014_)?(?P<number>\d{12}\.jpg)")


COCO_SETS = ("", "COCO_train2014_", "COCO_val2014_")


def coco_names(name: str) -> list[str]:
    """Return the names that a picture may have: its own, and where it is COCO's those of 2014 and 2017.

    >>> coco_names("COCO_train2014_000000000009.jpg")[:2]
    ['COCO_train2014_000000000009.jpg', '000000000009.jpg']
    """
    folder, slash, last = name.rpartition("/")
    coco = COCO_NAME.fullmatch(last)
    others = [f"{folder}{slash}{prefix}{coco['number']}" for prefix in COCO_SETS] if coco else []
    return list(dict.fromkeys([name, *others]))
