"""A convolution over words themselves, without an embedding between, and what a model around it needs."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="bigkeras")
class OneHotConv1D(keras.layers.Layer):
    """Token ids int `(batch, length)` → `(batch, length, filters)`: a convolution over one-hot vectors, with ReLU.

    Every filter has a weight for each word at each of the window's places, so none has to be told by a word's
    embedding. It is computed as a sum of rows of a table, which costs no more than an embedding does. The output at
    place t looks at t … t + window - 1; what the mask leaves out, and what is behind the end, counts as zeros. Ids from
    `vocabulary_size` on are taken for 1, the unknown word.
    Source: Johnson & Zhang 2015 (arXiv 1412.1058), section 2.2, seq-CNN.
    """

    def __init__(self, vocabulary_size: int, filters: int, window: int, **kwargs):
        super().__init__(**kwargs)
        self.vocabulary_size, self.filters, self.window = vocabulary_size, filters, window

    def build(self, input_shape) -> None:
        """Makes the table `(vocabulary, window · filters)` and the bias `(filters,)`."""
        shape = (self.vocabulary_size, self.window * self.filters)
        start = keras.initializers.RandomNormal(stddev=0.05)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=start)
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def call(self, tokens, mask):
        """`mask`: bool `(batch, length)`."""
        known = ops.where(tokens < self.vocabulary_size, tokens, ops.ones_like(tokens))
        rows = ops.take(ops.cast(self.kernel, self.compute_dtype), known, axis=0)
        rows = rows * ops.cast(mask, rows.dtype)[..., None]
        rows = ops.pad(rows, [(0, 0), (0, self.window - 1), (0, 0)])
        length, total = ops.shape(tokens)[1], ops.cast(self.bias, rows.dtype)
        for place in range(self.window):
            columns = slice(place * self.filters, (place + 1) * self.filters)
            total = total + rows[:, place : place + length, columns]
        return ops.relu(total)

    def compute_mask(self, inputs, previous_mask) -> None:
        """None: masks are passed by hand."""

    def compute_output_shape(self, input_shape) -> tuple:
        """The shape that `call` gives."""
        return (*input_shape, self.filters)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        own = {"vocabulary_size": self.vocabulary_size, "filters": self.filters, "window": self.window}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="bigkeras")
class LeadingTokens(keras.layers.Layer):
    """Token ids int `(batch, length)` → `(batch, about length / ngrams)`: the tokens, without what follows them.

    Ids from `size` on are of n-grams of 2 … `ngrams` tokens, or of letters; they come last, become 0, padding, and are
    cut off as far as the length alone tells: n tokens have at least `ngrams` · n - `ngrams` (`ngrams` - 1) / 2 ids in
    all; nor has a text more than `longest`, if that is not None.
    """

    def __init__(self, size: int, ngrams: int = 1, longest: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.size, self.ngrams, self.longest = size, ngrams, longest

    def call(self, tokens):
        """Gives the ids."""
        tokens = tokens[:, : ops.shape(tokens)[1] // self.ngrams + self.ngrams // 2 + 1][:, : self.longest]
        return ops.where(tokens < self.size, tokens, ops.zeros_like(tokens))

    def compute_output_spec(self, tokens):
        """Of the type of the tokens."""
        return keras.KerasTensor((tokens.shape[0], None), dtype=tokens.dtype)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "size": self.size, "ngrams": self.ngrams, "longest": self.longest}


@keras.saving.register_keras_serializable(package="bigkeras")
class EitherOrBoth(keras.layers.Layer):
    """The sum of two logits `(batch, classes)`; in training, for a third of the examples each, one of them alone.

    Each part so has to answer alone, and both together are right about how sure they are.
    Source: Neverova et al. 2014 (arXiv 1501.00102), section 4.3, ModDrop.
    """

    def __init__(self, seed: int | None = None, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=False):
        """`inputs`: a pair of logits."""
        first, second = inputs
        if not training:
            return first + second
        chance = keras.random.uniform((ops.shape(first)[0], 1), dtype=first.dtype, seed=self.generator)
        nothing = ops.zeros_like(first)
        return ops.where(chance < 1 / 3, nothing, first) + ops.where(chance > 2 / 3, nothing, second)

    def compute_output_shape(self, input_shape) -> tuple:
        """That of each."""
        return input_shape[0]

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "seed": self.seed}
