"""Stop: a wish to end a training, by Ctrl-C or SIGTERM, that is granted where nothing is lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

AGAIN = 1.0  # seconds: torchrun hands a Ctrl-C on to processes that have had it from the terminal; that is one wish


class Stopped(Exception):
    """The wish came while nothing was done but waiting."""


class Stop:
    """Whether somebody asked to stop."""

    def __init__(self) -> None:
        self.asked = False
        self._since = 0.0
        self._waiting = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Grant the wish within by raising `Stopped`: for waits that may never end."""
        self._waiting = True
        try:
            if self.asked:
                raise Stopped
            yield
        finally:
            self._waiting = False

    def ask(self) -> bool:
        """Note a wish; tell whether it is another one, from somebody who has lost patience."""
        now = time.monotonic()
        if self.asked:
            return now - self._since >= AGAIN
        self.asked, self._since = True, now
        if self._waiting:
            raise Stopped
        return False


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Take Ctrl-C and SIGTERM as a wish to stop; the second one, a second or more after, is obeyed as ever."""
    stop = Stop()
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGINT, signal.SIGTERM)}

    def heard(number: int, _frame: object) -> None:
        if stop.ask():
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, heard)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
