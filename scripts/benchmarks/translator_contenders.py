"""The translators whose training is compared: ours and the same one in PyTorch, one process each.

`python -m benchmarks.translator_contenders '{"contender": "ours", "workload": "tiny", …}'` is started by
train_translator.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.contenders import (
    MOMENTUM,
    SEED,
    Run,
    keras_precision,
    our_run,
    pytorch_run,
    start_pytorch,
    start_tensorflow,
)
from benchmarks.interleave import serve

SMOOTHING = 0.1


@dataclass(frozen=True)
class Workload:
    """A Transformer's sizes, its batch of pairs `(batch, length)` of both sides, and how many steps a turn has."""

    args: Mapping[str, Any]
    batch: int
    shape: tuple[int]  # (length,)
    vocabulary: int
    steps: int
    learning_rate: float = 0.1


WORKLOADS = {
    # The published size for some ten thousand pairs (Wu et al. 2021), and one of twice the width.
    "tiny": Workload({"depth": 4, "width": 128, "num_heads": 4, "feed_forward": 256}, 170, (24,), 8000, 1),
    "small": Workload({"depth": 3, "width": 256, "num_heads": 4, "feed_forward": 1024}, 170, (24,), 10_000, 1),
    # For the tests.
    "toy": Workload({"depth": 1, "width": 8, "num_heads": 2, "feed_forward": 16}, 8, (6,), 50, 10),
}


def make(options: Mapping[str, Any]) -> Run:
    """The contender of a worker process. Options: contender, workload, precision, threads."""
    return CONTENDERS[options["contender"]](WORKLOADS[options["workload"]], options)


def one_batch(workload: Workload) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source, decoder input and labels, int32 `(batch, length)`; up to a third of a sentence is padding, 0.

    A target word is its source's word plus one, so that there is something to learn.
    """
    random = np.random.default_rng(SEED)
    (length,) = workload.shape
    source = random.integers(4, workload.vocabulary - 1, (workload.batch, length))
    source[np.arange(length) >= random.integers(2 * length // 3, length + 1, (workload.batch, 1))] = 0
    labels = np.where(source > 0, source + 1, 0)
    before = np.concatenate([np.full((workload.batch, 1), 2), labels[:, :-1]], 1)
    return source.astype(np.int32), before.astype(np.int32), labels.astype(np.int32)


def ours(workload: Workload, options: Mapping[str, Any]) -> Run:
    """The step that `bigkeras train` makes, on one batch that lies ready."""
    tf = start_tensorflow(options["threads"])
    import keras

    from bigkeras import runtime
    from bigkeras.step import Step
    from bigkeras.tasks import LOSSES

    keras.utils.set_random_seed(SEED)
    with runtime.precision(keras_precision(options)):
        network = our_network(workload)
    loss = LOSSES["translation"]["cross_entropy"](label_smoothing=SMOOTHING)
    step = Step(network, normalise=list, loss=loss, num_classes=None)
    step.begin(keras.optimizers.SGD(workload.learning_rate, momentum=MOMENTUM))
    source, before, labels = one_batch(workload)
    batch = ((source, before), labels, (labels > 0).astype(np.float32))
    return our_run(step, tf.data.Dataset.from_tensors(batch).repeat())


def our_network(workload: Workload) -> Any:
    """The model, without dropout."""
    from bigkeras.models import MODELS

    (length,) = workload.shape
    sizes = {"vocabulary_size": workload.vocabulary, "length": length, "dropout": 0.0}
    return MODELS["transformer_translator"](**sizes, **workload.args)


def pytorch(workload: Workload, options: Mapping[str, Any], *, compiled: bool = False) -> Run:
    """A plain training loop with the optimizer's fused form."""
    torch = start_pytorch(options)
    from benchmarks.pytorch_translator import Translator

    source, before, labels = one_batch(workload)
    sides = [torch.from_numpy(ids).long() for ids in (source, before)]
    network = Translator(workload.vocabulary, **workload.args)
    loss_args = {"ignore_index": 0, "label_smoothing": SMOOTHING}
    return pytorch_run(network, sides, labels.ravel(), workload.learning_rate, options, compiled, **loss_args)


CONTENDERS: dict[str, Callable[[Workload, Mapping[str, Any]], Run]] = {
    "ours": ours,
    "PyTorch": pytorch,
    "PyTorch, compiled": functools.partial(pytorch, compiled=True),  # needs a C++ compiler
}

if __name__ == "__main__":
    serve(make)
