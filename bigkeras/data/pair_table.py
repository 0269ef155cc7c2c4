"""Sentence pairs in a table with tabs (TSV): its lines, its columns, and Excel's quotation marks."""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bigkeras.data.cleaning import LANGUAGES, SAMPLE, Pair, base, can_tell, check_order, tidy
from bigkeras.data.corpora import unpacked
from bigkeras.data.encoding import decoded
from bigkeras.data.rows import check_text
from bigkeras.data.source import DataError

EXCELS = re.compile(r'"(?:[^"]|"")*"')  # a cell that is quoted whole, its own marks doubled
FEWEST_QUOTED, MOST_LINES = 5, 100  # cells that tell; of one cell
NEARLY_ALL = 0.99  # of a table's lines have as many columns, so that one more is a mistake
# What people call the columns of sentence pairs, beside the codes of languages.
SOURCES, TARGETS = ("source", "src", "原文"), ("target", "tgt", "trg", "translation", "译文")
SIDES = (*SOURCES, *TARGETS, "english", "german", "deutsch", "french", "spanish", "chinese")


@dataclass(frozen=True)
class PairFile:
    """What a file holds: its pairs and their languages, as far as they are known; and names of what is left out.

    `bad`: lines without a pair, each with the reason; `ignored`: what was read well, and is not to be learned.
    """

    pairs: list[Pair]
    languages: tuple[str, str]
    bad: list[tuple[str, str]]
    ignored: list[tuple[str, str]]


def read_table(
    path: Path, source: int | str, target: int | str, said: tuple[str, str], encoding: str | None
) -> PairFile:
    """The pairs of two columns, by number or name. `said`: the languages, "" where nothing was. Raises DataError."""
    lines = _unquoted(read_lines(path, encoding))
    blank = next((place for place, line in enumerate(lines) if line.strip()), None)
    if blank is None:
        raise DataError(f"{path}: no sentence pair in it")
    top = lines[blank]
    if top.lstrip().startswith(("<?xml", "<tmx", "<!DOCTYPE tmx")) and "\t" not in top.strip():
        raise DataError(
            f"{path}: an XML file; a translation memory (TMX) is read by `bigkeras train translation-memory`"
        )
    columns, languages, named = _columns(path, top, source, target, said)
    first = blank + named
    if named:
        cells = [cell.strip() for cell in top.split("\t")]
        advice = f"--set data.source={columns[1] + 1} --set data.target={columns[0] + 1} reads them the other way"
        check_said(f"{path}: line 1", languages, [cells[place] for place in columns if place < len(cells)], advice)
    pairs, bad, ignored = [], [], []
    usual = _usual_columns(lines)
    for number, line in enumerate(lines[first:], first + 1):
        if not line.strip():
            continue
        cells = line.split("\t")
        if usual and any(map(str.strip, cells[usual:])):
            told = f"{len(cells)} columns where others have {usual}: a tab in a sentence?"
            ignored.append((f"{path}:{number}", told))
        elif len(cells) <= max(columns):
            found = f"{len(cells)} column{'s' if len(cells) > 1 else ''}"
            bad.append((f"{path}:{number}", f"{found} where columns {columns[0] + 1} and {columns[1] + 1} are read"))
        else:
            pairs.append(Pair(f"{path}:{number}", *(tidy(cells[place]) for place in columns)))
    if len(bad) > len(pairs):
        name, why = bad[0]
        raise DataError(f"{name}: {why}: a pair a line, source and target parted by a tab; {len(bad)} lines are so")
    if top.count("\t") > 1:  # of two columns, there is no other to name
        _check_letters(pairs, columns, path)
    advice = f"--set data.source={columns[1] + 1} --set data.target={columns[0] + 1}"
    if languages != said:  # they would go with the columns
        advice = f"if line 1 names them so by mistake, {others_way(languages)}"
    check_order(pairs, languages, str(path), advice)
    return PairFile(pairs, languages, bad, ignored)


def check_said(where: str, said: tuple[str, str], named: Sequence[str], advice: str) -> None:
    """Raises DataError where a file names the languages the other way than was said, and no sentence could tell."""
    there, asked = tuple(map(base, named)), tuple(map(base, said))
    if all(map(_is_language, named)) and there == asked[::-1] != asked and not can_tell(*said):
        raise DataError(f"{where}: name {there[0]} and {there[1]}, said are {asked[0]} and {asked[1]}: {advice}")


def others_way(languages: tuple[str, str]) -> str:
    """The settings that say the languages the other way."""
    return f"--set data.source_language={languages[1]} --set data.target_language={languages[0]}"


def read_lines(path: Path, encoding: str | None) -> list[str]:
    """The lines of a text file, packed by gzip or not. Raises DataError where it cannot be read, or is empty."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    data = unpacked(data, path) if path.suffix == ".gz" else data
    check_text(path, data, "lines of text, and a .gz of them,")
    content, _ = decoded(data, str(path), encoding)
    if not content.strip():
        raise DataError(f"{path}: the file is empty: a sentence pair a line is needed")
    # Only these end a line: a sentence may hold signs that Unicode takes for ends of lines, too.
    end = "\n" if "\n" in content else "\r"
    return content.replace("\r\n", "\n").removesuffix(end).split(end)


def _unquoted(lines: list[str]) -> list[str]:
    """The lines without the quotation marks of Excel, if these they are; those that a cell goes on in are empty.

    Excel's "Text (tab delimited)" quotes the cells that hold a comma or a quotation mark, which it doubles: so all
    such cells are quoted, and there are some. pandas and LibreOffice quote those with a quotation mark alone.
    """
    cells = [cell for line in lines for cell in line.split("\t") if "," in cell or '"' in cell]
    marked = [cell for cell in cells if '"' in cell]
    doubled = [cell for cell in marked if '""' in cell[1:-1]]
    if not (_are_quoted(cells) or (_are_quoted(marked) and len(doubled) >= 0.95 * len(marked))):
        return lines
    lines = [line.replace("\r", " ") for line in lines]
    width = Counter(line.count("\t") for line in lines).most_common(1)[0][0] + 1
    found: list[str] = []
    while len(found) < len(lines):
        rest = lines[len(found) : len(found) + MOST_LINES]  # not islice: it steps over all that is before
        reader = csv.reader((f"{line}\n" for line in rest), delimiter="\t", strict=True)
        try:
            row = next(reader)
        except csv.Error:  # a mark that quotes nothing, or is not closed
            row = []
        if (reader.line_num > 1 and len(row) != width) or not row:
            found.append(lines[len(found)])
            continue
        found.append("\t".join(" ".join(cell.split()) for cell in row))
        found += [""] * (reader.line_num - 1)
    return found


def _are_quoted(cells: Sequence[str]) -> bool:
    """Whether there are some cells, and nearly all quoted whole: one in twenty may be half of one of several lines."""
    return len(cells) >= FEWEST_QUOTED and sum(map(bool, map(EXCELS.fullmatch, cells))) >= 0.95 * len(cells)


def _columns(
    path: Path, line: str, source: int | str, target: int | str, languages: tuple[str, str]
) -> tuple[tuple[int, int], tuple[str, str], int]:
    """Places of source and target, their languages, and how many lines the names of columns take."""
    names = [cell.strip() for cell in line.split("\t")]
    places, numbers = [], [_number(source), _number(target)]
    for key, wanted, number in zip(("source", "target"), (source, target), numbers, strict=True):
        if number is not None:
            places.append(number - 1)
        elif names.count(str(wanted)) == 1:
            places.append(names.index(str(wanted)))
        else:
            raise DataError(
                f"{path}, line 1: no column {wanted!r} among {', '.join(map(repr, names))}: "
                f"data.{key} is a column's number from 1, or its name"
            )
    if numbers == [1, 2] and len(names) > 1 and names[0].lower() in TARGETS and names[1].lower() in SOURCES:
        places = [1, 0]  # as the first line names them
    if places[0] == places[1]:
        raise DataError(f"data.source={source} and data.target={target} are one column; they are two")
    told = [names[place] if place < len(names) else "" for place in places]
    codes = [name if _is_language(name) else "" for name in told]
    named = None in numbers
    # Numbers of sentences beside them are named so.
    indexed = len(names) > 2 and "id" in map(str.lower, names)
    header = named or indexed or all(name.lower() in SIDES or code for name, code in zip(told, codes, strict=True))
    if not header:
        codes = ["", ""]
    return (places[0], places[1]), (languages[0] or codes[0], languages[1] or codes[1]), int(header)


def _usual_columns(lines: list[str]) -> int | None:
    """How many columns nearly all lines have; None where they differ, as where some have remarks."""
    counts = Counter(line.count("\t") + 1 for line in lines if line.strip())
    usual, number = counts.most_common(1)[0]
    return usual if number >= NEARLY_ALL * counts.total() else None


def _check_letters(pairs: list[Pair], columns: tuple[int, int], path: Path) -> None:
    """Raises DataError for a column of numbers, as sentences have in Tatoeba's own tables."""
    sample = pairs[:: max(1, len(pairs) // SAMPLE)]
    for column, texts in zip(columns, ([p.source for p in sample], [p.target for p in sample]), strict=True):
        filled = [text for text in texts if text]
        without = [text for text in filled if not any(map(str.isalpha, text))]
        if len(without) > 0.9 * len(filled):
            told = f"column {column + 1} holds no sentences, such as {without[0]!r}"
            raise DataError(f"{path}: {told}: --set data.source=… --set data.target=… name others")


def _number(column: int | str) -> int | None:
    """A column's number, from 1; None for a name."""
    text = str(column)
    return int(text) if text.isdecimal() and len(text) < 7 and int(text) else None


def _is_language(name: str) -> bool:
    # Not a sentence that begins a file, such as "No"; a word of a list, such as "cat", stands beside one that is none.
    return (name.isupper() or name[:2] == name[:2].lower()) and base(name) in LANGUAGES
