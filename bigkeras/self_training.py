"""Self-training: examples without labels, learned as an earlier run answers them where it is sure."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bigkeras.data.files import expanded
from bigkeras.data.fingerprint import fingerprint
from bigkeras.data.source import ArraySource, Splits, joined
from bigkeras.predictions import Predict, loaded_model, predict_source, run_predictor, scored_at_once
from bigkeras.recipe import Recipe, RecipeError, load
from bigkeras.run import RunError, check_run, has_learned, model_hash, read_json, read_labels, write_json
from bigkeras.tasks import load_task
from bigkeras.tasks.task import Task

ANSWERS = "taught.json"  # of a run directory


def taught(
    recipe: Recipe, splits: Splits, directory: Path | None = None, by_chief: Callable = lambda look: look()
) -> Splits:
    """Splits whose training part also has the unlabelled examples that `recipe.teacher` is sure of, as it answers them.

    Sure is what has a probability of at least `recipe.teacher_sure`. The chief keeps the answers in `directory`: a run
    that goes on elsewhere, and other workers, would round some to the other side of it. Raises RecipeError for data
    without unlabelled examples, for a run that is not there or has other classes, and where it is sure of none.
    Source: Yarowsky 1995, "Unsupervised word sense disambiguation rivaling supervised methods", one round of it.
    """
    told = f"teacher={recipe.teacher}"
    unlabelled = splits.unlabelled
    if unlabelled is None:
        raise RecipeError(f"{told}: data {recipe.data.name} has no unlabelled examples, as imdb_with_unlabelled has")
    kept = by_chief(lambda: _kept(recipe, splits.class_names, unlabelled, directory))
    places = np.array(kept["places"])
    columns = {key: column[places] for key, column in unlabelled.columns.items()}
    learned = ArraySource(columns, kept["labels"], [unlabelled.name(int(i)) for i in places])
    both = joined(Splits(splits.train, learned, None, splits.class_names))
    found = f"{len(places):,} of {len(unlabelled):,} unlabelled examples learned as {recipe.teacher} answers them"
    return replace(splits, train=both, labelled=splits.train, found="; ".join(filter(None, (splits.found, found))))


def _kept(
    recipe: Recipe, class_names: Sequence[str], unlabelled: ArraySource, directory: Path | None
) -> dict[str, Any]:
    """The `places` of the unlabelled examples that are learned and their `labels`: as the run began, or new ones."""
    path = None if directory is None else directory / ANSWERS
    texts = fingerprint(unlabelled)
    learned = path is not None and has_learned(path.parent)
    asked: dict[str, Any] = {"unlabelled": texts}
    if not learned:  # else it goes on with its answers, whoever gave them
        model = model_hash(expanded(str(recipe.teacher)))
        asked |= {"model": model, "teacher_sure": recipe.teacher_sure, "classes": list(class_names)}
    if path and path.exists():
        kept = read_json(path)
        if {key: kept.get(key) for key in asked} == asked:
            return kept
    kept = {**asked, **_answers(recipe, class_names, unlabelled)}
    if path and not learned:
        write_json(path, kept)
    return kept


def _answers(recipe: Recipe, class_names: Sequence[str], unlabelled: ArraySource) -> dict[str, list[int]]:
    told = f"teacher={recipe.teacher}"
    try:
        directory = check_run(expanded(str(recipe.teacher)))
    except RunError as error:
        raise RecipeError(f"teacher: {error}; it is an earlier run on the same classes: train that first") from None
    task = load_task(directory, read_labels(directory))
    if tuple(task.class_names) != tuple(class_names):
        raise RecipeError(f"{told}: its classes are {', '.join(task.class_names)}, not {', '.join(class_names)}")
    predict = (_on_jax if keras.backend.backend() == "jax" else run_predictor)(directory / "best.keras", task)
    batch = scored_at_once(load(directory))
    answers = predict_source(predict, unlabelled, task, worst=0, batch=batch).probabilities
    sure = np.flatnonzero(answers.max(1) >= recipe.teacher_sure)
    if not len(sure):
        raise RecipeError(
            f"{told}: is sure of none of {len(unlabelled):,} examples; teacher_sure={recipe.teacher_sure}"
        )
    return {"places": sure.tolist(), "labels": answers[sure].argmax(1).tolist()}


def _on_jax(model: Path, task: Task) -> Predict:
    """What `run_predictor` gives, on Keras' JAX backend."""
    network = loaded_model(model)
    return lambda x: tf.nn.softmax(network.predict_on_batch(tf.nest.map_structure(np.asarray, task.normalise(x))))
