"""Multi-head attention, softmax(QKᵀ/√d)V: of a sequence to itself, and to another one."""

import keras
from keras import ops

from bigkeras.layers.positions import rotate

# Added to the scores of what may not be seen: after softmax exactly 0 in float32, and finite where nothing may be seen.
HIDDEN = -1e9

# A fused kernel of three square ones starts as each alone would with Glorot's uniform.
FUSED_START = "lecun_uniform"


class _Attention(keras.layers.Layer):
    """What the two layers share: heads, dropout of the weights, the output's projection."""

    def __init__(self, num_heads: int, *, dropout: float = 0.0, kernel_initializer=FUSED_START, **kwargs):
        super().__init__(**kwargs)
        self.num_heads, self.dropout = num_heads, dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.weights_dropout = keras.layers.Dropout(dropout, name="dropout")

    def get_config(self) -> dict:
        """The constructor's arguments."""
        initializer = keras.initializers.serialize(self.kernel_initializer)
        own = {"num_heads": self.num_heads, "dropout": self.dropout, "kernel_initializer": initializer}
        return {**super().get_config(), **own}

    def _attend(self, query, key, value, bias, *, return_weights: bool, training):
        """From heads `(batch, heads, length, d)` to the merged `(batch, queries, width)`, and the weights or None."""
        fused = keras.backend.backend() == "jax" and not return_weights and not (self.dropout and training)
        if fused:
            return _fused(query, key, value, bias), None
        weights = attention_weights(query, key, bias)
        dropped = self.weights_dropout(weights, training=training)
        return merge_heads(ops.matmul(dropped, value)), weights


@keras.saving.register_keras_serializable(package="bigkeras")
class SelfAttention(_Attention):
    """A sequence attends to itself: `(batch, length, width)` → the same.

    `keras.layers.MultiHeadAttention` has neither a key/value cache nor query, key and value in one matmul, which takes
    14 % off a training step on a CPU. `causal` hides what comes later, `rotary` turns queries and keys by their
    positions. The width is a multiple of `num_heads`. Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.2.
    """

    def __init__(self, num_heads: int, *, causal: bool = False, rotary: bool = False, **kwargs):
        super().__init__(num_heads, **kwargs)
        self.causal, self.rotary = causal, rotary

    def build(self, input_shape) -> None:
        """Makes the fused projection of queries, keys and values, in this order, and the output's."""
        width = input_shape[-1]
        check_heads(width, self.num_heads)
        self.query_key_value = _dense(self, width, 3 * width, "query_key_value")
        self.output_projection = _dense(self, width, width, "output")

    def call(self, inputs, mask=None, cache=None, index=None, return_weights=False, training=None):
        """Gives the outputs `(batch, length, width)`, or a tuple of them and of what else is asked for.

        `mask`: bool `(batch, keys)`, or `(batch, queries, keys)`, True where a key may be seen.
        `cache` and `index`: the keys and values so far, each `(batch, heads, longest, d)`, and the position of the
        first input, a scalar. The inputs' keys and values are written from there on, in place where XLA can, and the
        new cache is given second. Only a causal layer takes a cache: what is not yet written lies behind.
        `return_weights` gives the weights `(batch, heads, queries, keys)` last.
        """
        if (cache is None) != (index is None) or (cache is not None and not self.causal):
            raise ValueError("cache and index go together, and with causal=True")
        start = 0 if index is None else index
        query, key, value = split_heads(self.query_key_value(inputs), 3, self.num_heads)
        if self.rotary:
            query, key = rotate(query, start), rotate(key, start)
        if cache is not None:
            position = [0, 0, start, 0]
            key, value = (ops.slice_update(c, position, new) for c, new in zip(cache, (key, value), strict=True))
        bias = mask_bias(mask)
        if self.causal:
            bias = bias + causal_bias(ops.shape(query)[2], ops.shape(key)[2], start)
        outputs, weights = self._attend(query, key, value, bias, return_weights=return_weights, training=training)
        extras = ([(key, value)] if cache is not None else []) + ([weights] if return_weights else [])
        outputs = self.output_projection(outputs)
        return (outputs, *extras) if extras else outputs

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "causal": self.causal, "rotary": self.rotary}


@keras.saving.register_keras_serializable(package="bigkeras")
class KeyValue(keras.layers.Layer):
    """The keys and values of a memory that `CrossAttention` attends to, computed once for all steps of decoding.

    `(batch, length, memory width)` → key and value, each `(batch, heads, length, d)` with d = `width` / `num_heads`.
    """

    def __init__(self, num_heads: int, width: int, *, kernel_initializer=FUSED_START, **kwargs):
        super().__init__(**kwargs)
        check_heads(width, num_heads)
        self.num_heads, self.width = num_heads, width
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape) -> None:
        """Makes the fused projection of keys and values, in this order."""
        self.key_value = _dense(self, input_shape[-1], 2 * self.width, "key_value")

    def call(self, memory):
        """Gives (key, value)."""
        return tuple(split_heads(self.key_value(memory), 2, self.num_heads))

    def get_config(self) -> dict:
        """The constructor's arguments."""
        initializer = keras.initializers.serialize(self.kernel_initializer)
        own = {"num_heads": self.num_heads, "width": self.width, "kernel_initializer": initializer}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="bigkeras")
class CrossAttention(_Attention):
    """A sequence `(batch, length, width)` attends to a memory's keys and values, which a `KeyValue` layer gives."""

    def build(self, input_shape) -> None:
        """Makes the projections of the queries and of the output."""
        width = input_shape[-1]
        check_heads(width, self.num_heads)
        self.query = _dense(self, width, width, "query")
        self.output_projection = _dense(self, width, width, "output")

    def call(self, inputs, key, value, mask=None, return_weights=False, training=None):
        """Gives `(batch, length, width)`; with `return_weights` also the weights `(batch, heads, queries, keys)`.

        `key`, `value`: `(batch, heads, keys, d)`. `mask`: bool `(batch, keys)`, True where a key may be seen.
        """
        (query,) = split_heads(self.query(inputs), 1, self.num_heads)
        bias = mask_bias(mask)
        outputs, weights = self._attend(query, key, value, bias, return_weights=return_weights, training=training)
        outputs = self.output_projection(outputs)
        return (outputs, weights) if return_weights else outputs


@keras.saving.register_keras_serializable(package="bigkeras")
class PaddingMask(keras.layers.Layer):
    """Token ids int `(batch, length)` → bool `(batch, length)`: True where the id is not 0, and at the first place.

    So an empty text is one token of padding: every mean, maximum and softmax has something to take, and cuDNN, which
    refuses a sequence of no steps, takes it too.
    """

    def call(self, tokens):
        """Gives the mask."""
        first = ops.arange(ops.shape(tokens)[-1]) == 0
        return ops.logical_or(ops.not_equal(tokens, 0), first)

    def compute_output_spec(self, tokens):
        """Bool, of the shape of the tokens."""
        return keras.KerasTensor(tokens.shape, dtype="bool")


def check_heads(width: int, num_heads: int) -> None:
    """Raises ValueError where the heads cannot share the width evenly."""
    if num_heads < 1 or width < 1 or width % num_heads:
        raise ValueError(f"width={width} does not divide into num_heads={num_heads}")


def split_heads(x, parts: int, num_heads: int) -> list:
    """`(batch, length, parts · width)` → as many `(batch, heads, length, width / heads)`."""
    batch, length, total = ops.shape(x)[0], ops.shape(x)[1], x.shape[-1]
    x = ops.reshape(x, (batch, length, parts, num_heads, total // parts // num_heads))
    x = ops.transpose(x, (2, 0, 3, 1, 4))
    return [x[part] for part in range(parts)]


def merge_heads(x):
    """`(batch, heads, length, d)` → `(batch, length, heads · d)`."""
    x = ops.transpose(x, (0, 2, 1, 3))
    return ops.reshape(x, (ops.shape(x)[0], ops.shape(x)[1], x.shape[2] * x.shape[3]))


def mask_bias(mask):
    """What the scores get: 0 where `mask` is True, a large negative number elsewhere; a plain 0 without a mask.

    `(batch, keys)` → float32 `(batch, 1, 1, keys)`; `(batch, queries, keys)` → `(batch, 1, queries, keys)`.
    """
    if mask is None:
        return 0.0
    hidden = ops.cast(ops.logical_not(mask), "float32") * HIDDEN
    return hidden[:, None, None, :] if len(mask.shape) == 2 else hidden[:, None]


def causal_bias(queries, keys, start=0):
    """As `mask_bias`, `(1, 1, queries, keys)`: query i stands at `start` + i and sees the keys up to there."""
    ahead = ops.arange(keys)[None, :] > ops.arange(queries)[:, None] + start
    return ops.cast(ahead, "float32")[None, None] * HIDDEN


def attention_weights(query, key, bias):
    """softmax(QKᵀ/√d + bias), `(batch, heads, queries, keys)`: in float32, given in the queries' type."""
    scores = ops.matmul(query * query.shape[-1] ** -0.5, ops.swapaxes(key, -1, -2))
    return ops.cast(ops.softmax(ops.cast(scores, "float32") + bias), query.dtype)


def _fused(query, key, value, bias):
    """Keras' own kernel, quicker on JAX; on TensorFlow it took twice the time of two matmuls."""
    heads_last = [ops.swapaxes(x, 1, 2) for x in (query, key, value)]
    bias = None if isinstance(bias, float) else ops.cast(bias, query.dtype)
    outputs = ops.dot_product_attention(*heads_last, bias=bias)
    return ops.reshape(outputs, (*ops.shape(outputs)[:2], outputs.shape[2] * outputs.shape[3]))


def _dense(owner: keras.Layer, inputs: int, units: int, name: str) -> keras.layers.Dense:
    """A built projection: a stock Dense, so that `enable_lora` and `quantize` reach it."""
    start = owner.kernel_initializer.clone()
    dense = keras.layers.Dense(units, kernel_initializer=start, dtype=owner.dtype_policy, name=name)
    dense.build((None, None, inputs))
    return dense
