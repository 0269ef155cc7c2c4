"""The cross entropy of tokens, where logits of a whole vocabulary are most of a step's memory traffic.

TensorFlow's sparse cross entropy takes ten times as long as its softmax on a CPU, and the gradient of picking one logit
of each row is a tensor of zeros as large as all. So softmax is what is computed, and the gradient is written out.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from bigkeras.recipe import check_smoothing


def token_cross_entropy(label_smoothing: float = 0.0) -> Callable:
    """Cross entropy of logits `(…, vocabulary)` with int labels `(…)`: nats, one value a token.

    With smoothing as Keras' for one-hot targets, which would be as large as the logits.
    """
    check_smoothing(label_smoothing)

    def loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def smoothed(logits: tf.Tensor) -> tuple[tf.Tensor, Callable]:
            shares, nats, chosen = _parts(labels, logits)
            if label_smoothing:
                nats += label_smoothing * (chosen - tf.reduce_mean(logits, -1))

            def gradient(above: tf.Tensor) -> tf.Tensor:
                size = tf.shape(logits)[-1]
                everywhere = label_smoothing / tf.cast(size, above.dtype)
                dense = above[..., None] * shares - (above * everywhere)[..., None]
                places = tf.range(tf.size(labels))
                rows = tf.stack([places, tf.reshape(tf.cast(labels, tf.int32), (-1,))], 1)
                at_labels = tf.reshape(above * (1 - label_smoothing), (-1,))
                flat = tf.tensor_scatter_nd_sub(tf.reshape(dense, (-1, size)), rows, at_labels)
                return tf.reshape(flat, tf.shape(logits))

            return nats, gradient

        return smoothed(tf.cast(logits, tf.float32))

    return loss


def token_nats(labels: Any, logits: Any) -> tf.Tensor:
    """-ln of the probability of each label, as `token_cross_entropy` without smoothing; not to be differentiated."""
    return _parts(labels, tf.cast(logits, tf.float32))[1]


def divergence(first: Any, second: Any) -> Any:
    """Kullback and Leibler's from each answer to the other, their sum in nats: of logits `(…, classes)`, `(…)`.

    Σ (p − q)(ln p − ln q), whose gradient is written out: of large vocabularies the passes over memory are what costs.
    """

    @tf.custom_gradient
    def both(a: Any, b: Any) -> tuple[Any, Callable]:
        p, q = tf.nn.softmax(a), tf.nn.softmax(b)
        ratio = (a - tf.reduce_logsumexp(a, -1, keepdims=True)) - (b - tf.reduce_logsumexp(b, -1, keepdims=True))
        difference = p - q

        def gradient(above: Any) -> tuple[Any, Any]:
            above = above[..., None]
            there = p * (ratio - tf.reduce_sum(p * ratio, -1, keepdims=True)) + difference
            back = q * (tf.reduce_sum(q * ratio, -1, keepdims=True) - ratio) - difference
            return above * there, above * back

        return tf.reduce_sum(difference * ratio, -1), gradient

    return both(tf.cast(first, tf.float32), tf.cast(second, tf.float32))


def _parts(labels: Any, logits: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Softmax of the logits; -ln of its value at each label, exact however small that is; the logit there."""
    shares = tf.nn.softmax(logits)

    def at(values: tf.Tensor, places: Any) -> tf.Tensor:
        return tf.gather(values, places, axis=-1, batch_dims=len(logits.shape) - 1)

    # The likeliest token's share is never smaller than 1 over the vocabulary; the step's accuracy asks for it, too.
    best = tf.argmax(logits, -1, labels.dtype)
    log_sum = at(logits, best) - tf.math.log(at(shares, best))
    chosen = at(logits, labels)
    return shares, log_sum - chosen, chosen
