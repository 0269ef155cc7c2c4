"""What the labels of an own table are called: in one line, alike where they look alike, in their order."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bigkeras.data.cleaning import CONTROL, MARKS
from bigkeras.data.source import ArraySource, DataError

SEVERAL = 20  # classes with one example each may be a try
MOST_NUMBERS = 50  # of classes that are numbers, in a column that nobody named
WHOLE = re.compile(r"(-?(?:0|[1-9]\d*))(?:\.0*)?")


def tidy(label: str) -> str:
    """A label in one line, for labels.txt; of those that look alike one: accents composed, nothing invisible."""
    seen = MARKS.sub("", label)  # of order, breaks and bytes; not what joins letters, as in Persian, or signs
    name = unicodedata.normalize("NFC", " ".join(CONTROL.sub(" ", seen).split()))
    return name.encode("utf-8", "replace").decode()  # JSON may hold half a character


def whole_number(label: str) -> str:
    """A label that is a whole number without a point, 1 for 1.0; another one as it is: 1.10 and 1.1 may be two."""
    found = WHOLE.fullmatch(label)
    return found[1] if found else label


def one_spelling(labels: list[str]) -> list[str]:
    """The labels; where all are numbers, whole ones as they are written most often: 1 and 1.0 are one class."""
    if not _are_numbers(labels):
        return labels
    times: dict[str, Counter[str]] = {}
    for label in labels:
        times.setdefault(whole_number(label), Counter())[label] += 1
    usual = {number: found.most_common(1)[0][0] for number, found in times.items()}
    return [usual[whole_number(label)] for label in labels]


def alike(names: Sequence[str]) -> str:
    """What is said of classes whose names differ in capitals alone: "" where there are none."""
    first: dict[str, str] = {}
    twice = [(first.setdefault(name.casefold(), name), name) for name in names]
    two = next(((one, other) for one, other in twice if one != other), None)
    return f"{two[0]!r} and {two[1]!r} are two classes: write them alike if they are one" if two else ""


def single(whole: ArraySource, names: Sequence[str]) -> str:
    """What is said of classes with one example where others have more: they may be no class, but a second header."""
    times = np.bincount(whole.labels, minlength=len(names))
    alone = np.flatnonzero(times == 1)
    if not len(alone) or times.max() < 10:
        return ""
    place = int(np.flatnonzero(whole.labels == alone[0])[0])
    more = f", and {len(alone) - 1} more have one" if len(alone) > 1 else ""
    return f"class {names[alone[0]]!r} has a single example, {whole.name(place)}{more}"


def _are_numbers(labels: list[str]) -> bool:
    try:
        return not any(math.isnan(float(label)) for label in labels)
    except ValueError:
        return False


def classes(
    path: Path, labels: list[str], bad: list[tuple[str, str]], column: str, encoding: str, said: bool
) -> tuple[str, ...]:
    """The classes in their order, as numbers where all are. `said`: whether somebody named the column of labels.

    Raises DataError for labels that look like none: none at all, too many, or amounts.
    """
    names = sorted(set(labels))
    if not names:
        told = f"; {len(bad)} rows were left out, the first {bad[0][0]}: {bad[0][1]}" if bad else ""
        raise DataError(f"{path}: no row that can be used: at least two classes are needed, in column {column!r}{told}")
    # Numbers that nobody called labels may be amounts, or what a model of numbers would tell.
    numbers = not said and len(names) > MOST_NUMBERS and _are_numbers(names)
    if (
        numbers
        or len(names) > max(1000, len(labels) / 2)
        or (not said and len(names) > SEVERAL and len(names) == len(labels))
    ):
        raise DataError(
            f"{path}: {len(names)} different labels in {len(labels)} rows of column {column!r} (read as {encoding}): "
            f"is that the label? --set data.label=NAME names another column{'' if said else ', or this one if it is'}"
        )
    return tuple(sorted(names, key=float) if _are_numbers(names) else names)
