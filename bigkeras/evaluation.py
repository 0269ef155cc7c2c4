"""Scores of a run or a shipped artifact on a split, and the report."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bigkeras.data.cleaning import SAMPLE, Pair, check_order, other_languages
from bigkeras.data.corpora import NOT_PINNED
from bigkeras.data.source import ArraySource, DataError, Source, left_out
from bigkeras.masked_evaluation import MaskedScores, score_hidden, write_masked_report
from bigkeras.metrics import best_threshold, bootstrap_interval, classification_metrics, scores_at
from bigkeras.predictions import (
    AVERAGES,
    Predictions,
    artifact_predictor,
    predict_source,
    run_predictor,
    scored_at_once,
)  # fmt: skip
from bigkeras.recipe import Recipe, RecipeError, known, load
from bigkeras.recipe_data import absolute_data, place
from bigkeras.report import write_report
from bigkeras.run import (
    RunError,
    check_run,
    read_json,
    read_labels,
    same_place,
    saved_version,
    scores_held,
    write_csv,
    write_json,
)
from bigkeras.scored_data import asked_recipe, chosen_source, is_own, numbered, part_told, with_columns
from bigkeras.signals import Log
from bigkeras.tasks import load_task
from bigkeras.tasks.task import Task
from bigkeras.translation_evaluation import Translations, artifact_translator, run_translator, translate_source
from bigkeras.translation_report import write_translation_report


def evaluate(
    path: str | Path,
    *,
    split: str = "test",
    data: str | None = None,
    average: str = "none",
    report: bool = True,
    settings: Mapping[str, Any] | None = None,
    log: Log | None = None,
) -> dict[str, Any]:
    """The metrics of a run directory or a shipped model's folder on a split of its data set.

    `split`: train, validation, test, or "all" of them. `data`: another place for the data; `settings`: other values of
    the recipe's, such as {"data.label": "stars"}. `average`: average the answers over mirror images ("flips"), moves by
    one pixel ("shifts"; for digits and letters, which have no mirror image) or both ("flips-shifts"). `log` is told
    what of the data is left out. The metrics.json and report.md of a finished run get the result where it is of the
    run's own examples; the files of another run and of a shipped model stay as they are.
    Raises RunError, RecipeError, DataError; RunError, too, where the run's data has other examples than when it began:
    what would be tested may have been learned.
    """
    path = Path(path)
    known("average", average, AVERAGES)
    artifact = is_artifact(path)
    if not artifact:
        check_run(path)
    begun = absolute_data(load(path))
    known("split", split, ("train", "validation", "test", "all"))
    recipe = asked_recipe(begun, data, settings or {}, split)
    if not same_place(recipe, begun):
        recipe = with_columns(recipe, path)
    recipe, splits, source = chosen_source(path, recipe, split, elsewhere=not same_place(recipe, begun))
    # An exported model is scored on other machines, too: what is published may stand there in another order.
    compared = not artifact or any(place(recipe).values()) or recipe.data.name == NOT_PINNED
    # What a link leads to, say, may be others by now: whoever names it so asks for these.
    own = compared and is_own(path, splits, split, place(recipe) != place(begun), bool(settings)) and not artifact
    part = "" if same_place(recipe, begun) else part_told(path, recipe, splits, split, source)
    if log is not None:
        for line in [*left_out(splits), *filter(None, [part])]:
            log.say(line)
    task = load_task(path, read_labels(path))
    language = None
    if task.kind == "pairs":
        language = _written(path, recipe, task.preprocessor.languages, splits.languages, source)
    if average != "none" and task.kind != "image":
        raise RecipeError(f"average {average}: is for images, not for {task.kind}")
    if task.kind in ("image", "text"):
        source = numbered(source, splits.class_names, task.class_names)
    # metrics.json says that a run is complete: where it is not there yet, the run itself has still to write it.
    complete = _finished(path)
    predictions = _answered(path, task, source, scored_at_once(recipe), artifact, average, language)
    if isinstance(predictions, Predictions):
        if predictions.bad and log is not None:
            name, why = predictions.bad[0]
            log.say(f"{len(predictions.bad):,} could not be read and are not scored, the first {name}: {why}")
        key = split if average == "none" else f"{split} {average}"
        metrics = {key: score(predictions, task.class_names, _threshold(path))}
    else:
        metrics = {split: predictions.metrics}
    if not (report and own and complete):
        return metrics
    try:
        if complete != _finished(path):
            raise RunError(f"{path}: was trained on meanwhile")
        _merge(path, recipe, metrics, predictions, task)
    except (RunError, OSError) as error:  # as of a run that is somebody else's
        if log is None:
            raise
        log.say(f"{error}: not all files of the run have these scores")
    return metrics


def _written(path: Path, recipe: Recipe, own: tuple[str, str], found: tuple[str, str], source: Source) -> str:
    """The language that a translator from `own[0]` to `own[1]` writes on data of the languages `found`.

    One that has learned both ways to its end translates the other way, too. Raises DataError where the data is of other
    languages, as far as both are known.
    """
    back = recipe.task.args.get("both_directions", 0) >= recipe.epochs and not other_languages(own, found[::-1])
    if other_languages(own, found) and not back:
        ways = [f"{source or 'another language'} to {target or 'another one'}" for source, target in (own, found)]
        raise DataError(
            f"{path}: translates from {ways[0]}, and the data are from {ways[1]}: "
            "--set data.source=… --set data.target=… name a table's columns, "
            "--set data.source_language=… --set data.target_language=… the languages"
        )
    if other_languages(own, found):
        return own[0]
    if "" in found and isinstance(source, ArraySource):
        sides = zip(source.columns["source"][:SAMPLE], source.columns["target"][:SAMPLE], strict=True)
        pairs = [Pair("", one.decode(), other.decode()) for one, other in sides]
        columns = "--set data.source=… --set data.target=… name a table's columns"
        advice = columns if recipe.data.name == "translation_pairs" else "exchange its sides"
        check_order(pairs, own, f"{path}: of the data", advice)
    return own[1]


def _answered(
    path: Path,
    task: Task,
    source: Source,
    batch: int,
    artifact: bool = False,
    average: str = "none",
    language: str | None = None,
) -> Predictions | Translations | MaskedScores:
    """What a run's best model, or an artifact, says of a source; of a classifier, `batch` examples at a time.

    `language`: in which a translator is to write, by default its own.
    """
    model = path / "best.keras"
    if task.kind == "masked_text":
        return score_hidden(model, source, task)
    if task.kind == "pairs":
        translate = artifact_translator(path) if artifact else run_translator(model, task)
        return translate_source(translate, source, task, language)
    predict = artifact_predictor(path, task) if artifact else run_predictor(model, task)
    return predict_source(AVERAGES[average](predict), source, task, batch=batch)


def score(predictions: Predictions, class_names: tuple[str, ...], threshold: float | None = None) -> dict[str, Any]:
    """All metrics of classification, with a 95 % interval of the accuracy by bootstrap over the examples.

    Of two classes, with `threshold`, also the scores of decisions made at it, as `at_threshold`.
    """
    metrics = classification_metrics(predictions.labels, predictions.probabilities, class_names)
    correct = predictions.probabilities.argmax(1) == predictions.labels
    low, high = bootstrap_interval(correct, seed=0)
    if threshold is not None and len(class_names) == 2:
        metrics["at_threshold"] = scores_at(threshold, predictions.labels, predictions.probabilities)
    return {**metrics, "accuracy_95": [low, high], "examples": len(correct), "unreadable": len(predictions.bad)}


def finish_run(
    directory: Path, recipe: Recipe, source: Source | None, history: Any, bad: Mapping[str, str]
) -> dict[str, Any]:
    """Scores the best model on the validation split `source`; writes metrics.json and report.md of a finished run."""
    task = load_task(directory, read_labels(directory))
    metrics: dict[str, Any] = {"epochs": len(history), "unreadable": len(bad)}
    predictions = None if source is None else _answered(directory, task, source, scored_at_once(recipe))
    if isinstance(predictions, Predictions):
        threshold = None
        if len(task.class_names) == 2:
            threshold = metrics["threshold"] = best_threshold(predictions.labels, predictions.probabilities)
        metrics["validation"] = score(predictions, task.class_names, threshold)
    elif predictions is not None:
        metrics["validation"] = predictions.metrics
    return _merge(directory, recipe, metrics, predictions, task)


def _finished(directory: Path) -> tuple[int, int] | None:
    """What tells a complete run's best model from another one; None of a run that is not complete."""
    try:
        model = (directory / "best.keras").stat()
    except OSError:
        return None
    return (model.st_ino, model.st_mtime_ns) if (directory / "metrics.json").exists() else None


def _threshold(directory: Path) -> float | None:
    """The decision threshold that a run tuned on its validation split."""
    path = directory / "metrics.json"
    return read_json(path).get("threshold") if path.is_file() else None


def is_artifact(path: Path) -> bool:
    """Whether the folder holds an exported model: versions with a SavedModel."""
    return saved_version(path) is not None


def _list_bad(path: Path, bad: Sequence[tuple[str, str]]) -> None:
    """Adds samples, and why they cannot be read, to a run's table of them."""
    listed = {}
    if path.exists():
        with open(path, encoding="utf-8", newline="") as file:
            listed = {row["sample"]: row["reason"] for row in csv.DictReader(file)}
    rows = [{"sample": name, "reason": why} for name, why in sorted({**listed, **dict(bad)}.items())]
    write_csv(path, rows, ("sample", "reason"))


def _merge(
    directory: Path,
    recipe: Recipe,
    metrics: dict[str, Any],
    predictions: Predictions | Translations | MaskedScores | None,
    task: Task,
) -> dict[str, Any]:
    with scores_held(directory):
        path = directory / "metrics.json"
        complete = path.exists()
        before = read_json(path) if complete else {}
        merged = {**before, **metrics}
        try:
            with open(directory / "log.csv", encoding="utf-8", newline="") as file:
                history = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
        except (ValueError, TypeError) as error:
            raise RunError(f"{directory / 'log.csv'}: cannot be read: {error}") from None
        # Before the pictures, which may fail.
        if complete:
            write_json(path, merged)
        if isinstance(predictions, Predictions) and predictions.bad:
            _list_bad(directory / "bad_samples.csv", predictions.bad)
        known: dict[str, Any] = {"recipe": recipe, "metrics": merged, "history": history, "predictions": predictions}
        if task.kind == "masked_text":
            write_masked_report(directory, **known)
        elif task.kind == "pairs":
            write_translation_report(directory, **known)
        else:
            write_report(directory, **known, task=task)
        if not complete:  # it says that the run is
            write_json(path, merged)
    return merged
