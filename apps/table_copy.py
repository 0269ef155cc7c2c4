"""A table's copy with two columns more: the answers beside the texts."""

import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from apps.streams import whole

if TYPE_CHECKING:
    from apps.reviews import Review


class TableCopy:
    """Writes the rows of a table of so many `columns` with their answers, row by row.

    `end`: of its rows. `plain`: it has no quotation marks, so that all its cells are written as they are, and a label
    has a space where it has the delimiter.
    """

    def __init__(self, out: TextIO, delimiter: str, end: str, columns: int, plain: bool):
        form: Any = {"delimiter": delimiter, "lineterminator": end}
        self.out, self.delimiter, self.end, self.columns, self.plain = out, delimiter, end, columns, plain
        self.usual, self.quoted = csv.writer(out, **form), csv.writer(out, **form, quoting=csv.QUOTE_ALL)

    def write(self, review: "Review", answer: tuple[str, str]) -> None:
        """A row and its answer; one of too few or too many cells is copied as it is, without an answer."""
        given = [cell.replace(self.delimiter, " ") if self.plain else cell for cell in answer]
        self.cells([*review.row, *(given if len(review.row) == self.columns else ())])

    def cells(self, row: Sequence[str]) -> None:
        """A row of these cells."""
        row = list(map(whole, row))
        if self.plain:
            self.out.write(self.delimiter.join(row) + self.end)
        else:
            (self.quoted if self._is_parted(row) else self.usual).writerow(row)

    def _is_parted(self, cells: Iterable[str]) -> bool:
        """Whether a cell has an end of a line that before Python 3.11.9 csv.writer left bare among other ends."""
        return any("\r" in cell or ("\n" in cell and "\n" not in self.end) for cell in cells)


def answer_names(header: Sequence[str]) -> list[str]:
    """What the columns of answers are called: a table may have those of another model."""
    return next(pair for pair in _pairs() if not set(pair) & set(header))


def _pairs() -> Iterator[list[str]]:
    yield ["label", "probability"]
    yield ["predicted_label", "predicted_probability"]
    for number in itertools.count(2):
        yield [f"predicted_label_{number}", f"predicted_probability_{number}"]
