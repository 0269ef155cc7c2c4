"""What a step measures that Keras has no metric for."""

from typing import Any

import keras
import tensorflow as tf


class ConfusionMatrix(keras.metrics.Metric):
    """Counts of (true, predicted) classes, float32 `(classes, classes)`; Keras has none."""

    def __init__(self, num_classes: int, name: str = "confusion_matrix"):
        super().__init__(name=name)
        self.num_classes = num_classes
        self.matrix = self.add_variable((num_classes, num_classes), keras.initializers.Zeros(), name="matrix")

    def update_state(self, labels: Any, predictions: Any, sample_weight: Any = None) -> None:
        """`labels`, `predictions`: int `(batch,)`; `sample_weight`: float `(batch,)`."""
        counts = tf.math.confusion_matrix(labels, predictions, self.num_classes, sample_weight, tf.float32)
        self.matrix.assign_add(counts)

    def result(self) -> Any:
        return tf.convert_to_tensor(self.matrix)


class Perplexity(keras.metrics.Mean):
    """e to the mean of what it is given, nats a token."""

    def result(self) -> Any:
        return tf.exp(super().result())
