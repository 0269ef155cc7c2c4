"""Losses and metrics that Keras' own fit takes on JAX, so that they mean what those of `step.py` mean on TensorFlow."""

from typing import Any

import keras
import numpy as np
from keras import ops

from bigkeras.data.plan import class_weights
from bigkeras.data.source import Splits
from bigkeras.recipe import Recipe, check_smoothing
from bigkeras.tasks import LOSSES

# The means over examples or tokens of the loss, as trained (with the weights of classes) and as validated: Keras' own
# mean counts what only fills the last batch, and penalties.
TRAINED_LOSS, PLAIN_LOSS = "trained_loss", "plain_loss"
MACRO_F1 = "macro_f1"


def make_loss(recipe: Recipe, splits: Splits, num_classes: int) -> keras.losses.Loss:
    """As on TensorFlow: the sum over the batch divided by its valid examples or, without classes, tokens."""
    reduction = "mean_with_sample_weight"
    if not num_classes:
        return TokenCrossEntropy(reduction=reduction, **recipe.loss.args)
    loss = LOSSES[recipe.task.name][recipe.loss.name](**recipe.loss.args)
    loss.reduction = reduction
    if recipe.balance != "class_weights":
        return loss
    return ClassWeighted(loss, class_weights(splits.train.labels, num_classes), reduction=reduction)


def make_metrics(loss: keras.losses.Loss, num_classes: int) -> list[Any]:
    """What is measured of weighted batches, under the names that TensorFlow's step gives."""
    plain = loss.inner if isinstance(loss, ClassWeighted) else loss
    losses = {TRAINED_LOSS: loss, PLAIN_LOSS: plain}
    measured: list[Any] = [PlainMean(one.call, name=name) for name, one in losses.items()]
    if not num_classes:
        accuracy = PlainMean(keras.metrics.sparse_categorical_accuracy, name="accuracy")
        return [accuracy, *measured, Perplexity(TokenCrossEntropy().call, name="perplexity")]
    measured = ["accuracy", *measured]
    if num_classes > 5:
        measured.append(keras.metrics.TopKCategoricalAccuracy(5, name="top5_accuracy"))
    return [*measured, MacroF1(average="macro", name=MACRO_F1)]


class ClassWeighted(keras.losses.Loss):
    """A loss of one-hot or mixed targets, times the weight of their class; the batch's mean is not divided by it."""

    def __init__(self, loss: keras.losses.Loss, weights: np.ndarray, **kwargs):
        super().__init__(**kwargs)
        self.inner, self.class_weights = loss, weights

    def call(self, y_true, y_pred):
        """`(batch,)` of targets and logits `(batch, classes)`."""
        return self.inner.call(y_true, y_pred) * ops.matmul(ops.cast(y_true, "float32"), self.class_weights)


class TokenCrossEntropy(keras.losses.Loss):
    """What `tasks.cross_entropy.token_cross_entropy` computes, by Keras' operations, whose gradients XLA fuses."""

    def __init__(self, label_smoothing: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        check_smoothing(label_smoothing)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        """Nats `(batch, length)` of int labels and of logits `(batch, length, vocabulary)`."""
        logits = ops.cast(y_pred, "float32")
        chosen = ops.take_along_axis(logits, ops.cast(y_true, "int32")[..., None], axis=-1)[..., 0]
        smoothing = self.label_smoothing * (chosen - ops.mean(logits, axis=-1))
        return ops.logsumexp(logits, axis=-1) - chosen + smoothing


class PlainMean(keras.metrics.MeanMetricWrapper):
    """The mean over examples or tokens; Keras' own takes each sentence's first: a token of a wide batch counts less."""

    def update_state(self, y_true, y_pred, sample_weight):
        """Labels, logits, and a weight for each value that the function gives."""
        values, weights = self._fn(y_true, y_pred), ops.cast(sample_weight, self.dtype)
        keras.metrics.Mean.update_state(self, ops.reshape(values, (-1,)), ops.reshape(weights, (-1,)))


class Perplexity(PlainMean):
    """e to the mean of what its function gives, nats a token."""

    def result(self):
        """At least 1."""
        return ops.exp(super().result())


class MacroF1(keras.metrics.F1Score):
    """The mean F1, of the likeliest class, of the classes that occur or are answered, as `metrics.macro_f1` has it.

    Keras' own counts the other classes as 0, takes no logit of 0, and two of a tie.
    """

    def update_state(self, y_true, y_pred, sample_weight=None):
        """One-hot labels and logits, both `(batch, classes)`, and weights `(batch,)`."""
        answers = ops.one_hot(ops.argmax(y_pred, axis=-1), y_pred.shape[-1])
        super().update_state(y_true, answers, sample_weight)

    def result(self):
        """From 0 to 1."""
        both = 2 * self.true_positives + self.false_positives + self.false_negatives
        f1 = 2 * self.true_positives / ops.maximum(both, 1)
        return ops.sum(f1) / ops.maximum(ops.sum(ops.cast(both > 0, f1.dtype)), 1)
