"""The step of Keras' own fit on JAX, with what `step.py` does on TensorFlow and Keras does otherwise.

Keras' `use_ema` is another average: it leaves out what is no trainable weight (the statistics of batch normalisation),
and begins with the first weights at full `decay`, so that short trainings remember them. Its
`gradient_accumulation_steps` counts every micro-batch alike, whatever it holds of examples and of filling.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from bigkeras.signals import Interrupted


class JaxStep(keras.Model):
    """A functional model under Keras' own fit, with what `Control` asks of a step.

    With a decay, its weights are averaged after each step: average += (1 - d) (weight - average). After n steps
    d = min(decay, (1 + n) / (10 + n)). Averages, those of `take_in` too, are variables of the optimizer, so they are
    parted over the devices and written in checkpoints with it; `evaluate` scores them. Made of a network's inputs and
    outputs.
    """

    confusion = None
    steps_left = 0  # of the epoch
    plain: Callable[[], keras.Model]  # a function, since Keras would count the network's weights twice
    micro_batches = 1
    augment: Callable | None = None  # of pixels, labels, weights and the number of steps before (jax_augmentation.py)
    consistency = 0.0
    decay = 0.0
    # Of the averages among the optimizer's variables; kept here themselves, they would be weights of the model.
    first: int | None = None

    def begin(self, network: keras.Model, decay: float | None, micro_batches: int, averages: bool = False) -> None:
        """Adds the averages to the optimizer, which is compiled and built; `network` is what this was made of.

        `averages`: whether there are some without a decay, too.
        """
        self.plain, self.micro_batches = lambda: network, micro_batches
        if not (decay or averages):
            return
        self.decay, self.first = decay or 0.0, len(self.optimizer.variables)
        # Where the loss is scaled, the scale's variables stand before those of the optimizer inside.
        inner: Any = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        for variable in self._averaged():
            average = inner.add_variable_from_reference(variable, name="average")
            average.assign(np.array(variable))  # a copy: JAX gives the memory of both away in the step

    @property
    def network(self) -> keras.Model:
        """The functional model that is trained, without what only training needs."""
        return self.plain()

    def state(self) -> list[keras.Variable]:
        """Every variable of the run, in a fixed order: what a checkpoint holds. The metrics must have been built."""
        # Keras holds the values elsewhere while it fits.
        self.jax_state_sync()
        return [*self.variables, *self.optimizer.variables, *(v for m in self.metrics for v in m.variables)]

    def _averaged(self) -> list[Any]:
        return [v for v in self._state_order() if v.dtype in ("float32", "float64")]

    def _state_order(self) -> list[Any]:
        return [*self.trainable_variables, *self.non_trainable_variables]

    def _places(self) -> range:
        count = len(self.optimizer.variables)
        return range(count if self.first is None else self.first, count)

    def _count(self, optimizer: Any) -> Any:
        """How many steps the optimizer, whose variables have these values, has made."""
        place = next(i for i, v in enumerate(self.optimizer.variables) if v is self.optimizer.iterations)
        return optimizer[place]

    def train_step(self, state: Any, data: Any) -> Any:
        """Keras' own step on JAX, of micro-batches where there are several, then the averages of the weights."""
        if self.augment is not None:
            x, y, weight = data
            data = *self.augment(x, y, weight, self._count(state[2])), weight
        make = self._accumulated if self.micro_batches > 1 else super().train_step
        logs, (trainable, others, optimizer, metrics) = make(state, data)
        if not self.decay:
            return logs, (trainable, others, optimizer, metrics)
        optimizer = list(optimizer)
        values = {id(v): value for v, value in zip(self._state_order(), [*trainable, *others], strict=True)}
        count = ops.cast(self._count(optimizer), "float32")
        decay = ops.minimum(self.decay, (1 + count) / (10 + count))
        for place, variable in zip(self._places(), self._averaged(), strict=True):
            change = values[id(variable)] - optimizer[place]
            optimizer[place] = optimizer[place] + ops.cast(1 - decay, change.dtype) * change
        return logs, (trainable, others, optimizer, metrics)

    def _accumulated(self, state: Any, data: Any) -> Any:
        """Keras' own step but for its gradients, which are summed over micro-batches, one after the other.

        Micro-batch k has the rows k, k + n, k + 2n, …, as on TensorFlow. The loss of each is a mean over its valid
        examples or tokens, so it counts by its share of those of the batch.
        """
        import jax

        trainable, others, optimizer, metrics = state
        total = ops.maximum(ops.sum(data[2]), 1)
        # Devices share the first axis of a batch, and so they do in its parts.
        parts = jax.tree.map(lambda d: ops.swapaxes(ops.reshape(d, (-1, self.micro_batches, *d.shape[1:])), 0, 1), data)
        gradients_of = jax.grad(self.compute_loss_and_updates, has_aux=True)

        def one(carried: Any, part: Any) -> Any:
            others, metrics, sums = carried
            x, y, weight = part
            gradients, (loss, answers, others, metrics) = gradients_of(
                trainable, others, metrics, x, y, weight, training=True, optimizer_variables=optimizer
            )
            share = ops.sum(weight) / total
            sums = [s + ops.cast(share, s.dtype) * g for s, g in zip(sums, gradients, strict=True)]
            logs, metrics = self._update_metrics_variables(metrics, loss, x, y, answers, weight)
            return (others, metrics, sums), logs

        zeros = [ops.zeros_like(value) for value in trainable]
        (others, metrics, sums), logs = jax.lax.scan(one, (others, metrics, zeros), parts)
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, sums, trainable)
        return {name: values[-1] for name, values in logs.items()}, (trainable, others, optimizer, metrics)

    def compute_loss_and_updates(
        self, trainable: Any, others: Any, metrics: Any, x: Any, y: Any, sample_weight: Any,
        training: bool = False, optimizer_variables: Any = None,
    ) -> Any:  # fmt: skip
        """Keras' own; with consistency every example goes in twice, and the first answers are given."""
        twice = training and self.consistency
        if twice:
            x = keras.tree.map_structure(lambda part: ops.concatenate([part, part]), x)
        loss, (unscaled, answers, others, metrics) = super().compute_loss_and_updates(
            trainable, others, metrics, x, y, sample_weight, training, optimizer_variables
        )
        answers = ops.split(answers, 2)[0] if twice else answers
        return loss, (unscaled, answers, others, metrics)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Keras' own; with consistency of both answers, and of what parts them."""
        if not (training and self.consistency):
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        pair = ops.split(y_pred, 2)
        loss = sum(super(JaxStep, self).compute_loss(x, y, one, sample_weight, training) for one in pair) / 2
        first, second = (ops.cast(one, "float32") for one in pair)
        ratio = ops.log_softmax(first) - ops.log_softmax(second)
        apart = ops.sum((ops.softmax(first) - ops.softmax(second)) * ratio, axis=-1)
        share = ops.sum(apart * sample_weight) / ops.maximum(ops.sum(sample_weight), 1)
        return loss + self.consistency / 4 * share

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Keras' evaluate, on the averaged weights where there are."""
        self.swap_averages()
        try:
            scores = super().evaluate(*args, **kwargs)
        except Interrupted:
            self.swap_averages()
            raise
        # After any other error Keras has taken the variables' values away, and nothing goes on.
        self.swap_averages()
        return scores

    def take_in(self, count: int) -> None:
        """Makes the averages the mean of the weights and of the `count - 1` that were taken in before them."""
        self.jax_state_sync()
        for average, variable in self._pairs():
            held = np.array(average)
            average.assign(held + (np.array(variable) - held) / count)

    def _pairs(self) -> list[tuple[Any, Any]]:
        """Each average and its weight; none where there are no averages."""
        averages = [self.optimizer.variables[place] for place in self._places()]
        return list(zip(averages, self._averaged() if averages else [], strict=True))

    def swap_averages(self) -> None:
        """Exchanges the weights and their averages, where there are any; no step may be under way."""
        for average, variable in self._pairs():
            current = np.array(variable)
            variable.assign(np.array(average))
            average.assign(current)
