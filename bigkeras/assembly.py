"""From a recipe and a task to a network, fitted to its data, and the step that trains it."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bigkeras import runtime
from bigkeras.data.pipeline import ordered_plan, plan_rows
from bigkeras.data.plan import class_weights, steps_per_epoch
from bigkeras.data.source import DataError, Source, Splits, Unsuited
from bigkeras.inheritance import inherited, unheeded
from bigkeras.models import MODELS, build
from bigkeras.models.lora import add_lora
from bigkeras.models.stepper import check_steps
from bigkeras.optimization import layer_rates, make_optimizer, scale_rates
from bigkeras.recipe import Recipe, RecipeError
from bigkeras.step import Step, penalty
from bigkeras.tasks import LOSSES, TASKS
from bigkeras.tasks.task import Task
from bigkeras.transfer import freeze, start_from

ADAPT_EXAMPLES = 5000
COUNTED = 256  # examples that a layer counts at a time
# Augmentation inside the step for which XLA has no kernels: of projections, of gamma distributions, of free shapes.
NOT_COMPILED = {
    "cut_mix", "mix_up", "rand_augment", "random_elastic_transform", "random_perspective",
    "random_rotation", "random_shear", "random_translation", "random_zoom",
}  # fmt: skip

Say = Callable[[str], object]  # by default `str`, which says nothing


def fitted(recipe: Recipe, splits: Splits, say: Say = str) -> Task:
    """The recipe's task, fitted on the training split. Raises Unsuited where these data cannot have it.

    `say` is told what of the recipe a vocabulary that is there already does not heed, and whose languages a translator
    takes over.
    """
    arguments = inherited(recipe, splits.languages)
    try:
        task = TASKS[recipe.task.name](splits, recipe.augmentation, **arguments)
    except DataError as error:
        raise Unsuited(str(error)) from None
    for line in unheeded(recipe, arguments.get("vocabulary"), task.preprocessor):
        say(line)
    languages = getattr(task.preprocessor, "languages", splits.languages)
    if languages != splits.languages:
        say(
            f"translates from {' to '.join(languages)}, as {arguments['vocabulary']} does: of other languages say "
            "data.source_language and data.target_language"
        )
    return task


def make_step(
    recipe: Recipe, splits: Splits, task: Task, machine: runtime.Machine, model: Callable | None, say: Say = str
) -> Step:
    """The step that trains the recipe's network, fitted to the data, with its optimizer.

    `model`: a function of one's own in place of that in `MODELS`. `say` is told what takes long. Raises RecipeError
    that names what was refused, and MachineError for augmentation that cannot be compiled where the step is.
    """
    machine = _settled(recipe, machine)
    keras.utils.set_random_seed(recipe.seed)
    function = model or MODELS[recipe.model.name]
    network = named(f"model {recipe.model.name}", lambda: build(function, task.model_arguments, recipe.model.args))
    if model and recipe.task.name == "translation":
        named(f"model {network.name}", lambda: check_steps(network, covers=task.preprocessor.coverage_penalty > 0))
    prepare(network, recipe, task, splits, say)
    num_classes = len(task.class_names) or None  # the data may have classes that the task does not learn
    with runtime.precision("float32"):  # pixels and labels are; Keras' MixUp fails on them in 16 bits
        augmentation = named("augmentation", lambda: task.step_layers(recipe.seed))
    loss = named(f"loss {recipe.loss.name}", lambda: LOSSES[recipe.task.name][recipe.loss.name](**recipe.loss.args))
    step = Step(
        network,
        normalise=task.normalise,
        loss=loss,
        num_classes=num_classes,
        class_weights=class_weights(splits.train.labels, len(task.class_names))
        if recipe.balance == "class_weights"
        else None,
        augmentation=augmentation,
        micro_batches=recipe.micro_batches,
        clip_norm=recipe.clip_norm,
        ema=recipe.ema,
        averages=bool(recipe.average_checkpoints),
        penalty=penalty(recipe.l1, recipe.l2),
        consistency=recipe.consistency,
        steps_per_call=machine.steps_per_call or 1,
        xla=machine.xla,
    )
    if step.augmentation:
        # Keras' augmentation layers make their random state when they first see a batch.
        batch = tf.zeros((2, *task.preprocessor.shape)), tf.one_hot([0, 1], num_classes), tf.ones(2)
        named("augmentation", lambda: step._augment(*batch))
    lengths = task.lengths(splits.train)
    steps = steps_per_epoch(splits.train.labels, recipe.batch_size, recipe.balance, lengths)
    optimizer = named(f"optimizer {recipe.optimizer.name}", lambda: make_optimizer(recipe, steps))
    if recipe.layer_decay != 1:
        scale_rates(optimizer, layer_rates(network, recipe.layer_decay))
    step.begin(optimizer)
    return step


def prepare(network: keras.Model, recipe: Recipe, task: Task, splits: Splits, say: Say = str) -> None:
    """Has the network's layers adapt to the training split, then take over, freeze and update what the recipe says."""
    # What stands further in sees other values than the input's; that of a pretrained model has adapted already.
    adapting = []
    for layer in [layer for layer in network.layers if hasattr(layer, "adapt")]:
        if any(layer.input is each for each in network.inputs):
            adapting.append(layer)
        else:
            say(f"{layer.name}: does not stand at the input, and is not adapted to the data")
    if adapting:
        # As arrays, which layers take on every backend.
        sample = tf.nest.map_structure(np.asarray, task.sample(splits.train, ADAPT_EXAMPLES))
        for layer in adapting:
            layer.adapt(sample)
    for layer in network.layers:
        if hasattr(layer, "adapt_labelled"):
            layer.adapt_labelled(_labelled(task, splits.train))
        if hasattr(layer, "adapt_texts"):
            # Without the answers of a teacher, which tell this layer nothing more (docs/texts.md).
            labelled, unlabelled = splits.labelled or splits.train, splits.unlabelled
            say(f"{layer.name}: looks at {len(labelled) + len(unlabelled or ()):,} texts")
            layer.adapt_texts(_labelled(task, labelled), _labelled(task, unlabelled))
    fresh: list[str] = []
    if recipe.start_from:
        copied = start_from(recipe.start_from, network, task.preprocessor, task.class_names)
        fresh = [layer.name for layer in network.layers if layer.weights and layer.name not in copied]
        if not copied:
            say(f"start_from={recipe.start_from}: all its weights belong to classes, which are others: they begin anew")
    if recipe.freeze_until:
        freeze(network, recipe.freeze_until)
    if recipe.lora:
        named("lora", lambda: add_lora(network, recipe.lora or 0, whole=fresh))
    if network.losses or any(layer.activity_regularizer is not None for layer in network._flatten_layers()):
        told = "losses of its own, as by regularizers: the recipe's l1 and l2 are those that every device learns alike"
        raise RecipeError(f"model {recipe.model.name}: has {told}")
    ours = recipe.model.name in MODELS  # and not one's own, which may draw otherwise, or come trained
    if ours and recipe.consistency and not any(v.path.endswith("seed_generator_state") for v in network.variables):
        raise RecipeError(
            f"consistency={recipe.consistency}: nothing in model {recipe.model.name} is drawn at random, as by "
            "dropout: both answers to an example would be one"
        )
    if ours and recipe.freeze_until and not recipe.start_from and not recipe.model.args.get("weights"):
        say(f"freeze_until={recipe.freeze_until}: what is frozen has learned nothing: start_from names what has")
    warmup = recipe.schedule.args.get("warmup_epochs")
    if isinstance(warmup, float | int) and warmup > recipe.epochs:
        say(f"schedule.warmup_epochs={warmup}: is more than epochs={recipe.epochs}: the rate stays below its height")
    if not network.trainable_weights:
        named_one = f"freeze_until={recipe.freeze_until}" if recipe.freeze_until else f"model {recipe.model.name}"
        raise RecipeError(f"{named_one}: nothing is left to train")


def _settled(recipe: Recipe, machine: runtime.Machine) -> runtime.Machine:
    """The machine with what was left to the device. Raises MachineError for augmentation that would be compiled."""
    refused = [choice.name for choice in recipe.augmentation if choice.name in NOT_COMPILED]
    asked = "--xla" if machine.xla else f"--strategy {machine.strategy}"
    machine = runtime.settled(machine, compilable=not refused)
    if refused and machine.xla:
        raise runtime.MachineError(f"{asked}: XLA cannot compile the augmentation {refused[0]}; leave out one of them")
    return machine


# What a model or Keras raises for a value that it does not take.
REFUSALS: tuple[Any, ...] = (ValueError, TypeError, OSError, NotImplementedError)
REFUSALS += (tf.errors.InvalidArgumentError, tf.errors.FailedPreconditionError)


def named(what: str, make: Callable[[], Any]) -> Any:
    """`make()`; where a model or Keras refuses a recipe's value, a RecipeError that says what it belongs to."""
    try:
        return make()
    except RecipeError:
        raise
    except REFUSALS as error:
        raise RecipeError(f"{what}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """What an error says in one line, without the places that Keras and TensorFlow name around it."""
    lines = [line for line in str(error).splitlines() if line and not line.startswith("Exception encountered when")]
    return re.sub(r"\x1b\[\d+m|\{\{.*?\}\} | \[Op:.*", "", lines[0]) if lines else type(error).__name__


def _labelled(task: Task, source: Source | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All examples once, as a model takes them, and their labels; for layers that count."""
    if source is None:
        return
    source = task.ready(Splits(source, None, None, ())).train
    rows = plan_rows(lambda _: ordered_plan(source, COUNTED, task.lengths(source)), range(1))
    for x, label, weight in task.dataset(source, rows, COUNTED, training=False, on_bad=lambda _: None):
        real = weight.numpy() > 0
        yield task.normalise(x).numpy()[real], label.numpy()[real]
