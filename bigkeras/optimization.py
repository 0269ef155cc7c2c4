"""Optimizers by Keras' name, and learning-rate schedules, each with warm-up."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from bigkeras.recipe import Recipe, RecipeError, defaults

OPTIMIZERS: dict[str, Callable] = {
    "sgd": keras.optimizers.SGD,
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "adagrad": keras.optimizers.Adagrad,
    "rmsprop": keras.optimizers.RMSprop,
    "lion": keras.optimizers.Lion,
    "muon": keras.optimizers.Muon,
    "nadam": keras.optimizers.Nadam,
    "adadelta": keras.optimizers.Adadelta,
    "adamax": keras.optimizers.Adamax,
    "ftrl": keras.optimizers.Ftrl,
    "lamb": keras.optimizers.Lamb,
    "adafactor": keras.optimizers.Adafactor,
}
# What the trainer itself does, for every optimizer alike and on many devices: see Recipe's keys of that meaning.
OURS = (
    "name",
    "clipnorm",
    "clipvalue",
    "global_clipnorm",
    "use_ema",
    "ema_momentum",
    "ema_overwrite_frequency",
    "loss_scale_factor",
    "gradient_accumulation_steps",
    "relative_step",  # Adafactor's own rate, in the place of a schedule
    "kwargs",
)


@keras.saving.register_keras_serializable(package="bigkeras")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The rate of `kind` after a linear warm-up from zero; Keras' own have no warm-up, but for the cosine."""

    def __init__(self, kind: str, rate: float, total: int, warmup: int, args: Mapping[str, Any]):
        """`total` and `warmup`: numbers of steps. `args`: those of the function `SCHEDULES[kind]`."""
        self.kind, self.rate, self.total, self.warmup, self.args = kind, rate, total, warmup, dict(args)

    def __call__(self, step: Any) -> Any:
        """The rate of the update number `step`, counted from 0."""
        step = ops.cast(step, "float32")
        warm = ops.minimum((step + 1) / (self.warmup + 1), 1.0)
        progress = ops.clip((step - self.warmup) / max(1, self.total - self.warmup), 0.0, 1.0)
        return self.rate * warm * _SHAPES[self.kind](progress, ops.maximum(step, self.warmup), self)

    def get_config(self) -> dict[str, Any]:
        return {"kind": self.kind, "rate": self.rate, "total": self.total, "warmup": self.warmup, "args": self.args}


def constant(warmup_epochs: float = 0.0) -> dict:
    """One rate throughout."""
    return {}


def exponential(warmup_epochs: float = 0.0, final: float = 0.01) -> dict:
    """Falls by the same factor every step, to `final` of the rate."""
    return {"final": final}


def step_decay(warmup_epochs: float = 0.0, at: tuple[float, ...] = (0.5, 0.75), factor: float = 0.1) -> dict:
    """Times `factor` at each share `at` of what follows the warm-up."""
    return {"at": tuple(at), "factor": factor}


def cosine(warmup_epochs: float = 0.0, final: float = 0.0) -> dict:
    """Half a cosine to `final` of the rate (Loshchilov & Hutter 2017, "SGDR", equation 5)."""
    return {"final": final}


def linear(warmup_epochs: float = 0.0, final: float = 0.0) -> dict:
    """A straight line to `final` of the rate; with warm-up, the triangle."""
    return {"final": final}


def inverse_square_root(warmup_epochs: float = 1.0) -> dict:
    """Falls as 1 / √step after the warm-up (Vaswani et al. 2017, equation 3)."""
    return {}


SCHEDULES: dict[str, Callable] = {
    "constant": constant,
    "exponential": exponential,
    "step": step_decay,
    "cosine": cosine,
    "linear": linear,
    "inverse_square_root": inverse_square_root,
}


def _steps(progress: Any, step: Any, schedule: Schedule) -> Any:
    passed = sum(ops.cast(progress >= share, "float32") for share in schedule.args["at"])
    return schedule.args["factor"] ** passed


def _cosine(progress: Any, step: Any, schedule: Schedule) -> Any:
    final = schedule.args["final"]
    return final + (1 - final) * 0.5 * (1 + ops.cos(math.pi * progress))


def _linear(progress: Any, step: Any, schedule: Schedule) -> Any:
    return 1 - (1 - schedule.args["final"]) * progress


_SHAPES: dict[str, Callable] = {
    "constant": lambda progress, step, schedule: 1.0,
    "exponential": lambda progress, step, schedule: ops.exp(progress * math.log(max(schedule.args["final"], 1e-9))),
    "step": _steps,
    "cosine": _cosine,
    "linear": _linear,
    "inverse_square_root": lambda progress, step, schedule: ops.sqrt((schedule.warmup + 1) / (step + 1)),
}


# Models whose stages are convolutions of other widths over the same texts.
BESIDE = ("text_cnn", "nb_cnn")


def layer_rates(network: keras.Model, decay: float) -> list[float]:
    """What the learning rate is multiplied by, for each trainable variable: 1 at the top, `decay` a stage below it.

    The layers `stage1…` to `stageN…` are the stages; what lies before them is one stage lower, what comes after them
    is the top. Raises RecipeError for a network without stages.
    Source: Howard & Ruder 2018 (arXiv 1801.06146), section 3.2, "discriminative fine-tuning".
    """
    marks = [re.match(r"stage(\d+)", layer.name) for layer in network.layers]
    stages = max((int(mark[1]) for mark in marks if mark), default=0)
    if network.name in BESIDE:
        raise RecipeError(f"layer_decay={decay}: what is named stage in {network.name} stands side by side")
    if not stages:
        raise RecipeError(f"layer_decay={decay}: {network.name} has no layers that are named stage1, stage2 and so on")
    heights: dict[int, int] = {}
    height = 0
    for layer, mark in zip(network.layers, marks, strict=True):
        height = int(mark[1]) if mark else (stages + 1 if height else 0)
        heights |= {id(variable): height for variable in layer.trainable_variables}
    return [decay ** (stages + 1 - heights[id(variable)]) for variable in network.trainable_variables]


def scale_rates(optimizer: keras.optimizers.Optimizer, rates: list[float]) -> None:
    """Multiplies the optimizer's learning rate by each variable's own; the decoupled weight decay keeps the whole."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    update = inner.update_step

    def update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
        update(gradient, variable, learning_rate * rates[inner._get_variable_index(variable)])

    inner.update_step = update_step


def _check_adafactor(rate: Schedule, total: int) -> None:
    """Raises RecipeError for a rate that Keras' Adafactor would cut: it takes 1/√step at most, whatever it is told."""
    steps = np.unique(np.linspace(0, total - 1, min(total, 1000)).astype(np.int64))
    cut = steps[ops.convert_to_numpy(rate(steps)) > 1.0001 / np.sqrt(steps + 1)]
    if len(cut):
        least = 1 / math.sqrt(cut[-1] + 1)
        raise RecipeError(
            f"optimizer.learning_rate={rate.rate:g}: Keras' Adafactor takes at most 1/√step, and {least:.2g} at step "
            f"{cut[-1] + 1:,}: a lower rate"
        )


def build_optimizer(optimizer: keras.optimizers.Optimizer, variables: list[keras.Variable]) -> None:
    """Makes the optimizer's variables, and has it know all of them: they are saved, and on JAX handed around."""
    optimizer.build(variables)
    # Keras builds the optimizer inside one that scales the loss where attributes are not tracked: Nadam's product.
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    product = getattr(inner, "_u_product", None)
    if product is not None and not any(each is product for each in inner.variables):
        inner._track_variable(product)


def make_optimizer(recipe: Recipe, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """The recipe's optimizer on its schedule, with loss scaling where the precision is mixed_float16.

    Decoupled weight decay is the optimizer's own argument `weight_decay`; biases and normalisations are left out.
    Raises RecipeError for a rate that cannot be.
    """
    args = dict(recipe.optimizer.args)
    rate = args.pop("learning_rate", defaults(OPTIMIZERS[recipe.optimizer.name])["learning_rate"])
    schedule = dict(recipe.schedule.args)
    shape = SCHEDULES[recipe.schedule.name](**schedule)
    warmup = (defaults(SCHEDULES[recipe.schedule.name]) | schedule)["warmup_epochs"]
    shares = {f"schedule.{name}": shape[name] for name in ("factor", "final") if name in shape}
    for name, value in {"optimizer.learning_rate": rate, "schedule.warmup_epochs": warmup, **shares}.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < math.inf:
            raise RecipeError(f"{name}={value}: a number of at least 0")
    if not all(0 <= share <= 1 for share in shape.get("at", ())):
        raise RecipeError(
            f"schedule.at={list(shape['at'])}: shares of what follows the warm-up, from 0 to 1, such as [0.5, 0.75]"
        )
    if recipe.optimizer.name == "muon" and "weight_decay" in args:  # which Keras applies to matrices alone
        args.setdefault("adam_weight_decay", args["weight_decay"])
    if recipe.optimizer.name == "sgd" and args.get("nesterov") and not args.get("momentum"):
        raise RecipeError("optimizer.nesterov=true: is a way of momentum, and optimizer.momentum is 0")
    stays = recipe.schedule.name == "constant" and not warmup and rate * recipe.layer_decay > 0
    if recipe.optimizer.name == "ftrl" and not stays:
        # Its weights are a sum of the past divided by 1 / rate: one that falls to nothing takes them along.
        raise RecipeError("optimizer=ftrl: its weights go with its rate: schedule=constant, no warm-up, a rate above 0")
    total = recipe.epochs * steps_per_epoch
    rate = Schedule(recipe.schedule.name, rate, total, round(warmup * steps_per_epoch), shape)
    if recipe.optimizer.name == "adafactor":
        _check_adafactor(rate, total)
    usual = defaults(OPTIMIZERS[recipe.optimizer.name])
    # Of a whole number Keras' SGD says that it is none between 0 and 1.
    args = {n: float(v) if isinstance(usual.get(n), float) and isinstance(v, int) else v for n, v in args.items()}
    optimizer = OPTIMIZERS[recipe.optimizer.name](learning_rate=rate, **args)
    if optimizer.weight_decay or recipe.optimizer.name == "muon":
        # By whole names: TensorFlow's have their layer's before them, which may be called beta_head.
        optimizer.exclude_from_weight_decay(var_names=[r"(^|/)(bias|gamma|beta)(:\d+)?$"])
    if recipe.precision == "mixed_float16":
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
