"""One training spread in different ways over the cores of this machine: a process of a group, or a group alone.

`python -m benchmarks.scaling_contenders '{"contender": "two workers", "workload": "encoder", …}'` is one of scaling's.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks import contenders, text_contenders
from benchmarks.contenders import CLASSES, MOMENTUM, SEED, Run, our_run, start_tensorflow, stock_run
from benchmarks.interleave import serve

ONE, STOCK, MIRRORED, WORKERS = "one device", "one device, stock fit", "two replicas", "two workers"
ALONE = "two processes, half the batch each, nothing exchanged"  # what the two cores have to give
# WRN-16-4: a CNN that computes much for each exchange, of which batch normalisation asks for two a layer.
WIDE_RESNET = contenders.Workload("wide_resnet", (32, 32, 3), 128, 1, 0.02, (), {"depth": 16, "width": 4})
CONTENDERS = {"one": ONE, "stock": STOCK, "mirrored": MIRRORED, "workers": WORKERS, "alone": ALONE}


def make(options: Mapping[str, Any]) -> Run:
    """The process of a contender. Options: contender, workload, times (how many batches in the place of one)."""
    # Two replicas of one process share its threads; each other process has one.
    mirrored = options["contender"] == MIRRORED
    tf = start_tensorflow(1)
    if mirrored:
        tf.config.threading.set_inter_op_parallelism_threads(2)
    from bigkeras import runtime, strategies

    names = {ONE: "one", STOCK: "one", ALONE: "one", MIRRORED: "mirrored", WORKERS: "multiworker"}
    strategy = strategies.strategy(runtime.Machine(strategy=names[options["contender"]]))
    network, batch, workload = begun(options["workload"], strategy)
    batch = np.concatenate([batch[0]] * options["times"]), np.concatenate([batch[1]] * options["times"])
    if options["contender"] == ALONE:
        batch = batch[0][::2], batch[1][::2]
    if options["contender"] == STOCK:
        return stock_run(network, batch, workload.learning_rate)
    return timed_step(tf, strategy, network, batch, workload)


def begun(name: str, strategy: Any) -> tuple[Any, tuple[np.ndarray, np.ndarray], Any]:
    """The network of a workload, made in the strategy's scope, a batch for it, and the workload."""
    import keras

    from bigkeras.models import MODELS

    text = name in text_contenders.WORKLOADS
    module: Any = text_contenders if text else contenders
    workload = WIDE_RESNET if name == "wide-resnet" else module.WORKLOADS[name]
    shape = {"input_shape": workload.shape, "num_classes": CLASSES, **workload.args}
    sizes = text_contenders.sizes(workload) if text else shape
    keras.utils.set_random_seed(SEED)
    with strategy.scope():
        network = MODELS[workload.model](**sizes)
    return network, module.one_batch(workload), workload


def exchanged(name: str) -> tuple[int, int]:
    """What the replicas of a workload exchange in a step: how many numbers, gradients mostly, in how many exchanges.

    The number of examples, the gradients and the loss are three; each synchronised batch normalisation has two more.
    """
    import tensorflow as tf

    from bigkeras.layers import BatchNorm

    network, *_ = begun(name, tf.distribute.get_strategy())
    layers = [layer for layer in network.layers if isinstance(layer, BatchNorm)]
    numbers = sum(math.prod(v.shape) for v in network.trainable_variables)
    return numbers + 2 + sum(4 * layer.gamma.shape[0] + 1 for layer in layers), 3 + 2 * len(layers)


def timed_step(tf: Any, strategy: Any, network: Any, batch: tuple[np.ndarray, np.ndarray], workload: Any) -> Run:
    """The step that `bigkeras train` makes, each replica on its share of the one batch that lies ready.

    As in training, the loss is looked at after each, and workers agree on whether to stop or to save.
    """
    import keras

    from bigkeras.step import Step
    from bigkeras.tasks import LOSSES
    from bigkeras.workers import Workers

    with strategy.scope():
        loss = LOSSES["image_classification"]["cross_entropy"]()
        step = Step(network, normalise=lambda x: x, loss=loss, num_classes=CLASSES)
        step.begin(keras.optimizers.SGD(workload.learning_rate, momentum=MOMENTUM))
    step.make_train_function()
    step.train_function = agreeing(step.train_function, Workers(strategy))
    replicas = strategy.num_replicas_in_sync
    whole = *batch, np.ones(len(batch[1]), np.float32)

    def share(context: Any) -> Any:
        if replicas == context.num_input_pipelines:  # a replica in each process
            parts = [tuple(a[context.input_pipeline_id :: replicas] for a in whole)]
        else:
            parts = [tuple(a[i::replicas] for a in whole) for i in range(replicas)]
        joined = tuple(np.stack([part[i] for part in parts]) for i in range(3))
        return tf.data.Dataset.from_tensor_slices(joined).repeat()

    if replicas == 1:
        return our_run(step, tf.data.Dataset.from_tensors(whole).repeat())
    return our_run(step, strategy.distribute_datasets_from_function(share))


def agreeing(train_function: Callable, workers: Any) -> Callable:
    """A train function and what `Control` does after each of its calls, other than write."""

    def call(iterator: Any) -> Any:
        logs = train_function(iterator)
        float(logs["loss"])
        workers.sums([False, False, 0])  # stop, save, bad samples
        return logs

    return call


if __name__ == "__main__":
    serve(make)
