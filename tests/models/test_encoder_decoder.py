"""The translation models: published sizes, padding, and that a step of decoding gives what the full pass gives."""

import functools
from contextlib import nullcontext

import keras
import numpy as np
import pytest
import tensorflow as tf

from bigkeras import runtime
from bigkeras.layers import CrossAttention, SelfAttention, SplitHeads
from bigkeras.models import MODELS
from bigkeras.models.encoder_decoder import SIZES
from bigkeras.models.stepper import check_steps, stepper
from bigkeras.models.transformer import attention_maps

SHARED = {"vocabulary_size": 20, "length": 12}
SMALL = {
    "seq2seq_rnn": {"units": 16, "embedding_width": 12},
    "transformer_translator": {"depth": 2, "width": 16, "num_heads": 2, "feed_forward": 32},
}
# One line for every way of every translation model.
TINY = {
    "seq2seq_rnn": {"depth": 2},
    "seq2seq_rnn-gru": {"cell": "gru", "attention": "additive", "target_vocabulary_size": 15, "dropout": 0.0},
    "seq2seq_rnn-gru-multiplicative": {"cell": "gru", "attention": "multiplicative"},
    "seq2seq_rnn-lstm-additive": {"cell": "lstm", "attention": "additive"},
    "transformer_translator": {},
    "transformer_translator-pre": {"norm": "pre", "target_vocabulary_size": 15},
    "transformer_translator-learned": {"positions": "learned", "activation": "gelu", "dropout": 0.0},
    "transformer_translator-rotary": {"positions": "rotary", "norm": "pre", "target_vocabulary_size": 15},
}
# Of four tokens, of two, and of none.
SOURCE = np.array([[7, 3, 9, 19], [4, 8, 0, 0], [0, 0, 0, 0]], "int32")
TARGET = np.array([[2, 5, 6, 7, 14, 3], [2, 9, 3, 0, 0, 0], [2, 3, 0, 0, 0, 0]], "int32")


@functools.cache
def build(key, precision="float32"):
    """One model for all tests: no test changes its weights."""
    keras.utils.set_random_seed(0)
    with runtime.precision(precision):
        name = key.split("-")[0]
        model = MODELS[name](**{**SHARED, **SMALL[name], **TINY[key]})
    random = np.random.default_rng(0)
    # Biases and norms start at 0 and 1, where a test would not see them.
    model.set_weights([w + random.normal(size=w.shape, scale=0.1) for w in model.get_weights()])
    return model


@functools.cache
def taken_apart(model, compiled=False):
    return stepper(model, compiled=compiled).ready()


def stepwise(model, beams=1, compiled=False):
    """Logits `(batch, beams, target length, vocabulary)` of a target in every beam, token by token."""
    taken, results = taken_apart(model, compiled), []
    step = tf.function(taken.step, jit_compile=True) if compiled else taken.step
    tokens = np.repeat(TARGET[:, None, :], beams, axis=1)
    memory, state = taken.start(tf.constant(SOURCE), beams=beams, steps=8)
    for index in range(TARGET.shape[1]):
        logits, state = step(tf.constant(tokens[:, :, index]), tf.constant(index), memory, state)
        results.append(logits)
    return np.stack(results, axis=2)


@pytest.mark.filterwarnings("ignore:.*does not have a `quantize` method")
def test_a_quantised_translator_decodes():
    model = keras.models.clone_model(build("transformer_translator"))
    model.quantize("int8")
    full = model([SOURCE, TARGET])
    np.testing.assert_allclose(stepwise(model)[:, 0], full, atol=0.1 * float(np.abs(full).max()))


@pytest.mark.parametrize("key", TINY)
def test_gives_finite_float32_logits_for_the_target_vocabulary(key):
    model = build(key)
    logits = model([SOURCE, TARGET])
    assert logits.shape == (3, 6, TINY[key].get("target_vocabulary_size", 20))
    assert logits.dtype == "float32"
    assert np.isfinite(logits).all()
    assert [tensor.name for tensor in model.inputs] == ["source", "target"]
    assert model.layers[-1].name == "logits"


@pytest.mark.parametrize("key", TINY)
def test_a_model_saved_after_it_decoded_loads_equal_and_so_does_its_stepper(key, tmp_path):
    model = build(key)
    stepwise(model)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(again([SOURCE, TARGET]), model([SOURCE, TARGET]))
    np.testing.assert_array_equal(stepwise(again), stepwise(model))


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("key", TINY)
def test_a_step_equals_the_full_pass_at_every_position(key, beams):
    model = build(key)
    full = model([SOURCE, TARGET]).numpy()
    np.testing.assert_allclose(stepwise(model, beams), np.repeat(full[:, None], beams, axis=1), atol=1e-5)


@pytest.mark.parametrize("key", TINY)
def test_a_compiled_step_equals_the_full_pass_at_every_position(key):
    model = build(key)
    full = model([SOURCE, TARGET]).numpy()
    np.testing.assert_allclose(stepwise(model, 2, compiled=True), np.repeat(full[:, None], 2, axis=1), atol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("key", TINY)
def test_a_step_equals_the_full_pass_in_16_bits_within_their_precision(key, precision, compiled):
    model = build(key, precision)
    full = model([SOURCE, TARGET]).numpy()
    steps = stepwise(model, compiled=compiled)
    assert steps.dtype == np.float32
    share = 0.05 if precision == "mixed_bfloat16" else 0.01  # 8 bits of the numbers' digits, and 11
    np.testing.assert_allclose(steps[:, 0], full, atol=share * np.abs(full).max())


@pytest.mark.parametrize("key", TINY)
def test_beams_go_on_from_the_beam_they_are_told(key):
    model = build(key)
    taken = taken_apart(model)
    tokens = np.array([[[2, 2], [5, 6], [7, 8], [9, 9]]] * 3, "int32")  # (batch, steps, beams)
    parents = [[0, 1], [1, 1], [1, 0]]  # after each step but the last
    memory, state = taken.start(tf.constant(SOURCE), beams=2, steps=4)
    for index in range(4):
        logits, state = taken.step(tf.constant(tokens[:, index]), tf.constant(index), memory, state)
        if index < 3:
            state = taken.select(state, tf.constant([parents[index]] * 3))
    for beam, words in enumerate([[2, 6, 8, 9], [2, 6, 7, 9]]):
        full = model([SOURCE, np.array([words] * 3, "int32")])[:, -1]
        np.testing.assert_allclose(logits[:, beam], full, atol=1e-5)


@pytest.mark.parametrize("key", TINY)
def test_padding_and_what_comes_later_change_no_logits(key):
    model = build(key)
    together = model([SOURCE, TARGET]).numpy()
    alone = model([SOURCE[1:2, :2], TARGET[1:2, :3]])
    np.testing.assert_allclose(alone, together[1:2, :3], atol=1e-5)
    longer = model([np.pad(SOURCE, ((0, 0), (0, 5))), np.pad(TARGET, ((0, 0), (0, 5)))])
    np.testing.assert_allclose(longer[:, :6], together, atol=1e-5)


@pytest.mark.parametrize("key", TINY)
def test_gradients_reach_every_trainable_weight(key):
    model = build(key)

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model([SOURCE, TARGET], training=True) ** 2)
        return [tf.convert_to_tensor(g) for g in tape.gradient(loss, model.trainable_variables)]

    for gradient in gradients():
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("key", ["seq2seq_rnn", "seq2seq_rnn-gru"])
def test_the_weights_of_recurrent_attention_are_there_by_name(key):
    weights = attention_maps(build(key))([SOURCE, TARGET])["cross_attention"].numpy()
    assert weights.shape == (3, 1, 6, 4)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    assert not weights[1, :, :, 2:].any()


def test_the_weights_of_cross_attention_are_there_by_name():
    maps = attention_maps(build("transformer_translator"))([SOURCE, TARGET])
    weights = maps["decoder_stage2_cross_attention"].numpy()
    assert weights.shape == (3, 2, 6, 4)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    assert not weights[1, :, :, 2:].any()
    assert {f"decoder_stage{n}_self_attention" for n in (1, 2)} < set(maps)


# base: 63,082,496; by hand for each: the embedding, 6 · (4w(w+1) + 2wf + w + f + 4w), 6 · (8w(w+1) + 2wf + w + f + 6w).
@pytest.mark.slow
@pytest.mark.parametrize(("size", "count"), [("base", 63_082_496), ("big", 214_245_376)])
def test_has_the_published_number_of_parameters(size, count):
    assert MODELS["transformer_translator"](vocabulary_size=37_000, length=512, size=size).count_params() == count


def test_sizes_can_be_set_one_by_one():
    model = MODELS["transformer_translator"](**SHARED, size="base", depth=1, width=32, feed_forward=8)
    assert model.get_layer("decoder_stage1_self_attention").num_heads == SIZES["base"]["num_heads"]
    assert model.get_layer("features").output.shape == (None, None, 32)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_attention_weights_are_dropped_only_where_it_is_said(norm):
    sizes = {**SHARED, **SMALL["transformer_translator"], "norm": norm, "dropout": 0.3}
    for args, expected in (({}, 0.0), ({"attention_dropout": 0.2}, 0.2)):
        layers = MODELS["transformer_translator"](**sizes, **args).layers
        assert {layer.dropout for layer in layers if isinstance(layer, SelfAttention | CrossAttention)} == {expected}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"cell": "plain"}, "'plain' is not one of"),
        ({"attention": "none"}, "'none' is not one of"),
        ({"units": 15}, "units=15"),
        ({"depth": 0}, "depth=0"),
        ({"dropout": -1.0}, "dropout=-1.0"),
    ],
)
def test_a_wrong_value_of_the_recurrent_model_is_named(args, message):
    with pytest.raises(ValueError, match=message):
        MODELS["seq2seq_rnn"](**{**SHARED, **args})


WHOLE = {"depth": 1, "width": 16, "num_heads": 2, "feed_forward": 32, "dropout": 0.1}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"vocabulary_size": 4}, "vocabulary_size=4: at least 5"),
        ({"target_vocabulary_size": 2}, "target_vocabulary_size=2"),
        ({"length": 0}, "length=0"),
        ({"size": "huge"}, "'huge' is not one of"),
        ({"depth": 0}, "depth=0"),
        ({"width": 30, "num_heads": 4}, r"width=30 .* num_heads=4"),
        ({"norm": "none"}, "'none' is not one of"),
        ({"positions": "random"}, "'random' is not one of"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"attention_dropout": 1.0}, "attention_dropout=1.0"),
        ({**WHOLE, "size": "base"}, "size='base': depth, width, num_heads, feed_forward, dropout are all said"),
    ],
)
def test_a_wrong_value_is_named(args, message):
    with pytest.raises(ValueError, match=message):
        MODELS["transformer_translator"](**{**SHARED, **args})


def test_a_model_that_does_not_translate_has_no_stepper():
    with pytest.raises(ValueError, match="not a translation model"):
        stepper(MODELS["bag_of_ngrams"](vocabulary_size=30, length=5, num_classes=2))


@pytest.mark.parametrize("kind", ["own", "zeros", "look", "stock", "convolution", "inputs"])
def test_a_model_of_ones_own_whose_steps_are_not_its_full_pass_is_refused(kind):
    L = keras.layers
    keras.utils.set_random_seed(0)
    names = ("source", "target") if kind != "inputs" else ("text", "translation")
    source, target = (keras.Input((None,), dtype="int32", name=name) for name in names)
    embedding = L.Embedding(20, 16)
    memory, x = embedding(source), embedding(target)
    if kind == "stock":
        x = x + L.MultiHeadAttention(2, 8)(x, x, use_causal_mask=True)
    if kind in ("convolution", "look"):
        x = L.Conv1D(16, 3, padding="causal")(x)
    if kind in ("own", "zeros", "look"):
        x = x + SelfAttention(2, causal=True)(L.Dense(48)(x))
    key_value = SplitHeads(2)(L.Dense(32)(memory))
    x = x + (L.Attention()([x, memory]) if kind == "stock" else CrossAttention(2)(x, *key_value))
    start = "zeros" if kind == "zeros" else "glorot_uniform"
    model = keras.Model([source, target], L.Dense(20, kernel_initializer=start)(x))
    if kind in ("own", "zeros"):
        check_steps(model)
        return
    other = "written token by token it gives other logits"
    told = {"inputs": "its inputs are not source and target", "look": other, "convolution": other}
    with pytest.raises(ValueError, match=told.get(kind, "cannot write token by token: in its decoder only")):
        check_steps(model)


@pytest.mark.parametrize(
    ("covers", "args", "told"),
    [
        (True, {}, "has no attention to the source, which a coverage penalty asks for"),
        (False, {"dtype": "mixed_bfloat16"}, 'gives logits in bfloat16: its last layer needs dtype="float32"'),
        (False, {"kernel_initializer": "zeros"}, None),
    ],
)
def test_a_model_of_ones_own_is_looked_at_as_the_search_will_use_it(covers, args, told):
    L = keras.layers
    source, target = (keras.Input((None,), dtype="int32", name=name) for name in ("source", "target"))
    embedding = L.Embedding(20, 8)
    first = L.GRU(8, name="encoder")(embedding(source))
    x = L.GRU(8, return_sequences=True, name="decoder")(embedding(target), initial_state=first)
    model = keras.Model([source, target], L.Dense(20, **args)(x))
    before = model.get_weights()
    with pytest.raises(ValueError, match=told) if told else nullcontext():
        check_steps(model, covers=covers)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_weights_that_begin_at_zero_hide_no_look_back():
    L = keras.layers
    source, target = (keras.Input((None,), dtype="int32", name=name) for name in ("source", "target"))
    embedding = L.Embedding(20, 16)
    x = L.Conv1D(16, 3, padding="causal")(embedding(target))
    x = x + CrossAttention(2)(x, *SplitHeads(2)(L.Dense(32)(embedding(source))))
    model = keras.Model([source, target], L.Dense(20, kernel_initializer="zeros")(x))
    with pytest.raises(ValueError, match="written token by token"):
        check_steps(model)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("key", TINY)
def test_all_translation_models_pass_for_ones_own(key, precision):
    check_steps(build(key, precision))
