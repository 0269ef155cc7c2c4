"""The train step: the same training in one piece, in micro-batches and on two replicas."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from bigkeras import step as step_module
from bigkeras.data.pipeline import plan_rows
from bigkeras.data.plan import epoch_plan
from bigkeras.data.source import ArraySource, Splits
from bigkeras.layers import BatchNorm
from bigkeras.optimization import make_optimizer
from bigkeras.recipe import Choice, Recipe
from bigkeras.runtime import Machine
from bigkeras.step import Step, penalty, rows_once
from bigkeras.strategies import strategy
from bigkeras.tasks import LOSSES, TASKS
from bigkeras.tasks.cross_entropy import divergence

EXAMPLES, BATCH = 22, 8  # the last batch holds 6 examples and 2 that only fill it


def recipe(**values) -> Recipe:
    base = {
        "name": "test",
        "data": Choice("none"),
        "task": Choice("image_classification"),
        "model": Choice("none"),
        "optimizer": Choice("sgd", {"learning_rate": 0.1, "momentum": 0.9}),
        "schedule": Choice("constant"),
        "batch_size": BATCH,
        "epochs": 2,
    }
    return Recipe(**{**base, **values})


def network() -> keras.Model:
    inputs = keras.Input((6, 6, 1), name="image")
    x = keras.layers.Conv2D(4, 3, use_bias=False, name="stem")(inputs)
    x = BatchNorm(name="bn")(x)
    x = keras.layers.Activation("tanh", name="stage1")(x)
    x = keras.layers.Flatten(name="features")(x)
    return keras.Model(inputs, keras.layers.Dense(3, dtype="float32", name="logits")(x))


@pytest.fixture(scope="module")
def splits() -> Splits:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (EXAMPLES, 6, 6, 1), dtype=np.uint8)
    source = ArraySource({"image": images}, generator.integers(0, 3, EXAMPLES), "train")
    return Splits(source, source, None, ("a", "b", "c"))


def train(splits: Splits, recipe: Recipe, replicas=None, **options) -> Step:
    replicas = replicas or tf.distribute.get_strategy()
    task = TASKS["image_classification"](splits, recipe.augmentation)
    keras.utils.set_random_seed(1)
    steps = -(-EXAMPLES // BATCH)
    with replicas.scope():
        step = Step(
            network(),
            normalise=task.normalise,
            loss=LOSSES[recipe.task.name][recipe.loss.name](**recipe.loss.args),
            num_classes=3,
            micro_batches=recipe.micro_batches,
            clip_norm=recipe.clip_norm,
            ema=recipe.ema,
            penalty=penalty(recipe.l1, recipe.l2),
            consistency=recipe.consistency,
            **options,
        )
        step.begin(make_optimizer(recipe, steps))
    labels = splits.train.labels
    rows = plan_rows(lambda e: epoch_plan(labels, batch_size=BATCH, seed=0, epoch=e), range(recipe.epochs))
    data = task.dataset(splits.train, rows, BATCH, True, print)
    counter = keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: setattr(step, "steps_left", steps))
    step.history_logs = step.fit(
        data, epochs=recipe.epochs, steps_per_epoch=steps, verbose=0, shuffle=False, callbacks=[counter]
    ).history
    return step


def difference(one: Step, other: Step) -> float:
    pairs = zip(one.network.get_weights(), other.network.get_weights(), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


CASES = {
    "plain": {},
    "clipped": {"clip_norm": 0.05},
    "averaged": {"ema": 0.9},
    "penalised": {"l2": 1e-2, "l1": 1e-3},
    "smoothed": {"loss": Choice("cross_entropy", {"label_smoothing": 0.1})},
    "focal": {"loss": Choice("focal")},
    "twice": {"consistency": 2.0},
    "adam": {"optimizer": Choice("adamw", {"learning_rate": 1e-2, "weight_decay": 0.1})},
}


@pytest.fixture(scope="module")
def two_replicas() -> tf.distribute.Strategy:
    return strategy(Machine(strategy="mirrored", replicas=2))


@pytest.mark.parametrize("case", CASES)
def test_two_replicas_train_what_one_device_trains(case, splits, two_replicas):
    changed = recipe(**CASES[case])
    one, two = train(splits, changed), train(splits, changed, two_replicas)
    assert difference(one, two) < (2e-4 if case == "adam" else 2e-6)
    assert two.history_logs["loss"] == pytest.approx(one.history_logs["loss"], rel=1e-5)
    assert two.history_logs["accuracy"] == pytest.approx(one.history_logs["accuracy"])
    for mine, theirs in zip(one.averages, two.averages, strict=True):
        assert np.abs(mine.numpy() - theirs.numpy()).max() < 2e-6


def test_micro_batches_on_two_replicas_train_what_they_train_on_one_device(splits, two_replicas):
    changed = recipe(micro_batches=2, clip_norm=0.5)
    assert difference(train(splits, changed), train(splits, changed, two_replicas)) < 2e-6


def test_stock_batch_normalisation_on_two_replicas_trains_what_it_trains_on_one_device(
    splits, two_replicas, monkeypatch
):
    monkeypatch.setattr(f"{__name__}.BatchNorm", keras.layers.BatchNormalization)
    changed = recipe(micro_batches=2)
    one, two = train(splits, changed), train(splits, changed, two_replicas)
    assert difference(one, two) < 1e-5
    # Other backends load no layer that is said to be synchronized.
    assert two.network.get_layer("bn").get_config()["synchronized"] is False


def test_micro_batches_of_a_numbered_step_drop_other_places():
    inputs = keras.Input((32,))
    x = keras.layers.Dropout(0.5, seed=1)(inputs)
    network = keras.Model(inputs, keras.layers.Dense(2, kernel_initializer="zeros", name="logits")(x))
    loss = LOSSES["image_classification"]["cross_entropy"]()
    step = Step(network, normalise=lambda x: x, loss=loss, num_classes=2, micro_batches=2)
    step.begin(keras.optimizers.SGD(1.0))
    object.__setattr__(step, "number", tf.constant(1, tf.int64))
    step.train_step((tf.ones((2, 32)), tf.constant([0, 0]), tf.ones(2)))
    # A kernel's row has moved as often as its input was kept: in none of the two micro-batches, in one, or in both.
    assert len(np.unique(network.get_weights()[0][:, 0].round(4))) == 3


def test_micro_batches_of_a_model_without_batch_statistics_change_nothing(splits, monkeypatch):
    monkeypatch.setattr(f"{__name__}.BatchNorm", lambda name: keras.layers.LayerNormalization(name=name))
    assert difference(train(splits, recipe()), train(splits, recipe(micro_batches=4))) < 2e-6


def test_several_steps_in_one_call_train_the_same(splits):
    assert difference(train(splits, recipe()), train(splits, recipe(), steps_per_call=2)) == 0


def test_a_compiled_step_trains_the_same(splits, monkeypatch):
    assert difference(train(splits, recipe()), train(splits, recipe(), xla=True)) < 1e-5

    class Python(keras.layers.Layer):
        def call(self, x):
            return x + tf.stop_gradient(tf.ensure_shape(tf.numpy_function(np.zeros_like, [x], tf.float32), x.shape))

    monkeypatch.setattr(f"{__name__}.BatchNorm", lambda name: Python(name=name))
    train(splits, recipe(epochs=1))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?i)compil"):  # which XLA cannot
        train(splits, recipe(epochs=1), xla=True)


@pytest.mark.parametrize("optimizer", sorted(of.__name__.lower() for of in step_module.COMPILED))
def test_a_compiled_update_is_the_plain_one(splits, monkeypatch, optimizer):
    asked = recipe(optimizer=Choice(optimizer, {"learning_rate": 1e-3}), clip_norm=0.05, ema=0.9, epochs=1)
    plain = train(splits, asked)
    monkeypatch.setattr(step_module, "MANY", 1)
    compiled = train(splits, asked)
    assert plain.update == plain._update and compiled.update != compiled._update
    assert difference(plain, compiled) < 1e-6
    averages = zip(plain.averages, compiled.averages, strict=True)
    assert max(float(np.abs(a.numpy() - b.numpy()).max()) for a, b in averages) < 1e-6


def test_examples_of_weight_zero_count_in_no_loss(splits):
    step = train(splits, recipe(epochs=1))
    pixels = np.zeros((2, 6, 6, 1), np.uint8)
    loss, gradients = step._gradients(
        tf.constant(pixels), tf.constant([0, 1]), tf.constant([1.0, 0.0]), 1.0, step.network.trainable_variables
    )
    alone = step.loss_function(tf.one_hot([0], 3), step(pixels, training=True)[:1])
    assert float(loss) == pytest.approx(float(alone[0]), rel=1e-5)
    assert len(gradients) == len(step.network.trainable_variables)


@pytest.mark.parametrize("values", [{}, {"micro_batches": 2}, {"clip_norm": 1.0, "optimizer": Choice("adamw")}])
def test_a_weight_that_the_logits_do_not_hang_on_stays(values, splits, monkeypatch):
    one_head = network

    def with_another_head() -> keras.Model:
        whole = one_head()
        beside = keras.layers.Dense(2, name="beside")(whole.get_layer("features").output)
        two = keras.Model(whole.input, [whole.output, beside])
        return keras.Model(inputs := keras.Input((6, 6, 1), name="image"), two(inputs)[0])

    monkeypatch.setattr(sys.modules[__name__], "network", with_another_head)
    step = train(splits, recipe(epochs=1, **values))
    kernel = next(v for v in step.network.trainable_variables if "beside" in v.path and "kernel" in v.path)
    keras.utils.set_random_seed(1)
    start = next(v for v in network().trainable_variables if "beside" in v.path and "kernel" in v.path)
    np.testing.assert_allclose(kernel, start, rtol=0 if not values or "micro_batches" in values else 0.1)


def test_a_batch_of_which_nothing_could_be_read_changes_no_weight(splits):
    step = train(splits, recipe(epochs=1, optimizer=Choice("sgd", {"learning_rate": 1.0})))
    before = [v.numpy() for v in step.network.trainable_variables]
    loss = step.train_step((tf.zeros((1, 6, 6, 1), tf.uint8), tf.constant([0]), tf.constant([0.0])))
    assert float(loss) == 0
    for was, variable in zip(before, step.network.trainable_variables, strict=True):
        np.testing.assert_array_equal(variable, was, err_msg=variable.path)


def test_float16_scales_the_loss_and_still_clips(splits):
    step = train(splits, recipe(precision="mixed_float16", clip_norm=1.0))
    assert isinstance(step.optimizer, keras.optimizers.LossScaleOptimizer)
    assert np.isfinite(step.network.get_weights()[0]).all()
    assert int(step.optimizer.iterations) > 0
    plain, scaled, free = (
        train(splits, recipe(epochs=1, **values))
        for values in ({"clip_norm": 0.05}, {"clip_norm": 0.05, "precision": "mixed_float16"}, {})
    )
    assert difference(plain, scaled) < 1e-5 < difference(plain, free)


def test_an_example_that_is_answered_alike_twice_trains_what_it_trains_once(splits):
    assert difference(train(splits, recipe(epochs=1, consistency=2.0)), train(splits, recipe(epochs=1))) < 1e-5


def test_the_gradient_of_the_divergence_is_that_of_its_definition():
    first, second = (tf.random.stateless_normal((2, 3, 7), (0, seed)) for seed in (1, 2))

    def defined(a, b):
        return tf.reduce_sum((tf.nn.softmax(a) - tf.nn.softmax(b)) * (tf.nn.log_softmax(a) - tf.nn.log_softmax(b)), -1)

    found = []
    for function in (divergence, defined):
        with tf.GradientTape() as tape:
            tape.watch([first, second])
            value = function(first, second)
            total = tf.reduce_sum(value * [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        found.append([value, *tape.gradient(total, [first, second])])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert (divergence(first, first).numpy() == 0).all() and (found[0][0].numpy() > 0).all()


def test_class_weights_count_in_the_loss(splits):
    counted = np.array([3.0, 1.0, 0.1])
    plain, weighted = train(splits, recipe()), train(splits, recipe(), class_weights=counted)
    assert difference(plain, weighted) > 1e-3
    pixels, labels = np.arange(108, dtype=np.uint8).reshape(3, 6, 6, 1), tf.constant([2, 0, 1])
    variables = weighted.network.trainable_variables
    loss, _ = weighted._gradients(tf.constant(pixels), labels, tf.ones(3), 3.0, variables)
    each = weighted.loss_function(tf.one_hot(labels, 3), weighted(pixels, training=True))
    assert float(loss) == pytest.approx(float(np.mean(each * counted[labels])), rel=1e-4)


@pytest.mark.parametrize("name", ["adamw", "rmsprop", "adagrad"])
def test_rows_that_stand_there_several_times_are_learned_from_once_by_their_sum(name):
    ids = tf.constant([[1, 1, 1, 2]])
    weights = []
    for made in (tf.convert_to_tensor, rows_once):
        table = keras.Variable(np.ones((4, 3)), dtype="float32")
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.gather(table.value, ids) * [[[0.1], [0.2], [0.3], [0.4]]])
        gradients, norm = tf.clip_by_global_norm([made(tape.gradient(loss, table.value))], 0.5)
        np.testing.assert_allclose(norm, np.sqrt(3 * (0.6**2 + 0.4**2)), rtol=1e-6)
        optimizer = make_optimizer(recipe(optimizer=Choice(name, {"learning_rate": 0.1})), 10)
        optimizer.apply(gradients, [table])
        weights.append(table.numpy())
    np.testing.assert_allclose(weights[1], weights[0], rtol=1e-6)
    assert (weights[0][1:3] != 1).all()


def test_a_picture_that_could_not_be_read_is_mixed_into_no_other():
    step = Step(
        network(),
        normalise=lambda x: x,
        loss=LOSSES["image_classification"]["cross_entropy"](),
        num_classes=3,
        augmentation=[keras.layers.MixUp(alpha=5.0, seed=0)],
    )
    pixels, targets = tf.fill((6, 6, 6, 1), 9.0), tf.one_hot([0] * 6, 3)
    bad = tf.reshape([1.0, 0, 1, 0, 0, 1], (6, 1, 1, 1))
    weights = tf.constant([1.0, 0, 1, 0, 0, 1])
    labels = tf.where(weights[:, None] > 0, targets, tf.one_hot([2] * 6, 3))
    mixed, learned = step._augment(pixels * bad, labels, weights)
    np.testing.assert_allclose(mixed, pixels)
    np.testing.assert_allclose(learned, targets)


def test_pixels_are_not_rounded_before_they_are_normalised():
    seen = []
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        step = Step(network(), normalise=lambda x: seen.append(x) or x, loss=lambda *_: 0.0, num_classes=3)
    finally:
        keras.config.set_dtype_policy("float32")
    step(tf.fill((2, 6, 6, 1), 200.3), training=True)
    assert seen[-1].dtype == tf.float32 and step.network.get_layer("stem").compute_dtype == "bfloat16"


def test_an_answer_among_the_five_best_counts_for_top5():
    inputs = keras.Input((7,), name="image")
    step = Step(keras.Model(inputs, keras.layers.Identity()(inputs)), normalise=lambda x: x, loss=max, num_classes=7)
    logits = np.random.default_rng(0).permuted(np.tile(np.arange(7.0), (40, 1)), axis=1)
    labels = np.random.default_rng(1).integers(0, 7, 40)
    places = 6 - logits[np.arange(40), labels]  # the label's, from the best
    measured = step._measured(tf.zeros(40), tf.constant(labels), tf.constant(logits, tf.float32))
    np.testing.assert_array_equal(measured["top5_accuracy"], places < 5)
    np.testing.assert_array_equal(measured["accuracy"], places < 1)


@pytest.mark.parametrize("jax", [False, True])
def test_of_tokens_each_counts_as_much_whatever_stands_beside_it(jax):
    from bigkeras.jax_metrics import make_loss, make_metrics

    random, taken = np.random.default_rng(0), []
    settings = recipe(task=Choice("masked_language_model"), loss=Choice("cross_entropy"))
    if jax:
        _, trained, _, perplexity = metrics = make_metrics(make_loss(settings, None, 0), 0)
    else:
        inputs = keras.Input((None, 5))
        plain = keras.Model(inputs, keras.layers.Identity()(inputs))
        loss = LOSSES["masked_language_model"]["cross_entropy"]()
        step = Step(plain, normalise=lambda x: x, loss=loss, num_classes=None)
    for width, scale in ((3, 0.1), (40, 9.0)):  # the wide batch is the harder one
        logits = random.normal(size=(2, width, 5), scale=scale).astype("float32")
        labels, weights = random.integers(0, 5, (2, width)), (random.random((2, width)) < 0.7).astype("float32")
        if jax:
            for metric in metrics:
                metric.update_state(labels, logits, weights)
        else:
            step.test_step((logits, tf.constant(labels), tf.constant(weights)))
        nats = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, labels[..., None], -1)[..., 0]
        taken += np.stack([nats, logits.argmax(-1) == labels], -1)[weights > 0].tolist()
    if jax:
        means = {"loss": trained.result(), "accuracy": metrics[0].result(), "perplexity": perplexity.result()}
    else:
        means = {name: step.trackers[name].result() for name in ("loss", "accuracy", "perplexity")}
    loss, accuracy = np.mean(taken, axis=0)
    for name, expected in {"loss": loss, "accuracy": accuracy, "perplexity": np.exp(loss)}.items():
        assert float(means[name]) == pytest.approx(expected, rel=1e-5), name
