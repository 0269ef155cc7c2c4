"""fit(recipe, run_dir): from a recipe to a run directory with a trained model, resumable at any step."""

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bigkeras import checkpoint, runtime
from bigkeras.control import Control, Diverged
from bigkeras.data import DATASETS
from bigkeras.data.pipeline import distributed, ordered_plan, plan_rows
from bigkeras.data.plan import ROWS, class_weights, epoch_plan, steps_per_epoch
from bigkeras.data.source import DataError, Source, Splits
from bigkeras.evaluation import finish_run
from bigkeras.models import MODELS
from bigkeras.optimization import OPTIMIZERS, OURS, SCHEDULES, layer_rates, make_optimizer, scale_rates
from bigkeras.recipe import Recipe, RecipeError, check, known
from bigkeras.run import opened, read_json, write_bytes, write_json, write_text
from bigkeras.search import check_auto, fit_best
from bigkeras.signals import Interrupted, Log, signals
from bigkeras.step import Step, penalty
from bigkeras.tasks import LOSSES, MODEL_ARGUMENTS, MONITORS, TASKS, check_augmentation
from bigkeras.tasks.task import Task
from bigkeras.transfer import freeze, inherited, start_from
from bigkeras.workers import Workers, lost_workers

AUTO = "auto"
ADAPT_EXAMPLES = 5000
COUNTED = 256  # examples that a layer counts at a time


def check_recipe(recipe: Recipe, model: Callable | None = None) -> None:
    """Raises RecipeError for any name or argument that nothing would take."""
    check("data", recipe.data, DATASETS)
    check("task", recipe.task, TASKS, given=("splits", "augmentation"))
    if recipe.model.name == AUTO and model is None:
        check_auto(recipe)
    else:
        models = {recipe.model.name: model} if model else MODELS
        check("model", recipe.model, models, given=MODEL_ARGUMENTS)
    check("loss", recipe.loss, LOSSES[recipe.task.name])
    check("optimizer", recipe.optimizer, OPTIMIZERS, given=OURS)
    check("schedule", recipe.schedule, SCHEDULES)
    check_augmentation(recipe.task.name, recipe.augmentation)
    known("monitor", recipe.monitor, MONITORS[recipe.task.name])
    if recipe.task.name == "translation" and recipe.balance != "none":
        raise RecipeError(f"balance={recipe.balance}: translation has no classes to balance")


def fit(
    recipe: Recipe,
    run_dir: str | Path,
    *,
    model: Callable | None = None,
    machine: runtime.Machine | None = None,
    log: Log | None = None,
) -> dict[str, Any]:
    """Trains the recipe in `run_dir`, or goes on where a run of the same recipe stopped; gives its metrics.

    `model`: a function like those of `MODELS`, for a model of your own under the recipe's `model.name`.
    Raises RecipeError, DataError, RunError, MachineError, CheckpointError for what a user can mend, Interrupted after
    a signal (all is saved) and Diverged when the loss is no longer a number (the last good weights stay).
    """
    runtime.check_backend()
    check_recipe(recipe, model)
    machine, log = machine or runtime.Machine(), log or Log()
    if runtime.choose(machine.strategy)[0] == "multiworker":
        log.say("waiting until all workers are there")
    strategy = runtime.strategy(machine)
    workers = Workers(strategy)
    replicas = strategy.num_replicas_in_sync
    # Of pairs, batch_size counts tokens; their number in a batch is a multiple of ROWS.
    rows, told = (ROWS, f"{ROWS} pairs") if recipe.task.name == "translation" else (recipe.batch_size, "batch_size")
    if rows % (replicas * recipe.micro_batches):
        raise RecipeError(
            f"{told}={rows} does not divide over {replicas} replicas × {recipe.micro_batches} micro-batches"
        )
    directory = Path(run_dir)
    _check_apart(recipe, directory)
    with contextlib.ExitStack() as held, lost_workers(workers):
        workers.by_chief(lambda: _hold(held, directory, recipe))
        done = workers.by_chief(lambda: _finished(directory))
        if done:
            log.say(f"{directory}: this run is complete")
            return done
        splits = load_splits(recipe)
        _check_patience(recipe, splits)
        _check_alike(workers, recipe, splits)
        if recipe.model.name == AUTO:
            if workers.count > 1:
                raise RecipeError("model auto tries several models on one machine; name a model, as --set model=resnet")
            again = functools.partial(fit, machine=machine, log=log)
            return fit_best(recipe, directory, splits, again, log)
        return _fit(recipe, directory, splits, model, machine, workers, log)


def _fit(
    recipe: Recipe,
    directory: Path,
    splits: Splits,
    model: Callable | None,
    machine: runtime.Machine,
    workers: Workers,
    log: Log,
) -> dict[str, Any]:
    """The run itself: task, step, training, scores."""
    task = TASKS[recipe.task.name](splits, recipe.augmentation, **inherited(recipe))
    validation = splits.validation
    splits = task.ready(splits)
    taken = {
        "strategy": runtime.choose(machine.strategy)[0],
        "replicas": workers.strategy.num_replicas_in_sync,
        "workers": workers.count,
        "xla": machine.xla,
        "steps_per_call": machine.steps_per_call,
    }
    workers.by_chief(lambda: _describe(directory, task, splits, taken))
    with workers.strategy.scope(), runtime.precision(recipe.precision):
        step = _make_step(recipe, splits, task, machine, model)
    with signals() as asked:
        control = Control(recipe, directory, step, splits, task, log, asked, machine, workers)
        _train(recipe, directory, step, splits, task, control, log)
    history = control.position.history
    return workers.by_chief(lambda: finish_run(directory, recipe, validation, history, control.bad))


def _check_alike(workers: Workers, recipe: Recipe, splits: Splits) -> None:
    """Raises an error on every worker if one of them has another recipe, or other data, than the chief."""
    labels = hashlib.sha256(np.asarray(splits.train.labels, np.int64).tobytes()).hexdigest()
    mine = [recipe.to_json(), labels]
    theirs = workers.by_chief(lambda: mine)
    differing = workers.sums([mine[0] != theirs[0], mine[1] != theirs[1]])
    if differing[0]:
        raise RecipeError(f"{differing[0]:g} of {workers.count} workers have another recipe than the chief")
    if differing[1]:
        raise DataError(f"{differing[1]:g} of {workers.count} workers have other training data than the chief")


def _check_apart(recipe: Recipe, directory: Path) -> None:
    """Raises RecipeError for a run inside a folder whose sub-folders are classes: it would be one of them."""
    data = recipe.data.args.get("directory") if recipe.data.name.endswith("_folder") else None
    if data and Path(data).resolve() in (directory.resolve(), *directory.resolve().parents):
        raise RecipeError(f"{directory}: lies in {data}, whose sub-folders are classes: take another --run-dir")


def _check_patience(recipe: Recipe, splits: Splits) -> None:
    """Raises RecipeError where there is no score that `patience` could wait for."""
    if recipe.patience is None:
        return
    if splits.validation is None:
        raise RecipeError(f"patience={recipe.patience}: needs a validation split; --set data.validation=0.1 makes one")
    if recipe.monitor == "val_top5_accuracy" and len(splits.class_names) <= 5:
        raise RecipeError(
            f"monitor={recipe.monitor}: is measured with more than 5 classes; there are {len(splits.class_names)}"
        )


def _hold(held: contextlib.ExitStack, directory: Path, recipe: Recipe) -> None:
    held.enter_context(opened(directory, recipe))


def load_splits(recipe: Recipe) -> Splits:
    """The recipe's data set. Raises DataError for one that cannot be trained on."""
    splits = DATASETS[recipe.data.name](**recipe.data.args)
    if len(splits.train) == 0:
        raise DataError(f"data {recipe.data.name}: no training examples")
    return splits


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


def _finished(directory: Path) -> dict[str, Any] | None:
    path = directory / "metrics.json"
    return read_json(path) if path.exists() else None


def _describe(directory: Path, task: Task, splits: Splits, machine: dict[str, Any]) -> None:
    """What export and evaluation need of the data: preprocessor, labels, some examples for the parity gate."""
    write_json(directory / "environment.json", {**runtime.environment(), "run": machine})
    write_text(directory / "labels.txt", "".join(f"{name}\n" for name in task.class_names))
    for name, data in task.files(splits.validation or splits.train).items():
        write_bytes(directory / name, data)


def _make_step(recipe: Recipe, splits: Splits, task: Task, machine: runtime.Machine, model: Callable | None) -> Step:
    keras.utils.set_random_seed(recipe.seed)
    function = model or MODELS[recipe.model.name]
    network = _named(f"model {recipe.model.name}", lambda: function(**task.model_arguments, **recipe.model.args))
    adapting = [layer for layer in network.layers if hasattr(layer, "adapt")]
    if adapting:
        sample = task.sample(splits.train, ADAPT_EXAMPLES)
        for layer in adapting:
            layer.adapt(sample)
    for layer in network.layers:
        if hasattr(layer, "adapt_labelled"):
            layer.adapt_labelled(_labelled(task, splits.train))
    if recipe.start_from:
        start_from(recipe.start_from, network)
    if recipe.freeze_until:
        freeze(network, recipe.freeze_until)
    num_classes = len(splits.class_names) or None
    step = Step(
        network,
        normalise=task.normalise,
        loss=LOSSES[recipe.task.name][recipe.loss.name](**recipe.loss.args),
        num_classes=num_classes,
        class_weights=class_weights(splits.train.labels, len(splits.class_names))
        if recipe.balance == "class_weights"
        else None,
        augmentation=_named("augmentation", lambda: task.step_layers(recipe.seed)),
        micro_batches=recipe.micro_batches,
        clip_norm=recipe.clip_norm,
        ema=recipe.ema,
        penalty=penalty(recipe.l1, recipe.l2),
        steps_per_call=machine.steps_per_call,
        xla=machine.xla,
    )
    if step.augmentation:
        # Keras' augmentation layers make their random state when they first see a batch.
        step._augment(tf.zeros((2, *task.preprocessor.shape)), tf.one_hot([0, 1], num_classes))
    lengths = task.lengths(splits.train)
    steps = steps_per_epoch(splits.train.labels, recipe.batch_size, recipe.balance, lengths)
    optimizer = _named(f"optimizer {recipe.optimizer.name}", lambda: make_optimizer(recipe, steps))
    if recipe.layer_decay != 1:
        scale_rates(optimizer, layer_rates(network, recipe.layer_decay))
    step.begin(optimizer)
    return step


def _named(what: str, make: Callable[[], Any]) -> Any:
    """`make()`; where a model or Keras refuses a recipe's value, a RecipeError that says what it belongs to."""
    try:
        return make()
    except RecipeError:
        raise
    except (ValueError, TypeError, OSError) as error:
        raise RecipeError(f"{what}: {str(error).splitlines()[0]}") from None


def _labelled(task: Task, source: Source) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All examples once, as a model takes them, and their labels; for layers that count."""
    rows = plan_rows(lambda _: ordered_plan(source, COUNTED, task.lengths(source)), range(1))
    for x, label, weight in task.dataset(source, rows, COUNTED, training=False, on_bad=lambda _: None):
        real = weight.numpy() > 0
        yield task.normalise(x).numpy()[real], label.numpy()[real]


def _train(
    recipe: Recipe,
    directory: Path,
    step: Step,
    splits: Splits,
    task: Task,
    control: Control,
    log: Log,
) -> None:
    restored = checkpoint.restore(directory / "checkpoints", step.state(), control.workers.told)
    if restored:
        position, broken = restored
        control.resume(position)
        log.say(
            f"going on at epoch {position.epoch + 1}, step {position.step}"
            + "".join(f"; {b} is broken" for b in broken)
        )
    step_count = control.steps
    try:
        while control.position.epoch < recipe.epochs and not control.finished:
            position = control.position
            train, validation = datasets(recipe, splits, task, position, control.on_bad, step.distribute_strategy)
            if splits.validation is not None:
                lengths = task.lengths(splits.validation)
                step.validation_steps = steps_per_epoch(splits.validation.labels, recipe.batch_size, lengths=lengths)
            common = {
                "initial_epoch": position.epoch,
                "validation_data": validation,
                "validation_steps": step.validation_steps or None,
                "callbacks": control.callbacks(train),
                "shuffle": False,  # the plan has shuffled
                "verbose": 0,
            }
            if position.step == step_count:
                _finish_epoch(step, common)
            elif position.step:
                step.fit(train, steps_per_epoch=step_count - position.step, epochs=position.epoch + 1, **common)
            else:
                step.fit(train, steps_per_epoch=step_count, epochs=recipe.epochs, **common)
    except (Interrupted, Diverged, DataError) as error:
        control.leave(error)
        raise
    except checkpoint.NotFinite as error:
        raise control.diverged(f"{error} is not finite") from None
    control.save_last()


def _finish_epoch(step: Step, common: dict[str, Any]) -> None:
    """The end of an epoch that was interrupted in its validation: all its steps are done."""
    callbacks = keras.callbacks.CallbackList(common["callbacks"], model=step)
    logs = step.get_metrics_result()
    values = step.evaluate(
        common["validation_data"], steps=common["validation_steps"], callbacks=callbacks, verbose=0, return_dict=True
    )
    callbacks.on_epoch_end(common["initial_epoch"], {**logs, **{f"val_{k}": v for k, v in values.items()}})
