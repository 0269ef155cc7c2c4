"""Training on Keras' JAX backend (KERAS_BACKEND=jax): stock `fit`, on one device or on a mesh of devices.

Keras' own fit is right there, so nothing of `step.py` is needed: the same recipes, plans and batches go in, as arrays.
What is found on the mesh is saved whole, and scored by a process on TensorFlow, as any other run.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from bigkeras import checkpoint, jax_scores, runtime
from bigkeras.assembly import Say, fitted, named, prepare
from bigkeras.data.plan import ROWS, steps_per_epoch
from bigkeras.data.source import Source, Splits
from bigkeras.epochs import begin_anew, go_on, kept, learn
from bigkeras.jax_augmentation import augmenter
from bigkeras.jax_control import JaxControl
from bigkeras.jax_metrics import make_loss, make_metrics
from bigkeras.jax_step import JaxStep
from bigkeras.layouts import data_devices, place_optimizer, set_distribution
from bigkeras.models import MODELS, build
from bigkeras.models.stepper import check_steps
from bigkeras.optimization import build_optimizer, layer_rates, make_optimizer, scale_rates
from bigkeras.recipe import Recipe, RecipeError
from bigkeras.recipe_data import datasets, ready
from bigkeras.run import is_candidate
from bigkeras.signals import Interrupted, Log, signals
from bigkeras.tasks.task import Task
from bigkeras.workers import Workers

# Augmentation that Keras runs on JAX, but that cannot be compiled: it asks for a number that is not known then.
NOT_COMPILED = ("random_elastic_transform",)


def fit_on_jax(
    recipe: Recipe, directory: Path, splits: Splits, model: Callable | None, machine: runtime.Machine, log: Log
) -> dict[str, Any]:
    """Trains a recipe, or goes on where it stopped; gives its metrics. Raises what `train.fit` raises."""
    from bigkeras.train import describe

    check_divides(recipe, machine, is_candidate(directory))
    task = fitted(recipe, splits, log.say_once)
    splits = ready(task, splits, log)
    describe(directory, task, splits, {"strategy": runtime.choose_on_jax(machine), "backend": "jax"})
    step: Any = _step(recipe, task, splits, model, machine, log.say_once)
    modules = jax_scores.own_modules(step.network)
    with signals() as asked:
        workers = Workers(tf.distribute.get_strategy())
        control = JaxControl(recipe, directory, step, splits, task, log, asked, machine, workers)
        control.modules = modules
        with contextlib.closing(control):
            _train(recipe, step, splits, task, control)
    metrics = jax_scores.finished(directory, control.position, modules)
    if asked and is_candidate(directory):
        raise Interrupted(asked[0])
    return metrics


def _train(recipe: Recipe, step: Any, splits: Splits, task: Task, control: JaxControl) -> None:
    """Epoch after epoch from the last checkpoint on; what it leaves behind where it ends before its time."""

    def data() -> tuple[Any, Any]:
        position, strategy = control.position, tf.distribute.get_strategy()
        train, validation = datasets(recipe, splits, task, position, control.unreadable.note, strategy)
        # What augments inside the step normalises there, too.
        train = _arrays(train, task, normalised=step.augment is None)
        return train, None if validation is None else _arrays(validation, task, normalised=True)

    # A checkpoint holds the metrics, too, which Keras makes when it sees a batch.
    step._symbolic_build(data_batch=next(iter(data()[0].take(1).as_numpy_iterator())))
    restored = checkpoint.restore(control.directory / "checkpoints", step.state())
    if restored:
        go_on(control, restored)
    else:
        begin_anew(control)
    steps = None if splits.validation is None else _steps(recipe, splits.validation, task)
    with kept(control):
        while control.position.epoch < recipe.epochs and not control.finished:
            learn(control, *data(), steps)
            control.leave_if_asked()


OF_ONE = "; --strategy one takes a single one"


def check_divides(recipe: Recipe, machine: runtime.Machine, candidate: bool = False) -> None:
    """Raises RecipeError for batches that the devices cannot share evenly. `candidate`: nobody can say another size."""
    devices, parts = data_devices(machine), recipe.micro_batches
    over = f"{devices} devices" + f" × {parts} micro-batches" * (parts > 1)
    # Of pairs, batch_size counts tokens; their number in a batch is a multiple of ROWS.
    if recipe.task.name == "translation":
        if ROWS % (devices * parts):
            raise RecipeError(f"batches of {ROWS} pairs, or a multiple, do not divide over {over}{OF_ONE}")
    elif recipe.batch_size % (devices * parts):
        near = max(1, recipe.batch_size // (devices * parts)) * devices * parts
        advice = "" if candidate else f": --set batch_size={near}"
        raise RecipeError(f"batch_size={recipe.batch_size} does not divide over {over}{advice}{OF_ONE}")


def check_on_jax(recipe: Recipe) -> None:
    """Raises RecipeError for what Keras cannot do on JAX."""
    if any(choice.name in NOT_COMPILED for choice in recipe.augmentation):
        raise RecipeError(f"KERAS_BACKEND=jax: Keras cannot compile the augmentation {', '.join(NOT_COMPILED)} there")
    if recipe.task.name == "translation" and (recipe.teacher or recipe.back_translator):
        setting = "teacher" if recipe.teacher else "back_translator"
        raise RecipeError(f"{setting}: KERAS_BACKEND=jax cannot translate; train this with KERAS_BACKEND=tensorflow")


def _step(
    recipe: Recipe, task: Task, splits: Splits, model: Callable | None, machine: runtime.Machine, say: Say
) -> JaxStep:
    """The compiled model, laid out over the devices."""
    function = model or MODELS[recipe.model.name]

    def make() -> keras.Model:
        keras.utils.set_random_seed(recipe.seed)
        return named(f"model {recipe.model.name}", lambda: build(function, task.model_arguments, recipe.model.args))

    set_distribution(make, machine)
    # Within: to tell Keras of the devices has it forget the precision.
    with runtime.precision(recipe.precision):
        network = make()
        if model and recipe.task.name == "translation":
            named(f"model {network.name}", lambda: check_steps(network, covers=task.preprocessor.coverage_penalty > 0))
        prepare(network, recipe, task, splits, say)
        step = JaxStep(inputs=network.inputs, outputs=network.outputs, name=network.name)
    with runtime.precision("float32"):
        layers = named("augmentation", lambda: task.step_layers(recipe.seed))
    steps = _steps(recipe, splits.train, task, recipe.balance)
    optimizer = named(f"optimizer {recipe.optimizer.name}", lambda: make_optimizer(recipe, steps))
    # Where the loss is scaled (mixed_float16), gradients are clipped after they are scaled back.
    getattr(optimizer, "inner_optimizer", optimizer).global_clipnorm = recipe.clip_norm
    if recipe.layer_decay != 1:
        scale_rates(optimizer, layer_rates(network, recipe.layer_decay))
    build_optimizer(optimizer, network.trainable_variables)
    if recipe.l1 or recipe.l2:
        _penalise(network, recipe.l1, recipe.l2)
    loss = named(f"loss {recipe.loss.name}", lambda: make_loss(recipe, splits, len(task.class_names)))
    step.compile(optimizer=optimizer, loss=loss, weighted_metrics=make_metrics(loss, len(task.class_names)))
    step.begin(network, recipe.ema, recipe.micro_batches, averages=bool(recipe.average_checkpoints))
    step.consistency = recipe.consistency
    if layers:
        step.augment = named("augmentation", lambda: augmenter(layers, task.preprocessor, len(task.class_names)))
    place_optimizer(optimizer)
    return step


def _penalise(network: keras.Model, l1: float, l2: float) -> None:
    """The L1 and L2 norms of all kernels and embeddings, as `step.penalty` adds them to the loss."""
    for variable in network.trainable_variables:
        if len(variable.shape) > 1:
            variable.regularizer = keras.regularizers.L1L2(l1=l1, l2=l2)


def _steps(recipe: Recipe, source: Source, task: Task, balance: str = "none") -> int:
    return steps_per_epoch(source.labels, recipe.batch_size, balance, task.lengths(source))


def _arrays(batches: Any, task: Task, normalised: bool) -> Any:
    """The batches of the task with inputs as the model takes them, or raw, and one-hot labels where it has classes."""
    classes = len(task.class_names)

    def prepared(x: Any, label: Any, weight: Any) -> tuple[Any, Any, Any]:
        inputs = task.normalise(x) if normalised else x
        inputs = tuple(inputs) if isinstance(inputs, list) else inputs
        return inputs, tf.one_hot(label, classes) if classes else label, weight

    return batches.map(prepared)
