"""The rows of a table of texts: CSV, TSV or JSON lines, as its writer most likely meant them."""

import csv
import io
import itertools
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from bigkeras.data.source import DataError

JSON_LINES = (".jsonl", ".ndjson")
DELIMITERS = ",;\t|"
LOOKED_AT = 200  # rows that tell the delimiter and the columns
SAMPLE = 200_000  # characters that tell the delimiter
# How files begin that are often taken for tables.
NO_TEXTS = {
    b"PK\x03\x04": "a zip archive, such as an Excel sheet",
    b"\xd0\xcf\x11\xe0": "an old Office file",
    b"\x1f\x8b": "compressed by gzip",
    b"PAR1": "Parquet",
    b"%PDF-": "PDF",
    b"SQLite format 3": "an SQLite database",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
}
LONGEST_OBJECT = 2**22  # characters of a first line that may be JSON
REPAIRS = 20  # quotation marks never closed, each of which costs a look at the rest of the file
MOST_NAMES = 1000  # of a table's columns
END = "\x1c\x1d end of table"
csv.field_size_limit(2**31 - 1)  # a review of a megabyte is one


def bytes_of(path: Path, read: str = "CSV, TSV and JSON lines") -> bytes:
    """A file's bytes. Raises DataError for one that cannot be read or is known to be no text, and says what is read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    check_text(path, data, read)
    return data


def check_text(path: Path, data: bytes, read: str) -> None:
    """Raises DataError for bytes that are known to be no text, and says what is read."""
    kind = next((kind for start, kind in NO_TEXTS.items() if data.startswith(start)), None)
    if kind:
        raise DataError(f"{path}: is {kind}, no text: {read} are read")


def is_json(path: Path, content: str) -> bool:
    """Whether a file holds JSON lines, by its name or its first line. Raises DataError for a JSON array."""
    first = content.lstrip("\ufeff \t\r\n")[:LONGEST_OBJECT].partition("\n")[0].strip()
    named = path.suffix.lower() in JSON_LINES
    if (named or path.suffix.lower() == ".json") and first.startswith("["):
        raise DataError(f"{path}: one JSON array; JSON lines are read, an object a line: jq -c '.[]' makes them of it")
    try:
        value = json.loads(first) if first.startswith("{") else None
    except (ValueError, RecursionError):
        value = None
    # One of all columns, as pandas writes it, or one over several lines.
    columns = isinstance(value, dict) and len(value) > 1 and _are_columns(list(value.values()))
    if (path.suffix.lower() == ".json" and first == "{") or (columns and content.strip().count("\n") == 0):
        told = 'JSON lines are read, an object a line, such as {"text": …, "label": …}'
        raise DataError(f"{path}: one JSON object; {told}: pandas writes them by to_json(orient='records', lines=True)")
    return named or isinstance(value, dict)


def _are_columns(values: list[Any]) -> bool:
    """Whether these are lists, or objects, of one length, longer than what a single row has."""
    lists = all(isinstance(of, (list, dict)) and len(of) > 1 for of in values)
    return lists and len({len(of) for of in values}) == 1


def csv_rows(
    path: Path, content: str, delimiter: str | None
) -> tuple[list[int], list[list[str]], list[tuple[str, str]], str]:
    """The line on which each row begins, the rows that are not empty, (place, reason) of lines that are no rows, and
    the delimiter."""
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n\0'):
        raise DataError(f"delimiter={delimiter!r}: one character, such as , or ; ($'\\t' is a tab)")
    physical = list(io.StringIO(content, newline=""))
    told = physical[0].strip().lower() if physical else ""
    if told.startswith("sep=") and len(told) <= 5:  # what Excel writes, or wants to read, in front of a table
        delimiter = delimiter or told[4:] or "\t"
        physical[0] = physical[0][len(physical[0].rstrip("\r\n")) :]
        content = "".join(physical)
    tabs = path.suffix.lower() in (".tsv", ".tab")
    delimiter = delimiter or ("\t" if tabs else _found_delimiter(content))
    # A quotation mark at the beginning of a cell of a TSV is usually one of the text, but some do quote.
    plain = delimiter == "\t" and not _has_quotes(content)
    quoting: dict[str, Any] = {"quoting": csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL}
    quoting["skipinitialspace"] = not plain and _has_spaced_quotes(content, delimiter)
    if not plain and _has_escapes(content, delimiter):
        quoting |= {"doublequote": False, "escapechar": "\\"}
        physical = [_kept_backslashes(line, delimiter) for line in physical]
    lines, rows, open_quotes = _parsed(path, physical, delimiter, quoting)
    bad = [(f"{path}:{line}", "a quotation mark that is never closed") for line in open_quotes]
    return lines, rows, bad, delimiter


def json_rows(path: Path, content: str) -> tuple[list[str], list[int], list[list[str]], list[tuple[str, str]]]:
    """The keys of all objects, the line of each object, its values by these keys, and (place, reason) of bad lines."""
    names: dict[str, None] = {}
    objects: list[tuple[int, dict[str, Any]]] = []
    bad = []
    for line, text in enumerate(content.split("\n"), 1):
        if not text.strip():
            continue
        try:
            value = json.loads(text, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            bad.append((f"{path}:{line}", f"not JSON: {error}"))
            continue
        if not isinstance(value, dict):
            bad.append((f"{path}:{line}", "not a JSON object"))
            continue
        objects.append((line, value))
        names.update(dict.fromkeys(value))
        if len(names) > max(MOST_NAMES, 2 * len(objects[0][1])):
            told = f"more than {MOST_NAMES:,} different names, such as {next(reversed(names))[:60]!r} in line {line}"
            raise DataError(f"{path}: {told}: the objects of a table have the same few")
    if not objects:
        raise DataError(f"{path}: no rows: a JSON object a line" + (f"; {bad[0][0]}: {bad[0][1]}" if bad else ""))
    cells = [[_cell(value.get(name)) for name in names] for _, value in objects]
    return list(names), [line for line, _ in objects], cells, bad


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these keys and values. Raises ValueError for a key that comes twice: which one is meant?"""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"two keys are called {twice!r}")
    return found


def _cell(value: Any) -> str:
    while isinstance(value, list) and len(value) == 1:  # tools for annotation write a list of labels, of one, too
        value = value[0]
    if isinstance(value, str):
        return value
    if value is None or value in ([], {}):
        return ""
    return json.dumps(value, ensure_ascii=False)


def _parsed(
    path: Path, physical: list[str], delimiter: str, quoting: dict[str, Any]
) -> tuple[list[int], list[list[str]], list[int]]:
    """Rows that are not empty, the line on which each begins, and lines whose quotation mark is closed nowhere.

    Such a mark would make the rest of the file one cell: it costs its line only. Raises DataError for too many of them.
    """
    lines: list[int] = []
    rows: list[list[str]] = []
    unclosed: list[int] = []
    begin = 0
    while begin < len(physical):
        # A last line that belongs to an open cell is seen by where it ends up.
        rest = itertools.chain(itertools.islice(physical, begin, None), ["\n", END])
        reader = csv.reader(rest, delimiter=delimiter, **quoting)
        start, again = begin + 1, 0
        for row in reader:
            if delimiter.join(row) == END:  # which a space or a letter would part
                break
            spanned = physical[start - 1 : begin + reader.line_num]
            # The second mark may part a cell that it begins at the delimiters in it: more cells than a row has.
            cells = min(len(row), len(rows[0])) if rows else len(row)
            stray = quoting["quoting"] != csv.QUOTE_NONE and _is_stray(spanned, cells, delimiter, quoting)
            if row and (row[-1].endswith(END) or stray):
                again = start
                break
            if any(cell.strip() for cell in row):
                lines.append(start)
                rows.append(row)
            start = begin + reader.line_num + 1
        if not again:
            break
        unclosed.append(again)
        if len(unclosed) > REPAIRS:
            raise DataError(
                f"{path}, line {again}: {REPAIRS} quotation marks before this one are never closed either: a cell that "
                'begins with " ends with one, and those inside are doubled ("")'
            )
        begin = again
    return lines, rows, unclosed


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


def _found_delimiter(content: str) -> str:
    """The sign that parts the first rows into the same number of cells, more than one, most often."""
    sample = content[:SAMPLE]

    def regular(sign: str) -> tuple[float, int, float]:
        rows = csv.reader(io.StringIO(sample, newline=""), delimiter=sign)
        counts = Counter(len(row) for row, _ in zip(rows, range(LOOKED_AT), strict=False) if row)
        cells, times = max(counts.items(), key=lambda item: (item[1], item[0]), default=(1, 0))
        if cells < 2:
            return 0.0, -1, 0.0
        # A comma of a sentence has a space after it.
        spaced = sample.count(sign + " ") / max(sample.count(sign), 1)
        return times / counts.total(), -cells, -spaced

    return max(DELIMITERS, key=regular)


def _has_spaced_quotes(content: str, delimiter: str) -> bool:
    """Whether most rows have a cell whose quotation marks stand behind a space: well made, "good"."""
    read = csv.reader(io.StringIO(content[:SAMPLE], newline=""), delimiter=delimiter)
    rows = list(itertools.islice(filter(None, read), LOOKED_AT))
    return 2 * sum(any(cell.startswith(' "') for cell in row[1:]) for row in rows) > len(rows)


def _kept_backslashes(text: str, delimiter: str) -> str:
    """The text for csv.reader with an escape: backslashes doubled but where they escape a mark or a delimiter."""
    signs = rf'\\(["\\]|{re.escape(delimiter)})|\\'
    return re.sub(signs, lambda found: found[0] if found[1] else r"\\", text)


def _has_escapes(content: str, delimiter: str) -> bool:
    """Whether quotation marks in cells stand behind a backslash, as Spark and MySQL write them, and are not doubled.

    They do where so read more rows have as many cells as the first.
    """
    sample = content[:SAMPLE]
    if '\\"' not in sample:
        return False

    def regular(text: str, **quoting: Any) -> int:
        read = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, **quoting)
        widths = [len(row) for row in read if row]
        return widths.count(widths[0]) if widths else 0

    kept = _kept_backslashes(sample, delimiter)
    escaped, doubled = regular(kept, doublequote=False, escapechar="\\"), regular(sample)
    # Where no mark stands before a delimiter both read as many; then the other way to write one tells.
    end = rf"[\r\n{re.escape(delimiter)}]|$"
    bare = re.sub(rf'\\"(?!"(?!{end}))', "", sample)  # but of \"" the first half of a doubled mark stays
    bare = re.sub(rf'(^|[\n{re.escape(delimiter)}])""(?={end})', r"\1", bare)  # an empty cell
    return escaped > doubled or (escaped == doubled and '""' not in bare)


def _has_quotes(content: str) -> bool:
    """Whether most cells of a TSV that begin with a quotation mark end with one, too, be it some lines below.

    Across lines these are quotes where they bring rows of too few cells together, and no others.
    """
    quoted = whole = 0
    for line in io.StringIO(content, newline=""):
        for cell in line.rstrip("\r\n").split("\t"):
            if cell.startswith('"'):
                quoted += 1
                whole += len(cell) > 1 and cell.endswith('"') and '"' not in cell[1:-1].replace('""', "")
    if whole * 2 > quoted:  # a row may be spoilt
        return True

    def regular(quoting: Literal[0, 3]) -> tuple[int, int]:
        """How many rows have as many cells as the first, and how many have not."""
        read = csv.reader(io.StringIO(content, newline=""), delimiter="\t", quoting=quoting)
        widths = [len(row) for row in read if row]
        fit = widths.count(widths[0]) if widths else 0
        return fit, len(widths) - fit

    plain, together = regular(csv.QUOTE_NONE), regular(csv.QUOTE_MINIMAL)
    return together[0] >= plain[0] and together[1] < plain[1]
