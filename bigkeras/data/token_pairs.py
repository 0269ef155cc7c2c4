"""Sentence pairs as token ids in memory: counted once, read in every epoch."""

from typing import Any

import numpy as np

from bigkeras.data.source import Source

Flat = tuple[np.ndarray, np.ndarray]  # all ids, one after the other, int32; how many each example has, int64 (n,)


class TokenPairSource:
    """Ragged token ids of sources and targets; made of a source of sentence pairs.

    A pair may have several versions: other segmentations into subwords, other names. The first is its own.
    """

    batched = True

    def __init__(self, source: Flat, target: Flat, texts: Source, versions: np.ndarray | None = None):
        """`source`, `target`: the ids of all examples; `texts`: where they come from, in the same order.

        `versions`: `(n,)`, how many of each example follow one another, one where nothing is said.
        """
        self.source, self.target, self.texts = source, target, texts
        self.labels = texts.labels
        self.versions = np.ones(len(self), np.int64) if versions is None else versions
        starts = np.cumsum(self.versions) - self.versions
        sides = [side[1] for side in (source, target)]
        # `(n, 2)`, those of the longest versions: the plan batches pairs by tokens.
        self.lengths = np.stack([np.maximum.reduceat(side, starts) for side in sides], 1)
        # How many target ids are read of all examples in an epoch, on average.
        self.target_tokens = float((np.add.reduceat(sides[1], starts) / self.versions).sum())
        self._starts = starts
        self._places: Any = None  # of each example, where its first version stands, and how many there are
        self._tokens: Any = None
        self._either: Any = None  # each side, and the other one after it

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return self.texts.name(index)

    def fetch(self, index: Any, drawn: Any = 0.0, turned: Any = None) -> dict[str, Any]:
        """{"source": ragged int32 `(batch, any)`, "target": the same} at the indices `(batch,)`.

        `drawn`: at random from [0, 1), a float or `(batch,)`: which version of each. `turned`: bool `(batch,)`, of
        which source and target are changed over.
        """
        import tensorflow as tf

        if self._tokens is None:
            with tf.init_scope(), tf.device("cpu"):
                both = {"source": self.source, "target": self.target}
                self._tokens = {key: tf.RaggedTensor.from_row_lengths(*flat) for key, flat in both.items()}
                self._places = tf.constant(self._starts), tf.constant(self.versions)
        first, versions = (tf.gather(column, index) for column in self._places)
        rows = first + tf.cast(drawn * tf.cast(versions, tf.float32), tf.int64)
        if turned is None:
            return {key: tf.gather(tokens, rows) for key, tokens in self._tokens.items()}
        if self._either is None:
            with tf.init_scope(), tf.device("cpu"):
                sides = [self._tokens["source"], self._tokens["target"]]
                self._either = {"source": tf.concat(sides, 0), "target": tf.concat(sides[::-1], 0)}
        rows += tf.cast(turned, tf.int64) * len(self.source[1])
        return {key: tf.gather(tokens, rows) for key, tokens in self._either.items()}
