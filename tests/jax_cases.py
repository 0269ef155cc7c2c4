"""Trainings on Keras' JAX backend, on one device and on four; as a program it says what they came to, as JSON."""

import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from lives import kill_in_write
from own_layers import Doubting

from bigkeras import jax_scores, jax_train, search, text_search
from bigkeras.data.reviews import text_array
from bigkeras.data.source import ArraySource
from bigkeras.jax_control import JaxControl
from bigkeras.layers import PatchWhitening
from bigkeras.models import MODELS
from bigkeras.recipe import Choice, Recipe, RecipeError
from bigkeras.recipe_data import load_splits
from bigkeras.recipes import RECIPES
from bigkeras.runtime import Machine
from bigkeras.self_training import taught
from bigkeras.signals import Interrupted, Log
from bigkeras.train import fit

KILLS = 3
QUIET = Log(quiet=True)
SMOOTHED = {"label_smoothing": 0.1}
PLAIN = {"augmentation": (), "ema": None, "clip_norm": 0.5, "batch_size": 32, "epochs": 2, "precision": "float32"}


def recipes(folder: Path) -> dict:
    """Recipes of images, of texts with an encoder, of hidden words, and of sentence pairs with a decoder."""
    table = folder / "reviews.csv"
    words = [("good fine lovely", "good"), ("bad awful dull", "bad")]
    random = np.random.default_rng(0)
    lines = ["text,label"]
    for i in range(120):
        few, label = words[i % 2]
        lines.append(" ".join(random.choice([*few.split(), "film", "plot", "the", f"w{i}"], 6)) + f",{label}")
    table.write_text("\n".join(lines) + "\n")
    encoder = {"depth": 1, "width": 8, "num_heads": 2, "feed_forward": 16, "dropout": 0.0}
    text = RECIPES["text-csv"].override(
        **PLAIN,
        data=Choice("text_table", {"file": str(table)}),
        task=Choice("text_classification", {"length": 8}),
        model=Choice("transformer", encoder),
        optimizer=Choice("adamw", {"learning_rate": 1e-2, "weight_decay": 0.0}),
        balance="class_weights",
    )
    rnn = text.override(model=Choice("lstm", {"units": 8, "embedding_width": 6, "dropout": 0.0}))
    hidden = text.override(
        task=Choice("masked_language_model", {"length": 8, "tokens": "word"}),
        model=Choice("bert_mlm", {"size": "tiny", "dropout": 0.0}),
        loss=Choice("cross_entropy"),
        balance="none",
    )
    pairs = folder / "pairs.tsv"
    rows = {" ".join(random.choice(["red", "cat", "sees", "two", "dogs"], 5)) for _ in range(200)}
    pairs.write_text("".join(f"{row}\t{row.upper()}!\n" for row in sorted(rows)))
    translation = RECIPES["translation-pairs"].override(
        **{**PLAIN, "batch_size": 512, "ema": 0.9},
        data=Choice("translation_pairs", {"file": str(pairs)}),
        task=Choice("translation", {"vocabulary_size": 320, "length": 32}),
        model=Choice("transformer_translator", encoder),
        monitor="val_loss",
        patience=None,
    )
    image = RECIPES["digits"].override(
        **{**PLAIN, "batch_size": 400, "ema": 0.9},  # few steps: batch normalisation makes much of rounding
        model=Choice("resnet", {"depth": 8}),
        optimizer=Choice("sgd", {"learning_rate": 0.01, "momentum": 0.9}),
    )
    updates = text.override(lora=2, start_from=str(folder / "text-one"))
    return {"text": text, "rnn": rnn, "updates": updates, "image": image, "hidden": hidden, "pairs": translation}


def set_alike(network: keras.Model) -> keras.Model:
    """The network with the same weights on every backend."""
    random = np.random.default_rng(0)
    network.set_weights([random.normal(size=w.shape, scale=0.2).astype("float32") for w in network.get_weights()])
    return network


def fixed(*, input_shape, num_classes) -> keras.Model:
    """A network that begins with the same weights on every backend."""
    inputs = keras.Input(input_shape, name="image")
    x = keras.layers.Conv2D(4, 3, activation="tanh", name="stem")(inputs)
    x = keras.layers.Dense(num_classes, dtype="float32", name="logits")(keras.layers.Flatten(name="features")(x))
    return set_alike(keras.Model(inputs, x))


def whitened(*, input_shape, num_classes) -> keras.Model:
    """The same with a layer that adapts to the pictures."""
    inputs = keras.Input(input_shape, name="image")
    x = keras.layers.Activation("tanh", name="tanh")(PatchWhitening(name="stem")(inputs))
    x = keras.layers.Dense(num_classes, name="logits")(keras.layers.Flatten(name="features")(x))
    return set_alike(keras.Model(inputs, x))


def doubting(*, input_shape, num_classes) -> keras.Model:
    """A network whose two answers to an example differ."""
    inputs = keras.Input(input_shape, name="image")
    x = Doubting(name="features")(keras.layers.Flatten(name="stem")(inputs))
    return set_alike(keras.Model(inputs, keras.layers.Dense(num_classes, dtype="float32", name="logits")(x)))


def encoder(**sizes) -> keras.Model:
    """An encoder of texts, with the same weights on every backend."""
    return set_alike(MODELS["transformer"](**sizes, depth=1, width=8, num_heads=2, feed_forward=16, dropout=0.0))


def translator(**sizes) -> keras.Model:
    """A translator with the same weights on every backend."""
    small = {"depth": 1, "width": 16, "num_heads": 2, "feed_forward": 16, "dropout": 0.0}
    return set_alike(MODELS["transformer_translator"](**sizes, **small))


def same_updates(layer: keras.layers.Dense, rank: int, enable=keras.layers.Dense.enable_lora) -> None:
    """In the place of `Dense.enable_lora`: as it is, but for its random start."""
    enable(layer, rank, a_initializer=keras.initializers.Constant(0.1))


def alike(folder: Path) -> dict[str, tuple]:
    """What must come to the same on TensorFlow and on JAX: recipes, and models that begin with the same weights."""
    folder.mkdir(exist_ok=True)
    made = recipes(folder)
    plain = RECIPES["digits"].override(
        **{**PLAIN, "batch_size": 200},  # which does not divide the examples
        model=Choice("fixed"),
        optimizer=Choice("sgd", {"learning_rate": 0.05, "momentum": 0.9}),
        loss=Choice("cross_entropy", SMOOTHED),
        balance="class_weights",
    )
    texts = made["text"].override(monitor="val_macro_f1", optimizer=Choice("adam", {"learning_rate": 0.03}))
    pairs = made["pairs"].override(
        model=Choice("fixed"), monitor="val_bleu", patience=2, micro_batches=2, loss=Choice("cross_entropy", SMOOTHED),
        optimizer=Choice("adam", {"learning_rate": 0.03}), schedule=Choice("constant"), epochs=6,
    )  # fmt: skip
    return {
        "plain": (plain, fixed),
        "penalised": (plain.override(l1=1e-3, l2=1e-2), fixed),
        "in parts": (plain.override(l2=1e-2, micro_batches=4), fixed),
        "half": (plain.override(precision="mixed_float16", ema=0.9), fixed),
        "whitened": (plain, whitened),
        "twice": (plain.override(consistency=2.0, micro_batches=2), doubting),
        "ratios": (texts.override(model=Choice("nb_ngrams")), None),
        "latent": (texts.override(model=Choice("nb_ngrams", {"latent": 3})), None),
        "updates": (texts.override(model=Choice("fixed"), lora=2), encoder),
        "half heads": (texts.override(model=Choice("fixed"), precision="mixed_float16"), encoder),
        "pairs": (pairs, translator),
    }


def trained(
    folder: Path, name: str, recipe: Recipe, *extra: keras.callbacks.Callback, model=None, **arguments
) -> tuple:
    """Weights and history of a run on one device, with other callbacks."""
    histories: list = []
    callbacks = JaxControl.callbacks
    JaxControl.callbacks = lambda self: [*callbacks(self), *extra]
    jax_scores.finished = lambda directory, position, modules: (
        histories.append(position.history) or {}
    )  # tested by itself
    try:
        fit(recipe, folder / name, model=model, machine=Machine(**{"strategy": "one", **arguments}), log=QUIET)
    finally:
        JaxControl.callbacks = callbacks
    network = keras.models.load_model(folder / name / "last.keras", compile=False)
    history = [{key: value for key, value in row.items() if "_per_second" not in key} for row in histories[0]]
    return {v.path: np.asarray(v) for v in network.variables}, history


def noted_resumes(found: list) -> None:
    """Has the steps from which runs go on put into a list."""
    go_on = jax_train.go_on

    def noting(control: JaxControl, restored: tuple) -> None:
        go_on(control, restored)
        found.append(control.total_steps)

    jax_train.go_on = noting


def noted_steps(made: list) -> None:
    """Has every model that is trained put into a list."""
    make = jax_train._step
    jax_train._step = lambda *arguments: made.append(make(*arguments)) or made[-1]


def broken_off() -> Recipe:
    """With averages, batch normalisation, dropout and augmentation: all that a run has to remember."""
    return RECIPES["digits"].override(
        **{**PLAIN, "batch_size": 400, "ema": 0.9, "augmentation": (Choice("random_erasing"), Choice("mix_up"))},
        model=Choice("simple_cnn", {"width": 4, "dropout": 0.2}),
        optimizer=Choice("sgd", {"learning_rate": 0.01, "momentum": 0.9}),
    )


class Watch(keras.callbacks.Callback):
    """The weights before the first step and after each."""

    def __init__(self):
        super().__init__()
        self.seen: list = []

    def _note(self) -> None:
        self.seen.append([np.asarray(v) for v in self.model._averaged()])

    def on_train_begin(self, logs=None):
        self._note()

    def on_train_batch_end(self, batch, logs=None):
        self.model.jax_state_sync()
        self._note()


class Ending(keras.callbacks.Callback):
    """Has the system end this process in the second step of an epoch, or in a validation."""

    def __init__(self, where: str, epoch: int | None = None):
        super().__init__()
        self.where, self.epoch, self.at = where, epoch, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.at = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if self.where == "training" and batch == 1 and self.epoch in (None, self.at):
            os.kill(os.getpid(), signal.SIGTERM)

    def on_test_batch_begin(self, batch, logs=None):
        if self.where == "validation" and self.epoch in (None, self.at):
            os.kill(os.getpid(), signal.SIGTERM)


def difference(a: dict, b: dict) -> float:
    return max(float(abs(a[path] - b[path]).max()) for path in a)


def interrupted(folder: Path) -> dict:
    """How far averages are from those added up here, and runs that broke off from one that did not."""
    recipe, watch, made, resumed = broken_off(), Watch(), [], []
    noted_steps(made)
    noted_resumes(resumed)
    whole, history = trained(folder, "whole", recipe, watch)
    averages, *later = watch.seen
    for n, weights in enumerate(later, 1):
        decay = min(recipe.ema, (1 + n) / (10 + n))
        averages = [a + (1 - decay) * (w - a) for a, w in zip(averages, weights, strict=True)]
    expected = {v.path: a for v, a in zip(made[0]._averaged(), averages, strict=True)}
    ends = []
    for where in ("training", "validation", "nowhere"):
        try:
            run = trained(folder, "left", recipe, Ending(where))
        except Interrupted as error:
            ends.append(error.signum)
    killed = trained(folder, "killed", recipe)
    return {
        "steps": len(later),
        "moved": max(float(abs(a - b).max()) for a, b in zip(averages, watch.seen[0], strict=True)),
        "averages": difference(expected, whole),
        "ends": ends,
        "resumed": resumed,
        "left": [difference(whole, run[0]), run[1] == history],
        "killed": [difference(whole, killed[0]), killed[1] == history],
        "half": [p.name for p in (folder / "killed" / "checkpoints").glob("*.part")],
    }


@keras.saving.register_keras_serializable(package="tests")
class Here(Doubting):
    """A layer of the program that runs."""


def own_layers(folder: Path) -> dict:
    """The accuracy of a run of a model with layers of a module, and what is said of layers of the program itself."""
    recipe, machine = broken_off().override(ema=None, epochs=1, model=Choice("doubting")), Machine(strategy="one")
    metrics = fit(recipe, folder / "own", model=doubting, machine=machine, log=QUIET)

    def here(*, input_shape, num_classes) -> keras.Model:
        inputs = keras.Input(input_shape, name="image")
        x = Here(name="features")(keras.layers.Flatten(name="stem")(inputs))
        return keras.Model(inputs, keras.layers.Dense(num_classes, dtype="float32", name="logits")(x))

    try:
        fit(recipe, folder / "here", model=here, machine=machine, log=QUIET)
    except RecipeError as error:
        return {"accuracy": metrics["validation"]["accuracy"], "refused": str(error)}
    return {}


def checkpoint_averages(folder: Path) -> dict:
    """How far the mean of the last two epochs' weights is from one made here, and a run that broke off from it."""
    recipe, watch, made = broken_off().override(ema=None, average_checkpoints=2, epochs=3), Watch(), []
    resumed: list[int] = []
    noted_steps(made)
    noted_resumes(resumed)
    whole, history = trained(folder, "whole", recipe, watch, strategy="model_parallel")
    steps = (len(watch.seen) - 1) // 3
    mean = [(one + two) / 2 for one, two in zip(watch.seen[2 * steps], watch.seen[3 * steps], strict=True)]
    expected = {v.path: a for v, a in zip(made[0]._averaged(), mean, strict=True)}
    for where in ("training", "validation"):
        with contextlib.suppress(Interrupted):
            trained(folder, "left", recipe, Ending(where, epoch=2), strategy="model_parallel")
    left = trained(folder, "left", recipe, strategy="model_parallel")
    apart = max(float(abs(a - b).max()) for a, b in zip(mean, watch.seen[3 * steps], strict=True))
    return {
        "moved": apart,
        "averages": difference(expected, whole),
        "steps": steps,
        "resumed": resumed,
        "left": [difference(whole, left[0]), left[1] == history],
    }


def killed(folder: Path) -> None:
    """A run that is killed while it writes its third checkpoint."""
    kill_in_write(3)
    trained(folder, "killed", broken_off(), checkpoint_seconds=0)


def alike_here(folder: Path) -> dict:
    """Trains what must come to the same on TensorFlow; gives the histories, and what the run of ratios can teach."""
    keras.layers.Dense.enable_lora = same_updates
    told = {name: trained(folder, name, recipe, model=model)[1] for name, (recipe, model) in alike(folder).items()}
    recipe, model = alike(folder)["pairs"]
    for where in ("training", "validation", "nowhere"):
        with contextlib.suppress(Interrupted):
            told["left"] = trained(folder, "left", recipe, Ending(where), model=model)[1]
    return {**told, "taught": learned(alike(folder)["ratios"][0], folder / "ratios")}


def learned(recipe: Recipe, teacher: Path) -> list[tuple[str, int]]:
    """The texts, and their labels, that a run teaches."""
    unlabelled = ArraySource({"text": text_array([b"good good lovely", b"bad awful plot", b"neither"])}, [0, 0, 0])
    splits = replace(load_splits(recipe), unlabelled=unlabelled)
    more = taught(recipe.override(teacher=str(teacher), teacher_sure=0.6), splits).train
    added = more.take(range(len(splits.train), len(more)))
    return [[text.decode(), int(label)] for text, label in zip(added.columns["text"], added.labels, strict=True)]


def auto(folder: Path) -> dict:
    """What a search among two candidates says that it has kept."""
    search.text_candidates = lambda *given: text_search.text_candidates(*given)[:2]
    recipe = RECIPES["text-csv"].override(data=recipes(folder)["text"].data)
    metrics = fit(recipe, folder / "auto", machine=Machine(strategy="one"), log=QUIET)
    return {"accuracy": metrics["validation"]["accuracy"], **json.loads((folder / "auto/search.json").read_text())}


def killed_on_a_mesh(folder: Path) -> dict:
    """A run on four devices that is killed at random moments, and one that is not: how far apart they end."""
    recipe, random, kills = (
        broken_off().override(batch_size=160, augmentation=(), epochs=6),
        np.random.default_rng(0),
        [],
    )
    checkpoints = folder / "run" / "checkpoints"

    def newest() -> str:
        return max((path.name for path in checkpoints.glob("*.npz")), default="")

    while len(kills) < KILLS:
        process, seen = life(folder, "run", recipe), [newest()]
        # When some checkpoints have come, or while another one is written.
        wanted, ending = random.integers(1, 4), "*.part" if random.random() < 0.5 else "*"
        while len(seen) <= wanted or not any(checkpoints.glob(ending)):
            seen += {newest()}.difference(seen)
            if os.waitpid(process, os.WNOHANG)[0]:
                raise RuntimeError(f"after {len(kills)} kills the run ended by itself")
            time.sleep(0.001)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        kills.append(sorted(path.name for path in checkpoints.glob("*")))
    statuses = [os.waitpid(life(folder, name, recipe), 0)[1] for name in ("run", "whole")]
    weights = [keras.models.load_model(folder / name / "last.keras").get_weights() for name in ("run", "whole")]
    apart = max(float(abs(a - b).max()) for a, b in zip(*weights, strict=True))
    return {"kills": kills, "statuses": statuses, "apart": apart}


def life(folder: Path, name: str, recipe: Recipe) -> int:
    """The number of a process that trains."""
    # JAX is imported, but has not run anything yet: so the copy is as good as new.
    process = os.fork()
    if process:
        return process
    trained(folder, name, recipe, strategy="model_parallel", checkpoint_seconds=0)
    os._exit(0)


def mishaps(folder: Path) -> dict:
    """What is said of trainings that go wrong; `folder` holds pictures, some of which cannot be read."""
    told = {}
    tiny = broken_off().override(epochs=1, ema=None)
    pictures = tiny.override(data=Choice("image_folder", {"directory": str(folder / "pictures")}), batch_size=40)

    def failing(name: str, recipe: Recipe, **arguments) -> None:
        try:
            trained(folder, name, recipe, **arguments)
            told[name] = ""
        except (ValueError, OSError) as error:
            told[name] = f"{type(error).__name__}: {error}"

    failing("many bad", pictures.override(max_bad_fraction=0.0))
    failing("some bad", pictures.override(max_bad_fraction=0.2))
    failing("wild", tiny.override(**{"optimizer": Choice("sgd", {"learning_rate": 1e30})}))
    failing("uneven", tiny.override(batch_size=30), strategy="data_parallel")

    def full(file, **arrays) -> None:
        raise OSError(28, "No space left on device")

    np.savez = full
    failing("stop", tiny)
    failing("go on", tiny.override(on_checkpoint_error="go on"))
    return told


def on_all_strategies(folder: Path) -> dict:
    """Trains each recipe on one device, data parallel and model parallel."""
    told = {}
    make = jax_train._step
    for kind, recipe in recipes(folder).items():
        for strategy in ("one", "data_parallel", "model_parallel"):
            made: list = []
            noted_steps(made)
            _, history = trained(folder, f"{kind}-{strategy}", recipe, strategy=strategy)
            jax_train._step = make
            keras.distribution.set_distribution(None)
            parts, moments = (
                {v.path: str(getattr(v.value.sharding, "spec", "")) for v in variables if strategy != "one"}
                for variables in (made[0].variables, made[0].optimizer.variables)
            )
            told[f"{kind}-{strategy}"] = {"history": history, "parts": parts, "moments": moments}
    return told


WHAT = {
    "all": on_all_strategies,
    "interrupted": interrupted,
    "checkpoint averages": checkpoint_averages,
    "own layers": own_layers,
    "killed": killed,
    "killed on a mesh": killed_on_a_mesh,
    "alike": alike_here,
    "auto": auto,
    "mishaps": mishaps,
}

if __name__ == "__main__":
    print(json.dumps(WHAT[sys.argv[2]](Path(sys.argv[1]))))
