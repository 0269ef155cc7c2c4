"""fastText's classifier: the mean of the n-grams' vectors, and one linear layer."""

import keras

from bigkeras.models.blocks import classifier
from bigkeras.models.sequences import check_sequence, embedded, pool, positive, token_input

L = keras.layers


def bag_of_ngrams(
    *, vocabulary_size: int, length: int, num_classes: int, width: int = 64, dropout: float = 0.0, shards: int = 1
) -> keras.Model:
    """The mean of embeddings, then logits: order is known only through the n-grams that the ids stand for.

    Input: ids of words and of hashed word pairs, in any order, `(batch, any length)`, 0 is padding; `length` is the
    pipeline's affair. `shards`: see `sequences.embedded`. Raises ValueError for sizes below 1.
    Source: Joulin et al. 2016 (arXiv 1607.01759), sections 2 and 2.2.
    """
    check_sequence(num_classes=num_classes, dropout=dropout, vocabulary_size=vocabulary_size, length=length)
    positive(width=width)
    inputs, mask = token_input()
    x = embedded(inputs, vocabulary_size=vocabulary_size, width=width, shards=shards)
    x = pool(x, mask, pooling="mean")
    return keras.Model(inputs, classifier(x, num_classes=num_classes, dropout=dropout), name="bag_of_ngrams")
