"""Requests that TensorFlow Serving answers while it loads a model, so that nobody waits for its first answers.

`assets.extra/tf_serving_warmup_requests` beside saved_model.pb is a TFRecord of PredictionLog messages
(https://www.tensorflow.org/tfx/serving/saved_model_warmup). They are nested fields of a few bytes, and written as such:
the package that has these messages, tensorflow-serving-api, would bring gRPC into every installation.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

FILE = "assets.extra/tf_serving_warmup_requests"
BATCHES = (1, 8)
# Not the user's own texts or images: an artifact is passed on, and its data may not be.
SENTENCE = b"This is a sentence, and here is another one that is somewhat longer."


def write_requests(
    directory: Path,
    name: str,
    example: bytes,
    signatures: Sequence[str] = ("serving_default",),
    batches: Sequence[int] = BATCHES,
    more: Sequence[tuple[str, bytes, int]] = (),
) -> None:
    """Adds the file to a SavedModel's directory: requests to each signature, an example so many times in each.

    `name`: the signatures' input, of strings `(batch,)`. `more`: requests of other examples: signature, example, how
    many times.
    """
    path = directory / FILE
    path.parent.mkdir()
    requests = [(signature, example, size) for signature in signatures for size in batches]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, text, size in (*requests, *more):
            tensor = tf.make_tensor_proto(np.array([text] * size, object)).SerializeToString()
            # PredictRequest: model_spec (its signature_name) and inputs, a map of names to tensors.
            request = _field(1, _field(3, signature.encode()))
            request += _field(2, _field(1, name.encode()) + _field(2, tensor))
            # PredictionLog: predict_log, whose request it is.
            writer.write(_field(6, _field(1, request)))


def gray_image(shape: Sequence[int]) -> bytes:
    """A PNG file of one colour, `(height, width, channels)`."""
    return tf.io.encode_png(tf.fill(tuple(shape), tf.constant(127, tf.uint8))).numpy()


def _field(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer that holds bytes or a message: its number and kind, its length, its content."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says whether more follow."""
    return bytes([value & 127 | 128]) + _varint(value >> 7) if value > 127 else bytes([value])
