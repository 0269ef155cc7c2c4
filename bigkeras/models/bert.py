"""BERT: the published encoder in its published sizes, as a classifier and as a masked language model."""

from typing import Any

import keras

from bigkeras.layers import ApproximateGelu, FirstToken, GatherPlaces, LearnedPositions, ScaledBias, TokenType
from bigkeras.models.blocks import classifier, known
from bigkeras.models.sequences import check_sequence, pool, token_input
from bigkeras.models.transformer import post_norm_block

L = keras.layers

# size: (blocks, width, heads); the feed-forward layer is four times as wide. base and large are the authors', the
# smaller ones Turc et al. 2019 (arXiv 1908.08962), minilm is Wang et al. 2020 (arXiv 2002.10957).
SIZES = {
    "tiny": (2, 128, 2),
    "mini": (4, 256, 4),
    "small": (4, 512, 8),
    "medium": (8, 512, 8),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
    "minilm": (6, 384, 12),
}
POOLINGS = ("cls", "mean")
EPSILON = 1e-12
START = {"class_name": "TruncatedNormal", "config": {"stddev": 0.02}}


def bert(
    *,
    vocabulary_size: int,
    length: int,
    num_classes: int,
    size: str = "base",
    pooling: str = "cls",
    dropout: float = 0.1,
) -> keras.Model:
    """BERT with a classifier on top: token ids `(batch, length or less)`, the first of them [CLS], 0 is padding.

    `pooling` is "cls" (a dense layer with tanh on the first token, as published: 109,482,240 parameters before the
    logits for "base" with 30,522 words and length 512) or "mean" of the real tokens (MiniLM's sentence vectors; the
    better one of tokens that have no [CLS], such as SentencePiece's).
    All tokens are of type 0, and GELU is the authors' approximation by tanh, also for weights that were
    trained with the exact one (MiniLM's hidden states differ by at most 0.005). `attention_maps` gives the attention
    weights. Raises ValueError for another size. Source: Devlin et al. 2018 (arXiv 1810.04805), section 3.
    """
    check_sequence(num_classes=num_classes, dropout=dropout, vocabulary_size=vocabulary_size, length=length)
    known("pooling", pooling, POOLINGS)
    inputs, mask = token_input()
    x, _ = _encoder(inputs, mask, vocabulary_size=vocabulary_size, length=length, size=size, dropout=dropout)
    if pooling == "mean":
        x = pool(x, mask, pooling="mean")
    else:
        x = FirstToken(name="first")(x)
        x = L.Dense(x.shape[-1], activation="tanh", kernel_initializer=START, name="features")(x)
    return keras.Model(inputs, classifier(x, num_classes=num_classes, dropout=dropout), name=f"bert_{size}")


def bert_mlm(*, vocabulary_size: int, length: int, size: str = "base", dropout: float = 0.1) -> keras.Model:
    """BERT that says which word stood where: the same layers by name, so its weights start a classifier.

    Inputs: `tokens` `(batch, length or less)` and `places`, int32 `(batch, n)`: where a word was hidden.
    Output: float32 logits `(batch, n, vocabulary_size)`, named `mlm_logits`; their kernel is the embedding.
    Source: Devlin et al. 2018 (arXiv 1810.04805), section 3.1, task 1.
    """
    check_sequence(num_classes=1, dropout=dropout, vocabulary_size=vocabulary_size, length=length)
    inputs, mask = token_input()
    places = keras.Input((None,), dtype="int32", name="places")
    x, embedding = _encoder(inputs, mask, vocabulary_size=vocabulary_size, length=length, size=size, dropout=dropout)
    x = GatherPlaces(name="mlm_places")(x, places)
    x = L.Dense(x.shape[-1], kernel_initializer=START, name="mlm_dense")(x)
    x = ApproximateGelu(name="mlm_gelu")(x)
    x = L.LayerNormalization(epsilon=EPSILON, name="mlm_norm")(x)
    x = embedding(x, reverse=True)
    x = ScaledBias(1.0, dtype="float32", name="mlm_logits")(x)
    return keras.Model([inputs, places], x, name=f"bert_mlm_{size}")


def _encoder(tokens, mask, *, vocabulary_size: int, length: int, size: str, dropout: float) -> tuple:
    """The hidden states of the last block, `(batch, length, width)`, and the embedding layer."""
    known("size", size, SIZES)
    depth, width, num_heads = SIZES[size]
    embedding = L.ReversibleEmbedding(vocabulary_size, width, embeddings_initializer=START, name="embedding")
    x = embedding(tokens)
    x = LearnedPositions(length, START, name="positions")(x)
    x = TokenType(START, name="token_type")(x)
    # The same name with dropout and without: weights are taken over by names.
    x = L.LayerNormalization(epsilon=EPSILON, name="stem_norm")(x)
    x = L.Dropout(dropout, name="stem")(x) if dropout else L.Identity(name="stem")(x)
    block: dict[str, Any] = {"epsilon": EPSILON, "kernel_initializer": START, "dropout": dropout}
    for stage in range(1, depth + 1):
        x = post_norm_block(x, mask, num_heads=num_heads, feed_forward=4 * width, **block, name=f"stage{stage}")
    return x, embedding
