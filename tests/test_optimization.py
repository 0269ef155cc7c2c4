"""Learning rates over a run, and from layer to layer; weight decay; which weights an optimizer leaves alone."""

import re
from contextlib import nullcontext

import keras
import numpy as np
import pytest

from bigkeras.models import MODELS
from bigkeras.optimization import OPTIMIZERS, OURS, build_optimizer, layer_rates, make_optimizer, scale_rates
from bigkeras.recipe import Choice, RecipeError, check
from bigkeras.recipes import RECIPES
from bigkeras.settings import settings
from bigkeras.transfer import freeze

PLAIN = RECIPES["digits"].override(schedule=Choice("constant"), epochs=10)


@pytest.mark.parametrize(
    ("schedule", "shape"),
    [
        (Choice("constant"), lambda p: 1.0),
        (Choice("exponential", {"final": 0.01}), lambda p: 0.01**p),
        (Choice("step", {"at": [0.5, 0.75], "factor": 0.1}), lambda p: 0.1 ** ((p >= 0.5) + (p >= 0.75))),
        (Choice("cosine", {"final": 0.1}), lambda p: 0.1 + 0.9 * (1 + np.cos(np.pi * p)) / 2),
        (Choice("linear", {"final": 0.2}), lambda p: 1 - 0.8 * p),
    ],
)
@pytest.mark.parametrize("warmup", [0, 2])
def test_a_rate_warms_up_and_takes_its_shape_over_the_rest(schedule, shape, warmup):
    choice = Choice(schedule.name, {**schedule.args, "warmup_epochs": float(warmup)})
    recipe = PLAIN.override(schedule=choice, optimizer=Choice("sgd", {"learning_rate": 0.5}))
    rate = make_optimizer(recipe, 10)._learning_rate
    first, total = warmup * 10, 100
    for step in range(0, total, 7):
        warm = min(1, (step + 1) / (first + 1))
        progress = max(0, step - first) / (total - first)
        assert float(rate(step)) == pytest.approx(0.5 * warm * shape(progress), rel=1e-4)


def test_the_inverse_square_root_falls_from_the_end_of_the_warm_up():
    recipe = PLAIN.override(schedule=Choice("inverse_square_root", {"warmup_epochs": 2.0}))
    rate = make_optimizer(recipe.override(**{"optimizer.learning_rate": 0.5}), 10)._learning_rate
    assert float(rate(20)) == pytest.approx(0.5)
    assert float(rate(83)) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("optimizer.learning_rate", value) for value in (None, [0.1], -0.1, float("nan"), float("inf"), True)),
        *((f"schedule.{name}", value) for name in ("factor", "final") for value in (-1.0, float("nan"))),
    ],
)
def test_a_rate_that_cannot_be_is_named(key, value):
    schedule = Choice("step" if key.endswith("factor") else "linear")
    recipe = PLAIN.override(schedule=schedule).override(**{key: value})
    with pytest.raises(RecipeError, match=re.escape(f"{key}={value}: a number of at least 0")):
        make_optimizer(recipe, 10)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_moves_the_weights_against_the_gradient(name):
    recipe = PLAIN.override(optimizer=Choice(name, {"learning_rate": 0.01}), schedule="constant")
    optimizer = make_optimizer(recipe, 10)
    kernel = keras.Variable(np.ones((4, 3)), dtype="float32", name="kernel")
    optimizer.build([kernel])
    for _ in range(3):
        optimizer.apply([np.full((4, 3), 0.5, "float32")])
    assert (kernel.numpy() < 1).all()


@pytest.mark.parametrize(
    "values",
    [
        {"schedule": "cosine"},
        {"schedule.warmup_epochs": 1.0},
        {"optimizer.learning_rate": 0.0},
        {"layer_decay": 0.0},
    ],
)
def test_ftrl_whose_weights_are_of_its_rate_takes_one_that_stays(values):
    recipe = PLAIN.override(optimizer=Choice("ftrl", {"learning_rate": 0.1}), schedule="constant")
    make_optimizer(recipe, 10)
    with pytest.raises(RecipeError, match="optimizer=ftrl"):
        make_optimizer(recipe.override(**values), 10)


def test_what_keras_would_not_heed_is_refused():
    with pytest.raises(RecipeError, match=r"optimizer\.nesterov=true: is a way of momentum"):
        make_optimizer(PLAIN.override(optimizer=Choice("sgd", {"nesterov": True})), 10)
    with pytest.raises(RecipeError, match="argument 'relative_step' is not one of"):
        check("optimizer", Choice("adafactor", {"relative_step": True}), OPTIMIZERS, given=OURS)


def test_all_that_nadam_remembers_is_kept_where_the_loss_is_scaled():
    recipe = PLAIN.override(optimizer="nadam", precision="mixed_float16")
    optimizer = make_optimizer(recipe, 10)
    build_optimizer(optimizer, [keras.Variable(np.ones((4, 3)), dtype="float32", name="kernel")])
    product = optimizer.inner_optimizer._u_product
    assert sum(each is product for each in optimizer.variables) == 1
    plain = make_optimizer(recipe.override(precision="float32"), 10)
    build_optimizer(plain, [keras.Variable(np.ones((4, 3)), dtype="float32", name="kernel")])
    assert sum(each is plain._u_product for each in plain.variables) == 1


@pytest.mark.parametrize(
    ("rate", "epochs", "told"), [(0.05, 100, "at most 1/√step, and 0.032 at step 1,000"), (0.05, 10, "")]
)
def test_a_rate_that_adafactor_would_cut_is_refused(rate, epochs, told):
    asked = PLAIN.override(optimizer=Choice("adafactor", {"learning_rate": rate}), schedule="constant", epochs=epochs)
    with pytest.raises(RecipeError, match=told) if told else nullcontext():
        make_optimizer(asked, 10)


@pytest.mark.parametrize("name", ["dense", "beta_head", "debias"])
def test_weight_decay_shrinks_kernels_and_leaves_biases(name):
    optimizer = make_optimizer(
        PLAIN.override(optimizer=Choice("adamw", {"learning_rate": 0.1, "weight_decay": 0.5})), 10
    )
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, bias_initializer="ones", name=name)])
    kernel, bias = network.trainable_variables
    before = kernel.numpy()
    optimizer.build([kernel, bias])
    optimizer.apply([np.zeros((3, 2), "float32"), np.zeros(2, "float32")])
    np.testing.assert_allclose(kernel, before * (1 - 0.1 * 0.5), rtol=1e-5)
    np.testing.assert_array_equal(bias, np.ones(2))


def test_weight_decay_leaves_norms():
    args = {"learning_rate": 0.1, "weight_decay": 0.5}
    optimizer = make_optimizer(PLAIN.override(optimizer=Choice("adamw", args)), 10)
    norm = keras.layers.LayerNormalization()
    norm.build((None, 3))
    optimizer.build(norm.trainable_variables)
    optimizer.apply([np.zeros(3, "float32")] * 2)
    assert sorted(float(v.numpy().sum()) for v in norm.trainable_variables) == [0, 3]


def test_weight_decay_of_muon_is_what_the_recipe_says_for_every_shape():
    for decay in (0.0, 0.5):
        args = {"learning_rate": 0.1, "weight_decay": decay}
        optimizer = make_optimizer(PLAIN.override(optimizer=Choice("muon", args)), 10)
        shapes = {"kernel": (3, 3), "filters": (2, 2, 3, 3), "bias": (3,)}
        variables = [keras.Variable(np.ones(shape), name=name) for name, shape in shapes.items()]
        optimizer.build(variables)
        optimizer._apply_weight_decay(variables)
        left = 1 - decay * 0.1
        assert [float(np.asarray(v).max()) for v in variables] == pytest.approx([left, left, 1.0])


@pytest.mark.parametrize("at", [[80, 120], [-0.1], [float("nan")]])
def test_steps_of_the_rate_are_shares_of_the_run(at):
    with pytest.raises(RecipeError, match=r"schedule\.at=.*: shares of what follows the warm-up, from 0 to 1"):
        make_optimizer(PLAIN.override(schedule=Choice("step", {"at": at})), 10)


def test_freezing_leaves_what_lies_below_and_trains_the_rest():
    network = MODELS["resnet"](input_shape=(16, 16, 3), num_classes=3, depth=8)
    freeze(network, "stage2")
    trained = {variable.path.split("/")[0] for variable in network.trainable_variables}
    assert trained and all(name.startswith(("stage3", "logits")) for name in trained)
    with pytest.raises(RecipeError, match="no such layer; stem, stage1"):
        freeze(network, "stage9")


@pytest.mark.parametrize("words", [30, None], ids=["two vocabularies", "one"])
def test_freezing_an_encoder_leaves_its_decoder_free(words):
    network = MODELS["transformer_translator"](
        vocabulary_size=40, target_vocabulary_size=words, length=16, depth=2, width=8, num_heads=2, feed_forward=16
    )
    freeze(network, "encoder_features")
    frozen = {layer.name for layer in network.layers if layer.weights and not layer.trainable}
    free = {layer.name for layer in network.layers if layer.weights and layer.trainable}
    assert all(name.startswith(("decoder", "target", "logits")) for name in free)
    assert any(name.startswith("decoder_stage1") for name in free) and ("target_embedding" in free) is (words == 30)
    assert any(name.endswith("embedding") for name in frozen)
    assert not any(name.startswith("decoder") for name in frozen)


def test_freezing_tied_embeddings_freezes_no_block():
    network = MODELS["bert_mlm"](vocabulary_size=40, length=16, size="tiny")
    freeze(network, "stage1")
    free = {layer.name for layer in network.layers if layer.weights and layer.trainable}
    assert any(name.startswith("stage2") for name in free) and not any(name.startswith("stage1") for name in free)


@pytest.mark.parametrize("scaled", [False, True])
def test_each_stage_moves_by_its_own_rate(scaled):
    network = MODELS["transformer"](
        vocabulary_size=20, length=8, num_classes=2, depth=2, width=8, num_heads=2, feed_forward=8
    )
    variables = network.trainable_variables
    rates = layer_rates(network, 0.5)
    optimizer = keras.optimizers.SGD(learning_rate=1.0)
    scale = 8.0 if scaled else 1.0  # a power of two, so that nothing is rounded
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=scale)
    scale_rates(optimizer, rates)
    optimizer.build(variables)
    before = [v.numpy() for v in variables]
    optimizer.apply([np.full(v.shape, scale, "float32") for v in variables])
    moved = {v.path: float((b - v.numpy()).mean()) for v, b in zip(variables, before, strict=True)}
    assert moved["embedding/embeddings"] == pytest.approx(0.5**3, rel=1e-4)
    assert moved["logits/kernel"] == pytest.approx(1.0, rel=1e-4)
    for stage, rate in ((1, 0.5**2), (2, 0.5)):
        steps = [step for path, step in moved.items() if path.startswith(f"stage{stage}_")]
        assert len(steps) >= 8 and steps == pytest.approx([rate] * len(steps), rel=1e-4)


def test_a_network_without_stages_is_named():
    network = MODELS["bag_of_ngrams"](vocabulary_size=9, length=5, num_classes=2)
    with pytest.raises(RecipeError, match=r"layer_decay=0\.5: bag_of_ngrams has no layers that are named stage1"):
        layer_rates(network, 0.5)
    network = MODELS["text_cnn"](vocabulary_size=9, length=5, num_classes=2)
    with pytest.raises(RecipeError, match=r"layer_decay=0\.5: what is named stage in text_cnn stands side by side"):
        layer_rates(network, 0.5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_rate_that_settings_show_is_the_one_that_is_taken(name):
    recipe = PLAIN.override(optimizer=name, schedule="constant")
    shown = {one.key: one.value for one in settings(recipe)}["optimizer.learning_rate"]
    assert float(make_optimizer(recipe, 10).learning_rate) == pytest.approx(shown)
