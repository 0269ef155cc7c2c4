"""What the replicas of one step do with each other: they add up, and they draw random numbers of their own."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

# Odd, so that the replicas' random states are all different (2³² / φ, as in Fibonacci hashing).
GOLDEN = 2654435769


def sum_over_replicas(values: Any) -> Any:
    """A tensor, or a list of them, summed over all replicas of all workers; in a replica."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return values
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)


@contextlib.contextmanager
def own_randomness(layers: Sequence[keras.layers.Layer], number: Any = None) -> Iterator[Callable[[], None]]:
    """Inside, the random layers of each replica draw numbers of their own; then what it yields must be called.

    Keras' random states are the same on all replicas, so all would draw the same dropout masks. They stay the same
    between the steps, as a checkpoint needs them, and are moved apart for what happens inside. That is stateless for
    Keras; the yielded function then writes what has changed, moving statistics too. With the `number` of a step, int64,
    the numbers are that step's, and the states stay as they are: steps made at the same time cannot draw alike.
    """
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1 and number is None:
        yield lambda: None
        return
    distance = tf.cast(context.replica_id_in_sync_group, tf.int64) if number is None else tf.cast(number, tf.int64)
    apart = tf.stack([distance * GOLDEN, 0])
    variables = {id(v): v for layer in layers for v in layer.non_trainable_variables}
    states = [v for v in variables.values() if v.path.endswith("seed_generator_state")]
    random = {id(v) for v in states}

    def updates() -> None:
        for variable in variables.values():
            value = scope.get_current_value(variable)
            if value is None or (id(variable) in random and number is not None):
                continue
            variable.assign(value - tf.cast(apart, value.dtype) if id(variable) in random else value)

    with keras.StatelessScope(state_mapping=[(v, v.value + tf.cast(apart, v.dtype)) for v in states]) as scope:
        yield updates
