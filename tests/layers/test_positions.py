"""Positions: the paper's formula, and a later start against the whole."""

import keras
import numpy as np
import pytest

from bigkeras.layers import ApproximateGelu, LearnedPositions, SelfAttention, SinusoidalPositions, TokenType

X = np.random.default_rng(0).normal(size=(2, 7, 6)).astype("float32")


def test_sinusoids_are_the_papers():
    added = SinusoidalPositions()(np.zeros_like(X)).numpy()[0]
    for position in range(7):
        for i in range(3):
            angle = position / 10_000 ** (2 * i / 6)
            np.testing.assert_allclose(added[position, [i, 3 + i]], [np.sin(angle), np.cos(angle)], atol=1e-5)


def test_sinusoids_need_an_even_width():
    with pytest.raises(ValueError, match="width=5"):
        SinusoidalPositions()(X[..., :5])


@pytest.mark.parametrize("layer", [SinusoidalPositions(), LearnedPositions(9)], ids=["sinusoidal", "learned"])
def test_a_later_start_gives_the_end_of_the_whole(layer):
    np.testing.assert_allclose(layer(X[:, 4:], start=4), layer(X)[:, 4:], atol=1e-6)


def test_learned_positions_add_a_row_of_the_table():
    layer = LearnedPositions(9)
    np.testing.assert_allclose(layer(X) - X, np.broadcast_to(layer.embeddings[:7], X.shape), atol=1e-6)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize("layer", [SinusoidalPositions(), LearnedPositions(9), TokenType(), ApproximateGelu()])
def test_a_mask_passes_through(layer):
    tokens = np.array([[3, 1, 0], [2, 0, 0]])
    outputs = layer(keras.layers.Embedding(5, 6, mask_zero=True)(tokens))
    np.testing.assert_array_equal(outputs._keras_mask, tokens > 0)


def test_rotations_need_an_even_width_for_each_head():
    with pytest.raises(ValueError, match="width=12, num_heads=4: rotary positions need an even width"):
        SelfAttention(4, rotary=True)(np.zeros((1, 3, 36), "float32"))
