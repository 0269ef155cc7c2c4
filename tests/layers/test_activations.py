"""The approximate GELU, compiled and plain, and the bias that learns faster."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bigkeras.layers import ApproximateGelu, ScaledBias

X = np.linspace(-4, 4, 48, dtype="float32").reshape(2, 2, 3, 4)


def value_and_gradient(layer, x, training):
    x = tf.constant(x, layer.compute_dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=training)
        loss = tf.reduce_sum(tf.cast(y, "float32") ** 2)
    return [tf.cast(t, "float32").numpy() for t in (y, tape.gradient(loss, x))]


def test_approximate_gelu_is_near_the_exact_one():
    np.testing.assert_allclose(ApproximateGelu()(X), keras.activations.gelu(X), atol=1e-3)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("mixed_bfloat16", 0.1)])
def test_the_compiled_gelu_equals_the_plain_one_in_value_and_gradient(dtype, tolerance):
    layer = ApproximateGelu(dtype=dtype)
    for mine, theirs in zip(*(value_and_gradient(layer, X, training) for training in (True, False)), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=tolerance)


def test_a_scaled_bias_learns_as_fast_as_its_rate_says():
    layer = ScaledBias(rate=64.0)
    layer(X)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(layer(X))
    learning_rate, (gradient,) = 0.1, tape.gradient(loss, layer.trainable_variables)
    layer.bias.assign_sub(learning_rate * gradient)
    plain_step = -learning_rate / X.shape[-1]  # what a bias of rate 1 would have become
    np.testing.assert_allclose(layer(np.zeros((1, 4), "float32")), np.full((1, 4), 64 * plain_step), rtol=1e-5)
