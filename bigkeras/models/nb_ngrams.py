"""Naive Bayes' log-count ratios of n-grams with trained weights: the strong linear baseline of sentiment."""

import keras

from bigkeras.layers import (
    DistinctTokens,
    IdsBetween,
    LatentSemantics,
    LearnedApart,
    NaiveBayesEmbedding,
    PaddingMask,
    SumOverRoot,
)
from bigkeras.models.sequences import check_sequence

L = keras.layers


def nb_ngrams(
    *,
    vocabulary_size: int,
    length: int,
    num_classes: int,
    letters_from: int | None = None,
    smoothing: float = 1.0,
    latent: int = 0,
) -> keras.Model:
    """Logits from the set of a text's n-grams, each weighted by how the classes differ in it.

    Input: ids of words and of hashed n-grams, in any order, `(batch, any length)`, 0 is padding; `length` is the
    pipeline's affair. The task says that ids from `letters_from` on are n-grams of letters: there are many more of
    them, and they have a sum and a root of their own. `latent`: so many dimensions of latent semantic analysis of the
    training texts give logits, too (layer `latent_logits`), and the answer is the mean of both. Call
    `adapt_labelled(batches)` of the layer `embedding` and `adapt_texts(batches)` of that one with the training split
    before training, as the trainer does. Raises ValueError for sizes below 1, a smoothing that is not positive and a
    negative `latent`.
    Unlike the paper's, the weights are trained by cross-entropy and not by an SVM, without interpolation with their
    mean, and a text's sum is divided by the root of the number of its n-grams.
    Source: Wang & Manning 2012, "Baselines and Bigrams"; with trigrams: Mesnil et al. 2014 (arXiv 1412.5335).
    """
    check_ratios(smoothing, latent)
    check_sequence(num_classes=num_classes, dropout=0.0, vocabulary_size=vocabulary_size, length=length)
    inputs = keras.Input((None,), dtype="int32", name="tokens")
    distinct = DistinctTokens(name="distinct")(inputs)
    embedding = NaiveBayesEmbedding(vocabulary_size, num_classes, smoothing, name="embedding")
    name = "ratio_logits" if latent else "logits"
    ratios = ratio_logits(distinct, embedding, name=name, features="features", letters_from=letters_from)
    return keras.Model(inputs, beside_latent(ratios, distinct, embedding, latent), name="nb_ngrams")


def check_ratios(smoothing: float, latent: int) -> None:
    """Raises ValueError that names the argument."""
    if smoothing <= 0:
        raise ValueError(f"smoothing={smoothing}: above 0")
    if latent < 0:
        raise ValueError(f"latent={latent}: so many dimensions, or 0")


def ratio_logits(
    distinct,
    embedding: NaiveBayesEmbedding,
    *,
    name: str,
    features: str = "ratios",
    letters_from: int | None = None,
):
    """Distinct ids `(batch, any length)` → logits `(batch, classes)`; `features`: the sums' name."""
    x = embedding(distinct)
    if letters_from is None:
        x = SumOverRoot(name=features)(x, mask=PaddingMask(name="mask")(distinct))
    else:
        ranges = {"words": (1, letters_from), "letters": (letters_from, embedding.vocabulary_size)}
        masks = {kind: IdsBetween(*ids, name=f"{kind}_mask")(distinct) for kind, ids in ranges.items()}
        sums = [SumOverRoot(name=f"{kind}_sum")(x, mask=mask) for kind, mask in masks.items()]
        x = L.Add(name=features, dtype="float32")(sums)
    # At first a class has its own evidence, and of two classes the first has the opposite of the second's.
    two = embedding.num_classes == 2
    start = keras.initializers.Constant([[-0.5, 0.5]]) if two else keras.initializers.Identity()
    return L.Dense(embedding.num_classes, kernel_initializer=start, dtype="float32", name=name)(x)


def beside_latent(logits, distinct, embedding: NaiveBayesEmbedding, latent: int):
    """The logits, or where `latent` is not 0 their mean with those of that many latent dimensions."""
    if not latent:
        return logits
    layer = LatentSemantics(embedding.vocabulary_size, embedding.num_classes, latent, name="latent_logits")
    return LearnedApart(name="logits", dtype="float32")([logits, layer(distinct)])
