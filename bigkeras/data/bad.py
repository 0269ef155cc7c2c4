"""Bad examples: a pipeline that goes on past files that cannot be decoded, and the reason for each."""

import re
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from bigkeras.data.source import Source

Row = dict[str, Any]

CHUNK = 8  # rows that one thread prepares in turn


def decode_or_mark(rows: tf.data.Dataset, prepare: Callable[[Row], Row], parallel: int) -> tf.data.Dataset:
    """`rows.map(prepare)`, in order and in parallel, that does not fail where `prepare` does.

    `rows` are dicts of tensors, one example each; `prepare` is a graph function that gives a row's keys and others,
    of static shapes. Every element has a bool "valid", too; where it is False the row's own values stand, and zeros
    in place of the others.
    """
    spec = rows.map(prepare).element_spec

    def good(item: Row) -> Row:
        return {"place": item["place"], "made": prepare(item["row"])}

    def survivors_of(chunk: Row) -> tf.data.Dataset:
        count = tf.shape(next(iter(chunk.values())), tf.int64)[0]
        items = tf.data.Dataset.from_tensor_slices({"row": chunk, "place": tf.range(count)})
        kept = items.map(good).ignore_errors().batch(CHUNK)
        return kept.concatenate(_none(spec)).take(1).map(lambda found: _filled(chunk, found, spec))

    # tf.data has no try: an error is a missing element, and the places of those left tell which. A chunk at a time,
    # since every inner data set sets up its functions anew: 1.4 ms with this project's decoder.
    return (
        rows.batch(CHUNK)
        .interleave(
            survivors_of, cycle_length=parallel, block_length=1, num_parallel_calls=parallel, deterministic=True
        )
        .unbatch()
    )


def reason(source: Source, index: int, prepare: Callable[[Row], Any]) -> str:
    """One line that says why `prepare(source.fetch(index))` fails; empty where it does not."""
    try:
        prepare(source.fetch(tf.constant(index, tf.int64)))
    except (tf.errors.OpError, ValueError, OSError) as error:
        return short(str(error))
    return ""


def short(message: str) -> str:
    """What a TensorFlow error says, without nodes and stack: one line."""
    told = re.search(r"assertion failed: \[(.*?)\]", message, re.DOTALL)
    if told:
        return told[1]
    told = re.search(r"Summarized data: b'(.*)'", message)  # called eagerly
    if told:
        return told[1]
    raised = re.search(r"ValueError: (.*)", message)
    if raised:
        return raised[1].strip()
    text = re.sub(r"\{\{.*?\}\}", "", message.split(" [Op:")[0].split("\n")[0])
    return " ".join(text.split())


def _none(spec: Any) -> tf.data.Dataset:
    """What a chunk gives of which every row failed: one batch of no elements."""
    made = tf.nest.map_structure(lambda s: tf.zeros((0, *s.shape), s.dtype), dict(spec))
    return tf.data.Dataset.from_tensors({"place": tf.zeros(0, tf.int64), "made": made})


def _filled(chunk: Row, found: Row, spec: Any) -> Row:
    """All of a chunk's rows, with zeros at the places that were not found."""
    count = tf.shape(next(iter(chunk.values())), tf.int64)[0]
    numbers = tf.range(1, 1 + tf.size(found["place"], tf.int64))
    origin = tf.scatter_nd(found["place"][:, tf.newaxis], numbers, [count])  # 0 where it was not found

    def spread(made: tf.Tensor) -> tf.Tensor:
        def with_zeros() -> tf.Tensor:
            return tf.gather(tf.concat([tf.zeros((1, *made.shape[1:]), made.dtype), made], 0), origin)

        return tf.cond(tf.shape(made)[0] == tf.shape(origin)[0], lambda: made, with_zeros)

    values = {k: chunk[k] if k in chunk else tf.nest.map_structure(spread, found["made"][k]) for k in spec}
    return {**values, "valid": origin > 0}
