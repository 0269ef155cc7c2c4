"""Trainings on Keras' JAX backend, on one device and on four; as a program it says what they came to, as JSON."""

import json
import sys
from pathlib import Path

import keras
import numpy as np

from bigkeras import jax_train
from bigkeras.recipe import Choice
from bigkeras.recipes import RECIPES
from bigkeras.runtime import Machine
from bigkeras.signals import Log
from bigkeras.train import fit

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
    return {"text": text, "image": image, "hidden": hidden, "pairs": translation}


def interrupted(folder: Path) -> dict:
    """How far averages are from those added up here, and a run that broke off after an epoch from one that did not."""
    jax_train._scored = lambda directory: {}
    recipe = recipes(folder)["image"]
    seen: list = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.jax_state_sync()
            seen.append([np.asarray(v) for v in self.model._averaged()])

    class Broken(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    networks = []
    make, callbacks = jax_train._network, jax_train._Saver.callbacks

    def made(*args):
        networks.append(make(*args))
        seen.append([np.asarray(v) for v in networks[-1]._averaged()])
        return networks[-1]

    def run(name: str, *extra: keras.callbacks.Callback) -> dict[str, np.ndarray]:
        jax_train._Saver.callbacks = lambda self: [*callbacks(self), *extra]
        fit(recipe, folder / name, machine=Machine(strategy="one"), log=Log(quiet=True))
        network = keras.models.load_model(folder / name / "last.keras", compile=False)
        return {v.path: np.asarray(v) for v in network.variables}

    jax_train._network = made
    whole = run("whole", Watch())
    averages, *later = seen
    for n, weights in enumerate(later, 1):
        decay = min(recipe.ema, (1 + n) / (10 + n))
        averages = [a + (1 - decay) * (w - a) for a, w in zip(averages, weights, strict=True)]
    expected = {v.path: a for v, a in zip(networks[0]._averaged(), averages, strict=True)}
    jax_train._network = make
    try:
        run("broken", Broken())
    except KeyboardInterrupt:
        resumed = run("broken")
    return {
        "steps": len(later),
        "moved": max(float(abs(a - b).max()) for a, b in zip(averages, seen[0], strict=True)),
        "averages": max(float(abs(whole[path] - value).max()) for path, value in expected.items()),
        "resumed": max(float(abs(whole[path] - resumed[path]).max()) for path in whole),
    }


def main(folder: Path) -> None:
    """Trains each recipe on one device, data parallel and model parallel."""
    jax_train._scored = lambda directory: {}  # another process' work, tested by itself
    told = {}
    for kind, recipe in recipes(folder).items():
        for strategy in ("one", "data_parallel", "model_parallel"):
            run = folder / f"{kind}-{strategy}"
            networks = []
            make = jax_train._network
            jax_train._network = lambda *a, make=make, networks=networks: networks.append(make(*a)) or networks[0]
            fit(recipe, run, machine=Machine(strategy=strategy), log=Log(quiet=True))
            jax_train._network = make
            keras.distribution.set_distribution(None)
            parts = {
                v.path: str(getattr(v.value.sharding, "spec", "")) for v in networks[0].variables if strategy != "one"
            }
            inner = networks[0].optimizer
            moments = {v.path: str(getattr(v.value.sharding, "spec", "")) for v in inner.variables if strategy != "one"}
            history = json.loads((run / "history.json").read_text())
            told[f"{kind}-{strategy}"] = {"history": history, "parts": parts, "moments": moments}
    print(json.dumps(told))


if __name__ == "__main__":
    if sys.argv[2:] == ["interrupted"]:
        print(json.dumps(interrupted(Path(sys.argv[1]))))
    else:
        main(Path(sys.argv[1]))
