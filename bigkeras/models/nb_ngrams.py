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
    embedding = NaiveBayesEmbedding(vocabulary_size, num_classes, smoothing, name="embedding")
    return keras.Model(inputs, ratio_logits(inputs, embedding, name="logits", features="features"), name="nb_ngrams")


def ratio_logits(inputs, embedding: NaiveBayesEmbedding, *, name: str, features: str = "ratios"):
    """Ids `(batch, any length)` → logits `(batch, classes)` from the set of them; `features`: the sums' name."""
    distinct = DistinctTokens(name="distinct")(inputs)
    x = embedding(distinct)
    x = SumOverRoot(name=features)(x, mask=PaddingMask(name="mask")(distinct))
    # At first a class has its own evidence, and of two classes the first has the opposite of the second's.
    two = embedding.num_classes == 2
    start = keras.initializers.Constant([[-0.5, 0.5]]) if two else keras.initializers.Identity()
    return L.Dense(embedding.num_classes, kernel_initializer=start, dtype="float32", name=name)(x)
