"""Published BERT weights: from a folder in Hugging Face's form, offline, or a KerasHub preset by name."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bigkeras.models.bert import EPSILON, SIZES

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PREFIXES = ("", "bert.", "model.bert.")
# The same tensors under their names of 2018.
OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
# And names under which BERT's tokenizer is published.
TOKENIZERS = ("PreTrainedTokenizerFast", "BertTokenizerFast", "BertTokenizer")
FILLED_UP = 128  # rows of an embedding table, of which files have a multiple though the words be fewer
LAYERS = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
# Layers that a file may lack and that then keep their start: the pooler, and the head of a masked language model.
OPTIONAL = ("features", "mlm_dense", "mlm_norm", "mlm_logits")


def bert_sizes(folder: str | Path) -> dict[str, Any]:
    """What `bert` must be called with for the weights in `folder`: vocabulary_size, length (the longest) and size.

    Raises ValueError for another architecture than BERT or for sizes that are none of the published ones;
    FileNotFoundError where there is no config.json.
    """
    path = Path(folder) / CONFIG
    config = _config(path)
    depth, width, heads, feed_forward = (config[key] for key in LAYERS)
    size = _size(path, depth, width, heads, feed_forward)
    return {"vocabulary_size": config["vocab_size"], "length": config["max_position_embeddings"], "size": size}


def preset_size(name: str) -> str:
    """The `size` that `bert` must be called with for the weights of a KerasHub preset; downloads its description."""
    return _backbone_size(name, keras_hub_preset("BertBackbone", name, load_weights=False))


def preset_vocabulary(name: str) -> tuple[tuple[str, ...], bool]:
    """The words of a KerasHub preset by id, and whether it makes lower case; downloads them where they are not cached.

    Raises what `keras_hub_preset` raises.
    """
    tokenizer = keras_hub_preset("BertTokenizer", name)
    return tuple(tokenizer.get_vocabulary()), bool(tokenizer.lowercase)


def load_bert(model: keras.Model, origin: str | Path) -> list[str]:
    """Loads published weights into a `bert` or `bert_mlm` model; gives the names of the layers that were set.

    `origin`: a folder with config.json and model.safetensors, the path of that file, or the name of a KerasHub preset
    such as "bert_base_en_uncased". A shorter `length` takes the first positions. The pooler and the language model's
    head are set where the file has them; `logits` keeps its start. Raises ValueError where model and weights do not
    fit, or a tensor is missing; FileNotFoundError where there is no such file; ImportError without KerasHub.
    """
    path = Path(origin)
    if path.suffix == ".safetensors" or path.is_dir():
        path = path / WEIGHTS if path.is_dir() else path
        tensors = _read(path)
        # The number of heads is in no tensor's shape: other heads would load and answer nonsense.
        _check_size(model, path.parent / CONFIG, bert_sizes(path.parent)["size"])
    else:
        backbone = keras_hub_preset("BertBackbone", str(origin))
        _check_size(model, origin, _backbone_size(str(origin), backbone))
        tensors = preset_tensors(backbone)
    loaded = []
    for name, parts in _tensor_names(model).items():
        missing = [part for part in parts if part not in tensors]
        if not missing:
            _set(model.get_layer(name), [tensors[part] for part in parts], origin)
            loaded.append(name)
        elif name not in OPTIONAL:
            raise ValueError(f"{origin}: lacks the tensor {missing[0]}: not the weights of a {model.name}")
    return loaded


def keras_hub_preset(kind: str, name: str, **args: Any) -> Any:
    """KerasHub's `kind`, such as "BertBackbone", of a preset, by name or in a folder; downloads what is not cached.

    Raises ImportError without KerasHub; ValueError where there is no such preset, or no way to it.
    """
    # What is told of a download is no answer: --json has that alone on stdout.
    try:
        with contextlib.redirect_stdout(sys.stderr):
            import keras_hub
    except ImportError:
        raise ImportError(f"nothing is there, and a preset {name!r} needs KerasHub: pip install keras-hub") from None
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return getattr(keras_hub.models, kind).from_preset(name, **args)
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].split(". ")[0]
        raise ValueError(f"{name!r}: neither a folder with {WEIGHTS} nor a preset to be had ({reason})") from None


def preset_tensors(backbone: Any) -> dict[str, np.ndarray]:
    """The tensors of a KerasHub BertBackbone under Hugging Face's names."""
    tensors: dict[str, np.ndarray] = {}
    for layer, prefix in _preset_names(backbone).items():
        for weight in layer.weights:
            tensors |= _from_keras_hub(prefix, weight.path.split("/")[-2:], weight.numpy())
    tensors["embeddings.word_embeddings.weight"] = backbone.token_embedding.embeddings.numpy()
    tensors["embeddings.position_embeddings.weight"] = backbone.position_embedding.position_embeddings.numpy()
    tensors["embeddings.token_type_embeddings.weight"] = backbone.segment_embedding.embeddings.numpy()
    return tensors


def lower_case(folder: Path) -> bool:
    """Whether the tokenizer of published weights makes lower case and takes accents away, as the uncased ones do.

    Without a tokenizer_config.json, or in one of a tokenizer of no kind that does not say it, whether no word of
    vocab.txt has a capital letter. Raises ValueError for a tokenizer that does otherwise than BERT's.
    """
    path = folder / "tokenizer_config.json"
    words = _text(folder / "vocab.txt").split("\n")
    plain = not any(w != w.lower() for w in words if not w.startswith("["))
    if not path.is_file():
        return plain
    config = _object(path)
    # BERT's own makes lower case where nothing is said; this class does as its tokenizer.json has it.
    usual = plain if config.get("tokenizer_class") == "PreTrainedTokenizerFast" else True
    lower = bool(config.get("do_lower_case", usual))
    known = {
        "strip_accents": (None, lower), "tokenize_chinese_chars": (True,), "tokenizer_class": (None, *TOKENIZERS),
    }  # fmt: skip
    for name, values in known.items():
        if config.get(name, values[0]) not in values:
            raise ValueError(f"{path}: {name} is {config[name]!r}, and BERT's tokenizer has {values[-1]!r}")
    return lower


def tokenizer_words(folder: Path) -> tuple[tuple[str, ...], bool]:
    """The words by id of published weights' tokenizer.json, and whether it makes small letters.

    Newer libraries write it without a vocab.txt. Raises ValueError where it is not BERT's.
    """
    path = folder / "tokenizer.json"
    told = _object(path)
    model, normalizer = (told.get(part) or {} for part in ("model", "normalizer"))
    words = model.get("vocab")
    if model.get("type", "WordPiece") != "WordPiece" or not isinstance(words, dict):
        raise ValueError(f"{path}: not of WordPieces, as BERT's is")
    if sorted(words.values()) != list(range(len(words))):
        raise ValueError(f"{path}: its words have not each an id, from 0 on")
    added = [one["content"] for one in told.get("added_tokens") or () if one["id"] >= len(words)]
    if added:
        raise ValueError(f"{path}: has added tokens ({added[0]!r}), which are not read")
    lower = bool(normalizer.get("lowercase", True))
    known = {"type": ("BertNormalizer",), "strip_accents": (None, lower), "handle_chinese_chars": (True,)}
    for name, values in known.items():
        if normalizer.get(name, None if name == "type" else values[0]) not in values:
            raise ValueError(f"{path}: {name} is {normalizer.get(name)!r}, and BERT's tokenizer has {values[-1]!r}")
    return tuple(sorted(words, key=words.__getitem__)), lower


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: not a JSON object")
    return found


def _config(path: Path) -> dict[str, Any]:
    config = _object(path)
    if config.get("model_type", "bert") != "bert":  # the first to be published do not say it
        raise ValueError(f"{path}: model_type is {config.get('model_type')!r}, and only 'bert' is read")
    for key in (*LAYERS, "vocab_size", "max_position_embeddings"):
        if not isinstance(config.get(key), int):
            raise ValueError(f"{path}: {key} is {config.get(key)!r}, not a whole number")
    wanted = {"hidden_act": ("gelu", "gelu_new"), "layer_norm_eps": (EPSILON,)}
    wanted["position_embedding_type"] = ("absolute",)
    for key, values in wanted.items():
        if config.get(key, values[0]) not in values:
            raise ValueError(f"{path}: {key} is {config[key]!r}, and bert has {values[0]!r}")
    return config


def _size(origin: str | Path, depth: int, width: int, heads: int, feed_forward: int) -> str:
    names = [name for name, sizes in SIZES.items() if sizes == (depth, width, heads) and feed_forward == 4 * width]
    if not names:
        found = f"{depth} layers, {width} wide, {heads} heads, feed-forward {feed_forward}"
        raise ValueError(f"{origin}: {found}; BERT is published as {SIZES}, feed-forward four times as wide")
    return names[0]


def _backbone_size(name: str, backbone: Any) -> str:
    return _size(name, backbone.num_layers, backbone.hidden_dim, backbone.num_heads, backbone.intermediate_dim)


def _check_size(model: keras.Model, origin: str | Path, size: str) -> None:
    if model.name not in (f"bert_{size}", f"bert_mlm_{size}"):
        raise ValueError(f"{origin}: weights of size {size!r}, the model is {model.name!r}")


def _read(path: Path) -> dict[str, np.ndarray]:
    """The tensors by their names of today, without a prefix."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        tensors = load_file(path)
    except (SafetensorError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: not a safetensors file of 16- or 32-bit floats, or damaged ({error})") from None
    marker = "embeddings.word_embeddings.weight"
    prefix = next((p for p in PREFIXES if p + marker in tensors), "")
    renamed = {}
    for name, tensor in tensors.items():
        for old, new in OLD_NAMES.items():
            name = name.replace(old, new)
        renamed[name.removeprefix(prefix)] = tensor
    return renamed


def _tensor_names(model: keras.Model) -> dict[str, list[str]]:
    """From our layers' names to the file's tensors; three stand behind a fused projection's kernel, and its bias."""
    ours = {layer.name for layer in model.layers}
    names = {
        "embedding": ["embeddings.word_embeddings.weight"],
        "positions": ["embeddings.position_embeddings.weight"],
        "token_type": ["embeddings.token_type_embeddings.weight"],
        "stem_norm": _both("embeddings.LayerNorm"),
        "features": _both("pooler.dense"),
        "mlm_dense": _both("cls.predictions.transform.dense"),
        "mlm_norm": _both("cls.predictions.transform.LayerNorm"),
        "mlm_logits": ["cls.predictions.bias"],
    }
    stage = 1
    while f"stage{stage}" in ours:
        theirs, attention = f"encoder.layer.{stage - 1}", f"stage{stage}_attention"
        heads = [f"{theirs}.attention.self.{part}" for part in ("query", "key", "value")]
        fused = [f"{head}.{kind}" for kind in ("weight", "bias") for head in heads]
        names |= {
            f"{attention}_query_key_value": fused,
            f"{attention}_output": _both(f"{theirs}.attention.output.dense"),
        }
        names[f"{attention}_norm"] = _both(f"{theirs}.attention.output.LayerNorm")
        names[f"stage{stage}_feed_forward_1"] = _both(f"{theirs}.intermediate.dense")
        names[f"stage{stage}_feed_forward_2"] = _both(f"{theirs}.output.dense")
        names[f"stage{stage}"] = _both(f"{theirs}.output.LayerNorm")
        stage += 1
    weighted = {layer.name for layer in model.layers if layer.weights}
    return {name: parts for name, parts in names.items() if name in weighted}


def _both(name: str) -> list[str]:
    return [f"{name}.weight", f"{name}.bias"]


def _set(layer: keras.Layer, tensors: list[np.ndarray], origin: str | Path) -> None:
    """Sets a layer's weights; the file keeps kernels as (outputs, inputs)."""
    if isinstance(layer, keras.layers.Dense):
        half = len(tensors) // 2
        tensors = [np.concatenate(tensors[:half]).T, np.concatenate(tensors[half:])]
    elif layer.name == "positions":
        tensors = [tensors[0][: layer.weights[0].shape[0]]]
    elif layer.name in ("embedding", "mlm_logits"):
        # Some files are filled up with rows of no word.
        words = layer.weights[0].shape[0]
        tensors = [tensors[0][:words] if words <= len(tensors[0]) < words + FILLED_UP else tensors[0]]
    shapes, found = [tuple(w.shape) for w in layer.weights], [tensor.shape for tensor in tensors]
    if shapes != found:
        raise ValueError(f"{origin}: layer {layer.name} is of shapes {shapes} in the model, {found} in the file")
    layer.set_weights(tensors)


def _preset_names(backbone: keras.Model) -> dict[keras.Layer, str]:
    """KerasHub's layers, and the beginning of their tensors' names."""
    names = {backbone.embeddings_layer_norm: "embeddings.LayerNorm", backbone.pooled_dense: "pooler.dense"}
    return names | {layer: f"encoder.layer.{i}" for i, layer in enumerate(backbone.transformer_layers)}


def _from_keras_hub(prefix: str, path: list[str], tensor: np.ndarray) -> dict[str, np.ndarray]:
    """One weight, whose path ends in (sublayer, variable), under Hugging Face's name and in its orientation."""
    sublayers = {
        "query": ".attention.self.query",
        "key": ".attention.self.key",
        "value": ".attention.self.value",
        "attention_output": ".attention.output.dense",
        "self_attention_layer_norm": ".attention.output.LayerNorm",
        "feedforward_intermediate_dense": ".intermediate.dense",
        "feedforward_output_dense": ".output.dense",
        "feedforward_layer_norm": ".output.LayerNorm",
    }
    sublayer, variable = path
    if variable == "kernel":
        inputs = tensor.shape[0] * tensor.shape[1] if sublayer == "attention_output" else tensor.shape[0]
        tensor = tensor.reshape(inputs, -1).T
    elif variable == "bias":
        tensor = tensor.reshape(-1)
    kind = "weight" if variable in ("kernel", "gamma") else "bias"
    return {f"{prefix}{sublayers.get(sublayer, '')}.{kind}": tensor}
