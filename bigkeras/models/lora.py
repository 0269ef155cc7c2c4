"""Fine-tuning few weights: low-rank updates of dense layers, everything else as it was."""

from collections.abc import Collection

import keras
import numpy as np

from bigkeras.models.pretrained import renew_constants

# What the paper found to be enough, and the layers that every task starts anew.
ATTENTION = ("query_key_value", "query", "key_value", "output")
TRAINED = ("logits",)


def add_lora(
    model: keras.Model, rank: int, names: Collection[str] = ATTENTION, whole: Collection[str] = ()
) -> list[str]:
    """Freezes the model but for `logits`, and gives each chosen dense layer a trained update of `rank`.

    What is frozen before stays frozen, without an update.

    `names`: endings of layers' names, such as "query_key_value" (one update for the three projections) or
    "feed_forward_1". `whole`: layers that train like `logits`, as those must whose weights come from nowhere: a pooler
    that a language model lacks. Gives the names of the layers that were given one. The answers are the same until
    training; `merged` gives the model without them. Raises ValueError for a rank below 1, or where none is so named.
    Source: Hu et al. 2021 (arXiv 2106.09685), section 4.1; the layer's own `enable_lora`.
    """
    if rank < 1:
        raise ValueError(f"rank={rank}: at least 1")
    endings = tuple(f"_{name}" for name in names)
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense) and layer.name.endswith(endings)]
    if not dense:
        raise ValueError(f"no dense layer of {model.name} has a name that ends in one of {sorted(names)}")
    chosen = [layer for layer in dense if layer.trainable]
    if not chosen:
        raise ValueError("every layer that it would update is frozen")
    for layer in model.layers:
        if layer.trainable and layer not in chosen and layer.name not in (*TRAINED, *whole):
            layer.trainable = False
            layer.frozen_for_updates = True
    for layer in chosen:
        layer.enable_lora(rank)
        if layer.use_bias:
            layer.bias.trainable = False
    return [layer.name for layer in chosen]


def merged(model: keras.Model) -> keras.Model:
    """The functional model with its updates added to the kernels, as one that never had any; without, `model` itself.

    What `add_lora` froze is free again. So what is saved, exported or trained on has the weights of its recipe's model.
    """
    if not any(getattr(layer, "lora_enabled", False) for layer in model.layers):
        return model
    config = model.get_config()
    for layer in config["layers"]:
        layer["config"].pop("lora_rank", None)
    plain = type(model).from_config(config)
    for layer, twin in zip(model.layers, plain.layers, strict=True):
        updated = getattr(layer, "lora_enabled", False)
        twin.set_weights(_updated(layer) if updated else layer.get_weights())
        if getattr(layer, "frozen_for_updates", False):
            twin.trainable = True
    renew_constants(plain)
    return plain


def _updated(layer: keras.layers.Dense) -> list[np.ndarray]:
    """Kernel and bias with the update, in float32: the layer's own `kernel` is rounded to what it computes in."""
    kernel, first, second = map(
        keras.ops.convert_to_numpy, (layer.weights[0], layer.lora_kernel_a, layer.lora_kernel_b)
    )
    bias = [keras.ops.convert_to_numpy(layer.bias)] if layer.use_bias else []
    return [kernel + layer.lora_alpha / layer.lora_rank * (first @ second), *bias]
