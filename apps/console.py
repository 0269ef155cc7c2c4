"""What every app does at its edges: print in any script, complain in one line, end with the right status."""

import os
import sys
import unicodedata
from collections.abc import Callable
from typing import NoReturn


def complain(message: str) -> None:
    """One line on standard error; nowhere if that is closed."""
    # print(file=None) would write it among the answers.
    if sys.stderr is not None:
        print(printable(message), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """`text` in one line: control characters and broken file names are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def width(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def padded(text: str, columns: int) -> str:
    """`text` and the spaces that make it `columns` wide on a terminal."""
    return text + " " * max(0, columns - width(text))


def finish(main: Callable[[], int]) -> int:
    """The exit status of `main`: its own, 1 with a line where the output cannot be written, 130 when interrupted."""
    if sys.stdout is None:
        complain("standard output is closed")
        return 1
    try:
        status = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _drop_output()
        return 141  # as a program that the signal of a closed pipe ends, such as `cat` before `head`
    except OSError as error:
        _drop_output()
        complain(f"standard output: {error.strerror}")
        return 1
    return status


def leave(status: int) -> NoReturn:
    """Ends the process at once, after `finish` has written everything."""
    # Without the tear-down of TensorFlow's native library, which takes a tenth of a second and frees what the system
    # takes back anyway.
    os._exit(status)


def _drop_output() -> None:
    # Else Python tries to write the rest once more at exit, and prints a traceback.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
