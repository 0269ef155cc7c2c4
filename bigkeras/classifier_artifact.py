"""The artifact of a classifier of images or texts: raw input in, labels and probabilities out; checked, then placed.

docs/artifact.md is the contract of what is written here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from bigkeras.float32 import in_float32
from bigkeras.parity import ExportError, difference, gate, quiet, sizes, softmax, unoptimised_calls
from bigkeras.placing import new_place, placed
from bigkeras.serving import Inputs, explanation, image_inputs, text_inputs
from bigkeras.tasks.text import TextPreprocessor
from bigkeras.warmup import SENTENCE, gray_image, write_requests

TOLERANCE = 1e-4  # of a probability
# The float32 artifact of a model trained in bfloat16 is the better one; this only finds a wrong rebuilding.
PRECISION_TOLERANCE = 0.1


class Preprocessor(Protocol):
    """What an export needs of a preprocessor of images: graph functions. Of texts, it takes a TextPreprocessor."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)` of what is decoded: asked where the model takes pictures of any size."""

    def decode(self, encoded: tf.Tensor) -> tf.Tensor:
        """Encoded bytes (scalar string) to uint8 `(height, width, channels)`."""

    def normalise(self, pixels: tf.Tensor) -> tf.Tensor:
        """uint8 `(batch, height, width, channels)` to the model's float32 input."""


def export_classifier(
    model: keras.Model,
    preprocessor: Preprocessor | TextPreprocessor,
    labels: Sequence[str],
    directory: str | Path,
    *,
    examples: Sequence[bytes],
    tolerance: float = TOLERANCE,
    files: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Writes `directory/1/`, labels.txt and `files` (name → text); gives sizes and measured differences.

    `model` gives logits `(batch, len(labels))` of what `preprocessor` makes of encoded images or of texts; whatever its
    precision, the artifact computes in float32. Before the directory gets its name it must give the Keras model's own
    probabilities on `examples`, to `tolerance`, by `tf.saved_model.load` and in a session. Raises ExportError, and then
    leaves nothing behind.
    """
    directory = Path(directory)
    new_place(directory)
    _check(model, labels, examples)
    plain = in_float32(model)
    prepared, expected = reference(plain, preprocessor, examples)
    contents = {"labels.txt": "".join(f"{label}\n" for label in labels).encode()}
    # A path in the card may be no UTF-8.
    contents |= {name: text.encode("utf-8", "backslashreplace") for name, text in (files or {}).items()}
    if isinstance(preprocessor, TextPreprocessor):
        contents |= preprocessor.files()
    with placed(directory, contents) as beside:
        inputs = _inputs(plain, preprocessor, beside)
        save(plain, inputs, labels, beside / "1", beside / "labels.txt")
        image = inputs.raw == "image"
        write_requests(beside / "1", inputs.raw, gray_image(inputs.spec.shape[1:]) if image else SENTENCE)
        report = {"examples": len(examples), "tolerance": tolerance, "directory": str(directory)}
        report["differences"] = gate(
            beside / "1", labels, examples, prepared, expected, tolerance, names=(inputs.raw, inputs.prepared)
        )
        report["precision_difference"] = _precision_difference(model, plain, inputs, prepared, expected)
        report |= sizes(beside / "1", plain)
    return report


def reference(
    model: keras.Model, preprocessor: Preprocessor | TextPreprocessor, examples: Sequence[bytes]
) -> tuple[np.ndarray, np.ndarray]:
    """What the artifact must reproduce: pixels or token ids of the examples, and the Keras model's own logits."""
    with tf.device("/CPU:0"):
        if isinstance(preprocessor, TextPreprocessor):
            tokens = text_inputs(preprocessor).prepare(tf.constant(list(examples)))
            return tokens.numpy(), np.asarray(model(tokens, training=False), np.float32)
        try:
            pixels = tf.stack([preprocessor.decode(tf.constant(example)) for example in examples])
        except tf.errors.InvalidArgumentError as error:
            raise ExportError(f"an example cannot be decoded: {error.message.splitlines()[0]}") from None
        given, taken = tuple(pixels.shape[1:]), model.input_shape[1:]
        # A model of one's own may take any height and width.
        if len(given) != len(taken) or any(size not in (None, own) for own, size in zip(given, taken, strict=True)):
            raise ExportError(f"the preprocessor gives {given}, the model takes {taken}")
        logits = model(preprocessor.normalise(pixels), training=False)
    return pixels.numpy(), np.asarray(logits, np.float32)


def _inputs(model: keras.Model, preprocessor: Preprocessor | TextPreprocessor, directory: Path) -> Inputs:
    if isinstance(preprocessor, TextPreprocessor):
        return text_inputs(preprocessor, directory)
    taken = model.input_shape[1:]
    return image_inputs(preprocessor, preprocessor.shape if None in taken else taken)


def save(model: keras.Model, inputs: Inputs, labels: Sequence[str], directory: Path, labels_file: Path) -> None:
    """Writes the SavedModel of docs/artifact.md to `directory`, unchecked."""

    def answers(logits: tf.Tensor) -> dict[str, tf.Tensor]:
        probability, order = tf.math.top_k(tf.nn.softmax(logits), k=len(labels))
        return {"label": tf.gather(tf.constant(list(labels)), order), "probability": probability}

    @tf.function(input_signature=[inputs.spec])
    def compute(prepared: tf.Tensor) -> tf.Tensor:
        # oneDNN's convolution gives a wrong shape for an empty batch (TensorFlow 2.21): one black image stands in.
        count = tf.shape(prepared)[0]
        some = tf.pad(prepared, [[0, tf.maximum(0, 1 - count)], *[[0, 0]] * (len(inputs.spec.shape) - 1)])
        return tf.cast(model(inputs.normalise(some), training=False), tf.float32)[:count]

    @tf.function(input_signature=compute.input_signature)
    def from_prepared(prepared: tf.Tensor) -> dict[str, tf.Tensor]:
        return answers(compute(prepared))

    @tf.function(input_signature=compute.input_signature)
    def to_logits(prepared: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": compute(prepared)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=inputs.raw)])
    def from_raw(raw: tf.Tensor) -> dict[str, tf.Tensor]:
        return answers(compute(inputs.prepare(raw)))

    module = tf.Module()
    # The tf.Variables, not the Keras model: held through it they are saved as copies, which the C++ loader of servers
    # does not restore.
    module.weights = [weight.value for weight in model.weights]
    module.labels = tf.saved_model.Asset(str(labels_file))
    module.held = list(inputs.held)
    signatures = {"serving_default": from_raw, inputs.prepared: from_prepared, "logits": to_logits}
    if inputs.raw == "text":
        signatures["explain"] = explanation(lambda text: tf.nn.softmax(compute(inputs.prepare(text))), labels)
    with quiet(), unoptimised_calls():
        tf.saved_model.save(module, str(directory), signatures=signatures)


def _check(model: keras.Model, labels: Sequence[str], examples: Sequence[bytes]) -> None:
    if not examples:
        raise ExportError("no examples: the artifact is compared with the model on at least one")
    if model.output_shape != (None, len(labels)):
        raise ExportError(f"{len(labels)} labels for a model of output shape {model.output_shape}: one label a class")
    for label in labels:
        if not label.strip() or "\n" in label or "\r" in label:
            raise ExportError(f"label {label!r}: a class name is one line of text, for labels.txt has one a line")
        if labels.count(label) > 1:
            raise ExportError(f"label {label!r}: stands there twice; an answer must name one class")


def _precision_difference(
    model: keras.Model, plain: keras.Model, inputs: Inputs, prepared: np.ndarray, expected: np.ndarray
) -> float:
    """Largest difference of a probability between the model as trained and its float32 twin."""
    if plain is model:
        return 0.0
    with tf.device("/CPU:0"):
        logits = tf.cast(model(inputs.normalise(prepared), training=False), tf.float32)
    where = "the model as trained against its float32 twin"
    return difference(where, softmax(logits.numpy()), softmax(expected), PRECISION_TOLERANCE)
