"""What the trainer, the evaluation and the report need of a task; each kind of task is a file beside this one."""

from collections.abc import Callable
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from bigkeras.data.source import Source, Splits


class Task(Protocol):
    """A task fitted on a training split. `kind` is the preprocessor's: "image", "text", "masked_text" or "pairs"."""

    kind: str

    @property
    def preprocessor(self) -> Any: ...

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def model_arguments(self) -> dict[str, Any]:
        """What the data decides of a model: its keyword arguments."""

    def ready(self, splits: Splits) -> Splits:
        """The splits with everything done that is done once, before the first epoch."""

    def opened(self, source: Source) -> Source:
        """The source as `dataset` reads it."""

    def lengths(self, source: Source) -> np.ndarray | None:
        """How long each example of an opened source is, int `(n,)`, of pairs `(n, 2)`; None if all are equally long."""

    def dataset(
        self, source: Source, rows: tf.data.Dataset, batch_size: int, training: bool, on_bad: Callable[[int], None]
    ) -> tf.data.Dataset:
        """Batches `(x, label, weight)` of an opened source in the order of the plan's rows."""

    def prepare(self, columns: Any) -> Any:
        """The raw columns of one example as the pipeline prepares them in evaluation; fails where it would."""

    def normalise(self, x: Any) -> Any:
        """A batch of `dataset` as the model takes it, inside the step."""

    def step_layers(self, seed: int) -> list[keras.layers.Layer]:
        """The augmentation that runs inside the train step."""

    def sample(self, source: Source, most: int) -> Any:
        """Some model input of a source, for layers that adapt to the data."""

    def shown(self, source: Source, index: int) -> Any:
        """One example as a report shows it: uint8 pixels `(height, width, channels)`, or a text."""

    def files(self, splits: Splits) -> dict[str, bytes]:
        """What export needs in a run directory: the preprocessor's files, and examples for the parity gate.

        These are of the validation part where there is one, and of the training part else.
        """
