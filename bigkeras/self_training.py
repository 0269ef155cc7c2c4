"""Self-training: examples without labels, learned as an earlier run answers them where it is sure."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from bigkeras.data.files import expanded
from bigkeras.data.source import ArraySource, Splits, joined
from bigkeras.predictions import Predict, predict_source, run_predictor
from bigkeras.recipe import Recipe, RecipeError
from bigkeras.run import RunError, check_run, read_labels
from bigkeras.tasks import load_task
from bigkeras.tasks.task import Task


def taught(recipe: Recipe, splits: Splits) -> Splits:
    """Splits whose training part also has the unlabelled examples that `recipe.teacher` is sure of, as it answers them.

    Sure is what has a probability of at least `recipe.teacher_sure`. Raises RecipeError for data without unlabelled
    examples, for a run that is not there or has other classes, and where it is sure of none.
    Source: Yarowsky 1995, "Unsupervised word sense disambiguation rivaling supervised methods", one round of it.
    """
    told = f"teacher={recipe.teacher}"
    unlabelled = splits.unlabelled
    if unlabelled is None:
        raise RecipeError(f"{told}: data {recipe.data.name} has no unlabelled examples, as imdb_with_unlabelled has")
    try:
        directory = check_run(expanded(str(recipe.teacher)))
    except RunError as error:
        raise RecipeError(f"teacher: {error}; it is an earlier run on the same classes: train that first") from None
    task = load_task(directory, read_labels(directory))
    if tuple(task.class_names) != tuple(splits.class_names):
        raise RecipeError(f"{told}: its classes are {', '.join(task.class_names)}, not {', '.join(splits.class_names)}")
    predict = (_on_jax if keras.backend.backend() == "jax" else run_predictor)(directory / "best.keras", task)
    answers = predict_source(predict, unlabelled, task, worst=0).probabilities
    sure = np.flatnonzero(answers.max(1) >= recipe.teacher_sure)
    if not len(sure):
        raise RecipeError(
            f"{told}: is sure of none of {len(unlabelled):,} examples; teacher_sure={recipe.teacher_sure}"
        )
    columns = {key: column[sure] for key, column in unlabelled.columns.items()}
    learned = ArraySource(columns, answers[sure].argmax(1), [unlabelled.name(int(i)) for i in sure])
    both = joined(Splits(splits.train, learned, None, splits.class_names))
    found = f"{len(sure):,} of {len(unlabelled):,} unlabelled examples learned as {directory} answers them"
    return replace(splits, train=both, labelled=splits.train, found="; ".join(filter(None, (splits.found, found))))


def _on_jax(model: Path, task: Task) -> Predict:
    """What `run_predictor` gives, on Keras' JAX backend."""
    import bigkeras.models  # noqa: F401  registers the layers

    network = keras.models.load_model(model, compile=False, safe_mode=True)
    return lambda x: tf.nn.softmax(network.predict_on_batch(tf.nest.map_structure(np.asarray, task.normalise(x))))
