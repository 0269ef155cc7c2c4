"""The train step under `model.fit`: the same training on one device and on many.

Stock Keras trains something else on several replicas where a batch does not divide, gradients are clipped, accumulated
or averaged over time, and fails where several steps run in one call. So the step is ours: the loss is a sum over the
global batch divided once by its number of valid examples; gradients are summed over micro-batches and replicas, then
clipped, then applied.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bigkeras.layers import noted_waits
from bigkeras.optimization import build_optimizer
from bigkeras.replicas import own_randomness, sum_over_replicas
from bigkeras.tasks.augmentation import applied
from bigkeras.tasks.cross_entropy import divergence, token_nats
from bigkeras.trackers import ConfusionMatrix, Perplexity

MANY = 1_000_000  # weights
ELEMENTWISE = ("SGD", "Adam", "AdamW", "Adagrad", "RMSprop", "Nadam", "Adamax", "Lion")
COMPILED = tuple(getattr(keras.optimizers, name) for name in ELEMENTWISE)


class Step(keras.Model):
    """A functional model under `fit`: batches `(x, labels, weights)` of the task's datasets go in.

    Without `num_classes` the answers are sequences of tokens: labels and weights `(batch, length)`, logits of a
    vocabulary. `penalty` is a function of the trainable variables that is added to the loss once a step (L1, L2);
    `ema` and `consistency` are as a recipe has them; `averages`: whether `take_in` will be called.
    With `xla` None, Keras decides whether the step is compiled.
    """

    def __init__(
        self,
        network: keras.Model,
        *,
        normalise: Callable[[Any], Any],
        loss: Callable[[Any, Any], Any],
        num_classes: int | None,
        class_weights: np.ndarray | None = None,
        augmentation: Sequence[keras.layers.Layer] = (),
        micro_batches: int = 1,
        clip_norm: float | None = None,
        ema: float | None = None,
        averages: bool = False,
        penalty: Callable[[list[Any]], Any] | None = None,
        consistency: float = 0.0,
        steps_per_call: int = 1,
        xla: bool | None = False,
    ):
        super().__init__(name="step", dtype="float32")  # pixels are not rounded before they are normalised
        self.network = network
        self.augmentation = list(augmentation)
        self.normalise, self.loss_function, self.penalty = normalise, loss, penalty
        self.num_classes, self.micro_batches, self.clip_norm, self.ema = num_classes, micro_batches, clip_norm, ema
        self.consistency = consistency
        self.class_weights = None if class_weights is None else tf.constant(class_weights, tf.float32)
        self.xla, self.steps_per_call = xla, steps_per_call
        self.trackers = {
            "loss": keras.metrics.Mean(name="loss"),
            "accuracy": keras.metrics.Mean(name="accuracy"),
        }
        if num_classes is None:
            self.trackers["perplexity"] = Perplexity(name="perplexity")
        elif num_classes > 5:
            self.trackers["top5_accuracy"] = keras.metrics.Mean(name="top5_accuracy")
        self.confusion = None if num_classes is None else ConfusionMatrix(num_classes)
        self.averages = [
            keras.Variable(v.numpy(), trainable=False, aggregation="only_first_replica", name=f"average_{i}")
            for i, v in enumerate(self._averaged() if ema or averages else [])
        ]
        self.steps_left = 0  # of the epoch, so that the last call from the host makes no step too many
        self.test_steps_left = 0
        # Of the step being made, where several are made at a time, not one after the other.
        self.number: Any = None
        self.clock: Callable[[Any], None] | None = None  # told what each step of this worker alone has taken, s
        self.settle: Callable[[], None] = lambda: None  # waits for the steps under way
        self.update: Callable[[list[Any]], None] = self._update
        self.train_function: Any = None
        self.test_function: Any = None
        self.built = True

    def begin(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Compiles for `optimizer`; to be called once, in the strategy's scope."""
        # Asked for "auto", Keras says whether it would compile; told to, it would go on without where it cannot.
        choice = "auto" if self.xla is None else False
        self.compile(optimizer=optimizer, steps_per_execution=self.steps_per_call, jit_compile=choice)
        if self.xla is None:
            self.xla = self.jit_compile
        build_optimizer(optimizer, self.network.trainable_variables)
        if self._compiles_update():
            self.update = tf.function(self._update, jit_compile=True)
        # In a replica, Keras' apply sums the gradients once more over the replicas: ours are summed already.
        getattr(optimizer, "inner_optimizer", optimizer)._all_reduce_sum_gradients = list

    def _compiles_update(self) -> bool:
        """Whether the update becomes one kernel for each variable, in the place of some twenty passes over memory.

        A step of 17 million embedded n-grams takes 48 ms in the place of 116; of few it is not worth compiling for.
        """
        trained = self.network.trainable_variables
        # Replicas meet in an update, which cannot be compiled by itself. Muon multiplies matrices, and a scaled loss
        # (mixed_float16) skips updates: neither is a pass over numbers alone.
        alone = type(self.optimizer) in COMPILED and not self.xla and not tf.distribute.has_strategy()
        return alone and sum(math.prod(v.shape) for v in trained) >= MANY

    def call(self, x: Any, training: bool = False) -> Any:
        """Raw batch to float32 logits `(batch, classes)`, of sequences `(batch, length, vocabulary)`."""
        return self.network(self.normalise(x), training=training)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [*self.trackers.values(), *([] if self.confusion is None else [self.confusion])]

    def state(self) -> list[keras.Variable]:
        """Every variable of the run, in a fixed order: what a checkpoint holds. No step is under way then."""
        self.settle()
        own = list(self.network.variables)
        for layer in self.augmentation:
            own += layer.variables
        own += self.averages + list(self.optimizer.variables)
        for metric in self.metrics:
            own += metric.variables
        unique = {id(v): v for v in own}
        return list(unique.values())

    # ------------------------------------------------------------------ one step

    def train_step(self, data: Any) -> tf.Tensor:
        """One optimizer step in a replica; gives the loss of the global batch."""
        x, labels, weights = data
        total = tf.maximum(sum_over_replicas(tf.reduce_sum(weights)), 1.0)
        variables = self.network.trainable_variables
        with tf.control_dependencies([total]):
            began = tf.timestamp() if self.clock else None
        waits: list[Any] = []
        with noted_waits(waits if self.clock else None):
            if self.micro_batches == 1:
                loss, gradients = self._gradients(x, labels, weights, total, variables, self.number)
            else:
                loss, gradients = self._accumulate(x, labels, weights, total, variables)
        if self.clock:
            gradients = self._timed(began, waits, gradients)
        self.update(sum_over_replicas(gradients))
        return sum_over_replicas(loss)

    def _update(self, gradients: list[Any]) -> None:
        """Clips, moves the weights, and their averages after them."""
        if self.clip_norm:
            # Where the loss is scaled (mixed_float16) so are its gradients, and the bound with them.
            bound = tf.cast(self.clip_norm * self._scale(tf.constant(1.0)), gradients[0].dtype)
            gradients, _ = tf.clip_by_global_norm(gradients, bound)
        self.optimizer.apply(gradients, self.network.trainable_variables)
        if self.ema:
            self._average()

    def _gradients(
        self, x: Any, labels: Any, weights: Any, total: Any, variables: list[Any], number: Any = None
    ) -> tuple[Any, list[Any]]:
        """Loss and gradients of a part of a batch; `number`, if it has one, is its own among the parts of all steps."""
        with tf.GradientTape() as tape:
            with own_randomness([self.network, *self.augmentation], number) as updates:
                x, targets = self._augment(x, self._targets(labels), weights)
                logits = self(twice(x) if self.consistency else x, training=True)
            updates()
            logits, *again = tf.split(logits, 2) if self.consistency else [logits]
            losses = learned = self._by_example(targets, logits)
            for answer in again:
                apart = tf.cast(divergence(logits, answer), losses.dtype)
                learned = (losses + self._by_example(targets, answer)) / 2 + self.consistency / 4 * apart
            data_loss = tf.reduce_sum(learned * tf.cast(weights, losses.dtype)) / tf.cast(total, losses.dtype)
            data_loss = tf.cast(data_loss, tf.float32)
            loss = data_loss
            if self.penalty is not None:
                # Every replica and every micro-batch adds its share.
                shares = tf.distribute.get_replica_context().num_replicas_in_sync * self.micro_batches
                loss += self.penalty(variables) / shares
            scaled = self._scale(loss)
        gradients = tape.gradient(scaled, variables)
        # There is none for a weight of one's own model that the logits do not hang on: only weight decay moves it then.
        gradients = [tf.zeros(v.shape, v.dtype) if g is None else g for g, v in zip(gradients, variables, strict=True)]
        # On their way to parameter servers, the rows of an embedding stay rows, each of them once: a norm and a square
        # are of their sum.
        if self.number is None or self.micro_batches > 1:
            gradients = [tf.convert_to_tensor(g) for g in gradients]
        else:
            gradients = [rows_once(g) for g in gradients]
        self._count(losses, labels if self.num_classes is None else tf.argmax(targets, -1), logits, weights)
        return data_loss, gradients

    def _accumulate(self, x: Any, labels: Any, weights: Any, total: Any, variables: list[Any]) -> tuple[Any, list[Any]]:
        """Loss and gradients summed over the micro-batches, one after the other so that memory is that of one.

        Micro-batch k has the rows k, k + n, k + 2n, …: the same examples on one device and on several replicas.
        """
        parts = self.micro_batches

        # A length that differs from batch to batch is known to the running graph only.
        def parted(d: Any) -> Any:
            sizes = [size or tf.shape(d)[axis] for axis, size in enumerate(d.shape)]
            return tf.reshape(d, (-1, parts, *sizes[1:]))

        split = tf.nest.map_structure(parted, (x, labels, weights))
        loss, sums = tf.constant(0.0), [tf.zeros(v.shape, v.dtype) for v in variables]
        # Not a tf.while_loop: BatchNorm's sum over the replicas is not allowed in one.
        for k in range(parts):
            with tf.control_dependencies([loss, *sums]):
                px, plabels, pweights = tf.nest.map_structure(lambda d: tf.identity(d[:, k]), split)  # noqa: B023
                number = None if self.number is None else self.number * parts + k
                part_loss, gradients = self._gradients(px, plabels, pweights, total, variables, number)
                loss += part_loss
                sums = [s + g for s, g in zip(sums, gradients, strict=True)]
        return loss, sums

    def _timed(self, began: Any, waits: list[Any], gradients: list[Any]) -> list[Any]:
        """The gradients; when they are there, the clock is told how long they have taken since `began`, waits apart."""

        def tell(seconds: Any) -> Any:
            if self.clock:
                self.clock(float(seconds))
            return np.int64(0)

        with tf.control_dependencies(gradients):
            told = tf.numpy_function(tell, [tf.timestamp() - began - sum(waits)], tf.int64)
        with tf.control_dependencies([told]):
            return [tf.identity(gradient) for gradient in gradients]

    def _by_example(self, targets: Any, logits: Any) -> Any:
        losses = self.loss_function(targets, logits)
        if self.class_weights is None:
            return losses
        return losses * tf.cast(tf.linalg.matvec(targets, self.class_weights), losses.dtype)

    def _targets(self, labels: Any) -> Any:
        return labels if self.num_classes is None else tf.one_hot(labels, self.num_classes)

    def _augment(self, x: Any, targets: Any, weights: Any) -> tuple[Any, Any]:
        if not self.augmentation:
            return x, targets
        pixels, targets = applied(self.augmentation, tf.cast(x, tf.float32), targets, weights)
        return tf.ensure_shape(tf.cast(pixels, tf.float32), x.shape), targets

    def _scale(self, loss: Any) -> Any:
        return tf.cast(self.optimizer.scale_loss(loss), tf.float32)

    def _count(self, losses: Any, labels: Any, logits: Any, weights: Any) -> None:
        for name, values in self._measured(losses, labels, logits).items():
            # Flat: of a matrix Keras takes each row's mean first, and a token of a wide batch would count for less.
            self.trackers[name].update_state(tf.reshape(values, [-1]), tf.reshape(weights, [-1]))

    def _measured(self, losses: Any, labels: Any, logits: Any) -> dict[str, Any]:
        """What each tracker takes the weighted mean of, in the shape of the weights."""
        predictions = tf.argmax(logits, -1, labels.dtype)
        # With ==, batches of free size lose their shape.
        values = {"loss": losses, "accuracy": tf.cast(tf.equal(predictions, labels), tf.float32)}
        if "perplexity" in self.trackers:
            # The loss may be smoothed.
            values["perplexity"] = token_nats(labels, logits)
        if "top5_accuracy" in self.trackers:
            hits = tf.math.in_top_k(labels, tf.cast(logits, tf.float32), 5)
            values["top5_accuracy"] = tf.cast(hits, tf.float32)
        return values

    def test_step(self, data: Any) -> tf.Tensor:
        """Loss and metrics of a batch in a replica, without augmentation."""
        x, labels, weights = data
        logits = self(x, training=False)
        losses = self.loss_function(self._targets(labels), logits)
        self._count(losses, labels, logits, weights)
        if self.confusion is not None:
            self.confusion.update_state(tf.cast(labels, tf.int64), tf.argmax(logits, -1), weights)
        return tf.reduce_sum(losses * weights)

    # ------------------------------------------------------------------ averages of the weights

    def _averaged(self) -> list[Any]:
        return [v for v in self.network.variables if v.dtype in ("float32", "float64")]

    def _average(self) -> None:
        count = tf.cast(self.optimizer.iterations, tf.float32)
        decay = tf.minimum(self.ema, (1 + count) / (10 + count))
        for average, variable in zip(self.averages, self._averaged(), strict=True):
            average.assign(average + tf.cast(1 - decay, average.dtype) * (variable - average))

    def take_in(self, count: int) -> None:
        """Makes the averages the mean of the weights and of the `count - 1` that were taken in before them."""
        for average, variable in zip(self.averages, self._averaged(), strict=True):
            held = average.numpy()
            average.assign(held + (variable.numpy() - held) / count)

    def swap_averages(self) -> None:
        """Exchanges the weights and their averages, where there are any."""
        for average, variable in zip(self.averages, self._averaged() if self.averages else [], strict=True):
            current = variable.numpy()
            variable.assign(average.numpy())
            average.assign(current)

    # ------------------------------------------------------------------ the functions that fit and evaluate call

    def make_train_function(self, force: bool = False) -> None:
        """Several steps in one call from the host, in cross-replica context: Keras' own fails there."""
        if self.train_function is None or force:
            self.train_function = self._host_function(self.train_step, "steps_left")

    def make_test_function(self, force: bool = False) -> None:
        """The same for evaluation."""
        if self.test_function is None or force:
            self.test_function = self._host_function(self.test_step, "test_steps_left")

    def _host_function(self, function: Callable, left: str) -> Callable:
        """What fit and evaluate call with an iterator; `left` names the count of the steps that may still be made."""
        strategy = self.distribute_strategy
        # TPUStrategy compiles what it is to run, and nothing around it.
        compiled = self.xla and not isinstance(strategy, tf.distribute.TPUStrategy)

        @tf.function(jit_compile=compiled or None)
        def one(data: Any) -> Any:
            with synchronised(self.network, strategy):
                return strategy.experimental_local_results(strategy.run(function, args=(data,)))[0]

        @tf.function
        def several(iterator: Any, count: Any) -> Any:
            last = tf.constant(0.0)
            for _ in tf.range(count):
                last = one(next(iterator))
            return last

        def call(iterator: Any) -> dict[str, Any]:
            count = min(self.steps_per_call, getattr(self, left))
            setattr(self, left, getattr(self, left) - count)
            return {"loss": several(iterator, tf.constant(count))}

        return call

    def evaluate(self, *args: Any, steps: int | None = None, **kwargs: Any) -> Any:
        """Keras' evaluate, on the averaged weights where there are."""
        self.test_steps_left = self.validation_steps if steps is None else steps
        self.swap_averages()
        try:
            return super().evaluate(*args, steps=self.test_steps_left, **kwargs)
        finally:
            self.swap_averages()

    validation_steps = 0

    def get_metrics_result(self) -> dict[str, float]:
        return {name: float(metric.result()) for name, metric in self.trackers.items()}

    def _get_metrics_result_or_logs(self, logs: Any) -> dict[str, float]:
        return self.get_metrics_result()

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Nothing to build: the network and the optimizer are. Keras' own fails on many workers."""


@contextlib.contextmanager
def synchronised(network: keras.Model, strategy: tf.distribute.Strategy) -> Iterator[None]:
    """What is traced inside has stock batch normalisation take the statistics of all replicas, as our own does.

    Afterwards the layers are as they were: other backends would refuse a saved model that says `synchronized`.
    """
    several = strategy.num_replicas_in_sync > 1
    stock = [layer for layer in network._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    changed = [layer for layer in stock if several and not layer.synchronized]
    for layer in changed:
        layer.synchronized = True
    try:
        yield
    finally:
        for layer in changed:
            layer.synchronized = False


def twice(x: Any) -> Any:
    """A batch, and after it the same once more."""
    return tf.nest.map_structure(lambda part: tf.concat([part, part], 0), x)


def rows_once(gradient: Any) -> Any:
    """A gradient by rows with those added up that it has several times; another one as it is."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows, places = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, places, tf.size(rows))
    return tf.IndexedSlices(values, rows, gradient.dense_shape)


def penalty(l1: float, l2: float) -> Callable[[list[Any]], Any] | None:
    """l1 · Σ|w| + l2 · Σw² over kernels and embeddings, as a function of the trainable variables; None for 0 and 0."""
    if not l1 and not l2:
        return None

    def apply(variables: list[Any]) -> Any:
        kernels = [tf.cast(v, tf.float32) for v in variables if len(v.shape) > 1]
        return l1 * sum(tf.reduce_sum(tf.abs(k)) for k in kernels) + l2 * sum(tf.reduce_sum(k * k) for k in kernels)

    return apply
