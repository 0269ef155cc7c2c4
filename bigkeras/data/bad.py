"""Bad examples: a pipeline that goes on past files that cannot be decoded, and the reason for each."""

import re
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from bigkeras.data.source import Source

Row = dict[str, Any]


def decode_or_mark(rows: tf.data.Dataset, prepare: Callable[[Row], Row], parallel: int) -> tf.data.Dataset:
    """`rows.map(prepare)`, in order and in parallel, that does not fail where `prepare` does.

    `rows` are dicts of tensors, one example each; `prepare` is a graph function that gives a row's keys and others,
    of static shapes. Every element has a bool "valid", too; where it is False the row's own values stand, and zeros
    in place of the others.
    """
    spec = rows.map(prepare).element_spec

    def prepared(row: Row) -> Row:
        return {**prepare(row), "valid": tf.constant(True)}

    def empty(row: Row) -> Row:
        zeros = tf.nest.map_structure(lambda s: tf.zeros(s.shape, s.dtype), dict(spec))
        return {**zeros, **{key: row[key] for key in row if key in spec}, "valid": tf.constant(False)}

    def either(row: Row) -> tf.data.Dataset:
        one = tf.data.Dataset.from_tensors(row)
        return one.map(prepared).ignore_errors().concatenate(one.map(empty)).take(1)

    # tf.data has no try: an error is a missing element, for which the next one, the empty one, is taken.
    return rows.interleave(
        either, cycle_length=parallel, block_length=1, num_parallel_calls=parallel, deterministic=True
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
