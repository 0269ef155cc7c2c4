"""Naive Bayes' log-count ratios of n-grams with trained weights: the strong linear baseline of sentiment."""

import keras

from bigkeras.layers import DistinctTokens, NaiveBayesEmbedding, PaddingMask, SumOverRoot
from bigkeras.models.sequences import check_sequence

L = keras.layers


def nb_ngrams(*, vocabulary_size: int, length: int, num_classes: int, smoothing: float = 1.0) -> keras.Model:
    """Logits from the set of a text's n-grams, each weighted by how the classes differ in it.

    Input: ids of words and of hashed n-grams, in any order, `(batch, any length)`, 0 is padding; `length` is the
    pipeline's affair. Call `model.get_layer("embedding").adapt_labelled(batches)` with the training split before
    training, as the trainer does. Raises ValueError for sizes below 1 and a smoothing that is not positive.
    Source: Wang & Manning 2012, "Baselines and Bigrams"; with trigrams: Mesnil et al. 2014 (arXiv 1412.5335).
    """
    check_sequence(num_classes=num_classes, dropout=0.0, vocabulary_size=vocabulary_size, length=length)
    if smoothing <= 0:
        raise ValueError(f"smoothing={smoothing}: above 0")
    inputs = keras.Input((None,), dtype="int32", name="tokens")
    distinct = DistinctTokens(name="distinct")(inputs)
    mask = PaddingMask(name="mask")(distinct)
    x = NaiveBayesEmbedding(vocabulary_size, num_classes, smoothing, name="embedding")(distinct)
    x = SumOverRoot(name="features")(x, mask=mask)
    # At first a class has its own evidence, and of two classes the first has the opposite of the second's.
    start = keras.initializers.Constant([[-0.5, 0.5]]) if num_classes == 2 else keras.initializers.Identity()
    x = L.Dense(num_classes, kernel_initializer=start, dtype="float32", name="logits")(x)
    return keras.Model(inputs, x, name="nb_ngrams")
