"""Low-rank updates: what trains, what stays, what is saved."""

import keras
import numpy as np
import pytest

from bigkeras.models import MODELS
from bigkeras.models.lora import add_lora, merged

TOKENS = np.array([[7, 3, 9, 29, 1], [4, 8, 0, 0, 0]], "int32")
LABELS = np.array([0, 2])


def encoder():
    sizes = {"vocabulary_size": 30, "length": 9, "num_classes": 3, "dropout": 0.0}
    return MODELS["transformer"](**sizes, depth=2, width=8, num_heads=2, feed_forward=16)


def test_only_the_updates_and_the_logits_train_and_a_saved_model_holds_them(tmp_path):
    model = encoder()
    before, expected = {w.path: w.numpy() for w in model.weights}, model(TOKENS)
    names = add_lora(model, 2)
    assert names == [f"stage{i}_attention_{part}" for i in (1, 2) for part in ("query_key_value", "output")]
    np.testing.assert_array_equal(model(TOKENS), expected)
    # Per block: A (8, 2) and B (2, 24), A (8, 2) and B (2, 8); then the logits.
    assert sum(w.shape.num_elements() for w in model.trainable_weights) == 2 * (16 + 48 + 16 + 16) + 27
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.5), loss)
    model.fit(TOKENS, LABELS, epochs=3, verbose=0)
    changed = {w.path for w in model.weights if w.path in before and np.abs(w.numpy() - before[w.path]).max() > 0}
    assert changed == {"logits/kernel", "logits/bias"}
    trained = model(TOKENS)
    assert np.abs(trained - expected).max() > 1e-3
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True, compile=False)
    np.testing.assert_allclose(again(TOKENS), trained, atol=1e-5)
    plain = merged(model)
    np.testing.assert_allclose(plain(TOKENS), trained, atol=1e-5)
    assert [w.path for w in plain.weights] == [w.path for w in encoder().weights]
    assert [w.path for w in plain.trainable_weights] == [w.path for w in encoder().trainable_weights]
    assert merged(plain) is plain


def test_what_was_frozen_before_stays_frozen_in_what_is_saved():
    model = encoder()
    model.get_layer("embedding").trainable = False
    add_lora(model, 2)
    frozen = [layer.name for layer in merged(model).layers if layer.weights and not layer.trainable]
    assert frozen == ["embedding"]


def test_in_half_precision_the_kernels_keep_their_bits():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = encoder()
        add_lora(model, 2)
        layer = model.get_layer("stage1_attention_output")
        layer.lora_kernel_b.assign(np.full(layer.lora_kernel_b.shape, 0.01))
        update = layer.lora_alpha / 2 * layer.lora_kernel_a.numpy() @ layer.lora_kernel_b.numpy()
        expected = layer.weights[0].numpy() + update
        np.testing.assert_array_equal(merged(model).get_layer(layer.name).kernel.numpy(), expected)
    finally:
        keras.config.set_dtype_policy("float32")


def test_layers_that_came_from_nowhere_train_whole():
    model = encoder()
    add_lora(model, 2, whole=["features", "embedding"])
    assert "embedding" in {w.path.split("/")[0] for w in model.trainable_weights}


def test_what_is_frozen_stays_so_and_layers_without_a_bias_are_updated():
    model = encoder()
    for layer in model.layers[: [layer.name for layer in model.layers].index("stage1") + 1]:
        layer.trainable = False
    add_lora(model, 2)
    assert {w.path.split("/")[0] for w in model.trainable_weights} == {
        "stage2_attention_query_key_value", "stage2_attention_output", "logits"
    }  # fmt: skip
    translators = [MODELS["seq2seq_rnn"](vocabulary_size=20, length=6, units=8, embedding_width=8) for _ in range(2)]
    assert add_lora(translators[0], 2)
    assert [w.shape for w in merged(translators[0]).weights] == [w.shape for w in translators[1].weights]


def test_updates_of_nothing_are_refused():
    model = encoder()
    for layer in model.layers:
        layer.trainable = False
    with pytest.raises(ValueError, match="every layer that it would update is frozen"):
        add_lora(model, 2)


@pytest.mark.parametrize(("args", "message"), [((0,), "rank=0"), ((2, ("nothing",)), "'nothing'")])
def test_a_wrong_rank_or_name_is_named(args, message):
    with pytest.raises(ValueError, match=message):
        add_lora(encoder(), *args)
