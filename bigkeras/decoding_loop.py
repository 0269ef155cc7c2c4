"""The loop of a search: step after step until every sentence is over, in no more work than that takes.

Sentences that have ended leave the batch, and the caches of keys and values grow while they are written: attention
takes time for all that they have room for. Graph functions, for `decoding.py`.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

# How often a compiled graph halves its batch at most: each time costs the compilation of the loop once more.
HALVINGS = 2

# A plain graph's caches have room for so many steps at first, and for twice as many whenever they are full; those of a
# compiled one for half of all at first.
STEPS_AT_FIRST = 16


def steps_at_first(stepper: Any, width):
    """How many steps the caches have room for at first, of `width`."""
    return (width + 1) // 2 if stepper.compiled else tf.minimum(STEPS_AT_FIRST, width)


def until_over(step: Callable, now: dict, stepper: Any, width) -> tuple[tf.Tensor, tf.Tensor]:
    """Takes at most `width` steps until every sentence is over: ids and scores found for each, in the first order.

    `now`: tensors whose first axis is the sentences, among them `over` and `found`; `row`, which is added, tells a
    sentence's place in the first order. `step`: (index, now) → now.
    """
    now, found = {**now, "row": tf.range(tf.shape(now["over"])[0])}, now["found"]
    if stepper.compiled:
        return _until_over_compiled(step, now, found, stepper, width)
    index = tf.constant(0)

    def one(index, now, found):
        room = stepper.room(now["state"])
        if room is not None:
            state = tf.cond(
                index < room,
                lambda: now["state"],
                lambda: stepper.grown(now["state"], tf.minimum(2 * room, width)),
            )
            now = {**now, "state": state}
        now = step(index, now)
        # A sentence leaves when half of the batch is over.
        few = 2 * _unfinished(now) <= tf.size(now["row"])
        now, found = tf.cond(
            few, lambda: (_rows(now, tf.where(~_over(now))[:, 0]), _placed(found, now)), lambda: (now, found)
        )
        return index + 1, now, found

    shapes = tf.nest.map_structure(lambda x: tf.TensorShape([None, *x.shape[1:]]), now)
    if stepper.room(now["state"]) is not None:
        for name in stepper.growing:
            shapes["state"][name] = tf.nest.map_structure(
                lambda x: tf.TensorShape([None, x.shape[1], None, *x.shape[3:]]), now["state"][name]
            )
    same = tf.nest.map_structure(lambda x: x.shape, found)
    start = (index, now, found)
    found = tf.while_loop(
        lambda index, now, found: _unfinished(now) > 0, one, start, shape_invariants=(index.shape, shapes, same)
    )[2]
    return found["ids"], found["scores"]


def _until_over_compiled(step: Callable, now: dict, found: dict, stepper: Any, width) -> tuple[tf.Tensor, tf.Tensor]:
    """The same in static shapes: with half the room, until half of the sentences are over or it is full; then with all.

    The batch is halved a few times, when half of what is left is over.
    """
    index, now = _until(_half(now), steps_at_first(stepper, width), step, tf.constant(0), now)
    now = {**now, "state": stepper.grown(now["state"], width)}
    found = _halving(HALVINGS, step, index, now, _placed(found, now), width)
    return found["ids"], found["scores"]


def _halving(halvings: int, step: Callable, index, now: dict, found: dict, width) -> dict:
    """What is found when all are over; the batch is halved so often at most, and one sentence not at all."""
    left = _half(now) if halvings else 0
    index, now = _until(left, width, step, index, now)
    found = _placed(found, now)
    if not halvings:
        return found

    def halved():
        # As many rows as are left at most, those that are not over first.
        rows = tf.argsort(tf.cast(_over(now), tf.int32), stable=True)[:left]
        return _halving(halvings - 1, step, index, _rows(now, rows), found, width)

    # Not `tf.cond`: of a case whose number it knows, as here from the shape, XLA compiles nothing but that one.
    return tf.switch_case(tf.cast(left > 0, tf.int32), [lambda: found, halved])


def _until(left, last, step: Callable, index, now: dict) -> tuple[tf.Tensor, dict]:
    """Takes steps until at most `left` sentences are not over, or the step `last` is reached."""
    return tf.while_loop(
        lambda index, now: (_unfinished(now) > left) & (index < last),
        lambda index, now: (index + 1, step(index, now)),
        (index, now),
    )


def _half(now: dict) -> tf.Tensor:
    return tf.shape(now["row"])[0] // 2


def _over(now: dict) -> tf.Tensor:
    """Whether each sentence is over, all that is looked for of it: bool `(rows,)`."""
    over = now["over"]
    return over if over.shape.rank == 1 else tf.reduce_all(over, axis=1)


def _unfinished(now: dict) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(~_over(now), tf.int32))


def _rows(now: dict, rows: tf.Tensor) -> dict:
    return tf.nest.map_structure(lambda x: tf.gather(x, rows), now)


def _placed(found: dict, now: dict) -> dict:
    """`found` with what stands in `now`, each in the row where it was at first."""
    places = now["row"][:, None]
    return {name: tf.tensor_scatter_nd_update(all_, places, now["found"][name]) for name, all_ in found.items()}
