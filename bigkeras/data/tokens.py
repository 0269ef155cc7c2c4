"""Texts as token ids in memory: counted once, read in every epoch."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bigkeras.data.source import Source


class TokenSource:
    """Ragged token ids, one flat int32 array and the places where the examples begin; made of a source of texts."""

    batched = True

    def __init__(self, values: np.ndarray, lengths: Sequence[int] | np.ndarray, texts: Source):
        """`values`: the ids of all examples, one after the other. `lengths`: how many each has, int `(n,)`."""
        self.values = np.asarray(values, np.int32)
        self.lengths = np.asarray(lengths, np.int64)
        self.texts = texts
        self.labels = texts.labels
        self._tokens: Any = None

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return self.texts.name(index)

    def fetch(self, index: Any) -> dict[str, Any]:
        """{"tokens": ragged int32 `(batch, any)`} at the indices `(batch,)`."""
        import tensorflow as tf

        if self._tokens is None:
            with tf.init_scope(), tf.device("cpu"):
                self._tokens = tf.RaggedTensor.from_row_lengths(self.values, self.lengths)
        return {"tokens": tf.gather(self._tokens, index)}
