"""Own pictures in a table: a CSV or TSV file of paths and labels."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from bigkeras.data.files import SPLIT, SPLIT_NAMES, expanded, file_splits, split_place
from bigkeras.data.folder import COMPARED, contents, remarks
from bigkeras.data.label_names import tidy
from bigkeras.data.source import DataError, Splits, all_told


def image_table(
    *,
    file: str,
    path_column: str = "path",
    label_column: str = "label",
    split_column: str | None = SPLIT,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    limit_train: int | None = None,
) -> Splits:
    """Pictures that a table names, a row each; paths are relative to the table's folder.

    The first row names the columns. A tab parts the columns of .tsv and .tab files, in others it is what stands in
    the first row: comma, semicolon or tab. The encoding is UTF-8, with a BOM or without. Where there is a split
    column, it says train, validation (val, valid) or test; rows without one are split by the seed, stratified, those of
    one picture together. Raises DataError that names the line. Classes are sorted by name; rows keep the table's order.
    """
    path = expanded(file)
    lines, rows = _rows(path)
    header = [name.strip() for name in rows[0]]
    columns = {}
    for wanted, argument in ((path_column, "path_column"), (label_column, "label_column")):
        if wanted not in header:
            raise DataError(
                f"{path}: no column {wanted!r} among {', '.join(map(repr, header))}: "
                f"name it in the first line, or --set data.{argument}=NAME says another"
            )
        if header.count(wanted) > 1:
            raise DataError(
                f"{path}: two columns are called {wanted!r}: rename one, or --set data.{argument}=NAME says another"
            )
        columns[argument] = header.index(wanted)
    place = split_place(path, header, split_column, "split_column")
    paths, names, parts = [], [], []
    ignored = []
    for line, row in zip(lines[1:], rows[1:], strict=True):
        if [cell.strip() for cell in row] == header:
            ignored.append((f"{path}:{line}", "the names of the columns, once more"))
            continue
        if len(row) != len(header):
            raise DataError(f"{path}, line {line}: {len(row)} columns where the first line names {len(header)}")
        paths.append(_picture(path, line, row[columns["path_column"]]))
        names.append(_label(path, line, row[columns["label_column"]]))
        parts.append("" if place is None else _part(path, line, row[place]))
    class_names = tuple(sorted(set(names)))
    if not class_names:
        raise DataError(f"{path}: no row below the first line: at least two classes are needed")
    number = {name: i for i, name in enumerate(class_names)}
    labels = np.array([number[name] for name in names], np.int32)
    splits = file_splits(
        paths,
        labels,
        np.array(parts),
        class_names,
        validation=validation,
        test=test,
        seed=seed,
        limit_train=limit_train,
        keys=contents(paths) if len(paths) <= COMPARED else paths,
    )
    return all_told(replace(splits, ignored=(*ignored, *splits.ignored), found=remarks(splits, len(paths))))


def _rows(path: Path) -> tuple[list[int], list[list[str]]]:
    """The rows that are not empty, and the line on which each begins."""
    text = _text(path)
    begun = next(filter(str.strip, text.splitlines()), "")
    delimiter = "\t" if path.suffix.lower() in (".tsv", ".tab") else max(",;\t", key=begun.count)
    told = re.match(r"sep=([,;\t])[ ,;]*\r?\n", text, re.IGNORECASE)  # what Excel wants to read in front of a table
    if told:
        delimiter, text = told[1], text[told.end() :]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines, rows = [], []
    before = 1 if told else 0
    start = 1 + before
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                lines.append(start)
                rows.append(row)
            start = reader.line_num + 1 + before
    except csv.Error as error:
        raise DataError(f"{path}, line {start}: not CSV: {error}: check the quotes of this row") from None
    if not rows:
        raise DataError(f"{path}: the file is empty: its first line names the columns, such as path,label")
    return lines, rows


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}, line {line}: not UTF-8 text (byte {data[error.start]:#04x}): save the table as UTF-8"
        ) from None
    if "\0" in text:
        raise DataError(
            f"{path}, line {text[: text.index(chr(0))].count(chr(10)) + 1}: a zero byte: save the table as UTF-8 text"
        )
    return text


def _picture(table: Path, line: int, cell: str) -> str:
    if not cell.strip():
        raise DataError(f"{table}, line {line}: no path")
    path = cell.strip()
    # Joining keeps an absolute path as it is. A file may be called ~1.png.
    return str(table.parent / (expanded(path) if path.startswith("~/") else path))


def _label(table: Path, line: int, cell: str) -> str:
    if not cell.strip():
        raise DataError(f"{table}, line {line}: no label")
    return tidy(cell)


def _part(table: Path, line: int, cell: str) -> str:
    name = cell.strip().lower()
    if name and name not in SPLIT_NAMES:
        raise DataError(
            f"{table}, line {line}: split {cell!r} is not one of train, validation, test: if the column tells "
            "something else: --set data.split_column=null"
        )
    return SPLIT_NAMES[name] if name else ""
