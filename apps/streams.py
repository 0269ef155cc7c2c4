"""What bytes are, as far as their beginning tells; and lines in groups for a model: as many as there are, where
somebody may wait for the answers of the first ones."""

import codecs
import itertools
import os
import queue
import stat
import sys
import threading
from collections.abc import Iterator
from typing import Any


def is_wide(data: bytes) -> bool:
    """Whether bytes are UTF-16 or UTF-32 rather than UTF-8: their zeros tell."""
    return data.startswith((b"\xff\xfe", b"\xfe\xff")) or data.count(0) * 4 > len(data)


def is_utf8(data: bytes) -> bool:
    """Whether bytes are UTF-8, with a broken one here and there; half a character at their end is none."""
    text = data.decode("utf-8", "surrogateescape")
    high = sum(not c.isascii() for c in text)
    broken = sum(map(_is_broken, text[:-3]))
    return broken <= 3 or broken * 2 < high


def is_foreign(data: bytes) -> bool:
    """Whether nothing outside ASCII is UTF-8, be it a single letter; half a character at their end is none.

    0xFF alone does not tell: it is what damage leaves, and ÿ, which hardly any text has without other letters.
    """
    text = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(data)
    high = [c for c in text if not c.isascii()]
    return all(map(_is_broken, high)) and any(c != "\udcff" for c in high)


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


def _is_broken(sign: str) -> bool:
    return "\ud800" <= sign <= "\udfff"
