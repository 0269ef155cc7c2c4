"""Own texts in a table: CSV, TSV or JSON lines, whose columns, delimiter and encoding are found or said."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bigkeras.data.columns import LABEL_NAMES, TEXT_NAMES, found_columns, has_header
from bigkeras.data.encoding import decoded, says_nothing
from bigkeras.data.files import SPLIT, SPLIT_NAMES, expanded, part_splits, split_place
from bigkeras.data.label_names import alike, classes, one_spelling, single, tidy
from bigkeras.data.pair_splits import text_key
from bigkeras.data.reviews import text_array
from bigkeras.data.rows import LOOKED_AT, bytes_of, csv_rows, is_json, json_rows
from bigkeras.data.source import ArraySource, DataError, Splits, all_told

NO_LABEL = (
    "nan", "null", "none", "n/a", "na", "<na>",
    "#n/a", "#value!", "#ref!", "#name?", "#null!", "#div/0!", "\\n",  # Excel's, and MySQL's \N
)  # fmt: skip
MOST_TITLES = 3


def text_table(
    *,
    file: str,
    text: int | str | None = None,
    label: int | str | None = None,
    like: Sequence[str] = (),
    split: int | str | None = SPLIT,
    delimiter: str | None = None,
    encoding: str | None = None,
    header: bool | None = None,
    no_label: Sequence[int | str] = NO_LABEL,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    limit_train: int | None = None,
) -> Splits:
    """Texts and labels in a table, a row each: CSV, TSV, or JSON lines (.jsonl, .ndjson). All in memory.

    What is None is found. `text` and `label` are names of columns, or their numbers from 1 where there is no `header`;
    a column called text or review, label or sentiment, … is taken, or one whose name has such a word (review_body,
    starRating, 情感标签), else the longest cells are texts and the fewest different ones labels. Columns with the names
    of `like`, of the texts and of the labels, come before all these: so `evaluate` takes a run's. `split`: a column of
    train, validation and test, in any case of its letters; where no column is called "split", or with None, the seed
    decides a stratified split, in which equal texts stay together. Rows of another number of cells, without a text or
    without a label (`no_label`, in any case, is none) are left out and stand in `bad`. Classes are sorted, as numbers
    where all are. Raises DataError that names file and line.
    """
    path = expanded(file)
    text, label = (None if asked is None else str(asked) for asked in (text, label))
    content, found = decoded(bytes_of(path), str(path), encoding)
    table = _read(path, content, delimiter, header, (text, label), like)
    names, rows, bad, delimiter = table.names, table.rows, table.bad, table.delimiter
    place = None if split is None else split_place(path, names, str(split), "split")
    if len(like) == 2:
        text, label = (own or (name if name in names else None) for own, name in zip((text, label), like, strict=True))
    columns = found_columns(path, names, rows, text, label, place)
    rows = _filled(rows, names, columns, place)
    missing = {str(name).lower() for name in no_label}
    texts: list[bytes] = []
    labels: list[str] = []
    parts: list[str] = []
    kept: list[str] = []
    for line, row in zip(table.lines, rows, strict=True):
        origin = f"{path}:{line}"
        problem = _problem(row, names, columns, place, missing, listed=delimiter is None)
        if problem:
            bad.append((origin, problem))
            continue
        texts.append(row[columns[0]].encode("utf-8", "replace"))
        labels.append(tidy(row[columns[1]]))
        parts.append(SPLIT_NAMES.get(row[place].strip().lower(), "") if place is not None else "")
        kept.append(origin)
    labels = one_spelling(labels)
    class_names = classes(path, labels, bad, names[columns[1]], found, said=label is not None)
    number = {name: i for i, name in enumerate(class_names)}
    whole = ArraySource({"text": text_array(texts)}, [number[name] for name in labels], kept)
    splits = part_splits(
        whole, np.array(parts), class_names, validation=validation, test=test, seed=seed,
        limit_train=limit_train, keys=[text_key(text.decode()) for text in texts],
    )  # fmt: skip
    parted = f", parted by {delimiter!r}" if delimiter else ""
    told = f"{path}: {len(kept):,} texts in {names[columns[0]]!r}, {len(class_names)} labels in {names[columns[1]]!r}"
    lines_told = (f"{told}{parted}, read as {found}", alike(class_names), single(whole, class_names), splits.found)
    named = tuple(names[place] for place in columns)
    return all_told(
        replace(
            splits, bad=tuple(bad), ignored=(*table.ignored, *splits.ignored), read=len(kept) + len(bad),
            found="; ".join(filter(None, lines_told)), columns=() if all(map(str.isdigit, named)) else named,
        )
    )  # fmt: skip


@dataclass(frozen=True)
class _Table:
    """Names of columns, rows with the line on which each begins, and what was left out; of JSON lines no delimiter."""

    names: list[str]
    lines: list[int]
    rows: list[list[str]]
    bad: list[tuple[str, str]]
    ignored: list[tuple[str, str]]
    delimiter: str | None


def _read(
    path: Path,
    content: str,
    delimiter: str | None,
    header: bool | None,
    wanted: Sequence[str | None],
    like: Sequence[str] = (),
) -> _Table:
    """The table that a file holds. Raises DataError for settings that JSON lines do not have."""
    if is_json(path, content):
        for key, value in (("delimiter", delimiter), ("header", header)):
            if value is not None:
                told = "JSON lines have no delimiter, and names in each line"
                raise DataError(f"{path}: data.{key}={value!r}: {told}: data.{key}=null")
        names, lines, rows, bad = json_rows(path, content)
        return _Table(names, lines, rows, bad, [], None)
    lines, rows, bad, delimiter = csv_rows(path, content, delimiter)
    if header is None and len(like) == 2 and rows and set(like) <= {cell.strip() for cell in rows[0]}:
        header = True
    lines, rows, ignored, header = _without_titles(path, lines, rows, header, wanted)
    names, lines, rows, again = _named(path, lines, rows, header, wanted)
    bad += [(f"{path}:{line}", "the names of the columns, once more") for line in again]
    return _Table(names, lines, rows, bad, ignored, delimiter)


def _filled(rows: list[list[str]], names: list[str], columns: tuple[int, int], place: int | None) -> list[list[str]]:
    """The rows with empty cells at their ends, which Excel leaves out: where text and a known label are there."""
    last = max(*columns, place or 0)
    known = {tidy(row[columns[1]]) for row in rows if len(row) == len(names)}
    short = Counter(tidy(row[columns[1]]) for row in rows if last < len(row) < len(names))
    # Only rows without a last cell may have a label; a few are halves of broken rows.
    known.update(label for label, times in short.items() if times > max(1, 0.01 * len(rows)))

    def filled(row: list[str]) -> list[str]:
        lacking = len(names) - len(row)
        return row + [""] * lacking if lacking > 0 and len(row) > last and tidy(row[columns[1]]) in known else row

    return [filled(row) for row in rows]


def _without_titles(
    path: Path, lines: list[int], rows: list[list[str]], header: bool | None, wanted: Sequence[str | None]
) -> tuple[list[int], list[list[str]], list[tuple[str, str]], bool | None]:
    """Lines and rows below titles, without a survey's second header; what was left out; whether names come first."""
    titles = 0 if header is not None else _titles(rows, wanted)
    ignored = [(f"{path}:{line}", "a title above the names of the columns") for line in lines[:titles]]
    lines, rows, header = lines[titles:], rows[titles:], True if titles else header
    more = _imports(rows)
    ignored += [(f"{path}:{line}", "a survey's header, not an answer") for line in lines[1 : 1 + more]]
    if more:
        lines, rows, header = [lines[0], *lines[1 + more :]], [rows[0], *rows[1 + more :]], header is not False
    return lines, rows, ignored, header


def _titles(rows: list[list[str]], wanted: Sequence[str | None]) -> int:
    """How many rows at the top have one filled cell, above one that names columns: no such row is an example.

    Of few rows these names must be known ones: the first label of a table without names may never come again.
    """
    known = {*TEXT_NAMES, *LABEL_NAMES, *(str(name).strip().lower() for name in wanted if name is not None)}
    for place, row in enumerate(rows[: MOST_TITLES + 1]):
        cells = {cell.strip().lower() for cell in row} - {""}
        if place and len(cells) > 1:
            below = [one for one in rows[place:] if len(one) >= len(row)]
            clear = len(below) >= LOOKED_AT or cells & known
            return place if clear and has_header(below, wanted) else 0
        if len(cells) > 1 or cells & known:
            return 0
    return 0


def _imports(rows: list[list[str]]) -> int:
    """How many headers Qualtrics has below the names of columns: their questions, and a row of {"ImportId": …}."""
    for place, row in enumerate(rows[1:3], 1):
        filled = [cell for cell in row if cell.strip()]
        if filled and all(cell.startswith('{"ImportId"') for cell in filled):
            return place
    return 0


def _named(
    path: Path, lines: list[int], rows: list[list[str]], header: bool | None, wanted: Sequence[str | None]
) -> tuple[list[str], list[int], list[list[str]], list[int]]:
    """Column names, the rows below them with the line on which each begins, and the lines where the names come again.

    They do where tables were put one below the other.
    """
    if not rows:
        raise DataError(f"{path}: no rows: the file is empty")
    if header is None:
        header = has_header(rows, wanted)
    if not header:
        return [str(i + 1) for i in range(len(rows[0]))], lines, rows, []
    names = [name.strip() for name in rows[0]]
    twice = [name for name, number in Counter(names).items() if number > 1 and name]
    if twice:
        raise DataError(f"{path}, line {lines[0]}: two columns are called {twice[0]!r}: rename one")
    if _are_numbered(rows[1:], len(names) + 1):
        names = ["", *names]  # R's numbers of rows, and pandas' where index_label=False, have no name
    while len(names) > 2 and not names[-1] and not any("".join(row[len(names) - 1 :]).strip() for row in rows[1:]):
        names.pop()  # a delimiter at the end of the header
    # A delimiter at the end of every row, but not of the header, makes no column.
    cut = [row[: len(names)] if not any(row[len(names) :]) else row for row in rows[1:]]
    again = [[cell.strip() for cell in row] == names for row in cut]
    if all(again):
        raise DataError(f"{path}: no rows below the first line, {', '.join(map(repr, names))}")
    kept = [(line, row) for line, row, same in zip(lines[1:], cut, again, strict=True) if not same]
    repeated = [line for line, same in zip(lines[1:], again, strict=True) if same]
    return names, [line for line, _ in kept], [row for _, row in kept], repeated


def _are_numbered(rows: list[list[str]], width: int) -> bool:
    """Whether all rows have so many cells, at least three, of which the first is another whole number in each."""
    first = [row[0].strip() for row in rows if len(row) == width]
    numbered = width > 2 and 0 < len(rows) == len(first) == len(set(first)) and all(map(str.isdigit, first))
    return numbered and any(row[-1].strip() for row in rows)  # else a delimiter ends every row


def _problem(
    row: list[str],
    names: list[str],
    columns: tuple[int, int],
    place: int | None,
    no_label: set[str],
    listed: bool = False,
) -> str:
    """Why a row cannot be learned from, or "". `listed`: a label may be a list or an object, as JSON has them."""
    if len(row) != len(names):
        return f"{len(row)} cells where there are {len(names)} columns"
    if says_nothing(row[columns[0]]):
        return "an empty text"
    label = tidy(row[columns[1]])
    if not label or label.lower() in no_label:
        hint = "" if label.lower() in ("", "nan") else "; if it is a class: --set data.no_label=[]"
        return f"no label ({label!r}){hint}"
    if listed and label.startswith(("[", "{")) and _is_json(row[columns[1]]):
        return f"several labels, or none that is a word: {label[:60]}"
    if place is not None and row[place].strip() and row[place].strip().lower() not in SPLIT_NAMES:
        told = f"split {row[place].strip()!r} is not one of train, validation, test"
        return f"{told}; if the column tells something else: --set data.split=null"
    return ""


def _is_json(cell: str) -> bool:
    try:
        return isinstance(json.loads(cell), (list, dict))
    except (ValueError, RecursionError):
        return False
