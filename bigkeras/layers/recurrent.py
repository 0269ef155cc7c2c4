"""An LSTM that trains quicker on a CPU: its gradient is written out, and its loops are compiled; single steps."""

import functools

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="bigkeras")
class LSTM(keras.layers.LSTM):
    """The stock layer, with its weights, arguments, masks and numbers.

    In training on TensorFlow without a GPU the steps run as two compiled loops, forward and back, and what does not
    depend on the last step is one matmul for all of them: the inputs' projections and the gradients of the weights.
    On a GPU the stock layer takes cuDNN. Source of the gradient: Greff et al. 2015 (arXiv 1503.04069), section 2.B.
    """

    def inner_loop(self, sequences, initial_state, mask, training=False):
        """Gives (last output, outputs `(batch, length, units)`, final states), as the stock layer does."""
        if not (training and self._plain() and _compiles(sequences)):
            return super().inner_loop(sequences, initial_state, mask, training=training)
        if mask is not None:
            mask = ops.transpose(mask)[..., None]
        sequences = ops.transpose(sequences, (1, 0, 2))
        if self.go_backwards:
            sequences, mask = ops.flip(sequences, 0), mask if mask is None else ops.flip(mask, 0)
        weights = (self.cell.kernel, self.cell.recurrent_kernel, self.cell.bias)
        weights = [ops.cast(weight, sequences.dtype) for weight in weights]
        state = [ops.cast(part, sequences.dtype) for part in initial_state]
        outputs, hidden, memory = _differentiable(mask is not None)(sequences, *weights, *state, mask)
        return hidden, ops.transpose(outputs, (1, 0, 2)), [hidden, memory]

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


def _compiles(sequences) -> bool:
    """On TensorFlow, without GPU or TPU, in one replica: two of them on one CPU refuse XLA."""
    if keras.backend.backend() != "tensorflow" or isinstance(sequences, keras.KerasTensor):
        return False
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    alone = context is not None and context.num_replicas_in_sync == 1
    return alone and not tf.config.list_physical_devices("GPU") and not tf.config.list_physical_devices("TPU")


@functools.cache
def _differentiable(masked: bool):
    """(inputs, kernel, recurrent kernel, bias, hidden, memory, mask) → (outputs, last hidden, last memory)."""
    import tensorflow as tf

    forward = tf.function(_forward, jit_compile=True, autograph=False)
    backward = tf.function(_backward, jit_compile=True, autograph=False)

    def lstm(inputs, kernel, recurrent, bias, hidden, memory, mask):
        @tf.custom_gradient
        def run(inputs, kernel, recurrent, bias, hidden, memory):
            gates, memories, outputs = forward(inputs, kernel, recurrent, bias, hidden, memory, mask)

            def gradient(*upstream):
                before = (hidden, memory)
                return backward(inputs, kernel, recurrent, before, gates, memories, outputs, mask, upstream)

            return (outputs, outputs[-1], memories[-1]), gradient

        return run(inputs, kernel, recurrent, bias, hidden, memory)

    return lstm


def _forward(inputs, kernel, recurrent, bias, hidden, memory, mask):
    """Gates `(length, batch, 4 · units)`, memories and outputs `(length, batch, units)`, all after each step."""
    import tensorflow as tf

    projected = tf.tensordot(inputs, kernel, 1) + bias
    length = tf.shape(inputs)[0]
    arrays = [tf.TensorArray(inputs.dtype, length) for _ in range(3)]

    def step(time, hidden, memory, gates, memories, outputs):
        parts = tf.split(projected[time] + tf.matmul(hidden, recurrent), 4, axis=-1)
        i, f, o = (tf.sigmoid(parts[gate]) for gate in (0, 1, 3))
        candidate = tf.tanh(parts[2])
        new_memory = f * memory + i * candidate
        new_hidden = o * tf.tanh(new_memory)
        if mask is not None:
            new_memory = tf.where(mask[time], new_memory, memory)
            new_hidden = tf.where(mask[time], new_hidden, hidden)
        gates = gates.write(time, tf.concat([i, f, candidate, o], -1))
        return (
            time + 1,
            new_hidden,
            new_memory,
            gates,
            memories.write(time, new_memory),
            outputs.write(time, new_hidden),
        )

    arrays = tf.while_loop(lambda time, *_: time < length, step, (0, hidden, memory, *arrays))[3:]
    return tuple(array.stack() for array in arrays)


def _backward(inputs, kernel, recurrent, before, gates, memories, outputs, mask, upstream):
    """The gradients of inputs, kernel, recurrent kernel, bias, first hidden state and first memory."""
    import tensorflow as tf

    to_outputs, to_hidden, to_memory = upstream
    length = tf.shape(inputs)[0]
    earlier_memories = tf.concat([before[1][None], memories[:-1]], 0)
    earlier_outputs = tf.concat([before[0][None], outputs[:-1]], 0)

    def step(time, to_hidden, to_memory, to_gates):
        i, f, candidate, o = tf.split(gates[time], 4, axis=-1)
        to_hidden = to_hidden + to_outputs[time]
        kept_hidden, kept_memory = tf.zeros_like(to_hidden), tf.zeros_like(to_memory)
        if mask is not None:
            # A step that does not count hands its gradient on.
            counts = tf.cast(mask[time], inputs.dtype)
            kept_hidden, kept_memory = to_hidden * (1 - counts), to_memory * (1 - counts)
            to_hidden, to_memory = to_hidden * counts, to_memory * counts
        squashed = tf.tanh(memories[time])
        to_memory = to_memory + to_hidden * o * (1 - squashed**2)
        parts = (
            to_memory * candidate * i * (1 - i),
            to_memory * earlier_memories[time] * f * (1 - f),
            to_memory * i * (1 - candidate**2),
            to_hidden * squashed * o * (1 - o),
        )
        to_sums = tf.concat(parts, -1)
        to_hidden = tf.matmul(to_sums, recurrent, transpose_b=True) + kept_hidden
        return time - 1, to_hidden, to_memory * f + kept_memory, to_gates.write(time, to_sums)

    start = (length - 1, to_hidden, to_memory, tf.TensorArray(inputs.dtype, length))
    _, to_hidden, to_memory, to_gates = tf.while_loop(lambda time, *_: time >= 0, step, start)
    to_gates = to_gates.stack()
    return (
        tf.tensordot(to_gates, tf.transpose(kernel), 1),
        tf.tensordot(inputs, to_gates, [[0, 1], [0, 1]]),
        tf.tensordot(earlier_outputs, to_gates, [[0, 1], [0, 1]]),
        tf.reduce_sum(to_gates, [0, 1]),
        to_hidden,
        to_memory,
    )
