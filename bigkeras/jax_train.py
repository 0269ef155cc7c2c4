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
from bigkeras.control import Diverged
from bigkeras.data.plan import ROWS, class_weights, steps_per_epoch
from bigkeras.data.source import DataError, Source, Splits
from bigkeras.evaluation import finish_run
from bigkeras.jax_control import PLAIN_LOSS, TRAINED_LOSS, JaxControl
from bigkeras.jax_step import JaxStep
from bigkeras.layouts import data_devices, place_optimizer, set_distribution
from bigkeras.models import MODELS, build
from bigkeras.optimization import layer_rates, make_optimizer, scale_rates
from bigkeras.recipe import Recipe, RecipeError, check_smoothing
from bigkeras.run import load
from bigkeras.signals import Interrupted, Log, signals
from bigkeras.tasks import LOSSES, TASKS
from bigkeras.tasks.task import Task
from bigkeras.transfer import freeze, inherited, start_from
from bigkeras.workers import Workers

MONITORS = ("val_accuracy", "val_loss")  # what stock fit logs


def fit_on_jax(
    recipe: Recipe, directory: Path, splits: Splits, model: Callable | None, machine: runtime.Machine, log: Log
) -> dict[str, Any]:
    """Trains a recipe that `check_on_jax` lets pass, or goes on where it stopped; gives its metrics.

    Raises what `train.fit` raises.
    """
    from bigkeras.train import describe

    _check_divides(recipe, machine)
    task = TASKS[recipe.task.name](splits, recipe.augmentation, **inherited(recipe, splits.languages))
    if task.step_layers(recipe.seed):
        raise RecipeError("KERAS_BACKEND=jax: this augmentation is part of TensorFlow's step; take flip and crop")
    splits = task.ready(splits)
    describe(directory, task, splits, {"strategy": runtime.choose_on_jax(machine), "backend": "jax"})
    with runtime.precision(recipe.precision):
        step: Any = _step(recipe, task, splits, model, machine)
    with signals() as asked:
        workers = Workers(tf.distribute.get_strategy())
        control = JaxControl(recipe, directory, step, splits, task, log, asked, machine, workers)
        _train(recipe, step, splits, task, control)
    return _scored(directory, control.position)


def _train(recipe: Recipe, step: Any, splits: Splits, task: Task, control: JaxControl) -> None:
    """Epoch after epoch from the last checkpoint on; what it leaves behind where it ends before its time."""
    from bigkeras.train import datasets

    def data() -> tuple[Any, Any]:
        position, strategy = control.position, tf.distribute.get_strategy()
        both = datasets(recipe, splits, task, position, control.on_bad, strategy)
        train, validation = (None if batches is None else _arrays(batches, task) for batches in both)
        return train, validation

    # A checkpoint holds the metrics, too, which Keras makes when it sees a batch.
    step._symbolic_build(data_batch=next(iter(data()[0].take(1).as_numpy_iterator())))
    restored = checkpoint.restore(control.directory / "checkpoints", step.state())
    if restored:
        position, broken = restored
        control.resume(position)
        passed_over = "".join(f"; {name} is broken" for name in broken)
        control.log.say(f"going on at epoch {position.epoch + 1}, step {position.step}{passed_over}")
    steps = None if splits.validation is None else _steps(recipe, splits.validation, task)
    try:
        while control.position.epoch < recipe.epochs and not control.finished:
            train, validation = data()
            _fit(step, control, train, validation, steps, recipe.epochs)
    except (Interrupted, Diverged, DataError) as error:
        control.leave(error)
        raise
    except checkpoint.NotFinite as error:
        raise control.diverged(f"{error} is not finite") from None
    control.save_last()


def _fit(
    step: Any, control: JaxControl, train: Any, validation: Any, validation_steps: int | None, epochs: int
) -> None:
    """The rest of an epoch that was left, or all epochs that remain."""
    epoch, done = control.position.epoch, control.position.step
    callbacks = control.callbacks(train)
    if done == control.steps:  # it was left in its validation
        called = keras.callbacks.CallbackList(callbacks, model=step)
        logs = step.get_metrics_result()
        scores = step.evaluate(validation, steps=validation_steps, callbacks=called, verbose=0, return_dict=True)
        called.on_epoch_end(epoch, {**logs, **{f"val_{name}": score for name, score in scores.items()}})
        return
    step.fit(
        train,
        epochs=epoch + 1 if done else epochs,
        initial_epoch=epoch,
        steps_per_epoch=control.steps - done,
        validation_data=validation,
        validation_steps=validation_steps,
        callbacks=callbacks,
        shuffle=False,  # the plan has shuffled
        verbose=0,
    )


def _check_divides(recipe: Recipe, machine: runtime.Machine) -> None:
    """Raises RecipeError for batches that the devices cannot share evenly."""
    devices = data_devices(machine)
    # Of pairs, batch_size counts tokens; their number in a batch is a multiple of ROWS.
    if recipe.task.name == "translation":
        if ROWS % devices:
            raise RecipeError(f"batches of {ROWS} pairs, or a multiple, do not divide over {devices} devices")
    elif recipe.batch_size % devices:
        near = max(1, recipe.batch_size // devices) * devices
        raise RecipeError(
            f"batch_size={recipe.batch_size} does not divide over {devices} devices: --set batch_size={near}"
        )


def check_on_jax(recipe: Recipe) -> None:
    """Raises RecipeError for what only TensorFlow's step does."""
    missing = {
        "model": recipe.model.name == "auto" and "auto",
        "micro_batches": recipe.micro_batches > 1 and recipe.micro_batches,
        "lora": recipe.lora,
        "teacher": recipe.teacher,
        "monitor": recipe.monitor not in MONITORS and recipe.monitor,
        "precision": recipe.precision == "mixed_float16" and recipe.precision,
    }
    for name, value in missing.items():
        if value:
            raise RecipeError(f"KERAS_BACKEND=jax: {name}={value} is for TensorFlow only; unset KERAS_BACKEND")


def _step(recipe: Recipe, task: Task, splits: Splits, model: Callable | None, machine: runtime.Machine) -> JaxStep:
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
    if recipe.l1 or recipe.l2:
        _penalise(network, recipe.l1, recipe.l2)
    step = JaxStep(inputs=network.inputs, outputs=network.outputs, name=network.name)
    loss = _loss(recipe, splits, task)
    plain = loss.inner if isinstance(loss, ClassWeighted) else loss
    # Keras' own mean of the loss counts what only fills the last batch, and penalties.
    losses = {TRAINED_LOSS: loss, PLAIN_LOSS: plain}
    means = [keras.metrics.MeanMetricWrapper(one.call, name=name) for name, one in losses.items()]
    step.compile(optimizer=optimizer, loss=loss, weighted_metrics=["accuracy", *means])
    step.begin(network, recipe.ema)
    place_optimizer(optimizer)
    return step


def _penalise(network: keras.Model, l1: float, l2: float) -> None:
    """The L1 and L2 norms of all kernels and embeddings, as `step.penalty` adds them to the loss."""
    for variable in network.trainable_variables:
        if len(variable.shape) > 1:
            variable.regularizer = keras.regularizers.L1L2(l1=l1, l2=l2)


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


def _scored(directory: Path, position: checkpoint.Position) -> dict[str, Any]:
    """The metrics of the run, by this module in a process of its own on TensorFlow, which reads history and bad."""
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"}
    root = str(Path(__file__).resolve().parents[1])
    environment["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "bigkeras.jax_train", str(directory.resolve())]
    told = json.dumps([position.history, position.bad])
    done = subprocess.run(command, env=environment, input=told, capture_output=True, text=True)
    if done.returncode:
        raise DataError(f"{directory}: trained, but not scored: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return json.loads(done.stdout)


def _finish(directory: Path, history: list[dict[str, Any]], bad: dict[str, str]) -> dict[str, Any]:
    from bigkeras.train import load_splits

    recipe = load(directory)
    return finish_run(directory, recipe, load_splits(recipe).validation, history, bad)


if __name__ == "__main__":
    print(json.dumps(_finish(Path(sys.argv[1]), *json.load(sys.stdin)), ensure_ascii=False))
