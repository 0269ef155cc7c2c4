"""Models that compute in float32, whatever they were trained in."""

from typing import Any

import keras

from bigkeras.models.pretrained import renew_constants
from bigkeras.parity import ExportError

LOW_PRECISIONS = ("bfloat16", "float16", "mixed_bfloat16", "mixed_float16")


def in_float32(model: keras.Model) -> keras.Model:
    """`model` itself if all of it computes in float32, else the same layers and weights in float32.

    Its recurrent layers do without NVIDIA's kernels, which would stand in the graph and run on no other device: from
    then on those of `model` itself, too.
    """
    config = model.get_config()
    plain_config = _float32_config(config)
    if plain_config == config:
        return _without_cudnn(model)
    plain = type(model).from_config(plain_config)
    if [(w.path, w.shape) for w in plain.weights] != [(w.path, w.shape) for w in model.weights]:
        raise ExportError(f"model {model.name}: its float32 twin has other weights; is a layer's get_config complete?")
    plain.set_weights(model.get_weights())
    renew_constants(plain)
    return _without_cudnn(plain)


def _without_cudnn(model: keras.Model) -> keras.Model:
    for layer in model._flatten_layers():
        if hasattr(layer, "use_cudnn"):
            layer.use_cudnn = False
    return model


def _float32_config(value: Any, key: str = "") -> Any:
    """A Keras configuration with every dtype policy and every dtype of low precision made float32."""
    if isinstance(value, dict):
        if value.get("class_name") == "DTypePolicy" and value["config"]["name"] in LOW_PRECISIONS:
            return {**value, "config": {"name": "float32"}}
        return {k: _float32_config(v, k) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_float32_config(item) for item in value)
    return "float32" if key == "dtype" and value in LOW_PRECISIONS else value
