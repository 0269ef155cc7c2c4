"""Transfer learning: weights from an earlier run, a shipped model, a file or ImageNet; freezing up to a layer."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bigkeras.models import MODELS
from bigkeras.models.pretrained import (
    BLOCK,
    automatic,
    copy_weights_by_name,
    load_pretrained,
    of_classes,
    renew_constants,
)
from bigkeras.origin import UNREADABLE, first_line, is_preset, origin_folder, pair_preprocessor, start_folder
from bigkeras.recipe import RecipeError, load
from bigkeras.run import read_labels, readable, saved_version
from bigkeras.tasks.pairs import PairPreprocessor, pieces


def start_from(
    origin: str, network: keras.Model, preprocessor: Any = None, class_names: Sequence[str] = ()
) -> list[str]:
    """Copies into `network` the weights of every layer that `origin` has under the same name and shape.

    `origin`: a run directory, the folder of a shipped model or of published BERT weights, a `.keras`, `.weights.h5` or
    `.safetensors` file, "imagenet", "minilm" or the name of a KerasHub preset of BERT. `preprocessor`: the network's;
    of a translator whose vocabularies are not the origin's, the pieces that both have keep their embeddings.
    `class_names`: the network's; where the origin says that it has others, the weights of single classes keep their
    start. Gives the names of the layers that were copied whole (of a `.weights.h5`, of all layers); raises RecipeError
    where nothing fits.
    """
    origin = start_folder(origin)
    path = Path(origin)
    try:
        published = path.suffix == ".safetensors" or (path / "model.safetensors").is_file()
        if origin == "imagenet" or published or (network.name.startswith("bert_") and is_preset(origin)):
            return load_pretrained(network, origin)
        if not path.exists():
            raise ValueError(
                "nothing is there; a run is trained before another starts from it (was it renamed? Then "
                "--set start_from=ITS-NEW-PLACE)"
            )
        theirs = pair_preprocessor(path) if isinstance(preprocessor, PairPreprocessor) else None
        if path.name.endswith(".weights.h5") and path.is_file():
            if theirs and theirs.models != preprocessor.models:
                raise ValueError("its vocabularies are others; take the directory of its run")
            _check_names(path, network)
            before = [w.copy() for w in network.get_weights()]
            other = not _same_classes(path, class_names)
            heads = {layer: layer.get_weights() for layer in network.layers if other and of_classes(layer)}
            network.load_weights(path, skip_mismatch=True)
            for layer, start in heads.items():
                layer.set_weights(start)
            changed = [w for w, b in zip(network.get_weights(), before, strict=True) if not np.array_equal(w, b)]
            if not changed:
                raise ValueError("no layer of the same name and shape")
            return [layer.name for layer in network.layers]
        model = _origin_model(path)
        if theirs and theirs.models != preprocessor.models:
            # Not named as copied: what subwords of its own the network has begins anew, and must learn.
            embedded = copy_embeddings(model, theirs, network, preprocessor)
            return copy_weights_by_name(model, network, besides=embedded)
        return copy_weights_by_name(model, network, same_classes=_same_classes(path, class_names))
    except (*UNREADABLE, ImportError) as error:
        raise RecipeError(f"start_from={origin}: {first_line(error)}") from None


def copy_embeddings(
    source: keras.Model, theirs: PairPreprocessor, target: keras.Model, ours: PairPreprocessor
) -> list[str]:
    """Copies the embeddings of the subwords that two translators both know, side by side; gives the layers' names.

    The other subwords keep their start. So a language pair of few sentences learns from one of many (Zoph et al. 2016,
    arXiv 1604.02201). Raises ValueError where the widths differ.
    """
    names = []
    for side in ("source", "target"):
        name, known = ("embedding" if p.joint else f"{side}_embedding" for p in (ours, theirs))
        rows, given = target.get_layer(name).get_weights()[0], source.get_layer(known).get_weights()[0]
        if rows.shape[1] != given.shape[1]:
            raise ValueError(f"its embeddings are {given.shape[1]} wide, the model's {rows.shape[1]}")
        places = {piece: row for row, piece in enumerate(pieces(getattr(theirs, f"{side}_model")))}
        for row, piece in enumerate(pieces(getattr(ours, f"{side}_model"))):
            if piece in places:
                rows[row] = given[places[piece]]
        target.get_layer(name).set_weights([rows])
        names.append(name)
    return list(dict.fromkeys(names))


def _check_names(path: Path, network: keras.Model) -> None:
    """Raises ValueError where a `.weights.h5` file is of a model with other layers than `network`, heads aside.

    Keras finds the weights in it by the kinds of layers and their order, whatever their names.
    """
    theirs = _layers_of(path)
    with tempfile.TemporaryDirectory() as folder:
        network.save_weights(Path(folder) / "own.weights.h5")
        ours = _layers_of(Path(folder) / "own.weights.h5")
    for place, (name, shapes) in ours.items():
        if of_classes(network.get_layer(name)):
            continue
        other, found = theirs.get(place, ("", []))
        same = other == name or all(automatic(named, network.get_layer(name)) for named in (other, name))
        if not same:
            told = f"{other} in the file" if other else "not in the file"
            raise ValueError(f"layer {name} of the model is {told}: is it of another depth or kind?")
        if found != shapes:
            raise ValueError(f"layer {name} is of shapes {found} in the file and {shapes} in the model")
    deeper = [name for place, (name, _) in theirs.items() if place not in ours and BLOCK.match(name)]
    if deeper:
        raise ValueError(f"the file alone has {deeper[0]}: give both the same depth")


def _layers_of(path: Path) -> dict[str, tuple[str, list[tuple[int, ...]]]]:
    """Of each layer with weights in a `.weights.h5` file, by its place there, its name and the weights' shapes."""
    import h5py

    found: dict[str, tuple[str, list[tuple[int, ...]]]] = {}
    with h5py.File(path) as file:
        layers = file.get("layers", {})
        for place, layer in layers.items():
            shapes: list[tuple[int, ...]] = []
            layer.visititems(lambda _, entry, shapes=shapes: shapes.append(getattr(entry, "shape", None)))
            known = layer["vars"].attrs.get("name", place) if "vars" in layer else place
            if any(shapes):
                found[place] = (str(known), [shape for shape in shapes if shape is not None])
    return found


def _same_classes(origin: Path, class_names: Sequence[str]) -> bool:
    """Whether an origin's classes are these in this order, as far as it says."""
    labels = origin_folder(origin) / "labels.txt"
    return not class_names or not labels.is_file() or read_labels(labels.parent) == tuple(class_names)


def freeze(network: keras.Model, until: str) -> None:
    """The layer `until`, and all that it is computed from, keep their weights. Raises RecipeError for one not there."""
    names = [layer.name for layer in network.layers]
    if until not in names:
        joints = [
            n for n in names if n in ("embedding", "stem", "features") or (n.startswith("stage") and n[5:].isdigit())
        ]
        raise RecipeError(f"freeze_until={until!r}: no such layer; {', '.join(joints)} are among them")
    # Not what stands before it in the list: Keras sorts a decoder's first layers among the encoder's last. Calls are
    # followed, and not layers: embeddings that also make the logits are called once more, on what the decoder gives.
    waiting, seen = [network.get_layer(until)._inbound_nodes[0]], set()
    while waiting:
        node = waiting.pop()
        if id(node) not in seen:
            seen.add(id(node))
            node.operation.trainable = False
            waiting += node.parent_nodes


def _origin_model(path: Path) -> keras.Model:
    if path.suffix == ".keras" and path.is_file():
        return keras.models.load_model(path, compile=False, safe_mode=True)
    for name in ("best.keras", "last.keras"):
        if (path / name).exists():
            return keras.models.load_model(path / name, compile=False, safe_mode=True)
    if (path / "recipe.json").exists() and saved_version(path) is not None:
        return artifact_model(path)
    if (path / "config.json").is_file():
        raise RecipeError(
            "published weights without their model.safetensors (pytorch_model.bin and parts of several files are not "
            "read): save_pretrained of the library that made them writes one"
        )
    raise RecipeError("not a run directory with a model, a shipped model, published weights, a .keras file or imagenet")


def artifact_model(directory: Path) -> keras.Model:
    """The Keras model of a shipped artifact: built by its recipe, with the SavedModel's own weights."""
    from bigkeras.models import build
    from bigkeras.tasks import load_task

    recipe = load(directory)
    if recipe.model.name not in MODELS:
        raise ValueError(f"its model {recipe.model.name} is one of your own: take its run's directory, or best.keras")
    arguments = load_task(directory, read_labels(directory)).model_arguments
    # Weights that it began with may not be at hand here, and are not wanted.
    own = {name: value for name, value in recipe.model.args.items() if name != "weights"}
    network = build(MODELS[recipe.model.name], arguments, own)
    with readable(Path(saved_version(directory) or directory)) as version:  # of an artifact, there is one
        reader = tf.train.load_checkpoint(f"{version}/variables/variables")
        names = [n for n in reader.get_variable_to_shape_map() if n.startswith("weights/")]
        names.sort(key=lambda name: int(name.split("/")[1]))
        network.set_weights([reader.get_tensor(name) for name in names])
    renew_constants(network)
    return network
