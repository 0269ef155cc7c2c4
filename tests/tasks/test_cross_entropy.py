"""The cross entropy of tokens beside Keras' own for one-hot targets."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bigkeras.tasks.cross_entropy import token_cross_entropy, token_nats


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("compiled", [False, True])
def test_value_and_gradient_are_those_of_keras_for_one_hot_targets(smoothing, compiled):
    # The wide rows have shares that float32 does not hold.
    logits = tf.random.stateless_normal((2, 3, 5), (0, 1)) * tf.constant([1.0, 10.0, 300.0])[None, :, None]
    labels, weights = tf.constant([[0, 1, 2], [3, 4, 0]]), tf.random.stateless_uniform((2, 3), (0, 2))
    keras_loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing, reduction="none")
    ours = token_cross_entropy(smoothing)

    @tf.function(jit_compile=compiled)
    def value_and_gradient(own: bool):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            values = ours(labels, logits) if own else keras_loss(tf.one_hot(labels, 5), logits)
            total = tf.reduce_sum(values * weights)
        return values, tape.gradient(total, logits)

    for a, b in zip(value_and_gradient(True), value_and_gradient(False), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    plain = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    np.testing.assert_allclose(token_nats(labels, logits), plain, rtol=1e-5, atol=1e-6)


def test_no_pairs_have_no_loss():
    assert token_cross_entropy(0.1)(tf.zeros((0, 4), tf.int32), tf.zeros((0, 4, 9))).shape == (0, 4)
