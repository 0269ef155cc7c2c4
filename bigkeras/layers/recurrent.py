"""An LSTM that trains quicker on a CPU: its gradient is written out; single steps of recurrent layers."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="bigkeras")
class LSTM(keras.layers.LSTM):
    """The stock layer, with its weights, arguments, masks and numbers.

    In training on TensorFlow without a GPU the gradient is a loop of its own, and what does not depend on the step
    before is one matmul for all steps: the inputs' projections and the gradients of the weights. Two layers of 256 at
    batch 64, length 200, two cores: 0.62 of the stock layer's time. Loops compiled by XLA take a tenth less in float32,
    three times as long in bfloat16. On a GPU the stock layer takes cuDNN. Source of the gradient: Greff et al. 2015
    (arXiv 1503.04069), section 2.B.
    """

    def inner_loop(self, sequences, initial_state, mask, training=False):
        """Gives (last output, outputs `(batch, length, units)`, final states), as the stock layer does."""
        if not (training and self._plain() and _tensorflow_on_cpu()):
            return super().inner_loop(sequences, initial_state, mask, training=training)
        if mask is not None:
            mask = ops.cast(ops.transpose(mask)[..., None], "bool")
        sequences = ops.transpose(sequences, (1, 0, 2))
        if self.go_backwards:
            sequences, mask = ops.flip(sequences, 0), mask if mask is None else ops.flip(mask, 0)
        weights = (self.cell.kernel, self.cell.recurrent_kernel, self.cell.bias)
        weights = [ops.cast(weight, sequences.dtype) for weight in weights]
        state = [ops.cast(part, sequences.dtype) for part in initial_state]
        outputs, hidden, memory = _lstm(sequences, *weights, *state, mask)
        last = hidden
        if mask is not None:
            # Before the first step that counts the stock layer gives zeros, and no first state; inside Bidirectional
            # at every step that does not count. The states stay.
            told = mask if self.zero_output_for_mask else ops.cumsum(ops.cast(mask, "int32"), 0) > 0
            outputs = ops.where(told, outputs, ops.zeros_like(outputs))
            last = outputs[-1]
        return last, ops.transpose(outputs, (1, 0, 2)), [hidden, memory]

    def _plain(self) -> bool:
        """Whether the cell is the one whose gradient is written out here."""
        usual = self.activation is keras.activations.tanh and self.recurrent_activation is keras.activations.sigmoid
        return usual and self.use_bias and not (self.dropout or self.recurrent_dropout or self.unroll)


@keras.saving.register_keras_serializable(package="bigkeras")
class RecurrentStep(keras.layers.Layer):
    """One step of a recurrent layer, by its own cell, for several sequences side by side."""

    def __init__(self, cell: keras.layers.Layer, **kwargs):
        super().__init__(**kwargs)
        self.cell = cell

    def call(self, inputs, states):
        """Gives the output and the new states: all `(batch, beams, …)`, as are the inputs and the list of states."""
        beams = ops.shape(inputs)[:2]
        inputs, *states = (ops.reshape(x, (-1, x.shape[-1])) for x in (inputs, *states))
        output, states = self.cell(inputs, states, training=False)
        return tuple(ops.reshape(x, (*beams, x.shape[-1])) for x in (output, *states))

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "cell": keras.saving.serialize_keras_object(self.cell)}

    @classmethod
    def from_config(cls, config: dict) -> "RecurrentStep":
        """The layer, with a new cell."""
        return cls(**{**config, "cell": keras.saving.deserialize_keras_object(config["cell"])})


@keras.saving.register_keras_serializable(package="bigkeras")
class RowsAtOnce(keras.layers.Layer):
    """A layer of `(rows, width)`, such as Dense, on `(batch, beams, width)`: one product of matrices.

    A product of rank 3 costs a TensorFlow graph a dozen small operations more, which ask for shapes: they are a quarter
    of all in a search.
    """

    def __init__(self, layer: keras.layers.Layer, **kwargs):
        super().__init__(**kwargs)
        self.layer = layer

    def call(self, inputs, kernel=None, **kwargs):
        """Gives what the layer gives for each row, `(batch, beams, any)`; further arguments are the layer's.

        With a `kernel` it is the rows' product with that: embeddings that were transposed before.
        """
        rows = ops.reshape(inputs, (-1, inputs.shape[-1]))
        outputs = self.layer(rows, **kwargs) if kernel is None else ops.matmul(rows, kernel)
        return ops.reshape(outputs, (-1, ops.shape(inputs)[1], outputs.shape[-1]))

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "layer": keras.saving.serialize_keras_object(self.layer)}

    @classmethod
    def from_config(cls, config: dict) -> "RowsAtOnce":
        """The layer, over a new one."""
        return cls(**{**config, "layer": keras.saving.deserialize_keras_object(config["layer"])})


def _tensorflow_on_cpu() -> bool:
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU") and not tf.config.list_physical_devices("TPU")


def _lstm(inputs, kernel, recurrent, bias, hidden, memory, mask):
    """Gives the outputs `(length, batch, units)` and the last hidden state and memory, `(batch, units)`.

    `inputs`: `(length, batch, width)`; `mask`: bool `(length, batch, 1)` or None. Kernels and bias as Keras has them:
    input, forget, candidate, output. The operations of one step are too small to be shared between cores: TensorFlow
    runs the loops over the two halves of the batch side by side instead.
    """
    import tensorflow as tf

    # The three sigmoids side by side are one operation in each step instead of three.
    weights = [_reordered(part) for part in (kernel, recurrent, bias)]
    rows = hidden.shape[0] or tf.shape(hidden)[0]
    sizes = [rows // 2, rows - rows // 2]
    masks = [None, None] if mask is None else tf.split(mask, sizes, 1)
    halves = zip(tf.split(inputs, sizes, 1), tf.split(hidden, sizes), tf.split(memory, sizes), masks, strict=True)
    results = [_loop(inputs, *weights, hidden, memory, mask) for inputs, hidden, memory, mask in halves]
    outputs, hidden, memory = zip(*results, strict=True)
    return tf.concat(outputs, 1), tf.concat(hidden, 0), tf.concat(memory, 0)


def _loop(inputs, kernel, recurrent, bias, hidden, memory, mask):
    """As `_lstm`, for some rows of the batch and weights that are `_reordered`."""
    import tensorflow as tf

    @tf.custom_gradient
    def run(inputs, kernel, recurrent, bias, hidden, memory):
        saved = _forward(inputs, kernel, recurrent, bias, hidden, memory, mask)
        outputs, memories = saved[-2:]

        def gradient(*upstream):
            return _backward(inputs, kernel, recurrent, (hidden, memory), *saved, mask, upstream)

        return (outputs, outputs[-1], memories[-1]), gradient

    return run(inputs, kernel, recurrent, bias, hidden, memory)


def _reordered(weights):
    """From (input, forget, candidate, output) to (input, forget, output, candidate), along the last axis."""
    i, f, candidate, o = ops.split(weights, 4, axis=-1)
    return ops.concatenate([i, f, o, candidate], axis=-1)


def _forward(inputs, kernel, recurrent, bias, hidden, memory, mask):
    """After each step: the gates `(length, batch, 3 · units)`, candidates, outputs and memories, `units` wide each."""
    import tensorflow as tf

    projected = tf.tensordot(inputs, kernel, 1) + bias
    length, units = tf.shape(inputs)[0], recurrent.shape[0]
    arrays = [tf.TensorArray(inputs.dtype, length) for _ in range(4)]

    def step(time, hidden, memory, *arrays):
        gates, candidate = tf.split(projected[time] + tf.matmul(hidden, recurrent), [3 * units, units], axis=-1)
        gates, candidate = tf.sigmoid(gates), tf.tanh(candidate)
        i, f, o = tf.split(gates, 3, axis=-1)
        new_memory = f * memory + i * candidate
        new_hidden = o * tf.tanh(new_memory)
        if mask is not None:
            new_memory = tf.where(mask[time], new_memory, memory)
            new_hidden = tf.where(mask[time], new_hidden, hidden)
        values = (gates, candidate, new_hidden, new_memory)
        written = [array.write(time, value) for array, value in zip(arrays, values, strict=True)]
        return (time + 1, new_hidden, new_memory, *written)

    arrays = tf.while_loop(lambda time, *_: time < length, step, (0, hidden, memory, *arrays))[3:]
    return tuple(array.stack() for array in arrays)


def _backward(inputs, kernel, recurrent, before, gates, candidates, outputs, memories, mask, upstream):
    """The gradients of inputs, kernel, recurrent kernel, bias, first hidden state and first memory."""
    import tensorflow as tf

    to_outputs, to_hidden, to_memory = upstream
    length = tf.shape(inputs)[0]
    earlier_outputs, earlier_memories = (
        tf.concat([first[None], later[:-1]], 0) for first, later in zip(before, (outputs, memories), strict=True)
    )
    transposed = tf.transpose(recurrent)

    def step(time, to_hidden, to_memory, to_sums):
        to_hidden = to_hidden + to_outputs[time]
        kept_hidden = kept_memory = None
        if mask is not None:
            # A step that does not count hands its gradient on.
            counts = tf.cast(mask[time], inputs.dtype)
            kept_hidden, kept_memory = to_hidden * (1 - counts), to_memory * (1 - counts)
            to_hidden, to_memory = to_hidden * counts, to_memory * counts
        i, f, o = tf.split(gates[time], 3, axis=-1)
        candidate, squashed = candidates[time], tf.tanh(memories[time])
        to_memory = to_memory + tf.raw_ops.TanhGrad(y=squashed, dy=to_hidden * o)
        to_gates = tf.concat([to_memory * candidate, to_memory * earlier_memories[time], to_hidden * squashed], -1)
        to_gates = tf.raw_ops.SigmoidGrad(y=gates[time], dy=to_gates)
        to_sum = tf.concat([to_gates, tf.raw_ops.TanhGrad(y=candidate, dy=to_memory * i)], -1)
        to_hidden, to_memory = tf.matmul(to_sum, transposed), to_memory * f
        if mask is not None:
            to_hidden, to_memory = to_hidden + kept_hidden, to_memory + kept_memory
        return time - 1, to_hidden, to_memory, to_sums.write(time, to_sum)

    start = (length - 1, to_hidden, to_memory, tf.TensorArray(inputs.dtype, length))
    _, to_hidden, to_memory, to_sums = tf.while_loop(lambda time, *_: time >= 0, step, start)
    to_sums = to_sums.stack()
    return (
        tf.tensordot(to_sums, tf.transpose(kernel), 1),
        tf.tensordot(inputs, to_sums, [[0, 1], [0, 1]]),
        tf.tensordot(earlier_outputs, to_sums, [[0, 1], [0, 1]]),
        tf.reduce_sum(to_sums, [0, 1]),
        to_hidden,
        to_memory,
    )
