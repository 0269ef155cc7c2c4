"""Where a run speaks to a person, and how it is asked to stop."""

import contextlib
import re
import signal
import sys
from collections.abc import Iterator
from typing import Any


class Interrupted(Exception):
    """A signal ended the run; everything is saved. `signum` is the signal."""

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


def shown(text: str) -> str:
    r"""Text as a terminal may have it: control characters, which steer it and names may hold, as \x1b and the like."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda sign: f"\\x{ord(sign[0]):02x}", text)


class Log:
    """Where a run speaks: the terminal, or nowhere."""

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self.said: set[str] = set()

    def say(self, text: str) -> None:
        """A line for a person."""
        if not self.quiet:
            print(shown(text), file=sys.stderr, flush=True)

    def say_once(self, text: str) -> None:
        """A line that is not said again, as of data that several runs of a search read."""
        if text not in self.said:
            self.said.add(text)
            self.say(text)


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """A list that holds the first SIGINT or SIGTERM; a second one acts as it always does."""
    asked: list[int] = []

    before: dict[int, Any] = {}

    def note(signum: int, frame: Any) -> None:
        asked.append(signum)
        signal.signal(signum, before[signum])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    except ValueError:
        pass  # not the main thread: signals are the caller's
    try:
        yield asked
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
