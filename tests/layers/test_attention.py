"""Attention against NumPy, against Keras' layer, and step by step against the whole."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bigkeras.layers import CrossAttention, KeyValue, PaddingMask, SelfAttention, rotate

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(3, 5, 8)).astype("float32")
MEMORY = RANDOM.normal(size=(3, 4, 6)).astype("float32")
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], bool)


def with_random_biases(layer):
    """Biases start at zero, where a test would not see them."""
    layer.set_weights([np.random.default_rng(i).normal(size=w.shape, scale=0.5) for i, w in enumerate(layer.weights)])
    return layer


def self_attention(num_heads=2, **args):
    layer = SelfAttention(num_heads, **args)
    layer.build(X.shape)
    return with_random_biases(layer)


def numpy_attention(x, kernel, bias, output_kernel, output_bias, seen, heads=2):
    """The paper's equation 1, head by head; `seen`: bool (batch, queries, keys)."""
    query, key, value = np.split(x @ kernel + bias, 3, axis=-1)
    size = x.shape[-1] // heads
    outputs, all_weights = [], []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[..., part] @ key[..., part].swapaxes(1, 2) / np.sqrt(size)
        scores = np.where(seen, scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        all_weights.append(weights)
        outputs.append(weights @ value[..., part])
    return np.concatenate(outputs, -1) @ output_kernel + output_bias, np.stack(all_weights, 1)


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_equals_numpy(causal):
    layer = self_attention(causal=causal)
    seen = np.broadcast_to(MASK[:, None, :], (3, 5, 5)) & (np.tri(5, dtype=bool) if causal else True)
    outputs, weights = layer(X, mask=MASK, return_weights=True)
    expected, expected_weights = numpy_attention(X, *layer.get_weights(), seen)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    np.testing.assert_allclose(weights, expected_weights, atol=1e-6)


def test_self_attention_equals_the_stock_layer():
    layer = self_attention()
    stock = keras.layers.MultiHeadAttention(2, 4)
    stock.build(X.shape, X.shape)
    kernel, bias, output_kernel, output_bias = layer.get_weights()
    parts = zip(np.split(kernel, 3, axis=1), np.split(bias, 3), strict=True)
    weights = [part for k, b in parts for part in (k.reshape(8, 2, 4), b.reshape(2, 4))]
    query, key, value = weights[:2], weights[2:4], weights[4:]
    by_name = {"query": query, "key": key, "value": value, "attention_output": [output_kernel.reshape(2, 4, 8), output_bias]}
    stock.set_weights([by_name[w.path.split("/")[-2]][w.name == "bias"] for w in stock.weights])
    expected = stock(X, X, attention_mask=MASK[:, None, :])
    np.testing.assert_allclose(layer(X, mask=MASK), expected, atol=1e-5)


def test_cross_attention_equals_self_attention_where_the_memory_is_the_sequence():
    layer = self_attention()
    kernel, bias, output_kernel, output_bias = layer.get_weights()
    keys, cross = KeyValue(2, 8), CrossAttention(2)
    keys.build(X.shape)
    cross.build(X.shape)
    keys.set_weights([kernel[:, 8:], bias[8:]])
    cross.set_weights([kernel[:, :8], bias[:8], output_kernel, output_bias])
    expected, expected_weights = layer(X, mask=MASK, return_weights=True)
    outputs, weights = cross(X, *keys(X), mask=MASK, return_weights=True)
    np.testing.assert_allclose(outputs, expected, atol=1e-6)
    np.testing.assert_allclose(weights, expected_weights, atol=1e-6)


def test_cross_attention_takes_a_memory_of_another_length_and_width():
    key, value = KeyValue(2, 8)(MEMORY)
    assert key.shape == value.shape == (3, 2, 4, 4)
    outputs, weights = CrossAttention(2)(X, key, value, return_weights=True)
    assert outputs.shape == X.shape
    assert weights.shape == (3, 2, 5, 4)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("rotary", [False, True])
def test_a_cached_step_equals_the_whole_at_every_position(rotary, dtype):
    layer = self_attention(causal=True, rotary=rotary, dtype=dtype)
    whole = tf.cast(layer(X), "float32")
    cache = tuple(tf.zeros((3, 2, 7, 4), layer.compute_dtype) for _ in range(2))
    # Two positions at once, as for a prompt, then one by one.
    for start, end in ((0, 2), (2, 3), (3, 4), (4, 5)):
        outputs, cache = layer(X[:, start:end], cache=cache, index=tf.constant(start))
        tolerance = 1e-5 if dtype == "float32" else 0.05
        np.testing.assert_allclose(tf.cast(outputs, "float32"), whole[:, start:end], atol=tolerance)


def test_a_cached_step_is_a_functional_model_over_the_same_layer_and_compiles():
    layer = self_attention(causal=True)
    token = keras.Input((1, 8), name="token")
    index = keras.Input(batch_shape=(), dtype="int32", name="index")
    cache = [keras.Input((2, 5, 4), name=name) for name in ("key", "value")]
    outputs, new_cache = layer(token, cache=tuple(cache), index=index)
    model = keras.Model([token, index, *cache], [outputs, *new_cache])
    step = tf.function(lambda *inputs: model(inputs), jit_compile=True)
    key = value = tf.zeros((3, 2, 5, 4))
    results = []
    for position in range(5):
        output, key, value = step(tf.constant(X[:, position : position + 1]), tf.constant(position), key, value)
        results.append(output)
    np.testing.assert_allclose(tf.concat(results, 1), layer(X), atol=1e-5)


def test_a_cache_needs_an_index_and_a_causal_layer():
    cache = (tf.zeros((3, 2, 5, 4)),) * 2
    with pytest.raises(ValueError, match="cache and index"):
        self_attention(causal=True)(X, cache=cache)
    with pytest.raises(ValueError, match="causal"):
        self_attention()(X, cache=cache, index=0)


def test_a_mask_for_each_query_hides_what_it_says():
    seen = RANDOM.random((3, 5, 5)) < 0.5
    seen |= np.eye(5, dtype=bool)
    _, weights = self_attention()(X, mask=seen, return_weights=True)
    assert np.array_equal(weights.numpy() > 0, np.broadcast_to(seen[:, None], weights.shape))


def test_where_nothing_may_be_seen_the_answer_is_finite():
    assert np.isfinite(self_attention()(X, mask=np.zeros((3, 5), bool))).all()


def test_rotary_attention_depends_on_distances_alone():
    x = np.random.default_rng(1).normal(size=(1, 2, 6, 4)).astype("float32")
    products = [np.matmul(rotate(x, start), np.swapaxes(rotate(x, start), -1, -2)) for start in (0, 9)]
    np.testing.assert_allclose(*products, atol=1e-5)
    assert np.abs(products[0] - np.matmul(x, x.swapaxes(-1, -2))).max() > 0.1


def test_dropout_hides_weights_in_training_only():
    layer = self_attention(dropout=0.5)
    plain = self_attention()
    np.testing.assert_array_equal(layer(X), plain(X))
    assert np.abs(layer(X, training=True) - plain(X)).max() > 0.01


def test_heads_that_do_not_share_the_width_are_named():
    with pytest.raises(ValueError, match=r"width=8 .* num_heads=3"):
        SelfAttention(3)(X)


def test_the_padding_mask_counts_real_tokens_and_always_the_first():
    tokens = np.array([[5, 1, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(PaddingMask()(tokens), [[1, 1, 0, 0], [1, 0, 0, 0]])


def test_lora_and_config_round_trip():
    layer = self_attention(causal=True, rotary=True, dropout=0.1, kernel_initializer="he_normal", name="attention")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()
    expected = layer(X)
    layer.query_key_value.enable_lora(2)
    np.testing.assert_allclose(layer(X), expected, atol=1e-6)
