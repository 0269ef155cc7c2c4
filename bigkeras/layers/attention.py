"""Multi-head attention, softmax(QKᵀ/√d)V, between the dense layers that project to and from the heads.

The layers here have no weights: those are in stock `Dense` layers before and after (`models/transformer.py`,
`self_attention`), one matmul for queries, keys and values. So training, cached decoding and a picture of the weights
are different layers over the same weights, and LoRA, quantisation and layouts find plain `Dense` layers.
"""

import keras
from keras import ops

from bigkeras.layers.positions import rotate

# Added to the scores of what may not be seen: after softmax exactly 0 in float32, and finite where nothing may be seen.
HIDDEN = -1e9


@keras.saving.register_keras_serializable(package="bigkeras")
class SelfAttention(keras.layers.Layer):
    """A sequence attends to itself: projections `(batch, length, 3 · width)` → `(batch, length, width)`.

    The input holds queries, keys and values in this order, the width being a multiple of `num_heads`. `causal` hides
    what comes later, `rotary` turns queries and keys by their positions, `dropout` drops weights in training.
    `keras.layers.MultiHeadAttention` has no cache, and three matmuls for the projections: one takes 14 % off a training
    step on a CPU. Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.2.
    """

    def __init__(self, num_heads: int, *, causal: bool = False, rotary: bool = False, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.num_heads, self.causal, self.rotary, self.dropout = num_heads, causal, rotary, dropout
        # Its type is said: one that is loaded later would have that of its day, and attend in float32.
        self.weights_dropout = keras.layers.Dropout(dropout, name="dropout", dtype=self.dtype_policy)

    def build(self, input_shape) -> None:
        """Refuses a width that the heads cannot share."""
        check_heads(input_shape[-1], self.num_heads, parts=3)
        width = input_shape[-1] // 3
        if self.rotary and width // self.num_heads % 2:
            raise ValueError(f"width={width}, num_heads={self.num_heads}: rotary positions need an even width a head")
        self.built = True

    def call(self, inputs, mask=None, training=None):
        """`mask`: bool `(batch, keys)`, or `(batch, queries, keys)`, True where a key may be seen."""
        query, key, value, bias = self._heads(inputs, mask)
        return attend(query, key, value, bias, self.weights_dropout, training)

    def _heads(self, inputs, mask) -> tuple:
        query, key, value = split_heads(inputs, 3, self.num_heads)
        if self.rotary:
            query, key = rotate(query), rotate(key)
        bias = mask_bias(mask)
        if self.causal:
            bias = bias + causal_bias(ops.shape(inputs)[1], ops.shape(inputs)[1])
        return query, key, value, bias

    def compute_mask(self, inputs, previous_mask) -> None:
        """None: masks are passed by hand, and the next layer is given its own."""

    def get_config(self) -> dict:
        """The constructor's arguments."""
        own = {"num_heads": self.num_heads, "causal": self.causal, "rotary": self.rotary, "dropout": self.dropout}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="bigkeras")
class SelfAttentionMap(SelfAttention):
    """The weights of a `SelfAttention` on the same inputs: `(batch, heads, queries, keys)`, rows that add up to 1."""

    def call(self, inputs, mask=None):
        """Arguments as those of `SelfAttention`."""
        query, key, _, bias = self._heads(inputs, mask)
        return attention_weights(query, key, bias)


@keras.saving.register_keras_serializable(package="bigkeras")
class CachedSelfAttention(keras.layers.Layer):
    """A causal `SelfAttention` that sees a sequence part by part, and remembers the keys and values of what it saw.

    `scatter`: write by a scatter of rows. TensorFlow does that in place without XLA, where it would call the compiler
    for a slice's update (and TensorFlow Serving refuses to); under XLA the slice's update is the quicker one.
    """

    def __init__(self, num_heads: int, *, rotary: bool = False, scatter: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.num_heads, self.rotary, self.scatter = num_heads, rotary, scatter

    def call(self, inputs, key, value, index, mask=None, positions=None):
        """Gives the outputs `(batch, steps, width)`, and the caches with the new keys and values written in place.

        `inputs`: the projections `(batch, steps, 3 · width)` of the next tokens, one or several; `key` and `value`: the
        caches, each `(batch, heads, longest, d)`; `index`: the position of the first of these tokens, a scalar.
        `mask`: bool `(batch, longest)` or `(batch, steps, longest)`; without `positions`, what is not yet written is
        hidden in any case. `positions`: int `(steps,)`, the place of each in its sentence where that is not its place
        in the cache: the beams of a search are written side by side, and the mask, which must be there, alone tells
        each its own past.
        """
        query, new_key, new_value = split_heads(inputs, 3, self.num_heads)
        if self.rotary:
            start = index if positions is None else positions
            query, new_key = rotate(query, start), rotate(new_key, start)
        if self.scatter:
            rows = scatter_rows(key if mask is None else mask, self.num_heads, ops.shape(new_key)[2], index)
            key, value = scatter_steps(key, new_key, rows), scatter_steps(value, new_value, rows)
        else:
            key, value = slice_steps(key, new_key, index), slice_steps(value, new_value, index)
        bias = mask_bias(mask)
        if positions is None:
            bias = bias + causal_bias(ops.shape(inputs)[1], ops.shape(key)[2], index)
        return attend(query, key, value, bias), key, value

    def compute_mask(self, inputs, previous_mask) -> None:
        """None: masks are passed by hand."""

    def get_config(self) -> dict:
        """The constructor's arguments."""
        own = {"num_heads": self.num_heads, "rotary": self.rotary, "scatter": self.scatter}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="bigkeras")
class SplitHeads(keras.layers.Layer):
    """`(batch, length, parts · width)` → a tuple of `parts` tensors `(batch, heads, length, width / heads)`.

    Of a memory that `CrossAttention` attends to it gives keys and values, once for all steps of decoding.
    """

    def __init__(self, num_heads: int, parts: int = 2, **kwargs):
        super().__init__(**kwargs)
        self.num_heads, self.parts = num_heads, parts

    def build(self, input_shape) -> None:
        """Refuses a width that the heads cannot share."""
        check_heads(input_shape[-1], self.num_heads, self.parts)
        self.built = True

    def call(self, inputs):
        """Gives the parts in their order."""
        return tuple(split_heads(inputs, self.parts, self.num_heads))

    def compute_mask(self, inputs, previous_mask) -> None:
        """None: masks are passed by hand."""

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "num_heads": self.num_heads, "parts": self.parts}


@keras.saving.register_keras_serializable(package="bigkeras")
class CrossAttention(keras.layers.Layer):
    """A sequence attends to another one: projected queries `(batch, length, width)` → the same shape."""

    def __init__(self, num_heads: int, *, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.num_heads, self.dropout = num_heads, dropout
        self.weights_dropout = keras.layers.Dropout(dropout, name="dropout", dtype=self.dtype_policy)

    def build(self, input_shape) -> None:
        """Refuses a width that the heads cannot share."""
        check_heads(input_shape[-1], self.num_heads)
        self.built = True

    def call(self, inputs, key, value, mask=None, training=None):
        """`key`, `value`: `(batch, heads, keys, d)`, by `SplitHeads`; `mask`: bool `(batch, keys)`, True where seen."""
        (query,) = split_heads(inputs, 1, self.num_heads)
        return attend(query, key, value, mask_bias(mask), self.weights_dropout, training)

    def compute_mask(self, inputs, previous_mask) -> None:
        """None: masks are passed by hand."""

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "num_heads": self.num_heads, "dropout": self.dropout}


@keras.saving.register_keras_serializable(package="bigkeras")
class CrossAttentionMap(CrossAttention):
    """The weights of a `CrossAttention` on the same inputs: `(batch, heads, queries, keys)`, rows that add up to 1."""

    def call(self, inputs, key, value, mask=None):
        """Arguments as those of `CrossAttention`."""
        (query,) = split_heads(inputs, 1, self.num_heads)
        return attention_weights(query, key, mask_bias(mask))


@keras.saving.register_keras_serializable(package="bigkeras")
class AdditiveAttentionMap(keras.layers.Layer):
    """The weights of a stock `AdditiveAttention`, which it calls: `(batch, 1, queries, keys)`, rows adding up to 1."""

    def __init__(self, attention: keras.layers.AdditiveAttention, **kwargs):
        super().__init__(**kwargs)
        self.attention = attention

    def call(self, query, value, key, mask=None):
        """Each `(batch, length, width)`; `mask`: bool `(batch, keys)`, True where a key may be seen."""
        _, weights = self.attention([query, value, key], mask=[None, mask], return_attention_scores=True)
        return weights[:, None]

    def compute_mask(self, inputs, previous_mask) -> None:
        """None: masks are passed by hand."""

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "attention": keras.saving.serialize_keras_object(self.attention)}

    @classmethod
    def from_config(cls, config: dict) -> "AdditiveAttentionMap":
        """The layer, over a new attention."""
        return cls(**{**config, "attention": keras.saving.deserialize_keras_object(config["attention"])})


def slice_steps(cache, new, index):
    """The cache `(batch, heads, longest, d)` with the new `(batch, heads, steps, d)` from `index` on."""
    return ops.slice_update(cache, [0, 0, index, 0], new)


def scatter_rows(like, heads: int, steps, index):
    """Which rows of a cache, seen as `(batch · heads · longest, d)`, the `steps` from `index` on are: `(any, 1)`.

    `like`: `(batch, …, longest, d)`, the cache, or the mask `(batch, …, longest)`: where all layers have one mask,
    TensorFlow sees that all their rows are the same.
    """
    batch, longest = ops.shape(like)[0], ops.shape(like)[-2 if len(like.shape) == 4 else -1]
    starts = ops.arange(batch * heads, dtype="int32") * longest + ops.cast(index, "int32")
    return ops.reshape(starts[:, None] + ops.arange(steps, dtype="int32"), (-1, 1))


def scatter_steps(cache, new, rows):
    """As `slice_steps`, by the rows that `scatter_rows` gives."""
    size = cache.shape[-1]
    flat = ops.scatter_update(ops.reshape(cache, (-1, size)), rows, ops.reshape(new, (-1, size)))
    return ops.reshape(flat, ops.shape(cache))


def check_heads(width: int, num_heads: int, parts: int = 1) -> None:
    """Raises ValueError where the heads of each of `parts` cannot share the width evenly."""
    if num_heads < 1 or width < 1 or width % (parts * num_heads):
        raise ValueError(f"width={width / parts:g} does not divide into num_heads={num_heads}")


def split_heads(x, parts: int, num_heads: int) -> list:
    """`(batch, length, parts · width)` → as many `(batch, heads, length, width / heads)`."""
    if x.shape[1] == 1:
        # Nothing to turn over; TensorFlow's transposition takes as long as a product on such small tensors.
        return ops.unstack(ops.reshape(x, (-1, parts, num_heads, 1, x.shape[-1] // parts // num_heads)), parts, axis=1)
    x = ops.reshape(x, (*_any_batch(x), parts, num_heads, x.shape[-1] // parts // num_heads))
    # Not x[0], x[1] …: the gradient of each such slice is as large as all parts together, and they are added up.
    return ops.unstack(ops.transpose(x, (2, 0, 3, 1, 4)), parts)


def merge_heads(x):
    """`(batch, heads, length, d)` → `(batch, length, heads · d)`."""
    if x.shape[2] == 1:
        return ops.reshape(x, (-1, 1, x.shape[1] * x.shape[3]))
    x = ops.transpose(x, (0, 2, 1, 3))
    return ops.reshape(x, (*_any_batch(x), x.shape[2] * x.shape[3]))


def _any_batch(x) -> tuple:
    """Batch and length of `(batch, length, …)`, to reshape to: where the length is known, without asking for either."""
    batch, length = ops.shape(x)[:2]
    return (-1, length) if isinstance(length, int) else (batch, length)


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
    """softmax(QKᵀ/√d + bias), `(batch, heads, queries, keys)`, in the queries' type; the softmax is not in 16 bits."""
    scores = ops.matmul(query * query.shape[-1] ** -0.5, ops.swapaxes(key, -1, -2))
    wide = keras.backend.result_type(query.dtype, "float32")
    return ops.cast(ops.softmax(ops.cast(scores, wide) + ops.cast(bias, wide)), query.dtype)


def attend(query, key, value, bias, dropout: keras.layers.Dropout | None = None, training=None):
    """From heads `(batch, heads, length, d)` to the merged outputs `(batch, queries, width)`, the fastest way.

    That is two matmuls on TensorFlow, where Keras' own kernel took twice their time, and the kernel on JAX.
    """
    if keras.backend.backend() == "jax" and not (dropout and dropout.rate and training) and _has_kernel(query):
        return _fused(query, key, value, bias)
    weights = attention_weights(query, key, bias)
    if dropout is not None:
        weights = dropout(weights, training=training)
    return merge_heads(ops.matmul(weights, value))


def _has_kernel(query) -> bool:
    """Whether JAX has the products of its attention in this type here: on CPUs none of float16 with float32 sums."""
    import jax

    return jax.default_backend() != "cpu" or keras.backend.standardize_dtype(query.dtype) != "float16"


def _fused(query, key, value, bias):
    import jax

    heads_last = [ops.swapaxes(x, 1, 2) for x in (query, key, value)]
    # -1e9 is no number of float16, and a row that sees nothing would become NaN.
    bias = None if isinstance(bias, float) else ops.cast(ops.maximum(bias, -3e4), query.dtype)
    # Keras' kernel for TPUs takes no bias: it would hide what comes later, and no padding (Keras 3.15).
    flash = False if jax.default_backend() == "tpu" else None
    outputs = ops.dot_product_attention(*heads_last, bias=bias, flash_attention=flash)
    return ops.reshape(outputs, (*ops.shape(outputs)[:2], outputs.shape[2] * outputs.shape[3]))
