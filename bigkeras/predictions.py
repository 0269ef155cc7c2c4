"""What a model says of the examples of a split: of a run's Keras model, or of a shipped artifact."""

import contextlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bigkeras.data.bad import reason
from bigkeras.data.pipeline import ordered_plan, plan_rows
from bigkeras.data.source import DataError, Source
from bigkeras.metrics import worst_mistakes
from bigkeras.recipe import Recipe
from bigkeras.run import RunError, readable, saved_version
from bigkeras.tasks.task import Task

BATCH = 250
# To score an example takes less memory than to train on it: no gradients, and one layer's activations at a time.
LIGHTER = 4
Predict = Callable[[tf.Tensor], tf.Tensor]
Mistake = tuple[Any, int, np.ndarray]


@dataclass(frozen=True)
class Predictions:
    """What a model says of a split, in the source's order, unreadable examples left out.

    labels: `(n,)`. probabilities: `(n, classes)`.
    worst: the mistakes it was surest of: pixels or text, label and probabilities.
    bad: name and reason of each example that cannot be read.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    worst: tuple[Mistake, ...]
    bad: tuple[tuple[str, str], ...]


def _plain(predict: Predict) -> Predict:
    return predict


def _flips(predict: Predict) -> Predict:
    return lambda pixels: (predict(pixels) + predict(tf.reverse(pixels, [2]))) / 2


def _shifts(predict: Predict) -> Predict:
    """Half from the picture, half from it moved by a pixel up-left and down-right."""

    def apply(pixels: tf.Tensor) -> tf.Tensor:
        height, width = pixels.shape[1], pixels.shape[2]
        padded = tf.pad(pixels, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT")
        moved = predict(padded[:, :height, :width]) + predict(padded[:, 2:, 2:])
        return predict(pixels) / 2 + moved / 4

    return apply


AVERAGES: dict[str, Callable[[Predict], Predict]] = {
    "none": _plain,
    "flips": _flips,
    "shifts": _shifts,
    "flips-shifts": lambda predict: _shifts(_flips(predict)),
}


def scored_at_once(recipe: Recipe) -> int:
    """How many examples there is memory for where the recipe's model was trained."""
    return min(BATCH, max(1, LIGHTER * recipe.batch_size // recipe.micro_batches))


def predict_source(predict: Predict, source: Source, task: Task, worst: int = 16, batch: int = BATCH) -> Predictions:
    """The model's answers for every example of a source; also the `worst` mistakes, those it was surest of.

    Raises DataError where no example can be read.
    """
    bad: dict[int, tuple[str, str]] = {}

    def on_bad(index: int) -> None:
        bad[index] = source.name(index), reason(source, index, task.prepare)

    source = task.opened(source)
    batch_size = min(batch, len(source))
    plan = ordered_plan(source, batch_size, task.lengths(source))
    dataset = task.dataset(source, plan_rows(lambda _: plan, range(1)), batch_size, False, on_bad)
    places: list[np.ndarray] = []
    answers: list[np.ndarray] = []
    for index, (x, _, weight) in zip(plan.indices, dataset, strict=True):
        keep = weight.numpy() > 0
        places.append(index[keep])
        answers.append(np.asarray(predict(x))[keep])
    seen = np.concatenate(places)
    if not len(seen):
        name, why = next(iter(bad.values()))
        raise DataError(f"none of {len(source):,} examples can be read; the first, {name}: {why}")
    order = np.argsort(seen)
    seen, probabilities = seen[order], np.concatenate(answers)[order]
    broken = np.flatnonzero(~np.isfinite(probabilities).all(1))
    if len(broken):
        told = f"{len(broken):,} of {len(seen):,} examples, such as {source.name(int(seen[broken[0]]))}"
        raise RunError(f"the model's answers to {told} are no numbers: train with another precision, or a lower rate")
    labels = source.labels[seen]
    mistakes = [
        (task.shown(source, int(seen[i])), int(labels[i]), probabilities[i])
        for i in worst_mistakes(labels, probabilities, worst)
    ]
    return Predictions(labels, probabilities, tuple(mistakes), tuple(bad.values()))


def run_predictor(model: Path, task: Task) -> Predict:
    """A batch of the task's datasets to probabilities `(batch, classes)`, by a saved Keras model."""
    network = loaded_model(model)
    # Reduced, so that batches of other lengths do not each trace it anew.
    return tf.function(lambda x: tf.nn.softmax(network(task.normalise(x), training=False)), reduce_retracing=True)


def loaded_model(path: Path) -> keras.Model:
    """A run's saved Keras model. Raises RunError where it cannot be read."""
    import bigkeras.models  # noqa: F401  registers the layers

    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile) as error:
        raise RunError(f"{path}: cannot be read as a Keras model: {str(error).splitlines()[0]}") from None


def loaded_artifact(directory: Path) -> Any:
    """The SavedModel of an artifact's highest version. Raises RunError where it cannot be loaded."""
    version = saved_version(directory)
    if version is None:
        raise RunError(f"{directory}: no folder of a version with a saved_model.pb in it")
    try:
        with readable(version) as place:
            return tf.saved_model.load(str(place))
    except (tf.errors.OpError, OSError, ValueError, LookupError, TypeError) as error:
        raise RunError(f"{version}: cannot be loaded: {' '.join(str(error).split())[:300]}") from None


def artifact_predictor(directory: Path, task: Task) -> Predict:
    """The same by a shipped SavedModel's signature `pixels` or `tokens`, the answers in the order of the classes."""
    if task.kind == "text":
        with contextlib.suppress(ImportError):
            import tensorflow_text  # noqa: F401  registers the operations that the graph may have
    loaded = loaded_artifact(directory)
    key = "pixels" if task.kind == "image" else "tokens"
    signature = loaded.signatures[key]
    names = np.array([name.encode() for name in task.class_names])
    order = np.argsort(names)

    def predict(x: tf.Tensor) -> tf.Tensor:
        answer = signature(**{key: tf.cast(x, tf.uint8) if task.kind == "image" else x})
        if len(answer["label"]) and set(answer["label"][0].numpy()) != set(names.tolist()):
            raise RunError(f"{directory}: its labels.txt has other names than the model gives")
        places = order[np.searchsorted(names[order], answer["label"].numpy().astype(names.dtype))]
        probabilities = np.empty(places.shape, np.float32)
        np.put_along_axis(probabilities, places, answer["probability"].numpy(), 1)
        return tf.constant(probabilities)

    predict.loaded = loaded  # type: ignore[attr-defined]  # a signature dies with the object it came from
    return predict
