"""Every model in MODELS: what it gives, its joints, its number of parameters, saving and loading."""

import re

import keras
import numpy as np
import pytest

from bigkeras.models import MODELS
from bigkeras.models.blocks import small_stem
from bigkeras.models.efficientnet import VARIANTS, scaled_channels

RGB = {"input_shape": (16, 16, 3), "num_classes": 5}

# One line of tiny sizes for every model, and the number of its stages.
TINY = {
    "airbench": ({"widths": (8, 12, 12)}, 3),
    "airbench-deep": ({"widths": (8, 12), "convs_per_stage": 3}, 2),
    "efficientnet": ({"variant": "b0"}, 7),
    "efficientnet-lite": ({"variant": "lite0", "stem": "large"}, 7),
    "inception": ({"variant": "v3"}, 3),
    "inception-v1": ({"variant": "v1"}, 3),
    "lenet": ({"dropout": 0.1}, 2),
    "resnet": ({"depth": 8, "dropout": 0.1}, 3),
    "resnet-basic": ({"depth": 18}, 4),
    "resnet-bottleneck": ({"depth": 50, "stem": "large"}, 4),
    "simple_cnn": ({"filters": 4, "width": 8}, 1),
    "wide_resnet": ({"depth": 10, "width": 2, "block_dropout": 0.1}, 3),
}
QUICK = ["airbench-deep", "efficientnet-lite", "inception-v1", "lenet", "resnet", "simple_cnn", "wide_resnet"]


@pytest.fixture(autouse=True)
def policy():
    yield
    keras.config.set_dtype_policy("float32")
    keras.backend.clear_session()


def build(key, **args):
    return MODELS[key.split("-")[0]](**{**RGB, **TINY[key][0], **args})


def images(count=2, channels=3):
    return np.random.default_rng(0).normal(size=(count, 16, 16, channels)).astype("float32")


def named_by_keras(layer):
    snake = re.sub(r"(?<!^)(?=[A-Z][a-z])", "_", type(layer).__name__).lower()
    return layer.name not in ("flatten", "dropout") and re.fullmatch(rf"{snake}(_\d+)?", layer.name)


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_variables)


def test_every_model_has_a_line_of_tiny_sizes():
    # keras_application is any of Keras' own: tests/models/test_pretrained.py.
    assert {key.split("-")[0] for key in TINY} == set(MODELS) - {"keras_application"}


@pytest.mark.parametrize("key", TINY)
def test_gives_finite_logits_and_has_the_joints(key):
    model = build(key)
    logits = model(images())
    assert logits.shape == (2, 5)
    assert logits.dtype == "float32"
    assert np.isfinite(logits).all()
    assert model.layers[-1].name == "logits"
    assert not hasattr(model.layers[-1], "activation") or model.layers[-1].activation is keras.activations.linear
    joints = ["stem", *(f"stage{i + 1}" for i in range(TINY[key][1])), "features", "logits"]
    keras.Model(model.input, [model.get_layer(name).output for name in joints])
    assert not any(layer.name.startswith(f"stage{TINY[key][1] + 1}") for layer in model.layers)
    assert not [layer.name for layer in model.layers if named_by_keras(layer)]


@pytest.mark.parametrize("key", QUICK)
def test_mixed_bfloat16_gives_float32_logits_near_the_float32_ones(key):
    plain = build(key)
    keras.config.set_dtype_policy("mixed_bfloat16")
    mixed = build(key)
    mixed.set_weights(plain.get_weights())
    logits = mixed(images())
    assert logits.dtype == "float32"
    expected = plain(images()).numpy()
    np.testing.assert_allclose(logits, expected, atol=0.1 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("key", QUICK)
def test_a_saved_model_loads_equal(key, tmp_path):
    model = build(key)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(again(images()), model(images()))


@pytest.mark.parametrize("key", ["airbench", "lenet", "resnet", "simple_cnn"])
def test_takes_gray_images(key):
    assert build(key, input_shape=(16, 16, 1))(images(channels=1)).shape == (2, 5)


@pytest.mark.parametrize("key", ["airbench", "efficientnet", "resnet"])
def test_gradients_reach_every_trainable_weight(key):
    import tensorflow as tf

    model = build(key)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(images(), training=True) ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(gradient is not None and np.isfinite(gradient).all() for gradient in gradients)


# What the papers, or the reference implementations, count.
PUBLISHED = [
    (61_706, "lenet", (32, 32, 1), 10, {}),
    (61_706, "lenet", (28, 28, 1), 10, {}),
    (693_962, "simple_cnn", (28, 28, 1), 10, {}),
    (269_722, "resnet", (32, 32, 3), 10, {"depth": 20}),
    (1_727_962, "resnet", (32, 32, 3), 10, {"depth": 110}),
    (11_689_512, "resnet", (224, 224, 3), 1000, {"depth": 18}),
    (21_797_672, "resnet", (224, 224, 3), 1000, {"depth": 34}),
    (25_557_032, "resnet", (224, 224, 3), 1000, {"depth": 50}),
    (44_549_160, "resnet", (224, 224, 3), 1000, {"depth": 101}),
    (60_192_808, "resnet", (224, 224, 3), 1000, {"depth": 152}),
    (36_479_194, "wide_resnet", (32, 32, 3), 10, {"depth": 28, "width": 10}),
    (6_998_552, "inception", (224, 224, 3), 1000, {"variant": "v1"}),
    (23_834_568, "inception", (299, 299, 3), 1000, {"variant": "v3"}),
    (5_288_548, "efficientnet", (224, 224, 3), 1000, {"variant": "b0"}),
    (7_794_184, "efficientnet", (240, 240, 3), 1000, {"variant": "b1"}),
    (66_347_960, "efficientnet", (600, 600, 3), 1000, {"variant": "b7"}),
    (4_652_008, "efficientnet", (224, 224, 3), 1000, {"variant": "lite0"}),
    (13_006_568, "efficientnet", (300, 300, 3), 1000, {"variant": "lite4"}),
    (1_971_352, "airbench", (32, 32, 3), 10, {}),
]


def quick_or_slow(row):
    """Large models take seconds to start at random: they are for the full run."""
    return pytest.param(*row, marks=[pytest.mark.slow] if row[0] > 12_000_000 else [])


@pytest.mark.parametrize(("count", "name", "input_shape", "num_classes", "args"), map(quick_or_slow, PUBLISHED))
def test_has_the_published_number_of_trainable_parameters(count, name, input_shape, num_classes, args):
    model = MODELS[name](input_shape=input_shape, num_classes=num_classes, **args)
    assert trainable(model) == count


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("resnet", {"depth": 21}, "depth=21"),
        ("resnet", {"depth": 18, "stem": "huge"}, "huge"),
        ("resnet", {"depth": 20, "stem": "large"}, "large"),
        ("wide_resnet", {"depth": 28, "width": 0}, "width=0"),
        ("wide_resnet", {"depth": 27}, "depth=27"),
        ("inception", {"variant": "v2"}, "'v2' is not one of"),
        ("efficientnet", {"variant": "b8"}, "'b8' is not one of"),
        ("efficientnet", {"stochastic_depth": 1.0}, "1.0"),
        ("airbench", {"widths": ()}, "widths"),
        ("airbench", {"convs_per_stage": 0}, "convs_per_stage=0"),
        ("lenet", {"input_shape": (8, 8, 1)}, "at least 12"),
        ("lenet", {"input_shape": (28, 28)}, "height, width, channels"),
        ("simple_cnn", {"num_classes": 0}, "num_classes=0"),
        ("simple_cnn", {"dropout": 1.5}, "dropout=1.5"),
    ],
)
def test_a_wrong_value_is_named(name, args, message):
    with pytest.raises(ValueError, match=message):
        MODELS[name](**{**RGB, **args})


def test_small_images_get_the_small_stem_unless_told():
    assert small_stem("auto", (32, 32, 3), below=64)
    assert not small_stem("auto", (64, 64, 3), below=64)
    assert not small_stem("large", (32, 32, 3), below=64)


def test_channels_are_multiples_of_eight_near_the_wanted_number():
    assert [scaled_channels(32, VARIANTS[v].width) for v in ("b0", "b2", "b4", "b7")] == [32, 32, 48, 64]


def test_the_whitening_layer_of_airbench_whitens():
    model = build("airbench")
    training = np.random.default_rng(1).normal(size=(50, 16, 16, 3)).astype("float32").cumsum(axis=1)
    training /= training.std()
    model.get_layer("stem_whitening").adapt(training)
    whitened = model.get_layer("stem_whitening")(training).numpy()[..., :12].reshape(-1, 12)
    covariance = whitened.T @ whitened / len(whitened)
    np.testing.assert_allclose(covariance, np.eye(12), atol=0.35)
