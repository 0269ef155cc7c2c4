"""DepthwiseConv against the stock layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bigkeras.layers import DepthwiseConv

IMAGES = np.random.default_rng(0).normal(size=(2, 7, 7, 4)).astype("float32")


def outputs_and_gradients(layer, images):
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = layer(images)
        loss = tf.reduce_sum(tf.cast(outputs, "float32") ** 2)
    gradients = tape.gradient(loss, [images, *(w.value for w in layer.trainable_variables)])
    return [tf.cast(t, "float32").numpy() for t in (outputs, *gradients)]


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_equals_the_stock_layer(strides, padding, dtype):
    args = {"kernel_size": 3, "strides": strides, "padding": padding, "dtype": dtype}
    ours, stock = DepthwiseConv(**args), keras.layers.DepthwiseConv2D(**args)
    images = tf.cast(IMAGES, ours.compute_dtype)
    ours(images), stock(images)
    stock.set_weights(ours.get_weights())
    # The gradient of the bias is a sum of all positions in 16 bits: over 400 draws both were up to 5 % off.
    tolerance = 1e-5 if dtype == "float32" else 0.1
    for mine, theirs in zip(outputs_and_gradients(ours, images), outputs_and_gradients(stock, images), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=tolerance * np.abs(theirs).max())


def test_a_dilated_convolution_takes_the_stock_way():
    ours = DepthwiseConv(3, dilation_rate=2, dtype="mixed_bfloat16")
    assert ours(IMAGES).shape == (2, 3, 3, 4)
