"""A recipe's examples: its splits, made ready for its task, and their batches from any step on."""

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from bigkeras import checkpoint
from bigkeras.data import DATASETS
from bigkeras.data.files import expanded
from bigkeras.data.label_names import SEVERAL
from bigkeras.data.pipeline import distributed, ordered_plan, plan_rows
from bigkeras.data.plan import epoch_plan
from bigkeras.data.source import DataError, Splits, all_learned
from bigkeras.data.token_pairs import TokenPairSource
from bigkeras.decoding import EXTRA, RATIO
from bigkeras.recipe import HELD_OUT, PLACES, Choice, Recipe, RecipeError, known
from bigkeras.signals import Log
from bigkeras.tasks.task import Task


def place(recipe: Recipe) -> dict[str, Any]:
    """Where a recipe's data lies, as far as it says."""
    return {name: recipe.data.args.get(name) for name in PLACES}


def with_data(recipe: Recipe, data: str | None) -> Recipe:
    """The recipe with its data at another place (the data function's `directory` or `file`)."""
    if data is None:
        return absolute_data(recipe)
    if not data.strip():
        raise RecipeError("--data: an empty name: say where the data is")
    function = DATASETS[known("data", recipe.data.name, DATASETS)]
    places = [n for n in ("directory", "file") if n in inspect.signature(function).parameters]
    if not places:
        raise RecipeError(f"--data {data}: data {recipe.data.name} is built in and takes no place")
    args = {**recipe.data.args, places[0]: data}
    # So that the recipe.json of the run finds them from any folder.
    named = (places[0], "target_file", *HELD_OUT)
    found = {n: os.path.abspath(expanded(args[n])) for n in named if isinstance(args.get(n), str)}
    return replace(recipe, data=Choice(recipe.data.name, {**args, **found}))


def absolute_data(recipe: Recipe) -> Recipe:
    """The recipe with whole paths of its data, where there are such: so that it is repeated from any folder.

    A link stays one: the pictures of a table lie beside it.
    """
    args = recipe.data.args
    there = [name for name, value in place(recipe).items() if isinstance(value, str) and expanded(value).exists()]
    whole = {name: os.path.abspath(expanded(args[name])) for name in there}
    return replace(recipe, data=Choice(recipe.data.name, {**args, **whole}))


def recipe_splits(recipe: Recipe) -> Splits:
    """The splits that a recipe learns from and is scored on. Raises DataError."""
    for named in filter(None, place(recipe).values()):
        if isinstance(named, str) and expanded(named).is_fifo():
            raise DataError(f"{named}: a pipe, which can be read only once: save what it gives as a file")
    splits = DATASETS[recipe.data.name](**recipe.data.args)
    return all_learned(splits) if recipe.learn_validation else splits


def load_splits(recipe: Recipe) -> Splits:
    """The recipe's data set. Raises DataError for one that cannot be trained on."""
    splits = recipe_splits(recipe)
    where = next(filter(None, place(recipe).values()), f"data {recipe.data.name}")
    if len(splits.train) == 0:
        held_out = [part for part in ("validation", "test") if getattr(splits, part) is not None]
        told = f": all are for {' and '.join(held_out)}" if held_out else ""
        raise DataError(f"{where}: no training examples{told}")
    if len(splits.class_names) == 1 and recipe.task.name != "masked_language_model":  # which can be scored, though
        told = f"; {splits.found.removeprefix(f'{where}: ')}" if splits.found else ""
        left = f"; {len(splits.bad):,} left out, the first {splits.bad[0][0]}: {splits.bad[0][1]}" if splits.bad else ""
        raise DataError(f"{where}: only one class, {splits.class_names[0][:60]!r}: at least two are needed{told}{left}")
    if recipe.data.name == "text_table" and SEVERAL < len(splits.class_names) == splits.read - len(splits.bad):
        raise DataError(f"{where}: every example has a class of its own: is that the label?")
    for name in splits.class_names:
        if not name.strip() or "\n" in name or "\r" in name:
            raise DataError(f"class {name!r}: the name of a class is one line of text: labels.txt has one a line")
    missing = np.setdiff1d(np.arange(len(splits.class_names)), splits.train.labels)
    if len(missing):
        name = splits.class_names[missing[0]]
        raise DataError(f"class {name!r} has no example to train on: all that it has are for validation or testing")
    return splits


def ready(task: Task, splits: Splits, log: Log) -> Splits:
    """What `task.ready` makes of the splits; says how much that leaves out."""
    made = task.ready(splits)
    left_out = made.ignored[len(splits.ignored) :]
    if left_out:
        name, why = left_out[0]
        log.say_once(f"{len(left_out):,} are not learned from, the first {name}: {why}; all are in bad_samples.csv")
    if isinstance(made.train, TokenPairSource):
        source, target = made.train.lengths.T
        longer = np.flatnonzero(target > RATIO * source + EXTRA)
        if len(longer):
            told = f"a translation gets {RATIO} for each of its source, and {EXTRA} more, at most"
            log.say_once(
                f"{len(longer):,} of {len(target):,} targets have more subwords than a translation ever has ({told}), "
                f"the first {made.train.name(int(longer[0]))}"
            )
    return made


def datasets(
    recipe: Recipe,
    splits: Splits,
    task: Task,
    position: checkpoint.Position,
    on_bad: Callable,
    strategy: tf.distribute.Strategy,
) -> tuple[Any, Any]:
    """The training batches from `position` to the end of the last epoch, and the validation batches or None."""
    lengths = task.lengths(splits.train)
    plan = functools.partial(_plan, splits.train.labels, lengths, recipe.batch_size, recipe.seed, recipe.balance)
    rows = plan_rows(plan, range(position.epoch, recipe.epochs), skip=position.step)
    note = functools.partial(on_bad, splits.train)
    make = functools.partial(task.dataset, splits.train, training=True, on_bad=note)
    train = distributed(strategy, rows, recipe.batch_size, make)
    if splits.validation is None:
        return train, None
    # Keras goes on with one iterator at every evaluation, so the data never ends.
    ordered = ordered_plan(splits.validation, recipe.batch_size, task.lengths(splits.validation))
    rows = plan_rows(lambda _: ordered, range(1)).repeat()
    note = functools.partial(on_bad, splits.validation)
    make = functools.partial(task.dataset, splits.validation, training=False, on_bad=note)
    return train, distributed(strategy, rows, recipe.batch_size, make)


def _plan(labels: np.ndarray, lengths: np.ndarray | None, batch_size: int, seed: int, balance: str, epoch: int) -> Any:
    return epoch_plan(labels, batch_size=batch_size, seed=seed, epoch=epoch, balance=balance, lengths=lengths)
