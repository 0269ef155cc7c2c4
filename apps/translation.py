"""Translate: `python -m apps.translation "A man is riding a horse."`.

Takes texts, a file and `-` (standard input): one line in, one line out, in the same order. Any SavedModel that keeps
the contract of docs/artifact.md for translation will do. It uses nothing but that artifact.
"""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __package__ in (None, ""):  # run as `python apps/translation.py`
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from apps.console import Once, complain, finish, json_line, leave, model_options, parsed, positive, threads_option
from apps.outputs import written
from apps.reviews import JSON_LINES, Review, ReviewError, Table, lines_of, standard_input
from apps.sentences import LONGEST, Sentence, capital_letters, joined, sentences
from apps.streams import groups, is_live, side_by_side

if TYPE_CHECKING:
    from apps.savedmodel import CModel, PythonModel

DEFAULT_MODEL = "translate-en-de"
SIGNATURE = "serving_default"
LENGTH_PENALTY = 1.0  # with which --n-best sorts where neither the model nor the user says another
COLUMNS = 3  # of a subword, or less: names, numbers and rare words are cut up more than others
ROUNDS = 4  # batches of each thread before their answers are written: of a file, nobody waits for its first lines
NOT_FOUND = -1e8  # scores below are those of places that a search has not filled


@dataclass(frozen=True)
class Answer:
    """Translations of a line with their scores, best first: one without a score, or several."""

    translations: list[tuple[str, float | None]]


Results = Iterator[tuple[Review, Answer | str]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Translations on standard output, complaints on standard error; 0, 1 (a line could not be done) or 2 (usage)."""
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
    options = _settled(options, directory)
    with contextlib.ExitStack() as files:
        try:
            lines = _lines(options, files)
            # Many lines repay the seconds that optimising the graph takes.
            wanted = [_signature(options), *["attention"] * bool(options.attention)]
            model = savedmodel.load(
                directory, options.runtime or "auto", optimise=options.file is not None, only=wanted, threads=1
            )
            _check(directory, model, options)
            _check_beams(model, options)
            if options.runtime or model.runtime == "python":
                complain(f"runtime: {model.runtime}")
            if options.attention:
                from apps.alignment import save_attention

                save_attention(model.run("attention", {"text": [_only(lines, options)]}), options.attention)
                lines = _lines(options, files)
            return _report(_answers(model, lines, options), options)
        except (savedmodel.ModelError, ReviewError) as error:
            complain(str(error))
            return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="translation", description="Translate, a line at a time.",
        epilog="exit status: 0 all translated, 1 something was not (named on standard error), 2 wrong usage",
    )  # fmt: skip
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a text, or - alone for standard input, one a line")
    parser.add_argument("--file", action=Once, metavar="FILE", help="a text a line")
    parser.add_argument("--encoding", metavar="NAME", help="of --file (default: UTF-8, or UTF-16 that says so)")
    parser.add_argument(
        "--output", action=Once, metavar="FILE", help="written instead of standard output, whole or not at all"
    )
    model_options(parser, DEFAULT_MODEL, "sentences", 32)
    threads_option(parser)
    parser.add_argument("--beam", type=positive, metavar="N",
                        help="1: the likeliest word at each step, and faster (default: the model's)")  # fmt: skip
    parser.add_argument(
        "--n-best", type=positive, metavar="N", help="the N best of each, a line each: number, score, text"
    )
    parser.add_argument("--length-penalty", type=float, metavar="X",
                        help="with --n-best: the higher, the longer they may be (default: the model's)")  # fmt: skip
    parser.add_argument("--attention", metavar="PNG", help="of one text, a picture of what each piece looked at")
    return parser


def _check_usage(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if bool(options.texts) == bool(options.file):
        parser.error("a TEXT, - or --file FILE, one of them")
    if "-" in options.texts and len(options.texts) > 1:
        parser.error("- stands alone, for standard input")
    if options.encoding and not options.file:
        parser.error("--encoding goes with --file")
    if options.attention and (len(options.texts) != 1 or options.texts == ["-"]):
        parser.error("--attention goes with one TEXT")
    if options.attention and not options.attention.lower().endswith(".png"):
        parser.error(f"--attention {options.attention}: the name of a .png file")
    if options.attention and (options.beam or options.n_best):
        parser.error("--attention is of the model's own translation: without --beam and --n-best")
    if options.beam and options.n_best:
        parser.error("--beam and --n-best: one of them")
    if options.length_penalty is not None and not options.n_best:
        parser.error("--length-penalty goes with --n-best")
    if options.length_penalty is not None and not 0 <= options.length_penalty <= 10:
        parser.error(f"--length-penalty {options.length_penalty}: from 0 to 10")


def _signature(options: argparse.Namespace) -> str:
    if options.n_best:
        return "n_best"
    return "greedy" if options.beam == 1 else SIGNATURE


def _settled(options: argparse.Namespace, directory: Path) -> argparse.Namespace:
    """The options, and what the model says of itself: `longest`, `own_beam` (None: unknown), its length penalty, and
    the `language` that it reads and that in which it is `written`.

    `longest`: columns of a sentence that it reads to its end, as far as it says how many subwords it reads.
    """
    from apps import savedmodel

    version = savedmodel.version_directory(directory)
    own: dict[str, Any]
    # Where the version was copied alone, it has a copy within.
    for path in (version / "assets.extra" / "preprocessor.json", version.parent / "preprocessor.json"):
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            own = {
                "longest": max(20, COLUMNS * (int(told["length"]) - 1)),
                "own_beam": int(told["beam"]),
                "length_penalty": float(told["length_penalty"]),
                "language": str(told.get("languages", ["en"])[0]),
                "written": str(told.get("languages", ["", ""])[1]),
            }
            break
        except (OSError, ValueError, LookupError, TypeError):
            own = {
                "longest": LONGEST,
                "own_beam": None,
                "length_penalty": LENGTH_PENALTY,
                "language": "en",
                "written": "",
            }
    if options.length_penalty is not None:
        own["length_penalty"] = options.length_penalty
    return argparse.Namespace(**{**vars(options), **own})


def _lines(options: argparse.Namespace, files: contextlib.ExitStack) -> Iterator[Review]:
    """The texts one by one, none read before it is needed."""
    if options.file is not None:
        if Table.is_one(options.file) or options.file.lower().endswith(JSON_LINES):
            complain(f"{options.file}: taken for a text a line, and not for a table: give the column of texts alone")
        return lines_of(Table.open(options.file, options.encoding, files), options.file)
    if options.texts == ["-"]:
        return standard_input()
    return (Review(str(i), " ".join(text.split("\n"))) for i, text in enumerate(options.texts, 1))


def _check(directory: Path, model: "CModel | PythonModel", options: argparse.Namespace) -> None:
    from apps.savedmodel import ModelError

    signature = model.signatures.get(SIGNATURE)
    if not signature or set(signature.inputs) != {"text"} or "translation" not in signature.outputs:
        raise ModelError(f"{directory}: not a translator: its {SIGNATURE} must take text and give translation")
    for name, asked in (("n_best", options.n_best), ("attention", options.attention)):
        if asked and name not in model.signatures:
            raise ModelError(f"{directory}: has no signature {name}, which --{name.replace('_', '-')} needs")


def _check_beams(model: "CModel | PythonModel", options: argparse.Namespace) -> None:
    from apps.savedmodel import ModelError

    most = None
    if "n_best" in model.signatures:
        most = (model.signatures["n_best"].outputs["translation"].shape or (None, None))[1]
    # Two are given, too, by a model whose own search is greedy.
    own = options.own_beam or most
    beams = sorted({*([1] if "greedy" in model.signatures else []), *([own] if own else [])})
    if options.beam and options.beam not in beams:
        told = " or ".join(map(str, beams)) or "a beam that it does not say"
        raise ModelError(f"--beam {options.beam}: this model searches with {told}")
    if options.n_best and most and options.n_best > most:
        raise ModelError(f"--n-best {options.n_best}: this model gives {most}")


def _answers(model: "CModel | PythonModel", lines: Iterator[Review], options: argparse.Namespace) -> Results:
    """Each line with its translations, or with what was wrong; read and translated some at a time."""
    live = is_live(options.texts, options.file)
    size = options.batch * options.threads * (1 if live else ROUNDS)
    with ThreadPoolExecutor(options.threads) as pool:
        for part in groups(lines, size, live, letters=lambda line: len(line.text)):
            parted = [
                sentences(line.text, options.longest, options.language) if not line.problem else [] for line in part
            ]
            found = iter(_translated(model, [sentence for some in parted for sentence in some], options, pool))
            for line, some in zip(part, parted, strict=True):
                yield line, _together(list(islice(found, len(some))), options.n_best or 1)


def _capitals(answer: Answer, language: str) -> Answer:
    best: dict[str, float | None] = {}  # two may differ in nothing else
    for text, score in answer.translations:
        best.setdefault(capital_letters(text, language), score)
    return Answer([*best.items()])


def _only(lines: Iterator[Review], options: argparse.Namespace) -> bytes:
    """The text of which a picture is drawn. Raises ReviewError unless it is translated as one sentence."""
    line = next(lines)
    parts = sentences(line.text, options.longest, options.language)
    if len(parts) != 1:
        raise ReviewError("--attention draws one sentence, and TEXT is none, several or too long for one")
    return Review("", parts[0].text).encoded()


def _together(parts: list[Answer | str], most: int) -> Answer | str:
    """The answer of a line from those of its sentences, of at most so many texts; of none, an empty text."""
    answers = [part for part in parts if isinstance(part, Answer)]
    if len(answers) < len(parts):
        return next(part for part in parts if isinstance(part, str))
    best: list[list[tuple[str, float | None]]] = [[]]
    for answer in answers:  # the best of all that can be put together, as far as so many are wanted
        rows = [[*row, one] for row in best for one in answer.translations]
        best = sorted(rows, key=lambda row: -(_sum([score for _, score in row]) or 0.0))[:most]
    return Answer([(joined([text for text, _ in row]), _sum([score for _, score in row])) for row in best])


def _sum(scores: list[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return sum(known) if known and len(known) == len(scores) else None


def _translated(
    model: "CModel | PythonModel", parts: list[Sentence], options: argparse.Namespace, pool: Executor
) -> list[Answer | str]:
    """Sentences of about one length share a batch, and batches are translated side by side, a thread for each.

    The operations of a search are small: threads that share each of them take twice the time of one.
    """
    # The longest first, so that no thread begins with them when the others are done.
    order = sorted(range(len(parts)), key=lambda place: len(parts[place].text), reverse=True)
    encoded = [Review("", parts[place].text).encoded() for place in order]
    found = side_by_side(lambda batch: _run(model, batch, options), encoded, options.batch, options.threads, pool)
    answers: list[Answer | str] = [""] * len(parts)
    for place, answer in zip(order, found, strict=True):
        capitals = isinstance(answer, Answer) and parts[place].capitals
        answers[place] = _capitals(answer, options.written) if capitals else answer
    return answers


def _run(model: "CModel | PythonModel", texts: list[bytes], options: argparse.Namespace) -> list[Answer | str]:
    from apps.savedmodel import ModelError

    try:
        if not options.n_best:
            outputs = model.run(_signature(options), {"text": texts})
            return [Answer([(_decoded(text), None)]) for text in outputs["translation"]]
        outputs = model.run("n_best", {"text": texts, "length_penalty": _scalar(options.length_penalty)})
    except ModelError as error:
        if len(texts) == 1:
            return [f"cannot be translated: {error}"]
        return [answer for text in texts for answer in _run(model, [text], options)]
    answers: list[Answer | str] = []
    for row, scores in zip(outputs["translation"], outputs["score"], strict=True):
        pairs = [(_decoded(text), float(score)) for text, score in zip(row, scores, strict=True) if score > NOT_FOUND]
        # One sentence in two subdivisions is two hypotheses, and one translation: the likelier.
        best: dict[str, float | None] = {}
        for text, score in pairs:
            best.setdefault(text, score)
        answers.append(Answer([*best.items()][: options.n_best]))
    return answers


def _scalar(value: float) -> Any:
    import numpy as np

    return np.float32(value)


def _decoded(text: bytes) -> str:
    # A translation is one line, whatever the model has learned to write.
    return " ".join(text.decode("utf-8", "replace").splitlines())


def _report(results: Results, options: argparse.Namespace) -> int:
    """Writes each translation as it comes; the exit status."""
    status, number = 0, 0
    live = is_live(options.texts, options.file)
    # A terminal shows its own encoding; what is piped or kept is UTF-8.
    shown = options.output is None and sys.stdout is not None and sys.stdout.isatty()
    with written(options.output, plain=shown and not options.json) as out:
        for number, (line, result) in enumerate(results, 1):
            if isinstance(result, str):
                status = 1
                out.flush()
                complain(f"{line.name}: {result}")
            if options.json:
                print(json_line(_object(line, result, bool(options.n_best))), file=out)
            elif isinstance(result, str):
                print(file=out)  # so that lines still belong together
            elif options.n_best:
                for text, score in result.translations:
                    print(number, f"{score or 0.0:.4f}", text, sep="\t", file=out)
            else:
                print(result.translations[0][0], file=out)
            if live:
                out.flush()
    if not number:
        complain(f"{options.file or 'standard input'}: holds no text")
    return status


def _object(line: Review, result: Answer | str, scored: bool) -> dict[str, Any]:
    text = line.encoded().decode("utf-8", "replace")
    if isinstance(result, str):
        return {"text": text, "error": result}
    told: dict[str, Any] = {"text": text, "translation": result.translations[0][0]}
    if scored:  # the one translation of an empty line is sure
        told["n_best"] = [{"translation": text, "score": score or 0.0} for text, score in result.translations]
    return told


if __name__ == "__main__":
    leave(finish(main))
