"""Latent semantic analysis of the training texts, as one number for each token and class."""

from collections.abc import Iterable
from itertools import chain
from typing import Any

import keras
import numpy as np
from keras import ops

from bigkeras.layers.naive_bayes import distinct_ids

Batches = Iterable[tuple[np.ndarray, np.ndarray]]
# Tokens beyond the most frequent so many have no vector: 500,000 of 200 numbers are 400 MB while it is computed.
MOST_TOKENS = 500_000
# Above this share of all tokens, a token counts less, by the root of how much more frequent it is.
FREQUENT = 1e-4
# Of the logistic regression, on means of vectors whose length is about 1; 10 and 100 are as good (docs/texts.md).
INVERSE_PENALTY = 30.0
# A text counts as if it had so many tokens more that tell nothing: what is said in three words is less sure.
UNTOLD = 20


@keras.saving.register_keras_serializable(package="bigkeras")
class LatentSemantics(keras.layers.Layer):
    """Distinct token ids int `(batch, length)`, 0 is padding → logits float32 `(batch, classes)`, not trained.

    `adapt_texts` finds a vector of `dimensions` for each token by truncated singular value decomposition of the
    positive pointwise mutual information of the training texts and their tokens, of length 1, from which the average
    text's is taken away; a text is their mean, over `untold` tokens more than it has, and a logistic regression tells
    the classes by it. All of this is linear, so that each token keeps its own logits alone. Until it has adapted, all
    logits are 0.
    Source: Deerwester et al. 1990, "Indexing by Latent Semantic Analysis"; Bullinaria & Levy 2007, "Extracting semantic
    representations from word co-occurrence statistics", for the mutual information.
    """

    def __init__(self, vocabulary_size: int, num_classes: int, dimensions: int, untold: int = UNTOLD, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.vocabulary_size, self.num_classes, self.dimensions = vocabulary_size, num_classes, dimensions
        self.untold = untold
        self.columns = 1 if num_classes == 2 else num_classes

    def build(self, input_shape) -> None:
        """Makes the table `(vocabulary, columns)` and the intercept; two classes share a column, the second one's."""
        shape = (self.vocabulary_size, self.columns)
        self.scores = self.add_weight(name="scores", shape=shape, initializer="zeros", trainable=False)
        self.intercept = self.add_weight(name="intercept", shape=shape[1:], initializer="zeros", trainable=False)

    def call(self, tokens):
        """Gives the logits: the mean of the tokens' scores, short texts' nearer to 0, and the intercept."""
        known = ops.cast(ops.not_equal(tokens, 0), "float32")[..., None]
        total = ops.sum(ops.take(self.scores, tokens, axis=0) * known, axis=1)
        logits = total / ops.maximum(ops.sum(known, axis=1) + self.untold, 1) + self.intercept
        return ops.concatenate([-logits / 2, logits / 2], axis=-1) if self.num_classes == 2 else logits

    def compute_output_shape(self, input_shape) -> tuple:
        """The shape that `call` gives."""
        return (input_shape[0], self.num_classes)

    def adapt_texts(self, labelled: Batches, unlabelled: Batches = ()) -> None:
        """Sets table and intercept from ids `(batch, any length)` and labels `(batch,)` of the whole training split.

        `unlabelled`: texts that tell vectors, and whose labels are not looked at.
        """
        labels: list[np.ndarray] = []
        texts = _texts_by_tokens(chain(_noted(labelled, labels), unlabelled), self.vocabulary_size)
        answers = np.concatenate(labels)
        frequency = np.bincount(texts.indices, minlength=self.vocabulary_size)
        known = np.argsort(-frequency, kind="stable")[:MOST_TOKENS]
        known = np.sort(known[frequency[known] > 1])
        lengths, texts = np.diff(texts.indptr), texts[:, known]
        # Fewer texts or tokens than dimensions have no more of them.
        dimensions = min(self.dimensions, texts.shape[0] - 1, texts.shape[1] - 1)
        scores, intercept = np.zeros((self.vocabulary_size, self.num_classes)), np.zeros(self.num_classes)
        if dimensions > 0 and len(np.unique(answers)) > 1:
            vectors, texts, lengths = token_vectors(texts, dimensions), texts[: len(answers)], lengths[: len(answers)]
            vectors -= (texts @ vectors / np.maximum(lengths, 1)[:, None]).mean(0)
            means = texts @ vectors / np.maximum(lengths + self.untold, 1)[:, None]
            kernel, intercept = _classifier(means, answers, self.num_classes)
            scores[known] = vectors @ kernel
        if self.num_classes == 2:
            scores, intercept = np.diff(scores), np.diff(intercept)
        self.scores.assign(scores)
        self.intercept.assign(intercept)

    def continue_from(self, other: "LatentSemantics") -> None:
        """Takes over another's table; a token that its texts did not have keeps what was found here.

        Raises ValueError for one of another `untold`, whose scores mean something else.
        """
        if other.untold != self.untold:
            told = f"untold={other.untold} in the source and {self.untold} in the target"
            raise ValueError(f"layer {self.name} has {told}")
        scores, theirs = np.asarray(self.scores), np.asarray(other.scores)
        self.scores.assign(np.where(theirs.any(1, keepdims=True), theirs, scores))
        self.intercept.assign(np.asarray(other.intercept))

    def get_config(self) -> dict:
        """The constructor's arguments."""
        own = {"vocabulary_size": self.vocabulary_size, "num_classes": self.num_classes}
        return {**super().get_config(), **own, "dimensions": self.dimensions, "untold": self.untold}

    @classmethod
    def from_config(cls, config: dict) -> "LatentSemantics":
        """A layer that was saved before there was `untold` has none."""
        return cls(**{"untold": 0, **config})


@keras.saving.register_keras_serializable(package="bigkeras")
class LearnedApart(keras.layers.Layer):
    """Trained logits and found ones, `(batch, classes)` each → their mean, and in training the trained ones.

    What is found from the training texts knows their labels: trained beside it, the other would learn what it lacks
    there, and not what new texts lack (docs/texts.md).
    """

    def call(self, inputs, training=False):
        """`inputs`: the trained and the found logits."""
        trained, found = inputs
        return trained if training else (trained + found) / 2

    def compute_output_shape(self, input_shape) -> tuple:
        """The shape that `call` gives."""
        return input_shape[0]


def token_vectors(texts: Any, dimensions: int) -> np.ndarray:
    """Vectors `(tokens, dimensions)` from a sparse matrix `(texts, tokens)` of ones; frequent tokens have short ones.

    The rest have length 1. Every token stands in a text, and there are more texts and more tokens than dimensions.
    """
    from scipy.sparse import csr_matrix
    from sklearn.utils.extmath import randomized_svd

    frequency, lengths = np.bincount(texts.indices, minlength=texts.shape[1]), np.diff(texts.indptr)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    information = np.maximum(0, np.log(texts.nnz / (lengths[rows] * frequency[texts.indices])))
    norms = np.sqrt(np.bincount(rows, information**2, len(lengths)))
    information = (information / np.maximum(norms[rows], 1e-9)).astype(np.float32)
    weighted = csr_matrix((information, texts.indices, texts.indptr), texts.shape)
    _, sizes, vectors = randomized_svd(weighted, dimensions, n_iter=3, random_state=0)
    vectors = vectors.T * np.sqrt(sizes)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    share = frequency / frequency.sum()
    return vectors * np.minimum(1, np.sqrt(FREQUENT / share))[:, None].astype(np.float32)


def _noted(batches: Batches, labels: list[np.ndarray]) -> Batches:
    for tokens, answers in batches:
        labels.append(answers)
        yield tokens, answers


def _texts_by_tokens(batches: Batches, vocabulary_size: int) -> Any:
    """A sparse matrix `(texts, vocabulary)` with a one where a text has a token."""
    from scipy.sparse import csr_matrix

    found, lengths = zip(*(distinct_ids(tokens) for tokens, _ in batches), strict=True)
    indices, ends = np.concatenate(found), np.cumsum(np.concatenate(lengths))
    shape = (len(ends), vocabulary_size)
    return csr_matrix((np.ones(len(indices), np.float32), indices, np.append(0, ends)), shape)


def _classifier(features: np.ndarray, labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Kernel `(width, classes)` and intercept `(classes,)` of a logistic regression."""
    from sklearn.linear_model import LogisticRegression

    size = np.sqrt((features**2).sum(1).mean())
    fitted = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000).fit(features / max(size, 1e-9), labels)
    kernel, intercept = fitted.coef_ / max(size, 1e-9), fitted.intercept_
    if len(fitted.classes_) == 2:
        kernel, intercept = np.concatenate([-kernel, kernel]) / 2, np.concatenate([-intercept, intercept]) / 2
    # A class that no training text has is less likely than any other.
    all_kernels = np.zeros((num_classes, features.shape[1]))
    all_intercepts = np.full(num_classes, intercept.min() - np.log(len(labels)))
    all_kernels[fitted.classes_], all_intercepts[fitted.classes_] = kernel, intercept
    return all_kernels.T, all_intercepts
