"""Trainings that must give the same weights on every set of devices; run as a program, those of one of two workers."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from bigkeras.data.pipeline import distributed, plan_rows
from bigkeras.data.plan import epoch_plan
from bigkeras.layers import BatchNorm
from bigkeras.models import MODELS
from bigkeras.optimization import make_optimizer
from bigkeras.recipe import Choice, Recipe
from bigkeras.runtime import Machine, precision
from bigkeras.step import Step
from bigkeras.strategies import strategy
from bigkeras.tasks.classification import LOSSES
from bigkeras.tasks.cross_entropy import token_cross_entropy

EXAMPLES, BATCH, CLASSES = 22, 8, 3  # the last batch holds 6 examples and 2 that only fill it
STEPS = -(-EXAMPLES // BATCH)
TEXT = {"vocabulary_size": 20, "length": 8, "num_classes": CLASSES}


def cnn() -> keras.Model:
    inputs = keras.Input((6, 6, 1), name="image")
    x = keras.layers.Conv2D(4, 3, use_bias=False, name="stem")(inputs)
    x = BatchNorm(name="norm")(x)
    x = keras.layers.Activation("tanh", name="stage1")(x)
    x = keras.layers.Flatten(name="features")(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, dtype="float32", name="logits")(x))


def pixels(generator: np.random.Generator) -> np.ndarray:
    return generator.normal(size=(EXAMPLES, 6, 6, 1)).astype("float32")


def lstm() -> keras.Model:
    return MODELS["lstm"](**TEXT, units=6, embedding_width=5)


def gru() -> keras.Model:
    return MODELS["gru"](**TEXT, units=6, embedding_width=5)


def rnn() -> keras.Model:
    return MODELS["rnn"](**TEXT, units=6, embedding_width=5)


def encoder() -> keras.Model:
    return MODELS["transformer"](**TEXT, depth=1, width=8, num_heads=2, feed_forward=16, dropout=0.0)


def tokens(generator: np.random.Generator) -> np.ndarray:
    ids = generator.integers(1, 20, (EXAMPLES, 8), dtype=np.int32)
    return np.where(np.arange(8) < generator.integers(2, 9, (EXAMPLES, 1)), ids, 0).astype(np.int32)


def translator() -> keras.Model:
    sizes = {"depth": 1, "width": 8, "num_heads": 2, "feed_forward": 16, "dropout": 0.0}
    return MODELS["transformer_translator"](vocabulary_size=20, length=8, **sizes)


def pairs(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the source, and of the target as the decoder reads it."""
    return tokens(generator), tokens(generator)


# One line for every kind of recipe: its network, and its data.
KINDS: dict[str, tuple[Callable, Callable]] = {
    "cnn": (cnn, pixels),
    "lstm": (lstm, tokens),
    "gru": (gru, tokens),
    "rnn": (rnn, tokens),
    "encoder": (encoder, tokens),
    "translator": (translator, pairs),
}
OPTIMIZERS = {
    "sgd": Choice("sgd", {"learning_rate": 0.1}),
    "adagrad": Choice("adagrad", {"learning_rate": 0.01}),
    "rmsprop": Choice("rmsprop", {"learning_rate": 1e-3}),
    "adam": Choice("adam", {"learning_rate": 1e-3}),
    "adamw": Choice("adamw", {"learning_rate": 1e-3, "weight_decay": 0.1}),
    # Without its scale by the matrix' size, which Keras computes in float32 and cannot multiply in float64.
    "muon": Choice("muon", {"learning_rate": 1e-2, "rms_rate": None}),
}


def in_float64(network: keras.Model) -> keras.Model:
    """The network with every layer in float64, the logits too, which our models give in float32 in any policy."""

    def cast(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config({**layer.get_config(), "dtype": "float64"})

    return keras.models.clone_model(network, clone_function=cast)


def loss_in(policy: str, asked: Recipe) -> Callable:
    """The recipe's loss; in float64 where all is: float32's rounding depends on how many examples a replica has."""
    if asked.model.name == "translator":
        return token_cross_entropy(**asked.loss.args)
    loss = LOSSES[asked.loss.name](**asked.loss.args)
    return type(loss).from_config({**loss.get_config(), "dtype": "float64"}) if policy == "float64" else loss


class Trained(NamedTuple):
    """What a training leaves: the weights, their averages, and what was logged."""

    weights: list[np.ndarray]
    averages: list[np.ndarray]
    logs: dict[str, float]


def recipe(kind: str, optimizer: str, **values: Any) -> Recipe:
    """With everything that could go wrong on several devices."""
    base = {
        "name": kind,
        "data": Choice("none"),
        "task": Choice("none"),
        "model": Choice(kind),
        "loss": Choice("cross_entropy", {"label_smoothing": 0.1}),
        "optimizer": OPTIMIZERS[optimizer],
        "schedule": Choice("constant"),
        "batch_size": BATCH,
        "epochs": 1,
        "micro_batches": 2,
        "clip_norm": 0.5,
        "ema": 0.9,
    }
    return Recipe(**{**base, **values})


def train(
    asked: Recipe, devices: tf.distribute.Strategy, policy: str, steps: int = STEPS, steps_per_call: int = 1
) -> Trained:
    """The recipe's network after `steps` steps of its first epoch, in `policy` precision."""
    make, data = KINDS[asked.model.name]
    generator = np.random.default_rng(0)
    x, labels = data(generator), generator.integers(0, CLASSES, EXAMPLES).astype(np.int32)
    classes, words = labels, asked.model.name == "translator"
    if words:  # the next word of the target at every place
        labels = np.roll(x[1], -1, axis=1)
    keras.utils.set_random_seed(1)
    with devices.scope(), precision(policy):
        network = make()
        step = Step(
            in_float64(network) if policy == "float64" else network,
            normalise=list if words else lambda x: x,
            loss=loss_in(policy, asked),
            num_classes=None if words else CLASSES,
            class_weights=None if words else np.array([2.0, 1.0, 0.5]),
            micro_batches=asked.micro_batches,
            clip_norm=asked.clip_norm,
            ema=asked.ema,
            steps_per_call=steps_per_call,
        )
        optimizer = make_optimizer(asked, STEPS)
        if policy == "float64":
            # Keras' Muon multiplies its float64 update by the rate, which is float32.
            rate = optimizer._get_current_learning_rate
            optimizer._get_current_learning_rate = lambda: tf.cast(rate(), tf.float64)
        step.begin(optimizer)

    def batches(rows: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
        def one(row: dict[str, Any]) -> tuple:
            taken = tf.nest.map_structure(lambda c: tf.gather(c, row["index"]), x)
            weight = row["weight"]
            if words:
                weight = weight[:, None] * tf.cast(taken[1] != 0, tf.float32)
            columns = (taken, tf.gather(labels, row["index"]), weight)
            return tf.nest.map_structure(lambda c: tf.ensure_shape(c, (batch_size, *c.shape[1:])), columns)

        return rows.map(one)

    rows = plan_rows(lambda e: epoch_plan(classes, batch_size=BATCH, seed=0, epoch=e), range(1))
    counter = keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: setattr(step, "steps_left", steps))
    logs = step.fit(
        distributed(devices, rows, BATCH, batches), steps_per_epoch=steps, verbose=0, shuffle=False, callbacks=[counter]
    ).history
    averages = [average.numpy() for average in step.averages]
    return Trained(step.network.get_weights(), averages, {name: values[-1] for name, values in logs.items()})


def train_case(case: str, devices: tf.distribute.Strategy) -> Trained:
    """A case such as encoder-adamw-float64; in half precision one step, since rounding grows with each."""
    kind, optimizer, policy = case.split("-")
    half = policy.startswith("mixed")
    asked = recipe(kind, optimizer, precision=policy if half else "float32")
    return train(asked, devices, policy, steps=1 if half else STEPS)


def start_weights(kind: str, policy: str) -> list[np.ndarray]:
    """What `train` begins with."""
    keras.utils.set_random_seed(1)
    with precision(policy):
        return KINDS[kind][0]().get_weights()


def save(path: Path, trained: Trained) -> None:
    """As npz, for another process."""
    names = [*(f"w{i}" for i in range(len(trained.weights))), *(f"a{i}" for i in range(len(trained.averages)))]
    arrays = dict(zip(names, [*trained.weights, *trained.averages], strict=True))
    np.savez(path, **arrays, loss=trained.logs["loss"], accuracy=trained.logs["accuracy"])


def load(path: Path) -> Trained:
    with np.load(path) as file:
        count = sum(name[0] == "w" for name in file.files)
        averages = sum(name[0] == "a" and name != "accuracy" for name in file.files)
        logs = {name: float(file[name]) for name in ("loss", "accuracy")}
        return Trained([file[f"w{i}"] for i in range(count)], [file[f"a{i}"] for i in range(averages)], logs)


def main(directory: Path, cases: list[str]) -> None:
    """Trains cases such as encoder-adamw-float64 as one of the workers of TF_CONFIG; the first one saves."""
    from bigkeras.workers import Workers

    devices = strategy(Machine(strategy="multiworker"))
    for case in cases:
        trained = train_case(case, devices)
        if Workers(devices).chief:
            save(directory / f"{case}.npz", trained)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
