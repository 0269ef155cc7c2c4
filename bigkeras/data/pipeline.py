"""From a source and its plans to batches: a tf.data pipeline that can begin at any step."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from bigkeras.data.plan import RANDOMS, Plan, epoch_plan
from bigkeras.data.source import Source

Batch = dict[str, Any]


def plan_rows(plan: Callable[[int], Plan], epochs: range, skip: int = 0) -> tf.data.Dataset:
    """The rows of the epochs' plans, one element a step: index, weight, random, epoch; `(batch, …)` each.

    `skip` leaves out the first steps.
    """

    def rows(epoch: tf.Tensor) -> tf.data.Dataset:
        def arrays(number: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            p = plan(int(number))
            # TensorFlow takes aligned arrays without copying, and may write its results over them.
            return p.indices.copy(), p.weights.copy(), p.randoms.copy()

        index, weight, random = tf.numpy_function(arrays, [epoch], (tf.int64, tf.float32, tf.float32))
        index.set_shape((None, None))
        weight.set_shape((None, None))
        random.set_shape((None, None, RANDOMS))
        number = tf.broadcast_to(epoch, tf.shape(index))
        return tf.data.Dataset.from_tensor_slices({"index": index, "weight": weight, "random": random, "epoch": number})

    return tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(rows).skip(skip)


def ordered_plan(source: Source, batch_size: int, lengths: np.ndarray | None = None) -> Plan:
    """The plan of all examples of a source once, in its order or by `lengths`; weight 0 fills the last batch."""
    return epoch_plan(source.labels, batch_size=batch_size, seed=0, epoch=0, shuffle=False, lengths=lengths)


def replica_rows(rows: tf.data.Dataset, first: int, replicas: int, of: int) -> tf.data.Dataset:
    """The rows' parts that belong to the `replicas` replicas from number `first` on, of `of`; an element a replica.

    Replica r has the r-th of `of` equal runs of neighbours in every batch, as a mirrored strategy splits it.
    """

    def parts(row: Batch) -> tf.data.Dataset:
        # A step of fewer examples than others has its empty places, -1, at the end.
        real = tf.reduce_sum(tf.cast(row["index"] >= 0, tf.int32))

        def cut(values: tf.Tensor) -> tf.Tensor:
            return tf.reshape(values[:real], (of, -1, *values.shape[1:]))[first : first + replicas]

        return tf.data.Dataset.from_tensor_slices({name: cut(values) for name, values in row.items()})

    return rows.flat_map(parts)


def distributed(
    strategy: tf.distribute.Strategy,
    rows: tf.data.Dataset,
    batch_size: int,
    make: Callable[[tf.data.Dataset, int], tf.data.Dataset],
) -> Any:
    """What fit and evaluate read: the batches that `make(rows, batch_size)` gives, each replica's share of them.

    Every worker reads its own replicas' examples only.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return make(rows, batch_size)

    def share(context: Any) -> tf.data.Dataset:
        count = replicas // context.num_input_pipelines
        own = replica_rows(rows, context.input_pipeline_id * count, count, replicas)
        # Of data without an end, TensorFlow does not ask all workers at every step whether there is more.
        return make(own.repeat(), batch_size // replicas)

    return strategy.distribute_datasets_from_function(share)


def batches(
    source: Source,
    rows: tf.data.Dataset,
    batch_size: int,
    *,
    one: Callable[[Batch, tf.Tensor], Batch],
    many: Callable[[Batch, tf.Tensor], Any],
    on_bad: Callable[[int], None],
) -> tf.data.Dataset:
    """Batches `(columns, label, weight)` of static shapes, in the plan's order.

    `one` prepares the raw columns of a single example (decoding, resizing), given its random numbers `(RANDOMS,)`; it
    is left out for sources that give whole batches. `many` prepares a batch `(batch, RANDOMS)`. An example whose file
    cannot be read or prepared gets weight 0, and `on_bad` its index.
    """
    threads = max(2, os.cpu_count() or 2)
    labels = tf.constant(source.labels)

    if source.batched:

        def fetch(row: Batch) -> Batch:
            return {**row, "columns": source.fetch(row["index"])}

        dataset = rows.map(fetch, num_parallel_calls=threads, deterministic=True)
    else:
        from bigkeras.data.bad import decode_or_mark

        def prepare(row: Batch) -> Batch:
            return {**row, "columns": one(source.fetch(row["index"]), row["random"])}

        dataset = decode_or_mark(rows.unbatch(), prepare, threads).batch(batch_size, drop_remainder=True)

    def finish(row: Batch) -> tuple[Batch, tf.Tensor, tf.Tensor]:
        weight = row["weight"]
        if "valid" in row:
            report = tf.cond(
                tf.reduce_all(row["valid"]),
                lambda: tf.constant(True),
                lambda: tf.numpy_function(_reporter(on_bad), [row["index"], row["valid"]], tf.bool),
            )
            with tf.control_dependencies([report]):
                weight = weight * tf.cast(row["valid"], tf.float32)
        columns = many(row["columns"], row["random"])
        label = tf.gather(labels, row["index"])
        return tf.nest.map_structure(lambda t: tf.ensure_shape(t, (batch_size, *t.shape[1:])), (columns, label, weight))

    return dataset.map(finish, num_parallel_calls=threads, deterministic=True).prefetch(2).with_options(options())


def _reporter(on_bad: Callable[[int], None]) -> Callable[[np.ndarray, np.ndarray], np.bool_]:
    def report(indices: np.ndarray, valid: np.ndarray) -> np.bool_:
        for index in indices[~valid]:
            on_bad(int(index))
        return np.bool_(True)

    return report


def options() -> tf.data.Options:
    """In order, without autotuning, every worker with the whole data."""
    chosen = tf.data.Options()
    # With autotuning, fit's wall time falls on 1.27, 2.55, 5.1 … seconds: the tuner's naps.
    chosen.autotune.enabled = False
    chosen.deterministic = True
    chosen.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return chosen
