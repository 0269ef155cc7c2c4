"""What happens between the steps of a run on Keras' JAX backend: the same as on TensorFlow, around Keras' own fit."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from bigkeras.control import Control
from bigkeras.data.source import Source
from bigkeras.jax_metrics import MACRO_F1, PLAIN_LOSS, TRAINED_LOSS
from bigkeras.jax_scores import TranslationScores

WEIGHTED = "weighted_"  # what Keras puts before the names of metrics of weighted batches
VALIDATED = "validated.keras"  # the model that is being scored, of a run that is trained


class JaxControl(Control):
    """Counts the steps that Keras' own fit makes, and takes its values back from JAX where they are looked at."""

    scores: TranslationScores | None = None
    modules: Sequence[str] = ()  # of layers of one's own

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """This one and a progress bar; what TensorBoard shows rests on TensorFlow's step."""
        if not self.log.quiet:
            self.shown = [self._bar()]
        return [self, *self.shown]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Counts, and saves or leaves where asked."""
        self.step.steps_left -= 1
        super().on_train_batch_end(batch, logs)

    def _check_loss(self, logs: Any) -> None:
        """As on TensorFlow: with a callback like this one, Keras has read the numbers of the step already."""
        super()._check_loss({"loss": logs.get(TRAINED_LOSS, 0.0)})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """As on TensorFlow, and under the same names."""
        named = {key.replace(WEIGHTED, ""): float(value) for key, value in logs.items()}
        losses = {"loss": TRAINED_LOSS, "val_loss": f"val_{PLAIN_LOSS}"}
        logs.clear()
        left_out = (TRAINED_LOSS, PLAIN_LOSS, f"val_{TRAINED_LOSS}", f"val_{PLAIN_LOSS}", MACRO_F1)
        logs.update({key: value for key, value in named.items() if key not in left_out})
        logs.update({key: named[name] for key, name in losses.items() if name in named})
        if not np.isfinite(logs["loss"]):
            self.first = self.began[1] + 1  # the loss is a mean over the epoch
            raise self.diverged(f"the loss is {logs['loss']}")
        super().on_epoch_end(epoch, logs)

    def _whole_scores(self, epoch: int) -> dict[str, float]:
        """Those of translations; of classes, Keras' own evaluate has measured them."""
        return {} if self.task.class_names else super()._whole_scores(epoch)

    def _translation_scores(self, validation: Source) -> dict[str, float]:
        """By a process on TensorFlow, which the model is written for. Nothing where it cannot be written."""
        model = self.directory / VALIDATED
        model.unlink(missing_ok=True)
        self.save_model(VALIDATED)
        if not model.exists():
            return {}
        self.scores = self.scores or TranslationScores(self.directory, validation, self.modules)
        try:
            return self.scores(model, self._leave_if_asked)
        finally:
            model.unlink(missing_ok=True)

    def close(self) -> None:
        """Ends the process that scores."""
        if self.scores:
            self.scores.close()

    def _set_metrics(self, values: list[np.ndarray]) -> None:
        self.step.jax_state_sync()
        super()._set_metrics(values)
