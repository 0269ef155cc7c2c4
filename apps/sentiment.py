"""Say what texts mean: `python -m apps.sentiment "Well done, all of it."`.

Takes texts, a file of reviews and `-` (standard input, a review a line), and any SavedModel that keeps the contract of
docs/artifact.md for text classification. It uses nothing but that artifact.
"""

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if __package__ in (None, ""):  # run as `python apps/sentiment.py`
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from apps.console import (
    Once,
    complain,
    finish,
    json_line,
    leave,
    model_options,
    padded,
    parsed,
    printable,
    threads_option,
    width,
)
from apps.outputs import written
from apps.reviews import JSON_LINES, Review, ReviewError, Table, lines_of, objects_of, standard_input
from apps.streams import groups, is_live, side_by_side

if TYPE_CHECKING:
    from apps.savedmodel import CModel, PythonModel

DEFAULT_MODEL = "sentiment-en"
SIGNATURE = "serving_default"
WIDEST_TEXT = 60  # columns; longer texts are cut in a table
MARKED = 0.3  # of the largest weight: the words that carry the answer
GREEN, RED, PLAIN = "\x1b[1;32m", "\x1b[31m", "\x1b[0m"


@dataclass(frozen=True)
class Answer:
    """Labels with probabilities, best first; `words` with weights where an explanation was asked for."""

    labels: list[tuple[str, float]]
    words: list[tuple[str, float]] | None = None


Result = tuple[Review, Answer | str]
Results = Iterator[Result]


def main(arguments: Sequence[str] | None = None) -> int:
    """Answers on standard output, complaints on standard error; 0, 1 (something was skipped) or 2 (usage)."""
    parser = _parser()
    options = parsed(parser, arguments, "texts")
    _check_usage(parser, options)
    for text in (text for text in options.texts if text != "-" and os.path.isfile(text)):
        complain(f"{text}: taken for a text, though a file is called so: --file {text} reads it")
    # Below the parser, for --help shall not wait for NumPy.
    from apps import savedmodel

    try:
        directory = savedmodel.find_model(options.model)
    except savedmodel.ModelError as error:
        complain(f"--model {error}")
        return 2
    with contextlib.ExitStack() as files:
        try:
            table, reviews = _reviews(options, files)
            # Many reviews repay the seconds that optimising the graph takes.
            wanted = [SIGNATURE, *["explain"] * options.explain]
            model = savedmodel.load(
                directory,
                options.runtime or "auto",
                optimise=options.file is not None,
                only=wanted,
                threads=None if _alone(options) else 1,
            )
            _check(directory, model, options.explain)
            decide = _decision(directory) if options.tuned else None
        except (savedmodel.ModelError, ReviewError) as error:
            complain(str(error))
            return 1
        if options.runtime or model.runtime == "python":
            complain(f"runtime: {model.runtime}")
        try:
            results = _answers(model, reviews, options)
            return _report(map(decide, results) if decide else results, table, options)
        except ReviewError as error:
            complain(str(error))
            return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sentiment", description="Say what texts mean.",
        epilog="exit status: 0 all answered, 1 something was skipped (named on standard error), 2 wrong usage",
    )  # fmt: skip
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a text, or - alone for standard input, one a line")
    parser.add_argument("--file", action=Once, metavar="FILE",
                        help=".csv, .tsv: a table whose first line names its columns, copied with two more; "
                        ".jsonl: an object a line; others: a text a line")  # fmt: skip
    parser.add_argument("--column", metavar="NAME", help="the table's column of texts (default: text, review, ...)")
    parser.add_argument("--delimiter", metavar="C", help="what parts the table's columns (default: found)")
    parser.add_argument("--no-header", action="store_true",
                        help="the table's first line holds a text, too; --column takes a number: 1, 2 ...")  # fmt: skip
    parser.add_argument(
        "--encoding",
        metavar="NAME",
        help="of --file (default: UTF-8, or UTF-16 that says so); the table that comes out is UTF-8",
    )
    parser.add_argument(
        "--output", action=Once, metavar="FILE", help="written instead of standard output, whole or not at all"
    )
    model_options(parser, DEFAULT_MODEL, "texts", 32)
    threads_option(parser)
    parser.add_argument(
        "--tuned",
        action="store_true",
        help="of two classes: decide at the threshold that was best on validation, not for the likelier one",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="mark the words that carried the answer: without them it is less probable (occlusion)",
    )
    return parser


def _check_usage(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if bool(options.texts) == bool(options.file):
        parser.error("a TEXT, - or --file FILE, one of them")
    if "-" in options.texts and len(options.texts) > 1:
        parser.error("- stands alone, for standard input")
    if options.delimiter and (len(options.delimiter) != 1 or options.delimiter in '"\r\n\0'):
        parser.error(f"--delimiter {options.delimiter!r}: one character, such as , or ; ($'\\t' is a tab)")
    if not options.file and (options.column or options.delimiter or options.encoding):
        parser.error("--column, --delimiter and --encoding go with --file")
    if options.column and not Table.is_one(options.file) and not options.file.lower().endswith(JSON_LINES):
        parser.error(f"--column goes with .csv, .tsv and .jsonl, not with {options.file}")
    if (options.delimiter or options.no_header) and not Table.is_one(options.file):
        parser.error("--delimiter and --no-header go with a table, a file called .csv or .tsv")
    if options.explain and options.tuned:
        parser.error("--explain tells why a class is the likelier one, which --tuned does not ask")
    if options.explain and Table.is_one(options.file) and not options.json:
        parser.error("--explain goes with --json, or without a table")


def _reviews(options: argparse.Namespace, files: contextlib.ExitStack) -> tuple[Table | None, Iterator[Review]]:
    """The texts one by one, none read before it is needed, and the table that they stand in, if there is one."""
    if options.file is None:
        if options.texts != ["-"]:
            return None, (Review(str(i), text) for i, text in enumerate(options.texts, 1))
        return None, standard_input()
    if not Table.is_one(options.file):
        lines = Table.open(options.file, options.encoding, files)
        objects = options.file.lower().endswith(JSON_LINES)
        return None, objects_of(lines, options.file, options.column) if objects else lines_of(lines, options.file)
    table = Table(options.file, options.encoding, options.delimiter, options.column, files, named=not options.no_header)
    return table, iter(table)


def _check(directory: Path, model: "CModel | PythonModel", explain: bool) -> None:
    from apps.savedmodel import ModelError

    signature = model.signatures.get(SIGNATURE)
    if not signature or set(signature.inputs) != {"text"} or not {"label", "probability"} <= set(signature.outputs):
        raise ModelError(f"{directory}: not a text classifier: its {SIGNATURE} must take text "
                         "and give label and probability")  # fmt: skip
    if explain and "explain" not in model.signatures:
        raise ModelError(f"{directory}: cannot explain: it has no signature explain")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _decision(directory: Path) -> Callable[[Result], Result]:
    """A function that puts the class in front that a tuned threshold, in metrics.json, decides for.

    Raises ModelError where none is there, or one of another version.
    """
    from apps.savedmodel import ModelError, version_directory

    version = version_directory(directory)
    # Beside a version that is kept elsewhere; or beside what a link to a version leads to.
    beside = Path(os.path.abspath(version)).parent, version.resolve().parent
    folder = next((place for place in beside if (place / "metrics.json").is_file()), beside[0])
    versions = [d for d in folder.glob("[0-9]*") if d.name.isdecimal() and (d / "saved_model.pb").is_file()]
    newest = max(versions, key=lambda place: int(place.name), default=version)
    own = version / "assets" / "labels.txt"
    other = newest.resolve() != version.resolve()
    other = other or (own.is_file() and own.read_bytes() != _bytes(folder / "labels.txt"))
    if other and (folder / "metrics.json").is_file():
        raise ModelError(f"{version}: --tuned: the threshold in {folder}/metrics.json is that of another version")
    try:
        threshold = float(json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["threshold"])
        # Not splitlines: a label may hold one of the other separators that Unicode knows.
        _, second = (folder / "labels.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, ValueError, KeyError, TypeError):
        told = "one is tuned of two classes, on a validation split"
        raise ModelError(f"{folder}: --tuned: no threshold stands in its metrics.json: {told}") from None

    def decided(result: Result) -> Result:
        review, answer = result
        if isinstance(answer, str):
            return result
        taken = dict(answer.labels)[second] >= threshold
        return review, Answer(sorted(answer.labels, key=lambda label: (label[0] == second) is not taken))

    return decided


def _answers(model: "CModel | PythonModel", reviews: Iterable[Review], options: argparse.Namespace) -> Results:
    """Each review with its answer, or with what was wrong; read and answered some at a time."""
    # Who has an answer explained waits for every single one.
    size = 1 if options.explain else options.batch
    threads = 1 if _alone(options) else options.threads
    live = is_live(options.texts, options.file)
    with ThreadPoolExecutor(threads) as pool:
        for part in groups(iter(reviews), size * threads, live, letters=lambda review: len(review.text)):
            good = [review for review in part if not review.problem]
            encoded = [review.encoded() for review in good]
            found = side_by_side(lambda texts: _classify(model, texts, options.explain), encoded, size, threads, pool)
            answers = dict(zip(map(id, good), found, strict=True))
            yield from ((review, review.problem or answers[id(review)]) for review in part)


def _alone(options: argparse.Namespace) -> bool:
    """Whether somebody waits for each answer: then all cores work on it; else each of them has texts of its own."""
    return not options.file and (options.texts != ["-"] or is_live(options.texts))


def _classify(model: "CModel | PythonModel", texts: list[bytes], explain: bool) -> list[Answer | str]:
    from apps.savedmodel import ModelError

    try:
        outputs = model.run(SIGNATURE, {"text": texts})
        words = model.run("explain", {"text": texts}) if explain else None
    except ModelError as error:
        if len(texts) == 1:
            return [f"cannot be answered: {error}"]
        return [answer for text in texts for answer in _classify(model, [text], explain)]
    answers: list[Answer | str] = []
    for place, row in enumerate(zip(outputs["label"], outputs["probability"], strict=True)):
        told = None if words is None else _pairs(words["word"][place], words["weight"][place])
        answers.append(Answer(_pairs(*row), told))
    return answers


def _pairs(texts: Iterable[bytes], numbers: Iterable[float]) -> list[tuple[str, float]]:
    """Texts with their numbers; those that only fill the batch are empty, and left out."""
    pairs = zip(texts, numbers, strict=True)
    return [(text.decode("utf-8", "replace"), float(number)) for text, number in pairs if text]


def _report(results: Results, table: Table | None, options: argparse.Namespace) -> int:
    """Writes each result as it comes; the exit status."""
    status, columns = 0, 0
    review, live = None, is_live(options.texts, options.file)
    with written(options.output, plain=not options.json and table is None, table=table is not None) as out:
        rows = table.writer(out) if table is not None and not options.json else None
        for review, result in results:
            if isinstance(result, str):
                status = 1
                out.flush()
                complain(f"{review.name}: {result}")
            if rows is not None:
                best = ("", "") if isinstance(result, str) else (result.labels[0][0], f"{result.labels[0][1]:.4f}")
                rows.write(review, best)
            elif options.json:
                print(json_line(_object(review, result)), file=out)
            elif not isinstance(result, str):
                text = _shortened(printable(review.text))
                columns = max(columns, width(text))
                print(_line(text, result, columns), file=out)
                if result.words:
                    print(_marked(result.words, _is_terminal(out)), file=out)
            if live:  # who wrote the line may wait for its answer
                out.flush()
    if review is None:
        complain(f"{options.file or 'standard input'}: holds no text")
    return status


def _object(review: Review, result: Answer | str) -> dict[str, Any]:
    text = review.encoded().decode("utf-8", "replace")
    if isinstance(result, str):
        return {"text": text, "error": result}
    answers = [{"label": label, "probability": probability} for label, probability in result.labels]
    words = {} if result.words is None else {"words": [{"word": w, "weight": x} for w, x in result.words]}
    return {"text": text, "answers": answers, **words}


def _line(text: str, answer: Answer, columns: int) -> str:
    cells = [f"{printable(label)} {probability:.1%}" for label, probability in answer.labels]
    return "  ".join([padded(text, columns), *cells])


def _shortened(text: str) -> str:
    if width(text) <= WIDEST_TEXT:
        return text
    while width(text) >= WIDEST_TEXT:
        text = text[: max(1, min(len(text) - 1, WIDEST_TEXT - 1))]
    return text + "…"


def _marked(words: list[tuple[str, float]], colours: bool) -> str:
    """The text with what carried the answer: green, what spoke against it: red; else as [+…] and [-…]."""
    most = max((abs(weight) for _, weight in words), default=0.0)
    told = []
    for word, weight in words:
        body, space = printable(word.rstrip()), word[len(word.rstrip()) :]
        if not body or abs(weight) < MARKED * most or abs(weight) < 1e-3:
            told.append(body + space)
        elif colours:
            told.append(f"{GREEN if weight > 0 else RED}{body}{PLAIN}{space}")
        else:
            told.append(f"[{'+' if weight > 0 else '-'}{body}]{space}")
    return "    " + "".join(told)


def _is_terminal(out: TextIO) -> bool:
    return isinstance(out, io.TextIOBase) and out.isatty()


if __name__ == "__main__":
    leave(finish(main))
