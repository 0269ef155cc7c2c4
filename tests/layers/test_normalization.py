"""BatchNorm against the stock layer, and against itself on several replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bigkeras import runtime, strategies
from bigkeras.layers import MOMENTUM, BatchNorm, noted_waits

IMAGES = np.random.default_rng(0).normal(1.5, 2.0, (6, 5, 4, 3)).astype("float32")
WEIGHTS = np.random.default_rng(1).normal(size=IMAGES.shape).astype("float32")


def pair(**args):
    """Our layer and the stock one, with the same weights, none of them trivial."""
    ours = BatchNorm(**args)
    stock = keras.layers.BatchNormalization(**{"momentum": MOMENTUM, **args})
    for layer in (ours, stock):
        layer.build(IMAGES.shape)
    values = [np.random.default_rng(i).uniform(0.5, 2.0, w.shape) for i, w in enumerate(ours.weights)]
    ours.set_weights(values)
    stock.set_weights(values)
    return ours, stock


def outputs_and_gradients(layer, training, dtype="float32"):
    @tf.function
    def step(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images, training=training)
            loss = tf.reduce_sum(tf.cast(outputs, "float32") * WEIGHTS)
        return outputs, tape.gradient(loss, [images, *[w.value for w in layer.trainable_variables]])

    outputs, gradients = step(tf.cast(IMAGES, dtype))
    return [tf.cast(t, "float32").numpy() for t in (outputs, *gradients)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("args", [{}, {"scale": False}, {"center": False}, {"epsilon": 1e-7}, {"axis": 1}])
def test_equals_the_stock_layer_in_float32(args, training):
    ours, stock = pair(**args)
    for mine, theirs in zip(*(outputs_and_gradients(layer, training) for layer in (ours, stock)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)
    for mine, theirs in zip(ours.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_equals_the_stock_layer_in_bfloat16_within_its_precision(training):
    ours, stock = pair(dtype="mixed_bfloat16")
    mine, theirs = (outputs_and_gradients(layer, training, "bfloat16") for layer in (ours, stock))
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0.05, atol=0.05 * np.abs(other).max())
    for one, other in zip(ours.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("training", [True, False])
def test_weights_of_16_bits_take_the_stock_way(dtype, training):
    mine, theirs = (layer(tf.cast(IMAGES, dtype), training=training) for layer in pair(dtype=dtype))
    np.testing.assert_array_equal(tf.cast(mine, "float32"), tf.cast(theirs, "float32"))


def test_training_uses_the_fused_kernel():
    layer, _ = pair()
    graph = tf.function(lambda x: layer(x, training=True)).get_concrete_function(tf.constant(IMAGES)).graph
    assert "FusedBatchNormV3" in {operation.type for operation in graph.get_operations()}


def test_a_frozen_layer_keeps_its_statistics():
    layer, _ = pair()
    layer.trainable = False
    before = layer.get_weights()
    frozen = layer(IMAGES, training=True)
    np.testing.assert_allclose(frozen, layer(IMAGES, training=False), rtol=1e-6)
    assert all(np.array_equal(a, b) for a, b in zip(before, layer.get_weights(), strict=True))


def test_dense_inputs_and_masks_take_the_stock_way():
    ours, stock = (layer(momentum=0.9) for layer in (BatchNorm, keras.layers.BatchNormalization))
    rows = IMAGES[:, 0]
    mask = np.arange(24).reshape(6, 4) % 3 > 0
    np.testing.assert_allclose(ours(rows, training=True, mask=mask), stock(rows, training=True, mask=mask), atol=1e-6)
    np.testing.assert_allclose(ours.moving_variance, stock.moving_variance)


@pytest.mark.parametrize("args", [{}, {"scale": False}, {"center": False}])
@pytest.mark.parametrize("rank", [4, 2])
def test_two_replicas_normalise_and_learn_by_the_whole_batch(rank, args):
    """Also where one of them has more of it. The exchanges, one forwards and one backwards, are noted."""
    images, factors = (data.reshape(-1, 3) if rank == 2 else data for data in (IMAGES, WEIGHTS))
    waits: list = []

    @tf.function
    def step(layer, images, factors):
        with noted_waits(waits), tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(tf.tanh(outputs := layer(images, training=True)) * factors)
            gradients = tape.gradient(loss, [images, *[w.value for w in layer.trainable_variables]])
        return outputs, *gradients

    def made():
        layer = BatchNorm(**args)
        layer.build(images.shape)
        layer.set_weights([np.random.default_rng(i).uniform(0.5, 2.0, w.shape) for i, w in enumerate(layer.weights)])
        return layer

    single = made()
    expected = step(single, tf.constant(images), tf.constant(factors))
    assert not waits
    strategy = strategies.strategy(runtime.Machine(strategy="mirrored", replicas=2))
    with strategy.scope():
        layer = made()

    def parted(data):
        parts = data[:4], data[4:]
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group])
        )

    found = [
        strategy.experimental_local_results(v) for v in strategy.run(step, (layer, *map(parted, (images, factors))))
    ]
    together = [np.concatenate(v) for v in found[:2]] + [sum(v) for v in found[2:]]
    for mine, theirs in zip(together, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(layer.get_weights(), single.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5)
    assert len(waits) == 2 * 2


def test_two_replicas_normalise_what_a_mask_leaves_by_the_whole_batch():
    random = np.random.default_rng(0)
    texts, mask = random.normal(2, 3, (8, 5, 3)).astype(np.float32), np.arange(5) < random.integers(1, 6, (8, 1))
    stock = keras.layers.BatchNormalization(momentum=0.9)
    expected = stock(texts, training=True, mask=mask)
    strategy = strategies.strategy(runtime.Machine(strategy="mirrored", replicas=2))
    with strategy.scope():
        layer = BatchNorm()
        layer.build(texts.shape)

    def parted(data):
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(np.split(data, [3])[context.replica_id_in_sync_group])
        )

    run = tf.function(lambda x, kept: layer(x, training=True, mask=kept))
    found = strategy.experimental_local_results(strategy.run(run, (parted(texts), parted(mask))))
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-4, atol=1e-4)
    for mine, theirs in zip(layer.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4)


def test_config_round_trip():
    layer = BatchNorm(momentum=0.7, scale=False, name="bn")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert isinstance(again, BatchNorm)
    assert again.get_config() == layer.get_config()
