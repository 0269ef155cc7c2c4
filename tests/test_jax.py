"""Keras' JAX backend: one device, data parallel and model parallel train the same; TensorFlow reads what they leave."""

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from processes import surroundings

import bigkeras.models  # noqa: F401  registers the layers
from bigkeras import jax_train, runtime
from bigkeras.data.source import ArraySource, DataError
from bigkeras.layouts import layouts
from bigkeras.models import MODELS
from bigkeras.recipe import Choice, RecipeError
from bigkeras.recipes import RECIPES
from bigkeras.signals import Log
from bigkeras.train import fit

ROOT = Path(__file__).resolve().parents[1]
needs_jax = pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed")


def on_jax(*command: str) -> subprocess.CompletedProcess:
    flags = "--xla_force_host_platform_device_count=4"
    environment = surroundings(KERAS_BACKEND="jax", JAX_PLATFORMS="cpu", XLA_FLAGS=flags)
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=1100)


def cases(folder: Path, what: str) -> dict:
    done = on_jax(str(ROOT / "tests" / "jax_cases.py"), str(folder), what)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("jax")
    return folder, cases(folder, "all")


def test_modules_of_ones_own_functions_and_initializers_are_known_to_who_scores(monkeypatch):
    import own_layers

    from bigkeras.jax_scores import own_modules

    dense = keras.layers.Dense(2, kernel_initializer=own_layers.Slanted())
    assert own_modules(keras.Sequential([keras.Input((3,)), dense])) == ["own_layers"]
    dense = keras.layers.Dense(2, activation=own_layers.tilted)
    assert own_modules(keras.Sequential([keras.Input((3,)), dense])) == ["own_layers"]
    assert own_modules(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="tanh")])) == []
    monkeypatch.setattr(own_layers.tilted, "__module__", "__main__")
    with pytest.raises(RecipeError, match="function tilted: is of the program that runs"):
        own_modules(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation=own_layers.tilted)]))


@pytest.mark.parametrize(
    ("told", "precision"), [("9.0", "mixed_bfloat16"), ("7.5", "mixed_float16"), ("gfx942", "float32"), ("", "float32")]
)
@needs_jax
def test_the_precision_of_a_gpu_that_jax_calls_by_any_name(told, precision, monkeypatch):
    import jax

    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(platform="gpu", compute_capability=told)])
    assert runtime._fastest_on_jax()[0] == precision


def test_batches_that_the_devices_cannot_share_are_told(monkeypatch):
    monkeypatch.setattr(jax_train, "data_devices", lambda machine: 3)
    recipe = RECIPES["digits"].override(batch_size=64)
    for candidate, told in ((False, ": --set batch_size=63; --strategy one"), (True, "3 devices; --strategy one")):
        with pytest.raises(RecipeError, match=told):
            jax_train.check_divides(recipe, runtime.Machine(), candidate)


@needs_jax
def test_a_platform_that_jax_does_not_have_is_one_line(tmp_path):
    command = [sys.executable, "-m", "bigkeras", "train", "digits", "--run-dir", str(tmp_path / "run")]
    environment = surroundings(KERAS_BACKEND="jax", JAX_PLATFORMS="tpo")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "bigkeras: JAX finds no device for JAX_PLATFORMS=tpo: " in done.stderr


@needs_jax
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", ["text", "rnn", "updates", "image", "hidden", "pairs"])
@pytest.mark.parametrize("strategy", ["data_parallel", "model_parallel"])
def test_four_devices_train_as_one_and_are_saved_whole(kind, strategy, trained):
    folder, told = trained
    one, four = told[f"{kind}-one"], told[f"{kind}-{strategy}"]
    for a, b in zip(one["history"], four["history"], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
        assert a["val_loss"] == pytest.approx(b["val_loss"], abs=1e-5)
    networks = [
        keras.models.load_model(folder / f"{kind}-{s}" / "last.keras", compile=False) for s in ("one", strategy)
    ]
    for a, b in zip(networks[0].get_weights(), networks[1].get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    assert any("model" in spec for spec in four["parts"].values()) is (strategy == "model_parallel")
    # The optimizer's moments are parted over the data's devices.
    axis = "data" if strategy == "model_parallel" else "batch"
    assert any(axis in spec for spec in four["moments"].values())


@needs_jax
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_on_jax_is_scored_and_ends_like_any_other(tmp_path):
    command = ["-m", "bigkeras", "train", "digits", "--run-dir", str(tmp_path / "run"), "--set", "epochs=2", "--json"]
    command += ["--set", 'augmentation=["flip", "random_erasing"]']
    done = on_jax(*command)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)
    assert metrics["validation"]["examples"] == 270
    assert (tmp_path / "run" / "report.md").exists()


@needs_jax
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_averages_on_jax_are_those_of_tensorflows_step_and_outlive_breaks_and_kills(tmp_path):
    killed = on_jax(str(ROOT / "tests" / "jax_cases.py"), str(tmp_path), "killed")
    assert killed.returncode == -signal.SIGKILL and list(tmp_path.glob("killed/checkpoints/*.part"))
    told = cases(tmp_path, "interrupted")
    assert told["steps"] > 4 and told["moved"] > 1e-3
    assert told["averages"] < 1e-6
    assert told["ends"] == [signal.SIGTERM] * 2
    assert len(told["resumed"]) == 3 and all(told["resumed"])
    assert told["left"] == told["killed"] == [0, True] and not told["half"]


@needs_jax
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_with_layers_of_a_module_is_scored_and_one_with_the_programs_own_is_refused(tmp_path):
    told = cases(tmp_path, "own layers")
    assert 0 < told["accuracy"] <= 1
    assert told["refused"].startswith("layer Here: is of the program that runs")


@needs_jax
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_last_checkpoints_are_averaged_on_a_mesh_too(tmp_path):
    told = cases(tmp_path, "checkpoint averages")
    assert told["moved"] > 1e-3 and told["averages"] < 1e-6
    steps = told["steps"]
    assert told["resumed"] == [2 * steps + 2, 3 * steps] and told["left"] == [0, True]


@needs_jax
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_killed_on_a_mesh_ends_as_one_that_was_not(tmp_path):
    told = cases(tmp_path, "killed on a mesh")
    assert told["statuses"] == [0, 0] and len(told["kills"]) == 3
    assert told["apart"] == 0, told["kills"]
    logs = [[drop_rates(row) for row in history(tmp_path / name)] for name in ("run", "whole")]
    assert logs[0] == logs[1]


def history(run: Path) -> list[dict[str, str]]:
    with open(run / "log.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def drop_rates(row: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in row.items() if not key.endswith("_per_second")}


@pytest.fixture(scope="module")
def on_both(tmp_path_factory) -> tuple[Path, dict, Path]:
    """Runs that must be alike: the folder of those on JAX, what was told there, the folder of those on TensorFlow."""
    import jax_cases

    here, there = tmp_path_factory.mktemp("tensorflow"), tmp_path_factory.mktemp("jax")
    told = cases(there, "alike")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.layers.Dense, "enable_lora", jax_cases.same_updates)
        for name, (recipe, model) in jax_cases.alike(here).items():
            fit(recipe, here / name, model=model, log=Log(quiet=True))
    return there, told, here


ALIKE = ["plain", "penalised", "in parts", "half", "whitened", "twice", "ratios", "latent", "updates", "pairs"]
ALIKE += ["half heads"]


@needs_jax
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ALIKE)
def test_a_training_on_jax_equals_tensorflows(name, on_both):
    there, told, here = on_both
    close = {"half": 3e-3, "half heads": 2e-2, "pairs": 1e-4}.get(name, 1e-5)
    for row, other in zip(history(here / name), told[name], strict=True):
        row = {key: float(value) for key, value in drop_rates(row).items() if value}
        assert set(row) == set(other)
        for key, value in row.items():
            assert other[key] == pytest.approx(value, abs=close, rel=close), key
    ours, theirs = (keras.models.load_model(folder / name / "best.keras") for folder in (here, there))
    assert [layer.name for layer in ours.layers] == [layer.name for layer in theirs.layers]
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=close)


@needs_jax
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_penalties_bleu_and_breaks_make_what_they_should_on_jax(on_both):
    there, told, _ = on_both
    penalised, plain = (keras.models.load_model(there / name / "last.keras") for name in ("penalised", "plain"))
    sizes = [sum(np.abs(weight).sum() for weight in network.get_weights()) for network in (plain, penalised)]
    assert sizes[0] > 1.01 * sizes[1]
    assert told["pairs"][-1]["val_bleu"] > 0 and "val_bleu" not in told["pairs"][0]
    assert told["left"] == told["pairs"]
    assert not (there / "pairs" / "validated.keras").exists()


@needs_jax
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_teacher_answers_on_jax_as_on_tensorflow(on_both):
    from jax_cases import alike, learned

    there, told, here = on_both
    assert told["taught"] == learned(alike(here)["ratios"][0], there / "ratios") == [
        ["good good lovely", 1], ["bad awful plot", 0],
    ]  # fmt: skip


@needs_jax
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_candidates_for_texts_are_tried_on_jax(tmp_path):
    told = cases(tmp_path, "auto")
    assert set(told["tried"]) == {"text-csv-ratios", "text-csv-convolutions"} and told["kept"] in told["tried"]
    assert told["accuracy"] == told["tried"][told["kept"]]["accuracy"] > 0.8


@needs_jax
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_goes_wrong_on_jax_is_told_as_on_tensorflow(tmp_path, digits_folder):
    shutil.copytree(digits_folder, tmp_path / "pictures")
    for number in range(10):
        (tmp_path / "pictures" / str(number) / "00.png").write_bytes(b"no picture %d" % number)
    told = cases(tmp_path, "mishaps")
    assert (
        told["many bad"].startswith("DataError: ")
        and "more than max_bad_fraction=0 allows; the first: " in told["many bad"]
    )
    assert not (tmp_path / "many bad" / "log.csv").exists()  # it is told in the first epoch
    assert told["some bad"] == told["go on"] == ""
    assert 0 < (tmp_path / "some bad" / "bad_samples.csv").read_text().count("00.png,") <= 10
    assert told["wild"].startswith("Diverged: ") and "no weights had been saved before" in told["wild"]
    assert "at step " in told["wild"]
    told_how = "--set batch_size=28; --strategy one takes a single one"
    assert told["uneven"] == f"RecipeError: batch_size=30 does not divide over 4 devices: {told_how}"
    assert told["stop"].startswith("CheckpointError: ") and "No space left on device" in told["stop"]


def test_heads_feed_forwards_and_embeddings_are_parted_where_they_divide():
    sizes = {"vocabulary_size": 30, "length": 12, "num_classes": 4}
    model = MODELS["transformer"](**sizes, depth=1, width=8, num_heads=2, feed_forward=16)
    shapes = {v.path: tuple(v.shape) for v in model.variables}
    two = layouts(shapes, 2)
    assert two["stage1_attention_query_key_value/kernel"] == (None, "model")
    assert two["stage1_attention_output/kernel"] == ("model", None)
    assert two["stage1_feed_forward_1/bias"] == ("model",)
    assert two["stage1_feed_forward_2/kernel"] == ("model", None)
    assert two["embedding/embeddings"] == ("model", None)
    assert two["norm/gamma"] == (None,)
    assert layouts(shapes, 4)["embedding/embeddings"] == (None, None)  # 30 rows


@pytest.mark.parametrize("name", ["resnet", "simple_cnn", "lstm", "bert", "transformer_translator"])
def test_every_family_has_parts(name):
    small = {
        "resnet": {"input_shape": (8, 8, 3), "num_classes": 4, "depth": 8},
        "simple_cnn": {"input_shape": (8, 8, 3), "num_classes": 4, "filters": 16, "width": 1},
        "lstm": {"vocabulary_size": 30, "length": 12, "num_classes": 4, "units": 8},
        "bert": {"vocabulary_size": 30, "length": 12, "num_classes": 4, "size": "tiny"},
        "transformer_translator": {"vocabulary_size": 30, "length": 12, "depth": 1, "width": 8, "num_heads": 2},
    }
    shapes = {v.path: tuple(v.shape) for v in MODELS[name](**small[name]).variables}
    parted = [path for path, axes in layouts(shapes, 2).items() if "model" in axes]
    weights = sum(np.prod(shapes[path]) for path in parted)
    assert weights > 0.7 * sum(np.prod(shape) for shape in shapes.values())


def test_jax_strategies_are_named_where_tensorflow_runs(monkeypatch):
    from bigkeras.runtime import MachineError, choose

    with pytest.raises(MachineError, match="is for JAX: KERAS_BACKEND=jax"):
        choose("model_parallel")


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"steps_per_call": 4}, "--steps-per-call 4: on JAX"),
        ({"xla": False}, "--no-xla: JAX compiles every step"),
        ({"replicas": 2}, "--replicas 2: on JAX data_parallel takes every device"),
        ({"tpu": "mine"}, "--tpu mine: JAX takes the TPU of its own machine"),
        ({"profile": True}, "--profile: there is none on JAX"),
        ({"shards": 4}, "--shards 4: is for --strategy model_parallel, on JAX; this run takes one"),
    ],
)
def test_what_jax_leaves_no_choice_of_is_refused(monkeypatch, asked, line):
    from bigkeras.runtime import Machine, MachineError, choose_on_jax

    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["cpu:0"])
    with pytest.raises(MachineError, match=line):
        choose_on_jax(Machine(**asked))


def test_fit_is_there_on_jax_and_what_needs_tensorflow_is_refused(monkeypatch):
    import bigkeras
    from bigkeras.runtime import MachineError

    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert bigkeras.fit is fit
    for name in ("evaluate", "export"):
        with pytest.raises(MachineError, match="KERAS_BACKEND=jax: this command needs TensorFlow"):
            getattr(bigkeras, name)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_are_those_of_tensorflows_step(smoothing):
    from bigkeras.jax_metrics import ClassWeighted, TokenCrossEntropy
    from bigkeras.tasks.cross_entropy import token_cross_entropy

    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(3, 5, 7), scale=4).astype("float32"), random.integers(0, 7, (3, 5))
    expected = token_cross_entropy(smoothing)(keras.ops.convert_to_tensor(labels), logits)
    np.testing.assert_allclose(TokenCrossEntropy(smoothing).call(labels, logits), expected, rtol=1e-5, atol=1e-6)
    inner = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    targets, weights = np.eye(7, dtype="float32")[labels[0]], np.arange(1, 8, dtype="float32")
    weighted = ClassWeighted(inner, weights, reduction="mean_with_sample_weight")
    valid = np.array([1, 1, 0, 1, 1], "float32")
    plain = inner.call(targets, logits[0]).numpy()
    expected = (plain * weights[labels[0]] * valid).sum() / valid.sum()
    np.testing.assert_allclose(weighted(targets, logits[0], sample_weight=valid), expected, rtol=1e-5)


def test_the_macro_f1_of_jax_is_that_of_tensorflow():
    from bigkeras.jax_metrics import MacroF1
    from bigkeras.metrics import macro_f1

    random, metric = np.random.default_rng(0), MacroF1(average="macro")
    confusion = np.zeros((6, 6))
    for _ in range(3):
        labels, weights = random.integers(0, 4, 20), random.integers(0, 2, 20)  # no example has the last two classes
        logits = random.integers(-3, 1, (20, 6)).astype("float32")  # ties, and many whose largest is 0
        logits[:, 5] = -4  # and the last one is no answer
        metric.update_state(np.eye(6)[labels], logits, weights)
        np.add.at(confusion, (labels, logits.argmax(1)), weights)
    assert float(metric.result()) == pytest.approx(macro_f1(confusion), abs=1e-6)


@pytest.mark.parametrize("validation", [None, "batches"])
def test_an_epoch_left_after_its_last_step_is_ended_with_its_validation_if_it_has_one(validation):
    from types import SimpleNamespace

    from bigkeras.epochs import learn

    class Ended(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            ends.append((epoch, logs))

    ends: list[tuple] = []
    step = SimpleNamespace(get_metrics_result=lambda: {"loss": 1.0}, evaluate=lambda data, **_: {"loss": len(data)})
    control = SimpleNamespace(
        step=step, position=SimpleNamespace(epoch=2, step=5), steps=5, callbacks=lambda: [Ended()]
    )  # fmt: skip
    learn(control, "train", validation, 1)
    assert ends == [(2, {"loss": 1.0, "val_loss": 7} if validation else {"loss": 1.0})]


@pytest.mark.parametrize(
    ("code", "why"), [("raise MemoryError('none left')", "none left"), ("", "its process was ended")]
)
def test_a_process_that_ends_instead_of_scoring_is_told(code, why, tmp_path, monkeypatch):
    from bigkeras import jax_scores

    monkeypatch.setattr(jax_scores, "_command", lambda directory, what, modules: [sys.executable, "-c", code])
    texts = np.array([b"a", b"\xff"], object)
    scores = jax_scores.TranslationScores(tmp_path, ArraySource({"source": texts, "target": texts}, [0, 0]))
    with contextlib.closing(scores), pytest.raises(DataError, match=f"epoch cannot be scored: .*{why}"):
        scores(tmp_path / "model.keras")


@pytest.mark.timeout(60)
def test_a_run_is_left_while_a_process_scores(tmp_path, monkeypatch):
    from bigkeras import jax_scores
    from bigkeras.signals import Interrupted

    def leave():
        raise Interrupted(15)

    monkeypatch.setattr(jax_scores, "LOOKING", 0.01)
    monkeypatch.setattr(jax_scores, "_command", lambda *_: [sys.executable, "-c", "import sys; sys.stdin.read()"])
    texts = np.array([b"a"], object)
    scores = jax_scores.TranslationScores(tmp_path, ArraySource({"source": texts, "target": texts}, [0]))
    with contextlib.closing(scores), pytest.raises(Interrupted):
        scores(tmp_path / "model.keras", leave)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise MemoryError('none left')", "none left"),
        ("import sys; print(sys.stdin.readline())", None),
    ],
)
def test_the_process_that_scores_a_trained_run_answers_or_says_why_not(code, why, tmp_path, monkeypatch):
    from bigkeras import jax_scores
    from bigkeras.checkpoint import Position

    monkeypatch.setattr(jax_scores, "_command", lambda directory, what, modules: [sys.executable, "-c", code])
    position = Position(1, 0, ({"epoch": 1.0},), {"a.png": "broken"})
    if why is None:
        assert jax_scores.finished(tmp_path, position) == [[{"epoch": 1.0}], {"a.png": "broken"}]
        return
    with pytest.raises(DataError, match=f"trained, but not scored: .*{why}"):
        jax_scores.finished(tmp_path, position)


def test_the_process_that_scores_ends_with_the_one_that_began_it(monkeypatch):
    from bigkeras import jax_scores

    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    jax_scores._end_with_input()
    assert ended == [1]


def test_augmentation_on_jax_is_a_function_of_the_step_and_normalises_as_the_preprocessor():
    from bigkeras.jax_augmentation import augmenter
    from bigkeras.tasks.augmentation import in_step
    from bigkeras.tasks.images import ImagePreprocessor

    preprocessor = ImagePreprocessor(height=8, width=8, channels=3, mean=(0.1, 0.2, 0.3), std=(0.2, 0.3, 0.4))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype("uint8")
    labels, weights, normalised = np.eye(4, dtype="float32"), np.ones(4, "float32"), preprocessor.normalise(pixels)
    plain, _ = augmenter([], preprocessor, 4)(pixels, labels, weights, 0)
    np.testing.assert_allclose(plain, normalised, rtol=1e-5, atol=1e-6)
    choices = [Choice("random_erasing", {"factor": 1.0}), Choice("rand_augment"), Choice("cut_mix")]
    augment = augmenter(in_step(choices, seed=3), preprocessor, 4)
    one, again, two = (augment(pixels, labels, weights, step) for step in (1, 1, 2))
    for a, b, c in zip(one, again, two, strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.shape(a) == np.shape(c) and not np.array_equal(a, c)


def test_what_keras_cannot_do_on_jax_is_named():
    from bigkeras.jax_train import check_on_jax

    for name in ("text-csv", "image-folder", "translation-pairs", "mnist-cnn", "imdb-self-training"):
        check_on_jax(RECIPES[name])
    with pytest.raises(RecipeError, match="cannot compile the augmentation random_elastic_transform there"):
        check_on_jax(RECIPES["digits"].override(augmentation=(Choice("random_elastic_transform"),)))
