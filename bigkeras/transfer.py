"""Transfer learning: weights from an earlier run, a shipped model, a file or ImageNet; freezing up to a layer."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bigkeras.models.pretrained import copy_weights_by_name, load_pretrained
from bigkeras.recipe import Recipe, RecipeError, load


def start_from(origin: str, network: keras.Model) -> list[str]:
    """Copies into `network` the weights of every layer that `origin` has under the same name and shape.

    `origin`: a run directory, the folder of a shipped model, a `.keras` or `.weights.h5` or `.safetensors` file, or
    "imagenet". Gives the names of the layers copied (of a `.weights.h5`, of all layers); raises RecipeError where
    nothing fits.
    """
    path = Path(origin)
    try:
        if origin == "imagenet" or path.suffix == ".safetensors":
            return load_pretrained(network, origin)
        if path.name.endswith(".weights.h5") and path.is_file():
            before = [w.copy() for w in network.get_weights()]
            network.load_weights(path, skip_mismatch=True)
            changed = [w for w, b in zip(network.get_weights(), before, strict=True) if not np.array_equal(w, b)]
            if not changed:
                raise ValueError("no layer of the same name and shape")
            return [layer.name for layer in network.layers]
        return copy_weights_by_name(_origin_model(path), network)
    except (ValueError, OSError, ImportError) as error:
        raise RecipeError(f"start_from={origin}: {str(error).splitlines()[0]}") from None


def inherited(recipe: Recipe) -> dict[str, Any]:
    """The task's arguments; those of texts are an earlier run's: its weights mean nothing without its vocabulary.

    Raises RecipeError where the recipe asks for tokens that the earlier run does not have.
    """
    origin = Path(recipe.start_from or "")
    if recipe.task.name != "text_classification" or not (origin / "preprocessor.json").is_file():
        return dict(recipe.task.args)
    theirs = json.loads((origin / "preprocessor.json").read_text(encoding="utf-8"))
    for name, value in recipe.task.args.items():
        if name != "buckets" and theirs.get(name, value) != value:
            raise RecipeError(
                f"task.{name}={value}: start_from={origin} has {theirs[name]}, and its vocabulary is kept"
            )
    return {"vocabulary": str(origin)}


def freeze(network: keras.Model, until: str) -> None:
    """Every layer up to and with `until` keeps its weights. Raises RecipeError for a layer that is not there."""
    names = [layer.name for layer in network.layers]
    if until not in names:
        joints = [n for n in names if n in ("stem", "features") or (n.startswith("stage") and n[5:].isdigit())]
        raise RecipeError(f"freeze_until={until!r}: no such layer; {', '.join(joints)} are among them")
    for layer in network.layers[: names.index(until) + 1]:
        layer.trainable = False


def _origin_model(path: Path) -> keras.Model:
    if path.suffix == ".keras" and path.is_file():
        return keras.models.load_model(path, compile=False, safe_mode=True)
    for name in ("best.keras", "last.keras"):
        if (path / name).exists():
            return keras.models.load_model(path / name, compile=False, safe_mode=True)
    if (path / "recipe.json").exists() and any(path.glob("[0-9]*/saved_model.pb")):
        return artifact_model(path)
    raise RecipeError("not a run directory with a model, a shipped model, a .keras file or imagenet")


def artifact_model(directory: Path) -> keras.Model:
    """The Keras model of a shipped artifact: built by its recipe, with the SavedModel's own weights."""
    import tensorflow as tf

    from bigkeras.models import MODELS
    from bigkeras.run import read_labels
    from bigkeras.tasks import load_task

    recipe = load(directory)
    arguments = load_task(directory, read_labels(directory)).model_arguments
    network = MODELS[recipe.model.name](**arguments, **recipe.model.args)
    version = max((p for p in directory.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    reader = tf.train.load_checkpoint(str(version / "variables" / "variables"))
    names = [n for n in reader.get_variable_to_shape_map() if n.startswith("weights/")]
    names.sort(key=lambda name: int(name.split("/")[1]))
    network.set_weights([reader.get_tensor(name) for name in names])
    return network
