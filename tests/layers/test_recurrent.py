"""LSTM against the stock layer: outputs, states and gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bigkeras.layers import LSTM, recurrent

lstm = recurrent._lstm

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(3, 6, 5)).astype("float32")
PADDED = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 0, 1, 1, 0, 0]], bool)


def pair(**args):
    """Our layer and the stock one, with the same random weights."""
    layers = [kind(4, **args) for kind in (LSTM, keras.layers.LSTM)]
    for layer in layers:
        layer.build(X.shape)
    weights = [np.random.default_rng(i).normal(size=w.shape) for i, w in enumerate(layers[0].weights)]
    for layer in layers:
        layer.set_weights(weights)
    return layers


def outputs_and_gradients(layer, mask, state=None, **args):
    @tf.function(**args)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch([x, *(state or [])])
            outputs = tf.nest.flatten(layer(x, mask=mask, initial_state=state, training=True))
            loss = sum(tf.reduce_sum(tf.cast(y, "float32") ** 2) for y in outputs)
        return outputs, tape.gradient(loss, [x, *(state or []), *(w.value for w in layer.trainable_variables)])

    outputs, gradients = step(tf.cast(X, layer.compute_dtype))
    return [tf.cast(t, "float32").numpy() for t in (*outputs, *gradients)]


@pytest.mark.parametrize("mask", [None, PADDED], ids=["all", "padded"])
@pytest.mark.parametrize(
    "args",
    [
        {},
        {"return_sequences": True},
        {"go_backwards": True, "return_sequences": True, "return_state": True},
        {"zero_output_for_mask": True, "return_state": True},
        {"zero_output_for_mask": True, "return_sequences": True},
    ],
)
def test_equals_the_stock_layer(args, mask):
    ours, stock = pair(**args)
    for mine, theirs in zip(outputs_and_gradients(ours, mask), outputs_and_gradients(stock, mask), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mask", [None, PADDED, PADDED[:, ::-1].astype("int32"), PADDED & False])
@pytest.mark.parametrize("args", [{}, {"return_sequences": True, "return_state": True}])
def test_equals_the_stock_layer_from_a_given_state(mask, args):
    state = [tf.constant(RANDOM.normal(size=(3, 4)), "float32") for _ in range(2)]
    results = (outputs_and_gradients(layer, mask, state) for layer in pair(**args))
    for mine, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_equals_the_stock_layer_on_a_single_row_of_unknown_length():
    layers = pair(return_sequences=True)

    def gradients(layer):
        @tf.function(input_signature=[tf.TensorSpec((None, None, X.shape[-1]))])
        def step(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(layer(x, training=True) ** 2)
            return tape.gradient(loss, [w.value for w in layer.trainable_variables])

        return step(X[:1])

    for mine, theirs in zip(*(gradients(layer) for layer in layers), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_equals_the_stock_layer_when_compiled():
    ours, stock = (outputs_and_gradients(layer, PADDED, jit_compile=True) for layer in pair(return_sequences=True))
    for mine, theirs in zip(ours, stock, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_equals_the_stock_layer_in_bfloat16_within_its_precision():
    for mine, theirs in zip(
        *(outputs_and_gradients(layer, PADDED) for layer in pair(dtype="mixed_bfloat16")), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=0.06 * np.abs(theirs).max())


def test_training_takes_the_written_gradient_and_inference_the_stock_way(monkeypatch):
    calls = []
    monkeypatch.setattr(recurrent, "_lstm", lambda *args: calls.append(args) or lstm(*args))
    ours, _ = pair()
    ours(X, training=False)
    assert not calls
    ours(X, training=True)
    assert len(calls) == 1


def test_a_gpu_takes_the_stock_way(monkeypatch):
    calls = []
    monkeypatch.setattr(recurrent, "_lstm", lambda *args: calls.append(args))
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["a GPU"] if kind == "GPU" else [])
    ours, _ = pair()
    assert ours(X, training=True).shape == (3, 4) and not calls


@pytest.mark.parametrize("rate", ["dropout", "recurrent_dropout"])
def test_dropout_takes_the_stock_way(rate, monkeypatch):
    calls = []
    monkeypatch.setattr(recurrent, "_lstm", lambda *args: calls.append(args))
    ours, _ = pair(**{rate: 0.5})
    assert ours(X, training=True).shape == (3, 4) and not calls
