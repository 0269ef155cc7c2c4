"""Scores of a run or a shipped artifact on a split, and the report."""

import csv
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bigkeras.data import DATASETS
from bigkeras.data.bad import reason
from bigkeras.data.pipeline import ordered_rows
from bigkeras.data.source import Source
from bigkeras.metrics import bootstrap_interval, classification_metrics
from bigkeras.recipe import Choice, Recipe, RecipeError, known, load
from bigkeras.report import write_report
from bigkeras.run import RunError, check_run, read_labels, write_json
from bigkeras.tasks import load_preprocessor
from bigkeras.tasks.classification import ImageClassification

BATCH = 250
Predict = Callable[[tf.Tensor], tf.Tensor]
Mistake = tuple[np.ndarray, int, np.ndarray]


@dataclass(frozen=True)
class Predictions:
    """What a model says of a split, in the source's order, unreadable examples left out.

    labels: `(n,)`. probabilities: `(n, classes)`.
    worst: pixels, label and probabilities of the mistakes it was surest of.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    worst: tuple[Mistake, ...]
    bad: Mapping[str, str]


def _plain(predict: Predict) -> Predict:
    return predict


def _flips(predict: Predict) -> Predict:
    return lambda pixels: (predict(pixels) + predict(tf.reverse(pixels, [2]))) / 2


def _flips_and_shifts(predict: Predict) -> Predict:
    """Half from the picture and its mirror image, half from both moved by a pixel up-left and down-right."""
    both = _flips(predict)

    def apply(pixels: tf.Tensor) -> tf.Tensor:
        height, width = pixels.shape[1], pixels.shape[2]
        padded = tf.pad(pixels, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT")
        moved = both(padded[:, :height, :width]) + both(padded[:, 2:, 2:])
        return both(pixels) / 2 + moved / 4

    return apply


AVERAGES: dict[str, Callable[[Predict], Predict]] = {
    "none": _plain,
    "flips": _flips,
    "flips-shifts": _flips_and_shifts,
}


def evaluate(
    path: str | Path, *, split: str = "test", data: str | None = None, average: str = "none", report: bool = True
) -> dict[str, Any]:
    """The metrics of a run directory or a shipped model's folder on a split of its data set.

    `data`: another place for the data. `average`: average the answers over mirror images ("flips") and moves by one
    pixel ("flips-shifts"). A run's metrics.json and report.md get the result; a shipped model's files stay as they
    are. Raises RunError, RecipeError, DataError.
    """
    path = Path(path)
    known("average", average, AVERAGES)
    artifact = is_artifact(path)
    if not artifact:
        check_run(path)
    recipe = with_data(load(path), data)
    known("split", split, ("train", "validation", "test"))
    source = getattr(DATASETS[recipe.data.name](**recipe.data.args), split)
    if source is None:
        raise RunError(f"data {recipe.data.name} has no {split} split")
    task = ImageClassification(load_preprocessor(path), read_labels(path), ())
    predict = artifact_predictor(path, task.class_names) if artifact else run_predictor(path / "best.keras", task)
    predictions = predict_source(AVERAGES[average](predict), source, task)
    key = split if average == "none" else f"{split} {average}"
    metrics = {key: score(predictions, task.class_names)}
    if not artifact and report:
        _merge(path, recipe, metrics, predictions, task)
    return metrics


def score(predictions: Predictions, class_names: tuple[str, ...]) -> dict[str, Any]:
    """All metrics of classification, with a 95 % interval of the accuracy by bootstrap over the examples."""
    metrics = classification_metrics(predictions.labels, predictions.probabilities, class_names)
    correct = predictions.probabilities.argmax(1) == predictions.labels
    low, high = bootstrap_interval(correct, seed=0)
    return {**metrics, "accuracy_95": [low, high], "examples": len(correct), "unreadable": len(predictions.bad)}


def predict_source(predict: Predict, source: Source, task: ImageClassification, worst: int = 16) -> Predictions:
    """The model's answers for every example of a source; also the `worst` mistakes, those it was surest of."""
    bad: dict[str, str] = {}

    def on_bad(index: int) -> None:
        bad[source.name(index)] = reason(source, index, task.prepare)

    batch_size = min(BATCH, len(source))
    rows = ordered_rows(source, batch_size)
    labels: list[np.ndarray] = []
    probabilities: list[np.ndarray] = []
    mistakes: list[Mistake] = []
    for pixels, label, weight in task.dataset(source, rows, batch_size, False, on_bad):
        keep = weight.numpy() > 0
        answer = np.asarray(predict(pixels))[keep]
        truth = label.numpy()[keep]
        labels.append(truth)
        probabilities.append(answer)
        wrong = np.flatnonzero(answer.argmax(1) != truth)
        sure = wrong[np.argsort(-answer[wrong].max(1))][:worst]
        shown = pixels.numpy()[keep]
        mistakes += [(shown[i], int(truth[i]), answer[i]) for i in sure]
    mistakes.sort(key=lambda mistake: -float(mistake[2].max()))
    return Predictions(np.concatenate(labels), np.concatenate(probabilities), tuple(mistakes[:worst]), bad)


def run_predictor(model: Path, task: ImageClassification) -> Predict:
    """uint8 pixels `(batch, height, width, channels)` to probabilities `(batch, classes)`, by a saved Keras model."""
    import bigkeras.models  # noqa: F401  registers the layers

    network = keras.models.load_model(model, compile=False, safe_mode=True)
    return tf.function(lambda pixels: tf.nn.softmax(network(task.normalise(pixels), training=False)))


def artifact_predictor(directory: Path, class_names: tuple[str, ...]) -> Predict:
    """The same by a shipped SavedModel's signature `pixels`, its answers put back into the order of the classes."""
    version = max((p for p in directory.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    loaded = tf.saved_model.load(str(version))
    signature = loaded.signatures["pixels"]
    names = np.array([name.encode() for name in class_names])
    order = np.argsort(names)

    def predict(pixels: tf.Tensor) -> tf.Tensor:
        answer = signature(pixels=tf.cast(pixels, tf.uint8))
        places = order[np.searchsorted(names[order], answer["label"].numpy().astype(names.dtype))]
        probabilities = np.empty(places.shape, np.float32)
        np.put_along_axis(probabilities, places, answer["probability"].numpy(), 1)
        return tf.constant(probabilities)

    predict.loaded = loaded  # type: ignore[attr-defined]  # a signature dies with the object it came from
    return predict


def finish_run(directory: Path, recipe: Recipe, history: Any, bad: Mapping[str, str]) -> dict[str, Any]:
    """Scores the best model on the validation split and writes metrics.json and report.md of a finished run."""
    source = DATASETS[recipe.data.name](**recipe.data.args).validation
    task = ImageClassification(load_preprocessor(directory), read_labels(directory), ())
    metrics: dict[str, Any] = {"epochs": len(history), "unreadable": len(bad)}
    predictions = None
    if source is not None:
        predictions = predict_source(run_predictor(directory / "best.keras", task), source, task)
        metrics["validation"] = score(predictions, task.class_names)
    return _merge(directory, recipe, metrics, predictions, task)


def is_artifact(path: Path) -> bool:
    """Whether the folder holds an exported model: versions with a SavedModel."""
    return path.is_dir() and any(path.glob("[0-9]*/saved_model.pb"))


def with_data(recipe: Recipe, data: str | None) -> Recipe:
    """The recipe with its data at another place (the data function's `directory` or `file`)."""
    if data is None:
        return recipe
    function = DATASETS[known("data", recipe.data.name, DATASETS)]
    places = [n for n in ("directory", "file") if n in inspect.signature(function).parameters]
    if not places:
        raise RecipeError(f"--data {data}: data {recipe.data.name} is built in and takes no place")
    place = str(Path(data).expanduser().resolve())
    return replace(recipe, data=Choice(recipe.data.name, {**recipe.data.args, places[0]: place}))


def _merge(
    directory: Path, recipe: Recipe, metrics: dict[str, Any], predictions: Predictions | None, task: ImageClassification
) -> dict[str, Any]:
    path = directory / "metrics.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    merged = {**before, **metrics}
    with open(directory / "log.csv", encoding="utf-8", newline="") as file:
        history = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    write_report(directory, recipe=recipe, metrics=merged, history=history, predictions=predictions, task=task)
    write_json(path, merged)
    return merged
