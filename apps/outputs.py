"""Where an app writes its answers: standard output, or a file that is whole or as it was before."""

import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from apps.table_rows import ReviewError


@contextlib.contextmanager
def written(path: str | None, plain: bool, table: bool = False) -> Iterator[TextIO]:
    """Where answers go: standard output, or a file that gets its name when all of it is written.

    A `path` of None or "-" is standard output. `plain`: text for a person, in the terminal's own encoding; all else is
    UTF-8. `table`: lines end as they come.
    """
    if path is None or path == "-" or _is_standard_output(path):
        if isinstance(sys.stdout, io.TextIOWrapper):  # and not what a test or a notebook put there
            errors = "backslashreplace" if plain else "surrogateescape"
            newline = "" if table else None
            sys.stdout.reconfigure(encoding=None if plain else "utf-8", errors=errors, newline=newline)
        yield sys.stdout
        return
    with replaced(path) as place, open(place, "w", encoding="utf-8", errors="surrogateescape", newline="") as out:
        yield out
        out.flush()
        with contextlib.suppress(OSError):  # of a device or a pipe
            os.fsync(out.fileno())


def _is_standard_output(path: str) -> bool:
    """Whether a path, as /dev/stdout, is where standard output goes: a file there holds what others have written."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError, AttributeError):  # not there, closed, or what a test or a notebook put there
        return False


@contextlib.contextmanager
def replaced(path: str) -> Iterator[Path]:
    """A name beside `path` to write to, which `path` gets when all is written: whole, or as it was before.

    A link stays one; a device or a pipe is written to itself, as is what can be written but not replaced: a file that
    is mounted, or another's in a folder where none may be removed. Raises ReviewError.
    """
    try:
        if not path or Path(path).is_dir():
            raise ReviewError(f"{path!r}: cannot be written: the name of a file is needed")
        if Path(path).exists() and not Path(path).is_file():
            yield Path(path)
            return
        try:
            final = Path(path).resolve()
        except RuntimeError:  # which Python gives up before 3.13
            raise ReviewError(f"{path}: cannot be written: a link that leads to itself") from None
        # A name that is nobody's; a file of tempfile would be for its owner alone.
        beside = final.with_name(f".{os.urandom(8).hex()}.part")  # as short, since names may be long
        only_copy = False
        try:
            if final.exists():
                beside = _like(final, beside)
            yield beside
            try:
                os.replace(beside, final)
            except OSError:
                only_copy = True
                _copied(beside, final)
                only_copy = False
        finally:
            if not only_copy:
                with contextlib.suppress(OSError):
                    beside.unlink(missing_ok=True)
    except OSError as error:
        raise ReviewError(f"{path}: cannot be written: {error.strerror}") from None


def _like(final: Path, beside: Path) -> Path:
    """`beside`, made with the mode of a file; where its folder takes none, but it may be written itself, another."""
    try:
        beside.touch(0o600)
    except OSError:
        if not os.access(final, os.W_OK):
            raise
        number, name = tempfile.mkstemp(suffix=".part")
        os.close(number)
        return Path(name)
    shutil.copymode(final, beside)
    return beside


def _copied(whole: Path, final: Path) -> None:
    try:
        shutil.copyfile(whole, final)
    except OSError as error:
        raise ReviewError(f"{final}: cannot be written: {error.strerror}; all of it is in {whole}") from None
    except BaseException:  # a signal
        print(f"{final}: not all of it was written; all of it is in {whole}", file=sys.stderr, flush=True)
        raise
