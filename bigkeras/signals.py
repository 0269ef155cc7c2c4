"""Where a run speaks to a person, and how it is asked to stop."""

import contextlib
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO


class Interrupted(Exception):
    """A signal ended the run, and all of it is saved, or the export. `signum` is the signal."""

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


def shown(text: str) -> str:
    r"""Text as a terminal may have it: control characters, which steer it and names may hold, as \x1b and the like."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda sign: f"\\x{ord(sign[0]):02x}", text)


def json_line(value: Any) -> str:
    """`value` as JSON in one line, of which no character steers a terminal, nor the order of what it shows.

    As apps/console.py has it, which imports nothing of bigkeras.
    """
    line = json.dumps(value, ensure_ascii=False, default=str)
    steering = "[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
    return re.sub(steering, lambda sign: f"\\u{ord(sign[0]):04x}", line)


class Patient:
    """A stream whose other end may be gone, as a terminal that is closed: what it does not take is lost."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        """As the stream's."""
        with contextlib.suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """As the stream's."""
        with contextlib.suppress(OSError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class Log:
    """Where a run speaks: the terminal, or nowhere."""

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self.said: set[str] = set()

    def say(self, text: str) -> None:
        """A line for a person."""
        if not self.quiet:
            with contextlib.suppress(OSError):  # a terminal that is closed
                print(shown(text), file=sys.stderr, flush=True)

    def say_once(self, text: str) -> None:
        """A line that is not said again, as of data that several runs of a search read."""
        if text not in self.said:
            self.said.add(text)
            self.say(text)


def open_standard_error() -> None:
    """Sees to it that there is one: where it is closed, remarks go nowhere, and into no file that is opened next."""
    try:
        os.fstat(2)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        if nowhere != 2:
            os.close(nowhere)
        os.set_inheritable(2, True)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)


class _Left(BaseException):
    """By a signal; not an Exception, which what reads a picture takes for the picture's."""


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """Where a signal asks to end meanwhile (SIGTERM, SIGHUP) Interrupted is raised: what is half-written is removed."""

    def leave(signum: int, frame: Any) -> None:
        for number in taken:  # a closed terminal sends it twice
            signal.signal(number, signal.SIG_IGN)
        raise _Left(signum)

    ending = (signal.SIGTERM, signal.SIGHUP)
    taken = [number for number in ending if signal.getsignal(number) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():  # which alone may take them
        taken = []
    for number in taken:
        signal.signal(number, leave)
    try:
        yield
    except _Left as end:
        raise Interrupted(end.args[0]) from None
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """A list that holds the first SIGINT, SIGTERM or SIGHUP; a second SIGINT (Ctrl-C) acts as it always does.

    The others come twice where a launcher is asked to leave together with its workers, or a terminal is closed, and
    what is being saved would be lost.
    """
    asked: list[int] = []

    before: dict[int, Any] = {}

    def note(signum: int, frame: Any) -> None:
        asked.append(signum)
        signal.signal(signum, before[signum] if signum == signal.SIGINT else signal.SIG_IGN)

    try:
        # Of a closed terminal where nobody has it ignored (nohup), as a script has SIGINT of what it starts with &.
        hung_up = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL else []
        for number in (signal.SIGINT, signal.SIGTERM, *hung_up):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, note)
    except ValueError:
        pass  # not the main thread: signals are the caller's
    try:
        yield asked
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
