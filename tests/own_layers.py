"""Layers of one's own, in a module of their own."""

import keras

print("as some modules do")


@keras.saving.register_keras_serializable(package="tests")
class Doubting(keras.layers.Layer):
    """In training the second half of a batch is answered another way, as dropout would, but by no chance."""

    def call(self, x, training=False):
        """Of the shape of `x`."""
        places = keras.ops.arange(keras.ops.shape(x)[0])[:, None]
        return keras.ops.where(places * 2 < keras.ops.shape(x)[0], x, 0.5 * x + 0.1) if training else x


@keras.saving.register_keras_serializable(package="tests")
def tilted(x):
    """An activation of one's own."""
    return keras.ops.maximum(x, 0.1 * x)


@keras.saving.register_keras_serializable(package="tests")
class Slanted(keras.initializers.Constant):
    """An initialiser of one's own."""
