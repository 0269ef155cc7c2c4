"""Sentence pairs as token ids in memory: counted once, read in every epoch."""

from typing import Any

import numpy as np

from bigkeras.data.source import Source

Flat = tuple[np.ndarray, np.ndarray]  # all ids, one after the other, int32; how many each example has, int64 (n,)


class TokenPairSource:
    """Ragged token ids of sources and targets; made of a source of sentence pairs.

    A pair may have several segmentations into subwords, or versions with other names; that at place 0 is its own.
    """

    batched = True

    def __init__(self, source: Flat, target: Flat, texts: Source, segmentations: int = 1):
        """`source`, `target`: the ids of all examples; `texts`: where they come from, in the same order.

        Of an example as many follow one another as there are `segmentations`.
        """
        self.source, self.target, self.texts, self.segmentations = source, target, texts, segmentations
        self.labels = texts.labels
        # `(n, 2)`, those of the longest segmentations: the plan batches pairs by tokens.
        self.lengths = np.stack([side[1].reshape(-1, segmentations).max(1) for side in (source, target)], 1)
        # How many target ids are read of all examples in an epoch, on average.
        self.target_tokens = float(target[1].reshape(-1, segmentations).mean(1).sum())
        self._tokens: Any = None
        self._either: Any = None  # each side, and the other one after it

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return self.texts.name(index)

    def fetch(self, index: Any, segmentation: Any = 0, turned: Any = None) -> dict[str, Any]:
        """{"source": ragged int32 `(batch, any)`, "target": the same} at the indices `(batch,)`.

        `segmentation`: which of each, an int or `(batch,)`. `turned`: bool `(batch,)`, of which source and target are
        changed over.
        """
        import tensorflow as tf

        if self._tokens is None:
            with tf.init_scope(), tf.device("cpu"):
                both = {"source": self.source, "target": self.target}
                self._tokens = {key: tf.RaggedTensor.from_row_lengths(*flat) for key, flat in both.items()}
        rows = index * self.segmentations + segmentation
        if turned is None:
            return {key: tf.gather(tokens, rows) for key, tokens in self._tokens.items()}
        if self._either is None:
            with tf.init_scope(), tf.device("cpu"):
                sides = [self._tokens["source"], self._tokens["target"]]
                self._either = {"source": tf.concat(sides, 0), "target": tf.concat(sides[::-1], 0)}
        rows += tf.cast(turned, rows.dtype) * len(self) * self.segmentations
        return {key: tf.gather(tokens, rows) for key, tokens in self._either.items()}
