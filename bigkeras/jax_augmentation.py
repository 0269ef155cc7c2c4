"""The augmentation inside the step on Keras' JAX backend: Keras' layers, as functions of the seed and the step."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from bigkeras.tasks.augmentation import applied
from bigkeras.tasks.images import ImagePreprocessor

DRAWS = 256  # at most so many random numbers does a layer draw in a step


def augmenter(layers: Sequence[keras.layers.Layer], preprocessor: ImagePreprocessor, num_classes: int) -> Callable:
    """A function of a batch's pixels, one-hot labels, weights and the number of steps before it, to inside the step.

    It gives the pixels as the model takes them, and the labels. What the layers draw follows from their seeds and the
    number, so there is no state to keep. On JAX, a layer's own would have to go through the step and its checkpoints.
    """
    mean = np.array(preprocessor.mean, "float32") * 255
    scale = 1 / (np.array(preprocessor.std, "float32") * 255)
    # Some layers make what they hold when they first see a batch.
    applied(layers, np.zeros((2, *preprocessor.shape), "float32"), np.eye(2, num_classes, dtype="float32"), np.ones(2))
    inner = [one for layer in layers for one in layer._flatten_layers() if hasattr(one, "generator")]
    seeds = [(one.generator.state, np.array(one.generator.state)[0]) for one in inner]

    def augment(pixels: Any, targets: Any, weights: Any, step: Any) -> tuple[Any, Any]:
        places = [(state, ops.stack([ops.cast(n, state.dtype) for n in (seed, step * DRAWS)])) for state, seed in seeds]
        with keras.StatelessScope(state_mapping=places):
            pixels, targets = applied(layers, ops.cast(pixels, "float32"), targets, weights)
        # As the preprocessor does it, whose operations are TensorFlow's.
        return (ops.cast(pixels, "float32") - mean) * scale, targets

    return augment
