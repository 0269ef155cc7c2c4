"""What bytes are, as far as their beginning tells; and lines in groups for a model: as many as there are, where
somebody may wait for the answers of the first ones."""

import codecs
import os
import queue
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Any

LETTERS = 2**22  # of texts that a model is given at a time: it takes some hundred bytes for each


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


def groups(
    lines: Iterator[Any], size: int, live: bool, letters: Callable[[Any], int] = lambda line: 0
) -> Iterator[list[Any]]:
    """At most `size` lines at a time, in order, and none more after `LETTERS` of them.

    `live`: a group ends where the next line is not there yet; read ahead are so many letters, too.
    """
    if not live:
        part, read = [], 0
        for line in lines:
            part.append(line)
            read += letters(line)
            if len(part) == size or read >= LETTERS:
                yield part
                part, read = [], 0
        if part:
            yield part
        return
    waiting: queue.Queue[tuple[bool, Any]] = queue.Queue(4 * size)
    room = threading.Condition()
    ahead = 0

    def has_room() -> bool:
        return ahead < LETTERS

    def fill() -> None:
        nonlocal ahead
        try:
            for line in lines:
                with room:
                    room.wait_for(has_room)
                    ahead += letters(line)
                waiting.put((True, line))
            waiting.put((False, None))
        except Exception as error:  # raised where the lines are wanted
            waiting.put((False, error))

    def taken() -> tuple[bool, Any]:
        nonlocal ahead
        more, line = waiting.get()
        if more:
            with room:
                ahead -= letters(line)
                room.notify()
        return more, line

    threading.Thread(target=fill, daemon=True).start()
    more = True
    while more:
        part, read = [], 0
        more, line = taken()
        while more:
            part.append(line)
            read += letters(line)
            if len(part) == size or read >= LETTERS or waiting.empty():
                break
            more, line = taken()
        if part:
            yield part
    if line is not None:
        raise line


def side_by_side(
    answer: Callable[[list[Any]], list[Any]], things: list[Any], size: int, threads: int, pool: Executor
) -> list[Any]:
    """The answers to `things` in order: those to parts of one size, `size` at most, by a pool of so many threads.

    Each thread has as many parts as any other. Raises what `answer` raises; parts that nobody has begun are dropped.
    """
    rounds = max(1, -(-len(things) // (size * threads)))
    size = max(1, -(-len(things) // (rounds * threads)))
    parts = [things[start : start + size] for start in range(0, len(things), size)]
    return [one for some in pool.map(answer, parts) for one in some]


def is_live(texts: list[str], file: str | None = None) -> bool:
    """Whether texts come from a person or a program at the other end of a pipe or of standard input, not of a file."""
    try:
        if file is not None:
            return not stat.S_ISREG(os.stat(file).st_mode)
        return texts == ["-"] and not stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode)
    except (OSError, ValueError, AttributeError):  # closed, or what a test or a notebook put there
        return False


def _is_broken(sign: str) -> bool:
    return "\ud800" <= sign <= "\udfff"


def whole(text: str) -> str:
    """The text, and question marks where it holds half a character, as JSON and UTF-7 may."""
    try:
        text.encode("utf-8", "surrogateescape")
        return text
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
