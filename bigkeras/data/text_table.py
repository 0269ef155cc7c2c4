"""Own texts in a table: CSV, TSV or JSON lines, whose columns, delimiter and encoding are found or said."""

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bigkeras.data.columns import found_columns, has_header
from bigkeras.data.encoding import decoded, says_nothing
from bigkeras.data.files import SPLIT, SPLIT_NAMES, expanded, part_splits, split_place
from bigkeras.data.pair_splits import source_key
from bigkeras.data.reviews import text_array
from bigkeras.data.rows import bytes_of, csv_rows, is_json, json_rows
from bigkeras.data.source import ArraySource, DataError, Splits, all_told

NO_LABEL = ("nan", "null", "none", "n/a", "na", "<na>")
MOST_NUMBERS = 50  # of classes that are numbers, in a column that nobody named
# Marks of order, breaks and bytes; not what joins letters, as in Persian, or signs.
UNSEEN = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
WHOLE = re.compile(r"(-?(?:0|[1-9]\d*))(?:\.0*)?")


def text_table(
    *,
    file: str,
    text: int | str | None = None,
    label: int | str | None = None,
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
    starRating, 情感标签), else the longest cells are texts and the fewest different ones labels. `split`: a column of
    train, validation and test, in any case of its letters; where no column is called "split", or with None, the seed
    decides a stratified split, in which equal texts stay together. Rows of another number of cells, without a text or
    without a label (`no_label`, in any case, is none) are left out and stand in `bad`. Classes are sorted, as numbers
    where all are. Raises DataError that names file and line.
    """
    path = expanded(file)
    text, label = (None if asked is None else str(asked) for asked in (text, label))
    content, found = decoded(bytes_of(path), str(path), encoding)
    if is_json(path, content):
        for key, value in (("delimiter", delimiter), ("header", header)):
            if value is not None:
                told = "JSON lines have no delimiter, and names in each line"
                raise DataError(f"{path}: data.{key}={value!r}: {told}: data.{key}=null")
        names, lines, rows, bad = json_rows(path, content)
        delimiter, ignored = None, []
    else:
        lines, rows, bad, delimiter = csv_rows(path, content, delimiter)
        more = _imports(rows)
        ignored = [(f"{path}:{line}", "a survey's header, not an answer") for line in lines[1 : 1 + more]]
        if more:
            lines, rows, header = [lines[0], *lines[1 + more :]], [rows[0], *rows[1 + more :]], header is not False
        names, lines, rows, again = _named(path, lines, rows, header, (text, label))
        bad += [(f"{path}:{line}", "the names of the columns, once more") for line in again]
    place = None if split is None else split_place(path, names, str(split), "split")
    columns = found_columns(path, names, rows, text, label, place)
    rows = _filled(rows, names, columns, place)
    missing = {str(name).lower() for name in no_label}
    texts: list[bytes] = []
    labels: list[str] = []
    parts: list[str] = []
    kept: list[str] = []
    for line, row in zip(lines, rows, strict=True):
        origin = f"{path}:{line}"
        problem = _problem(row, names, columns, place, missing, listed=delimiter is None)
        if problem:
            bad.append((origin, problem))
            continue
        texts.append(row[columns[0]].encode("utf-8", "replace"))
        labels.append(_tidy(row[columns[1]]))
        parts.append(SPLIT_NAMES.get(row[place].strip().lower(), "") if place is not None else "")
        kept.append(origin)
    labels = _one_spelling(labels)
    class_names = _class_names(path, labels, bad, names[columns[1]], found, said=label is not None)
    number = {name: i for i, name in enumerate(class_names)}
    whole = ArraySource({"text": text_array(texts)}, [number[name] for name in labels], kept)
    splits = part_splits(
        whole, np.array(parts), class_names, validation=validation, test=test, seed=seed,
        limit_train=limit_train, keys=[source_key(text.decode()) for text in texts],
    )  # fmt: skip
    parted = f", parted by {delimiter!r}" if delimiter else ""
    told = f"{path}: {len(kept):,} texts in {names[columns[0]]!r}, {len(class_names)} labels in {names[columns[1]]!r}"
    told = "; ".join(filter(None, (f"{told}{parted}, read as {found}", _alike(class_names), splits.found)))
    ignored += splits.ignored
    return all_told(replace(splits, bad=tuple(bad), ignored=tuple(ignored), read=len(kept) + len(bad), found=told))


def _filled(rows: list[list[str]], names: list[str], columns: tuple[int, int], place: int | None) -> list[list[str]]:
    """The rows with empty cells at their ends, which Excel leaves out: where text and a known label are there."""
    last = max(*columns, place or 0)
    known = {_tidy(row[columns[1]]) for row in rows if len(row) == len(names)}
    short = Counter(_tidy(row[columns[1]]) for row in rows if last < len(row) < len(names))
    # Only rows without a last cell may have a label; a few are halves of broken rows.
    known.update(label for label, times in short.items() if times > max(1, 0.01 * len(rows)))

    def filled(row: list[str]) -> list[str]:
        lacking = len(names) - len(row)
        return row + [""] * lacking if lacking > 0 and len(row) > last and _tidy(row[columns[1]]) in known else row

    return [filled(row) for row in rows]


def _tidy(label: str) -> str:
    """A label in one line, for labels.txt; of those that look alike one: accents composed, nothing invisible."""
    seen = UNSEEN.sub("", label)
    name = unicodedata.normalize("NFC", " ".join(seen.split()))
    return name.encode("utf-8", "replace").decode()  # JSON may hold half a character


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
    # A delimiter at the end of every row, but not of the header, makes no column.
    cut = [row[: len(names)] if not any(row[len(names) :]) else row for row in rows[1:]]
    again = [[cell.strip() for cell in row] == names for row in cut]
    if all(again):
        raise DataError(f"{path}: no rows below the first line, {', '.join(map(repr, names))}")
    kept = [(line, row) for line, row, same in zip(lines[1:], cut, again, strict=True) if not same]
    repeated = [line for line, same in zip(lines[1:], again, strict=True) if same]
    return names, [line for line, _ in kept], [row for _, row in kept], repeated


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
    label = _tidy(row[columns[1]])
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


def whole_number(label: str) -> str:
    """A label that is a whole number without a point, 1 for 1.0; another one as it is: 1.10 and 1.1 may be two."""
    found = WHOLE.fullmatch(label)
    return found[1] if found else label


def _one_spelling(labels: list[str]) -> list[str]:
    """The labels; where all are numbers, whole ones as they are written most often: 1 and 1.0 are one class."""
    if not _are_numbers(labels):
        return labels
    times: dict[str, Counter[str]] = {}
    for label in labels:
        times.setdefault(whole_number(label), Counter())[label] += 1
    usual = {number: found.most_common(1)[0][0] for number, found in times.items()}
    return [usual[whole_number(label)] for label in labels]


def _alike(names: Sequence[str]) -> str:
    """What is said of classes whose names differ in capitals alone: "" where there are none."""
    first: dict[str, str] = {}
    twice = [(first.setdefault(name.casefold(), name), name) for name in names]
    two = next(((one, other) for one, other in twice if one != other), None)
    return f"{two[0]!r} and {two[1]!r} are two classes: write them alike if they are one" if two else ""


def _are_numbers(labels: list[str]) -> bool:
    try:
        return not any(math.isnan(float(label)) for label in labels)
    except ValueError:
        return False


def _class_names(
    path: Path, labels: list[str], bad: list[tuple[str, str]], column: str, encoding: str, said: bool
) -> tuple[str, ...]:
    names = sorted(set(labels))
    if not names:
        told = f"; {len(bad)} rows were left out, the first {bad[0][0]}: {bad[0][1]}" if bad else ""
        raise DataError(f"{path}: no row that can be used: at least two classes are needed, in column {column!r}{told}")
    # Numbers that nobody called labels may be amounts, or what a model of numbers would tell.
    numbers = not said and len(names) > MOST_NUMBERS and _are_numbers(names)
    if numbers or len(names) > max(1000, len(labels) / 2) or (len(names) > 20 and len(names) == len(labels)):
        raise DataError(
            f"{path}: {len(names)} different labels in {len(labels)} rows of column {column!r} (read as {encoding}): "
            f"is that the label? --set data.label=NAME names another column{'' if said else ', or this one if it is'}"
        )
    return tuple(sorted(names, key=float) if _are_numbers(names) else names)
