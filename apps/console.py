"""What every app does at its edges: the options they share, one line for a complaint, the right status at the end."""

import argparse
import contextlib
import json
import os
import re
import signal
import sys
import threading
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

ENDING = (signal.SIGTERM, signal.SIGHUP)
MOST_THREADS = 256


def positive(text: str) -> int:
    """For argparse: a whole number of at least 1."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    if number > sys.maxsize:
        raise argparse.ArgumentTypeError(f"{text} is too large")
    return number


def parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None, things: str) -> argparse.Namespace:
    """The options; `things` are what stands between them, and all behind a "--"."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    cut = given.index("--") if "--" in given else len(given)
    options = parser.parse_intermixed_args(given[:cut])
    setattr(options, things, [*getattr(options, things), *given[cut + 1 :]])
    return options


def model_options(parser: argparse.ArgumentParser, default: str, things: str, batch: int) -> None:
    """Adds --model, --json, --batch and --runtime, the same in every app; `things` are what the model takes."""
    parser.add_argument("--model", default=default, metavar="NAME|DIR",
                        help="a name in saved_models/ (or in $BIGKERAS_MODELS), or a SavedModel's folder, "
                        "./NAME where it is called the same "
                        f"(default: {default})")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--batch", type=positive, default=batch, metavar="N",
                        help=f"{things} at a time (default: {batch})")  # fmt: skip
    parser.add_argument("--runtime", choices=("auto", "c", "python"),
                        help="c: TensorFlow's native library, fast to start; python: TensorFlow; "
                        "auto (the default): c where it is there")  # fmt: skip


def threads_option(parser: argparse.ArgumentParser) -> None:
    """Adds --threads."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Each batch takes memory, and a container may have less of it, and less time, than the cores it sees.
    parser.add_argument("--threads", type=_threads, default=min(cores, 8), metavar="N",
                        help="batches answered side by side (default: %(default)s, one a core, 8 at most)")  # fmt: skip


def _threads(text: str) -> int:
    number = positive(text)
    if number > MOST_THREADS:
        raise argparse.ArgumentTypeError(f"{text}: {MOST_THREADS} at most")
    return number


def complain(message: str) -> None:
    """One line on standard error; nowhere if that is closed, or cannot be written: the answers go on."""
    # print(file=None) would write it among the answers.
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(printable(message), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """`text` in one line: what steers a terminal and broken file names are escaped."""

    def shown(sign: str) -> bool:
        # Spaces of any kind, signs that this Python does not know yet, and what joins letters and signs.
        return sign.isprintable() or sign in "\u200c\u200d" or unicodedata.category(sign) in ("Zs", "Co", "Cn")

    return "".join(c if shown(c) else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def json_line(value: Any) -> str:
    """`value` as JSON in one line, of which no character steers a terminal, nor the order of what it shows."""
    line = json.dumps(value, ensure_ascii=False)
    return re.sub(
        "[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]", lambda sign: f"\\u{ord(sign[0]):04x}", line
    )


def width(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    # Not every mark combines: those of Thai and Hindi that stand above or below a letter do not, and take no column.
    return len(text) + wide - sum(unicodedata.category(c) in ("Mn", "Me") or c in "\u200c\u200d" for c in text)


class Once(argparse.Action):
    """An option that is said once: of two files the first would be lost."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Takes the value, or ends with what is wrong."""
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option_string}: said twice; one at a time")
        setattr(namespace, self.dest, values)


def padded(text: str, columns: int) -> str:
    """`text` and the spaces that make it `columns` wide on a terminal."""
    return text + " " * max(0, columns - width(text))


def finish(main: Callable[[], int]) -> int:
    """The exit status of `main`: its own, 1 with a line where the output cannot be written, 130 when interrupted.

    Whoever is asked to end (SIGTERM, SIGHUP) removes first what is half-written.
    """
    _open_standard_error()
    if sys.stdout is None:
        complain("standard output is closed")
        return 1
    # Of NumPy no app asks for algebra, whose threads spin when they start, and TensorFlow starts beside them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    asked = [number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():  # which alone may set them
        asked = []
    for number in asked:
        signal.signal(number, _leave)
    try:
        return _finished(main)
    except _Asked as end:
        for number in asked:  # asked once more, it ends at once: whoever reads the output may be gone
            signal.signal(number, signal.SIG_DFL)
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        return 128 + end.args[0]
    finally:
        for number in asked:
            signal.signal(number, signal.SIG_DFL)


def _open_standard_error() -> None:
    # Where it is closed, the next file that is opened would get its number, and with it TensorFlow's remarks.
    try:
        os.fstat(2)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        if nowhere != 2:
            os.close(nowhere)


class _Asked(BaseException):
    """By a signal, to end."""


def _leave(number: int, frame: object) -> None:
    for each in ENDING:  # once is enough
        signal.signal(each, signal.SIG_IGN)
    raise _Asked(number)


def _finished(main: Callable[[], int]) -> int:
    try:
        try:
            status = main()
        except SystemExit as end:  # argparse's: what --help has written is yet to come
            status = int(end.code or 0)
        sys.stdout.flush()
    except KeyboardInterrupt:
        # The answers that are there already; whoever interrupts again does not wait for them.
        with contextlib.suppress(OSError, KeyboardInterrupt):
            sys.stdout.flush()
        return 130
    except BrokenPipeError:
        _drop_output()
        return 141  # as a program that the signal of a closed pipe ends, such as `cat` before `head`
    except OSError as error:
        _drop_output()
        complain(f"{error.filename or 'standard output'}: {error.strerror}")
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
