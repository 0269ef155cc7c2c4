"""From a sequence to one vector, where the stock layers know no padding."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="bigkeras")
class MaskedMax(keras.layers.Layer):
    """The largest value of each channel over the places that the mask lets count.

    `(batch, length, width)` → `(batch, width)`. `keras.layers.GlobalMaxPooling1D` takes no mask; its neighbour for
    the mean does.
    """

    def call(self, inputs, mask=None):
        """`mask`: bool `(batch, length)`, at least one True in each row; None lets all count."""
        if mask is not None:
            lowest = ops.full_like(inputs, -3e4)  # float16 goes to 65,504
            inputs = ops.where(mask[..., None], inputs, lowest)
        return ops.max(inputs, axis=1)

    def compute_output_shape(self, input_shape) -> tuple:
        """The shape that `call` gives."""
        return (input_shape[0], input_shape[2])


@keras.saving.register_keras_serializable(package="bigkeras")
class ClassToken(keras.layers.Layer):
    """Puts a trained vector before every sequence: `(batch, length, width)` → `(batch, 1 + length, width)`.

    Given a mask `(batch, length)` too, it gives both, longer by one. Keras has no such layer.
    Source: Devlin et al. 2018 (arXiv 1810.04805), section 3, [CLS]; as a vector of its own: Dosovitskiy et al. 2020.
    """

    def build(self, input_shape) -> None:
        """Makes the vector."""
        start = keras.initializers.TruncatedNormal(stddev=0.02)
        self.vector = self.add_weight(name="vector", shape=(1, 1, input_shape[-1]), initializer=start)

    def call(self, inputs, mask=None):
        """Gives the longer sequence, or a pair with the longer mask."""
        vector = ops.convert_to_tensor(self.vector)
        first = ops.broadcast_to(vector, (ops.shape(inputs)[0], 1, inputs.shape[-1]))
        longer = ops.concatenate([ops.cast(first, inputs.dtype), inputs], axis=1)
        if mask is None:
            return longer
        return longer, ops.pad(mask, [(0, 0), (1, 0)], constant_values=True)
