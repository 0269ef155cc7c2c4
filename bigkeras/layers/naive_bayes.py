"""Evidence of tokens for classes: naive Bayes' ratios, counted from the training data, times trained weights."""

from collections.abc import Iterable

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="bigkeras")
class DistinctTokens(keras.layers.Layer):
    """Token ids int `(batch, length)` → the same ids in descending order, with 0 for repetitions."""

    def call(self, tokens):
        """Gives the ids: 0 may stand anywhere but before all others."""
        tokens = -ops.sort(-tokens, axis=1)
        before = ops.pad(tokens[:, :-1], [(0, 0), (1, 0)])
        return ops.where(ops.equal(tokens, before), ops.zeros_like(tokens), tokens)

    def compute_output_spec(self, tokens):
        """Of the shape and type of the tokens."""
        return keras.KerasTensor(tokens.shape, dtype=tokens.dtype)


def distinct_ids(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ids that each text `(batch, any length)` has, without padding, one text's after another's; how many each."""
    ordered = np.sort(tokens, axis=1)
    first = np.diff(ordered, axis=1, prepend=0) != 0
    return ordered[first], first.sum(1)


@keras.saving.register_keras_serializable(package="bigkeras")
class NaiveBayesEmbedding(keras.layers.Layer):
    """Token ids int `(batch, length)` → `(batch, length, columns)`: r_t · w_t of each token t.

    r_t, frozen, is the log of how much more often texts of a class have the token than all others; `adapt_labelled`
    counts it, and until then it is 1. w_t is trained, from 0. Two classes share one column, the second one's. The
    products are multiplied by `rate`: under Adam, w_t learns `rate` times as fast as the other weights.
    Source: Wang & Manning 2012, "Baselines and Bigrams", section 2; a class against the others where there are more.
    """

    def __init__(self, vocabulary_size: int, num_classes: int, smoothing: float = 1.0, rate: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.autocast = False  # both tables would be cast whole in every step
        self.rate = rate
        self.vocabulary_size, self.num_classes, self.smoothing = vocabulary_size, num_classes, smoothing
        self.columns = 1 if num_classes == 2 else num_classes

    def build(self, input_shape) -> None:
        """Makes both tables `(vocabulary, columns)`."""
        shape = (self.vocabulary_size, self.columns)
        self.ratios = self.add_weight(name="ratios", shape=shape, initializer="ones", trainable=False)
        self.embeddings = self.add_weight(name="embeddings", shape=shape, initializer="zeros")

    def call(self, tokens):
        """Gives the products."""
        products = ops.take(self.ratios, tokens, axis=0) * ops.take(self.embeddings, tokens, axis=0)
        return ops.cast(products * self.rate, self.compute_dtype)

    def compute_output_shape(self, input_shape) -> tuple:
        """The shape that `call` gives."""
        return (*input_shape, self.columns)

    def adapt_labelled(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        """Sets the ratios from ids `(batch, any length)` and labels `(batch,)` of the whole training split."""
        counts = np.zeros((self.vocabulary_size, self.num_classes))
        for tokens, labels in batches:
            ids, numbers = distinct_ids(tokens)
            np.add.at(counts, (ids, np.repeat(labels, numbers)), 1.0)
        total = counts.sum(1, keepdims=True)
        inside, outside = counts + self.smoothing, total - counts + self.smoothing
        ratios = np.log(inside / inside.sum(0)) - np.log(outside / outside.sum(0))
        # A token that no training text has says nothing.
        ratios = np.where(total > 0, ratios, 0.0)
        self.ratios.assign(ratios[:, -self.columns :])

    def continue_from(self, other: "NaiveBayesEmbedding") -> None:
        """Takes over another's tables; a token that its texts did not have keeps the ratio counted here.

        So that a token says as much as it did there, weights follow the rates by which products are multiplied.
        """
        ratios, theirs = np.asarray(self.ratios), np.asarray(other.ratios)
        self.ratios.assign(np.where(theirs == 0, ratios, theirs))
        self.embeddings.assign(np.asarray(other.embeddings) * (other.rate / self.rate))

    def get_config(self) -> dict:
        """The constructor's arguments."""
        own = {"vocabulary_size": self.vocabulary_size, "num_classes": self.num_classes}
        return {**super().get_config(), **own, "smoothing": self.smoothing, "rate": self.rate}


@keras.saving.register_keras_serializable(package="bigkeras")
class IdsBetween(keras.layers.Layer):
    """Token ids int `(batch, length)` → bool `(batch, length)`: True where `first` ≤ id < `end`."""

    def __init__(self, first: int, end: int, **kwargs):
        super().__init__(**kwargs)
        self.first, self.end = first, end

    def call(self, tokens):
        """Gives the mask."""
        return ops.logical_and(tokens >= self.first, tokens < self.end)

    def compute_output_spec(self, tokens):
        """Bool, of the shape of the tokens."""
        return keras.KerasTensor(tokens.shape, dtype="bool")

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "first": self.first, "end": self.end}


@keras.saving.register_keras_serializable(package="bigkeras")
class SumOverRoot(keras.layers.Layer):
    """The sum over the places that the mask lets count, divided by the root of their number.

    `(batch, length, width)` → float32 `(batch, width)`: long texts weigh more than by a mean and less than by a sum.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, inputs, mask):
        """`mask`: bool `(batch, length)`."""
        mask = ops.cast(mask, inputs.dtype)[..., None]
        count = ops.maximum(ops.sum(mask, axis=1), 1)
        return ops.sum(inputs * mask, axis=1) / ops.sqrt(count)

    def compute_mask(self, inputs, previous_mask) -> None:
        """None: one vector has no padding."""

    def compute_output_shape(self, input_shape) -> tuple:
        """The shape that `call` gives."""
        return (input_shape[0], input_shape[2])
