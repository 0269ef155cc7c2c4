"""Batch normalisation that is one kernel on TensorFlow, and synchronised over the replicas."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import keras

# Keras' 0.99 needs thousands of steps before the moving statistics mean anything; 0.9 needs dozens.
MOMENTUM = 0.9

# TensorFlow's fused kernel (cuDNN) takes no smaller epsilon: it would silently use this one.
SMALLEST_FUSED_EPSILON = 1.001e-5

_waits: ContextVar[list[Any] | None] = ContextVar("waits", default=None)


@contextlib.contextmanager
def noted_waits(waits: list[Any] | None) -> Iterator[None]:
    """Inside, what is traced adds to `waits` how long each exchange of statistics takes, in s; None: it does not."""
    token = _waits.set(waits)
    try:
        yield
    finally:
        _waits.reset(token)


@keras.saving.register_keras_serializable(package="bigkeras")
class BatchNorm(keras.layers.BatchNormalization):
    """Normalises each channel over the batch, as the stock layer does, with the same numbers.

    The stock layer computes mean, variance and the scaled difference in separate passes, in float32: on ResNet-20 on a
    CPU the fused kernel took 24 % off a step in float32 and 42 % in bfloat16, and in inference a quarter off ResNet-20
    and EfficientNet-Lite0 beside a product and a sum (334 → 259 ms, 790 → 591 ms). It is used for inputs
    `(batch, height, width, channels)` on the TensorFlow backend; anything else takes the stock way. Under a
    `tf.distribute` strategy of several replicas the statistics are those of the whole batch, exchanged once a layer
    forwards and once backwards; the stock layer exchanges five times, a few numbers each.
    Arguments are those of the stock layer, but `momentum` is 0.9 and `synchronized` is decided here.
    Source: Ioffe & Szegedy 2015 (arXiv 1502.03167), section 3.
    """

    def __init__(self, momentum: float = MOMENTUM, **kwargs):
        # In a single replica the synchronised way is the plain one; other backends refuse the argument.
        super().__init__(momentum=momentum, synchronized=keras.backend.backend() == "tensorflow", **kwargs)

    def get_config(self) -> dict:
        """The stock configuration, without `synchronized`, so that a saved model loads on every backend."""
        config = super().get_config()
        del config["synchronized"]
        return config

    def call(self, inputs, training=None, mask=None):
        """Takes and gives `(batch, height, width, channels)`; a mask, or another rank, takes the stock way."""
        training = bool(training) and self.trainable
        if training and not self.renorm and _replicas() > 1:  # the stock way with a mask would not be synchronised
            fused = mask is None and self._fusible(inputs)
            return self._synchronised_fused(inputs) if fused else self._synchronised(inputs, mask)
        if mask is not None or not self._fusible(inputs):
            return super().call(inputs, training=training, mask=mask)
        return self._fused(inputs, training)

    def _synchronised(self, inputs, mask):
        import tensorflow as tf

        wide = counted = tf.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        channels, axis = inputs.shape[self.axis], self.axis % len(inputs.shape)
        rest = [i for i in range(len(inputs.shape)) if i != axis]
        count = tf.cast(tf.size(wide), wide.dtype) / channels
        if mask is not None:
            kept = tf.broadcast_to(tf.cast(mask, "bool")[..., None], tf.shape(wide))
            counted = tf.where(kept, wide, tf.zeros_like(wide))
            count = tf.reduce_sum(tf.cast(kept, wide.dtype)) / channels
        sums = [tf.reduce_sum(counted, rest), tf.reduce_sum(counted * counted, rest), count[None]]
        totals = tf.custom_gradient(lambda x: (_total(x), _total))(tf.concat(sums, 0))
        count = totals[-1]
        mean = totals[:channels] / count
        variance = tf.maximum(totals[channels:-1] / count - mean * mean, 0.0)
        self._move(tf.cast(mean, self.moving_mean.dtype), tf.cast(variance, self.moving_variance.dtype))
        scale = tf.math.rsqrt(variance + self.epsilon)
        if self.scale:
            scale *= keras.ops.cast(self.gamma, wide.dtype)
        offset = -mean * scale
        if self.center:
            offset += keras.ops.cast(self.beta, wide.dtype)
        shape = [channels if i == axis else 1 for i in range(len(inputs.shape))]
        outputs = wide * tf.reshape(scale, shape) + tf.reshape(offset, shape)
        return tf.cast(outputs, self.compute_dtype)

    def _synchronised_fused(self, inputs):
        import tensorflow as tf

        channels = inputs.shape[-1]
        gamma = self.gamma.value if self.scale else tf.ones(channels)
        beta = self.beta.value if self.center else tf.zeros(channels)
        outputs, mean, variance = _synchronised_kernel(inputs, gamma, beta, self.epsilon)
        self._move(mean, variance)
        return tf.cast(outputs, self.compute_dtype)

    def _fusible(self, inputs) -> bool:
        return (
            keras.backend.backend() == "tensorflow"
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and not self.renorm
            and self.epsilon >= SMALLEST_FUSED_EPSILON
            and self.variable_dtype == "float32"  # the kernel's, whatever the inputs are
            and keras.backend.standardize_dtype(inputs.dtype) in ("float32", "bfloat16", "float16")
        )

    def _fused(self, inputs, training: bool):
        import tensorflow as tf

        channels = inputs.shape[-1]
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            self.gamma.value if self.scale else tf.ones(channels),
            self.beta.value if self.center else tf.zeros(channels),
            mean=None if training else self.moving_mean.value,
            variance=None if training else self.moving_variance.value,
            epsilon=self.epsilon,
            is_training=training,
        )
        if training:
            self._update(mean, variance, count=tf.size(inputs) // channels)
        return tf.cast(outputs, self.compute_dtype)

    def _update(self, mean, variance, count) -> None:
        count = keras.ops.cast(count, "float32")
        # The kernel gives the unbiased variance, Keras keeps the biased one.
        self._move(mean, variance * (count - 1) / count)

    def _move(self, mean, variance) -> None:
        old, new = self.momentum, 1 - self.momentum
        self.moving_mean.assign(self.moving_mean * old + mean * new)
        self.moving_variance.assign(self.moving_variance * old + variance * new)


def _synchronised_kernel(inputs, gamma, beta, epsilon: float):
    """Normalised inputs `(batch, height, width, channels)`, and mean and variance of the batch of all replicas.

    By the fused kernels: their statistics of the replica's own part are joined, then they normalise with what is given.
    Backwards, x̂ being what is normalised, dx = γ/σ (dy - mean(dy) - x̂ mean(dy x̂)), with means over all replicas; the
    kernel for given statistics makes the first term and the local sums of dy and of dy x̂ in one pass, and what is left
    is an x + b for each channel. Source: Ioffe & Szegedy 2015 (arXiv 1502.03167), section 3.
    """
    import tensorflow as tf

    channels = inputs.shape[-1]

    def total(*vectors):
        return tf.split(_total(tf.concat(vectors, 0)), [v.shape[0] for v in vectors])

    def given(x, scale, offset, mean, variance):
        return tf.raw_ops.FusedBatchNormV3(
            x=x, scale=scale, offset=offset, mean=mean, variance=variance, epsilon=epsilon, is_training=False
        ).y

    @tf.custom_gradient
    def normalised(x, gamma, beta):
        none = tf.zeros(0)
        own = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=gamma, offset=beta, mean=none, variance=none, epsilon=epsilon, is_training=True
        )
        count = tf.cast(tf.size(x) // channels, tf.float32)
        # The kernel gives the unbiased variance.
        squares = own.batch_variance * (count - 1) + own.batch_mean * own.batch_mean * count
        sums, squares, counts = total(own.batch_mean * count, squares, count[None])
        mean = sums / counts
        variance = tf.maximum(squares / counts - mean * mean, 0.0)

        def gradient(dy, *_):
            local = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=dy,
                x=x,
                scale=gamma,
                reserve_space_1=mean,
                reserve_space_2=variance,
                reserve_space_3=none,
                epsilon=epsilon,
                is_training=False,
            )
            dgamma, dbeta = total(local.scale_backprop, local.offset_backprop)
            spread = tf.math.rsqrt(variance + epsilon)
            slope = -gamma * spread * spread * dgamma / counts
            offset = -gamma * spread * dbeta / counts - slope * mean
            # The kernel multiplies by 1/√(1 - ε + ε).
            rest = given(x, slope, offset, tf.zeros(channels), tf.fill([channels], 1.0 - epsilon))
            return local.x_backprop + rest, local.scale_backprop, local.offset_backprop

        return (given(x, gamma, beta, mean, variance), mean, variance), gradient

    return normalised(inputs, gamma, beta)


def _total(vector):
    """Summed over all replicas; how long that takes is noted where `noted_waits` asks for it."""
    import tensorflow as tf

    context, noted = tf.distribute.get_replica_context(), _waits.get()
    if noted is None:
        return context.all_reduce(tf.distribute.ReduceOp.SUM, vector)
    with tf.control_dependencies([vector]):
        began = tf.timestamp()
    with tf.control_dependencies([began]):
        summed = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(vector))
    with tf.control_dependencies([summed]):
        noted.append(tf.timestamp() - began)
    return summed


def _replicas() -> int:
    """How many replicas run this step together; 1 outside of a `tf.distribute` strategy."""
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context.num_replicas_in_sync if context else 1
