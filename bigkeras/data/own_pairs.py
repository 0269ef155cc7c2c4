"""Own sentence pairs: a table with tabs, two aligned files, or a translation memory (TMX)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bigkeras.data.cleaning import LANGUAGES, Pair, base, check_order, tidy
from bigkeras.data.files import expanded
from bigkeras.data.pair_splits import parted_splits
from bigkeras.data.pair_table import PairFile, check_said, others_way, read_lines, read_table
from bigkeras.data.source import DataError, Splits
from bigkeras.data.tmx import read_tmx

USUAL_SHARE = 0.03  # of validation and of testing, where no file holds them
# Endings of aligned files that are as long as a language's code.
NO_LANGUAGES = ("txt", "tsv", "csv", "tok", "doc", "raw", "src", "tgt", "trg", "ref", "hyp")


def translation_pairs(
    *,
    file: str,
    validation_file: str | None = None,
    test_file: str | None = None,
    source: int | str = 1,
    target: int | str = 2,
    source_language: str = "",
    target_language: str = "",
    encoding: str | None = None,
    validation: float = USUAL_SHARE,
    test: float = USUAL_SHARE,
    seed: int = 0,
    limit_train: int | None = None,
) -> Splits:
    """Own sentence pairs in a table, a pair a line, the columns parted by tabs (TSV). All in memory.

    There is no quoting: a quotation mark is a character, but in what Excel, LibreOffice or pandas have saved. `source`
    and `target` are numbers of columns, or names that stand in the first line; one such as "en, de" or "source, target"
    is taken for names. Languages (en, zh-CN, …) are for the model's card, Chinese scores and the cleaning, which is
    `data/cleaning.py`'s. Lines with too few columns are left out and stand in `bad`; those with more than nearly all
    others, whose pair may be another, in `ignored`. The seed splits by source sentence, but for what `validation_file`
    and `test_file`, tables of the same form, hold. A .gz is unpacked. Raises DataError that names file and line.
    """

    def read(path: str) -> PairFile:
        return read_table(expanded(path), source, target, (source_language, target_language), encoding)

    files = {"": file, "validation": validation_file, "test": test_file}
    return _splits(read, files, validation=validation, test=test, seed=seed, limit_train=limit_train)


def aligned_files(
    *,
    file: str,
    target_file: str,
    validation_file: str | None = None,
    validation_target_file: str | None = None,
    test_file: str | None = None,
    test_target_file: str | None = None,
    source_language: str = "",
    target_language: str = "",
    encoding: str | None = None,
    validation: float = USUAL_SHARE,
    test: float = USUAL_SHARE,
    seed: int = 0,
    limit_train: int | None = None,
) -> Splits:
    """Own sentence pairs in two files, line by line: `file` holds the sources, `target_file` their translations.

    A language that is not said is the file's ending, as in news.en and news.de, if one of both is of a language that is
    known here. A tab is a character as any other. The
    seed splits by source sentence, but for what the files for validation and test hold, two each.
    Raises DataError where the numbers of lines differ.
    """
    sides = {
        "": (file, target_file),
        "validation": (validation_file, validation_target_file),
        "test": (test_file, test_target_file),
    }
    for part, (one, other) in sides.items():
        if (one is None) != (other is None):
            names = (f"{part}_file", f"{part}_target_file")
            there, lacking = names if other is None else names[::-1]
            raise DataError(
                f"data.{there}={one or other}: one of two aligned files; --set data.{lacking}=FILE is the other"
            )

    def read(paths: tuple[str, str]) -> PairFile:
        return _aligned((expanded(paths[0]), expanded(paths[1])), (source_language, target_language), encoding)

    files = {part: paths if paths[0] else None for part, paths in sides.items()}
    return _splits(read, files, validation=validation, test=test, seed=seed, limit_train=limit_train)


def tmx(
    *,
    file: str,
    validation_file: str | None = None,
    test_file: str | None = None,
    source_language: str = "",
    target_language: str = "",
    validation: float = USUAL_SHARE,
    test: float = USUAL_SHARE,
    seed: int = 0,
    limit_train: int | None = None,
) -> Splits:
    """A translation memory, as translators' tools write it (TMX 1.4b, https://www.gala-global.org/tmx-14b).

    Languages that are not said are the file's source language and the one other language in it. Codes of markup inside
    segments are left out, highlighted text is kept. A unit of several translations is a pair with each. Units without
    one of the languages stand in `ignored`. Entities of one's own are refused. The seed splits by source sentence, but
    for what `validation_file` and `test_file`, two more memories, hold. Raises DataError.
    """

    def read(path: str) -> PairFile:
        return _memory(expanded(path), source_language, target_language)

    files = {"": file, "validation": validation_file, "test": test_file}
    return _splits(read, files, validation=validation, test=test, seed=seed, limit_train=limit_train)


def _splits(read: Callable, files: dict[str, Any], **asked: Any) -> Splits:
    """Splits of the pairs that `read` finds in each part's file; the part "" has what the seed splits."""
    there = {part: place for part, place in files.items() if place is not None}
    found = {part: read(place) for part, place in there.items()}
    origins = {part: str(place if isinstance(place, str) else place[0]) for part, place in there.items()}
    languages = found[""].languages
    for part, other in found.items():
        given, theirs = (tuple(map(base, some)) for some in (languages, other.languages))
        if any(one and two and one != two for one, two in zip(given, theirs, strict=True)):
            told = f"{' to '.join(theirs)}, {origins['']} from {' to '.join(given)}"
            raise DataError(f"{origins[part]}: translates from {told}: they are to be of the same languages")
        languages = (languages[0] or other.languages[0], languages[1] or other.languages[1])
    for part, other in found.items():
        if other.languages != languages:  # what one file does not say, another does
            check_order(other.pairs, languages, origins[part], "exchange its sides, or those of the other files")
    return parted_splits(
        [pair._replace(part=part) for part, one in found.items() for pair in one.pairs],
        languages,
        [part for part in found if part],
        origin=origins[""],
        usual=USUAL_SHARE,
        **asked,
        bad=[line for one in found.values() for line in one.bad],
        ignored=[line for one in found.values() for line in one.ignored],
    )


def _aligned(paths: tuple[Path, Path], said: tuple[str, str], encoding: str | None) -> PairFile:
    sides = [read_lines(path, encoding) for path in paths]
    if len(sides[0]) != len(sides[1]):
        counts = " and ".join(f"{path} {len(lines)}" for path, lines in zip(paths, sides, strict=True))
        raise DataError(f"aligned files have the same number of lines, these have: {counts}")
    endings = [path.name.removesuffix(".gz").rpartition(".")[2] for path in paths]
    # An unknown code counts beside a known one alone: train.in and train.out are of no languages.
    some = len(set(endings)) == 2 and any(base(ending) in LANGUAGES for ending in endings)
    codes = [ending if some and _is_code(base(ending)) else "" for ending in endings]
    languages = (said[0] or codes[0], said[1] or codes[1])
    check_said(f"{paths[0]}: the files' names", languages, codes, "exchange file and target_file")
    pairs = [
        Pair(f"{paths[0]}:{number}", tidy(s), tidy(t)) for number, (s, t) in enumerate(zip(*sides, strict=True), 1)
    ]
    advice = "exchange file and target_file"
    if languages != said:  # they would go with the files
        advice = f"if the files' names are exchanged, {others_way(languages)}"
    check_order(pairs, languages, str(paths[0]), advice)
    return PairFile(pairs, languages, [], [])


def _is_code(ending: str) -> bool:
    return 2 <= len(ending) <= 3 and ending.isalpha() and ending not in NO_LANGUAGES


def _memory(path: Path, source_language: str, target_language: str) -> PairFile:
    units, lacking, languages = read_tmx(path, source_language, target_language)
    pairs = [Pair(f"{path}:{place}", tidy(source), tidy(target)) for place, source, target in units]
    check_order(pairs, languages, str(path), "correct its xml:lang, by which each sentence is of the other language")
    return PairFile(pairs, languages, [], [(f"{path}:{place}", why) for place, why in lacking])
