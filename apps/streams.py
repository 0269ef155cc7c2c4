"""Lines in groups for a model: as many as there are, where somebody may wait for the answers of the first ones."""

import itertools
import os
import queue
import stat
import sys
import threading
from collections.abc import Iterator
from typing import Any


def groups(lines: Iterator[Any], size: int, live: bool) -> Iterator[list[Any]]:
    """At most `size` lines at a time, in order. `live`: a group ends where the next line is not there yet."""
    if not live:
        while part := list(itertools.islice(lines, size)):
            yield part
        return
    waiting: queue.Queue[tuple[bool, Any]] = queue.Queue(4 * size)

    def read() -> None:
        try:
            for line in lines:
                waiting.put((True, line))
            waiting.put((False, None))
        except Exception as error:  # raised where the lines are wanted
            waiting.put((False, error))

    threading.Thread(target=read, daemon=True).start()
    more = True
    while more:
        part = []
        more, line = waiting.get()
        while more:
            part.append(line)
            if len(part) == size or waiting.empty():
                break
            more, line = waiting.get()
        if part:
            yield part
    if line is not None:
        raise line


def is_live(texts: list[str]) -> bool:
    """Whether texts come from a person or a program at the other end of standard input, not from a file."""
    try:
        return texts == ["-"] and not stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode)
    except (OSError, ValueError, AttributeError):  # closed, or what a test or a notebook put there
        return False
