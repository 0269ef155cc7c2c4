"""Averages of the weights while Keras' own fit trains on JAX, as `step.py` keeps them on TensorFlow.

Keras' `use_ema` is another average: it leaves out what is no trainable weight (the statistics of batch normalisation),
and begins with the first weights at full `decay`, so that short trainings remember them.
"""

from typing import Any

import keras
import numpy as np
from keras import ops


class Averaging(keras.Model):
    """A functional model whose weights are averaged after each step: average += (1 - d) (weight - average).

    After n steps d = min(decay, (1 + n) / (10 + n)). The averages are variables of the optimizer, so they are parted
    over the devices and written in checkpoints with it; `evaluate` scores them. Made of a network's inputs and outputs.
    """

    decay = 0.0
    first = (
        0  # of the averages among the optimizer's variables; kept here themselves, they would be weights of the model
    )

    def begin(self, decay: float) -> None:
        """Adds the averages to the optimizer, which is compiled and built."""
        self.decay, self.first = decay, len(self.optimizer.variables)
        for variable in self._averaged():
            average = self.optimizer.add_variable_from_reference(variable, name="average")
            average.assign(np.array(variable))  # a copy: JAX gives the memory of both away in the step

    def _averaged(self) -> list[Any]:
        return [v for v in self._state_order() if v.dtype in ("float32", "float64")]

    def _state_order(self) -> list[Any]:
        return [*self.trainable_variables, *self.non_trainable_variables]

    def _places(self) -> range:
        return range(self.first, len(self.optimizer.variables))

    def train_step(self, state: Any, data: Any) -> Any:
        """Keras' own step on JAX, then the averages of the weights it ends with."""
        logs, (trainable, others, optimizer, metrics) = super().train_step(state, data)
        optimizer = list(optimizer)
        values = {id(v): value for v, value in zip(self._state_order(), [*trainable, *others], strict=True)}
        steps = next(i for i, v in enumerate(self.optimizer.variables) if v is self.optimizer.iterations)
        count = ops.cast(optimizer[steps], "float32")
        decay = ops.minimum(self.decay, (1 + count) / (10 + count))
        for place, variable in zip(self._places(), self._averaged(), strict=True):
            change = values[id(variable)] - optimizer[place]
            optimizer[place] = optimizer[place] + ops.cast(1 - decay, change.dtype) * change
        return logs, (trainable, others, optimizer, metrics)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Keras' evaluate, of the averages."""
        self.swap_averages()
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self.swap_averages()

    def swap_averages(self) -> None:
        """Exchanges the weights and their averages; no step may be under way."""
        for place, variable in zip(self._places(), self._averaged(), strict=True):
            average = self.optimizer.variables[place]
            current = np.array(variable)
            variable.assign(np.array(average))
            average.assign(current)
