"""The rows of a CSV or TSV that people have written: what parts them, what is quoted, and marks that quote nothing.

bigkeras/data/rows.py reads a whole table so to train on it; an app imports nothing of bigkeras, and streams.
"""

import collections
import csv
import io
import re
from collections.abc import Iterator
from typing import Any, Literal

DELIMITERS = ",;\t|"
LONGEST_CELL = 10_000  # lines; a quotation mark that is open for more is a character
END = "\0end of the table"  # what no cell ends with
csv.field_size_limit(2**31 - 1)


class ReviewError(ValueError):
    """A file that cannot be read or written; one line that says why."""


def rows_of(
    lines: Iterator[str], name: str, delimiter: str, quoting: dict[str, Any]
) -> Iterator[tuple[int, list[str], str]]:
    """The line on which each row begins, its cells, and what is wrong with them: "" for nothing.

    A quotation mark that is closed nowhere would make the rest of the file one cell: it costs its line only, which is
    given as one cell, and so does what csv.reader cannot read. `quoting`: how it takes the marks.
    """
    plain = quoting["quoting"] == csv.QUOTE_NONE
    escaped = quoting.get("escapechar") is not None

    def whole(line: str) -> str:
        return kept_backslashes(line, delimiter) if escaped else line

    again: collections.deque[str] = collections.deque()  # lines that are read once more
    number, width = 1, 0
    while True:
        taken: list[str] = []

        def following(taken: list[str] = taken) -> Iterator[str]:
            while len(taken) < LONGEST_CELL and (line := again.popleft() if again else next(lines, None)) is not None:
                taken.append(line)
                yield whole(line)
            if taken:
                yield from ("\n", END)  # a last line without its end must not run into it

        wrong = ""
        try:
            row = next(csv.reader(following(), delimiter=delimiter, **quoting), None)
        except csv.Error as error:  # as of a carriage return in a table of other ends
            if not taken:
                raise ReviewError(f"{name}, line {number}: not CSV: {error}") from None
            row, wrong = [], f"not CSV: {str(error).partition(' - ')[0]}"
        if row is None:
            return
        # The second mark may part a cell that it begins at the delimiters in it: more cells than a row has.
        cells = min(len(row), width or len(row))
        if row and (
            row[-1].endswith(END) or (not plain and _is_stray([*map(whole, taken)], cells, delimiter, quoting))
        ):
            wrong = "a quotation mark that is never closed"
        if wrong:
            again.extendleft(reversed(taken[1:]))
            taken, row = taken[:1], [taken[0].rstrip("\r\n")]
        else:
            width = width or (len(row) if any(cell.strip() for cell in row) else 0)
        yield number, row, wrong
        number += len(taken)


def named_delimiter(names: str, start: str) -> str:
    """The sign that parts the names of a table's columns: of several in them the one that parts the rows alike.

    Where more than one does, it is that which parts the names into more.
    """
    lines = start.splitlines(keepends=True)
    lines = lines[:-1] or lines  # the last one may be cut

    def alike(sign: str) -> float:
        counts = collections.Counter(len(row) for row in csv.reader(lines, delimiter=sign) if row)
        most = max((times for cells, times in counts.items() if cells > 1), default=0)
        return most / max(counts.total(), 1)

    signs = [sign for sign in DELIMITERS if sign in names] or [DELIMITERS[0]]
    return max(signs, key=lambda sign: (len(signs) == 1 or alike(sign), names.count(sign)))


def regular_delimiter(start: str) -> str:
    """The sign that parts the rows at a table's beginning into the same number of cells, more than one, most often."""
    lines = start.splitlines(keepends=True)
    lines = lines[:-1] or lines  # the last one may be cut

    def regular(sign: str) -> tuple[float, int, float]:
        counts = collections.Counter(len(row) for row in csv.reader(lines, delimiter=sign) if row)
        cells, times = max(counts.items(), key=lambda item: (item[1], item[0]), default=(1, 0))
        if cells < 2:
            return 0.0, -1, 0.0
        # A comma of a sentence has a space after it.
        spaced = start.count(sign + " ") / max(start.count(sign), 1)
        return times / counts.total(), -cells, -spaced

    return max(DELIMITERS, key=regular)


def _is_stray(lines: list[str], cells: int, delimiter: str, quoting: dict[str, Any]) -> bool:
    """Whether a row of several lines is made by two marks that quote nothing: text follows the second one.

    Each of the lines alone has a row's `cells` then, and those between are rows that would be lost.
    """
    if len(lines) < 2 or any(line.count(delimiter) + 1 < cells for line in lines if line.strip()):
        return False
    closed = re.compile(rf'" +(?={re.escape(delimiter)}|\r?\n|$)')  # a space after the mark is none of the cell's end
    lines = [closed.sub('"', line) for line in lines]
    try:
        return not list(csv.reader(lines, delimiter=delimiter, strict=True, **quoting))
    except csv.Error:
        return True


def has_spaced_quotes(start: str, delimiter: str) -> bool:
    """Whether most rows at a table's beginning have a cell whose quotation marks stand behind a space."""
    lines = start.splitlines(keepends=True)
    rows = [row for row in csv.reader(lines[:-1] or lines, delimiter=delimiter) if row]
    return 2 * sum(any(cell.startswith(' "') for cell in row[1:]) for row in rows) > len(rows)


def kept_backslashes(text: str, delimiter: str) -> str:
    """The text for csv.reader with an escape: backslashes doubled but where they escape a mark or a delimiter."""
    signs = rf'\\(["\\]|{re.escape(delimiter)})|\\'
    return re.sub(signs, lambda found: found[0] if found[1] else r"\\", text)


def has_escapes(start: str, delimiter: str) -> bool:
    """Whether quotation marks in cells stand behind a backslash: so read, more rows have as many cells as the first."""
    if '\\"' not in start:
        return False

    def regular(text: str, **quoting: Any) -> int:
        read = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, **quoting)
        widths = [len(row) for row in read if row]
        return widths.count(widths[0]) if widths else 0

    kept = kept_backslashes(start, delimiter)
    escaped, doubled = regular(kept, doublequote=False, escapechar="\\"), regular(start)
    # Where no mark stands before a delimiter both read as many; then the other way to write one tells.
    end = rf"[\r\n{re.escape(delimiter)}]|$"
    bare = re.sub(rf'\\"(?!"(?!{end}))', "", start)  # but of \"" the first half of a doubled mark stays
    bare = re.sub(rf'(^|[\n{re.escape(delimiter)}])""(?={end})', r"\1", bare)  # an empty cell
    return escaped > doubled or (escaped == doubled and '""' not in bare)


def has_quotes(start: str) -> bool:
    """Whether most cells of a TSV's beginning that begin with a quotation mark end with one, be it some lines below.

    Across lines these are quotes where they bring rows of too few cells together, and no others.
    """
    cells = [cell for line in start.split("\n")[:-1] for cell in line.rstrip("\r").split("\t")]
    quoted = [cell for cell in cells if cell.startswith('"')]
    whole = [
        cell for cell in quoted if len(cell) > 1 and cell.endswith('"') and '"' not in cell[1:-1].replace('""', "")
    ]
    if 2 * len(whole) > len(quoted):  # a row may be spoilt
        return True

    def regular(quoting: Literal[0, 3]) -> tuple[int, int]:
        """How many rows have as many cells as the first, and how many have not."""
        rows = [row for row in csv.reader(io.StringIO(start, newline=""), delimiter="\t", quoting=quoting) if row]
        fit = sum(len(row) == len(rows[0]) for row in rows)
        return fit, len(rows) - fit

    plain, together = regular(csv.QUOTE_NONE), regular(csv.QUOTE_MINIMAL)
    return together[0] >= plain[0] and together[1] < plain[1]
