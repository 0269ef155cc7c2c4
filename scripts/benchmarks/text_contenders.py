"""The text models that are compared: ours, stock Keras' layers and PyTorch's, one process each.

`python -m benchmarks.text_contenders '{"contender": "ours", "workload": "lstm", …}'` is started by train_text.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.contenders import (
    CLASSES,
    MOMENTUM,
    SEED,
    Run,
    keras_precision,
    our_run,
    pytorch_run,
    start_pytorch,
    start_tensorflow,
    stock_run,
)
from benchmarks.interleave import serve


@dataclass(frozen=True)
class Workload:
    """A model, its batch of token ids `(batch, length)`, and how many steps a turn has."""

    model: str
    batch: int
    shape: tuple[int]  # (length,)
    steps: int
    learning_rate: float
    args: Mapping[str, Any] = field(default_factory=dict)
    vocabulary: int = 10_000


ENCODER = {"depth": 4, "width": 256, "num_heads": 4, "feed_forward": 1024, "dropout": 0.0}
WORKLOADS = {
    "lstm": Workload("lstm", 64, (200,), 2, 0.05, {"units": 256, "depth": 2, "embedding_width": 128}),
    "encoder": Workload("transformer", 64, (128,), 1, 0.02, ENCODER),
    # For the tests.
    "tiny-lstm": Workload("lstm", 8, (6,), 10, 0.3, {"units": 8, "depth": 2, "embedding_width": 4}, 50),
    "tiny-encoder": Workload(
        "transformer", 8, (6,), 10, 0.05, {**ENCODER, "depth": 1, "width": 8, "num_heads": 2, "feed_forward": 16}, 50
    ),
}


def make(options: Mapping[str, Any]) -> Run:
    """The contender of a worker process. Options: contender, workload, precision, threads."""
    return CONTENDERS[options["contender"]](WORKLOADS[options["workload"]], options)


def one_batch(workload: Workload) -> tuple[np.ndarray, np.ndarray]:
    """int32 ids without padding, a third of them the label's own words, and int32 labels."""
    random = np.random.default_rng(SEED)
    labels = np.arange(workload.batch, dtype=np.int32) % CLASSES
    size = (workload.batch, *workload.shape)
    own = 1 + labels[:, None] * 4 + random.integers(0, 4, size)
    others = random.integers(1, workload.vocabulary, size)
    return np.where(random.random(size) < 1 / 3, own, others).astype(np.int32), labels


def sizes(workload: Workload) -> dict[str, Any]:
    """The arguments of our model function."""
    (length,) = workload.shape
    return {"vocabulary_size": workload.vocabulary, "length": length, "num_classes": CLASSES, **workload.args}


def ours(workload: Workload, options: Mapping[str, Any]) -> Run:
    """The step that `bigkeras train` makes, on one batch that lies ready."""
    tf = start_tensorflow(options["threads"])
    import keras

    from bigkeras import runtime
    from bigkeras.models import MODELS
    from bigkeras.step import Step
    from bigkeras.tasks import LOSSES

    keras.utils.set_random_seed(SEED)
    with runtime.precision(keras_precision(options)):
        network = MODELS[workload.model](**sizes(workload))
    loss = LOSSES["text_classification"]["cross_entropy"]()
    step = Step(network, normalise=lambda ids: ids, loss=loss, num_classes=CLASSES)
    step.begin(keras.optimizers.SGD(workload.learning_rate, momentum=MOMENTUM))
    batch = *one_batch(workload), np.ones(workload.batch, np.float32)
    return our_run(step, tf.data.Dataset.from_tensors(batch).repeat())


def stock(workload: Workload, options: Mapping[str, Any]) -> Run:
    """`compile` and the train function of `fit`, on the same network of stock layers."""
    start_tensorflow(options["threads"])
    import keras

    from bigkeras import runtime

    keras.utils.set_random_seed(SEED)
    with runtime.precision(keras_precision(options)):
        model = STOCK[workload.model](workload)
    return stock_run(model, one_batch(workload), workload.learning_rate)


def stock_lstm(workload: Workload) -> Any:
    """Embedding, stacked LSTM layers and logits from the last state, all of them Keras'."""
    import keras

    args = workload.args
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(workload.vocabulary, args["embedding_width"])(inputs)
    mask = keras.ops.not_equal(inputs, 0)
    for layer in range(args["depth"]):
        x = keras.layers.LSTM(args["units"], return_sequences=layer + 1 < args["depth"])(x, mask=mask)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, dtype="float32")(x))


def stock_encoder(workload: Workload) -> Any:
    """The pre-norm encoder of Keras' own `MultiHeadAttention`, the mean of its outputs, and logits."""
    import keras

    from bigkeras.layers import SinusoidalPositions

    args, width = workload.args, workload.args["width"]
    dense, norm, add = keras.layers.Dense, keras.layers.LayerNormalization, keras.layers.Add
    inputs = keras.Input((None,), dtype="int32")
    mask = keras.ops.not_equal(inputs, 0)
    start = keras.initializers.RandomNormal(stddev=width**-0.5)
    gelu = functools.partial(keras.activations.gelu, approximate=True)  # by tanh, as ours
    x = keras.layers.Embedding(workload.vocabulary, width, embeddings_initializer=start)(inputs)
    x = SinusoidalPositions()(keras.layers.Rescaling(width**0.5)(x))  # Keras has none
    for _ in range(args["depth"]):
        heads = keras.layers.MultiHeadAttention(args["num_heads"], width // args["num_heads"])
        y = norm(epsilon=1e-6)(x)
        x = add()([x, heads(y, y, attention_mask=mask[:, None])])
        y = dense(args["feed_forward"], gelu)(norm(epsilon=1e-6)(x))
        x = add()([x, dense(width)(y)])
    x = keras.layers.GlobalAveragePooling1D(dtype="float32")(norm(epsilon=1e-6)(x), mask=mask)
    return keras.Model(inputs, dense(CLASSES, dtype="float32")(x))


STOCK: dict[str, Callable[[Workload], Any]] = {"lstm": stock_lstm, "transformer": stock_encoder}


def pytorch(workload: Workload, options: Mapping[str, Any], *, compiled: bool = False) -> Run:
    """A plain training loop with the optimizer's fused form."""
    torch = start_pytorch(options)
    from benchmarks.pytorch_texts import MODELS

    ids, labels = one_batch(workload)
    network = MODELS[workload.model](workload.vocabulary, CLASSES, **workload.args)
    return pytorch_run(network, [torch.from_numpy(ids)], labels, workload.learning_rate, options, compiled)


CONTENDERS: dict[str, Callable[[Workload, Mapping[str, Any]], Run]] = {
    "ours": ours,
    "stock Keras": stock,
    "PyTorch": pytorch,
    "PyTorch, compiled": functools.partial(pytorch, compiled=True),  # needs a C++ compiler
}

if __name__ == "__main__":
    serve(make)
