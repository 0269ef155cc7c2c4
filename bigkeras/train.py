"""fit(recipe, run_dir): from a recipe to a run directory with a trained model, resumable at any step."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from bigkeras import checkpoint, runtime, strategies
from bigkeras.assembly import fitted, make_step
from bigkeras.asynchronous import Asynchronous, lost_servers, serve
from bigkeras.checks import (
    AUTO,
    Found,
    check_alike,
    check_apart,
    check_data,
    check_kept,
    check_left,
    check_monitor,
    check_prepared,
    check_recipe,
    known_before,
)
from bigkeras.control import Control
from bigkeras.data.fingerprint import fingerprints
from bigkeras.data.plan import ROWS, steps_per_epoch
from bigkeras.data.source import DataError, Splits, left_out
from bigkeras.diversification import diversified
from bigkeras.epochs import begin_anew, go_on, kept, learn
from bigkeras.evaluation import finish_run
from bigkeras.inheritance import absolute, continued, wired_alike
from bigkeras.models.pretrained import renew_constants
from bigkeras.recipe import Recipe, RecipeError, load
from bigkeras.recipe_data import absolute_data, datasets, load_splits, ready
from bigkeras.remarks import begin_quietly
from bigkeras.run import (
    asked_for,
    has_learned,
    is_candidate,
    note_places,
    opened,
    read_json,
    write_bytes,
    write_json,
    write_text,
)
from bigkeras.search import fit_best, name_a_model
from bigkeras.self_training import taught
from bigkeras.signals import Interrupted, Log, signals
from bigkeras.step import Step
from bigkeras.tasks.task import Task
from bigkeras.unreadable import check_share, write_listed
from bigkeras.watch import Watch
from bigkeras.workers import Workers, lost_workers


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
    machine, log = machine or runtime.Machine(), log or Log()
    runtime.check_limits(keras.config.max_epochs(), keras.config.max_steps_per_epoch())
    runtime.check_layout(keras.config.image_data_format())
    if runtime.on_jax():
        return _fit_on_jax(recipe, Path(run_dir), model, machine, log)
    runtime.check_backend()
    recipe = resolved(recipe, model, Path(run_dir))
    chosen = runtime.chosen(machine)
    asynchronous = chosen == "parameter_server"
    if asynchronous:
        strategies.check_jobs()
        if runtime.role() in ("worker", "ps"):
            serve()
    if asynchronous or chosen == "multiworker":
        log.say(f"waiting until all workers are there ({runtime.choose(machine.strategy)[1]})")
    strategy = strategies.strategy(machine)
    begin_quietly()
    workers = Workers(strategy)
    replicas = strategy.num_replicas_in_sync
    # Of pairs, batch_size is a budget of tokens; their number in a batch is a multiple of ROWS.
    rows, told = (ROWS, "pairs") if recipe.task.name == "translation" else (recipe.batch_size, "batch_size")
    if rows % recipe.micro_batches:
        raise RecipeError(f"micro_batches={recipe.micro_batches}: {told}={rows} does not divide by them")
    if rows % (replicas * recipe.micro_batches):
        raise RecipeError(
            f"{told}={rows} does not divide over {replicas} replicas × {recipe.micro_batches} micro-batches; "
            + ("start fewer workers" if workers.count > 1 else "--replicas N takes fewer, --strategy one a single one")
        )
    directory = Path(run_dir)
    check_apart(recipe, directory)
    with contextlib.ExitStack() as held, lost_servers() if asynchronous else lost_workers(workers):
        recipe = _decided(recipe, directory, chosen, workers.by_chief, log)
        workers.by_chief(lambda: _hold(held, directory, recipe))
        done = workers.by_chief(lambda: _finished(directory))
        if done:
            log.say(f"{directory}: this run is complete; for other data or settings take another --run-dir")
            return done
        splits, found = _opened(recipe, directory, workers.by_chief, log)
        check_alike(workers, recipe, found)
        if recipe.task.name == "translation" and (recipe.teacher or recipe.back_translator):
            splits = diversified(recipe, splits, directory, workers.by_chief, log)
        if recipe.model.name == AUTO and model is None:
            if workers.count > 1:
                raise RecipeError(f"model auto tries several models on one machine; {name_a_model(recipe)}")
            again = functools.partial(fit, machine=machine, log=log)
            return fit_best(recipe, directory, splits, again, log)
        return _fit(recipe, directory, splits, model, machine, workers, log)


def _fit_on_jax(
    recipe: Recipe, directory: Path, model: Callable | None, machine: runtime.Machine, log: Log
) -> dict[str, Any]:
    from bigkeras.jax_train import check_on_jax, fit_on_jax

    # TensorFlow reads the data, and would take the memory of the GPUs that JAX trains on.
    with contextlib.suppress(RuntimeError):  # where it has begun already
        tf.config.set_visible_devices([], "GPU")
    begin_quietly()
    recipe = resolved(recipe, model, directory)
    check_on_jax(recipe)
    recipe = _decided(recipe, directory, runtime.choose_on_jax(machine), _alone, log)
    check_apart(recipe, directory)
    with opened(directory, recipe):
        done = _finished(directory)
        if done:
            log.say(f"{directory}: this run is complete; for other data or settings take another --run-dir")
            return done
        splits, _ = _opened(recipe, directory, _alone, log)
        if recipe.model.name == AUTO and model is None:
            return fit_best(recipe, directory, splits, functools.partial(fit, machine=machine, log=log), log)
        return fit_on_jax(recipe, directory, splits, model, machine, log)


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
    task = fitted(recipe, splits, log.say_once)
    validation = splits.validation
    splits = ready(task, splits, log)
    check_left(workers, splits)
    check_prepared(workers, task, splits)
    with workers.strategy.scope(), runtime.precision(recipe.precision):
        step = make_step(recipe, splits, task, machine, model, log.say_once)
    taken = {
        "strategy": runtime.choose(machine.strategy)[0],
        "replicas": workers.strategy.num_replicas_in_sync,
        "workers": workers.count,
        "xla": step.xla,
        "steps_per_call": step.steps_per_call,
    }
    workers.by_chief(lambda: describe(directory, task, splits, taken))
    log.say_once(_spoken(taken))
    handed_out = None
    if isinstance(workers.strategy, tf.distribute.ParameterServerStrategy):
        handed_out = Asynchronous(step, workers.strategy, runtime.asynchronous_workers())
    with signals() as asked:
        control = Control(recipe, directory, step, splits, task, log, asked, machine, workers)
        patience = machine.patience_seconds
        watch = Watch(workers, step, log.say, patience)
        with handed_out.lookout(asked, log.say, patience) if handed_out else watch:
            _train(recipe, directory, step, splits, task, control)
    history = control.position.history
    metrics = workers.by_chief(lambda: finish_run(directory, recipe, validation, history, control.unreadable.noted))
    if asked and is_candidate(directory):  # which is done; another one is not to begin
        raise Interrupted(asked[0])
    return metrics


def _decided(recipe: Recipe, directory: Path, strategy: str, by_chief: Callable, log: Log) -> Recipe:
    """The recipe with a precision in the place of "auto": the run's where one has begun, else the fastest here."""
    if recipe.precision != "auto":
        return recipe
    if strategy == "parameter_server":
        raise RecipeError("precision=auto: the chief does not see what its workers compute in: name one")

    def look() -> Sequence[str]:
        if (directory / "recipe.json").is_file() and has_learned(directory):
            return load(directory).precision, "as the run began"
        return runtime.fastest_precision(strategy)

    precision, why = by_chief(look)
    log.say_once(f"precision {precision}: {why}")
    return replace(recipe, precision=precision)


def _alone(look: Callable[[], Any]) -> Any:
    """In the place of `Workers.by_chief` where there is one process."""
    return look()


def resolved(recipe: Recipe, model: Callable | None, directory: Path) -> Recipe:
    """The recipe that can be repeated from any folder, with what it takes over from where it starts, checked.

    Of a model's wiring only what the recipe does not say is taken over, and nothing by a run in `directory` that has
    begun without it. Raises RecipeError.
    """
    recipe = absolute_data(absolute(recipe, "start_from", "teacher", "back_translator", "task.vocabulary"))
    recipe = continued(recipe, own_model=model is not None)
    if model is None and not (has_learned(directory) and asked_for(directory).model == recipe.model):
        recipe = wired_alike(recipe, recipe.model.args)
    check_recipe(recipe, model)
    return recipe


def _opened(recipe: Recipe, directory: Path, by_chief: Callable, log: Log) -> tuple[Splits, Found]:
    """The recipe's data, with what its teacher answers, and what tells them from others; both noted in the run.

    Says what is left out. Raises RecipeError, DataError and RunError.
    """
    splits = load_splits(recipe)
    if recipe.teacher and recipe.task.name != "translation":
        _tell(splits, log)
        by_chief(lambda: _check_read(splits, recipe, directory))
        log.say(f"{recipe.teacher} answers what has no labels")
        splits = taught(recipe, splits, directory, by_chief)
    _tell(splits, log)
    check_monitor(recipe, splits)
    found = fingerprints(splits)
    by_chief(lambda: check_data(directory, recipe, found, splits.columns))
    by_chief(lambda: note_places(directory, recipe))
    by_chief(lambda: _check_read(splits, recipe, directory))
    for line in by_chief(lambda: known_before(recipe, found)):
        log.say_once(line)
    return splits, found


def _check_read(splits: Splits, recipe: Recipe, directory: Path) -> None:
    """Raises DataError where too many rows of a table cannot be read: before a teacher answers, and a step is made."""
    named = dict(splits.bad)
    try:
        check_share(splits, len(splits.bad), named, recipe.max_bad_fraction, directory)
    except DataError:
        write_listed(splits, named, directory)
        raise


def _hold(held: contextlib.ExitStack, directory: Path, recipe: Recipe) -> None:
    held.enter_context(opened(directory, recipe))


def _tell(splits: Splits, log: Log) -> None:
    """Says what was found in data of one's own, and how much of it is left out."""
    for line in left_out(splits, "; all are in bad_samples.csv"):
        log.say_once(line)


def _spoken(taken: dict[str, Any]) -> str:
    """What was asked of the devices, or left to them, for the terminal."""
    steps = taken["steps_per_call"]
    called = "a step" if steps == 1 else f"{steps} steps"
    places = f"{taken['replicas']} replicas" + (f" of {taken['workers']} workers" if taken["workers"] > 1 else "")
    where = f", {places}" if taken["replicas"] > 1 or taken["workers"] > 1 else ""
    compiled = "compiled by XLA" if taken["xla"] else "without XLA"
    return f"strategy {taken['strategy']}{where}: {called} in a call, {compiled}"


def _finished(directory: Path) -> dict[str, Any] | None:
    path = directory / "metrics.json"
    return read_json(path) if path.exists() else None


def describe(directory: Path, task: Task, splits: Splits, machine: dict[str, Any]) -> None:
    """What export and evaluation need of the data: preprocessor, labels, some examples for the parity gate.

    Raises RunError where the run has learned with another preprocessor.
    """
    files = task.files(splits)
    check_kept(directory, files)
    write_json(directory / "environment.json", {**runtime.environment(), "run": machine})
    write_text(directory / "labels.txt", "".join(f"{name}\n" for name in task.class_names))
    for name, data in files.items():
        write_bytes(directory / name, data)


def _train(recipe: Recipe, directory: Path, step: Step, splits: Splits, task: Task, control: Control) -> None:
    """Epoch after epoch from the last checkpoint on."""
    workers = control.workers
    restored = checkpoint.restore(directory / "checkpoints", step.state(), workers.told, workers.chief)
    if restored:
        go_on(control, restored)
    else:
        begin_anew(control)
    with kept(control):
        if not restored and workers.count > 1:
            checkpoint.hand_out([*step.network.variables, *step.averages], workers.told, workers.chief)
            renew_constants(step.network)
        while control.position.epoch < recipe.epochs and not control.finished:
            position, strategy = control.position, step.distribute_strategy
            train, validation = datasets(recipe, splits, task, position, control.unreadable.note, strategy)
            if splits.validation is not None:
                lengths = task.lengths(splits.validation)
                step.validation_steps = steps_per_epoch(splits.validation.labels, recipe.batch_size, lengths=lengths)
            learn(control, train, validation, step.validation_steps or None)
            control.leave_if_asked()
