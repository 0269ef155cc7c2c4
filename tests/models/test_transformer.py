"""The encoder against NumPy, and its attention maps."""

import importlib.util

import keras
import numpy as np
import pytest

from bigkeras.layers import CrossAttention, SinusoidalPositions, SplitHeads
from bigkeras.models import MODELS
from bigkeras.models.transformer import attention_maps, post_norm_block, pre_norm_block

SIZES = {"num_classes": 3, "vocabulary_size": 30, "length": 9, "depth": 2, "width": 8, "num_heads": 2}
needs_keras_hub = pytest.mark.skipif(importlib.util.find_spec("keras_hub") is None, reason="pip install keras-hub")
TOKENS = np.array([[7, 3, 9, 29, 1], [4, 8, 0, 0, 0]], "int32")


def with_random_weights(model):
    """Biases and norms start at 0 and 1, where a test would not see them."""
    random = np.random.default_rng(0)
    model.set_weights([random.normal(size=w.shape, scale=0.5) for w in model.weights])
    return model


def normalise(x, gamma, beta, epsilon=1e-6):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon) * gamma + beta


def attention(x, mask, heads=2):
    outputs = []
    for query, key, value in zip(*(np.split(part, heads, -1) for part in np.split(x, 3, -1)), strict=True):
        scores = np.exp(query @ key.swapaxes(1, 2) / np.sqrt(query.shape[-1])) * mask[:, None, :]
        outputs.append(scores / scores.sum(-1, keepdims=True) @ value)
    return np.concatenate(outputs, -1)


def numpy_block(x, mask, weights, norm):
    """Equations 1 and 2 of the paper, sections 3.1 to 3.3, with ReLU."""
    first_norm = weights[:2] if norm == "pre" else weights[4:6]
    to_heads, from_heads = (weights[2:4], weights[4:6]) if norm == "pre" else (weights[:2], weights[2:4])
    second_norm, first, second = (weights[6:8], weights[8:10], weights[10:12])
    if norm == "post":
        first, second, second_norm = weights[6:8], weights[8:10], weights[10:12]

    def attend(y):
        return attention(y @ to_heads[0] + to_heads[1], mask) @ from_heads[0] + from_heads[1]

    def feed(y):
        return np.maximum(y @ first[0] + first[1], 0) @ second[0] + second[1]

    if norm == "pre":
        x = x + attend(normalise(x, *first_norm))
        return x + feed(normalise(x, *second_norm))
    x = normalise(x + attend(x), *first_norm)
    return normalise(x + feed(x), *second_norm)


@pytest.mark.parametrize(("norm", "block"), [("pre", pre_norm_block), ("post", post_norm_block)])
def test_a_block_equals_numpy(norm, block):
    x, mask = keras.Input((5, 8)), keras.Input((5,), dtype="bool")
    outputs = block(x, mask, num_heads=2, feed_forward=16, activation="relu", name="stage1")
    model = with_random_weights(keras.Model([x, mask], outputs))
    values, seen = np.random.default_rng(1).normal(size=(2, 5, 8)), TOKENS != 0
    expected = numpy_block(values, seen, model.get_weights(), norm)
    np.testing.assert_allclose(model([values, seen]), expected, atol=1e-4)


@needs_keras_hub
@pytest.mark.parametrize(("norm", "block"), [("pre", pre_norm_block), ("post", post_norm_block)])
def test_a_block_equals_keras_hubs_with_the_same_weights(norm, block):
    import keras_hub

    x, mask = keras.Input((5, 8)), keras.Input((5,), dtype="bool")
    outputs = block(x, mask, num_heads=2, feed_forward=16, activation="relu", name="stage1")
    model = with_random_weights(keras.Model([x, mask], outputs))
    theirs = keras_hub.layers.TransformerEncoder(16, 2, layer_norm_epsilon=1e-6, normalize_first=norm == "pre")
    theirs.build((2, 5, 8))

    def weights(name):
        return model.get_layer(f"stage1{name}").get_weights()

    (kernel, bias), (merge, last) = weights("_attention_query_key_value"), weights("_attention_output")
    parts = zip(np.split(kernel, 3, -1), np.split(bias, 3), strict=True)
    heads = [part.reshape(*part.shape[:-1], 2, 4) for pair in parts for part in pair]
    norms = weights("_attention_norm"), weights("_feed_forward_norm" if norm == "pre" else "")
    dense = weights("_feed_forward_1"), weights("_feed_forward_2")
    theirs.set_weights([*heads, merge.reshape(2, 4, 8), last, *norms[0], *norms[1], *dense[0], *dense[1]])
    values, seen = np.random.default_rng(1).normal(size=(2, 5, 8)), TOKENS != 0
    np.testing.assert_allclose(model([values, seen]), theirs(values, padding_mask=seen), atol=1e-5)


@needs_keras_hub
def test_sinusoids_equal_keras_hubs_which_interleaves_sines_and_cosines():
    import keras_hub

    x = np.zeros((2, 40, 6), "float32")
    ours, theirs = SinusoidalPositions()(x).numpy(), keras_hub.layers.SinePositionEncoding()(x).numpy()
    np.testing.assert_allclose(ours, np.concatenate([theirs[..., 0::2], theirs[..., 1::2]], -1), atol=1e-5)


def test_attention_maps_are_weights_over_the_real_tokens_by_the_layers_names():
    model = MODELS["transformer"](**SIZES, feed_forward=16)
    maps = attention_maps(model)(TOKENS)
    assert list(maps) == ["stage1_attention", "stage2_attention"]
    for weights in maps.values():
        assert weights.shape == (2, 2, 5, 5)
        np.testing.assert_allclose(weights.numpy().sum(-1), 1, atol=1e-6)
        assert not weights.numpy()[1, :, :, 2:].any()


def test_attention_maps_are_those_of_a_loaded_model_and_share_its_weights(tmp_path):
    model = MODELS["transformer"](**SIZES, feed_forward=16)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    maps = attention_maps(again)
    assert {id(w) for w in maps.weights} <= {id(w) for w in again.weights}
    expected = attention_maps(model)(TOKENS)
    np.testing.assert_array_equal(maps(TOKENS)["stage2_attention"], expected["stage2_attention"])


def test_attention_maps_of_cross_attention_and_of_rows():
    queries, memory = keras.Input((5, 8)), keras.Input((3, 16))
    model = keras.Model([queries, memory], CrossAttention(2, name="cross")(queries, *SplitHeads(2)(memory)))
    maps = attention_maps(model)([np.ones((1, 5, 8)), np.ones((1, 3, 16))])
    assert maps["cross"].shape == (1, 2, 5, 3)
    rows = MODELS["transformer"](input_shape=(6, 4, 1), num_classes=3, depth=1, width=8, pooling="cls")
    assert attention_maps(rows)(np.ones((1, 6, 4, 1)))["stage1_attention"].shape == (1, 4, 7, 7)


def test_a_model_without_attention_has_no_maps():
    with pytest.raises(ValueError, match="no attention"):
        attention_maps(MODELS["bag_of_ngrams"](vocabulary_size=30, length=5, num_classes=2))
