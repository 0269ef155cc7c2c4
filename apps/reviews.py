"""Texts for an app: lines of a stream, or a column of a table that is copied with the answers beside it.

Everything is read and written row by row, so that files may be larger than memory. Bytes that are not UTF-8 pass
through unchanged: the model replaces them, and a copy of a table keeps them.
"""

import codecs
import collections
import contextlib
import csv
import io
import itertools
import json
import os
import re
import stat
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from apps.console import complain
from apps.streams import is_foreign, is_utf8, is_wide, whole
from apps.table_copy import TableCopy, answer_names
from apps.table_rows import ReviewError as ReviewError  # for all that read reviews
from apps.table_rows import has_escapes, has_quotes, has_spaced_quotes, named_delimiter, regular_delimiter, rows_of

TABLES = {".csv": None, ".tsv": "\t", ".tab": "\t"}
JSON_LINES = (".jsonl", ".ndjson", ".json")
USUAL_COLUMNS = (
    "text", "review", "sentence", "comment", "content", "body", "message",
    "tweet", "reviewtext", "评论", "内容", "文本",
)  # fmt: skip
MARKS = {b"\xff\xfe\0\0": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
# How files begin that are often taken for tables; as bigkeras/data/rows.py has it, of which an app imports nothing.
NO_TEXTS = {
    b"PK\x03\x04": "a zip archive, such as an Excel sheet",
    b"\xd0\xcf\x11\xe0": "an old Office file",
    b"\x1f\x8b": "compressed by gzip",
    b"PAR1": "Parquet",
    b"%PDF-": "PDF",
}
LOOKED_AT = 2**16  # bytes that tell whether a file is UTF-8, and whether a TSV has quotes
SAYS_NOTHING = ("Zs", "Zl", "Zp", "Cc", "Cf")  # spaces, controls and what joins signs, as Unicode calls them


@dataclass(frozen=True)
class Review:
    """A text and its place, for messages; the row of the table it stands in; and why it cannot be answered."""

    name: str
    text: str
    row: tuple[str, ...] = ()
    defect: str = ""

    @property
    def problem(self) -> str:
        """What is wrong with it; empty where nothing is."""
        says_nothing = all(unicodedata.category(sign) in SAYS_NOTHING for sign in self.text)
        return self.defect or ("an empty text" if says_nothing else "")

    def encoded(self) -> bytes:
        """The bytes that the model takes."""
        return whole(self.text).encode("utf-8", "surrogateescape")


def lines_of(stream: BinaryIO | TextIO, name: str) -> Iterator[Review]:
    """A review for every line."""
    for number, line in enumerate(_checked(stream, name), 1):
        if number == 1 and isinstance(line, bytes) and len(line) > 3 and is_wide(line):
            raise ReviewError(f"{name}: UTF-16 or UTF-32, where UTF-8 is read")
        text = line.decode("utf-8", "surrogateescape") if isinstance(line, bytes) else line
        if number == 1:
            text = text.removeprefix("\ufeff")
        yield Review(f"{name}, line {number}", text.rstrip("\r\n"))


def standard_input() -> Iterator[Review]:
    """A review for every line of standard input."""
    if sys.stdin is None:
        raise ReviewError("standard input is closed")
    return _standard_input()


def _standard_input() -> Iterator[Review]:
    # What is there already, be it less than a line; the rest is not waited for.
    try:
        start = sys.stdin.buffer.peek(LOOKED_AT) if isinstance(sys.stdin.buffer, io.BufferedReader) else b""
    except OSError as error:
        raise ReviewError(f"standard input: cannot be read: {error.strerror}") from None
    if len(start) > 3 and is_wide(start):
        raise ReviewError("standard input: UTF-16 or UTF-32, where UTF-8 is read")
    if not is_wide(start) and (not is_utf8(start) or is_foreign(start)):
        raise ReviewError("standard input: not UTF-8 text: as a file, --encoding says what it is")
    if _line_end(start.decode("utf-8", "replace")) == "\r":
        # Any end of a line is one: what comes later may have others.
        stream = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", errors="surrogateescape", newline=None)
        yield from lines_of(stream, "standard input")
    else:
        yield from lines_of(sys.stdin.buffer, "standard input")


def _line_end(start: str) -> str:
    """What ends a text's lines, by its beginning: a carriage return alone, as on old Macs, where there is no other."""
    return "\r" if "\n" not in start and re.search(r"\r[^\n]", start) else "\n"


def objects_of(stream: TextIO, name: str, column: str | None) -> Iterator[Review]:
    """A review for every line that is a JSON object: its value under `column`, or under a usual name."""
    filled = (review for review in lines_of(stream, name) if review.text.strip())
    first = list(itertools.islice(filled, 1))
    start = first[0].text.strip() if first else ""
    if start.startswith("["):
        raise ReviewError(
            f"{name}: one JSON array; JSON lines are read, an object a line: jq -c '.[]' makes them of it"
        )
    whole = _is_whole_table(start)
    if whole:  # one, where nothing follows
        first += itertools.islice(filled, 1)
    if start == "{" or (whole and len(first) == 1):
        raise ReviewError(
            f"{name}: one JSON object; JSON lines are read, an object a line: pandas writes them by "
            "to_json(orient='records', lines=True)"
        )
    for review in itertools.chain(first, filled):
        try:
            value = json.loads(review.text, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            yield Review(review.name, review.text, defect=f"not JSON: {error}")
            continue
        if not isinstance(value, dict):
            yield Review(review.name, review.text, defect="not a JSON object")
            continue
        column = column or _usual_column(list(value), review.name, "keys")
        if column is None and not any(isinstance(cell, str) for cell in value.values()):
            yield Review(review.name, review.text, defect="no text in it")
            continue
        if column is None:
            told = ", ".join(map(repr, value))
            raise ReviewError(f"{review.name}: which key holds the text? --column takes one of {told}")
        text = value.get(column)
        defect = "" if isinstance(text, str) else f"no text under {column!r}"
        yield Review(review.name, text if isinstance(text, str) else review.text, defect=defect)


def _is_whole_table(line: str) -> bool:
    """Whether a line is an object of columns, as pandas writes a table where nothing is said."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return False
    columns = list(value.values()) if isinstance(value, dict) else []
    whole = len(columns) > 1 and all(isinstance(one, dict | list) and len(one) > 1 for one in columns)
    return whole and len({len(one) for one in columns}) == 1


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these keys and values. Raises ValueError for a key that comes twice: which one is meant?"""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = collections.Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"two keys are called {twice!r}")
    return found


class Table:
    """A CSV or TSV file; iterating gives the reviews of one column."""

    def __init__(
        self,
        path: str,
        encoding: str | None,
        delimiter: str | None,
        column: str | None,
        files: contextlib.ExitStack,
        named: bool = True,
    ):
        """`named`: the first row has the columns' names; else they are called 1, 2 and so on, and it has a text."""
        self.path = path
        self.file = self.open(path, encoding, files, table=True)
        buffer: Any = self.file.buffer
        start = buffer.peek(LOOKED_AT)
        # Excel takes a table without one for its own, old encoding; that is one where another was said.
        other = encoding is not None and not self.file.encoding.startswith("utf")
        self.mark = "\ufeff" if other or start.startswith(tuple(MARKS)) else ""
        try:
            start = start.decode(self.file.encoding, "replace")
        except UnicodeError as error:  # idna and the like
            raise ReviewError(f"--encoding {encoding}: {path} cannot be read so: {error}") from None
        lines = _checked(self.file, path)
        blank, first = [], ""
        for first in lines:
            if first.strip():
                break
            blank.append(first)
        first = first.removeprefix("\ufeff")
        self.end = next((end for end in ("\r\n", "\n", "\r") if first.endswith(end)), "\n")
        self.before = ""
        told = first.strip().lower()
        if told.startswith("sep=") and len(told) <= 5:  # what Excel writes, or wants to read, in front of a table
            delimiter = delimiter or told[4:] or "\t"
            self.before, first = first, self.end
        bare = re.sub('"[^"]*"', "", first)  # without quoted cells, which may hold any sign
        self.delimiter = (
            delimiter
            or TABLES[Path(path).suffix.lower()]
            or (named_delimiter(bare, start) if named and '"' not in bare else regular_delimiter(start))
        )
        # A TSV has no quotes, but spreadsheets write some that have.
        self.plain = self.delimiter == "\t" and not has_quotes(start[len(self.before) :])
        self.named = named
        top = start[len(self.before) :]
        quoting: dict[str, Any] = {"quoting": csv.QUOTE_NONE if self.plain else csv.QUOTE_MINIMAL}
        quoting["skipinitialspace"] = not self.plain and has_spaced_quotes(top, self.delimiter)
        if not self.plain and has_escapes(top, self.delimiter):
            quoting |= {"doublequote": False, "escapechar": "\\"}
        self.rows = rows_of(itertools.chain(blank, [first], lines), path, self.delimiter, quoting)
        begun = list(self._first_rows())
        top = begun[-1] if begun else None
        if top is None:
            wanted = ": its first line names the columns, such as id,review" if named else ""
            raise ReviewError(f"{path}: the file is empty{wanted}")
        self.top = top[1]  # as it stands there
        self.header = [cell.strip() if named else str(place) for place, cell in enumerate(self.top, 1)]
        if not named:
            self.rows = itertools.chain(begun, self.rows)
        self.place = self._column(column)

    def _first_rows(self) -> Iterator[tuple[int, list[str], str]]:
        """The first row that is not blank; where it has no names, to the first one with which nothing is wrong."""
        for found in self.rows:
            if any(cell.strip() for cell in found[1]):
                yield found
                if self.named or not found[2]:
                    return

    @staticmethod
    def is_one(path: str | None) -> bool:
        """Whether a file is a table, by its name."""
        return path is not None and Path(path).suffix.lower() in TABLES

    @staticmethod
    def open(path: str, encoding: str | None, files: contextlib.ExitStack, table: bool = False) -> TextIO:
        """The file or pipe, to be read as text; `files` closes it."""
        if path == "-":
            raise ReviewError("--file -: standard input is read as lines, by - alone")
        try:
            # Opened once, since what a pipe has given does not come again.
            file = io.BufferedReader(io.FileIO(path), LOOKED_AT)
            is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            # To close a pipe is to wait for the thread that waits for its next line: the end of the process closes it.
            kept = files if is_file else contextlib.ExitStack()
            kept.enter_context(file)
            start = file.peek(LOOKED_AT)
            kind = next((kind for sign, kind in NO_TEXTS.items() if start.startswith(sign)), None)
            if kind:
                raise ReviewError(f"{path}: is {kind}, no text: CSV, TSV, JSON lines and lines of text are read")
            found = next((name for mark, name in MARKS.items() if start.startswith(mark)), "utf-8")
            if encoding is None and found == "utf-8":
                told = f"{path}: not UTF-8 text: --encoding says what it is, such as gb18030 or cp1252"
                if not is_utf8(start) or is_wide(start):
                    raise ReviewError(told)
                if is_foreign(start):
                    raise ReviewError(f"{told}; utf-8, if it is that with broken bytes")
            # Broken bytes of UTF-8 pass; of another encoding they have no form in which they could.
            chosen = codecs.lookup(encoding).name if encoding else found
            if start.startswith(codecs.BOM_UTF8) and not chosen.startswith("utf"):
                raise ReviewError(
                    f"{path}: begins with the mark of UTF-8, so it is not {encoding}: leave --encoding out"
                )
            if chosen == "utf-8":
                chosen = "utf-8-sig"  # which reads texts without its mark, too
            errors = "surrogateescape" if chosen.startswith("utf-8") else "replace"
            try:
                begin = start.decode(chosen, "replace")
            except UnicodeError as error:  # idna and the like
                raise ReviewError(f"--encoding {encoding}: {path} cannot be read so: {error}") from None
            newline: str | None = "\n" if _line_end(begin) == "\n" else None
            if (
                table
            ):  # any line end may be part of a cell; Windows writes \r\r\n where a table's \r\n is taken for text
                newline = "\n" if "\r\r\n" in begin else ""
            return kept.enter_context(io.TextIOWrapper(file, encoding=chosen, errors=errors, newline=newline))
        except OSError as error:
            raise ReviewError(f"{path}: cannot be read: {error.strerror}") from None
        except LookupError:
            raise ReviewError(f"--encoding {encoding}: no such encoding; utf-8, utf-16 and gb18030 are some") from None

    def __iter__(self) -> Iterator[Review]:
        cut = False
        for number, row, spoilt in self.rows:
            if not row and len(self.header) > 1:
                continue
            row = row or [""]  # of one column, an empty text
            if not any(row[len(self.header) :]):
                row = row[: len(self.header)]  # a delimiter at the end of rows makes no column
            # Excel leaves empty cells at the ends of rows out. But a text that nothing follows may be cut off, and what
            # comes then is the rest of it.
            if self.place < len(row) - 1 and not cut:
                row += [""] * (len(self.header) - len(row))
            cut = len(row) <= self.place + 1 < len(self.header)
            name, cells = f"{self.path}, line {number}", len(row)
            told = "names" if self.named else "has"
            wrong = "" if cells == len(self.header) else f"{cells} cells where the first line {told} {len(self.header)}"
            wrong = spoilt or wrong
            yield Review(name, row[self.place] if self.place < cells else "", tuple(row), wrong)

    def writer(self, out: TextIO) -> TableCopy:
        """Writes the table's header to `out`; what it gives writes the rows with their answers."""
        copy = TableCopy(out, self.delimiter, self.end, len(self.header), self.plain)
        out.write(self.mark + self.before)
        if self.named:
            copy.cells([*self.top, *answer_names(self.header)])
        return copy

    def _column(self, name: str | None) -> int:
        told = ", ".join(map(repr, self.header))
        if name is None:
            name = _usual_column(self.header, self.path, "columns")
            if name is None and len(self.header) > 1:
                raise ReviewError(f"{self.path}: which column holds the texts? --column takes one of {told}")
            if name is None and self.named:
                complain(f"{self.path}: {self.header[0][:60]!r} is taken for the column's name, and no text; "
                         "--no-header if it is one")  # fmt: skip
            return 0 if name is None else self.header.index(name)
        if self.header.count(name) != 1:
            found = "two columns are called" if name in self.header else "no column"
            raise ReviewError(f"{self.path}: {found} {name!r}: --column takes one of {told}")
        return self.header.index(name)


def _usual_column(names: list[str], where: str, kind: str) -> str | None:
    """The name that is usual for texts, whatever its case; None without. Raises ReviewError where two are called so."""
    lower = [name.lower() for name in names]
    usual = next((name for name in USUAL_COLUMNS if name in lower), None)
    alike = [name for name in names if name.lower() == usual]
    if len(alike) > 1:
        way = f"--column takes one of {', '.join(map(repr, alike))}" if len(set(alike)) > 1 else "rename one"
        raise ReviewError(f"{where}: two {kind} are called {usual!r}: {way}")
    return alike[0] if alike else None


def _checked(lines: Iterable[Any], name: str) -> Iterator[Any]:
    """The lines of a stream; ReviewError where it cannot be read on."""
    try:
        # Not `yield from`: that would close the stream where only its first line is taken.
        for line in lines:  # noqa: UP028
            yield line
    except (OSError, UnicodeError) as error:
        raise ReviewError(f"{name}: cannot be read on: {error}") from None
