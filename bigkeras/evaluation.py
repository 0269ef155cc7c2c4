"""Scores of a run or a shipped artifact on a split, and the report."""

import copy
import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bigkeras.data import DATASETS
from bigkeras.data.cleaning import other_languages
from bigkeras.data.corpora import NOT_PINNED
from bigkeras.data.fingerprint import COLUMNS, DATA_FILE, fingerprints, other_data
from bigkeras.data.label_names import whole_number
from bigkeras.data.pair_splits import all_pairs
from bigkeras.data.source import ArraySource, DataError, Source, Splits, joined
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
from bigkeras.recipe import HELD_OUT, Recipe, RecipeError, check, known, load
from bigkeras.recipe_data import absolute_data, place, recipe_splits, with_data
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
from bigkeras.signals import Log
from bigkeras.tasks import load_task
from bigkeras.tasks.task import Task
from bigkeras.translation_evaluation import Translations, artifact_translator, run_translator, translate_source
from bigkeras.translation_report import write_translation_report

# Data of one's own that a model of a task can be scored on, whatever it was trained on.
OWN: dict[str, tuple[str, ...]] = {
    "image_classification": ("image_folder", "image_table", "packed"),
    "text_classification": ("text_table", "text_folder"),
    "translation": ("translation_pairs", "aligned_files", "tmx"),
    "masked_language_model": ("plain_text",),
}


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
    recipe = _scored(begun, data, settings or {}, split)
    if not same_place(recipe, begun):
        recipe = _with_columns(recipe, path)
    recipe, splits, source = _chosen(path, recipe, split, elsewhere=not same_place(recipe, begun))
    # An exported model is scored on other machines, too: what is published may stand there in another order.
    compared = not artifact or any(place(recipe).values()) or recipe.data.name == NOT_PINNED
    # What a link leads to, say, may be others by now: whoever names it so asks for these.
    own = compared and _is_own(path, splits, split, place(recipe) != place(begun), bool(settings)) and not artifact
    if splits.bad and log is not None:
        log.say(f"{len(splits.bad):,} of the data are left out, the first {splits.bad[0][0]}: {splits.bad[0][1]}")
    if splits.found and log is not None:
        log.say(splits.found)
    task = load_task(path, read_labels(path))
    language = _written(path, recipe, task.preprocessor.languages, splits.languages) if task.kind == "pairs" else None
    if average != "none" and task.kind != "image":
        raise RecipeError(f"average {average}: is for images, not for {task.kind}")
    if task.kind in ("image", "text"):
        source = numbered(source, splits.class_names, task.class_names)
    # metrics.json says that a run is complete: where it is not there yet, the run itself has still to write it.
    complete = _finished(path)
    predictions = _answered(path, task, source, scored_at_once(recipe), artifact, average, language)
    if isinstance(predictions, Predictions):
        if predictions.bad and log is not None:
            name, why = next(iter(predictions.bad.items()))
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


def _chosen(path: Path, recipe: Recipe, split: str, elsewhere: bool) -> tuple[Recipe, Splits, Source]:
    """The recipe, its splits and what of them is scored. `elsewhere`: at another place than the run's own data.

    Such data is split as if validation had not been learned, unless it is known. Raises RunError for no such split.
    """
    splits = recipe_splits(recipe)
    if elsewhere and recipe.learn_validation and not _is_known(path, splits):
        recipe = replace(recipe, learn_validation=False)
        splits = recipe_splits(recipe)
    source = _all(splits) if split == "all" else getattr(splits, split)
    if source is None and split == "validation" and recipe.learn_validation:
        raise RunError(f"{path}: has learned from its validation split, which says nothing of it; name another")
    if source is None or not len(source):
        there = [part for part in ("test", "validation", "train") if getattr(splits, part) is not None]
        told = f"--split {' or '.join(there)} scores, or --data OTHER --split all"
        raise RunError(f"{path}: its data, {recipe.data.name}, has no {split} split: {told}")
    return recipe, splits, source


def _written(path: Path, recipe: Recipe, own: tuple[str, str], found: tuple[str, str]) -> str:
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
    return own[0] if other_languages(own, found) else own[1]


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


def _scored(recipe: Recipe, data: str | None, settings: Mapping[str, Any], split: str) -> Recipe:
    """The recipe on the data that is to be scored. Raises RecipeError for what is not said right."""
    for key in settings:
        if key != "data" and not key.startswith("data."):
            raise RecipeError(f"--set {key}: of a trained model, arguments of the data alone, such as data.label=stars")
    if "data" in settings:
        asked = recipe.override(data=settings["data"])
        if recipe.data.name != asked.data.name and asked.data.name not in OWN[recipe.task.name]:
            told = f"a model of {recipe.task.name} can be scored on {', '.join(OWN[recipe.task.name])}"
            raise RecipeError(f"--set data={asked.data.name}: {told}, or its own data")
        recipe = asked
        settings = {key: value for key, value in settings.items() if key != "data"}
    elsewhere = data or settings.get("data.file") or settings.get("data.directory")
    if elsewhere and "target_file" in recipe.data.args and "data.target_file" not in settings:
        raise RecipeError(f"--data {elsewhere}: of two aligned files; say --set data.target_file=FILE, too")
    if elsewhere and f"{split}_file" in recipe.data.args and f"data.{split}_file" not in settings:
        told = f"the run's {split} pairs lie in a file of their own; say --set data.{split}_file=FILE, or --split all"
        raise RecipeError(f"--data {elsewhere}: {told}")
    if elsewhere:  # the files of what was held out belong to the place before
        args = {name: value for name, value in recipe.data.args.items() if name not in HELD_OUT}
        recipe = replace(recipe, data=replace(recipe.data, args=args))
    asked = absolute_data(with_data(recipe, data).override(**settings))
    check("data", asked.data, DATASETS)
    if not same_place(asked, recipe) and "limit_train" in asked.data.args and "data.limit_train" not in settings:
        # It was to make training short.
        asked = asked.override(**{"data.limit_train": None})
    return asked


def _with_columns(recipe: Recipe, path: Path) -> Recipe:
    """The recipe that takes a table's columns by the names that the run's had, where it says nothing of them."""
    said = recipe.data.args.keys() & {"text", "label", "like"}
    if recipe.data.name != "text_table" or said or not (path / DATA_FILE).is_file():
        return recipe
    names = read_json(path / DATA_FILE).get(COLUMNS)
    return recipe.override(**{"data.like": names}) if names else recipe


def _is_known(path: Path, splits: Splits) -> bool:
    """Whether these are a run's own training or test examples, wherever they lie.

    Of what it learned from a part alone, or with a teacher, those for testing tell.
    """
    before = read_json(path / DATA_FILE) if (path / DATA_FILE).is_file() else {}
    return any(before.get(part) == values for part, values in fingerprints(splits, "train", "test").items())


def _is_own(path: Path, splits: Splits, split: str, other: bool, said: bool) -> bool:
    """Whether a split's examples are those of when the run began. Raises RunError if not, unless `other` may be.

    `said`: whether settings of the data were.
    """
    if not (path / DATA_FILE).is_file():
        return not other
    before = read_json(path / DATA_FILE)
    # Where the run had no such split, the others tell whether this one is taken from what it has learned.
    found = fingerprints(splits, *(() if split == "all" or split not in before else (split,)))
    changed = other_data(before, found)
    if changed and not other:
        why = "with these settings its data is other" if said else "its data has changed since it was trained"
        raise RunError(
            f"{path}: {why} ({changed}), so that it may know what it would be tested on; --data PLACE scores it on "
            "other data"
        )
    # Of files the names alone are compared: under the same ones another place may have others.
    sure = isinstance(splits.train, ArraySource) and found.keys() <= before.keys()
    return not changed and (sure or not other)


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


def _all(splits: Splits) -> Source:
    pairs = isinstance(splits.train, ArraySource) and "target" in splits.train.columns
    return all_pairs(splits) if pairs else joined(splits)


def numbered(source: Source, names: tuple[str, ...], wanted: tuple[str, ...]) -> Source:
    """The source with its labels, places in `names`, as places in `wanted`.

    Raises DataError for an example of a class that is not in `wanted`: no answer to it could be right.
    """
    if names == wanted:
        return source
    numbered_as = {name: number for number, name in enumerate(wanted)}
    # Another table may write 1 as 1.0.
    whole = {whole_number(name): number for number, name in enumerate(wanted)}
    # Or True as true, where only one class of the model's is written so.
    small = Counter(name.casefold() for name in wanted)
    folded = {name.casefold(): number for number, name in enumerate(wanted) if small[name.casefold()] == 1}
    places = [numbered_as.get(name, whole.get(whole_number(name), folded.get(name.casefold(), -1))) for name in names]
    numbers = np.array(places, np.int32)[source.labels]
    if (numbers < 0).any():
        first = int((numbers < 0).argmax())
        told = ", ".join(map(repr, wanted[:10])) + (", …" if len(wanted) > 10 else "")
        raise DataError(
            f"{source.name(first)}: class {names[source.labels[first]]!r} is none of the model's, {told}: "
            f"{(numbers < 0).sum()} of {len(numbers)} examples are of such classes"
        )
    changed = copy.copy(source)
    changed.labels = numbers
    return changed


def _list_bad(path: Path, bad: Mapping[str, str]) -> None:
    """Adds samples, and why they cannot be read, to a run's table of them."""
    listed = {}
    if path.exists():
        with open(path, encoding="utf-8", newline="") as file:
            listed = {row["sample"]: row["reason"] for row in csv.DictReader(file)}
    rows = [{"sample": name, "reason": why} for name, why in sorted({**listed, **bad}.items())]
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
