"""Say what pictures show: `python -m apps.image_classification photo.jpg`.

Takes files, folders, patterns and `-` (standard input), and any SavedModel that keeps the contract of
docs/artifact.md for image classification. It uses nothing but that artifact.
"""

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # run as `python apps/image_classification.py`
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from apps.console import complain, finish, json_line, leave, model_options, padded, parsed, positive, printable, width
from apps.pictures import Picture, PictureError, find, read

if TYPE_CHECKING:
    from apps.savedmodel import CModel, PythonModel

DEFAULT_MODEL = "photos10"
SIGNATURE = "serving_default"
MANY_PICTURES = 50  # from here on an optimised graph repays the seconds that optimising takes
WIDEST_PATH = 60  # columns; longer paths push their answers to the right
Answers = list[tuple[str, float]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Answers on standard output, complaints on standard error; 0, 1 (something was skipped) or 2 (usage)."""
    parser = _parser()
    options = parsed(parser, arguments, "paths")
    if not options.paths:
        parser.error("at least one PICTURE, or - for standard input")
    # Below the parser, for --help shall not wait for NumPy.
    from apps import savedmodel

    try:
        directory = savedmodel.find_model(options.model)
    except savedmodel.ModelError as error:
        complain(f"--model {error}")
        return 2
    pictures = list(find(options.paths))
    if not any(not picture.problem for picture in pictures):
        # Nothing to show to a model: do not load it.
        return _report(((picture, picture.problem) for picture in pictures), options)
    try:
        optimise = len(pictures) >= MANY_PICTURES
        model = savedmodel.load(directory, options.runtime or "auto", optimise=optimise, only=[SIGNATURE])
        _check(directory, model)
    except savedmodel.ModelError as error:
        complain(str(error))
        return 1
    if options.runtime or model.runtime == "python":
        complain(f"runtime: {model.runtime}")
    return _report(_answers(model, pictures, options.batch), options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="image_classification", description="Say what pictures show.",
        epilog="exit status: 0 all answered, 1 something was skipped (named on standard error), 2 wrong usage",
    )  # fmt: skip
    parser.add_argument("paths", nargs="*", metavar="PATH", help="a file, a folder, a pattern, or - for standard input")
    model_options(parser, DEFAULT_MODEL, "pictures", 16)
    parser.add_argument("--top", type=positive, default=5, metavar="N", help="answers a picture (default: 5)")
    return parser


def _check(directory: Path, model: "CModel | PythonModel") -> None:
    from apps.savedmodel import ModelError

    signature = model.signatures.get(SIGNATURE)
    if not signature or set(signature.inputs) != {"image"} or not {"label", "probability"} <= set(signature.outputs):
        raise ModelError(f"{directory}: not an image classifier: its {SIGNATURE} must take image "
                         "and give label and probability")  # fmt: skip


def _answers(
    model: "CModel | PythonModel", pictures: Sequence[Picture], batch: int
) -> Iterator[tuple[Picture, Answers | str]]:
    """Each picture with its answers, best first, or with what was wrong; read and answered `batch` at a time."""
    for start in range(0, len(pictures), batch):
        part = pictures[start : start + batch]
        results: dict[int, Answers | str] = {}
        encoded: dict[int, bytes] = {}
        for place, picture in enumerate(part):
            try:
                if picture.problem:
                    raise PictureError(picture.problem)
                encoded[place] = read(picture.path)
            except PictureError as error:
                results[place] = str(error)
        results |= _classify(model, encoded)
        yield from ((picture, results[place]) for place, picture in enumerate(part))


def _classify(model: "CModel | PythonModel", encoded: dict[int, bytes]) -> dict[int, Answers | str]:
    """Answers by the keys of `encoded`; one picture that the graph refuses does not cost the others their answers."""
    from apps.savedmodel import ModelError

    if not encoded:
        return {}
    try:
        outputs = model.run(SIGNATURE, {"image": list(encoded.values())})
    except ModelError as error:
        if len(encoded) == 1:
            return dict.fromkeys(encoded, f"cannot be decoded: {error}")
        return {place: _classify(model, {place: data})[place] for place, data in encoded.items()}
    rows = zip(outputs["label"], outputs["probability"], strict=True)
    return {
        place: [(label.decode("utf-8", "replace"), float(probability)) for label, probability in zip(*row, strict=True)]
        for place, row in zip(encoded, rows, strict=True)
    }


def _report(results: Iterator[tuple[Picture, Answers | str]], options: argparse.Namespace) -> int:
    """Prints each result as it comes; the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # and not what a test or a notebook put there
        # JSON is UTF-8 wherever it goes; a broken file name stays valid JSON as \udcxx.
        sys.stdout.reconfigure(encoding="utf-8" if options.json else None, errors="backslashreplace")
    status, columns = 0, 0
    for picture, result in results:
        if isinstance(result, str):
            status = 1
            sys.stdout.flush()
            complain(f"{picture.path}: {result}")
            if options.json:
                print(json_line({"path": picture.path, "error": result}))
            continue
        best = result[: options.top]
        if options.json:
            answers = [{"label": label, "probability": probability} for label, probability in best]
            print(json_line({"path": picture.path, "answers": answers}))
        else:
            columns = min(max(columns, width(printable(picture.path))), WIDEST_PATH)
            print(_row(picture.path, best, columns))
    return status


def _row(path: str, answers: Answers, columns: int) -> str:
    cells = [f"{printable(label)} {probability:.1%}" for label, probability in answers]
    return "  ".join([padded(printable(path), columns), *cells])


if __name__ == "__main__":
    leave(finish(main))
