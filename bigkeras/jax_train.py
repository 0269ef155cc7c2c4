"""Training on Keras' JAX backend (KERAS_BACKEND=jax): stock `fit`, on one device or on a mesh of devices.

Keras' own fit is right there, so nothing of `step.py` is needed: the same recipes, plans and batches go in, as arrays.
What is found on the mesh is saved whole, and scored by a process on TensorFlow, as any other run.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from bigkeras import checkpoint, runtime
from bigkeras.control import write_model
from bigkeras.data.plan import class_weights, steps_per_epoch
from bigkeras.data.source import DataError, Source, Splits
from bigkeras.evaluation import finish_run
from bigkeras.jax_averages import Averaging
from bigkeras.layouts import place_optimizer, set_distribution
from bigkeras.metrics import NO_SCORE, epoch_score, had_enough
from bigkeras.models import MODELS, build
from bigkeras.optimization import layer_rates, make_optimizer, scale_rates
from bigkeras.progress import progress_bar
from bigkeras.recipe import Recipe, RecipeError, check_smoothing
from bigkeras.run import load, read_json, write_csv, write_json
from bigkeras.signals import Log
from bigkeras.tasks import LOSSES, TASKS
from bigkeras.tasks.task import Task
from bigkeras.transfer import freeze, inherited, start_from

MONITORS = ("val_accuracy", "val_loss")  # what stock fit logs


def fit_on_jax(
    recipe: Recipe, directory: Path, splits: Splits, model: Callable | None, machine: runtime.Machine, log: Log
) -> dict[str, Any]:
    """Trains a recipe that `check_on_jax` lets pass; gives its metrics. A killed run goes on from its last epoch."""
    from bigkeras.train import datasets, describe

    task = TASKS[recipe.task.name](splits, recipe.augmentation, **inherited(recipe, splits.languages))
    if task.step_layers(recipe.seed):
        raise RecipeError("KERAS_BACKEND=jax: this augmentation is part of TensorFlow's step; take flip and crop")
    splits = task.ready(splits)
    describe(directory, task, splits, {"strategy": runtime.choose_on_jax(machine), "backend": "jax"})
    with runtime.precision(recipe.precision):
        network = _network(recipe, task, splits, model, machine)
    position = checkpoint.Position()
    variables = [*network.variables, *network.optimizer.variables]
    restored = checkpoint.restore(directory / "checkpoints", variables)
    if restored:
        position, _ = restored
        log.say(f"going on at epoch {position.epoch + 1}")
    bad: dict[str, str] = {}

    def on_bad(source: Source, index: int) -> None:
        bad[source.name(index)] = "cannot be read"

    train, validation = datasets(recipe, splits, task, position, on_bad, tf.distribute.get_strategy())
    steps = _steps(recipe, splits.train, task, recipe.balance)
    saver = _Saver(recipe, directory, position, variables, log, steps)
    network.fit(
        _arrays(train, task),
        epochs=position.epoch if saver.enough() else recipe.epochs,
        initial_epoch=position.epoch,
        steps_per_epoch=steps,
        validation_data=None if validation is None else _arrays(validation, task),
        validation_steps=None if splits.validation is None else _steps(recipe, splits.validation, task),
        callbacks=saver.callbacks(),
        shuffle=False,  # the plan has shuffled
        verbose=0,
    )
    if bad:
        name = next(iter(bad))
        raise DataError(f"{len(bad)} examples cannot be read, the first: {name}")
    saver.write("last.keras")
    if not (directory / "best.keras").exists():
        saver.write("best.keras")
    write_json(directory / "history.json", list(saver.history))
    return _scored(directory)


def check_on_jax(recipe: Recipe) -> None:
    """Raises RecipeError for what only TensorFlow's step does."""
    missing = {
        "model": recipe.model.name == "auto" and "auto",
        "micro_batches": recipe.micro_batches > 1 and recipe.micro_batches,
        "l1": recipe.l1,
        "l2": recipe.l2,
        "lora": recipe.lora,
        "monitor": recipe.monitor not in MONITORS and recipe.monitor,
        "precision": recipe.precision == "mixed_float16" and recipe.precision,
    }
    for name, value in missing.items():
        if value:
            raise RecipeError(f"KERAS_BACKEND=jax: {name}={value} is for TensorFlow only; unset KERAS_BACKEND")


def _network(
    recipe: Recipe, task: Task, splits: Splits, model: Callable | None, machine: runtime.Machine
) -> keras.Model:
    """The compiled model, laid out over the devices."""
    function = model or MODELS[recipe.model.name]

    def make() -> keras.Model:
        keras.utils.set_random_seed(recipe.seed)
        return build(function, task.model_arguments, recipe.model.args)

    set_distribution(make, machine)
    network = make()
    for layer in network.layers:
        if hasattr(layer, "adapt") or hasattr(layer, "adapt_labelled"):
            raise RecipeError(f"KERAS_BACKEND=jax: model {recipe.model.name} adapts to the data on TensorFlow only")
    if recipe.start_from:
        start_from(recipe.start_from, network, task.preprocessor, splits.class_names)
    if recipe.freeze_until:
        freeze(network, recipe.freeze_until)
    optimizer = make_optimizer(recipe, _steps(recipe, splits.train, task, recipe.balance))
    optimizer.global_clipnorm = recipe.clip_norm
    if recipe.layer_decay != 1:
        scale_rates(optimizer, layer_rates(network, recipe.layer_decay))
    optimizer.build(network.trainable_variables)
    if recipe.ema:
        network = Averaging(inputs=network.inputs, outputs=network.outputs, name=network.name)
    network.compile(optimizer=optimizer, loss=_loss(recipe, splits, task), weighted_metrics=["accuracy"])
    if recipe.ema:
        network.begin(recipe.ema)
    place_optimizer(optimizer)
    return network


def _loss(recipe: Recipe, splits: Splits, task: Task) -> keras.losses.Loss:
    """As ours: the sum over the batch divided by its valid examples or tokens."""
    reduction = "mean_with_sample_weight"
    if not task.class_names:
        return TokenCrossEntropy(reduction=reduction, **recipe.loss.args)
    loss = LOSSES[recipe.task.name][recipe.loss.name](**recipe.loss.args)
    loss.reduction = reduction
    if recipe.balance != "class_weights":
        return loss
    return ClassWeighted(loss, class_weights(splits.train.labels, len(task.class_names)), reduction=reduction)


class ClassWeighted(keras.losses.Loss):
    """A loss of one-hot or mixed targets, times the weight of their class; the batch's mean is not divided by it."""

    def __init__(self, loss: keras.losses.Loss, weights: np.ndarray, **kwargs):
        super().__init__(**kwargs)
        self.inner, self.class_weights = loss, weights

    def call(self, y_true, y_pred):
        """`(batch,)` of targets and logits `(batch, classes)`."""
        return self.inner.call(y_true, y_pred) * ops.matmul(ops.cast(y_true, "float32"), self.class_weights)


class TokenCrossEntropy(keras.losses.Loss):
    """What `tasks.cross_entropy.token_cross_entropy` computes, by Keras' operations, whose gradients XLA fuses."""

    def __init__(self, label_smoothing: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        check_smoothing(label_smoothing)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        """Nats `(batch, length)` of int labels and of logits `(batch, length, vocabulary)`."""
        logits = ops.cast(y_pred, "float32")
        chosen = ops.take_along_axis(logits, ops.cast(y_true, "int32")[..., None], axis=-1)[..., 0]
        smoothing = self.label_smoothing * (chosen - ops.mean(logits, axis=-1))
        return ops.logsumexp(logits, axis=-1) - chosen + smoothing


def _steps(recipe: Recipe, source: Source, task: Task, balance: str = "none") -> int:
    return steps_per_epoch(source.labels, recipe.batch_size, balance, task.lengths(source))


def _arrays(batches: Any, task: Task) -> Any:
    """The batches of the task with normalised inputs, and one-hot labels where it has classes."""
    classes = len(task.class_names)

    def prepared(x: Any, label: Any, weight: Any) -> tuple[Any, Any, Any]:
        inputs = task.normalise(x)
        inputs = tuple(inputs) if isinstance(inputs, list) else inputs
        return inputs, tf.one_hot(label, classes) if classes else label, weight

    return batches.map(prepared)


class _Saver(keras.callbacks.Callback):
    """The log, the best model and a checkpoint after every epoch."""

    def __init__(
        self,
        recipe: Recipe,
        directory: Path,
        position: checkpoint.Position,
        variables: list[Any],
        log: Log,
        steps: int,
    ):
        super().__init__()
        self.recipe, self.directory, self.variables, self.log, self.steps = recipe, directory, variables, log, steps
        self.history = list(position.history)

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """This one, and a progress bar."""
        if self.log.quiet:
            return [self]
        done = len(self.history) * self.steps
        return [self, progress_bar(self.recipe.epochs, self.steps, self.recipe.batch_size, done=done)]

    def enough(self) -> bool:
        """Whether the recipe's patience has run out."""
        return had_enough(self.history, self.recipe.monitor, self.recipe.patience)

    def write(self, name: str) -> None:
        """The network as `.keras`, with averaged weights where the recipe has `ema`."""
        averaging = self.model if isinstance(self.model, Averaging) else None
        if averaging is None:
            write_model(self.model, self.directory / name)
            return
        averaging.swap_averages()
        try:
            # Without the class that averages.
            network = keras.Model(averaging.inputs, averaging.outputs, name=averaging.name)
            write_model(network, self.directory / name)
        finally:
            averaging.swap_averages()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        # Keras holds the state elsewhere while it fits.
        self.model.jax_state_sync()
        # Keras names the metrics of weighted batches otherwise.
        named = {key.replace("weighted_", ""): float(value) for key, value in (logs or {}).items()}
        if not np.isfinite(named["loss"]):
            raise RecipeError(f"the loss is {named['loss']}: try a lower --set optimizer.learning_rate")
        row = {"epoch": epoch + 1, **named}
        best = max([epoch_score(one, self.recipe.monitor) for one in self.history], default=NO_SCORE)
        if epoch_score(row, self.recipe.monitor) > best:
            self.write("best.keras")
        self.history.append(row)
        write_csv(self.directory / "log.csv", self.history, list(row))
        self.model.stop_training = self.enough()
        position = checkpoint.Position(epoch + 1, 0, tuple(self.history))
        checkpoint.save(self.directory / "checkpoints", position, epoch + 1, checkpoint.values(self.variables))


def _scored(directory: Path) -> dict[str, Any]:
    """The metrics of the run, by this module in a process of its own on TensorFlow."""
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"}
    root = str(Path(__file__).resolve().parents[1])
    environment["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "bigkeras.jax_train", str(directory.resolve())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise DataError(f"{directory}: trained, but not scored: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return json.loads(done.stdout)


def _finish(directory: Path) -> dict[str, Any]:
    from bigkeras.train import load_splits

    recipe = load(directory)
    return finish_run(directory, recipe, load_splits(recipe).validation, read_json(directory / "history.json"), {})


if __name__ == "__main__":
    print(json.dumps(_finish(Path(sys.argv[1])), ensure_ascii=False))
