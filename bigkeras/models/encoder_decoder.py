"""The Transformer that translates: an encoder reads the source, a decoder writes the target after what it wrote."""

from collections.abc import Callable
from typing import Any

import keras

from bigkeras.layers import CrossAttention, SplitHeads
from bigkeras.models.blocks import check, known
from bigkeras.models.sequences import positive, token_embeddings, translation_inputs
from bigkeras.models.transformer import (
    FUSED_START,
    NORMS,
    POSITIONS,
    add_positions,
    feed,
    post_norm_block,
    pre_norm_block,
    residual,
    self_attention,
)

L = keras.layers

# size: what it says of the arguments. "base" and "big" are the paper's table 3, "tiny" is for some ten thousand
# sentence pairs, after Wu et al. 2021 (arXiv 2105.14462), section 4.2.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"depth": 4, "width": 128, "num_heads": 4, "feed_forward": 256, "dropout": 0.3},
    "base": {"depth": 6, "width": 512, "num_heads": 8, "feed_forward": 2048, "dropout": 0.1},
    "big": {"depth": 6, "width": 1024, "num_heads": 16, "feed_forward": 4096, "dropout": 0.3},
}


def transformer_translator(
    *,
    vocabulary_size: int,
    length: int,
    target_vocabulary_size: int | None = None,
    size: str | None = None,
    depth: int | None = None,
    width: int | None = None,
    num_heads: int | None = None,
    feed_forward: int | None = None,
    dropout: float | None = None,
    attention_dropout: float = 0.0,
    positions: str = "sinusoidal",
    norm: str = "post",
    activation: str = "relu",
) -> keras.Model:
    """A Transformer encoder-decoder: `source` and `target`, token ids int32 `(batch, length or less)`, 0 is padding.

    `target` begins with the token of the beginning; the logits, float32 `(batch, target length, vocabulary)`, say at
    each place which token comes next. Without `target_vocabulary_size` both languages share the vocabulary and one
    embedding; the output's kernel is the target's embedding in any case. `depth`, which counts the blocks of each side,
    `width`, `num_heads`, `feed_forward` and `dropout` are those of `size`, "tiny" by default, unless given.
    `attention_dropout`: of the attention's weights, which the paper does not drop (section 5.4). `length` binds learned
    positions alone. "base" with 37,000 shared words has 63,082,496 parameters.
    `models.stepper` decodes with it, `attention_maps` gives the weights of every attention layer by name.
    Raises ValueError for sizes that do not fit together. Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3;
    norm="pre": Xiong et al. 2020 (arXiv 2002.04745).
    """
    given = {"depth": depth, "width": width, "num_heads": num_heads, "feed_forward": feed_forward, "dropout": dropout}
    if size is not None and None not in given.values():
        raise ValueError(f"size={size!r}: {', '.join(given)} are all said, and go before it: null what it shall say")
    known("size", size or "tiny", SIZES)
    sizes = SIZES[size or "tiny"] | {key: value for key, value in given.items() if value is not None}
    depth, width, dropout = sizes.pop("depth"), sizes.pop("width"), sizes["dropout"]
    positive(depth=depth, width=width, num_heads=sizes["num_heads"], feed_forward=sizes["feed_forward"])
    check(input_shape=(1, 1, 1), num_classes=1, dropout=dropout)
    if not 0 <= attention_dropout < 1:
        raise ValueError(f"attention_dropout={attention_dropout}: from 0 to below 1")
    known("positions", positions, POSITIONS)
    known("norm", norm, NORMS)
    block: dict[str, Any] = {**sizes, "activation": activation, "rotary": positions == "rotary"}
    block["attention_dropout"] = attention_dropout
    stem: dict[str, Any] = {"width": width, "positions": positions, "length": length, "dropout": dropout}

    source, target, mask = translation_inputs(vocabulary_size, target_vocabulary_size, length)
    from_source, from_target = token_embeddings(vocabulary_size, target_vocabulary_size, width)
    memory = _stem(from_source(source), **stem, name="encoder")
    encoder_block = {"pre": pre_norm_block, "post": post_norm_block}[norm]
    for stage in range(1, depth + 1):
        memory = encoder_block(memory, mask, **block, name=f"encoder_stage{stage}")
    memory = _last_norm(memory, norm, name="encoder_features")
    x = _stem(from_target(target), **stem, name="decoder")
    for stage in range(1, depth + 1):
        x = decoder_block(x, memory, mask, **block, norm=norm, name=f"decoder_stage{stage}")
    x = _last_norm(x, norm, name="features")
    logits = L.Identity(dtype="float32", name="logits")(from_target(x, reverse=True))
    return keras.Model([source, target], logits, name="transformer_translator")


def decoder_block(
    x,
    memory,
    mask,
    *,
    num_heads: int,
    feed_forward: int,
    activation: str = "relu",
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    rotary: bool = False,
    norm: str = "post",
    name: str,
):
    """Attention to what was written, attention to the memory, feed-forward: `(batch, target length, width)` both ways.

    `memory`: `(batch, source length, width)`; `mask`: bool `(batch, source length)`. The attention layers are called
    `{name}_self_attention` and `{name}_cross_attention`.
    """
    heads: dict[str, Any] = {"num_heads": num_heads, "dropout": attention_dropout}

    def attend_to_written(y):
        return self_attention(y, None, **heads, causal=True, rotary=rotary, name=f"{name}_self_attention")

    def attend_to_memory(y):
        return cross_attention(y, memory, mask, **heads, name=f"{name}_cross_attention")

    def feed_on(y):
        return feed(y, feed_forward, activation=activation, name=f"{name}_feed_forward")

    x = sublayer(x, attend_to_written, norm=norm, dropout=dropout, name=f"{name}_written")
    x = sublayer(x, attend_to_memory, norm=norm, dropout=dropout, name=f"{name}_read")
    return sublayer(x, feed_on, norm=norm, dropout=dropout, name=name)


def sublayer(x, function: Callable, *, norm: str, dropout: float, name: str):
    """`x` plus a function of it, normalised before ("pre") or after ("post")."""
    if norm == "pre":
        y = L.LayerNormalization(epsilon=1e-6, name=f"{name}_norm")(x)
        return residual(x, function(y), dropout=dropout, name=name)
    x = residual(x, function(x), dropout=dropout, name=f"{name}_add")
    return L.LayerNormalization(epsilon=1e-6, name=name)(x)


def cross_attention(x, memory, mask, *, num_heads: int, dropout: float = 0.0, name: str):
    """`x` `(batch, length, width)` attends to `memory` `(batch, keys, any width)`, masked by bool `(batch, keys)`.

    The attention layer bears the name; `_query`, `_key_value` and `_output` are the dense ones around it. Keys and
    values depend on the memory alone, so decoding computes them once.
    """
    width = x.shape[-1]
    query = L.Dense(width, name=f"{name}_query")(x)
    key_value = L.Dense(2 * width, kernel_initializer=FUSED_START, name=f"{name}_key_value")(memory)
    key, value = SplitHeads(num_heads, name=f"{name}_heads")(key_value)
    x = CrossAttention(num_heads, dropout=dropout, name=name)(query, key, value, mask=mask)
    return L.Dense(width, name=f"{name}_output")(x)


def _stem(x, *, width: int, positions: str, length: int, dropout: float, name: str):
    """Embedded tokens, √width as large, with their positions: `(batch, length, width)`."""
    x = L.Rescaling(width**0.5, name=f"{name}_scaled")(x)
    x = add_positions(x, positions, length=length, name=f"{name}_positions")
    return L.Dropout(dropout, name=f"{name}_dropout")(x) if dropout else x


def _last_norm(x, norm: str, *, name: str):
    """What the blocks give, normalised where they normalise before and not after."""
    return (L.LayerNormalization(epsilon=1e-6, name=name) if norm == "pre" else L.Identity(name=name))(x)
