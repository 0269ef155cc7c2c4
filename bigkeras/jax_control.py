"""What happens between the steps of a run on Keras' JAX backend: the same as on TensorFlow, around Keras' own fit."""

from typing import Any

import keras
import numpy as np

from bigkeras.control import Control
from bigkeras.progress import progress_bar

WEIGHTED = "weighted_"  # what Keras puts before the names of metrics of weighted batches
# The metrics that are means over examples or tokens, as trained (with the weights of classes) and as validated.
TRAINED_LOSS, PLAIN_LOSS = "trained_loss", "plain_loss"


class JaxControl(Control):
    """Counts the steps that Keras' own fit makes, and takes its values back from JAX where they are looked at."""

    def callbacks(self, train: Any) -> list[keras.callbacks.Callback]:
        """This one and a progress bar; what TensorBoard shows rests on TensorFlow's step."""
        if not self.log.quiet:
            self.shown = [progress_bar(self.recipe.epochs, self.steps, self.recipe.batch_size, done=self.total_steps)]
        return [self, *self.shown]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Counts, and saves or leaves where asked."""
        self.step.steps_left -= 1
        super().on_train_batch_end(batch, logs)

    def _check_loss(self, logs: Any) -> None:
        """Nothing: to read a number here would make the host wait for every step. The epoch's end looks at it."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """As on TensorFlow, and under the same names."""
        named = {key.replace(WEIGHTED, ""): float(value) for key, value in logs.items()}
        losses = {"loss": TRAINED_LOSS, "val_loss": f"val_{PLAIN_LOSS}"}
        logs.clear()
        logs.update({key: value for key, value in named.items() if not key.endswith((TRAINED_LOSS, PLAIN_LOSS))})
        logs.update({key: named[name] for key, name in losses.items() if name in named})
        if not np.isfinite(logs["loss"]):
            raise self.diverged(f"the loss is {logs['loss']}")
        super().on_epoch_end(epoch, logs)

    def _whole_scores(self, epoch: int) -> dict[str, float]:
        return {}

    def _set_metrics(self, values: list[np.ndarray]) -> None:
        self.step.jax_state_sync()
        super()._set_metrics(values)
