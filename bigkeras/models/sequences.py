"""How the sequence models begin and end: tokens or rows of pixels in, one vector for the whole sequence out."""

import keras

from bigkeras.layers import MaskedMax, PaddingMask, ShardedEmbedding
from bigkeras.models.blocks import check, known

L = keras.layers

POOLINGS = ("mean", "max")


def token_input() -> tuple:
    """Token ids int32 `(batch, length)`, 0 for padding, and the mask of the real ones: (inputs, mask)."""
    inputs = keras.Input((None,), dtype="int32", name="tokens")
    return inputs, PaddingMask(name="mask")(inputs)


def translation_inputs(vocabulary_size: int, target_vocabulary_size: int | None, length: int) -> tuple:
    """Token ids of both languages, int32 `(batch, length)`, and the mask of the source: (source, target, mask).

    The target needs no mask: its padding comes last, where a decoder does not look yet. Raises ValueError for a
    vocabulary without room for a word beside padding, unknown, begin and end.
    """
    sizes = {"vocabulary_size": vocabulary_size, "target_vocabulary_size": target_vocabulary_size}
    for name, value in sizes.items():
        if value is not None and value < 5:
            raise ValueError(f"{name}={value}: at least 5, padding, unknown, begin, end and one word")
    positive(length=length)
    source = keras.Input((None,), dtype="int32", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    return source, target, PaddingMask(name="mask")(source)


def token_embeddings(vocabulary_size: int, target_vocabulary_size: int | None, width: int) -> tuple:
    """The layers that embed source and target, vectors of length about 1: the same one where the vocabulary is shared.

    The target's, called with `reverse=True`, turns vectors into logits by the same numbers.
    Source: Press & Wolf 2017 (arXiv 1608.05859).
    """

    def embedding(size: int, name: str):
        start = keras.initializers.RandomNormal(stddev=width**-0.5)
        return L.ReversibleEmbedding(size, width, embeddings_initializer=start, name=name)

    if target_vocabulary_size is None:
        shared = embedding(vocabulary_size, "embedding")
        return shared, shared
    return embedding(vocabulary_size, "source_embedding"), embedding(target_vocabulary_size, "target_embedding")


def row_input(input_shape: tuple[int, int, int]) -> tuple:
    """An image `(batch, h, w, c)` read row by row as `(batch, h, w · c)`, without a mask: (inputs, rows)."""
    height, width, channels = input_shape
    inputs = keras.Input(input_shape, name="image")
    return inputs, L.Reshape((height, width * channels), name="rows")(inputs)


def pool(x, mask, *, pooling: str):
    """The mean or maximum of the real tokens, under the name `features`: `(batch, length, w)` → `(batch, w)`."""
    known("pooling", pooling, POOLINGS)
    if pooling == "max":
        return MaskedMax(name="features")(x, mask=mask)
    # In 16 bits a count goes wrong from 257 tokens on.
    return L.GlobalAveragePooling1D(dtype="float32", name="features")(x, mask=mask)


def check_sequence(
    *,
    num_classes: int,
    dropout: float,
    vocabulary_size: int | None,
    length: int | None,
    input_shape: tuple[int, int, int] | None = None,
) -> None:
    """Raises ValueError unless there is an image's shape, or a vocabulary's size with the longest text's length."""
    text = vocabulary_size is not None and length is not None
    if (input_shape is None) is (vocabulary_size is None and length is None) or (input_shape is None and not text):
        raise ValueError("either input_shape, or vocabulary_size and length")
    if vocabulary_size is not None and vocabulary_size < 2:
        raise ValueError(f"vocabulary_size={vocabulary_size}: at least 2, padding and one word")
    if length is not None and length < 1:
        raise ValueError(f"length={length}: at least 1")
    check(input_shape=input_shape or (1, 1, 1), num_classes=num_classes, dropout=dropout)


def embedded(tokens, *, vocabulary_size: int, width: int, shards: int = 1, start="uniform"):
    """Token ids → vectors `(batch, length, width)`; the layer is called `embedding`.

    With `shards` above 1 its table is that many variables, for parameter servers. Raises ValueError for more of them
    than rows.
    """
    positive(shards=shards)
    if shards > vocabulary_size:
        raise ValueError(f"shards={shards}: at most vocabulary_size, {vocabulary_size}")
    sizes = {"embeddings_initializer": start, "name": "embedding"}
    if shards > 1:
        return ShardedEmbedding(vocabulary_size, width, shards, **sizes)(tokens)
    return L.Embedding(vocabulary_size, width, **sizes)(tokens)


def check_no_shards(shards: int) -> None:
    """Raises ValueError where an embedding of pictures' rows, which has no table, is to be in parts."""
    if shards != 1:
        raise ValueError(f"shards={shards}: are of a table of words; pictures have none")


def positive(**sizes: int) -> None:
    """Raises ValueError that names the first size below 1."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name}={value}: at least 1")
