"""Layers that know padding where the stock ones do not, and the vector that stands for a whole sequence."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="bigkeras")
class PaddingMask(keras.layers.Layer):
    """Token ids int `(batch, length)` → bool `(batch, length)`: True where the id is not 0, and at the first place.

    So an empty text is one token of padding: every mean, maximum and softmax has something to take, and cuDNN, which
    refuses a sequence of no steps, takes it too.
    """

    def call(self, tokens):
        """Gives the mask."""
        first = ops.arange(ops.shape(tokens)[-1]) == 0
        return ops.logical_or(ops.not_equal(tokens, 0), first)

    def compute_output_spec(self, tokens):
        """Bool, of the shape of the tokens."""
        return keras.KerasTensor(tokens.shape, dtype="bool")


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

    def compute_mask(self, inputs, previous_mask) -> None:
        """None: one vector has no padding."""

    def compute_output_shape(self, input_shape) -> tuple:
        """The shape that `call` gives."""
        return (input_shape[0], input_shape[2])


@keras.saving.register_keras_serializable(package="bigkeras")
class ZeroPadded(keras.layers.Layer):
    """Zeros where the mask says padding, so that a convolution sees none of it: `(batch, length, width)` both ways."""

    def call(self, inputs, mask):
        """`mask`: bool `(batch, length)`."""
        return inputs * ops.cast(mask, inputs.dtype)[..., None]

    def compute_mask(self, inputs, previous_mask) -> None:
        """None: masks are passed by hand."""


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

    def compute_mask(self, inputs, previous_mask) -> None:
        """None: masks are passed by hand."""


@keras.saving.register_keras_serializable(package="bigkeras")
class FirstToken(keras.layers.Layer):
    """The first vector of each sequence: `(batch, length, width)` → `(batch, width)`."""

    def call(self, inputs):
        """Gives the vector at place 0."""
        return inputs[:, 0]

    def compute_output_shape(self, input_shape) -> tuple:
        """The shape that `call` gives."""
        return (input_shape[0], input_shape[2])


@keras.saving.register_keras_serializable(package="bigkeras")
class GatherPlaces(keras.layers.Layer):
    """The vectors at the given places: `(batch, length, width)` and int `(batch, n)` → `(batch, n, width)`."""

    def call(self, inputs, places):
        """`places` are from 0 to below the length."""
        batch, length, width = ops.shape(inputs)[0], ops.shape(inputs)[1], inputs.shape[-1]
        rows = ops.arange(batch, dtype="int32")[:, None] * length
        return ops.take(ops.reshape(inputs, (-1, width)), ops.cast(places, "int32") + rows, axis=0)


@keras.saving.register_keras_serializable(package="bigkeras")
class TokenType(keras.layers.Layer):
    """Adds the trained vector of token type 0 to every token: `(batch, length, width)` → the same.

    BERT tells the two texts of a pair apart by types 0 and 1; a single text is of type 0 throughout. The table holds
    both rows, as published weights do. Source: Devlin et al. 2018 (arXiv 1810.04805), section 3.
    """

    def __init__(self, embeddings_initializer="uniform", **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)

    def build(self, input_shape) -> None:
        """Makes the table `(2, width)`."""
        shape = (2, input_shape[-1])
        self.embeddings = self.add_weight(name="embeddings", shape=shape, initializer=self.embeddings_initializer)

    def call(self, inputs):
        """Adds the first row."""
        return inputs + ops.cast(self.embeddings[0], inputs.dtype)

    def compute_output_shape(self, input_shape) -> tuple:
        """The shape that `call` gives."""
        return input_shape

    def get_config(self) -> dict:
        """The constructor's arguments."""
        initializer = keras.initializers.serialize(self.embeddings_initializer)
        return {**super().get_config(), "embeddings_initializer": initializer}
