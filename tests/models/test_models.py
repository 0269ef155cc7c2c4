"""Every model in MODELS: what it gives, its joints, its number of parameters, saving and loading."""

import re

import keras
import numpy as np
import pytest

from bigkeras.assembly import NOT_COMPILED
from bigkeras.models import MODELS
from bigkeras.models.blocks import small_stem
from bigkeras.models.efficientnet import VARIANTS, scaled_channels
from bigkeras.recipe import Choice
from bigkeras.step import Step
from bigkeras.tasks import LOSSES
from bigkeras.tasks.augmentation import LAYERS, in_step

RGB = {"input_shape": (16, 16, 3), "num_classes": 5}
TEXT = {"vocabulary_size": 30, "length": 12, "num_classes": 5}

# One line of tiny sizes for every model of images, and the number of its stages.
IMAGE_MODELS = {
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
# The same for every model of token ids; those of BOTH also read images row by row.
TEXT_MODELS = {
    "bag_of_ngrams": ({"width": 8}, 0),
    "bag_of_ngrams-sharded": ({"width": 8, "shards": 4}, 0),
    "bert": ({"size": "tiny"}, 2),
    "bert-mean": ({"size": "tiny", "pooling": "mean", "dropout": 0.0}, 2),
    "gru": ({"units": 8, "depth": 2, "embedding_width": 6, "bidirectional": True}, 2),
    "gru-max": ({"units": 8, "embedding_width": 6, "pooling": "max"}, 1),
    "lstm": ({"units": 8, "depth": 2, "embedding_width": 6, "dropout": 0.1}, 2),
    "lstm-sharded": ({"units": 8, "embedding_width": 6, "shards": 3}, 1),
    "lstm-both": ({"units": 8, "embedding_width": 6, "bidirectional": True}, 1),
    "lstm-mean": ({"units": 8, "embedding_width": 6, "bidirectional": True, "pooling": "mean"}, 1),
    "nb_cnn": ({"filters": 4, "known_words": 20}, 2),
    "nb_cnn-ngrams": ({"filters": 4, "words": 10, "ngrams": 2, "windows": (3,)}, 1),
    "nb_cnn-latent": ({"filters": 4, "windows": (3,), "latent": 3}, 1),
    "nb_ngrams": ({}, 0),
    "nb_ngrams-latent": ({"latent": 3}, 0),
    "rnn": ({"units": 8, "depth": 2, "embedding_width": 6}, 2),
    "text_cnn": ({"embedding_width": 6, "filters": 4}, 3),
    "text_cnn-sharded": ({"embedding_width": 6, "filters": 4, "shards": 3}, 3),
    "text_cnn-even": ({"embedding_width": 6, "filters": 4, "windows": (2,), "dropout": 0.0}, 1),
    "transformer": ({"depth": 2, "width": 8, "num_heads": 2, "feed_forward": 16}, 2),
    "transformer-sharded": ({"depth": 1, "width": 8, "num_heads": 2, "feed_forward": 16, "shards": 3}, 1),
    "transformer-cls": ({"depth": 2, "width": 8, "positions": "learned", "norm": "post", "pooling": "cls"}, 2),
    "transformer-max": ({"depth": 1, "width": 8, "positions": "rotary", "activation": "relu", "pooling": "max"}, 1),
}
BOTH = ["gru", "lstm", "lstm-mean", "rnn", "transformer", "transformer-cls", "transformer-max"]
TINY = IMAGE_MODELS | TEXT_MODELS
QUICK = [
    *TEXT_MODELS,
    "airbench-deep",
    "efficientnet-lite",
    "inception-v1",
    "lenet",
    "resnet",
    "simple_cnn",
    "wide_resnet",
]


@pytest.fixture(autouse=True)
def policy():
    yield
    keras.config.set_dtype_policy("float32")
    keras.backend.clear_session()


def build(key, **args):
    common = RGB if key in IMAGE_MODELS else TEXT
    model = MODELS[key.split("-")[0]](**{**common, **TINY[key][0], **args})
    return model if key in IMAGE_MODELS else stirred(model)


def stirred(model):
    """The model with noise on its weights: some begin at zero, or with logits that tell nothing apart."""
    random = np.random.default_rng(1)
    for weight in model.weights:
        if "seed" not in weight.path:
            weight.assign(weight + 0.1 * random.normal(size=weight.shape))
    return model


def build_for_rows(key):
    return MODELS[key.split("-")[0]](**RGB, **TEXT_MODELS[key][0])


def texts():
    """Of five tokens, of two, and of none."""
    return np.array([[7, 3, 9, 1, 29], [4, 8, 0, 0, 0], [0, 0, 0, 0, 0]], "int32")


def inputs(key):
    return images() if key in IMAGE_MODELS else texts()[:2]


def images(count=2, channels=3):
    return np.random.default_rng(0).normal(size=(count, 16, 16, channels)).astype("float32")


def named_by_keras(layer):
    snake = re.sub(r"(?<!^)(?=[A-Z][a-z])", "_", type(layer).__name__).lower()
    ours = ("flatten", "dropout", "embedding", "token_type")
    return layer.name not in ours and re.fullmatch(rf"{snake}(_\d+)?", layer.name)


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_variables)


def test_every_model_has_a_line_of_tiny_sizes():
    # keras_application is any of Keras' own: tests/models/test_pretrained.py; translators: test_encoder_decoder.py;
    # the language model: tests/tasks/test_masked_language_model.py.
    elsewhere = {"keras_application", "seq2seq_rnn", "transformer_translator", "bert_mlm"}
    assert {key.split("-")[0] for key in TINY} == set(MODELS) - elsewhere


@pytest.mark.parametrize("key", TINY)
def test_gives_finite_logits_and_has_the_joints(key):
    model = build(key)
    logits = model(inputs(key))
    assert logits.shape == (2, 5)
    assert logits.dtype == "float32"
    assert np.isfinite(logits).all()
    assert model.layers[-1].name == "logits"
    assert not hasattr(model.layers[-1], "activation") or model.layers[-1].activation is keras.activations.linear
    joints = [
        "stem" if key in IMAGE_MODELS else "embedding",
        *(f"stage{i + 1}" for i in range(TINY[key][1])),
        "features",
        "logits",
    ]
    keras.Model(model.input, [model.get_layer(name).output for name in joints])
    assert not any(layer.name.startswith(f"stage{TINY[key][1] + 1}") for layer in model.layers)
    assert not [layer.name for layer in model.layers if named_by_keras(layer)]


@pytest.mark.parametrize("key", QUICK)
def test_mixed_bfloat16_gives_float32_logits_near_the_float32_ones(key):
    plain = build(key)
    keras.config.set_dtype_policy("mixed_bfloat16")
    mixed = build(key)
    mixed.set_weights(plain.get_weights())
    logits = mixed(inputs(key))
    assert logits.dtype == "float32"
    expected = plain(inputs(key)).numpy()
    np.testing.assert_allclose(logits, expected, atol=0.1 * np.ptp(expected))


@pytest.mark.parametrize("key", QUICK)
def test_a_saved_model_loads_equal(key, tmp_path):
    model = build(key)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(again(inputs(key)), model(inputs(key)))


@pytest.mark.parametrize("key", ["airbench", "lenet", "resnet", "simple_cnn"])
def test_takes_gray_images(key):
    assert build(key, input_shape=(16, 16, 1))(images(channels=1)).shape == (2, 5)


@pytest.mark.parametrize("key", BOTH)
def test_a_sequence_model_reads_images_row_by_row(key):
    model = build_for_rows(key)
    assert model(images()).shape == (2, 5)
    assert model.input.name == "image"


@pytest.mark.parametrize("key", TEXT_MODELS)
def test_padding_and_neighbours_change_no_answer(key):
    model = build(key)
    together = model(texts()).numpy()
    assert np.isfinite(together).all()
    for row, length in ((0, 5), (1, 2), (2, 1)):
        alone = model(texts()[row : row + 1, :length])
        longer = model(np.pad(texts()[row : row + 1, :length], ((0, 0), (0, 12 - length))))
        np.testing.assert_allclose(alone, together[row : row + 1], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(longer, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("key", TEXT_MODELS)
def test_an_answer_can_be_traced_back_to_the_embeddings(key):
    """What an explanation differentiates: the graph from the embeddings on, with the mask of the tokens."""
    model = build(key)
    embedded = model.get_layer("embedding").output
    rest = keras.Model([model.input, embedded], model.output)
    vectors = keras.Model(model.input, embedded)(texts())
    np.testing.assert_allclose(rest([keras.ops.convert_to_tensor(texts()), vectors]), model(texts()), atol=1e-6)


@pytest.mark.parametrize(
    "key", ["airbench", "bert", "efficientnet", "lstm-mean", "resnet", "text_cnn", "transformer-cls"]
)
def test_gradients_reach_every_trainable_weight(key):
    import tensorflow as tf

    model = build(key)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(inputs(key), training=True) ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(g is not None and np.isfinite(tf.convert_to_tensor(g)).all() for g in gradients)


def dynamic_shapes(function, *arguments) -> list[str]:
    """The shapes in what XLA makes of a function that are known at run time only; fails where XLA cannot take it."""
    return re.findall(r"\w+\[[^\]]*<=[^\]]*\]", function.experimental_get_compiler_ir(*arguments)(stage="hlo"))


def dynamic_shapes_of_the_step(model, x, labels, **options) -> list[str]:
    """Those in the compiled train step of a model for a batch of two: of classes `(2,)`, or of words `(2, length)`."""
    import tensorflow as tf

    words = labels.ndim == 2
    loss = LOSSES["translation" if words else "image_classification"]["cross_entropy"]()
    classes = None if words else 5
    step = Step(model, normalise=lambda x: x, loss=loss, num_classes=classes, clip_norm=1.0, ema=0.9, **options)
    step.begin(keras.optimizers.AdamW())
    compiled = tf.function(lambda *batch: step.train_step(batch), jit_compile=True)
    tensors = tf.nest.map_structure(tf.constant, x)
    return dynamic_shapes(compiled, tensors, tf.constant(labels), tf.ones(labels.shape))


# One of each function, and the one that compiles soonest: Inception v3 alone took a minute.
COMPILED = [
    "efficientnet-lite",
    "inception-v1",
    *(k for k in TINY if k in MODELS and k not in ("efficientnet", "inception")),
]
CLASSES = np.array([0, 1])


@pytest.mark.parametrize(
    "key", [k if k in ("lenet", "transformer") else pytest.param(k, marks=pytest.mark.slow) for k in COMPILED]
)
def test_the_train_step_is_taken_by_xla_with_static_shapes_only(key):
    assert dynamic_shapes_of_the_step(build(key), inputs(key), CLASSES) == []


# Models of words: they take two inputs of ids, and answer a word at each place of the second.
WORD_MODELS = {
    "bert_mlm": {"size": "tiny"},
    "seq2seq_rnn": {"units": 8, "embedding_width": 6},
    "transformer_translator": {"depth": 1, "width": 8, "num_heads": 2, "feed_forward": 16},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WORD_MODELS)
def test_the_train_step_of_a_model_of_words_is_taken_by_xla_with_static_shapes_only(name):
    model = MODELS[name](vocabulary_size=30, length=12, **WORD_MODELS[name])
    second = np.array([[1, 2, 3], [4, 1, 0]], "int32")
    assert dynamic_shapes_of_the_step(model, [texts()[:2], second], second) == []


@pytest.mark.slow
def test_the_train_step_of_one_of_keras_own_models_is_taken_by_xla_with_static_shapes_only():
    model = MODELS["keras_application"](name="MobileNet", input_shape=(32, 32, 3), num_classes=5)
    assert dynamic_shapes_of_the_step(model, np.zeros((2, 32, 32, 3), "float32"), CLASSES) == []


def test_micro_batches_are_taken_by_xla_with_static_shapes_only():
    assert dynamic_shapes_of_the_step(build("lenet"), images(), CLASSES, micro_batches=2) == []


@pytest.mark.slow
def test_augmentation_that_is_not_refused_is_taken_by_xla_with_static_shapes_only():
    by_factor = ("random_brightness", "random_contrast", "random_sharpness")
    names = sorted(set(LAYERS) - NOT_COMPILED)
    layers = in_step([Choice(name, {"factor": 0.1} if name in by_factor else {}) for name in names], 0)
    assert dynamic_shapes_of_the_step(build("lenet"), images(), CLASSES, augmentation=layers) == []


def test_a_shape_that_depends_on_the_values_is_found():
    import tensorflow as tf

    function = tf.function(lambda x: x[x > 0], jit_compile=True)
    assert dynamic_shapes(function, tf.constant([1.0, -1.0]))


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
        ("lstm", {"shards": 4}, "shards=4: are of a table of words"),
        ("transformer", {"shards": 4}, "shards=4: are of a table of words"),
        ("simple_cnn", {"dropout": 1.5}, "dropout=1.5"),
    ],
)
def test_a_wrong_value_is_named(name, args, message):
    with pytest.raises(ValueError, match=message):
        MODELS[name](**{**RGB, **args})


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("lstm", {"length": None}, "either input_shape, or vocabulary_size and length"),
        ("lstm", {"input_shape": (8, 8, 1)}, "either input_shape, or vocabulary_size and length"),
        ("transformer", {"vocabulary_size": None, "length": None}, "either input_shape"),
        ("transformer", {"width": 6, "num_heads": 4}, r"width=6 .* num_heads=4"),
        ("transformer", {"positions": "random"}, "'random' is not one of"),
        ("transformer", {"norm": "none"}, "'none' is not one of"),
        ("transformer", {"pooling": "last"}, "'last' is not one of"),
        ("transformer", {"depth": 0}, "depth=0"),
        ("gru", {"pooling": "cls"}, "'cls' is not one of"),
        ("rnn", {"units": 0}, "units=0"),
        ("bert", {"size": "huge"}, "'huge' is not one of"),
        ("bert", {"vocabulary_size": 1}, "vocabulary_size=1"),
        ("bag_of_ngrams", {"length": 0}, "length=0"),
        ("nb_ngrams", {"smoothing": 0.0}, r"smoothing=0\.0"),
        ("nb_ngrams", {"latent": -1}, "latent=-1"),
        ("text_cnn", {"windows": ()}, "windows"),
        ("text_cnn", {"num_classes": 0}, "num_classes=0"),
    ],
)
def test_a_wrong_value_of_a_text_model_is_named(name, args, message):
    with pytest.raises(ValueError, match=message):
        MODELS[name](**{**TEXT, **args})


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


def test_the_start_of_efficientnet_follows_the_seed_and_differs_from_layer_to_layer():
    def kernels():
        keras.utils.set_random_seed(1)
        model = MODELS["efficientnet"](input_shape=(32, 32, 3), num_classes=2, variant="lite0")
        return [w.numpy() for w in model.trainable_weights if "kernel" in w.path]

    first, again = kernels(), kernels()
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    pairs = [(a, b) for i, a in enumerate(first) for b in first[:i] if a.shape == b.shape]
    assert pairs and not any(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("wrong", [{"known_words": 1}, {"ratio_rate": 0.0}])
def test_convolutions_beside_ratios_refuse_sizes_that_learn_nothing(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MODELS["nb_cnn"](vocabulary_size=20, length=8, num_classes=2, **wrong)
