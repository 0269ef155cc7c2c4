"""Where a token stands in its sequence: sinusoids, learned vectors, rotations."""

import keras
from keras import ops

# The longest wavelength of sinusoids and rotations is 2π times this.
LONGEST = 10_000.0


@keras.saving.register_keras_serializable(package="bigkeras")
class SinusoidalPositions(keras.layers.Layer):
    """Adds sines and cosines of the position: `(batch, length, width)` → the same, for any length and an even width.

    The first half of the width holds the sines, the second the cosines, as in the authors' code; the paper's text
    interleaves them, which a dense layer cannot tell apart. Keras has no such layer.
    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.5.
    """

    def build(self, input_shape) -> None:
        """Refuses an odd width."""
        if input_shape[-1] % 2:
            raise ValueError(f"width={input_shape[-1]}: sinusoidal positions need an even one")
        self.built = True

    def compute_mask(self, inputs, previous_mask):
        """The tokens' own."""
        return previous_mask

    def call(self, inputs, start=0):
        """`start`: the position of the first token, or of each, int `(length,)`: for decoding step by step."""
        angles = _angles(ops.shape(inputs)[-2], inputs.shape[-1], start)
        return inputs + ops.cast(ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1), inputs.dtype)

    def compute_output_shape(self, input_shape) -> tuple:
        """The shape that `call` gives."""
        return input_shape


@keras.saving.register_keras_serializable(package="bigkeras")
class LearnedPositions(keras.layers.Layer):
    """Adds a trained vector to each of at most `length` positions: `(batch, length or less, width)` → the same.

    Keras has no such layer. Source: Gehring et al. 2017 (arXiv 1705.03122), section 3.1; BERT's and GPT's way.
    """

    def __init__(self, length: int, embeddings_initializer="uniform", **kwargs):
        super().__init__(**kwargs)
        if length < 1:
            raise ValueError(f"length={length}: at least 1")
        self.length = length
        self.supports_masking = True
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)

    def build(self, input_shape) -> None:
        """Makes the table `(length, width)`."""
        shape = (self.length, input_shape[-1])
        self.embeddings = self.add_weight(name="embeddings", shape=shape, initializer=self.embeddings_initializer)

    def call(self, inputs, start=0):
        """`start`: the position of the first token, or of each, int `(length,)`: for decoding step by step."""
        positions = _positions(ops.shape(inputs)[-2], start)
        return inputs + ops.take(ops.convert_to_tensor(self.embeddings), positions, axis=0)

    def compute_output_shape(self, input_shape) -> tuple:
        """The shape that `call` gives."""
        return input_shape

    def get_config(self) -> dict:
        """The constructor's arguments."""
        initializer = keras.initializers.serialize(self.embeddings_initializer)
        return {**super().get_config(), "length": self.length, "embeddings_initializer": initializer}


def rotate(x, start=0):
    """Turns each pair of numbers of `(batch, heads, length, d)`, d even, by an angle that grows with the position.

    The product of two such vectors then depends on how far apart they stand. Number i is paired with number i + d/2.
    `start`: the position of the first vector, or of each, int `(length,)`.
    Source: Su et al. 2021 (arXiv 2104.09864), section 3.2.
    """
    angles = _angles(ops.shape(x)[-2], x.shape[-1], start)
    cos, sin = (ops.cast(function(angles), x.dtype) for function in (ops.cos, ops.sin))
    first, second = ops.split(x, 2, axis=-1)
    return ops.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _positions(length, start):
    """`start`, `start` + 1, … up to the length; or `start` itself, where it says the position of each."""
    return start if len(getattr(start, "shape", ())) == 1 else ops.arange(length, dtype="int32") + start


def _angles(length, width: int, start):
    """`(length, width/2)` in float32, in every precision: 16 bits do not tell position 300 from 301."""
    positions = ops.cast(_positions(length, start), "float32")
    rates = LONGEST ** (-2.0 * ops.arange(width // 2, dtype="float32") / width)
    return positions[:, None] * rates
