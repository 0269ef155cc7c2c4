"""Which columns of an own table hold its texts and labels, and whether its first row names them."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from bigkeras.data.rows import LOOKED_AT
from bigkeras.data.source import DataError

TEXT_NAMES = (
    "text", "review", "sentence", "comment", "content", "body", "message",
    "tweet", "reviewtext", "评论", "内容", "文本",
)  # fmt: skip
LABEL_NAMES = (
    "label", "sentiment", "class", "category", "target", "rating", "stars",
    "score", "overall", "polarity", "y", "标签", "类别", "情感",
)  # fmt: skip
# These say less: they may count reviews, hold verdicts, or rate something else than the text.
TEXT_WORDS = ("reviews", "comments", "feedback", "评价", "评语", "正文")
LABEL_WORDS = ("star", "评分", "星级", "打分")
FILLED, PARTLY = 0.9, 0.5  # of the rows, at least, have a label; where the column's name speaks of labels
MOST_KINDS = 20  # of labels that tell whether the first row names columns
CODE = re.compile(r"(?=\S*[\d_/@])[!-~]+")  # no words: a link, an identifier, a time, an address
TIME = re.compile(  # with its spaces: 5/12/2023 3:14 PM GMT+2, Mon Apr 06 22:19:45 PDT 2009, 2019年1月1日 上午10点
    r"(?=.*\d\D+\d)(?:\d|[-/.,:+\s年月日号时時点分秒]|上午|下午|早上|晚上|中午|凌晨|(?:星期|周)[一二三四五六日天]"
    r"|오전|오후|午前|午後|AM|PM|[ap]\.?\s?m\.?|Uhr|UTC|Z|[A-Z]{1,3}T|de|(?i:jan|ene|feb|fév|mar|mär|apr|avr|abr|may|mai"
    r"|jun|juin|jul|juil|aug|aoû|ago|sep|oct|okt|nov|dec|déc|dic|dez|mon|tue|wed|thu|fri|sat|sun)[a-zéû]*)++"
)


def has_header(rows: list[list[str]], wanted: Sequence[str | None]) -> bool:
    """Whether the first row names columns: by well-known names, or by cells that no other row is like."""
    first = [cell.strip().lower() for cell in rows[0]]
    if any(name is not None and not name.isdigit() for name in wanted):
        return True
    # Where tables were put one below the other, the names come again.
    below = [row for row in _sample(rows[1:]) if len(row) == len(first) and row != rows[0]]

    alike = [row for row in rows[1:] if len(row) == len(first) and row != rows[0]]

    def recurs(place: int) -> bool:  # as the label y does, or class; of many classes one is not in every sample
        return any(row[place].strip().lower() == first[place] for row in alike)

    known = [place for place, cell in enumerate(first) if cell in (*TEXT_NAMES, *LABEL_NAMES)]
    if not below or not all(map(recurs, known)):
        return bool(known)
    text = _text_column(rows[0], below)
    label = _label_column(rows[0], below, but=text)
    if label is None or not first[text] or not first[label]:
        return False
    if recurs(label) or all(is_number(row[label]) for row in (rows[0], *below)):
        return False
    # A question of a survey is longer than most names. But above numbers words are a name, and so is a label that never
    # comes again where all others do.
    times = Counter(cell for row in alike if (cell := row[label].strip().lower()))
    again = len(times) <= MOST_KINDS and min(times.values(), default=0) > 1
    return len(rows[0][text]) < 30 or again or any(_heads_numbers(rows[0], below, i) for i in range(len(first)))


def _heads_numbers(first: list[str], below: list[list[str]], place: int) -> bool:
    """Whether a column has words in the first row and numbers in all others."""
    return bool(first[place].strip()) and not is_number(first[place]) and all(is_number(row[place]) for row in below)


def found_columns(
    path: Path, names: list[str], rows: list[list[str]], text: str | None, label: str | None, split: int | None
) -> tuple[int, int]:
    """Where texts and labels stand; not where the splits do."""
    if len(names) < 2:
        width, times = Counter(map(len, rows[:LOOKED_AT])).most_common(1)[0]
        if width > 1:
            told = (
                f"line 1 has one cell, {names[0] if names[0] != '1' else rows[0][0]!r}, and {times} rows below {width}"
            )
            raise DataError(f"{path}: {told}: the first line should name the columns, or be a row")
        raise DataError(f"{path}: one column, {names[0]!r}: text and label are needed; is it another delimiter?")
    first = _named_column(path, names, text, TEXT_NAMES, "text")
    second = _named_column(path, names, label, LABEL_NAMES, "label")
    looked = [row for row in _sample(rows) if len(row) == len(names)]
    if not looked:
        raise DataError(f"{path}: no row has the {len(names)} cells of the first line")
    if first is None:
        if not set(range(len(names))) - {second, split}:
            raise DataError(f"{path}: no column is left for the texts beside {', '.join(map(repr, names))}")
        first = _text_column(names, looked, but=(second, split))
    if second is None:
        second = _label_column(names, looked, but=first, nor=split)
    if second is None:
        told = ", ".join(map(repr, names))
        raise DataError(f"{path}: which column holds the labels? --set data.label=NAME takes one of {told}")
    if first == second:
        raise DataError(f"{path}: {names[first]!r} cannot be both text and label")
    return first, second


def _sample(rows: list[list[str]]) -> list[list[str]]:
    """The first rows, and as many from all over the others: a table that is sorted has one label at its beginning."""
    if len(rows) <= 2 * LOOKED_AT:
        return rows
    return rows[:LOOKED_AT] + [rows[i] for i in np.linspace(LOOKED_AT, len(rows) - 1, LOOKED_AT).astype(int)]


def _named_column(path: Path, names: list[str], asked: str | None, usual: Sequence[str], argument: str) -> int | None:
    """The column that was asked for, or one of a usual name; None without."""
    told = f"--set data.{argument}=NAME takes one of"
    if asked is not None and asked not in names:
        raise DataError(f"{path}: no column {asked!r} among {', '.join(map(repr, names))}: {told} these")
    if asked is not None:
        return names.index(asked)
    lower = [name.lower() for name in names]
    known = next((name for name in usual if name in lower), None)
    if known is not None and lower.count(known) > 1:
        alike = ", ".join(repr(name) for name in names if name.lower() == known)
        raise DataError(f"{path}: two columns are called {known!r}: {told} {alike}")
    return None if known is None else lower.index(known)


def _text_column(names: list[str], rows: list[list[str]], but: Sequence[int | None] = ()) -> int:
    """The column of the longest cells, not in `but`; of one whose name speaks of texts, a third as long are enough."""
    places = [i for i in range(len(names)) if i not in but]
    # A link or an identifier is often the longest cell, but is what is meant where no other column holds words that
    # differ from row to row, as those of labels do not.
    codes = {i for i in places if _most(_is_code(row[i].strip()) for row in rows)}
    differ = [i for i in places if 2 * len({row[i] for row in rows}) > len(rows)]
    words = any(_most(re.search(r"\s|[^ -~]", row[i].strip()) for row in rows) for i in differ if i not in codes)
    sizes = {i: sum(len(row[i]) for row in rows) for i in places if not (words and i in codes)}
    least = max(sizes.values()) / 3  # review_id is none
    named = (i for i in sizes if _speaks_of(names[i], TEXT_NAMES) or (i in differ and _speaks_of(names[i], TEXT_WORDS)))
    spoken = [i for i in named if sizes[i] >= least]
    return max(spoken or sizes, key=lambda i: sizes[i])


def _is_code(cell: str) -> bool:
    """Whether a cell holds no words: a link, an identifier, a number or a time with its spaces."""
    if CODE.fullmatch(cell) or TIME.fullmatch(cell):
        return True
    return sum(map(str.isdecimal, cell)) > sum(map(str.isalpha, cell)) and not re.search(r"[^\W\d_]{4}", cell)


def _most(found: Iterable[object]) -> bool:
    """Whether more than half of them are true."""
    values = [bool(one) for one in found]
    return 2 * sum(values) > len(values)


def _label_column(names: list[str], rows: list[list[str]], but: int, nor: int | None = None) -> int | None:
    """The column of the fewest different cells, more than one, the shorter ones among equals; None where there is none.

    Those whose name speaks of labels go before, where they are filled, and also where only half of the rows have a
    label yet. Where only one column is left, it is that.
    """
    places = [i for i in range(len(names)) if i not in (but, nor)]
    if len(places) == 1:
        return places[0]
    cells = {i: [cell for row in rows if (cell := row[i].strip())] for i in places}
    several = [i for i in places if len(set(cells[i])) > 1]
    fit = [i for i in several if len(cells[i]) >= FILLED * len(rows)]
    spoken = [
        i for i in several
        if len(cells[i]) >= PARTLY * len(rows) and _speaks_of(names[i], (*LABEL_NAMES, *LABEL_WORDS))
    ]  # fmt: skip
    filled = [i for i in spoken if i in fit]
    return min(filled or spoken or fit, key=lambda i: (len(set(cells[i])), sum(map(len, cells[i]))), default=None)


def is_number(cell: str) -> bool:
    try:
        float(cell)
        return True
    except ValueError:
        return False


def _speaks_of(name: str, usual: Sequence[str]) -> bool:
    """Whether a name like review_body, starRating or 情感标签 has one of the usual names in it."""
    words = re.split(r"[\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    # One letter, as in pos_y, says nothing.
    return any(known in words if known.isascii() else known in name for known in usual if len(known) > 1)
