"""The Transformer encoder: its blocks, which decoders and BERT share, and a classifier of texts or of images' rows."""

from typing import Any

import keras

from bigkeras.layers import (
    AdditiveAttentionMap,
    ApproximateGelu,
    ClassToken,
    CrossAttention,
    CrossAttentionMap,
    FirstToken,
    LearnedPositions,
    SelfAttention,
    SelfAttentionMap,
    SinusoidalPositions,
)
from bigkeras.models.blocks import classifier, known
from bigkeras.models.sequences import check_no_shards, check_sequence, embedded, pool, positive, row_input, token_input

L = keras.layers

POSITIONS = ("sinusoidal", "learned", "rotary")
NORMS = ("pre", "post")
POOLINGS = ("cls", "max", "mean")

# A fused kernel of three square ones then starts as each alone would with Glorot's uniform.
FUSED_START = "lecun_uniform"


def transformer(
    *,
    num_classes: int,
    input_shape: tuple[int, int, int] | None = None,
    vocabulary_size: int | None = None,
    length: int | None = None,
    depth: int = 4,
    width: int = 256,
    num_heads: int = 4,
    feed_forward: int = 1024,
    positions: str = "sinusoidal",
    norm: str = "pre",
    pooling: str = "mean",
    activation: str = "gelu",
    dropout: float = 0.1,
    shards: int = 1,
) -> keras.Model:
    """A Transformer encoder that classifies texts of at most `length` tokens, or images read row by row.

    Either `vocabulary_size` and `length`: token ids `(batch, length or less)`, 0 is padding; or `input_shape`. `norm`
    is "pre" (before attention and feed-forward, and once at the end) or "post" (the paper's). `pooling` is the "mean"
    or "max" of the last block over the real tokens, or "cls": a trained vector before the sequence.
    `attention_maps` gives the attention weights, `shards`: see `sequences.embedded`. Raises ValueError for sizes that
    do not fit together.
    Unlike the paper's, its feed-forward layers have GELU (`activation="relu"` is the paper's), and `dropout` is applied
    to the attention weights, too.
    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3; pre-norm: Xiong et al. 2020 (arXiv 2002.04745).
    """
    check_sequence(
        num_classes=num_classes,
        dropout=dropout,
        vocabulary_size=vocabulary_size,
        length=length,
        input_shape=input_shape,
    )
    positive(depth=depth, width=width, num_heads=num_heads, feed_forward=feed_forward)
    known("positions", positions, POSITIONS)
    known("norm", norm, NORMS)
    known("pooling", pooling, POOLINGS)
    if input_shape is not None:
        check_no_shards(shards)
        inputs, rows = row_input(input_shape)
        mask, length = None, input_shape[0]
        x = L.Dense(width, name="embedding")(rows)
    else:
        inputs, mask = token_input()
        x = embed(inputs, vocabulary_size=vocabulary_size or 0, width=width, shards=shards)
    x = add_positions(x, positions, length=length or 0)
    if dropout:
        x = L.Dropout(dropout, name="stem_dropout")(x)
    if pooling == "cls":
        x, mask = with_class_token(x, mask)
    block = {"pre": pre_norm_block, "post": post_norm_block}[norm]
    sizes: dict[str, Any] = {"num_heads": num_heads, "feed_forward": feed_forward, "activation": activation}
    sizes["rotary"] = positions == "rotary"
    for stage in range(1, depth + 1):
        x = block(x, mask, **sizes, dropout=dropout, name=f"stage{stage}")
    if norm == "pre":
        x = L.LayerNormalization(epsilon=1e-6, name="norm")(x)
    x = FirstToken(name="features")(x) if pooling == "cls" else pool(x, mask, pooling=pooling)
    return keras.Model(inputs, classifier(x, num_classes=num_classes, dropout=dropout), name="transformer")


def embed(tokens, *, vocabulary_size: int, width: int, shards: int = 1):
    """Token ids → vectors of variance 1, `(batch, length, width)`; the layer `embedding` holds them 1/√width as large.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.4.
    """
    start = keras.initializers.RandomNormal(stddev=width**-0.5)
    x = embedded(tokens, vocabulary_size=vocabulary_size, width=width, shards=shards, start=start)
    return L.Rescaling(width**0.5, name="embedding_scaled")(x)


def add_positions(x, positions: str, *, length: int, name: str = "positions"):
    """Adds sinusoids or trained vectors; rotations are the attention layers' affair."""
    if positions == "sinusoidal":
        return SinusoidalPositions(name=name)(x)
    if positions == "learned":
        return LearnedPositions(length, keras.initializers.TruncatedNormal(stddev=0.02), name=name)(x)
    return x


def with_class_token(x, mask) -> tuple:
    """The sequence and the mask, longer by the trained vector before them."""
    token = ClassToken(name="cls")
    return (token(x), None) if mask is None else token(x, mask=mask)


def pre_norm_block(
    x,
    mask,
    *,
    num_heads: int,
    feed_forward: int,
    activation: str = "gelu",
    dropout: float = 0.0,
    attention_dropout: float | None = None,
    epsilon: float = 1e-6,
    name: str,
    **attention,
):
    """Attention, then feed-forward, each normalised before and added to what came in: `(batch, length, width)`.

    `attention_dropout`: of the attention's weights, `dropout` unless given. `attention`: further arguments of
    `self_attention` (causal, rotary).
    """
    of_weights = dropout if attention_dropout is None else attention_dropout
    y = L.LayerNormalization(epsilon=epsilon, name=f"{name}_attention_norm")(x)
    y = self_attention(y, mask, num_heads=num_heads, dropout=of_weights, name=f"{name}_attention", **attention)
    x = residual(x, y, dropout=dropout, name=f"{name}_attention_add")
    y = L.LayerNormalization(epsilon=epsilon, name=f"{name}_feed_forward_norm")(x)
    y = feed(y, feed_forward, activation=activation, name=f"{name}_feed_forward")
    return residual(x, y, dropout=dropout, name=name)


def post_norm_block(
    x,
    mask,
    *,
    num_heads: int,
    feed_forward: int,
    activation: str = "gelu",
    dropout: float = 0.0,
    attention_dropout: float | None = None,
    epsilon: float = 1e-6,
    kernel_initializer=None,
    name: str,
    **attention,
):
    """Attention, then feed-forward, each added to what came in and normalised after: the original, and BERT's.

    `attention_dropout` and `attention` are as in `pre_norm_block`.
    """
    start = {"kernel_initializer": kernel_initializer}
    of_weights = dropout if attention_dropout is None else attention_dropout
    heads: dict[str, Any] = {"num_heads": num_heads, "dropout": of_weights, **attention, **start}
    y = self_attention(x, mask, **heads, name=f"{name}_attention")
    x = residual(x, y, dropout=dropout, name=f"{name}_attention_add")
    x = L.LayerNormalization(epsilon=epsilon, name=f"{name}_attention_norm")(x)
    y = feed(x, feed_forward, activation=activation, name=f"{name}_feed_forward", **start)
    x = residual(x, y, dropout=dropout, name=f"{name}_feed_forward_add")
    return L.LayerNormalization(epsilon=epsilon, name=name)(x)


def self_attention(x, mask, *, num_heads: int, dropout: float = 0.0, kernel_initializer=None, name: str, **attention):
    """Projections, attention of the sequence to itself, the output's projection: `(batch, length, width)` both ways.

    `attention`: further arguments of `SelfAttention`. The attention layer bears the name; `_query_key_value` and
    `_output` are the dense ones around it.
    """
    width, start = x.shape[-1], kernel_initializer or FUSED_START
    x = L.Dense(3 * width, kernel_initializer=start, name=f"{name}_query_key_value")(x)
    x = SelfAttention(num_heads, dropout=dropout, name=name, **attention)(x, mask=mask)
    return L.Dense(width, kernel_initializer=start, name=f"{name}_output")(x)


def feed(x, units: int, *, activation: str, kernel_initializer=None, name: str):
    """Two dense layers, the activation between them: `(batch, length, width)` → the same, by way of `units`."""
    width, start = x.shape[-1], kernel_initializer or "glorot_uniform"
    if activation == "gelu":
        x = L.Dense(units, kernel_initializer=start, name=f"{name}_1")(x)
        x = ApproximateGelu(name=f"{name}_gelu")(x)
    else:
        x = L.Dense(units, activation=activation, kernel_initializer=start, name=f"{name}_1")(x)
    return L.Dense(width, kernel_initializer=start, name=f"{name}_2")(x)


def residual(x, y, *, dropout: float, name: str):
    """`x` plus what a block made of it, some of which is dropped in training."""
    if dropout:
        y = L.Dropout(dropout, name=f"{name}_dropout")(y)
    return L.Add(name=name)([x, y])


def attention_maps(model: keras.Model, *, across: bool = False) -> keras.Model:
    """A model over the same layers that gives the weights of every attention layer by the layer's name.

    From the inputs of `model` to a dict of `(batch, heads, queries, keys)`; `across`: of the layers alone that look at
    another sequence. Raises ValueError for a model without such attention.
    """
    kinds = CrossAttention | L.AdditiveAttention if across else SelfAttention | CrossAttention | L.AdditiveAttention
    found = [layer for layer in model.layers if isinstance(layer, kinds)]
    maps = {layer.name: attention_map(layer, keras.tree.flatten(layer.input)) for layer in found}
    if not maps:
        raise ValueError(f"{model.name} has no attention layer")
    return keras.Model(model.inputs, maps, name="attention")


def attention_map(layer: keras.layers.Layer, inputs: list):
    """The weights of one layer, `(batch, heads, queries, keys)`, for inputs such as its own.

    They are what it projects, for cross-attention key and value, and the mask, if any.
    """
    own = 1 if isinstance(layer, SelfAttention) else 3
    mask = inputs[own] if len(inputs) > own else None
    if isinstance(layer, L.AdditiveAttention):
        return AdditiveAttentionMap(layer, name=f"{layer.name}_map")(*inputs[:own], mask=mask)
    kind = SelfAttentionMap if isinstance(layer, SelfAttention) else CrossAttentionMap
    return kind.from_config({**layer.get_config(), "name": f"{layer.name}_map"})(*inputs[:own], mask=mask)
