"""Attention against NumPy, against Keras' layer, and step by step against the whole."""

import subprocess
import sys
from importlib.util import find_spec

import keras
import numpy as np
import pytest
import tensorflow as tf
from processes import surroundings

from bigkeras.layers import (
    CachedSelfAttention,
    CrossAttention,
    CrossAttentionMap,
    PaddingMask,
    SelfAttention,
    SelfAttentionMap,
    SplitHeads,
    attention,
    rotate,
)
from bigkeras.layers.attention import attention_weights, causal_bias

RANDOM = np.random.default_rng(0)
# Projections: queries, keys and values of two heads, each four wide.
X = RANDOM.normal(size=(3, 5, 24)).astype("float32")
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], bool)


def numpy_attention(x, seen, heads=2):
    """The paper's equation 1, head by head; `seen`: bool (batch, queries, keys)."""
    query, key, value = np.split(x, 3, axis=-1)
    size = query.shape[-1] // heads
    outputs, maps = [], []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[..., part] @ key[..., part].swapaxes(1, 2) / np.sqrt(size)
        weights = np.exp(scores - scores.max(-1, keepdims=True)) * seen
        weights /= weights.sum(-1, keepdims=True)
        maps.append(weights)
        outputs.append(weights @ value[..., part])
    return np.concatenate(outputs, -1), np.stack(maps, 1)


def numpy_rotated(x, heads=2):
    """Queries and keys turned as complex numbers, head by head: equation 13 of Su et al. 2021; values as they are."""
    *turned, value = np.split(x, 3, axis=-1)
    size = value.shape[-1] // heads
    angles = np.arange(x.shape[1])[:, None] * 10_000.0 ** (-2 * np.arange(size // 2) / size)
    for part in turned:
        for head in range(heads):
            own = part[..., head * size : (head + 1) * size]
            numbers = (own[..., : size // 2] + 1j * own[..., size // 2 :]) * np.exp(1j * angles)
            own[...] = np.concatenate([numbers.real, numbers.imag], -1)
    return np.concatenate([*turned, value], -1)


def expected_attention(causal, rotary):
    seen = np.broadcast_to(MASK[:, None, :], (3, 5, 5)) & (np.tri(5, dtype=bool) if causal else True)
    return numpy_attention(numpy_rotated(X.copy()) if rotary else X, seen)


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_equals_numpy(causal, rotary):
    expected, weights = expected_attention(causal, rotary)
    args = {"causal": causal, "rotary": rotary}
    np.testing.assert_allclose(SelfAttention(2, **args)(X, mask=MASK), expected, atol=1e-5)
    np.testing.assert_allclose(SelfAttentionMap(2, **args)(X, mask=MASK), weights, atol=1e-6)


ON_JAX = """
import sys

import numpy as np

from bigkeras.layers import SelfAttention

given = np.load(sys.argv[1])
for causal in (False, True):
    for rotary in (False, True):
        found = SelfAttention(2, causal=causal, rotary=rotary)(given["x"], mask=given["mask"])
        np.save(f"{sys.argv[2]}/{causal}-{rotary}.npy", np.asarray(found))
"""


@pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed")
def test_the_fused_kernel_of_jax_equals_numpy(tmp_path):
    np.savez(tmp_path / "given.npz", x=X, mask=MASK)
    environment = surroundings(KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
    command = [sys.executable, "-c", ON_JAX, str(tmp_path / "given.npz"), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    for causal in (False, True):
        for rotary in (False, True):
            expected, _ = expected_attention(causal, rotary)
            np.testing.assert_allclose(np.load(tmp_path / f"{causal}-{rotary}.npy"), expected, atol=1e-5)


def test_keras_kernel_for_tpus_which_hides_no_padding_is_not_taken(monkeypatch):
    jax = pytest.importorskip("jax")
    asked = []
    monkeypatch.setattr(attention.ops, "dot_product_attention", lambda q, k, v, **options: asked.append(options) or q)
    for platform in ("tpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda platform=platform: platform)
        attention._fused(*[np.zeros((1, 2, 3, 4), "float32")] * 3, np.zeros((1, 1, 1, 3), "float32"))
    assert [options["flash_attention"] for options in asked] == [False, None]


def test_self_attention_between_dense_layers_equals_the_stock_layer():
    before, after = keras.layers.Dense(24), keras.layers.Dense(8)
    sequence = X[..., :8]
    outputs = after(SelfAttention(2)(before(sequence), mask=MASK))
    stock = keras.layers.MultiHeadAttention(2, 4, use_bias=False)
    stock.build(sequence.shape, sequence.shape)
    three = [part.reshape(8, 2, 4) for part in np.split(before.kernel.numpy(), 3, axis=1)]
    stock.set_weights([*three, after.kernel.numpy().reshape(2, 4, 8)])
    np.testing.assert_allclose(outputs, stock(sequence, sequence, attention_mask=MASK[:, None, :]), atol=1e-5)


def test_cross_attention_equals_self_attention_where_the_memory_is_the_sequence():
    query, key_value = X[..., :8], X[..., 8:]
    key, value = SplitHeads(2)(key_value)
    outputs = CrossAttention(2)(query, key, value, mask=MASK)
    weights = CrossAttentionMap(2)(query, key, value, mask=MASK)
    np.testing.assert_allclose(outputs, SelfAttention(2)(X, mask=MASK), atol=1e-6)
    np.testing.assert_allclose(weights, SelfAttentionMap(2)(X, mask=MASK), atol=1e-6)


def test_cross_attention_takes_a_memory_of_another_length():
    key, value = SplitHeads(2)(RANDOM.normal(size=(3, 4, 16)))
    assert CrossAttention(2)(X[..., :8], key, value).shape == (3, 5, 8)
    assert CrossAttentionMap(2)(X[..., :8], key, value).shape == (3, 2, 5, 4)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(("rotary", "scatter"), [(False, False), (False, True), (True, False)])
def test_a_cached_step_equals_the_whole_at_every_position(rotary, scatter, dtype):
    whole = tf.cast(SelfAttention(2, causal=True, rotary=rotary, dtype=dtype)(X), "float32")
    step = CachedSelfAttention(2, rotary=rotary, scatter=scatter, dtype=dtype)
    key = value = tf.zeros((3, 2, 7, 4), step.compute_dtype)
    # Two positions at once, as for a prompt, then one by one.
    for start, end in ((0, 2), (2, 3), (3, 4), (4, 5)):
        outputs, key, value = step(X[:, start:end], key, value, tf.constant(start))
        tolerance = 1e-5 if dtype == "float32" else 0.05
        np.testing.assert_allclose(tf.cast(outputs, "float32"), whole[:, start:end], atol=tolerance)


def test_a_cached_step_is_a_functional_model_and_compiles():
    inputs = (
        keras.Input((1, 24)),
        keras.Input((2, 5, 4)),
        keras.Input((2, 5, 4)),
        keras.Input(batch_shape=(), dtype="int32"),
    )
    model = keras.Model(inputs, CachedSelfAttention(2)(*inputs))
    step = tf.function(lambda *tensors: model(tensors), jit_compile=True)
    key = value = tf.zeros((3, 2, 5, 4))
    results = []
    for position in range(5):
        output, key, value = step(tf.constant(X[:, position : position + 1]), key, value, tf.constant(position))
        results.append(output)
    np.testing.assert_allclose(tf.concat(results, 1), SelfAttention(2, causal=True)(X), atol=1e-5)


def test_a_mask_for_each_query_hides_what_it_says():
    seen = RANDOM.random((3, 5, 5)) < 0.5
    seen |= np.eye(5, dtype=bool)
    weights = SelfAttentionMap(2)(X, mask=seen).numpy()
    assert np.array_equal(weights > 0, np.broadcast_to(seen[:, None], weights.shape))


def test_where_nothing_may_be_seen_the_answer_is_finite():
    assert np.isfinite(SelfAttention(2)(X, mask=np.zeros((3, 5), bool))).all()


def test_rotary_attention_depends_on_distances_alone():
    x = np.random.default_rng(1).normal(size=(1, 2, 6, 4)).astype("float32")
    products = [np.matmul(rotate(x, start), np.swapaxes(rotate(x, start), -1, -2)) for start in (0, 9)]
    np.testing.assert_allclose(*products, atol=1e-5)
    assert np.abs(products[0] - np.matmul(x, x.swapaxes(-1, -2))).max() > 0.1


def test_dropout_hides_weights_in_training_only():
    layer, plain = SelfAttention(2, dropout=0.5), SelfAttention(2)
    np.testing.assert_array_equal(layer(X), plain(X))
    assert np.abs(layer(X, training=True) - plain(X)).max() > 0.01


def test_dropout_hides_weights_of_cross_attention_too():
    key, value = np.random.default_rng(3).normal(size=(2, 3, 2, 7, 12)).astype("float32")
    layer, plain = CrossAttention(2, dropout=0.5), CrossAttention(2)
    np.testing.assert_array_equal(layer(X, key, value), plain(X, key, value))
    assert np.abs(layer(X, key, value, training=True) - plain(X, key, value)).max() > 0.01


def test_the_softmax_is_not_in_sixteen_bits():
    # One weight of 1,024 equal ones is 1/1024 in either type; of bfloat16 a sum of so many ends at 256.
    query, key = (keras.ops.ones((1, 1, rows, 4), "bfloat16") for rows in (1, 1024))
    weights = attention_weights(query, key, causal_bias(1, 1024, start=999))
    assert weights.dtype == "bfloat16"
    np.testing.assert_array_equal(
        np.asarray(weights, "float32")[0, 0, 0, :1000], float(keras.ops.cast(1e-3, "bfloat16"))
    )


def test_heads_that_cannot_share_the_width_are_named():
    with pytest.raises(ValueError, match=r"width=8 .* num_heads=3"):
        SelfAttention(3)(X)


def test_the_padding_mask_counts_real_tokens_and_always_the_first():
    tokens = np.array([[5, 1, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(PaddingMask()(tokens), [[1, 1, 0, 0], [1, 0, 0, 0]])


def test_config_round_trip():
    for layer in (SelfAttention(2, causal=True, rotary=True, dropout=0.1), CachedSelfAttention(2, rotary=True)):
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
        assert again.get_config() == layer.get_config()


@pytest.mark.parametrize("kind", [SelfAttention, CrossAttention])
def test_a_layer_that_is_loaded_attends_in_its_own_type(kind):
    config = kind(2, dropout=0.1, dtype="mixed_bfloat16").get_config()
    layer = kind.from_config(config)
    inputs = (X,) if kind is SelfAttention else (X, *(np.ones((3, 2, 7, 12), "float32"),) * 2)
    assert layer(*inputs, training=True).dtype == "bfloat16" and layer.weights_dropout.compute_dtype == "bfloat16"
