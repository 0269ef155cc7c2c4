"""Ratios of n-grams beside convolutions over words: what a text says anywhere, and what it says once and strongly."""

import keras

from bigkeras.layers import (
    DistinctTokens,
    EitherOrBoth,
    LeadingTokens,
    MaskedMax,
    NaiveBayesEmbedding,
    OneHotConv1D,
    PaddingMask,
)
from bigkeras.models.nb_ngrams import beside_latent, check_ratios, ratio_logits
from bigkeras.models.sequences import check_sequence, positive

L = keras.layers


def nb_cnn(
    *,
    vocabulary_size: int,
    length: int,
    num_classes: int,
    words: int | None = None,
    ngrams: int = 1,
    letters_from: int | None = None,
    longest: int | None = None,
    smoothing: float = 1.0,
    ratio_rate: float = 15.0,
    known_words: int = 20_000,
    windows: tuple[int, ...] = (2, 3),
    filters: int = 300,
    dropout: float = 0.5,
    latent: int = 0,
) -> keras.Model:
    """The sum of two logits: `nb_ngrams`' and those of `filters` one-hot convolutions for each width of window.

    Input: ids of words, then of their hashed n-grams, `(batch, any length)`, 0 is padding. The task says that ids from
    `words` on are n-grams, of up to `ngrams` words: the convolutions do not see them, and to them words from
    `known_words` on are unknown. It also says from which id on they are of letters, which have a sum of their own, and
    how many words the `longest` text has. `ratio_rate`: how many times as fast the ratios' weights learn. `latent`: as
    for `nb_ngrams`, the mean of its logits and of this sum; so is what layers adapt to before training. In training a
    third of the texts has the answer of each part alone, so that neither leans on the other. Raises ValueError for
    sizes below 1 and a negative `latent`.
    Source: Wang & Manning 2012, "Baselines and Bigrams"; Johnson & Zhang 2015 (arXiv 1412.1058), section 2.2.
    """
    check_ratios(smoothing, latent)
    check_sequence(num_classes=num_classes, dropout=dropout, vocabulary_size=vocabulary_size, length=length)
    if not windows or min(windows) < 1:
        raise ValueError(f"windows={windows}: one width, at least 1, for each group of filters")
    positive(filters=filters, ngrams=ngrams)
    if known_words < 2:
        raise ValueError(f"known_words={known_words}: at least 2, of which one is for all unknown ones")
    if ratio_rate <= 0:
        raise ValueError(f"ratio_rate={ratio_rate}: above 0")
    inputs = keras.Input((None,), dtype="int32", name="tokens")
    ratios = NaiveBayesEmbedding(vocabulary_size, num_classes, smoothing, rate=ratio_rate, name="embedding")
    distinct = DistinctTokens(name="distinct")(inputs)
    wide = ratio_logits(distinct, ratios, name="ratio_logits", letters_from=letters_from)
    leading = LeadingTokens(words or vocabulary_size, ngrams, longest, name="words")(inputs)
    mask = PaddingMask(name="mask_of_words")(leading)
    groups = []
    for stage, window in enumerate(windows, start=1):
        size = min(known_words, words or vocabulary_size)
        y = OneHotConv1D(size, filters, window, name=f"stage{stage}")(leading, mask=mask)
        groups.append(MaskedMax(name=f"stage{stage}_max")(y, mask=mask))
    x = L.Concatenate(name="features")(groups) if len(groups) > 1 else L.Identity(name="features")(groups[0])
    x = L.Dropout(dropout, name="dropout")(x)
    deep = L.Dense(num_classes, dtype="float32", name="convolution_logits")(x)
    both = EitherOrBoth(name="trained_logits" if latent else "logits")([wide, deep])
    return keras.Model(inputs, beside_latent(both, distinct, ratios, latent), name="nb_cnn")
