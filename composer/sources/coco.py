"""COCO: its names in their several spellings, and what its annotations say that a picture shows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

import ijson

from ..base.errors import PlanError, describe_error
from ..base.files import open_regular

CHUNK: Final = 2**16  # bytes read at once


LONGEST: Final = 2**25  # bytes of one item: an outline has some thousands, and memory must not run out


ITEMS: Final = {  # the lists, and what is taken of their items
    "images": ("id", "file_name"),
    "annotations": ("image_id", "category_id"),
    "categories": ("id", "name"),
}


def pictures_showing(path: Path, categories: Sequence[str]) -> tuple[set[str], set[str]]:
    """Say which pictures a file of COCO's annotations knows, and which of them show any of some categories.

    Parameters
    ----------
    path : Path
        ``instances_train2014.json`` or the like: an object with the lists ``images``, ``annotations`` and
        ``categories``, in any order. It is read as a stream; what is kept is a number for each picture.
    categories : sequence of str
        Their names, such as ``person``.

    Returns
    -------
    set of str, set of str
        The pictures known, and those that show any of the categories, each by its `picture_identity`.

    Raises
    ------
    PlanError
        The file cannot be read, or is something else; it knows no such category.
    """
    names: dict[int, str] = {}
    shown: dict[int, int] = {}  # by picture: a bit for each category
    numbers: dict[str, int] = {}
    try:
        with open_regular(path) as file:
            for name, (first, second) in _items(_Guarded(file)):
                if name == "images":
                    names[int(first)] = picture_identity(str(second))
                elif name == "annotations":
                    shown[int(first)] = shown.get(int(first), 0) | _bit(second)
                else:
                    numbers[str(second)] = int(first)
    except OSError as error:
        raise PlanError(f"{path}: expected COCO's annotations: {error.strerror}") from None
    except (ijson.JSONError, ValueError, TypeError, KeyError) as error:
        raise PlanError(
            f"{path}: not COCO's annotations, as instances_train2014.json ({describe_error(error)})"
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


class _Guarded:
    """A file that ends with an error where no item ends for too long."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.unanswered = file, 0

    def read(self, count: int) -> bytes:
        """See `io.RawIOBase`."""
        self.unanswered += count
        if self.unanswered > LONGEST:
            raise ValueError(f"one value has more than {LONGEST:,} bytes")
        return self._file.read(count)


def _items(file: _Guarded) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yield the two values of each item, and which list it is of.

    Raises
    ------
    ValueError, KeyError, ijson.JSONError
        It is no such object.
    """
    # Not `ijson.parse`, which keeps the whole path of keys at every depth: 100 kB of brackets would take 10 GB.
    events = ijson.basic_parse(file, buf_size=CHUNK, use_float=True)
    if next(events)[0] != "start_map":
        raise ValueError("an object was expected")
    depth, name, key = 1, "", ""  # 2 is within a list of the object, 3 within an item of it
    found: dict[str, Any] = {}
    for event, value in events:
        if depth == 2 and name in ITEMS and event not in ("start_map", "end_array"):
            raise ValueError(f"{name}: an object was expected")
        if event in ("start_map", "start_array"):
            if depth == 1 and event == "start_map":
                name = ""  # no list
            depth += 1
        elif event in ("end_map", "end_array"):
            depth -= 1
            if depth == 2 and name in ITEMS:
                first, second = ITEMS[name]
                yield name, (found[first], found[second])
                found.clear()
                file.unanswered = 0
        elif depth == 3:
            if event == "map_key":
                key = value
            elif name in ITEMS and key in ITEMS[name]:
                found[key] = value
        elif depth == 1 and event == "map_key":
            name = value


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
